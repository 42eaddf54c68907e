//! SELinux labels from a root's own policy, without SELinux on the host.
//!
//! The policy says in `/etc/selinux/TYPE/contexts/files/file_contexts` which label a path has (selabel_file(5)):
//!
//! ```text
//! regular expression   [-- | -d | -c | -b | -p | -l | -s]   context | <<none>>
//! ```
//! `file_contexts.homedirs` and `file_contexts.local` go on where it ends. A path is first rewritten by the aliases in
//! `file_contexts.subs` and `file_contexts.subs_dist`. Of all lines that match, the last one counts, but a line without
//! a metacharacter is stronger than every one that has some.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::OnceLock;

use crate::regular;
use regex::bytes::Regex;

/// What sort of file a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileType {
    /// `--`
    Regular,
    /// `-d`
    Directory,
    /// `-c`
    CharDevice,
    /// `-b`
    BlockDevice,
    /// `-p`
    Fifo,
    /// `-l`
    Symlink,
    /// `-s`
    Socket,
}

impl FileType {
    fn read(word: &str) -> Option<FileType> {
        Some(match word {
            "--" => FileType::Regular,
            "-d" => FileType::Directory,
            "-c" => FileType::CharDevice,
            "-b" => FileType::BlockDevice,
            "-p" => FileType::Fifo,
            "-l" => FileType::Symlink,
            "-s" => FileType::Socket,
            _ => return None,
        })
    }
}

/// A line of `file_contexts`.
#[derive(Debug)]
struct Spec {
    pattern: String,
    /// What every path that matches begins with.
    prefix: Vec<u8>,
    file_type: Option<FileType>,
    /// `None`: `<<none>>`.
    context: Option<String>,
    /// Compiled when a path begins with the prefix; `None` inside: it cannot be compiled.
    regex: OnceLock<Option<Regex>>,
}

/// The labels that a policy gives.
#[derive(Debug, Default)]
pub struct Labels {
    /// Lines without a metacharacter, by their path.
    exact: HashMap<Vec<u8>, Vec<Spec>>,
    /// All others, by the first directory of their paths; `None` where a line does not tell it.
    patterns: Vec<Spec>,
    stems: HashMap<Vec<u8>, Vec<usize>>,
    open: Vec<usize>,
    subs: Vec<(Vec<u8>, Vec<u8>)>,
    dist_subs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Labels {
    /// Reads the policy of the root at `root`; `None` where it has none, or where its configuration disables SELinux.
    ///
    /// # Errors
    /// A file that is there cannot be read.
    pub fn of_root(root: &Path) -> io::Result<Option<Labels>> {
        let config = text(&root.join("etc/selinux/config"))?;
        let value = |name: &str| {
            let mut lines = config
                .lines()
                .filter_map(|line| line.trim().split_once('='));
            let found = lines.find(|(key, _)| key.trim() == name);
            found.map(|(_, value)| value.trim().trim_matches('"'))
        };
        let policy = value("SELINUXTYPE").filter(|name| is_plain(name));
        let Some(policy) = policy.filter(|_| value("SELINUX") != Some("disabled")) else {
            return Ok(None);
        };
        let directory = root.join("etc/selinux").join(policy).join("contexts/files");
        let read = |name: &str| text(&directory.join(name));
        let contexts = read("file_contexts")?;
        if contexts.is_empty() {
            return Ok(None);
        }
        let all = [
            contexts,
            read("file_contexts.homedirs")?,
            read("file_contexts.local")?,
        ];
        let subs = [
            read("file_contexts.subs")?,
            read("file_contexts.subs_dist")?,
        ];
        Ok(Some(Labels::new(&all.concat(), &subs[0], &subs[1])))
    }

    /// Labels from the texts of `file_contexts` (with its continuations), `file_contexts.subs` and `.subs_dist`.
    pub fn new(contexts: &str, subs: &str, dist_subs: &str) -> Self {
        let mut labels = Labels {
            subs: aliases(subs),
            dist_subs: aliases(dist_subs),
            ..Labels::default()
        };
        contexts.lines().for_each(|line| labels.add(line));
        labels
    }

    fn add(&mut self, line: &str) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return;
        }
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let (pattern, file_type, context) = match words.as_slice() {
            [pattern, context] => (*pattern, None, *context),
            [pattern, word, context] => match FileType::read(word) {
                Some(file_type) => (*pattern, Some(file_type), *context),
                None => return,
            },
            _ => return,
        };
        let (prefix, is_exact) = literal_prefix(pattern);
        let spec = Spec {
            pattern: pattern.to_owned(),
            prefix,
            file_type,
            context: (context != "<<none>>").then(|| context.to_owned()),
            regex: OnceLock::new(),
        };
        if is_exact {
            self.exact
                .entry(spec.prefix.clone())
                .or_default()
                .push(spec);
            return;
        }
        let number = self.patterns.len();
        match stem(&spec.prefix) {
            Some(stem) => self.stems.entry(stem.to_vec()).or_default().push(number),
            None => self.open.push(number),
        }
        self.patterns.push(spec);
    }

    /// The label of an absolute path, without the closing zero; `None` where the policy gives none.
    pub fn of(&self, path: &[u8], file_type: FileType) -> Option<&str> {
        let key = self.rewritten(path);
        let key = key.as_deref().unwrap_or(path);
        let fits = |spec: &&Spec| spec.file_type.is_none_or(|t| t == file_type);
        let exact = self.exact.get(key).map_or(&[][..], Vec::as_slice);
        if let Some(spec) = exact.iter().rev().find(fits) {
            return spec.context.as_deref();
        }
        let of_stem = stem(key).and_then(|stem| self.stems.get(stem));
        let of_stem = of_stem.map_or(&[][..], Vec::as_slice);
        let numbers = merged_from_the_end(of_stem, &self.open);
        let mut specs = numbers.filter_map(|number| self.patterns.get(number));
        let found = specs.find(|spec| fits(spec) && spec.matches(key));
        found.and_then(|spec| spec.context.as_deref())
    }

    /// Lines whose regular expression is beyond this reader, as far as paths have asked for them.
    pub fn unreadable(&self) -> impl Iterator<Item = &str> {
        let bad = |spec: &&Spec| matches!(spec.regex.get(), Some(None));
        self.patterns
            .iter()
            .filter(bad)
            .map(|spec| spec.pattern.as_str())
    }

    fn rewritten(&self, path: &[u8]) -> Option<Vec<u8>> {
        match rewrite(&self.subs, path) {
            Some(once) => Some(rewrite(&self.dist_subs, &once).unwrap_or(once)),
            None => rewrite(&self.dist_subs, path),
        }
    }
}

