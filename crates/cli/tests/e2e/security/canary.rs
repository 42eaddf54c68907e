//! Everything hostile at once: a package with hostile files and scripts from a repository whose owner signs what he likes, and
//! a kickstart whose every section attacks. None reads or changes a file of the host, reaches what listens on it, or leaves a process.

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use kiln_testkit::package::Entry;
use kiln_testkit::{Key, Mirror, Package, Repository};

use crate::harness::{Turn, text};

const SECRET: &str = "the-canary-sings";
/// Finds it, and is not found itself where a script is shown.
const PATTERN: &str = "the-canary-sing[s]";

/// What everybody tries. It says what it managed, and at its end that it has tried.
const ATTACK: &str = r#"
for file in @FILE@ /proc/1/root@FILE@ /proc/$PPID/root@FILE@ /proc/self/root/../@FILE@ ../../../../../../../..@FILE@ /usr/share/evil/canary; do
    if grep -q @SECRET@ "$file" 2>/dev/null; then echo "managed: @WHO@ reads $file"; fi
    if echo changed 2>/dev/null >> "$file"; then :; fi
done
for fd in /proc/self/fd/* /proc/$PPID/fd/*; do
    if grep -qs @SECRET@ "$fd/../../..@FILE@" "$fd/@NAME@"; then echo "managed: @WHO@ reads through $fd"; fi
done < /dev/null
perl -e 'use Socket; socket(S, PF_INET, SOCK_STREAM, 0) or exit 1; alarm 5;
    exit(connect(S, pack_sockaddr_in(@PORT@, INADDR_LOOPBACK)) ? 0 : 1)' && echo "managed: @WHO@ reaches the loopback"
perl -e 'use Socket; socket(S, PF_UNIX, SOCK_STREAM, 0) or exit 1;
    exit(connect(S, pack_sockaddr_un("\0@ABSTRACT@")) ? 0 : 1)' && echo "managed: @WHO@ reaches the abstract socket"
setsid sleep 600 < /dev/null > /dev/null 2>&1 &
perl -e 'use POSIX; fork and exit; setsid(); fork and exit; open(STDIN, "<", "/dev/null"); open(STDOUT, ">", "/dev/null");
    open(STDERR, ">", "/dev/null"); $SIG{TERM} = $SIG{HUP} = "IGNORE"; sleep 600'
echo "tried: @WHO@"
"#;

/// Who attacks, as the log must show.
const ATTACKERS: &[&str] = &["preinst", "postinst", "pre", "post", "outside", "useradd"];

struct Canary {
    turn: Turn,
    heard: Arc<AtomicUsize>,
    port: u16,
    name: String,
    _abstract: UnixListener,
}

impl Canary {
    fn new() -> Self {
        let turn = Turn::warm();
        let heard = Arc::new(AtomicUsize::new(0));
        turn.write("canary", SECRET);
        let name = format!("kiln-e2e-hostile-{}", std::process::id());
        let address = UnixAddr::from_abstract_name(&name).expect("an abstract name");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let port = listener.local_addr().expect("its address").port();
        let count = heard.clone();
        thread::spawn(move || {
            for _ in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Canary {
            turn,
            heard,
            port,
            _abstract: UnixListener::bind_addr(&address).expect("an abstract socket"),
            name,
        }
    }

    fn attack(&self, who: &str) -> String {
        ATTACK
            .replace("@FILE@", &text(&self.turn.path("canary")))
            .replace("@NAME@", "canary")
            .replace("@SECRET@", PATTERN)
            .replace("@PORT@", &self.port.to_string())
            .replace("@ABSTRACT@", &self.name)
            .replace("@WHO@", who)
    }

    fn script(&self, who: &str) -> String {
        format!("#!/bin/sh\n{}exit 0\n", self.attack(who))
    }

    /// A package with a link that leads out of the root.
    fn package(&self) -> Package {
        Package::new("evil", "1")
            .script("preinst", &self.script("preinst"))
            .script("postinst", &self.script("postinst"))
            .entry(Entry::symlink(
                "./usr/share/evil/canary",
                &text(&self.turn.path("canary")),
            ))
    }

    fn kickstart(&self) -> String {
        let section = |header: &str, who: &str| format!("{header}\n{}%end\n", self.attack(who));
        let useradd = self.script("useradd");
        [
            section("%pre", "pre"),
            format!(
                "%packages --nocore --exclude-weakdeps\nevil\n%end\n%post\ncat > /usr/sbin/useradd <<'PLANT'\n{useradd}PLANT\n\
                 chmod 755 /usr/sbin/useradd\n%end\n"
            ),
            section("%post", "post"),
            section("%post --nochroot", "outside"),
        ]
        .concat()
    }
}

#[test]
fn nothing_hostile_reads_reaches_or_stays() {
    let canary = Canary::new();
    let turn = &canary.turn;
    for directory in ["project", "repository"] {
        fs::create_dir(turn.path(directory)).expect("a directory");
    }
    let key = Key::generate("mallory");
    fs::write(turn.path("project/key.asc"), key.public_armored()).expect("a key");
    Repository::new("evil", [canary.package()]).write(&turn.path("repository"), &key);
    let mirror = Mirror::of(turn.path("repository"));
    fs::rename(turn.path("minimal.ks"), turn.path("project/minimal.ks")).expect("the example");
    turn.write("project/evil.ks", &canary.kickstart());
    turn.write("project/more.ks", "user --name=eve\n");
    turn.write(
        "project/kiln.toml",
        &format!(
            "name = \"evil\"\nlayers = [\"minimal.ks\", \"evil.ks\", \"more.ks\"]\n[[repository]]\nurl = {:?}\n\
             suite = \"evil\"\ncomponents = [\"main\"]\nsigned-by = \"key.asc\"\n",
            mirror.url()
        ),
    );
    // The planted useradd makes no account, so the build may say that it failed; everybody has tried before.
    let ran = turn.kiln(&["build", "project", "--log-format", "json", "-o", "output"]);
    let all = format!("{}{}", ran.stdout, ran.stderr);
    // Without thousands of lines of progress.
    let lines: Vec<&str> = all
        .lines()
        .filter(|line| !line.contains("\"progress\""))
        .collect();
    let said = lines.join("\n");
    for who in ATTACKERS {
        let tried = format!("tried: {who}");
        assert!(said.contains(&tried), "{who} had no turn\n{said}");
    }
    assert!(
        !said.contains("managed: ") && !said.contains(SECRET),
        "{said}"
    );
    assert_eq!(canary.heard.load(Ordering::SeqCst), 0);
    let kept = fs::read_to_string(turn.path("canary")).expect("the canary");
    assert_eq!(kept, SECRET);
    let left = turn.before.of_the_machine();
    assert!(left.is_empty(), "left behind: {left:#?}");
}
