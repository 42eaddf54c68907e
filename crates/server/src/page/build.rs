//! The page of one build: its answer on top, then its steps, log, layers, and what is in the image.

use maud::{Markup, html};

use super::history::{self, LOOKED_THROUGH};
use super::index::{Note, Tells};
use super::parts::{self, ROWS, bar, cell, digest, frame, moment, more, span, state};
use super::session::Visitor;
use super::view::View;
use super::{
    Page, Query, ansi, artifacts, attempt_of, boots, failure, find, image, kept, log, names, submit,
};
use crate::store::{Record, Role};
use crate::wire::error::ApiError;
use crate::wire::model::{Status, Step};
use crate::wire::time;

/// The page.
pub(super) fn page(
    page: &Page,
    id: &str,
    visitor: &Visitor,
    query: &Query,
) -> Result<Markup, ApiError> {
    let record = find(page, id)?;
    let number = attempt_of(&record, query)?;
    let store = &page.server.store;
    let log = page.server.log(id, number);
    let notes = log
        .as_ref()
        .map(|path| page.logs.with(path, |index| Ok(index.notes().to_vec())));
    let attempt = page.server.attempt(id, number);
    let view = View {
        page,
        record: &record,
        number,
        attempts: store.attempts(id).map_err(ApiError::internal)?,
        all: store
            .newest(None, LOOKED_THROUGH, |_| true)
            .map_err(ApiError::internal)?,
        log,
        notes: notes
            .transpose()
            .map_err(ApiError::internal)?
            .into_iter()
            .flatten()
            .collect(),
        failures: kept::failures(&attempt),
        attempt,
    };
    let build = &record.build;
    let live = !build.status.is_final();
    let body = html! {
        div #live data-live data-events=[live.then(|| format!("/builds/{id}/events"))] {
            (head(&view, visitor))
            (submit::go_on(&record, visitor))
            (answer(&view))
            (steps(&view))
        }
        (log::section(page, &record, number, query))
        div #after data-live {
            (layers(&view))
            (image::section(&view))
            (origin(&view))
        }
    };
    let title = format!("{} {}", names::of(page, &record), parts::word(build.status));
    Ok(frame(&title, Some(visitor), &body))
}

fn head(view: &View<'_>, visitor: &Visitor) -> Markup {
    let (record, build) = (view.record, &view.record.build);
    let running = build.status == Status::Working;
    let began = history::times(record).map(|(began, _)| began);
    let expected = history::expected(record, &view.all);
    html! {
        div.head {
            div {
                p.crumbs { a href="/" { "Builds" } " / " code.id data-copy=(build.id) { (build.id.get(..8).unwrap_or(&build.id)) } }
                h1 aria-live="polite" { (state(build.status)) " " (names::of(view.page, record)) }
            }
            @if visitor.may(Role::Submit) { (actions(record, visitor)) }
        }
        dl.facts {
            @if let Some(taken) = history::taken(record, time::now()) {
                div { dt { "Took" } dd {
                    span data-since=[began.filter(|_| running).map(|began| began / 1_000_000)] { (span(taken)) }
                    @if let Some(expected) = expected { span.quiet { " · usually " (span(expected)) } }
                } }
                @if let (true, Some(expected)) = (running, expected) {
                    div { dt { "Left" } dd { (left(taken, expected)) (bar("thin", 0.0, taken / expected.max(1.0))) } }
                }
            }
            div { dt { "Asked for" } dd { (moment(record.created)) " by " (record.who) " · " (history::trigger(record)) } }
            @if view.attempts.len() > 1 { div { dt { "Attempt" } dd { (attempts(view)) } } }
            @if let Some(first) = &record.retry_of {
                div { dt { "Again" } dd { a href={ "/builds/" (first) } { "the build before" } } }
            }
            @if !build.tags.is_empty() {
                div { dt { "Tags" } dd { @for tag in &build.tags { span.tag { (tag) } } } }
            }
        }
        @for warning in &build.warnings { p.warning { (ansi::plain(&warning.text)) } }
    }
}