impl Spec {
    fn matches(&self, path: &[u8]) -> bool {
        if !path.starts_with(&self.prefix) {
            return false;
        }
        // As libselinux: anchored at both ends, a dot matches every byte.
        let compile = || Regex::new(&format!("(?s-u)^{}$", self.pattern)).ok();
        let regex = self.regex.get_or_init(compile);
        regex.as_ref().is_some_and(|regex| regex.is_match(path))
    }
}

/// A file's text; empty where there is none.
fn text(path: &Path) -> io::Result<String> {
    match regular::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(e),
    }
}

fn is_plain(name: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(fine)
}

/// `ALIAS ORIGINAL` lines; libselinux asks the last one first.
fn aliases(text: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let lines = text.lines().map(str::trim).filter(|l| !l.starts_with('#'));
    let pair = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        Some((words.next()?.into(), words.next()?.into()))
    };
    let mut all: Vec<_> = lines.filter_map(pair).collect();
    all.reverse();
    all
}

fn rewrite(aliases: &[(Vec<u8>, Vec<u8>)], path: &[u8]) -> Option<Vec<u8>> {
    aliases.iter().find_map(|(alias, original)| {
        let rest = path.strip_prefix(alias.as_slice())?;
        if !(rest.is_empty() || rest.starts_with(b"/")) {
            return None;
        }
        let rest = match (original.as_slice(), rest) {
            (b"/", [b'/', rest @ ..]) => rest,
            _ => rest,
        };
        Some([original, rest].concat())
    })
}

/// The first directory of a path, where another one follows it.
fn stem(path: &[u8]) -> Option<&[u8]> {
    let rest = path.strip_prefix(b"/")?;
    let end = rest.iter().position(|b| *b == b'/')?;
    path.get(..=end)
}

