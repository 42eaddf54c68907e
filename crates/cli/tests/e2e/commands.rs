//! Every command of a kickstart, judged in the running system: one image with all of them, booted once.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kiln_testkit::Mirror;

use crate::disk::{FAT, extract, unpack};
use crate::harness::{Ran, Turn, text, tool};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

/// What the running system said, by group of commands.
struct Facts(String);

impl Facts {
    fn of(&self, group: &str) -> &str {
        let head = format!("== {group}\n");
        let found = self.0.split_once(&head);
        let (_, rest) = found.unwrap_or_else(|| panic!("nothing about {group} in\n{}", self.0));
        rest.split("\n== ").next().unwrap_or(rest)
    }

    /// Fails unless the system said all of these about a group.
    fn has(&self, group: &str, lines: &[&str]) {
        let said = self.of(group).replace('\r', "");
        for line in lines {
            assert!(said.contains(line), "{group}: {line:?} is not in\n{said}");
        }
    }

    fn lacks(&self, group: &str, words: &[&str]) {
        let said = self.of(group);
        for word in words {
            assert!(!said.contains(word), "{group}: {word:?} is in\n{said}");
        }
    }
}

#[test]
fn every_command_takes_effect_in_the_running_system() {
    let turn = Turn::warm();
    let site = site(&turn);
    let kickstart = fs::read_to_string(data("commands.ks")).expect("the kickstart");
    turn.write("commands.ks", &kickstart.replace("@SITE@", &site.url()));
    let built = turn.kiln(&["build", "commands.ks", "-o", "output", "--format", "raw"]);
    built
        .assert(0)
        .says(&["%addon org_fedora_oscap has no effect"]);
    let disk = turn.path("output/disk.raw");
    menu(&turn, &disk);
    labels(&turn, &disk);
    let facts = boot(&turn, &disk);
    accounts(&facts);
    language_and_time(&facts);
    network(&facts);
    system(&facts);
    files(&facts);
    let left = turn.before.of_the_machine();
    assert!(left.is_empty(), "{left:?}");
}

/// What the kickstart includes from the network.
fn site(turn: &Turn) -> Mirror {
    let site = turn.path("site");
    fs::create_dir(&site).expect("a directory");
    let network = "network --device=lab0 --bootproto=static --ip=192.0.2.10 --netmask=255.255.255.0 \
                   --gateway=192.0.2.1 --nameserver=192.0.2.53 --onboot=no\n";
    fs::write(site.join("network.ks"), network).expect("a file");
    fs::write(site.join("script.inc"), "echo from afar > /srv/from-afar\n").expect("a file");
    Mirror::of(site)
}

/// `bootloader --timeout --default`, by a reader of FAT that is not Kiln's.
fn menu(turn: &Turn, disk: &Path) {
    let esp = extract(disk, FAT, turn.path("esp"));
    let menu = tool("mtype", &["-i", &text(&esp), "::/boot/grub/grub.cfg"]);
    menu.assert(0);
    for line in ["set timeout=7", "set default=safe", "kiln.commands=1"] {
        assert!(menu.stdout.contains(line), "{line}\n{}", menu.whole());
    }
}

/// Every file has the label that libselinux's own look-up gives for the image's own policy.
fn labels(turn: &Turn, disk: &Path) {
    let root = unpack(disk, turn.path("unpacked"));
    let contexts = text(&root.join("etc/selinux/default/contexts/files/file_contexts"));
    let dump = tool(
        "getfattr",
        &[
            "-R",
            "-P",
            "-h",
            "-n",
            "security.selinux",
            "--absolute-names",
            &text(&root),
        ],
    );
    // It ends with 1 where a file has none: the policy gives none to what is in /proc.
    let labelled = dump.stdout.split("\n\n").filter_map(|one| {
        let (head, value) = one.trim().split_once('\n')?;
        let path = head.strip_prefix("# file: ")?.strip_prefix(&text(&root))?;
        let label = value
            .strip_prefix("security.selinux=\"")?
            .strip_suffix('"')?;
        let label = label.trim_end_matches("\\000");
        Some((path.to_owned(), label.to_owned()))
    });
    // The tool asks about one sort of file at a time.
    let mut sorts: BTreeMap<&str, Vec<(String, String)>> = BTreeMap::new();
    for (path, label) in labelled.filter(|(path, _)| !path.is_empty() && !path.contains('\\')) {
        let kind = fs::symlink_metadata(root.join(&path[1..]))
            .expect("a file")
            .file_type();
        let sort = match (kind.is_dir(), kind.is_symlink(), kind.is_file()) {
            (true, ..) => "dir",
            (_, true, _) => "link",
            (.., true) => "file",
            _ => continue,
        };
        sorts.entry(sort).or_default().push((path, label));
    }
    let mut judged = 0;
    for (sort, files) in &sorts {
        for some in files.chunks(2000) {
            let mut arguments = vec!["-f", &contexts, "-m", sort];
            arguments.extend(some.iter().map(|(path, _)| path.as_str()));
            let said = tool("matchpathcon", &arguments);
            let lines = said.assert(0).stdout.lines().zip(some);
            for (line, (path, label)) in lines {
                assert_eq!(line, format!("{path}\t{label}"), "-m {sort}");
                judged += 1;
            }
        }
    }
    assert!(
        judged > 5000 && sorts.len() == 3,
        "only {judged} files have labels"
    );
}

