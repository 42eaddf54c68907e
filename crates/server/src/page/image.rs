//! What is in an image: what changed against the one before, and what takes the room.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use maud::{Markup, html};

use super::kept::{self, Package};
use super::parts::{ROWS, cell, more, several, size};
use super::view::View;
use super::{ansi, history, treemap, versions};
use crate::wire::model::Status;

/// Warnings that are shown.
const WARNINGS: usize = 100;
/// Packages with a rectangle of their own.
const RECTANGLES: usize = 40;

/// Both sections, for builds that made an image.
pub(super) fn section(view: &View<'_>) -> Markup {
    let Some(manifest) =
        kept::manifest(&view.attempt).filter(|_| view.record.build.status == Status::Success)
    else {
        return html! {};
    };
    html! {
        (changes(view, &manifest.packages))
        (sizes(view))
        @if !manifest.warnings.is_empty() {
            details.part {
                summary { h2 { "Warnings" } span.quiet { (manifest.warnings.len()) } }
                ul { @for warning in manifest.warnings.iter().take(WARNINGS) { li { (ansi::plain(warning)) } } }
            }
        }
    }
}

/// How a package differs from the image before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// `up`, `down`, `new` or `gone`.
    pub(super) how: &'static str,
    pub(super) name: String,
    pub(super) was: String,
    pub(super) is: String,
}

/// What differs between two lists of packages.
pub(super) fn differences(before: &[Package], now: &[Package]) -> Vec<Change> {
    let by_name = |packages: &[Package]| -> BTreeMap<(String, String), String> {
        let pairs = packages.iter().map(|package| {
            let Package {
                name,
                version,
                architecture,
                ..
            } = package.clone();
            ((name, architecture), version)
        });
        pairs.collect()
    };
    let (before, now) = (by_name(before), by_name(now));
    let mut changes = Vec::new();
    let change = |how, name: &(String, String), was: &str, is: &str| Change {
        how,
        name: name.0.clone(),
        was: was.to_owned(),
        is: is.to_owned(),
    };
    for (name, is) in &now {
        match before.get(name) {
            None => changes.push(change("new", name, "", is)),
            Some(was) => match versions::compare(was, is) {
                Ordering::Less => changes.push(change("up", name, was, is)),
                Ordering::Greater => changes.push(change("down", name, was, is)),
                Ordering::Equal => {}
            },
        }
    }
    let gone = before.iter().filter(|(name, _)| !now.contains_key(*name));
    changes.extend(gone.map(|(name, was)| change("gone", name, was, "")));
    changes
}

fn changes(view: &View<'_>, now: &[Package]) -> Markup {
    let Some(earlier) = history::before(view.record, &view.all) else {
        return html! { p.quiet { (several(now.len() as u64, "package")) ". There is no earlier image of this definition to compare with." } };
    };
    let attempt = view.page.server.attempt(&earlier.build.id, earlier.attempt);
    let Some(before) = kept::manifest(&attempt) else {
        return html! {};
    };
    let changes = differences(&before.packages, now);
    let count = |how: &str| changes.iter().filter(|change| change.how == how).count();
    html! {
        details.part open[!changes.is_empty() && changes.len() < 30] {
            summary {
                h2 { "Changed packages" }
                span.quiet {
                    @if changes.is_empty() { "none" } @else {
                        (count("up")) " up, " (count("down")) " down, " (count("new")) " new, " (count("gone")) " gone"
                    }
                }
            }
            p.quiet { "Against " a href={ "/builds/" (earlier.build.id) } { "the image before" } ", of " (several(now.len() as u64, "package")) " now." }
            @if !changes.is_empty() {
                div.scrolls tabindex="0" role="group" aria-label="Changed packages" {
                    table {
                        thead { tr { th scope="col" { "How" } th scope="col" { "Package" } th scope="col" { "Was" } th scope="col" { "Is" } } }
                        tbody { @for change in changes.iter().take(ROWS) {
                            tr { td { (change.how) } th scope="row" { (cell(&change.name)) } td { (cell(&change.was)) } td { (cell(&change.is)) } }
                        } }
                    }
                }
                (more(changes.len()))
            }
        }
    }
}

fn sizes(view: &View<'_>) -> Markup {
    let mut sizes: Vec<(String, u64)> = kept::sizes(&view.attempt)
        .into_iter()
        .filter(|(_, bytes)| *bytes > 0)
        .collect();
    if sizes.is_empty() {
        return html! {};
    }
    sizes.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    let total: u64 = sizes
        .iter()
        .map(|(_, bytes)| bytes)
        .fold(0, |sum, bytes| sum.saturating_add(*bytes));
    let mut drawn: Vec<(String, u64)> = sizes.iter().take(RECTANGLES).cloned().collect();
    let rest = sizes
        .iter()
        .skip(RECTANGLES)
        .fold(0_u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
    if rest > 0 {
        drawn.push((format!("{} others", sizes.len() - RECTANGLES), rest));
        drawn.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    }
    html! {
        section aria-labelledby="sizes" {
            h2 #sizes { "Size by package" }
            p.quiet { (size(total)) " as downloaded, " (several(sizes.len() as u64, "package")) }
            (treemap::draw(&drawn))
            details {
                summary { "All as a table" }
                div.scrolls tabindex="0" role="group" aria-label="Size by package" {
                    table {
                        thead { tr { th scope="col" { "Package" } th.number scope="col" { "Size" } } }
                        tbody { @for (name, bytes) in sizes.iter().take(ROWS) {
                            tr { th scope="row" { (cell(name)) } td.number { (size(*bytes)) } }
                        } }
                    }
                }
                (more(sizes.len()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str) -> Package {
        Package {
            name: name.to_owned(),
            version: version.to_owned(),
            ..Package::default()
        }
    }

    #[test]
    fn packages_go_up_and_down_and_come_and_go() {
        let before = [
            package("a", "1"),
            package("b", "2"),
            package("c", "1"),
            package("d", "1"),
        ];
        let now = [
            package("a", "1.1"),
            package("b", "1"),
            package("d", "1"),
            package("e", "1"),
        ];
        let changes: Vec<_> = differences(&before, &now)
            .into_iter()
            .map(|change| (change.how, change.name))
            .collect();
        let expected = [("up", "a"), ("down", "b"), ("new", "e"), ("gone", "c")];
        assert_eq!(changes, expected.map(|(how, name)| (how, name.to_owned())));
    }
}
