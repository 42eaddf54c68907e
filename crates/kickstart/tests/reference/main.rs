//! Kiln against pykickstart itself, over inputs that nobody has seen before.
//!
//! `KILN_INPUTS=3065 KILN_SEED=7 cargo test -p kiln-kickstart --test reference` (or `cargo xtask language --seed 7`) makes that many
//! inputs out of the shared cases and the option tables, and asks both.

// The tally is for who watches a run with other inputs.
#![allow(clippy::print_stdout)]

#[path = "../differences/mod.rs"]
mod differences;
mod generate;
mod random;
mod reference;

use std::collections::BTreeMap;

use differences::{Case, Input, Rule};
use generate::Stock;
use reference::Reference;

/// How many inputs are tried on every day.
const INPUTS: u64 = 400;
/// Where their numbers begin.
const SEED: u64 = 1;

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|e| panic!("{name}={text}: {e}")),
        Err(_) => default,
    }
}

fn stock() -> Stock {
    Stock::new(differences::shared())
}

/// How many of the inputs that differ are shown.
const SHOWN: usize = 25;

#[test]
fn generated_inputs_read_as_the_reference_reads_them() {
    let (seed, count) = (setting("KILN_SEED", SEED), setting("KILN_INPUTS", INPUTS));
    let stock = stock();
    let mut judge = Judge {
        reference: Reference::start(),
        rules: differences::rules(),
    };
    let mut wrong = Vec::new();
    let mut accepted = 0;
    let mut listed: BTreeMap<String, usize> = BTreeMap::new();
    for index in 0..count {
        let case = judge.case(generate::input(&stock, seed, index));
        accepted += usize::from(case.answer.ok);
        match judge.verdict(&case) {
            Verdict::Same => {}
            Verdict::Listed(name) => *listed.entry(name).or_default() += 1,
            Verdict::Wrong => wrong.push((index, case)),
        }
    }
    println!("seed {seed}: {count} inputs, {accepted} accepted, listed differences: {listed:?}");
    let differ = wrong.len();
    wrong.truncate(SHOWN);
    let shown: Vec<String> = wrong.into_iter().map(|w| judge.shown(w)).collect();
    assert!(
        differ == 0,
        "seed {seed}: {differ} of {count} differ:\n{}",
        shown.join("\n")
    );
    // An input that is refused says little about what is accepted.
    assert!(
        accepted * 4 > count as usize,
        "only {accepted} of {count} are accepted"
    );
}

enum Verdict {
    Same,
    /// For the reason of that name.
    Listed(String),
    Wrong,
}

struct Judge {
    reference: Reference,
    rules: Vec<Rule>,
}

impl Judge {
    fn case(&mut self, input: Input) -> Case {
        let answer = self.reference.ask(&input);
        Case { input, answer }
    }

    fn verdict(&self, case: &Case) -> Verdict {
        let differs = case.differences();
        if differs.is_empty() {
            return Verdict::Same;
        }
        match self.rules.iter().find(|r| r.explains(case, &differs)) {
            Some(rule) => Verdict::Listed(rule.name.clone()),
            None => Verdict::Wrong,
        }
    }

    /// A case that differs, with all lines and words taken away that it does not need.
    fn shown(&mut self, (index, case): (u64, Case)) -> String {
        let mut least = case;
        for separator in ["\n", " "] {
            let mut at = 0;
            loop {
                let mut parts: Vec<&str> = least.input.input.split(separator).collect();
                if parts.len() == 1 || at >= parts.len() {
                    break;
                }
                parts.remove(at);
                let fewer = self.case(Input {
                    input: parts.join(separator),
                    ..least.input.clone()
                });
                match self.verdict(&fewer) {
                    Verdict::Wrong => least = fewer,
                    _ => at += 1,
                }
            }
        }
        format!("#{index} {}", least.describe())
    }
}

/// Every listed difference is one, in every example, with the reference as it is installed.
#[test]
fn listed_differences_are_real() {
    let mut judge = Judge {
        reference: Reference::start(),
        rules: Vec::new(),
    };
    for rule in differences::rules() {
        for example in rule.examples.clone() {
            let case = judge.case(example);
            let differs = case.differences();
            assert!(
                rule.explains(&case, &differs) && !differs.is_empty(),
                "{}: {}",
                rule.name,
                case.describe()
            );
        }
    }
}

/// Lines that were read, refused or written otherwise than the reference does it.
const ONCE_DIFFERENT: [&str; 21] = [
    r#"network --device=team0 --teamconfig="{\"x\":1}""#,
    r#"sshkey --username=me "a\"b""#,
    "%packages --nocore --ignoremissing\n%end\n",
    "%packages --nocore --ignorebroken\n%end\n",
    "%packages --multilib --inst-langs=de\n%end\n",
    "%packages --default\n@^lab\n%end\n",
    "%packages\n-@ core\n-@core --optional\n-@a  b\n@core\n%end\n",
    "logvol / --vgname=a --name=b --useexisting --resize",
    "logvol / --vgname=a --name=b --noformat --size=5 --resize",
    "raid / --useexisting --device=''",
    "raid / --device=md0 --level=1 --fstype=btrfs raid.01 raid.02",
    "network --device=bond0 --bondslaves=a,b --bondopts=mode=1 --vlanid=2 --bindto=mac",
    "network --device=br0 --bridgeslaves=a --bridgeopts=priority=",
    "",
    " \n",
    "#platform=x86_64\nlang en_US\n",
    "%post --log=\ndate\n%end\n",
    "%post\ndate\n%end it's\n",
    "lang ' ' --addsupport=b\n",
    "raid / --device=md0 --level=1 raid.01 ' '\n",
    "clearpart --list=sda1\nclearpart --list=\" \"\n",
];

#[test]
fn what_once_differed_is_the_same() {
    let mut judge = Judge {
        reference: Reference::start(),
        rules: differences::rules(),
    };
    for input in ONCE_DIFFERENT {
        for version in kiln_kickstart::Version::ALL {
            let (input, files) = (input.to_owned(), BTreeMap::new());
            let case = judge.case(Input {
                version,
                input,
                files,
                latin1: false,
            });
            assert!(
                !matches!(judge.verdict(&case), Verdict::Wrong),
                "{}",
                case.describe()
            );
        }
    }
}

/// Without `-i`, too, the validator wants to have what `%ksappend` names.
#[test]
fn a_missing_ksappend_is_an_error_without_includes() {
    let mut reference = Reference::start();
    let input = "%ksappend gone.ks\nlang en_US\n".to_owned();
    let (version, files) = (kiln_kickstart::Version::F45, BTreeMap::new());
    let input = Input {
        version,
        input,
        files,
        latin1: false,
    };
    let answer = reference.ask(&input);
    assert_eq!(answer.alone_ok, Some(false));
    let differs = Case { input, answer }.differences();
    assert!(!differs.contains(&"alone"), "{differs:?}");
}