/// What a pattern's paths all begin with, and whether that is the whole pattern.
fn literal_prefix(pattern: &str) -> (Vec<u8>, bool) {
    let mut prefix = Vec::new();
    let mut bytes = pattern.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => match bytes.next() {
                Some(next) if !next.is_ascii_alphanumeric() => prefix.push(next),
                _ => return (prefix, false),
            },
            // The letter before may be missing.
            b'?' | b'*' | b'{' => {
                prefix.pop();
                return (prefix, false);
            }
            b'.' | b'^' | b'$' | b'+' | b'[' | b'(' => {
                let alternatives = has_top_level_bar(pattern);
                return (if alternatives { Vec::new() } else { prefix }, false);
            }
            b'|' => return (Vec::new(), false),
            other => prefix.push(other),
        }
    }
    (prefix, true)
}

/// Whether a pattern is a list of alternatives, which need not begin alike.
fn has_top_level_bar(pattern: &str) -> bool {
    let mut depth = 0_i32;
    let mut bytes = pattern.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'|' if depth == 0 => return true,
            _ => {}
        }
    }
    false
}

/// Two rising lists as one falling.
fn merged_from_the_end<'a>(a: &'a [usize], b: &'a [usize]) -> impl Iterator<Item = usize> + 'a {
    let (mut a, mut b) = (a.iter().rev().peekable(), b.iter().rev().peekable());
    std::iter::from_fn(move || {
        let first = match (a.peek(), b.peek()) {
            (Some(x), Some(y)) => x > y,
            (x, _) => x.is_some(),
        };
        if first { a.next() } else { b.next() }.copied()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXTS: &str = "\
/.*\tsystem_u:object_r:default_t:s0
/usr/.*\tsystem_u:object_r:usr_t:s0
/usr/s?bin/.*\t--\tsystem_u:object_r:bin_t:s0
/etc/passwd\\.lock\t--\tsystem_u:object_r:lock_t:s0
/etc/.*\tsystem_u:object_r:etc_t:s0
/var/run/.*\tsystem_u:object_r:run_t:s0
/proc/.*\t<<none>>
/(dev|udev)/.*\t-c\tsystem_u:object_r:device_t:s0
# comment
";

    #[test]
    fn the_last_line_counts_and_exact_paths_are_stronger() {
        let labels = Labels::new(CONTEXTS, "/srv/etc /etc\n", "/run /var/run\n");
        let of = |path: &str, file_type| {
            labels
                .of(path.as_bytes(), file_type)
                .map(|c| c.split(':').nth(2).unwrap_or("").to_owned())
        };
        let file = |path| of(path, FileType::Regular);
        assert_eq!(file("/usr/bin/env").as_deref(), Some("bin_t"));
        assert_eq!(
            of("/usr/bin/sh", FileType::Symlink).as_deref(),
            Some("usr_t")
        );
        assert_eq!(file("/usr/sbin/x").as_deref(), Some("bin_t"));
        assert_eq!(file("/etc/passwd.lock").as_deref(), Some("lock_t"));
        assert_eq!(file("/etc/passwd").as_deref(), Some("etc_t"));
        assert_eq!(file("/srv/etc/hosts").as_deref(), Some("etc_t"));
        assert_eq!(file("/run/lock").as_deref(), Some("run_t"));
        assert_eq!(file("/proc/1"), None);
        assert_eq!(
            of("/dev/null", FileType::CharDevice).as_deref(),
            Some("device_t")
        );
        assert_eq!(file("/home").as_deref(), Some("default_t"));
        assert_eq!(labels.unreadable().count(), 0);
    }

    #[test]
    fn prefixes_are_what_all_paths_begin_with() {
        let of = |pattern| {
            let (prefix, exact) = literal_prefix(pattern);
            (String::from_utf8_lossy(&prefix).into_owned(), exact)
        };
        assert_eq!(of("/usr/lib(64)?/x"), ("/usr/lib".to_owned(), false));
        assert_eq!(of("/usr/libs?/x"), ("/usr/lib".to_owned(), false));
        assert_eq!(of("/etc/a\\.b"), ("/etc/a.b".to_owned(), true));
        assert_eq!(of("/a|/b"), (String::new(), false));
        assert_eq!(of("/a.c|/b"), (String::new(), false));
        assert_eq!(of("/d/[0-9]"), ("/d/".to_owned(), false));
    }
}
