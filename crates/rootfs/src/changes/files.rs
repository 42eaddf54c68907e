//! Files: written whole beside their place and renamed, or edited line by line.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::error::{Fault, Result};
use crate::regular;

/// Files that are edited are configuration; a larger one is something else.
const LARGEST: u64 = 16 << 20;

/// Writes a file with its mode. An old one is replaced by rename, so that a link to it or a running reader is not hurt.
pub(super) fn write(path: &str, content: &str, mode: u32) -> Result {
    make_parent(path)?;
    // A link (`/etc/default/locale` to `../locale.conf`) is followed: the distribution put it there.
    let target = resolve(path);
    put(&target, content.as_bytes(), mode).map_err(|e| Fault::io("writing", path, &e))
}

fn resolve(path: &str) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path))
}

fn put(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path.file_name().ok_or(ErrorKind::IsADirectory)?.to_owned();
    name.push(".kiln-new");
    let fresh = path.with_file_name(name);
    let result = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&fresh)
        .and_then(|mut file| {
            // The mode given to open is subject to the umask.
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            file.write_all(content)
        })
        .and_then(|()| fs::rename(&fresh, path));
    if result.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    result
}

pub(super) fn make_parent(path: &str) -> Result {
    let Some(parent) = Path::new(path).parent() else {
        return Ok(());
    };
    make_directory(parent).map_err(|e| Fault::io("making the directory of", path, &e))
}

/// Makes a directory and its missing parents with mode 755, whatever the umask.
fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_directory(parent)?;
    }
    match fs::create_dir(path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(e) => Err(e),
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o755)),
    }
}

pub(super) fn symlink(path: &str, target: &str) -> Result {
    make_parent(path)?;
    remove(path)?;
    std::os::unix::fs::symlink(target, path).map_err(|e| Fault::io("linking", path, &e))
}

pub(super) fn remove(path: &str) -> Result {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Fault::io("removing", path, &e)),
        _ => Ok(()),
    }
}

/// The text of a file that need not be there: a missing one is as good as an empty one.
pub(super) fn read_or_empty(path: &str) -> Result<String> {
    Ok(read(path)?.unwrap_or_default())
}

/// The text of a file; `None` if there is none.
pub(super) fn read(path: &str) -> Result<Option<String>> {
    let size = match fs::metadata(path) {
        Ok(found) => found.len(),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Fault::io("reading", path, &e)),
    };
    if size > LARGEST {
        return Err(Fault::step(format!(
            "{path} has {size} bytes, which is too large for a configuration file"
        )));
    }
    let bytes = regular::read(path).map_err(|e| Fault::io("reading", path, &e))?;
    // Bytes that are no text would come back changed; such a file is not one to edit.
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(Fault::step(format!("{path} is not UTF-8 text"))),
    }
}

fn mode_of(path: &str, default: u32) -> u32 {
    fs::metadata(path).map_or(default, |m| m.permissions().mode() & 0o7777)
}

/// Rewrites a file's lines with its mode kept.
pub(super) fn rewrite(path: &str, text: &str) -> Result {
    write(path, text, mode_of(path, 0o644))
}

/// Whether values of shell variables are put in quotes.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Quotes {
    Always,
    WhereNeeded,
}

pub(super) fn set_variables(path: &str, variables: &[(String, String)], quotes: Quotes) -> Result {
    let mut lines: Vec<String> = read_or_empty(path)?.lines().map(str::to_owned).collect();
    for (name, value) in variables {
        let line = format!("{name}={}", quoted(value, quotes));
        let is_set = |l: &String| {
            l.trim_start()
                .strip_prefix(name.as_str())
                .is_some_and(|r| r.starts_with('='))
        };
        match lines.iter().position(is_set) {
            None => lines.push(line),
            Some(first) => {
                // Of several assignments the last one would count.
                let mut index = 0;
                lines.retain(|l| {
                    index += 1;
                    index - 1 == first || !is_set(l)
                });
                if let Some(slot) = lines.get_mut(first) {
                    *slot = line;
                }
            }
        }
    }
    rewrite(path, &joined(&lines))
}

fn quoted(value: &str, quotes: Quotes) -> String {
    let plain = !value.is_empty()
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_./:@%+,-".contains(&b));
    if plain && quotes == Quotes::WhereNeeded {
        return value.to_owned();
    }
    let mut text = String::from("\"");
    for letter in value.chars() {
        if "\"\\$`".contains(letter) {
            text.push('\\');
        }
        text.push(letter);
    }
    text + "\""
}

