//! Two builds and a collection on one cache at once.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::harness::{LONGEST, Ran, Turn, cache, digest, finish};
use crate::residue::names;

fn start(turn: &Turn, output: &str, more: &[&str]) -> Child {
    let arguments = ["build", "-v", "minimal.ks", "-o", output, "--format", "raw"];
    let mut command = turn.command(&[&arguments, more].concat());
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
    // The one who gives the word is on this machine.
    let mut builds = ["one", "other"].map(|output| start(&turn, output, &["--network", "host"]));
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

#[test]
fn verbose_says_what_changed() {
    let turn = Turn::warm();
    turn.minimal_with("%post\necho one\n%end\n");
    ended_well(start(&turn, "output", &[]));
    turn.minimal_with("%post\necho two\n%end\n");
    ended_well(start(&turn, "output", &[])).says(&["because script 2 changed"]);
    turn.minimal_with("user --name=late\n%post\necho two\n%end\n");
    let ran = ended_well(start(&turn, "output", &[]));
    ran.says(&["because `user` is new", "because a layer below it is new"]);
}
