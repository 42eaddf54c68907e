//! `kiln-mirror`: serves a directory, or forwards to a mirror and keeps what it fetched, with faults on request.
//!
//! ```text
//! kiln-mirror [--listen ADDRESS] [--fault RULE]… DIRECTORY
//! kiln-mirror [--listen ADDRESS] [--fault RULE]… --forward URL CACHE
//! ```
//!
//! The rules are described at `kiln_testkit::Rule::parse`. The URL of the mirror goes to standard output.

use std::process::ExitCode;

use kiln_testkit::{Mirror, Rule, Source};

const USAGE: &str =
    "kiln-mirror [--listen ADDRESS] [--fault PATTERN=FAULT[@TIMES]]... [--forward URL] DIRECTORY";

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(mirror) => {
            say(&mirror.url());
            loop {
                std::thread::park();
            }
        }
        Err(why) => {
            complain(&why);
            ExitCode::from(2)
        }
    }
}

#[allow(clippy::print_stdout)] // The result of the program.
fn say(text: &str) {
    println!("{text}");
}

#[allow(clippy::print_stderr)] // The only way to tell a user.
fn complain(text: &str) {
    eprintln!("kiln-mirror: {text}\n{USAGE}");
}

fn run(mut arguments: impl Iterator<Item = String>) -> Result<Mirror, String> {
    let (mut listen, mut upstream, mut directory, mut rules) =
        ("127.0.0.1:0".to_owned(), None, None, Vec::new());
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .ok_or_else(|| format!("{argument} needs a value"))
        };
        match argument.as_str() {
            "--listen" => listen = value()?,
            "--forward" => upstream = Some(value()?),
            "--fault" => rules.push(Rule::parse(&value()?)?),
            option if option.starts_with('-') => {
                return Err(format!("the option {option} is not known"));
            }
            _ if directory.is_some() => return Err("more than one directory".into()),
            _ => directory = Some(argument),
        }
    }
    let directory = directory.ok_or("no directory is given")?;
    let source = match upstream {
        Some(upstream) => Source::Forward {
            upstream,
            cache: directory.into(),
        },
        None => Source::Directory(directory.into()),
    };
    let mirror =
        Mirror::start_at(&listen, source).map_err(|e| format!("listening on {listen}: {e}"))?;
    rules.into_iter().for_each(|rule| mirror.inject(rule));
    Ok(mirror)
}
