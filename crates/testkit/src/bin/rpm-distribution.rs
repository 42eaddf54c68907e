//! `rpm-distribution --set small|base|desktop --out DIR --cache DIR [--store DIR]…`: makes the RPM distribution of the tests; see
//! `kiln_testkit::distribution`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use kiln_testkit::distribution::{self, Set};

const USAGE: &str =
    "rpm-distribution --set small|base|desktop --out DIR --cache DIR [--store DIR]...";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Some(said) => {
            say(&said);
            ExitCode::SUCCESS
        }
        None => {
            complain(USAGE);
            ExitCode::from(2)
        }
    }
}

fn run(words: &[String]) -> Option<String> {
    let (mut set, mut out, mut cache, mut stores) = (None, None, None, Vec::new());
    for pair in words.chunks(2) {
        let [name, value] = pair else {
            return None;
        };
        match name.as_str() {
            "--set" => set = Some(Set::of(value)?),
            "--out" => out = Some(Path::new(value)),
            "--cache" => cache = Some(Path::new(value)),
            "--store" => stores.push(PathBuf::from(value)),
            _ => return None,
        }
    }
    let start = Instant::now();
    let made = distribution::make(set?, out?, cache?, &stores);
    Some(format!(
        "{}: {} packages, {} built now, in {:.1} s; its key is {}",
        made.directory.display(),
        made.packages,
        made.built,
        start.elapsed().as_secs_f64(),
        made.key.display()
    ))
}

#[allow(clippy::print_stdout)] // The result of the program.
fn say(text: &str) {
    println!("{text}");
}

#[allow(clippy::print_stderr)] // The only way to tell a user.
fn complain(text: &str) {
    eprintln!("{text}");
}
