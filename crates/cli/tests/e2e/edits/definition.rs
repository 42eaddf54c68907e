//! A definition over the minimal one that changes at random: what its files say, and what its repository holds.

use std::fmt::Write as _;

use kiln_testkit::Package;
use kiln_testkit::package::Entry;

use crate::random::Random;

/// Kickstart files above the minimal one, lowest first. Their layers' roles have this in them, others' have not.
pub(super) const LAYERS: [&str; 2] = ["edited.ks", "edited-last.ks"];
/// The package that goes up and down.
const PACKAGE: &str = "kiln-edit";
const VERSIONS: usize = 4;

/// What can be edited. Some go the other way where there is no further in theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edit {
    Add,
    Change,
    Rename,
    Delete,
    Mode,
    Owner,
    Attribute,
    HardLink,
    DirectoryToLink,
    LinkToDirectory,
    PackageMore,
    PackageLess,
    VersionUp,
    VersionDown,
    User,
    Initramfs,
    /// A line of a script goes.
    Undo,
}

const EDITS: &[Edit] = &[
    Edit::Add,
    Edit::Change,
    Edit::Rename,
    Edit::Delete,
    Edit::Mode,
    Edit::Owner,
    Edit::Attribute,
    Edit::HardLink,
    Edit::DirectoryToLink,
    Edit::LinkToDirectory,
    Edit::PackageMore,
    Edit::PackageLess,
    Edit::VersionUp,
    Edit::VersionDown,
    Edit::User,
    Edit::Initramfs,
    Edit::Undo,
];

/// Small packages of the distribution: plain ones, one with many small files, and one with a hook for the initramfs.
const POOL: &[&str] = &["bc", "btrfs-progs", "ed", "file", "hello", "psmisc", "tree"];

/// Trees whose files a script may spoil without harm to the scripts and packages after it.
const TREES: &[&str] = &[
    "/home/gardener/garden",
    "/srv/garden",
    "/usr/lib/x86_64-linux-gnu/gconv",
    "/usr/share/bash-completion",
    "/usr/share/common-licenses",
    "/usr/share/doc",
    "/usr/share/garden",
];

/// Those of them that have directories below.
const DEEP_TREES: &[&str] = &[
    "/home/gardener/garden",
    "/srv/garden",
    "/usr/share/doc",
    "/usr/share/garden",
];

