//! Builds over a warm cache: what is reused, and that it is never the wrong thing.

use std::fs;

use crate::disk::{FAT, extract};
use crate::harness::{Ran, Turn, cache, digest, text, tool};

fn build(turn: &Turn, output: &str) -> Ran {
    let ran = turn.kiln(&["build", "minimal.ks", "-o", output, "--format", "raw"]);
    ran.assert(0);
    ran
}

#[test]
fn an_edit_reuses_what_it_does_not_touch_and_gives_what_a_cold_image_step_gives() {
    let turn = Turn::warm();
    turn.minimal_with("%post\necho warm > /etc/motd\n%end\n");
    let warm = build(&turn, "warm");
    warm.says(&[
        "cached system: installing",
        "cached generating the initramfs",
    ]);
    // Nothing changed: nothing is made.
    build(&turn, "warm").says(&["cached making the image", "kept"]);
    // A file that was changed afterwards is made again.
    let disk = turn.path("warm/disk.raw");
    let right = digest(&disk);
    fs::OpenOptions::new()
        .append(true)
        .open(&disk)
        .and_then(|file| file.set_len(4096))
        .expect("a truncated image");
    build(&turn, "warm").says(&["wrote"]);
    assert_eq!(digest(&disk), right, "a rebuilt image differs");
    // Without any compressed block, and without any initramfs.
    for name in ["blocks", "initramfs"] {
        fs::rename(cache().join(name), turn.path(name)).expect("out of the way");
    }
    let cold = build(&turn, "cold");
    for name in ["blocks", "initramfs"] {
        let _ = fs::remove_dir_all(cache().join(name));
        fs::rename(turn.path(name), cache().join(name)).expect("back in its place");
    }
    cold.says(&["done generating the initramfs"]);
    assert_eq!(
        digest(&turn.path("cold/disk.raw")),
        right,
        "warm and cold differ"
    );
    let left = turn.before.of_the_machine();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_the_generator_reads_makes_a_new_initramfs() {
    let turn = Turn::warm();
    turn.minimal_with(
        "%post\nprintf '#!/bin/sh\\n: > \"$DESTDIR/kiln-was-here\"\\n' > /etc/initramfs-tools/hooks/marker\n\
         chmod 755 /etc/initramfs-tools/hooks/marker\n%end\n",
    );
    build(&turn, "output").says(&["done generating the initramfs"]);
    let log = fs::read_to_string(turn.path("output/build.log")).expect("a log");
    let why = "==> generating the initramfs (/etc/initramfs-tools/hooks changed)";
    assert!(log.contains(why), "{log}");
    let esp = extract(&turn.path("output/disk.raw"), FAT, turn.path("esp"));
    let listed = tool("mdir", &["-/", "-b", "-i", &text(&esp), "::"]);
    let initrd = listed
        .stdout
        .lines()
        .find(|line| line.to_ascii_lowercase().contains("initrd"));
    let initrd = initrd.unwrap_or_else(|| panic!("no initrd\n{}", listed.whole()));
    tool(
        "mcopy",
        &["-i", &text(&esp), initrd, &text(&turn.path("initrd"))],
    )
    .assert(0);
    let script = "{ zstd -qdc \"$1\" || gzip -dc \"$1\"; } | grep -c kiln-was-here";
    tool("sh", &["-c", script, "sh", &text(&turn.path("initrd"))]).assert(0);
}

/// Its generator lists `/etc` and `/usr/lib`, and every program of it opens the dynamic linker's cache; but what is new there is not
/// what they are looking for.
#[test]
fn what_the_generator_does_not_look_for_keeps_the_initramfs() {
    let turn = Turn::warm();
    turn.minimal_with(
        "%post --erroronfail\necho new > /etc/kiln-was-here\nmkdir -p /usr/lib/kiln-was-here /lib-of-kiln.d\n\
         rmdir /lib-of-kiln.d\ncp -L /lib/x86_64-linux-gnu/libanl.so.1 /usr/local/lib/\nldconfig\n\
         ldconfig -p | grep -q /usr/local/lib/libanl.so.1\n%end\n",
    );
    build(&turn, "output").says(&["cached generating the initramfs"]);
}

/// Where a layer with packages follows another one, the initramfs begins below it.
#[test]
fn an_initramfs_begun_beside_the_last_packages_is_the_one_made_at_the_end() {
    let turn = Turn::warm();
    turn.write(
        "kiln.toml",
        "name = \"two\"\ndistribution = \"debian:bookworm\"\nlayers = [\"minimal.ks\", \"more.ks\"]\n",
    );
    turn.write(
        "more.ks",
        "%packages --exclude-weakdeps\ntree\n%end\n%post\necho two > /etc/two\n%end\n",
    );
    let build = |output: &str| {
        fs::rename(
            cache().join("initramfs"),
            turn.path(&format!("{output}-before")),
        )
        .expect("no initramfs");
        let ran = turn.kiln(&["build", "kiln.toml", "-o", output, "--format", "raw"]);
        ran.assert(0);
        ran
    };
    build("ahead").says(&["begun beside the last packages"]);
    // The packages are there now, although no lock says which they are, so nothing is left to be begun beside.
    let after = build("after");
    after.says(&["cached system: installing", "cached more: installing"]);
    after.says(&["done generating the initramfs"]);
    assert!(!after.stderr.contains("begun beside"), "{}", after.whole());
    fs::remove_dir_all(cache().join("initramfs")).expect("results");
    fs::rename(turn.path("ahead-before"), cache().join("initramfs")).expect("back in its place");
    assert_eq!(
        digest(&turn.path("ahead/disk.raw")),
        digest(&turn.path("after/disk.raw"))
    );
}

#[test]
fn a_package_that_a_layer_has_is_taken_from_there_and_is_the_same() {
    let turn = Turn::warm();
    turn.write(
        "kiln.toml",
        "name = \"fewer\"\ndistribution = \"debian:bookworm\"\nlayers = [\"minimal.ks\", \"more.ks\"]\n",
    );
    turn.minimal_with("");
    let build = |packages: &str, output: &str| {
        let kickstart = format!("%packages --exclude-weakdeps\n{packages}\n%end\n");
        turn.write("more.ks", &kickstart);
        let ran = turn.kiln(&["build", "kiln.toml", "-o", output, "--format", "raw"]);
        ran.assert(0);
        let log = fs::read_to_string(turn.path(output).join("build.log")).expect("a log");
        log.contains("1 package comes from an earlier layer")
    };
    build("tree\ntime", "both");
    assert!(build("tree", "taken"), "tree was unpacked again");
    let layers = fs::read_dir(cache().join("layers")).expect("layers");
    for layer in layers.map(|layer| layer.expect("a layer").path()) {
        let inputs = fs::read_to_string(layer.join("inputs.json"));
        let own = |text: &String| text.contains("fewer/more") || text.contains("fewer//finish");
        if inputs.is_ok_and(|text| own(&text)) {
            fs::remove_dir_all(&layer).expect("a layer that is gone");
        } else if layer.join("unpacked").exists() {
            fs::remove_file(layer.join("unpacked")).expect("notes that are gone");
        }
    }
    assert!(!build("tree", "afresh"), "nothing is there to be taken");
    assert_eq!(
        digest(&turn.path("taken/disk.raw")),
        digest(&turn.path("afresh/disk.raw"))
    );
}

/// A lock as Kiln wrote it before fields had names is used as it is, and what was made for it is found again.
#[test]
fn a_lock_of_the_first_format_is_still_the_lock() {
    let turn = Turn::warm();
    let lock = turn.path("minimal.kiln.lock");
    let new = fs::read_to_string(&lock).expect("the lock");
    let old: String = new.lines().map(first_format).collect();
    assert_ne!(new, old);
    let locked = |output: &str| {
        let words = ["build", "minimal.ks", "--locked", "--format", "raw", "-o"];
        let ran = turn.kiln(&[&words[..], &[output]].concat());
        ran.assert(0);
        ran
    };
    locked("new");
    fs::write(&lock, old).expect("the old lock");
    let ran = locked("old");
    ran.says(&["cached system: installing", "cached finishing the root"]);
    let made = |output: &str| digest(&turn.path(&format!("{output}/disk.raw")));
    assert_eq!(made("old"), made("new"), "the two locks make two images");
}

/// A line of a lock without the names of its fields.
fn first_format(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let value = |name: &str| {
        let mut values = words.iter().filter_map(|word| word.split_once('='));
        values.find(|(n, _)| *n == name).map_or("", |(_, v)| v)
    };
    match words[..] {
        ["format", _] => "format 1\n".to_owned(),
        ["repository", ..] => {
            let fields = ["url", "name", "date", "sha256"].map(value);
            format!("repository {}\n", fields.join(" "))
        }
        ["package", name, ..] => {
            let fields = ["version", "architecture", "size", "sha256", "reason", "url"].map(value);
            format!("{name} {}\n", fields.join(" "))
        }
        _ => format!("{line}\n"),
    }
}
