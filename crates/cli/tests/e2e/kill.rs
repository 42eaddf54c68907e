//! SIGKILL at random moments of a build: no process, mount or loop device stays, and every store is valid.
//!
//! `KILN_KILLS` says how often, `KILN_SEED` repeats a run.

use std::fs;
use std::io::ErrorKind;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use crate::harness::{Ran, Turn, cache, finish, text};
use crate::random::{Random, setting};
use crate::residue::names;

#[test]
fn sigkill_leaves_nothing() {
    let turn = Turn::warm();
    let (kills, seed) = (setting("KILN_KILLS", 10), setting("KILN_SEED", 20_240_601));
    let mut random = Random::new(seed);
    let whole = build(&turn, "whole", None);
    whole.assert(0);
    let size = fs::metadata(turn.path("output/disk.raw"))
        .expect("an image")
        .len();
    for round in 0..kills {
        let moment = whole.time.mul_f64(random.next());
        match fs::remove_dir_all(turn.path("output")) {
            // A build that is killed early makes none.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.expect("the last output"),
        }
        let ran = build(&turn, &format!("seed {seed} round {round}"), Some(moment));
        let told = || {
            format!(
                "round {round} of seed {seed}, killed after {moment:.1?}\n{}",
                ran.whole()
            )
        };
        let left = turn.before.of_the_machine();
        assert!(left.is_empty(), "{left:#?}\n{}", told());
        assert_whole_artifacts(&turn, size, &told());
    }
    let next = build(&turn, "next", None);
    next.assert(0);
    turn.kiln(&["cache", "ls"]).assert(0);
    assert!(
        names(&cache().join("staging")).is_empty(),
        "{}",
        next.whole()
    );
    let hidden: Vec<String> = names(&turn.path("output"))
        .into_iter()
        .filter(|name| name.starts_with('.'))
        .collect();
    assert!(hidden.is_empty(), "{hidden:?} is left in the output");
    assert_eq!(
        fs::metadata(turn.path("output/disk.raw"))
            .expect("an image")
            .len(),
        size
    );
}

/// Artifacts are there whole or not at all; the manifest comes last.
fn assert_whole_artifacts(turn: &Turn, size: u64, told: &str) {
    let output = turn.path("output");
    if let Ok(disk) = fs::metadata(output.join("disk.raw")) {
        assert_eq!(disk.len(), size, "{told}");
    }
    if output.join("manifest.json").exists() {
        let text = fs::read_to_string(output.join("manifest.json")).expect("a manifest");
        assert!(text.trim_end().ends_with('}'), "{told}");
        assert!(
            output.join("disk.raw").exists() && output.join("packages.txt").exists(),
            "{told}"
        );
    }
}

/// A build whose script nobody has run yet; killed at a moment if one is given.
fn build(turn: &Turn, mark: &str, moment: Option<Duration>) -> Ran {
    // The process's id keeps a repeated run from finding the layers of the last one.
    let mark = format!("{mark} of {}", std::process::id());
    turn.minimal_with(&format!("%post --erroronfail\necho '{mark}' > /etc/motd\nfind /usr -type f -exec cat {{}} + | cksum\n%end\n"));
    let mut command = turn.command(&[
        "build",
        "minimal.ks",
        "--format",
        "raw",
        "-o",
        &text(&turn.path("output")),
    ]);
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("kiln starts");
    if let Some(moment) = moment {
        thread::sleep(moment);
        // It may have ended by itself.
        child.kill().expect("a child to kill");
    }
    finish(child, crate::harness::LONGEST)
}
