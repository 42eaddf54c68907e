//! The status of a commit, as GitHub takes it.

use serde_json::json;

use super::message::{Message, Verdict};
use super::post::post;
use super::{Tell, Trouble};

/// Substitutions that name a commit.
const COMMITS: [&str; 3] = ["COMMIT_SHA", "REVISION_ID", "_COMMIT_SHA"];
/// Characters of a description at most.
const LONGEST: usize = 140;

/// Statuses below an address with `{commit}` in it.
pub(super) struct CommitStatus {
    pub(super) url: String,
    pub(super) token: String,
}

impl Tell for CommitStatus {
    fn tell(&self, message: &Message<'_>) -> Result<(), Trouble> {
        let substitutions = &message.record.build.substitutions;
        let commit = COMMITS.iter().find_map(|name| substitutions.get(*name));
        // A build of no commit has no status there; and one that has gone on must not be set back.
        let Some(commit) = commit.filter(|_| message.is_news()) else {
            return Ok(());
        };
        if !commit.bytes().all(|byte| byte.is_ascii_hexdigit()) || commit.is_empty() {
            return Err(Trouble::Lasting(format!("{commit:?} is no commit's name")));
        }
        let state = match (message.verdict(), message.status) {
            (Verdict::Open, _) => "pending",
            (Verdict::Good, _) => "success",
            (Verdict::Bad, "FAILURE" | "TIMEOUT") => "failure",
            (Verdict::Bad, _) => "error",
        };
        let description: String = message.title().chars().take(LONGEST).collect();
        let body = json!({
            "state": state,
            "target_url": message.page,
            "description": description,
            "context": "kiln",
        });
        let bearer = format!("Bearer {}", self.token);
        let headers = [
            ("Content-Type", "application/json"),
            ("Accept", "application/vnd.github+json"),
            ("Authorization", bearer.as_str()),
        ];
        post(
            &self.url.replace("{commit}", commit),
            &headers,
            body.to_string().as_bytes(),
        )
    }
}
