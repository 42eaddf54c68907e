//! A message to a topic, as ntfy takes it: the text is the body, the rest stands in headers.

use super::message::{Message, Verdict};
use super::post::post;
use super::{Tell, Trouble};

/// A topic.
pub(super) struct Ntfy {
    pub(super) url: String,
    pub(super) token: Option<String>,
}

impl Tell for Ntfy {
    fn tell(&self, message: &Message<'_>) -> Result<(), Trouble> {
        let (tag, priority) = match message.verdict() {
            Verdict::Good => ("white_check_mark", "default"),
            Verdict::Open => ("hourglass", "low"),
            Verdict::Bad => ("x", "high"),
        };
        let title = plain(&message.title());
        let bearer = self.token.as_deref().map(|token| format!("Bearer {token}"));
        let mut headers = vec![
            ("Title", title.as_str()),
            ("Tags", tag),
            ("Priority", priority),
            ("Click", &message.page),
        ];
        if let Some(bearer) = &bearer {
            headers.push(("Authorization", bearer));
        }
        post(&self.url, &headers, message.text().as_bytes())
    }
}

/// A header's value: whatever is no printable ASCII becomes a question mark.
fn plain(text: &str) -> String {
    let fits = |c: char| c == ' ' || c.is_ascii_graphic();
    text.chars()
        .map(|c| if fits(c) { c } else { '?' })
        .collect()
}