fn joined(lines: &[String]) -> String {
    lines.iter().map(|l| format!("{l}\n")).collect()
}

pub(super) fn set_key(
    path: &str,
    section: &str,
    key: &str,
    value: &str,
    only_if_present: bool,
) -> Result {
    let Some(text) = read(path)? else {
        if only_if_present {
            return Ok(());
        }
        return write(path, &format!("[{section}]\n{key}={value}\n"), 0o644);
    };
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    set_in_section(&mut lines, section, key, value);
    rewrite(path, &joined(&lines))
}

fn set_in_section(lines: &mut Vec<String>, section: &str, key: &str, value: &str) {
    let line = format!("{key}={value}");
    let header = format!("[{section}]");
    let Some(start) = lines.iter().position(|l| l.trim() == header) else {
        lines.extend([header, line]);
        return;
    };
    let length = lines
        .iter()
        .skip(start + 1)
        .position(|l| l.trim_start().starts_with('['))
        .unwrap_or(lines.len() - start - 1);
    let is_set = |l: &String| l.split_once('=').is_some_and(|(k, _)| k.trim() == key);
    match lines.iter().skip(start + 1).take(length).position(is_set) {
        Some(offset) => {
            if let Some(slot) = lines.get_mut(start + 1 + offset) {
                *slot = line;
            }
        }
        None => lines.insert(start + 1, line),
    }
}

pub(super) fn comment_out(path: &str, words: &[String]) -> Result {
    let Some(text) = read(path)? else {
        return Ok(());
    };
    let is_meant = |line: &str| {
        line.split_whitespace()
            .next()
            .is_some_and(|first| words.iter().any(|w| w == first))
    };
    let lines: Vec<String> = text
        .lines()
        .map(|l| {
            if is_meant(l) {
                format!("# {l}")
            } else {
                l.to_owned()
            }
        })
        .collect();
    rewrite(path, &joined(&lines))
}

#[cfg(test)]
mod tests {
    use super::{Quotes, comment_out, read, set_key, set_variables, write};

    fn scratch(name: &str, text: &str) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir
            .path()
            .join(name)
            .to_str()
            .expect("a UTF-8 path")
            .to_owned();
        std::fs::write(&path, text).expect("writing into a fresh directory");
        (dir, path)
    }

    fn text(path: &str) -> String {
        read(path)
            .expect("reading back")
            .expect("the file is there")
    }

    #[test]
    fn variables_are_replaced_where_they_stand() {
        let (_dir, path) = scratch(
            "keyboard",
            "# head\nXKBLAYOUT=\"us\"\nBACKSPACE=\"guess\"\nXKBLAYOUT=de\n",
        );
        let pairs = [
            ("XKBLAYOUT".to_owned(), "cz,us".to_owned()),
            ("NEW".to_owned(), "a $b".to_owned()),
        ];
        set_variables(&path, &pairs, Quotes::WhereNeeded).expect("editing");
        assert_eq!(
            text(&path),
            "# head\nXKBLAYOUT=cz,us\nBACKSPACE=\"guess\"\nNEW=\"a \\$b\"\n"
        );
    }

    #[test]
    fn keys_go_into_their_section() {
        let (_dir, path) = scratch(
            "daemon.conf",
            "[daemon]\n# WaylandEnable=false\n[security]\nX=1\n",
        );
        set_key(&path, "daemon", "InitialSetupEnable", "false", true).expect("editing");
        set_key(&path, "security", "X", "2", true).expect("editing");
        let wanted = "[daemon]\nInitialSetupEnable=false\n# WaylandEnable=false\n[security]\nX=2\n";
        assert_eq!(text(&path), wanted);
    }

    #[test]
    fn whole_words_are_commented_out() {
        let (_dir, path) = scratch("chrony.conf", "pool x iburst\npooled y\nserver z\n");
        comment_out(&path, &["pool".to_owned(), "server".to_owned()]).expect("editing");
        assert_eq!(text(&path), "# pool x iburst\npooled y\n# server z\n");
    }

    #[test]
    fn a_directory_in_the_way_is_an_error_and_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("taken");
        std::fs::create_dir(&path).expect("a directory in the way");
        let fault =
            write(path.to_str().expect("UTF-8"), "x", 0o644).expect_err("a directory is no file");
        assert!(fault.message.contains("taken"), "{}", fault.message);
        assert_eq!(std::fs::read_dir(dir.path()).expect("listing").count(), 1);
    }
}
