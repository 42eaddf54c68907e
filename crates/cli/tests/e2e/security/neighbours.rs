//! The machine's other users: they can neither read, run nor change what somebody has built, is building, or failed to
//! build. What an ordinary user builds is attacked in `rootless.rs`, where one builds.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{LONGEST, Ran, Turn, cache, run, text};
use crate::residue::names;
use crate::rootless::USER;

/// A user without an account, so that no range of subordinate ids can be its own.
pub(crate) const NEIGHBOUR: &str = "985521649";

/// Of a layer that gives its neighbours everything that they could wish for.
pub(crate) const TEMPTING: &str = "%post --erroronfail\ninstall -m 4755 /usr/bin/id /usr/local/bin/tempting\n\
    mkdir -m 1777 /srv/tempting\necho canary > /srv/tempting/canary\nchmod 666 /srv/tempting/canary\n%end\n";
/// The same, and then it fails.
pub(crate) const FAILING: &str = "%post --erroronfail\ninstall -m 4755 /usr/bin/id /usr/local/bin/failing\n\
    mkdir -m 1777 /srv/failing\necho canary > /srv/failing/canary\nchmod 666 /srv/failing/canary\nexit 3\n%end\n";

/// Says of each path what its caller can do with it.
const ATTACK: &str = "for path; do
    cat \"$path\" >/dev/null 2>&1 && echo \"read $path\"
    ls \"$path/\" >/dev/null 2>&1 && echo \"listed $path\"
    if [ -d \"$path\" ]; then : > \"$path/planted\"; else : >> \"$path\"; fi 2>/dev/null && echo \"changed $path\"
    mv \"$path\" \"$path.moved\" 2>/dev/null && echo \"moved $path\"
    \"$path\" >/dev/null 2>&1
    case $? in 126|127) ;; *) echo \"ran $path\";; esac
    done";

/// Runs a script as another user of the machine.
fn as_user(user: &str, script: &str, arguments: &[String]) -> Ran {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", user, "--clear-groups"]);
    command.args(["sh", "-c", script, "sh"]).args(arguments);
    command.env_clear().env("PATH", "/usr/bin:/bin");
    run(command.current_dir("/"), LONGEST)
}

/// What lies in these directories as root sees it: all that is not deep, and of the many files of a root the tempting ones.
fn everything(directories: &[PathBuf]) -> Vec<String> {
    let find = |tests: &[&str]| {
        let mut find = Command::new("find");
        find.args(directories).args(tests).arg("-print0");
        let found = run(&mut find, LONGEST);
        let paths = found.stdout.split_terminator('\0').map(str::to_owned);
        paths.collect::<Vec<_>>()
    };
    let tempting = ".*/(tempting|failing|canary|etc/shadow)";
    let deep = find(&[
        "-mindepth",
        "4",
        "-regextype",
        "posix-extended",
        "-regex",
        tempting,
    ]);
    [find(&["-maxdepth", "3"]), deep].concat()
}

/// Fails if a user can do anything with what is in these directories, which have all that a build and a failed one leave.
pub(crate) fn assert_closed(user: &str, control: &Path, directories: &[PathBuf]) {
    let paths = everything(directories);
    for part in [
        "usr/local/bin/tempting",
        "srv/tempting/canary",
        "usr/local/bin/failing",
        "etc/shadow",
        "downloads/sha256",
        "build.log",
        "failure.json",
        "manifest.json",
        "packages.txt",
        "disk.raw",
    ] {
        let known = paths.iter().any(|path| path.ends_with(part));
        assert!(known, "no {part} is among {} paths", paths.len());
    }
    for some in paths.chunks(1000) {
        let attacked = as_user(user, ATTACK, some);
        assert_eq!(attacked.stdout, "", "{}", attacked.whole());
    }
    // The attack works where it may.
    let attacked = as_user(user, ATTACK, &[text(control)]);
    assert!(attacked.stdout.contains("read"), "{}", attacked.whole());
}

/// A file that everybody may read.
pub(crate) fn control(turn: &Turn) -> PathBuf {
    turn.write("control", "for everybody\n");
    turn.path("control")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o7777
}