fn boot(turn: &Turn, disk: &Path) -> Facts {
    let said = turn.boot(disk, &data("commands.facts.sh"));
    assert!(said.contains("== end"), "{said}");
    Facts(said)
}

fn accounts(facts: &Facts) {
    facts.has(
        "user",
        &[
            "anna:x:1500:1600:Anna Example:/home/anna:/bin/sh",
            "ben:x:1501:1501::/srv/ben:/bin/bash",
            "lab:x:5000:anna",
            "anna sudo lab",
            "root P",
            "anna P",
            "ben L",
        ],
    );
    facts.has("rootpw", &["root good", "anna good"]);
    facts.has(
        "sshkey",
        &[
            "anna@desk (ED25519)",
            "700 anna /home/anna/.ssh",
            "600 anna /home/anna/.ssh/authorized_keys",
        ],
    );
    facts.has("authselect", &["pam_mkhomedir.so"]);
}

fn language_and_time(facts: &Facts) {
    facts.has(
        "lang",
        &[
            "LANG=en_GB.UTF-8",
            "cs_CZ.utf8",
            "de_DE.utf8",
            "en_GB.utf8",
            "Po;Út",
            "Mo;Di",
        ],
    );
    facts.has(
        "keyboard",
        &[
            "X11 Layout: cz,us",
            "X11 Variant: qwerty,",
            "X11 Options: grp:alt_shift_toggle",
            "ecaron",
        ],
    );
    facts.has(
        "timezone",
        &["Timezone=Europe/Prague", "LocalRTC=no", "14CEST", "UTC"],
    );
    facts.has(
        "timesource",
        &[
            "SystemNTPServers=ntp.example.org pool.example.org",
            "enabled",
        ],
    );
}

fn network(facts: &Facts) {
    facts.has(
        "network",
        &[
            "127.0.1.1       commands.example.org commands",
            "link:802-3-ethernet:yes:/etc/NetworkManager/system-connections/link.nmconnection",
            "lab0:802-3-ethernet:no:/etc/NetworkManager/system-connections/lab0.nmconnection",
            "ipv4.method:manual",
            "ipv4.addresses:192.0.2.10/24",
            "ipv4.gateway:192.0.2.1",
            "ipv4.dns:192.0.2.53",
            "ipv4.method:auto",
            "config is fine",
        ],
    );
    facts.has(
        "firewall",
        &[
            "active",
            "policy drop",
            "tcp dport { 22, 139, 445, 8080 } accept",
            "udp dport { 137-138, 6000-6010 } accept",
            "iifname \"lab0\" accept",
        ],
    );
}

fn system(facts: &Facts) {
    facts.has(
        "bootloader",
        &["kiln.commands=1", "console=ttyS0,115200", "nomodeset"],
    );
    facts.has(
        "services",
        &[
            "cron disabled inactive",
            "getty@tty7 enabled active",
            "ssh enabled active",
        ],
    );
    facts.has("part", &["people ext4", "/home", "rw,noatime"]);
    facts.has("xconfig", &["graphical.target", "active"]);
    facts.has("firstboot", &["masked"]);
    // Permissive: the labels are those that Kiln computed, and the policy is the one in the image.
    facts.has(
        "selinux",
        &[
            "enforce 0",
            "system_u:object_r:net_conf_t:s0 /etc/hostname",
            "system_u:object_r:init_exec_t:s0 /usr/lib/systemd/systemd",
        ],
    );
    facts.lacks("selinux", &["unlabeled_t"]);
    assert_eq!(facts.of("failed").trim(), "nothing else", "{}", facts.0);
}

fn files(facts: &Facts) {
    // --excludedocs keeps the licence and a place for pages, no link without its page (but that of `sh`, which dash's script makes); of all
    // translations only those of --inst-langs stay.
    facts.has(
        "packages",
        &["copyright", "/usr/share/man/man1\n", "cs", "en_GB"],
    );
    facts.lacks(
        "packages",
        &[
            "nano.1",
            ".gz",
            "changelog",
            "\nde\n",
            "\nfr\n",
            "\npt_BR\n",
        ],
    );
    facts.has(
        "certificate",
        &[
            "lab-ca.pem -> /usr/local/share/ca-certificates/lab-ca.crt",
            "\n1\n",
            "BEGIN CERTIFICATE",
        ],
    );
    facts.has(
        "scripts",
        &[
            "early",
            "perl in / and /",
            "made by %pre in /mnt/sysimage",
            "from afar",
        ],
    );
    facts.lacks("scripts", &["sysimage:"]);
}

/// A missing interpreter is named with the package that brings it; `%onerror` sees the layers that were finished.
#[test]
fn a_missing_interpreter_is_named_and_onerror_runs() {
    let turn = Turn::warm();
    turn.minimal_with(
        "%post\necho seen > /srv/seen\n%end\n%post --interpreter=/usr/bin/python3\nprint(1)\n%end\n\
         %onerror\necho \"onerror has $(ls /mnt/sysimage/usr/bin/dpkg) $INSTALL_ROOT\"\n%end\n",
    );
    let ran: Ran = turn.kiln(&["build", "--verbose", "minimal.ks", "-o", "output"]);
    ran.assert(1).says(&[
        "%post needs /usr/bin/python3, which the root does not have",
        "probably python3",
        "minimal.ks:",
        "onerror has /mnt/sysimage/usr/bin/dpkg /mnt/sysimage",
    ]);
    turn.assert_clean(&ran);
}
