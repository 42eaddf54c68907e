//! The reference's verdicts: whether a file is accepted, where the first error is, what the flattener writes.
//!
//! `data/cases.jsonl.gz` holds inputs with what pykickstart 3.74 makes of them. Where Kiln differs on purpose,
//! `data/deviations.json` lists the case with the reason; a deviation that is not listed fails the test, and so
//! does one that is listed and has gone.

use std::collections::BTreeMap;
use std::io::Read as _;

use kiln_kickstart::{NoIncludes, Options, Parsed, Version, flatten, parse};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    version: Version,
    input: String,
    ok: bool,
    ksvalidator_ok: bool,
    lineno: Option<u32>,
    output: Option<String>,
    message: Option<String>,
}

#[derive(Deserialize)]
struct Deviation {
    version: Version,
    input: String,
    differs: Vec<String>,
    reason: String,
}

fn cases() -> Vec<Case> {
    let packed = &include_bytes!("data/cases.jsonl.gz")[..];
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed)
        .read_to_string(&mut text)
        .unwrap();
    let lines = text.lines();
    lines.map(|l| serde_json::from_str(l).unwrap()).collect()
}

fn read(case: &Case) -> Parsed {
    let options = Options::new(case.version);
    parse("case.ks", case.input.as_bytes(), &options, &mut NoIncludes)
}

/// In what Kiln differs from the reference.
fn differences(case: &Case) -> Vec<&'static str> {
    let parsed = read(case);
    let mut out = Vec::new();
    if parsed.has_errors() == case.ok {
        out.push("verdict");
    }
    if parsed.is_valid() != case.ksvalidator_ok {
        out.push("validator");
    }
    if !case.ok && parsed.has_errors() && line(&parsed) != case.lineno {
        out.push("line");
    }
    if let (Some(output), false) = (&case.output, parsed.has_errors())
        && flatten(&parsed, case.version) != *output
    {
        out.push("output");
    }
    out
}

fn line(parsed: &Parsed) -> Option<u32> {
    Some(parsed.first_error()?.span?.line)
}

fn describe(case: &Case, differs: &[&str]) -> String {
    let parsed = read(case);
    let found: Vec<_> = parsed.diagnostics.iter().map(|d| &d.message).collect();
    let flat = flatten(&parsed, case.version);
    format!(
        "{differs:?} {} {:?}\n  reference: {:?} {:?} {:?}\n  kiln: {found:?} {flat:?}",
        case.version, case.input, case.lineno, case.message, case.output
    )
}

#[test]
fn every_case_reads_as_the_reference_reads_it() {
    let listed: Vec<Deviation> =
        serde_json::from_str(include_str!("data/deviations.json")).unwrap();
    let mut listed: BTreeMap<(Version, String), Deviation> = listed
        .into_iter()
        .map(|d| ((d.version, d.input.clone()), d))
        .collect();
    let cases = cases();
    assert_eq!(cases.len(), 3065);
    let mut wrong = Vec::new();
    for case in &cases {
        let differs = differences(case);
        let known = listed.remove(&(case.version, case.input.clone()));
        let expected = known.as_ref().map_or(&[][..], |d| &d.differs);
        if differs != expected {
            wrong.push(describe(case, &differs));
        } else if known.is_some_and(|d| d.reason.is_empty()) {
            wrong.push(format!("no reason is given for {:?}", case.input));
        }
    }
    wrong.extend(
        listed
            .into_keys()
            .map(|k| format!("listed, but no case: {k:?}")),
    );
    let count = wrong.len();
    wrong.truncate(40);
    assert!(wrong.is_empty(), "{count} differ:\n{}", wrong.join("\n"));
}
