//! Two builds and a collection on one cache at once, and layers whose bytes change behind Kiln's back.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime};

use crate::harness::{LONGEST, Ran, Turn, cache, digest, finish};
use crate::residue::names;

fn start(turn: &Turn, output: &str) -> Child {
    let arguments = ["build", "-v", "minimal.ks", "-o", output, "--format", "raw"];
    let mut command = turn.command(&arguments);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().expect("kiln starts")
}

fn ended_well(child: Child) -> Ran {
    let ran = finish(child, LONGEST);
    ran.assert(0);
    ran
}

/// The next script that calls; fails when a build ends before.
fn accept(listener: &TcpListener, builds: &mut [Child]) -> TcpStream {
    listener.set_nonblocking(true).expect("a socket");
    loop {
        if let Ok((stream, _)) = listener.accept() {
            return stream;
        }
        for build in &mut *builds {
            let ended = build.try_wait().expect("a child");
            assert!(
                ended.is_none(),
                "a build ended before its script: {ended:?}"
            );
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn two_builds_of_one_definition_and_a_collection() {
    let turn = Turn::warm();
    // The scripts say that they run, and wait for a word.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    turn.minimal_with(&format!(
        "%post --erroronfail --interpreter=/bin/bash\nexec 3<>/dev/tcp/127.0.0.1/{port}\nread -r word <&3\n[ \"$word\" = go ]\n%end\n"
    ));
    let mut builds = [start(&turn, "one"), start(&turn, "other")];
    let scripts = [0, 1].map(|_| accept(&listener, &mut builds));
    // Both builds are past the layers that they found, and use them.
    let collection = turn.kiln(&["cache", "gc", "--keep-days", "0"]);
    for mut script in scripts {
        script.write_all(b"go\n").expect("a script that waits");
    }
    collection.assert(0).says(&[
        "packages: a build uses it",
        "keeping downloads: a build is running",
    ]);
    for build in builds {
        ended_well(build);
    }
    assert_eq!(
        digest(&turn.path("one/disk.raw")),
        digest(&turn.path("other/disk.raw"))
    );
    assert!(names(&cache().join("staging")).is_empty());
    let left = turn.before.of_the_machine();
    assert!(left.is_empty(), "{left:?}");
}

/// The file of this path in the stored layer that has it.
fn stored(path: &str) -> PathBuf {
    let layers = cache().join("layers");
    let found = names(&layers)
        .into_iter()
        .map(|name| layers.join(name).join("fs").join(path))
        .filter(|file| file.exists());
    let newest = found.max_by_key(|file| modified(&file.join("../../../layer.json")));
    newest.unwrap_or_else(|| panic!("no layer has {path}"))
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|m| m.modified()).ok()
}

/// One bit, as a bad disk does it: times stay.
fn flip(path: &Path) {
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("the file");
    let before = file.metadata().and_then(|m| m.modified()).expect("a time");
    let mut byte = [0];
    file.read_exact_at(&mut byte, 3).expect("a byte");
    file.write_all_at(&[byte[0] ^ 16], 3).expect("the byte");
    file.set_modified(before).expect("the old time");
}

#[test]
fn a_bit_that_flips_in_a_layer_is_found_and_the_layer_made_again() {
    let turn = Turn::warm();
    turn.minimal_with("%post\necho 'a sound layer' > /etc/kiln-proof\n%end\n");
    ended_well(start(&turn, "sound"));
    let right = digest(&turn.path("sound/disk.raw"));
    flip(&stored("etc/kiln-proof"));
    // Its blocks are known: the image is right without a look at the file.
    ended_well(start(&turn, "unread"));
    assert_eq!(digest(&turn.path("unread/disk.raw")), right);
    // Without them it is read.
    fs::rename(cache().join("blocks"), turn.path("blocks")).expect("out of the way");
    let again = ended_well(start(&turn, "again"));
    again.says(&["/etc/kiln-proof does not hold what it held", "made again"]);
    fs::remove_dir_all(cache().join("blocks")).expect("new blocks");
    fs::rename(turn.path("blocks"), cache().join("blocks")).expect("back in its place");
    assert_eq!(digest(&turn.path("again/disk.raw")), right);
    assert!(names(&cache().join("staging")).is_empty());
    // A layer that no image was ever made of is known too: it is looked at when it is finished.
    turn.minimal_with("user --name=sound\n%post --erroronfail\nexit 3\n%end\n");
    turn.kiln(&["build", "minimal.ks", "-o", "never"]).assert(4);
    turn.kiln(&["cache", "verify"]).assert(0);
    flip(&stored("etc/passwd"));
    let verified = turn.kiln(&["cache", "verify"]);
    verified.assert(4).says(&["/etc/passwd among them"]);
}

#[test]
fn verbose_says_what_changed() {
    let turn = Turn::warm();
    turn.minimal_with("%post\necho one\n%end\n");
    ended_well(start(&turn, "output"));
    turn.minimal_with("%post\necho two\n%end\n");
    ended_well(start(&turn, "output")).says(&["because script 2 changed"]);
    turn.minimal_with("user --name=late\n%post\necho two\n%end\n");
    let ran = ended_well(start(&turn, "output"));
    ran.says(&["because `user` is new", "because a layer below it is new"]);
}