#[test]
fn nothing_that_root_builds_or_fails_to_build_can_be_read_run_or_changed() {
    let turn = Turn::warm();
    turn.minimal_with(TEMPTING);
    // One directory that is there, open to all, and one that is not.
    fs::create_dir(turn.path("there")).expect("a directory");
    let format = ["build", "minimal.ks", "--format", "raw", "-o"];
    turn.kiln(&[&format[..], &["there"]].concat()).assert(0);
    turn.kiln(&[&format[..], &["new"]].concat()).assert(0);
    assert_eq!(mode(&turn.path("there")), 0o755, "a user's choice");
    assert_eq!(mode(&turn.path("new")), 0o700);
    for name in names(&turn.path("there")) {
        assert_eq!(mode(&turn.path("there").join(&name)), 0o600, "{name}");
    }
    turn.minimal_with(&format!("{TEMPTING}{FAILING}"));
    turn.kiln(&[&format[..], &["there"]].concat()).assert(4);
    let parts = ["layers", "staging", "failed", "downloads", "blocks"];
    let mut directories: Vec<PathBuf> = parts.iter().map(|name| cache().join(name)).collect();
    directories.push(turn.path("home/.local/state/kiln"));
    directories.push(turn.path("new"));
    let inside = names(&turn.path("there")).into_iter();
    directories.extend(inside.map(|name| turn.path("there").join(name)));
    for user in [NEIGHBOUR, USER] {
        assert_closed(user, &control(&turn), &directories);
    }
}

#[test]
fn a_cache_that_was_open_is_closed_and_its_owner_is_told() {
    let turn = Turn::warm();
    let open = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    };
    open(&cache(), 0o755);
    open(&cache().join("layers"), 0o755);
    let told = turn.kiln(&["cache", "ls"]);
    told.assert(0)
        .says(&["warning", "mode 0755", "closed to them now"]);
    assert_eq!(mode(&cache()), 0o700);
    assert_eq!(mode(&cache().join("layers")), 0o700);
    let quiet = turn.kiln(&["cache", "ls"]);
    assert!(!quiet.stderr.contains("warning"), "{}", quiet.whole());
}

#[test]
fn directories_of_others_and_for_others_are_no_caches() {
    let turn = Turn::cold();
    let build = |cache: &str| turn.kiln(&["build", "minimal.ks", "--cache-dir", cache]);
    let user: u32 = NEIGHBOUR.parse().expect("an id");
    fs::create_dir(turn.path("theirs")).expect("a directory");
    chown(turn.path("theirs"), Some(user), Some(user)).expect("root may give away");
    build("theirs")
        .assert(3)
        .says(&["theirs", NEIGHBOUR, "--cache-dir"]);
    // As `/tmp` is: closing it would lock everybody out.
    fs::create_dir(turn.path("everybodys")).expect("a directory");
    let open = fs::Permissions::from_mode(0o1777);
    fs::set_permissions(turn.path("everybodys"), open).expect("a mode");
    build("everybodys").assert(3).says(&["everybodys", "1777"]);
    assert_eq!(mode(&turn.path("everybodys")), 0o1777);
    fs::create_dir_all(turn.path("home/work")).expect("a directory");
    build("home").assert(3).says(&["home", "other things"]);
    assert_eq!(mode(&turn.path("home")), 0o755);
}

#[test]
fn a_shared_directory_shows_layers_to_whom_it_is_opened_only() {
    let turn = Turn::warm();
    let url = format!("file://{}", text(&turn.path("share")));
    let build = |more: &[&str]| {
        let common = ["build", "minimal.ks", "--format", "raw", "--shared-cache"];
        turn.kiln(&[&common[..], &[&url], more].concat())
    };
    build(&[]).assert(0);
    assert_eq!(mode(&turn.path("share")), 0o700);
    let open = |mode| {
        fs::set_permissions(turn.path("share"), fs::Permissions::from_mode(mode)).expect("a mode");
    };
    // A group that may write needs a key, everybody else stays out.
    open(0o770);
    build(&[]).assert(3).says(&["0770", "--shared-cache-key"]);
    turn.write_secret("key", "a secret of the test, long enough\n");
    open(0o775);
    build(&["--shared-cache-key", "key"]).assert(0);
    assert_eq!(mode(&turn.path("share")), 0o770);
    turn.write("loose", "a secret of the test, long enough\n");
    build(&["--shared-cache-key", "loose"])
        .assert(3)
        .says(&["loose", "chmod 600"]);
}
