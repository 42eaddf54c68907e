//! Logging in with a token.

use axum::http::{StatusCode, header};
use axum::response::Response;
use maud::{Markup, html};

use super::parts::frame;
use super::{Page, Query, page_of, session, to};
use crate::wire::error::ApiError;

/// The page; `wrong` says why it is shown again.
pub(super) fn page(page: &Page, next: &str, wrong: Option<&str>) -> Markup {
    let body = html! {
        form.login method="post" action="/login" {
            h1 { "Log in" }
            input type="hidden" name="next" value=(own(next));
            input type="hidden" name="proof" value=(session::guest(page));
            label for="token" { "Token" }
            input #token type="password" name="token" autocomplete="current-password" required autofocus
                aria-describedby="hint";
            @if let Some(wrong) = wrong { p.failure role="alert" { (wrong) } }
            button.main { "Log in" }
            p #hint.quiet { "Who runs the server makes one with " code { "kiln token create NAME --role submit" } "." }
        }
    };
    frame("Log in", None, &body)
}

/// A page that loads itself once more, now as a page of this server.
pub(super) fn second_look(path: &str) -> Markup {
    html! {
        (maud::DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { "Kiln" }
                meta http-equiv="refresh" content={ "0; url=" (own(path)) };
            }
            body { p { a href=(own(path)) { "Go on" } } }
        }
    }
}

/// Only paths of this server are led to.
fn own(next: &str) -> &str {
    let is_path = next.starts_with('/')
        && !next.starts_with("//")
        && !next.contains(['\\', '\r', '\n', '\t'])
        && !next.starts_with("/login")
        && !next.starts_with("/logout");
    if is_path { next } else { "/" }
}

/// Begins a session, or shows the form again.
pub(super) fn enter(page: &Page, form: &Query) -> Result<Response, ApiError> {
    let next = form.get("next");
    match session::begin(page, form.get("token").trim())? {
        Some(cookie) => {
            let mut response = to(own(next));
            response.headers_mut().insert(header::SET_COOKIE, cookie);
            Ok(response)
        }
        None => {
            let wrong = Some("This server does not know the token.");
            let again = self::page(page, next, wrong);
            Ok(page_of(StatusCode::UNAUTHORIZED, &again))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_leads_to_this_server_only() {
        for next in [
            "https://x",
            "//x",
            "/\\x",
            "",
            "/login",
            "javascript:x",
            "/a\nb",
        ] {
            assert_eq!(own(next), "/", "{next:?}");
        }
        assert_eq!(own("/builds/x?attempt=1"), "/builds/x?attempt=1");
    }
}