fn left(taken: f64, expected: f64) -> String {
    match expected - taken {
        left if left > 1.0 => format!("about {}", span(left)),
        late => format!("any moment; {} longer than usual", span(-late)),
    }
}

fn attempts(view: &View<'_>) -> Markup {
    let id = &view.record.build.id;
    html! {
        (view.number) " of " (view.attempts.len()) " "
        span.attempts {
            @for attempt in &view.attempts {
                a href={ "/builds/" (id) "?attempt=" (attempt.number) } aria-current=[(attempt.number == view.number).then_some("true")]
                    title=[attempt.reason.as_deref()] { (attempt.number) }
            }
        }
        @if let Some(reason) = view.attempts.iter().find(|attempt| attempt.number == view.number).and_then(|attempt| attempt.reason.as_deref()) {
            span.quiet { " · " (ansi::plain(reason)) }
        }
    }
}

/// Cancelling asks once more, in place.
fn actions(record: &Record, visitor: &Visitor) -> Markup {
    let (id, status) = (&record.build.id, record.build.status);
    html! {
        div.actions {
            @if status.is_final() {
                form method="post" action={ "/builds/" (id) "/retry" } {
                    (parts::proof(visitor))
                    button.main { "Build again" }
                }
            } @else {
                details.ask {
                    summary { "Cancel" }
                    form method="post" action={ "/builds/" (id) "/cancel" } {
                        (parts::proof(visitor))
                        p { "What it has done so far stays in its log." }
                        button.danger { "Cancel this build" }
                    }
                }
            }
        }
    }
}

/// What the reader wants to know first.
fn answer(view: &View<'_>) -> Markup {
    let build = &view.record.build;
    match build.status {
        Status::Queued | Status::StatusUnknown => {
            let why = view.page.server.waits().get(&build.id).cloned();
            html! { section.why { p { (why.unwrap_or_else(|| "It starts at once.".to_owned())) } } }
        }
        Status::Working => html! {
            @let note = view.notes.iter().rev().find(|note| note.tells == Tells::Running);
            @if let Some(note) = note { p.now { "Now: " strong { (note.text) } } }
        },
        Status::Success => html! { (boots::section(view)) (artifacts::section(view)) },
        _ => html! { (failure::section(view)) (boots::section(view)) },
    }
}

/// Seconds behind the build's beginning from which a step ran, until which.
fn reach(step: &Step, began: i64, now: i64) -> Option<(f64, f64)> {
    let timing = step.timing.as_ref()?;
    let from = time::read_stamp(timing.start_time.as_deref()?)?;
    let to = timing.end_time.as_deref().and_then(time::read_stamp);
    Some((
        history::seconds(began, from),
        history::seconds(began, to.unwrap_or(now)),
    ))
}

