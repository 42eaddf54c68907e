//! The reference's recorded verdicts: whether a file is accepted, where the first error is, what the flattener writes.
//!
//! `data/cases.jsonl.gz` holds inputs with what pykickstart 3.74 makes of them; `tests/reference` asks pykickstart itself about many
//! more. Where Kiln differs on purpose, `data/deviations.json` says when and why.

mod differences;

#[test]
fn every_case_reads_as_the_reference_reads_it() {
    let cases = differences::shared();
    assert_eq!(cases.len(), 3065);
    let rules = differences::rules();
    let mut wrong = Vec::new();
    for case in &cases {
        let differs = case.differences();
        if !differs.is_empty() && !rules.iter().any(|r| r.explains(case, &differs)) {
            wrong.push(case.describe());
        }
    }
    let count = wrong.len();
    wrong.truncate(40);
    assert!(wrong.is_empty(), "{count} differ:\n{}", wrong.join("\n"));
}
