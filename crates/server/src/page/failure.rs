//! Why a build failed, as the terminal shows it.

use maud::{Markup, html};

use super::ansi;
use super::index::{Note, Tells};
use super::kept::Failure;
use super::view::View;
use crate::wire::model::Status;

/// Lines of each thing that Kiln recorded of a failure, and how many there are of each kind.
const LINES: usize = 100;
/// Lines of the log that stand for a failure that Kiln itself did not record.
const TAIL: u64 = 20;

/// What is shown on top of a build that did not go well.
pub(super) fn section(view: &View<'_>) -> Markup {
    let build = &view.record.build;
    let last = |fits: &dyn Fn(&Note) -> bool| view.notes.iter().rev().find(|note| fits(note));
    // Kiln's own words before the server's, which say less.
    let line = last(&|note| note.text.starts_with("error["))
        .or_else(|| last(&|note| note.tells == Tells::Failed))
        .or_else(|| last(&|note| note.tells == Tells::Error));
    let own: Vec<&Failure> = view.failures.iter().map(|record| &record.failure).collect();
    html! {
        section.why aria-labelledby="why" {
            h2 #why { (headline(build.status)) }
            @if let Some(detail) = &build.status_detail { p.failure { (ansi::plain(detail)) } }
            @for failure in own.iter().take(LINES) { (block(view, failure)) }
            @if own.is_empty() && build.status != Status::Cancelled { (last_lines(view)) }
            @if let Some(note) = line {
                p { a href={ "?attempt=" (view.number) "&line=" (note.line) "#L" (note.line) } { "Line " (note.line) " of the log" } }
            }
        }
    }
}

fn headline(status: Status) -> &'static str {
    match status {
        Status::Timeout => "It took longer than it may",
        Status::Expired => "It waited longer than it may",
        Status::Cancelled => "It was stopped",
        _ => "Why it failed",
    }
}

fn block(view: &View<'_>, failure: &Failure) -> Markup {
    // Messages name files of the attempt as the step knows them.
    let workspace = view.attempt.workspace().display().to_string();
    let text = |text: &str| -> String {
        let lines = text
            .lines()
            .take(LINES)
            .map(|line| ansi::plain(&line.replace(&workspace, "/workspace")));
        lines.collect::<Vec<_>>().join("\n")
    };
    html! {
        div.block {
            p.headline { strong { "error[" (failure.kind) "]: " } (text(&failure.message)) }
            @if let Some(origin) = &failure.origin { p { "at " code { (text(origin)) } } }
            @if let Some(excerpt) = &failure.excerpt { pre tabindex="0" { (text(excerpt)) } }
            @if let Some(layer) = &failure.layer { p { "layer " code { (text(layer)) } } }
            @if let Some(package) = &failure.package { p { "package " code { (text(package)) } } }
            @for cause in failure.causes.iter().take(LINES) { p { "because " (text(cause)) } }
            @if let Some(status) = &failure.status { p { "it ended with " (text(status)) } }
            @if let Some(command) = &failure.command { pre tabindex="0" { (text(&command.join(" "))) } }
            @if !failure.tail.is_empty() {
                p.quiet { "its last output" }
                pre tabindex="0" { (text(&failure.tail.join("\n"))) }
            }
            @for hint in failure.hints.iter().take(LINES) { p.hint { strong { "hint: " } (text(hint)) } }
        }
    }
}

fn last_lines(view: &View<'_>) -> Markup {
    let Some(path) = &view.log else {
        return html! {};
    };
    let read = view.page.logs.with(path, |index| {
        let from = (index.lines() + 1).saturating_sub(TAIL).max(1);
        index.read(path, from, TAIL)
    });
    let lines = read.unwrap_or_else(|_| Vec::new());
    html! {
        p.quiet { "its last output" }
        pre tabindex="0" {
            @for (_, line) in &lines { (ansi::plain(line)) "\n" }
        }
    }
}
