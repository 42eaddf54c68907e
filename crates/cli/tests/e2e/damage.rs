//! Layers whose bytes change behind Kiln's back: nobody gets to see them, and what is damaged is made again.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::disk::{SQUASHFS, part};
use crate::harness::{Ran, Turn, cache, digest, text, tool};
use crate::residue::names;

fn build(turn: &Turn, definition: &str, output: &str) -> Ran {
    let ran = turn.kiln(&["build", "-v", definition, "-o", output, "--format", "raw"]);
    ran.assert(0);
    ran
}

/// The file of this path in the stored layer that has it.
fn stored(path: &str) -> PathBuf {
    let layers = cache().join("layers");
    let all = names(&layers).into_iter().map(|name| layers.join(name));
    let found = all.filter(|layer| layer.join("fs").join(path).symlink_metadata().is_ok());
    let newest = found.max_by_key(|layer| modified(&layer.join("layer.json")));
    let newest = newest.unwrap_or_else(|| panic!("no layer has {path}"));
    newest.join("fs").join(path)
}

fn modified(path: &Path) -> SystemTime {
    let time = path.metadata().and_then(|metadata| metadata.modified());
    time.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
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
    build(&turn, "minimal.ks", "sound");
    let right = digest(&turn.path("sound/disk.raw"));
    flip(&stored("etc/kiln-proof"));
    // Its blocks are known: the image is right without a look at the file.
    build(&turn, "minimal.ks", "unread");
    assert_eq!(digest(&turn.path("unread/disk.raw")), right);
    // Without them it is read.
    fs::rename(cache().join("blocks"), turn.path("blocks")).expect("out of the way");
    let again = build(&turn, "minimal.ks", "again");
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

/// A definition with two kickstart files: what the first one makes is stored when the second one changes.
struct Stacked {
    turn: Turn,
    builds: u32,
}

impl Stacked {
    fn new() -> Self {
        let turn = Turn::warm();
        turn.minimal_with(
            "%post --erroronfail\nfor name in read mode listed/one unread; do\n\
             mkdir -p /srv/listed; echo \"the file $name\" > /srv/$name\ndone\n\
             printf '#!/bin/sh\\nexec /srv/second \"$@\"\\n' > /srv/first\n\
             cp /bin/sh /srv/second\nchmod 755 /srv/first /srv/second\n%end\n",
        );
        turn.write(
            "kiln.toml",
            "name = \"damage\"\nlayers = [\"minimal.ks\", \"upper.ks\"]\n",
        );
        let mut stacked = Stacked { turn, builds: 0 };
        stacked.build("%post\ntrue\n%end\n");
        stacked
    }

    /// Builds with this as the second file; the image.
    fn build(&mut self, upper: &str) -> (Ran, PathBuf) {
        self.builds += 1;
        self.turn.write("upper.ks", upper);
        let output = format!("output{}", self.builds);
        let ran = build(&self.turn, "kiln.toml", &output);
        (ran, self.turn.path(&output).join("disk.raw"))
    }

    /// Flips a bit of a stored file, builds with this as the second file, and sees to it that the damage is found in time. The image.
    fn found(&mut self, damaged: &str, upper: &str) -> PathBuf {
        let stored = stored(damaged);
        flip(&stored);
        let (ran, disk) = self.build(upper);
        let said = format!("/{damaged} does not hold what it held");
        ran.says(&[&said, "made again"]);
        assert!(names(&cache().join("staging")).is_empty());
        disk
    }
}

/// What a file of the image's root holds, as squashfs-tools see it.
fn holds(disk: &Path, path: &str) -> String {
    let offset = part(disk, SQUASHFS).start.to_string();
    let shown = tool("unsquashfs", &["-o", &offset, "-cat", &text(disk), path]);
    shown.assert(0);
    shown.stdout
}

#[test]
fn what_scripts_make_of_a_damaged_layer_is_not_kept() {
    let mut stacked = Stacked::new();
    let script = |lines: &str| format!("%post --erroronfail\n{lines}\n%end\n");
    // Copied by the script.
    let disk = stacked.found("srv/read", &script("cp /srv/read /srv/copy"));
    assert_eq!(holds(&disk, "srv/copy"), "the file read\n");
    // Copied by the kernel, whose overlay does so to change a mode.
    let disk = stacked.found("srv/mode", &script("chmod 600 /srv/mode"));
    assert_eq!(holds(&disk, "srv/mode"), "the file mode\n");
    // The script fails of it: that is not the script's fault.
    stacked.found("srv/read", &script("grep -q 'the file read' /srv/read"));
    // Run by the kernel alone, which finds it in the first line of what it was told to run.
    let disk = stacked.found("srv/second", &script("/srv/first -c 'echo ran > /srv/ran'"));
    assert_eq!(holds(&disk, "srv/ran"), "ran\n");
    // A name that is gone is damage too.
    fs::remove_file(stored("srv/listed/one")).expect("a stored file");
    let (ran, disk) = stacked.build(&script("ls /srv/listed > /srv/names"));
    ran.says(&["/srv/listed does not hold what it held"]);
    assert_eq!(holds(&disk, "srv/names"), "one\n");
    // Seen by a script in the tools root.
    let outside =
        "%post --nochroot --erroronfail\ncp /mnt/sysimage/srv/read /mnt/sysimage/srv/out\n%end\n";
    let disk = stacked.found("srv/read", outside);
    assert_eq!(holds(&disk, "srv/out"), "the file read\n");
    // What nobody looks at harms nobody, and costs nothing.
    flip(&stored("srv/unread"));
    let (ran, disk) = stacked.build(&script("cp /srv/read /srv/copy"));
    assert!(!ran.stderr.contains("does not hold"), "{}", ran.whole());
    assert_eq!(holds(&disk, "srv/unread"), "the file unread\n");
    // Where not all can be seen, a path that is no UTF-8 for instance, everything is compared.
    let (ran, disk) = stacked.build(&script("cat \"/srv/$(printf '\\377')\" || true"));
    ran.says(&["/srv/unread does not hold what it held"]);
    assert_eq!(holds(&disk, "srv/unread"), "the file unread\n");
}

#[test]
fn what_commands_packages_and_the_boot_loader_make_of_a_damaged_layer_is_not_kept() {
    let mut stacked = Stacked::new();
    let disk = stacked.found("etc/passwd", "user --name=late\n");
    let passwd = holds(&disk, "etc/passwd");
    assert!(passwd.starts_with("root:x:0:0:"), "{passwd}");
    assert!(passwd.contains("\nlate:x:"), "{passwd}");
    // All layers are compared beside packages, whatever these read.
    stacked.found("srv/unread", "%packages --exclude-weakdeps\ntree\n%end\n");
    // Boot loader files come from the tools root.
    let upper = "%post\ntrue\n%end\n";
    let (_, sound) = stacked.build(upper);
    let disk = stacked.found("usr/lib/grub/i386-pc/normal.mod", upper);
    assert_eq!(digest(&disk), digest(&sound));
}
