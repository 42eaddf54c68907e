//! `cargo xtask bench CASE`: Kiln against a peer, both measured in the same run on the same machine.

mod cold;
mod image;
mod measure;
mod mkosi;
mod rpm;
mod server;
mod squashfs;
mod table;
mod warm;

use crate::Result;

/// A benchmark.
struct Case {
    name: &'static str,
    about: &'static str,
    run: fn(&[&str]) -> Result<()>,
}

const CASES: &[Case] = &[
    Case {
        name: "cold",
        about: cold::ABOUT,
        run: cold::run,
    },
    Case {
        name: "warm",
        about: warm::ABOUT,
        run: warm::run,
    },
    Case {
        name: "rpm",
        about: rpm::ABOUT,
        run: rpm::run,
    },
    Case {
        name: "squashfs",
        about: squashfs::ABOUT,
        run: squashfs::run,
    },
    Case {
        name: "tar.gz",
        about: image::ABOUT_TARGZ,
        run: image::targz,
    },
    Case {
        name: "server",
        about: server::ABOUT,
        run: server::run,
    },
];

/// Runs the case named first; without one, lists them.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let Some((name, rest)) = words.split_first() else {
        CASES
            .iter()
            .for_each(|case| println!("{:<8} {}", case.name, case.about));
        return Ok(());
    };
    let case = CASES.iter().find(|case| case.name == *name);
    case.map_or_else(
        || Err(format!("no benchmark is named `{name}`")),
        |case| (case.run)(rest),
    )
}
