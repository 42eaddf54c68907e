//! The log: ranges of lines, a search, and the text as it is.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use maud::{Markup, html};
use serde_json::{Value, json};

use super::ansi;
use super::index::{Note, Tells};
use super::parts::grouped;
use super::{Page, Query, attempt_of, find, session};
use crate::api;
use crate::executor::request::Attempt;
use crate::store::{Record, Role};
use crate::wire::error::{ApiError, Code};

/// Lines in one answer.
const MOST: u64 = 1000;
/// Lines that a page has without script.
const SHOWN: u64 = 200;
/// Places of a search that are named.
const FOUND: usize = 5000;

/// The file of an attempt's log.
fn path_of(page: &Page, record: &Record, number: u32) -> Result<PathBuf, ApiError> {
    let path = page.server.log(&record.build.id, number);
    path.ok_or_else(|| ApiError::new(Code::NotFound, "the build has no log"))
}

fn located(page: &Page, id: &str, query: &Query) -> Result<(Attempt, PathBuf), ApiError> {
    let record = find(page, id)?;
    let number = attempt_of(&record, query)?;
    let attempt = page.server.attempt(id, number);
    Ok((attempt, path_of(page, &record, number)?))
}

/// The whole text.
pub(super) async fn plain(State(page): State<Arc<Page>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let path = tokio::task::spawn_blocking(move || {
        session::visitor(&page, &parts.headers)?
            .caller
            .needs(Role::View)?;
        let segments = api::segments(parts.uri.path())?;
        let query = Query::read(parts.uri.query().unwrap_or(""))?;
        let id = segments.get(1).map_or("", String::as_str);
        located(&page, id, &query).map(|(_, path)| path)
    });
    let result = match path.await {
        Ok(Ok(path)) => api::log_file(&path).await,
        Ok(Err(error)) => Err(error),
        Err(error) => Err(ApiError::internal(error)),
    };
    result.unwrap_or_else(|error| api::refusal(&error))
}

/// A range of lines: `from`, counted from 1, and `count`; with `times=1` the milliseconds at which they were written.
pub(super) fn lines(page: &Page, id: &str, query: &Query) -> Result<Value, ApiError> {
    let (attempt, path) = located(page, id, query)?;
    let from = query.number("from").unwrap_or(1).max(1);
    let count = query.number("count").unwrap_or(MOST).min(MOST);
    let read = page.logs.with(&path, |index| {
        let parts = sections(index.notes(), index.lines());
        Ok((index.lines(), index.read(&path, from, count)?, parts))
    });
    let (total, lines, parts) = read.map_err(ApiError::internal)?;
    let shown: Vec<_> = lines.iter().map(|(_, line)| ansi::parts(line)).collect();
    let mut answer = json!({ "total": total, "from": from, "lines": shown });
    let parts = parts
        .iter()
        .map(|part| json!([part.title, part.from, part.to]));
    answer["parts"] = parts.collect();
    if query.get("times") == "1" {
        let times = Times::read(&attempt);
        let before = lines.iter().map(|(end, _)| times.of(end.saturating_sub(1)));
        answer["times"] = before.collect();
    }
    Ok(answer)
}

/// Lines with a text: how many, and which.
pub(super) fn search(page: &Page, id: &str, query: &Query) -> Result<Value, ApiError> {
    let (_, path) = located(page, id, query)?;
    let text = query.get("q");
    if text.is_empty() || text.len() > 1000 {
        return Err(ApiError::invalid(
            "a search needs a text of 1 to 1000 bytes",
        ));
    }
    let found = page
        .logs
        .with(&path, |index| index.search(&path, text, FOUND));
    let (count, lines) = found.map_err(ApiError::internal)?;
    Ok(json!({ "count": count, "lines": lines }))
}

/// When parts of a log were written.
struct Times(Vec<(u64, i64)>);

impl Times {
    fn read(attempt: &Attempt) -> Times {
        // Attempts of older servers have no such file.
        let bytes = std::fs::read(attempt.times()).unwrap_or_else(|_| Vec::new());
        let (pairs, _) = bytes.as_chunks::<16>();
        let pair = |pair: &[u8; 16]| {
            let (place, time) = pair.split_at(8);
            let eight = |bytes: &[u8]| bytes.try_into().unwrap_or([0; 8]);
            (
                u64::from_le_bytes(eight(place)),
                i64::from_le_bytes(eight(time)),
            )
        };
        Times(pairs.iter().map(pair).collect())
    }

