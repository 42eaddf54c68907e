//! The text of a lock file, and the text that ids are made of.

use std::fmt::Write;
use std::time::SystemTime;

use super::{Lock, LockedPackage};

const HEAD: &str = "\
# The exact packages of this image. Written by `kiln lock`; commit it, do not edit it.
";

/// Format 2.
pub(super) fn text(lock: &Lock) -> String {
    let mut text = HEAD.to_owned();
    words(&mut text, ["format", "2"]);
    words(&mut text, ["target", &lock.target]);
    words(&mut text, ["inputs", &lock.inputs.to_string()]);
    for one in &lock.repositories {
        text.push_str("repository");
        field(&mut text, "url", &one.uri);
        field(&mut text, "name", &one.name);
        field(&mut text, "date", &date(one.date));
        field(&mut text, "sha256", &one.release.to_string());
        text.push('\n');
    }
    for layer in &lock.layers {
        text.push('\n');
        words(&mut text, ["layer", layer]);
        for package in sorted(lock, layer) {
            text.push_str("package ");
            escaped(&mut text, &package.name);
            field(&mut text, "version", &package.version);
            field(&mut text, "architecture", &package.architecture);
            field(&mut text, "reason", reason(package));
            field(&mut text, "size", &package.size.to_string());
            field(&mut text, "sha256", &package.sha256.to_string());
            for (name, value) in &package.facts {
                field(&mut text, name, value);
            }
            field(&mut text, "url", &package.url);
            text.push('\n');
        }
    }
    text
}

/// What [`Lock::id`] is the digest of: format 1, byte for byte, with the facts of a family after a package's fields. It never
/// changes: layers and images are named by it.
pub(super) fn canonical(lock: &Lock) -> String {
    let mut text = HEAD.to_owned();
    words(&mut text, ["format", "1"]);
    words(&mut text, ["target", &lock.target]);
    words(&mut text, ["inputs", &lock.inputs.to_string()]);
    for one in &lock.repositories {
        let (date, release) = (date(one.date), one.release.to_string());
        words(
            &mut text,
            ["repository", &one.uri, &one.name, &date, &release],
        );
    }
    for layer in &lock.layers {
        text.push('\n');
        words(&mut text, ["layer", layer]);
        for package in sorted(lock, layer) {
            text.push_str(&identity(package));
        }
    }
    text
}

/// A package's line in [`canonical`].
pub(super) fn identity(package: &LockedPackage) -> String {
    let mut text = String::new();
    let fields = [
        &package.name,
        &package.version,
        &package.architecture,
        &package.size.to_string(),
        &package.sha256.to_string(),
        reason(package),
        &package.url,
    ];
    words(&mut text, fields);
    if !package.facts.is_empty() {
        text.pop();
        for (name, value) in &package.facts {
            field(&mut text, name, value);
        }
        text.push('\n');
    }
    text
}

fn sorted<'l>(lock: &'l Lock, layer: &'l str) -> Vec<&'l LockedPackage> {
    let mut packages: Vec<&LockedPackage> = lock.of_layer(layer).collect();
    packages.sort_by_key(|p| (&p.name, &p.architecture, &p.version));
    packages
}

fn reason(package: &LockedPackage) -> &'static str {
    if package.auto { "auto" } else { "asked" }
}

/// In whole seconds.
fn date(time: SystemTime) -> String {
    // Every date was read from a Release file or a lock, as such a timestamp.
    let date = jiff::Timestamp::try_from(time).unwrap_or_default();
    date.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A line of fields without names.
fn words<const N: usize>(text: &mut String, words: [&str; N]) {
    for (at, word) in words.into_iter().enumerate() {
        if at > 0 {
            text.push(' ');
        }
        escaped(text, word);
    }
    text.push('\n');
}

/// A field with its name, after a space.
fn field(text: &mut String, name: &str, value: &str) {
    text.push(' ');
    text.push_str(name);
    text.push('=');
    escaped(text, value);
}

fn escaped(text: &mut String, field: &str) {
    for c in field.chars() {
        match c {
            '%' => text.push_str("%25"),
            c if c.is_whitespace() || c.is_control() => {
                c.to_string().bytes().for_each(|byte| {
                    // Writing to a string cannot fail.
                    let _ = write!(text, "%{byte:02X}");
                });
            }
            c => text.push(c),
        }
    }
}
