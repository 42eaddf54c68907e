//! Style and script, compiled in; their addresses change with them.

use std::sync::LazyLock;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use kiln_digest::Sha256;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// The mark of the site.
pub(super) const ICON: &str = "/assets/icon.svg";
const MARK: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><path d="M4 28V15a12 12 0 0 1 24 0v13z" fill="#b4451f"/><path d="M11 28v-9a5 5 0 0 1 10 0v9z" fill="#ffd9a0"/></svg>"##;

static STYLE_PATH: LazyLock<String> = LazyLock::new(|| path("page.css", STYLE));
static SCRIPT_PATH: LazyLock<String> = LazyLock::new(|| path("page.js", SCRIPT));

fn path(name: &str, text: &str) -> String {
    let digest = hex::encode(Sha256::digest(text.as_bytes()));
    format!("/assets/{name}?{}", &digest[..12])
}

/// The address of the style.
pub(super) fn style() -> &'static str {
    &STYLE_PATH
}

/// The address of the script.
pub(super) fn script() -> &'static str {
    &SCRIPT_PATH
}

/// A file by its name.
pub(super) fn file(name: &str) -> Option<Response> {
    let (kind, text) = match name {
        "page.css" => ("text/css; charset=utf-8", STYLE),
        "page.js" => ("text/javascript; charset=utf-8", SCRIPT),
        "icon.svg" => ("image/svg+xml", MARK),
        _ => return None,
    };
    let kept = HeaderValue::from_static("public, max-age=31536000, immutable");
    let kind = HeaderValue::from_static(kind);
    Some(
        (
            [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, kept)],
            text,
        )
            .into_response(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn style_and_script_are_small_and_ask_nobody_else() {
        assert!(STYLE.len() + SCRIPT.len() < 50_000);
        for text in [STYLE, SCRIPT] {
            for outside in ["http:", "https:", "@import", "innerHTML", "eval("] {
                assert!(!text.contains(outside), "{outside}");
            }
        }
    }
}
