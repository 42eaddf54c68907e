//! Comparing what Kiln makes of an input with what the reference makes of it, and the listed differences.

use std::collections::BTreeMap;
use std::io::Read as _;

use kiln_kickstart::{
    LoadError, Loaded, Loader, Options, Parsed, Version, flatten, include_candidates, parse,
};
use serde::{Deserialize, Serialize};

/// What the reference makes of an input.
#[derive(Debug, Deserialize)]
pub(crate) struct Answer {
    pub(crate) ok: bool,
    /// With the contents of what is included.
    pub(crate) ksvalidator_ok: bool,
    /// Without; `None` where nothing is included, and in the recorded cases.
    #[serde(default)]
    pub(crate) alone_ok: Option<bool>,
    pub(crate) lineno: Option<u32>,
    pub(crate) output: Option<String>,
    pub(crate) message: Option<String>,
}

/// An input with the reference's answer.
#[derive(Debug, Deserialize)]
pub(crate) struct Case {
    #[serde(flatten)]
    pub(crate) input: Input,
    #[serde(flatten)]
    pub(crate) answer: Answer,
}

/// A kind of input for which Kiln differs on purpose. A case is of this kind if all that is given fits.
#[derive(Debug, Deserialize)]
pub(crate) struct Rule {
    pub(crate) name: String,
    /// Why, in sentences for `docs/kickstart.md`.
    pub(crate) reason: String,
    /// What may differ: `verdict` (whether the flattener accepts it), `validator`, `alone` (the validator without includes), `line`, `no line` (the reference names none), `output`.
    pub(crate) differs: Vec<String>,
    /// What the reference's message holds.
    pub(crate) message: Option<String>,
    /// What one of Kiln's findings holds.
    pub(crate) kiln: Option<String>,
    /// A line of the input begins with one of these.
    #[serde(default)]
    pub(crate) lines: Vec<String>,
    /// The input holds one of these words.
    #[serde(default)]
    pub(crate) words: Vec<String>,
    /// How far the outputs are the same.
    pub(crate) output: Option<Output>,
    pub(crate) examples: Vec<Input>,
}

/// How far two outputs that differ are the same.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Output {
    SameButForLineEnds,
    /// Every word of the reference is in Kiln's.
    KilnSaysMore,
    /// Every word of Kiln is in the reference's.
    ReferenceSaysMore,
}

/// A kickstart, and the texts that it may include, by name.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Input {
    pub(crate) version: Version,
    pub(crate) input: String,
    #[serde(default)]
    pub(crate) files: BTreeMap<String, String>,
    /// Whether every character stands for one byte, so that most others than ASCII are not UTF-8.
    #[serde(default)]
    pub(crate) latin1: bool,
}

/// The listed differences.
pub(crate) fn rules() -> Vec<Rule> {
    let text = include_str!("../data/deviations.json");
    let rules: Vec<Rule> = serde_json::from_str(text).expect("deviations.json");
    for rule in &rules {
        let complete = !rule.reason.is_empty() && !rule.examples.is_empty();
        assert!(complete, "{} lacks a reason or an example", rule.name);
    }
    rules
}

/// The shared cases, with the answers as they were recorded.
pub(crate) fn shared() -> Vec<Case> {
    let packed = &include_bytes!("../data/cases.jsonl.gz")[..];
    let mut text = String::new();
    let mut reader = flate2::read::GzDecoder::new(packed);
    reader.read_to_string(&mut text).expect("gzip");
    let lines = text.lines();
    lines
        .map(|l| serde_json::from_str(l).expect("a case"))
        .collect()
}

struct Files<'a>(&'a BTreeMap<String, String>);

impl Loader for Files<'_> {
    fn load(&mut self, path: &str, from: &str) -> Result<Loaded, LoadError> {
        for name in include_candidates(path, from) {
            if let Some(text) = self.0.get(&name) {
                let bytes = text.as_bytes().to_vec();
                return Ok(Loaded { name, bytes });
            }
        }
        Err(LoadError::not_found(format!("`{path}` is not there")))
    }
}

impl Input {
    fn read(&self, follow_includes: bool) -> Parsed {
        let mut options = Options::new(self.version);
        options.follow_includes = follow_includes;
        let bytes: Vec<u8> = match self.latin1 {
            true => self.input.chars().map(|c| c as u8).collect(),
            false => self.input.clone().into_bytes(),
        };
        parse("main.ks", &bytes, &options, &mut Files(&self.files))
    }
}

