//! The list of builds.

use maud::{Markup, html};

use super::history::{self, LOOKED_THROUGH};
use super::parts::{self, bar, frame, moment, span};
use super::session::Visitor;
use super::{Page, Query, names};
use crate::store::{self, Record};
use crate::wire::error::ApiError;
use crate::wire::model::Status;
use crate::wire::time;

/// Rows of a page.
const ROWS: usize = 50;

/// States that one can look for.
const STATES: &[(&str, &str)] = &[
    ("", "all states"),
    ("queued", "queued"),
    ("running", "running"),
    ("done", "done"),
    ("failed", "failed"),
    ("late", "timed out or cancelled"),
];

/// The page.
pub(super) fn page(page: &Page, visitor: &Visitor, query: &Query) -> Result<Markup, ApiError> {
    let (text, state) = (query.get("q").trim(), query.get("state"));
    let wanted = text.to_lowercase();
    let fits = |record: &Record| {
        (state.is_empty() || parts::class(record.build.status) == state) && holds(record, &wanted)
    };
    let after = query
        .get("after")
        .split_once(' ')
        .and_then(|(created, id)| {
            let created = created.parse().ok()?;
            let id = id.to_owned();
            Some(store::Page { created, id })
        });
    let store = &page.server.store;
    let waits_or_ended = |record: &Record| record.build.status != Status::Working && fits(record);
    let mut found = store
        .newest(after.as_ref(), ROWS + 1, waits_or_ended)
        .map_err(ApiError::internal)?;
    let more = found.len() > ROWS;
    found.truncate(ROWS);
    let last = found
        .last()
        .map(|last| format!("{} {}", last.created, last.build.id));
    let all = store
        .newest(None, LOOKED_THROUGH, |_| true)
        .map_err(ApiError::internal)?;
    // Those that run stand on top, however many came behind them; the sort keeps the others' order.
    found.sort_by_key(|record| record.build.status != Status::Queued);
    if after.is_none() {
        let running = store.with_status(Status::Working);
        let mut running = running.map_err(ApiError::internal)?;
        running.sort_by_key(|record| std::cmp::Reverse(record.created));
        found.splice(0..0, running.into_iter().filter(&fits));
    }
    let body = html! {
        div.head { h1 { "Builds" } (filter(text, state)) }
        div #live data-live data-every="3" {
            @if found.is_empty() { (nothing(text, state)) } @else {
                ol.builds aria-label="Builds" {
                    @for record in &found { (row(page, record, &all)) }
                }
            }
        }
        @if let (true, Some(last)) = (more, last) {
            p { a rel="next" href={ "/?" (more_of(text, state, &last)) } { "Older builds" } }
        }
    };
    Ok(frame("Builds", Some(visitor), &body))
}

fn more_of(text: &str, state: &str, after: &str) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("q", text).append_pair("state", state);
    query.append_pair("after", after).finish()
}

fn filter(text: &str, state: &str) -> Markup {
    html! {
        form.filter role="search" {
            input type="search" name="q" value=(text) placeholder="name, tag, person, id" aria-label="Look for builds";
            select name="state" aria-label="State" {
                @for (value, label) in STATES {
                    option value=(value) selected[*value == state] { (label) }
                }
            }
            button { "Show" }
        }
    }
}

fn nothing(text: &str, state: &str) -> Markup {
    html! {
        @if text.is_empty() && state.is_empty() {
            div.empty {
                p { "There are no builds yet. Send one from a directory with a kickstart:" }
                pre { code { "kiln submit ." } }
                p { "or with " code { "gcloud builds submit" } ", or " a href="/submit" { "from this page" } "." }
            }
        } @else {
            p.empty { "No build fits. " a href="/" { "Show all" } }
        }
    }
}

/// Whether a build has a text in its name, tags, id, project or the name of who asked for it.
fn holds(record: &Record, wanted: &str) -> bool {
    let build = &record.build;
    let texts = [&build.id, &build.project_id, &record.who];
    let mut texts = texts.into_iter().chain(&build.tags);
    wanted.is_empty()
        || history::name(record).to_lowercase().contains(wanted)
        || texts.any(|text| text.to_lowercase().contains(wanted))
}

fn row(page: &Page, record: &Record, all: &[Record]) -> Markup {
    let (build, now) = (&record.build, time::now());
    let expected = history::expected(record, all);
    let began = history::times(record).map_or(record.created, |(began, _)| began);
    html! {
        li class=(parts::class(build.status)) id={ "b-" (build.id) } {
            (parts::state(build.status))
            div.what {
                a href={ "/builds/" (build.id) } { (names::of(page, record)) }
                @if let Some(step) = doing(page, record) { span.step { (step) } }
                @for tag in &build.tags { span.tag { (tag) } }
            }
            div.when { (moment(began)) }
            div.long {
                @if let Some(taken) = history::taken(record, now) {
                    span data-since=[(build.status == Status::Working).then_some(began / 1_000_000)] { (span(taken)) }
                    @if let Some(expected) = expected {
                        @if build.status == Status::Working {
                            (bar("thin", 0.0, taken / expected.max(1.0)))
                            span.quiet { "of about " (span(expected)) }
                        }
                    }
                }
            }
            div.who { (record.who) span.quiet { " · " (history::trigger(record)) } }
        }
    }
}

/// What a build is at: its step, or why it waits; in a few words.
fn doing(page: &Page, record: &Record) -> Option<String> {
    let build = &record.build;
    match build.status {
        Status::Queued => page.server.waits().get(&build.id).cloned(),
        Status::Working => {
            let path = page.server.log(&build.id, record.attempt)?;
            let notes = page.logs.with(&path, |index| {
                let last = index
                    .notes()
                    .iter()
                    .rev()
                    .find(|note| note.tells == super::index::Tells::Running);
                Ok(last.map(|note| note.text.clone()))
            });
            notes.ok().flatten()
        }
        Status::Failure | Status::InternalError => build.status_detail.clone(),
        _ => None,
    }
}