fn steps(view: &View<'_>) -> Markup {
    let build = &view.record.build;
    let now = time::now();
    let began = history::times(view.record);
    let whole = history::taken(view.record, now).unwrap_or(1.0).max(0.001);
    let shown = build.steps.iter().enumerate();
    html! {
        section aria-labelledby="steps" {
            h2 #steps { "Steps" }
            div.scrolls tabindex="0" role="group" aria-labelledby="steps" {
                table.steps {
                    thead { tr {
                        th scope="col" { "State" } th scope="col" { "Step" } th scope="col" { "Waits for" }
                        th.number scope="col" { "Time" } th.wide scope="col" { "When" }
                    } }
                    tbody {
                        @for (at, step) in shown {
                            @let reach = began.and_then(|(began, _)| reach(step, began, now));
                            tr {
                                td { (state_of(step, build.status)) }
                                th scope="row" { (called(step, at)) }
                                td.quiet { (step.wait_for.join(", ")) }
                                td.number { @if let Some((from, to)) = reach { (span(to - from)) } }
                                td.wide { @if let Some((from, to)) = reach {
                                    (bar(parts::class(step.status.unwrap_or(Status::Queued)), from / whole, to / whole))
                                } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A step of a build that has ended waits for nothing any more.
fn state_of(step: &Step, of_build: Status) -> Markup {
    let status = step.status.unwrap_or(Status::Queued);
    html! {
        @if of_build.is_final() && status == Status::Queued { span.quiet { "not run" } } @else { (state(status)) }
    }
}

fn called(step: &Step, at: usize) -> Markup {
    let words = ansi::plain(&step.args.join(" "));
    html! {
        @match &step.id {
            Some(id) => (ansi::plain(id)),
            None => { "#" (at) },
        }
        " " code { (ansi::plain(&step.name)) " " (words) }
    }
}

/// Kiln's own steps: what was taken from earlier builds, and why the rest was not.
fn layers(view: &View<'_>) -> Markup {
    let mut rows: Vec<(&Note, Option<&Note>)> = Vec::new();
    for note in &view.notes {
        match note.tells {
            Tells::Cached | Tells::Running => rows.push((note, None)),
            Tells::Because => {
                if let Some((_, why)) = rows.last_mut() {
                    *why = Some(note);
                }
            }
            _ => {}
        }
    }
    let reused = rows
        .iter()
        .filter(|(note, _)| note.tells == Tells::Cached)
        .count();
    html! {
        @if !rows.is_empty() {
            details.part open[reused < rows.len()] {
                summary { h2 { "Layers" } span.quiet { (reused) " of " (rows.len()) " from earlier builds" } }
                div.scrolls tabindex="0" role="group" aria-label="Layers" {
                    table {
                        thead { tr { th scope="col" { "Was" } th scope="col" { "Step" } th.number scope="col" { "Time" } th scope="col" { "Why not from before" } } }
                        tbody {
                            @for (note, why) in rows.iter().take(ROWS) {
                                tr.reused[note.tells == Tells::Cached] {
                                    td { @if note.tells == Tells::Cached { "reused" } @else { "made" } }
                                    th scope="row" { a href={ "?attempt=" (view.number) "&line=" (note.line) "#L" (note.line) } { (cell(&note.text)) } }
                                    td.number { @if let Some(time) = seconds_of(view, &note.text) { (time) } }
                                    td { @if let Some(why) = why { (cell(&why.text)) } }
                                }
                            }
                        }
                    }
                }
                (more(rows.len()))
            }
        }
    }
}

/// How long one of Kiln's steps took, as the line of its end says: `TITLE: SUMMARY (1.2 s)`.
fn seconds_of(view: &View<'_>, title: &str) -> Option<String> {
    let end = view.notes.iter().find(|note| {
        matches!(note.tells, Tells::Done | Tells::Failed)
            && note
                .text
                .strip_prefix(title)
                .is_some_and(|rest| rest.starts_with([':', ' ']))
    });
    end.and_then(|note| {
        note.text
            .strip_suffix(')')?
            .rsplit_once('(')
            .map(|(_, time)| time.to_owned())
    })
}

/// Where the image comes from.
fn origin(view: &View<'_>) -> Markup {
    let (id, number) = (&view.record.build.id, view.number);
    let manifest = kept::manifest(&view.attempt);
    let kept = |name: &str| format!("/builds/{id}/kept/{name}?attempt={number}");
    html! {
        @if manifest.is_some() || kept::has_lock(&view.attempt) {
            section aria-labelledby="origin" {
                h2 #origin { "Plan and lock" }
                dl.facts {
                    @if let Some(manifest) = &manifest {
                        div { dt { "Image" } dd { (digest(&manifest.image)) } }
                        div { dt { "Plan" } dd { (digest(&manifest.plan)) } }
                        div { dt { "Kernel" } dd { (ansi::plain(&manifest.kernel)) } }
                        div { dt { "Manifest" } dd { a href=(kept("manifest.json")) { "manifest.json" } } }
                    }
                    @if kept::has_lock(&view.attempt) { div { dt { "Lock" } dd { a href=(kept("kiln.lock")) { "kiln.lock" } } } }
                }
            }
        }
    }
}