impl Case {
    pub(crate) fn read(&self) -> Parsed {
        self.input.read(true)
    }

    /// In what Kiln differs from the reference.
    pub(crate) fn differences(&self) -> Vec<&'static str> {
        let parsed = self.read();
        let answer = &self.answer;
        let mut out = Vec::new();
        if parsed.has_errors() == answer.ok {
            out.push("verdict");
        }
        if parsed.is_valid() != answer.ksvalidator_ok {
            out.push("validator");
        }
        let alone = |ok: bool| self.input.read(false).is_valid() == ok;
        if !answer.alone_ok.is_none_or(alone) {
            out.push("alone");
        }
        if !answer.ok && parsed.has_errors() && line(&parsed) != answer.lineno {
            out.push("line");
        }
        if let (Some(output), false) = (&answer.output, parsed.has_errors())
            && flatten(&parsed, self.input.version) != *output
        {
            out.push("output");
        }
        out
    }

    pub(crate) fn describe(&self) -> String {
        let differs = self.differences();
        let parsed = self.read();
        let found = parsed.diagnostics.iter();
        let found: Vec<_> = found
            .map(|d| format!("{}: {}", d.span.map_or(0, |s| s.line), d.message))
            .collect();
        let answer = &self.answer;
        format!(
            "{differs:?} {:?}\n  reference: {} line {:?} {:?}\n    {:?}\n  kiln: {found:?}\n    {:?}",
            self.input,
            answer.ksvalidator_ok,
            answer.lineno,
            answer.message,
            answer.output,
            flatten(&parsed, self.input.version)
        )
    }
}

fn line(parsed: &Parsed) -> Option<u32> {
    Some(parsed.first_error()?.span?.line)
}

impl Output {
    fn fits(self, kiln: &str, reference: &str) -> bool {
        // Where two opaque sections are glued together, too.
        let reference = &reference.replace("%end%", "%end\n%");
        match self {
            Output::SameButForLineEnds => {
                kiln.split('\n').collect::<String>() == reference.split('\n').collect::<String>()
            }
            Output::KilnSaysMore => holds(kiln, reference),
            Output::ReferenceSaysMore => holds(reference, kiln),
        }
    }
}

/// Whether all words of `less` are in `more`, as often.
fn holds(more: &str, less: &str) -> bool {
    let mut words: Vec<&str> = more.split_whitespace().collect();
    less.split_whitespace().all(|word| {
        let at = words.iter().position(|w| *w == word);
        at.map(|at| words.swap_remove(at)).is_some()
    })
}

impl Rule {
    /// Whether this is why a case differs in that way.
    pub(crate) fn explains(&self, case: &Case, differs: &[&str]) -> bool {
        let message = case.answer.message.as_deref().unwrap_or("");
        let told = self.message.as_ref().is_none_or(|m| message.contains(m));
        let parsed = case.read();
        let mut found = parsed.diagnostics.iter();
        let said = self.kiln.as_ref();
        let said = said.is_none_or(|m| found.any(|d| d.message.contains(m.as_str())));
        let starts = |line: &str| {
            let line = line.trim_start().trim_start_matches(['\\', '"', '\'']);
            self.lines.iter().any(|l| line.starts_with(l.as_str()))
        };
        let texts = || std::iter::once(&case.input.input).chain(case.input.files.values());
        let lines = self.lines.is_empty() || texts().flat_map(|t| t.lines()).any(starts);
        let has = |word: &str| self.words.iter().any(|w| w == word);
        let words = self.words.is_empty() || texts().flat_map(|t| t.split_whitespace()).any(has);
        let output = match (self.output, &case.answer.output) {
            (Some(output), Some(text)) => output.fits(&flatten(&parsed, case.input.version), text),
            (Some(_), None) => false,
            (None, _) => true,
        };
        // Where the reference names a line, that line is not what differs for want of one.
        let differ = |d: &&str| match *d {
            "line" => {
                self.differs.iter().any(|r| r == "line")
                    || (self.differs.iter().any(|r| r == "no line")
                        && case.answer.lineno.unwrap_or(0) == 0)
            }
            d => self.differs.iter().any(|r| r == d),
        };
        told && said && lines && words && output && differs.iter().all(differ)
    }
}
