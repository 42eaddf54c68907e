//! `cargo xtask kill-server`: SIGKILL at random moments, of the server, of builds' processes and of both at once, while a batch of
//! builds runs, while old builds are removed, and while a database of the first version becomes today's.

mod batch;
mod check;
mod follow;
mod upkeep;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::peer::{FETCHED, Options, afresh, link_downloads, trouble};
use crate::{Result, process, workspace};

/// What the command line says, and where everything lies.
struct Chore {
    kiln: PathBuf,
    work: PathBuf,
    kills: usize,
    builds: usize,
    dice: Dice,
}

/// Runs the whole chore and prints what it saw. The first thing that is not as it must be is the error.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let (mut kills, mut builds) = (30, 20);
    let mut seed = std::time::UNIX_EPOCH
        .elapsed()
        .map_or(1, |since| since.as_secs());
    let mut rest = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().and_then(|value| value.parse::<u64>().ok());
            value.ok_or_else(|| format!("{word} needs a number"))
        };
        match *word {
            "--kills" => kills = usize::try_from(number()?).unwrap_or(usize::MAX),
            "--builds" => builds = usize::try_from(number()?).unwrap_or(usize::MAX),
            "--seed" => seed = number()?,
            other => rest.push(other),
        }
    }
    let options = Options::parse(&rest)?;
    let work = workspace::target_directory()?.join("kill-server");
    let _leftovers = options.leftovers(&work, FETCHED, "the next run need not fetch it again");
    println!("seed {seed}");
    let chore = Chore {
        kiln: options.kiln()?,
        kills,
        builds,
        dice: Dice(std::cell::Cell::new(seed.max(1))),
        work,
    };
    let original = options.definition.clone();
    let original = original.unwrap_or_else(|| workspace::root().join("examples/minimal.ks"));
    batch::sources(&chore, &original, &options)?;
    let batch = batch::run(&chore)?;
    check::batch(&chore, &batch)?;
    // Its server ends.
    drop(batch);
    upkeep::removal(&chore)?;
    upkeep::first_version(&chore)
}

impl Chore {
    fn data(&self) -> PathBuf {
        self.work.join("data")
    }

    fn cache(&self) -> PathBuf {
        self.work.join("cache")
    }

    fn source(&self) -> PathBuf {
        self.work.join("source")
    }

    /// Gives the builds of a run the packages of another cache, and nothing else.
    fn fresh_cache(&self, warm: &Path) -> Result<()> {
        afresh(&self.cache())?;
        link_downloads(warm, &self.cache())
    }

    /// Asks `data.py`, which knows nothing of the server's code.
    fn ask(&self, verb: &str, data: &Path, more: &[&str]) -> Result<Value> {
        let program = self.work.join("data.py");
        std::fs::write(&program, include_str!("data.py")).map_err(trouble("writing", &program))?;
        let mut python = Command::new("python3");
        python.arg(&program).arg(verb).arg(data).args(more);
        let said = process::output(&mut python)?;
        serde_json::from_str(&said).map_err(|error| format!("data.py {verb}: {error}: {said}"))
    }
}

/// Numbers that look random, the same for the same seed.
struct Dice(std::cell::Cell<u64>);

impl Dice {
    fn below(&self, sides: u64) -> u64 {
        let mut state = self.0.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.0.set(state);
        state % sides.max(1)
    }

    fn moment(&self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.below(most - least))
    }
}