    /// When a byte was written.
    fn of(&self, place: u64) -> Option<i64> {
        let behind = self.0.partition_point(|(from, _)| *from <= place);
        self.0.get(behind.checked_sub(1)?).map(|(_, time)| *time)
    }
}

/// A part of a log that can be folded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    /// Its first line, in short.
    pub(super) title: String,
    /// Its first line.
    pub(super) from: u64,
    /// Its last line.
    pub(super) to: u64,
}

/// The parts of a log: the source, steps, artifacts.
pub(super) fn sections(notes: &[Note], total: u64) -> Vec<Section> {
    let mut found: Vec<Section> = Vec::new();
    for note in notes.iter().filter(|note| note.tells == Tells::Part) {
        if let Some(last) = found.last_mut() {
            last.to = note.line - 1;
        }
        let title = note.text.trim_start_matches("Starting ").to_owned();
        let (from, to) = (note.line, total);
        found.push(Section { title, from, to });
    }
    found
}

/// The log on a build's page: some lines for readers without script, and what the script needs to show any.
pub(super) fn section(page: &Page, record: &Record, number: u32, query: &Query) -> Markup {
    let id = &record.build.id;
    let Ok(path) = path_of(page, record, number) else {
        return html! {};
    };
    let line = query.number("line");
    let read = page.logs.with(&path, |index| {
        let total = index.lines();
        let from = match line {
            Some(line) => line.saturating_sub(SHOWN / 4).max(1),
            None => (total + 1).saturating_sub(SHOWN).max(1),
        };
        Ok((total, from, index.read(&path, from, SHOWN)?))
    });
    let Ok((total, from, lines)) = read else {
        return html! { p { "The log cannot be read." } };
    };
    let plain = format!("/builds/{id}/log?attempt={number}");
    html! {
        section.log aria-labelledby="log-title" {
            div.bar-of-log {
                h2 #log-title { "Log" }
                div.tools #tools hidden {
                    input #find type="search" placeholder="Search" aria-label="Search the log" autocomplete="off";
                    span #found role="status" {}
                    button #older type="button" aria-label="Earlier match" { "↑" }
                    button #newer type="button" aria-label="Later match" { "↓" }
                    button #clock type="button" aria-pressed="false" { "Times" }
                    button #fold type="button" aria-pressed="false" { "Fold" }
                    button #follow type="button" aria-pressed="false" { "Follow" }
                }
                a href=(plain) download={ "kiln-" (id) ".log" } { "Download" }
            }
            div #view.lines tabindex="0" role="region" aria-label="Lines of the log" data-build=(id) data-attempt=(number)
                data-total=(total) data-live-log=[(!record.build.status.is_final() && number == record.attempt).then_some("1")] {
                @if from > 1 { p.quiet { "Lines before " (grouped(from)) " are in the download." } }
                ol start=(from) {
                    @for (at, (_, text)) in (from..).zip(&lines) { (one(id, number, at, text)) }
                }
            }
            button #fresh type="button" hidden {}
        }
    }
}

fn one(id: &str, attempt: u32, number: u64, text: &str) -> Markup {
    html! {
        li #{ "L" (number) } {
            a.n href={ "/builds/" (id) "?attempt=" (attempt) "&line=" (number) "#L" (number) } { (number) }
            span.t {
                @for part in ansi::parts(text) {
                    @if part.class.is_empty() { (part.text) } @else { span class=(part.class) { (part.text) } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_lines_stay_text() {
        let shown = one(
            "b",
            1,
            7,
            "<img src=x onerror=alert(1)>\x1b[31m&\x1b]0;t\x07",
        )
        .into_string();
        assert!(
            shown.contains("&lt;img src=x") && !shown.contains("<img"),
            "{shown}"
        );
        assert!(shown.contains("<span class=\"f1\">&amp;</span>"), "{shown}");
    }

    #[test]
    fn times_are_those_of_the_write() {
        let times = Times(vec![(0, 10), (100, 20)]);
        assert_eq!(
            [times.of(0), times.of(99), times.of(100), times.of(1000)],
            [Some(10), Some(10), Some(20), Some(20)]
        );
        assert_eq!(Times(vec![(50, 1)]).of(49), None);
    }
}
