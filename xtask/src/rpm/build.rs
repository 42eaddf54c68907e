//! Images, built in the ways that users build.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::{Ground, SETS};
use crate::peer::{afresh, trouble};
use crate::{Result, process, workspace};

/// Who builds, and with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Root,
    /// An ordinary user with subordinate ids: the one that `cargo xtask prerequisites` makes.
    User,
    /// Root, with a `PATH` that has no program.
    NoPath,
}

impl Way {
    pub(super) fn name(self) -> &'static str {
        match self {
            Way::Root => "root",
            Way::User => "an ordinary user",
            Way::NoPath => "root, no program in `PATH`",
        }
    }
}

/// An image that was built.
pub(super) struct Built {
    pub(super) disk: PathBuf,
    pub(super) packages: usize,
    pub(super) seconds: f64,
}

/// Writes the definition and builds it, resolved anew.
pub(super) fn image(ground: &Ground, name: &str, kickstart: &str, way: Way) -> Result<Built> {
    let place = match way {
        // Where everybody can go, which nobody's home directory need be.
        Way::User => std::env::temp_dir().join(format!("kiln-rpm-{}", std::process::id())),
        _ => ground.work.join(name),
    };
    afresh(&place)?;
    let definition = place.join("definition");
    let kickstart = workspace::root().join(SETS).join(format!("{kickstart}.ks"));
    ground.served.define(&kickstart, &definition)?;
    let mut command = match way {
        Way::User => as_user(ground, &place)?,
        _ => Command::new(&ground.kiln),
    };
    let cache = if way == Way::User {
        place.join("cache")
    } else {
        ground.work.join("cache")
    };
    command.arg("--cache-dir").arg(cache);
    command.arg("--state-dir").arg(place.join("state"));
    command
        .args(["build", "--format", "raw", "-o"])
        .arg(place.join("output"));
    command.arg(&definition);
    if way == Way::NoPath {
        command.env("PATH", "/nonexistent");
    }
    let began = Instant::now();
    process::output(&mut command)?;
    let seconds = began.elapsed().as_secs_f64();
    let list = place.join("output/packages.txt");
    let listed = fs::read_to_string(&list).map_err(trouble("reading", &list))?;
    let mut disk = place.join("output/disk.raw");
    if way == Way::User {
        let kept = ground.work.join(format!("{name}.raw"));
        let mut copy = Command::new("cp");
        process::output(copy.arg("--sparse=always").arg(&disk).arg(&kept))?;
        fs::remove_dir_all(&place).map_err(trouble("removing", &place))?;
        disk = kept;
    }
    println!("== {name}: built in {seconds:.0} s");
    Ok(Built {
        disk,
        packages: listed.lines().count(),
        seconds,
    })
}

/// Kiln, run by the user, in a directory that is the user's.
fn as_user(ground: &Ground, place: &Path) -> Result<Command> {
    let user = crate::prerequisites::USER;
    let program = place.join("kiln");
    fs::copy(&ground.kiln, &program).map_err(trouble("copying", &ground.kiln))?;
    fs::set_permissions(place, PermissionsExt::from_mode(0o755))
        .map_err(trouble("opening", place))?;
    let mut own = Command::new("chown");
    process::output(own.args(["-R", user]).arg(place))?;
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", user, "--clear-groups"]);
    command.arg(program).env("HOME", place);
    Ok(command)
}