/// `pick TYPE NUMBER TREE` prints an entry below a tree: always the same one, and one that is there.
const PICK: &str = r#"set -eu
export LC_ALL=C
pick() {
    type=$1 number=$2
    set -- $(find "$3" -mindepth 1 -xdev -type "$type" | sort)
    [ $# -gt 0 ]
    shift $((number % $#))
    echo "$1"
}
mkdir -p /srv/edits
"#;

/// The initramfs has what hooks want and the few modules that are named, not every driver, and is compressed in a hurry: each
/// cold build makes one. Nobody boots these images.
const FEW_MODULES: &str = r"printf 'MODULES=list\nCOMPRESSLEVEL=1\n' > /etc/initramfs-tools/conf.d/edits
";

/// `/home` is a file system of its own, with what users find there.
const HOME: &str = "part / --size=1024\npart /home --size=64\nuser --name=gardener --uid=1400\n";

/// Things of all sorts that edits find: in one place where the layers are, in one that packages have too, and in one of a user.
const GARDEN: &str = r#"for bed in 0 1 2 3 4 5 6 7; do
    for place in /srv/garden /usr/share/garden /home/gardener/garden; do
        mkdir -p $place/bed$bed/deep
        seq 1 $((bed * 5000)) > $place/bed$bed/long
        echo $bed > $place/bed$bed/short
        ln $place/bed$bed/short $place/bed$bed/deep/hard
        ln -s ../long $place/bed$bed/deep/soft
        ln -s deep $place/bed$bed/link
    done
done
"#;

/// A definition after so many edits.
pub(super) struct Definition {
    scripts: [Vec<String>; 2],
    packages: Vec<&'static str>,
    /// Of [`PACKAGE`].
    version: usize,
    users: usize,
    /// Edits that are still to come before each kind has had its turn.
    deck: Vec<Edit>,
    count: usize,
}

/// What an edit did.
pub(super) struct Edited {
    /// For messages.
    pub(super) what: String,
    /// Whether other packages are asked for, or there are others.
    pub(super) relock: bool,
}

impl Definition {
    pub(super) fn new() -> Self {
        Definition {
            scripts: [Vec::new(), Vec::new()],
            packages: vec!["hello"],
            version: 2,
            users: 0,
            deck: Vec::new(),
            count: 0,
        }
    }

    /// The next edit. Every kind comes once before one comes again.
    pub(super) fn edit(&mut self, random: &mut Random) -> Edited {
        if self.deck.is_empty() {
            self.deck = random.shuffled(EDITS);
        }
        self.count += 1;
        let edit = self.deck.pop().unwrap_or(Edit::Add);
        let (what, relock) = match edit {
            Edit::PackageMore | Edit::PackageLess => (self.package(edit, random), true),
            Edit::VersionUp | Edit::VersionDown => (self.another_version(edit), true),
            Edit::User => (self.user(), true),
            Edit::Undo => (self.undo(random), false),
            _ => (self.line(edit, random), false),
        };
        let what = format!("{edit:?}: {what}");
        Edited { what, relock }
    }

    fn package(&mut self, edit: Edit, random: &mut Random) -> String {
        let absent: Vec<&str> = POOL
            .iter()
            .copied()
            .filter(|name| !self.packages.contains(name))
            .collect();
        let less = edit == Edit::PackageLess && !self.packages.is_empty();
        if less || absent.is_empty() {
            let gone = self.packages.remove(random.below(self.packages.len()));
            return format!("without {gone}");
        }
        let more = absent[random.below(absent.len())];
        self.packages.push(more);
        format!("with {more}")
    }

    fn another_version(&mut self, edit: Edit) -> String {
        let up = self.version == 1 || edit == Edit::VersionUp && self.version < VERSIONS;
        self.version = if up {
            self.version + 1
        } else {
            self.version - 1
        };
        format!("{PACKAGE} {}", self.version)
    }

    fn user(&mut self) -> String {
        self.users = (self.users + 1) % 4;
        format!("{} users", self.users)
    }

    fn undo(&mut self, random: &mut Random) -> String {
        let full: Vec<usize> = (0..2).filter(|i| !self.scripts[*i].is_empty()).collect();
        if full.is_empty() {
            return self.line(Edit::Add, random);
        }
        let script = full[random.below(full.len())];
        let lines = &mut self.scripts[script];
        let gone = lines.remove(random.below(lines.len()));
        format!("{} without {gone}", LAYERS[script])
    }

    /// One more line at the end of a script.
    fn line(&mut self, edit: Edit, random: &mut Random) -> String {
        let line = self.command(edit, random);
        let script = random.below(2);
        self.scripts[script].push(line.clone());
        format!("{} with {line}", LAYERS[script])
    }

    /// The command of an edit. It fails when it finds nothing to edit.
    fn command(&self, edit: Edit, random: &mut Random) -> String {
        let (own, number) = (format!("/srv/edits/{}", self.count), random.below(10_000));
        let garden = random.one_of(&["/srv/garden", "/usr/share/garden", "/home/gardener/garden"]);
        let tree = random.one_of(TREES);
        let file = format!("t=$(pick f {number} {tree})");
        let any = match random.below(3) {
            0 => format!("t=$(pick d {number} {})", random.one_of(DEEP_TREES)),
            _ => file.clone(),
        };
        match edit {
            Edit::Change => random
                .one_of(&[
                    "{file}; echo changed {number} >> $t",
                    "{file}; echo changed {number} > $t",
                    "{file}; printf x | dd of=$t bs=1 seek=$(($(stat -c %s $t) / 2)) conv=notrunc status=none",
                    "{file}; cp $t {own}; mv {own} $t",
                ])
                .replace("{file}", &file)
                .replace("{own}", &own)
                .replace("{number}", &number.to_string()),
            Edit::Rename => {
                let to = random.one_of(&["$t.moved", "$(dirname $t)/0-", &own]);
                format!("{any}; mv -T $t {to}{number}")
            }
            Edit::Delete => format!("{any}; rm -r $t"),
            Edit::Mode => {
                let mode = random.one_of(&["0000", "0640", "0755", "1777", "2755", "4711"]);
                format!("{any}; chmod {mode} $t")
            }
            Edit::Owner => {
                let owner = random.one_of(&["0:65534", "33:0", "1234:5678", "65534:65534"]);
                format!("{any}; chown {owner} $t")
            }
            Edit::Attribute => {
                let set = random.one_of(&[
                    "-n user.kiln -v one",
                    "-n user.kiln -v another",
                    "-n user.kiln-long -v $(seq -s . 1 200)",
                    // cap_net_bind_service=ep, as linux/capability.h has it in version 2.
                    "-n security.capability -v 0x0100000200040000000000000000000000000000",
                ]);
                format!("{file}; setfattr {set} $t")
            }
            Edit::HardLink => format!("{file}; ln $t {own}"),
            Edit::DirectoryToLink => format!(
                "t=$(pick d {number} {garden}); mv -T $t {own}; ln -s {own} $t"
            ),
            Edit::LinkToDirectory => format!(
                "t=$(pick l {number} {garden}); rm $t; mkdir $t; seq 1 {number} > $t/inside"
            ),
            Edit::Initramfs => {
                let module = random.one_of(&["btrfs", "dm_crypt", "nfs", "raid1", "xfs"]);
                format!("echo {module} >> /etc/initramfs-tools/modules")
            }
            _ => random
                .one_of(&[
                    "seq 1 {size} > {own}",
                    "truncate -s {size}K {own}",
                    "cp /srv/garden/bed7/long {own}",
                    "mkdir -m 0750 {own}",
                    "mkfifo {own}",
                    "ln -s nowhere {own}",
                ])
                .replace("{size}", &(number * 15).to_string())
                .replace("{own}", &own),
        }
    }

    /// The kickstart files' texts, lowest first.
    pub(super) fn kickstarts(&self) -> [String; 2] {
        let section = "%packages --nocore --exclude-weakdeps --excludedocs";
        let post = "%end\n%post --erroronfail\n";
        let lines = |script: usize| self.scripts[script].join("\n");
        let mut users = String::new();
        for number in 1..=self.users {
            // Writing to a string cannot fail.
            let _ = writeln!(users, "user --name=edit{number} --uid={}", 1500 + number);
        }
        let packages = self.packages.join("\n");
        [
            format!(
                "{HOME}{section}\nattr\n{post}{PICK}{FEW_MODULES}{GARDEN}{}\n%end\n",
                lines(0)
            ),
            format!(
                "{users}{section}\n{PACKAGE}\n{packages}\n{post}{PICK}{}\n%end\n",
                lines(1)
            ),
        ]
    }

    /// The repository's package: versions differ in contents, sizes, modes, kinds and links.
    pub(super) fn package_of_its_own(&self) -> Package {
        let version = self.version;
        let place = format!("./usr/share/{PACKAGE}");
        let long: String = (0..version * 20_000).map(|n| format!("{n}\n")).collect();
        let mode = if version.is_multiple_of(2) {
            0o644
        } else {
            0o755
        };
        let package = Package::new(PACKAGE, &format!("{version}.0"))
            .entry(Entry::file(&format!("{place}/long"), long).mode(mode))
            .entry(Entry::file(&format!("{place}/same"), "same\n"))
            .entry(Entry::directory("./etc/"))
            .entry(Entry::file("./etc/kiln-edit.conf", format!("{version}\n")))
            .script("conffiles", "/etc/kiln-edit.conf\n")
            .script(
                "postinst",
                &format!("#!/bin/sh\nset -e\necho \"$1 {version}\" > /var/lib/{PACKAGE}\n"),
            );
        if version.is_multiple_of(2) {
            let thing = format!("{place}/thing/");
            package
                .entry(Entry::directory(&thing))
                .entry(Entry::file(&format!("{thing}inside"), "a directory\n"))
        } else {
            package
                .entry(Entry::symlink(&format!("{place}/thing"), "same"))
                .entry(Entry::hard_link(
                    &format!("{place}/again"),
                    &format!("{place}/same"),
                ))
        }
    }
}
