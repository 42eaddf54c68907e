//! What all pages have in common: their frame, states, times and sizes.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::session::Visitor;
use super::{ansi, assets};
use crate::store::Role;
use crate::wire::model::Status;
use crate::wire::time;

/// A page: its title, who looks at it, and what it shows.
pub(super) fn frame(title: &str, visitor: Option<&Visitor>, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Kiln" }
                link rel="stylesheet" href=(assets::style());
                link rel="icon" href=(assets::ICON) type="image/svg+xml";
                script src=(assets::script()) defer {}
            }
            body {
                a.skip href="#main" { "To the content" }
                header.top {
                    nav aria-label="Kiln" {
                        a.brand href="/" { "Kiln" }
                        a href="/" { "Builds" }
                        @if let Some(visitor) = visitor {
                            @if visitor.may(Role::Submit) { a href="/submit" { "Submit" } }
                            @if visitor.may(Role::Admin) { a href="/admin" { "Admin" } }
                        }
                    }
                    @if let Some(visitor) = visitor { (account(visitor)) }
                }
                main #main tabindex="-1" { (body) }
                footer {
                    span { "Times in " span data-zone { "UTC" } }
                    button.keys type="button" hidden { "Keys: ?" }
                }
            }
        }
    }
}

fn account(visitor: &Visitor) -> Markup {
    html! {
        div.account {
            span { (visitor.caller.name) }
            @if visitor.logged_in {
                form method="post" action="/logout" {
                    (proof(visitor))
                    button.plain { "Log out" }
                }
            }
        }
    }
}

/// What shows that a form is of this server's own page.
pub(super) fn proof(visitor: &Visitor) -> Markup {
    html! { input type="hidden" name="proof" value=(visitor.proof); }
}

/// How a state looks: its class, its word, and the path of its shape.
fn look(status: Status) -> (&'static str, &'static str, &'static str) {
    match status {
        Status::Queued | Status::StatusUnknown => (
            "queued",
            "queued",
            "M8 2.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 1 0 0-11z",
        ),
        Status::Working => ("running", "running", "M4.5 2.5l8 5.5-8 5.5z"),
        Status::Success => ("done", "done", "M3 8.5l3.5 3.5L13 4.5"),
        Status::Failure => ("failed", "failed", "M4 4l8 8M12 4l-8 8"),
        Status::InternalError => ("failed", "failed (server)", "M4 4l8 8M12 4l-8 8"),
        Status::Timeout => (
            "late",
            "timed out",
            "M8 2.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 1 0 0-11zM8 5v3.5l2.5 1.5",
        ),
        Status::Expired => (
            "late",
            "waited too long",
            "M8 2.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 1 0 0-11zM8 5v3.5l2.5 1.5",
        ),
        Status::Cancelled => (
            "late",
            "cancelled",
            "M8 2.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 1 0 0-11zM4.2 4.2l7.6 7.6",
        ),
    }
}

/// The state's word.
pub(super) fn word(status: Status) -> &'static str {
    look(status).1
}

/// The class of what is in a state.
pub(super) fn class(status: Status) -> &'static str {
    look(status).0
}

/// A state as shape, word and colour.
pub(super) fn state(status: Status) -> Markup {
    let (class, word, path) = look(status);
    html! {
        span class={ "state " (class) } {
            svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" {
                path d=(path) {}
            }
            (word)
        }
    }
}

/// A moment (nanoseconds since 1970); script shows it in the reader's zone.
pub(super) fn moment(nanoseconds: i64) -> Markup {
    let stamp = time::stamp(nanoseconds);
    let shown = jiff::Timestamp::from_nanosecond(i128::from(nanoseconds)).map_or_else(
        |_| stamp.clone(),
        |moment| moment.strftime("%-d %b %H:%M").to_string(),
    );
    html! { time datetime=(stamp) { (shown) " UTC" } }
}

/// A duration in words: `1 h 3 min`, `2 min 5 s`, `1.4 s`.
pub(super) fn span(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..10 => format!("{:.1} s", seconds.max(0.0)),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole / 60 % 60),
    }
}

/// A size: kB below a megabyte, else MB with at most one digit behind the point.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1000 => format!("{bytes} B"),
        1000..1_000_000 => format!("{} kB", bytes.div_ceil(1000)),
        1_000_000..100_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{} MB", grouped(bytes / 1_000_000)),
    }
}

/// `1234567` as `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things: `1 package`, `3 packages`.
pub(super) fn several(number: u64, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        _ => format!("{} {thing}s", grouped(number)),
    }
}

/// A digest that is shortened; script adds a button that copies all of it.
pub(super) fn digest(text: &str) -> Markup {
    let short: String = text.chars().take(12).collect();
    html! { code.digest title=(text) data-copy=(text) { (short) "…" } }
}

/// A horizontal bar from a part of the width to another, in thousandths.
pub(super) fn bar(class: &str, from: f64, to: f64) -> Markup {
    let part = |value: f64| (value.clamp(0.0, 1.0) * 1000.0).round();
    let (from, to) = (part(from), part(to));
    html! {
        svg class={ "bar " (class) } viewBox="0 0 1000 8" preserveAspectRatio="none" aria-hidden="true" {
            rect.ground width="1000" height="8" {}
            rect.full x=(from) width=((to - from).max(4.0)) height="8" {}
        }
    }
}

/// Rows of a table at most. Builds write what stands in them, and a page is read on phones.
pub(super) const ROWS: usize = 1000;
/// Characters of a cell.
const CELL: usize = 160;

/// What a build wrote, as it fits a cell.
pub(super) fn cell(text: &str) -> String {
    let text = ansi::plain(text);
    match text.char_indices().nth(CELL) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Says how many rows a table has not got.
pub(super) fn more(all: usize) -> Markup {
    html! {
        @if all > ROWS { p.quiet { "and " (grouped((all - ROWS) as u64)) " more" } }
    }
}

/// Markup of a library that escapes on its own.
pub(super) fn trusted(svg: String) -> Markup {
    PreEscaped(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_easily() {
        assert_eq!(
            [span(1.44), span(59.6), span(125.0), span(3780.0)],
            ["1.4 s", "1 min 0 s", "2 min 5 s", "1 h 3 min"]
        );
        assert_eq!(
            [size(999), size(1001), size(12_345_678), size(2_500_000_000)],
            ["999 B", "2 kB", "12.3 MB", "2,500 MB"]
        );
        assert_eq!(
            [several(1, "package"), several(1234, "package")],
            ["1 package", "1,234 packages"]
        );
    }

    #[test]
    fn a_cell_is_short() {
        assert_eq!(cell("bash"), "bash");
        assert_eq!(cell(&"ä".repeat(9000)).chars().count(), CELL + 1);
    }

    #[test]
    fn what_strangers_wrote_is_text() {
        let hostile = "\"><script>alert(1)</script>";
        let page = frame(hostile, None, &digest(hostile)).into_string();
        assert!(!page.contains("<script>alert"), "{page}");
    }
}
