//! What dnf answers: packages, or why there are none.

use serde::Deserialize;

use super::question::{QUESTION, Question, SCRIPT, stream};
use crate::error::{Error, ErrorKind, Result};
use crate::requests::Requests;
use crate::run::{Extras, Place};
use kiln_packages::rpm::VerifiedRepository;

/// A package that dnf chose.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Choice {
    pub(super) name: String,
    pub(super) epoch: u32,
    pub(super) version: String,
    pub(super) release: String,
    pub(super) architecture: String,
    pub(super) repository: String,
    /// Whether it was asked for, and is not only what another needs or recommends.
    pub(super) asked: bool,
    /// What it would like to have with it, as dependencies are written.
    pub(super) recommends: Vec<String>,
    /// What it is installed with where it is there.
    pub(super) supplements: Vec<String>,
}

/// A line of the answer.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Line {
    Package(Choice),
    Missing { asked: String, why: String },
    Problem { rules: Vec<String> },
    End,
}

/// Python, where distributions have it for themselves or for everybody.
const PYTHON: &str = "for p in /usr/libexec/platform-python /usr/bin/python3; do [ ! -x \"$p\" ] || exec \"$p\" -I \"$@\"; done; echo 'there is no Python' >&2; exit 1";

/// Asks dnf. `place` is over the tools root.
///
/// # Errors
/// There is no solution: the error says which requests take part in the conflict, and where they stand.
pub(super) fn ask(
    place: &Place<'_>,
    question: &Question,
    metadata: &[VerifiedRepository],
    requests: &Requests,
) -> Result<Vec<Choice>> {
    let mounts = question.mounts(metadata).map_err(|e| {
        Error::new(ErrorKind::Internal, "the question cannot be written").cause(e.to_string())
    })?;
    let extras = Extras {
        mounts,
        ..Extras::default()
    };
    let argv = ["/bin/sh", "-c", PYTHON, "sh", SCRIPT, QUESTION];
    let lines = place.lines_with(&argv, extras).map_err(failed)?;
    let (mut choices, mut missing, mut problems, mut ended) =
        (Vec::new(), Vec::new(), Vec::new(), false);
    for line in &lines {
        match serde_json::from_str(line) {
            Ok(Line::Package(choice)) => choices.push(choice),
            Ok(Line::Missing { asked, why }) => missing.push((asked, why)),
            Ok(Line::Problem { rules }) => problems.push(rules),
            Ok(Line::End) => ended = true,
            Err(error) => {
                let message = format!("dnf's answer has the line {line:.200?}");
                return Err(Error::new(ErrorKind::Internal, message).cause(error.to_string()));
            }
        }
    }
    if let Some(error) = absent(&missing, requests) {
        return Err(error);
    }
    if !problems.is_empty() {
        return Err(conflict(&problems, requests));
    }
    match ended {
        true => Ok(choices),
        false => Err(Error::new(ErrorKind::Internal, "dnf's answer has no end")),
    }
}

fn failed(mut error: Error) -> Error {
    if error.kind == ErrorKind::Step {
        // The command is a script of Kiln's; what dnf said is in the last lines.
        error.command = None;
        error.message = "dnf, which chooses the packages, failed".to_owned();
        error
            .hints
            .push("what it said is above: the packages may well fit together".to_owned());
    }
    error
}

/// Where something was asked for: the first place.
fn origin(asked: &str, requests: &Requests) -> Option<String> {
    let mut wanted = requests.layers.iter().flat_map(|(_, wanted)| wanted);
    wanted
        .find(|w| w.form == asked || stream(&w.form) == Some(asked))
        .map(|w| w.origin.clone())
}

/// The error of what dnf does not find, although metadata has its name.
fn absent(missing: &[(String, String)], requests: &Requests) -> Option<Error> {
    let (asked, why) = missing.first()?;
    let sentence = |asked: &str, why: &str| format!("dnf does not find `{asked}` ({})", why.trim());
    let mut error = Error::definition(sentence(asked, why)).hint(
        "it is excluded, or in a module stream that is not enabled, or a repository is missing",
    );
    error.origin = origin(asked, requests);
    error.others = missing[1..]
        .iter()
        .map(|(asked, why)| match origin(asked, requests) {
            Some(place) => format!("{place}: {}", sentence(asked, why)),
            None => sentence(asked, why),
        })
        .collect();
    Some(error)
}

/// The error of packages that do not fit together: dnf's own words, and where those that it names were asked for.
fn conflict(problems: &[Vec<String>], requests: &Requests) -> Error {
    let mut error =
        Error::definition("the packages that the definition asks for cannot be installed together");
    error.causes = problems.iter().flatten().cloned().collect();
    let mut places = Vec::new();
    for (layer, wanted) in &requests.layers {
        for w in wanted.iter().filter(|w| named(&error.causes, &w.name)) {
            places.push((
                w.origin.clone(),
                format!("`{}` is asked for by layer {layer} at {}", w.name, w.origin),
            ));
        }
    }
    for (name, place) in requests
        .exclude
        .iter()
        .filter(|(name, _)| named(&error.causes, name))
    {
        places.push((place.clone(), format!("`{name}` is excluded at {place}")));
    }
    places.dedup();
    // Places of the definition come before Kiln's own reasons.
    error.origin = places
        .iter()
        .map(|(place, _)| place)
        .find(|place| is_place(place))
        .cloned();
    error
        .causes
        .extend(places.into_iter().map(|(_, sentence)| sentence));
    error.hint("drop one of the packages, or the exclusion that stands in the way")
}

/// Whether this is `file:line`, and no reason of Kiln's.
pub(super) fn is_place(text: &str) -> bool {
    let line = text.rsplit_once(':').map(|(_, line)| line);
    line.is_some_and(|line| !line.is_empty() && line.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether dnf's words have a package: by its name, or by that with a version behind it.
fn named(causes: &[String], name: &str) -> bool {
    let is_it = |word: &str| {
        word == name
            || word.strip_prefix(name).is_some_and(|rest| {
                rest.strip_prefix('-')
                    .is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit()))
            })
    };
    let words = causes
        .iter()
        .flat_map(|cause| cause.split([' ', ',', '(', ')', ';']));
    words.into_iter().any(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requests::Wanted;

    #[test]
    fn a_conflict_points_to_the_definition() {
        let requests = Requests {
            layers: vec![
                (
                    "system".into(),
                    vec![Wanted::new("kernel", "added by Kiln: the kernel")],
                ),
                (
                    "lab.ks".into(),
                    vec![
                        Wanted::new("gcc", "lab.ks:4"),
                        Wanted::new("gcc-c++", "lab.ks:5"),
                    ],
                ),
            ],
            exclude: [("libgcc".to_owned(), "lab.ks:9".to_owned())].into(),
            ..Requests::default()
        };
        let rules = vec![
            "conflicting requests".to_owned(),
            "nothing provides libgcc needed by gcc-c++-12-1.x86_64".to_owned(),
        ];
        let error = conflict(&[rules], &requests);
        assert_eq!(error.origin.as_deref(), Some("lab.ks:5"));
        assert_eq!(
            error.causes[2..],
            [
                "`gcc-c++` is asked for by layer lab.ks at lab.ks:5",
                "`libgcc` is excluded at lab.ks:9"
            ]
        );
        let missing = [
            ("gcc".to_owned(), "no match".to_owned()),
            ("x".to_owned(), "no".to_owned()),
        ];
        let error = absent(&missing, &requests).expect("an error");
        assert_eq!(error.origin.as_deref(), Some("lab.ks:4"));
        assert_eq!(error.others.len(), 1);
    }
}
