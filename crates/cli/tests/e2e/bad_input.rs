//! Bad input and bad luck: the exit code, a clear message, and nothing left behind.

use std::fs;
use std::os::unix::fs::chown;
use std::process::Command;
use std::time::Duration;

use crate::harness::{LONGEST, Ran, Turn, cache, run, text};
use crate::residue::names;

/// Long enough for a build over a warm cache on a busy machine.
const SOON: Duration = Duration::from_secs(600);

fn build(turn: &Turn) -> Ran {
    turn.kiln(&["build", "minimal.ks"])
}

fn failed_roots() -> Vec<String> {
    names(&cache().join("failed"))
}

#[test]
fn usage() {
    let turn = Turn::cold();
    let unknown = turn.kiln(&["biuld", "minimal.ks"]);
    unknown.assert(2).says(&["'biuld'", "'build'"]);
    turn.assert_clean(&unknown);
    let misspelt = turn.kiln(&["build", "minimal.ks", "--ofline"]);
    misspelt.assert(2).says(&["--ofline", "--offline"]);
    turn.assert_clean(&misspelt);
}

#[test]
fn files_that_are_not_there() {
    let turn = Turn::cold();
    let missing = turn.kiln(&["build", "nowhere.ks"]);
    missing
        .assert(1)
        .says(&["nowhere.ks", "No such file or directory"]);
    turn.assert_clean(&missing);
    turn.write("a.ks", "lang C.UTF-8\n%include absent.ks\n");
    let include = turn.kiln(&["build", "a.ks"]);
    include.assert(1).says(&["a.ks:2", "absent.ks"]);
    turn.assert_clean(&include);
    turn.write("one.ks", "%include two.ks\n");
    turn.write("two.ks", "lang C.UTF-8\n%include one.ks\n");
    let looped = turn.kiln(&["build", "one.ks"]);
    looped.assert(1).says(&["one.ks", "two.ks:2"]);
    turn.assert_clean(&looped);
}

#[test]
fn an_unknown_package_gets_the_nearest_names() {
    let turn = Turn::warm();
    turn.minimal_with("%packages\nopenssh-sevrer\n%end\n");
    let line = fs::read_to_string(turn.path("minimal.ks"))
        .expect("the definition")
        .lines()
        .count()
        - 1;
    let ran = build(&turn);
    ran.assert(1).says(&[
        "openssh-sevrer",
        "openssh-server",
        &format!("minimal.ks:{line}"),
    ]);
    turn.assert_clean(&ran);
}

#[test]
fn layers_that_conflict() {
    let turn = Turn::warm();
    turn.write("mail.ks", "part / --size=1024\n%packages\npostfix\n%end\n");
    turn.write("more.ks", "%packages\nexim4-daemon-light\n%end\n");
    turn.write(
        "kiln.toml",
        "name = \"conflict\"\nlayers = [\"mail.ks\", \"more.ks\"]\n",
    );
    let ran = turn.kiln(&["build", "kiln.toml"]);
    ran.assert(1)
        .says(&["postfix", "exim4-daemon-light", "mail.ks:3", "more.ks:2"]);
    turn.assert_clean(&ran);
}

#[test]
fn an_output_that_cannot_be_written() {
    let turn = Turn::warm();
    turn.write("file", "");
    let below_a_file = turn.kiln(&["build", "minimal.ks", "-o", "file/output"]);
    below_a_file.assert(3).says(&["file/output", "-o DIR"]);
    let read_only = in_own_mounts(
        &turn,
        "mount --bind output output && mount -o remount,ro,bind output",
        &[],
    );
    read_only
        .assert(3)
        .says(&["output", "Read-only file system", "-o DIR"]);
    turn.assert_clean(&read_only);
}

#[test]
fn no_space() {
    let turn = Turn::warm();
    turn.minimal_with("%post\necho no-space > /etc/motd\n%end\n");
    let output = in_own_mounts(&turn, "mount -t tmpfs -o size=40m none output", &[]);
    output.assert(3).says(&[
        "the disk that holds the output directory is full",
        "No space left on device",
        "this build needs about",
        "free some space",
        "-o DIR",
    ]);
    assert!(output.stdout.contains("left:\n"), "{}", output.whole());
    turn.assert_clean(&output);
    fs::create_dir(turn.path("cache")).expect("a directory");
    let cache = in_own_mounts(
        &turn,
        "mount -t tmpfs -o size=24m,mode=700 none cache",
        &["--cache-dir", "cache"],
    );
    full(&cache);
    turn.assert_clean(&cache);
}

/// Whatever fills the cache's disk, and whether or not it minds: the build ends with 3 and says what to do, which then works.
#[test]
fn no_space_in_a_warm_cache() {
    let turn = Turn::warm();
    fs::create_dir(turn.path("cache")).expect("a directory");
    let fill = "dd if=/dev/zero of=/srv/big bs=1M count=500";
    for more in [
        format!("%post --erroronfail\n{fill}\n%end\n"),
        format!("%post --erroronfail\n{fill} || true\n%end\n"),
        "%packages\ngcc-12\n%end\n".to_owned(),
        "%packages\nfonts-dejavu-extra\nfonts-dejavu-core\n%end\n".to_owned(),
    ] {
        turn.minimal_with(&more);
        let parts = "for part in layers metadata downloads answers initramfs; do cp -a $warm/$part cache/; done";
        let prepare = format!(
            "warm={}; size=$(($(du -smc $warm/layers $warm/metadata $warm/downloads | tail -1 | cut -f1) + 8)); \
             mount -t tmpfs -o size=${{size}}m,mode=700 none cache; {parts}",
            text(&cache())
        );
        let ran = in_own_mounts(&turn, &prepare, &["--cache-dir", "cache"]);
        full(&ran);
        assert!(ran.stdout.contains("freed "), "{more}{}", ran.whole());
        turn.assert_clean(&ran);
    }
}

/// The build has ended because the cache's disk is full.
fn full(ran: &Ran) {
    ran.assert(3).says(&[
        "the disk that holds the cache is full",
        "No space left on device",
        "needs about",
        "kiln cache gc",
        "--cache-dir",
    ]);
}

/// Builds in a mount namespace of its own, where `prepare` has mounted something; says what is in `output` then, and
/// collects what is in `cache`.
fn in_own_mounts(turn: &Turn, prepare: &str, more: &[&str]) -> Ran {
    fs::create_dir_all(turn.path("output")).expect("a directory");
    let build = turn.command(&[&["build", "minimal.ks"], more].concat());
    let mut command = Command::new("unshare");
    let collect = "test ! -d cache || \"$1\" cache gc --keep-days 0 --cache-dir cache";
    let script = format!(
        "{prepare} || exit 99; \"$@\"; code=$?; echo left: $(ls -A output); {collect} || exit 98; exit $code"
    );
    command
        .args(["-m", "sh", "-c", &script, "sh"])
        .arg(build.get_program())
        .args(build.get_args());
    command.env_clear().envs(
        build
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    command.current_dir(turn.path("."));
    run(&mut command, SOON)
}

#[test]
fn a_user_without_subordinate_ids() {
    let turn = Turn::warm();
    // No account has this id, so no range in /etc/subuid can be its own.
    let user = 0x3abc_def1;
    let program = turn.path("kiln");
    fs::copy(env!("CARGO_BIN_EXE_kiln"), &program)
        .expect("a copy of kiln that everybody can reach");
    for name in ["home", "cache", "output"] {
        fs::create_dir_all(turn.path(name)).expect("a directory");
        chown(turn.path(name), Some(user), Some(user)).expect("root may give away");
    }
    let build = turn.command(&["build", "minimal.ks", "--cache-dir", "cache"]);
    let mut command = Command::new("setpriv");
    let user = user.to_string();
    command
        .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
        .arg(&program)
        .args(build.get_args());
    command.env_clear().envs(
        build
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let ran = run(command.current_dir(turn.path(".")), SOON);
    ran.assert(3).says(&["/etc/subuid", &user, "hint:"]);
    turn.assert_clean(&ran);
    assert!(
        names(&turn.path("cache/staging")).is_empty(),
        "{}",
        ran.whole()
    );
}

#[test]
fn a_script_that_fails() {
    let turn = Turn::warm();
    turn.minimal_with(
        "%post --erroronfail\necho the first line\necho the last line >&2\nexit 7\n%end\n",
    );
    let ran = build(&turn);
    ran.assert(4).says(&[
        "minimal.ks:",
        "%post failed",
        "status 7",
        "the first line",
        "the last line",
        "kiln shell --last",
    ]);
    turn.assert_clean(&ran);
    assert_eq!(failed_roots().len(), 1, "{}", ran.whole());
    // It can be entered, and has what the script saw.
    let mut shell = turn.command(&["shell", "--last", "--", "cat", "/etc/issue"]);
    let entered = run(&mut shell, SOON);
    assert!(
        entered.stdout.contains("Kiln minimal image"),
        "{}",
        entered.whole()
    );
    turn.assert_clean(&entered);
}

#[test]
fn a_script_that_is_killed() {
    let turn = Turn::warm();
    turn.minimal_with("%post --erroronfail\necho before the end\nkill -9 $$\n%end\n");
    let ran = build(&turn);
    ran.assert(4).says(&[
        "minimal.ks:",
        "SIGKILL",
        "before the end",
        "kiln shell --last",
    ]);
    turn.assert_clean(&ran);
}

#[test]
fn a_script_that_floods_the_log() {
    let turn = Turn::warm();
    turn.minimal_with("%post --erroronfail\nyes 'a line of the flood' | head -c 1000000000\necho >&2 after the flood\n%end\n");
    let ran = run(
        &mut turn.command(&["build", "minimal.ks", "--format", "raw"]),
        LONGEST,
    );
    ran.assert(0);
    assert!(ran.memory < 512 << 20, "{} MiB", ran.memory >> 20);
    assert!(
        ran.stderr.len() < 1 << 20,
        "{} bytes on standard error",
        ran.stderr.len()
    );
    let log = fs::metadata(turn.path("output/build.log"))
        .expect("a log")
        .len();
    assert!(log < 128 << 20, "a build.log of {log} bytes");
    let left = turn.before.of_the_machine();
    assert!(left.is_empty(), "{left:?}");
    assert!(names(&cache().join("staging")).is_empty());
    let whole = text(&turn.path("output/manifest.json"));
    assert!(fs::read_to_string(whole).is_ok_and(|manifest| manifest.contains("disk.raw")));
}
