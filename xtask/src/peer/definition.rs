//! A definition for a comparison: a copy, so that no lock appears among the sources.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{afresh, trouble};
use crate::{Result, process};

/// Copies a definition to `target`; returns what is to be given to Kiln.
pub(crate) fn copy(definition: &Path, target: &Path) -> Result<PathBuf> {
    afresh(target)?;
    let mut copy = Command::new("cp");
    copy.arg("-R");
    if definition.is_dir() {
        copy.arg(definition.join("."));
    } else {
        copy.arg(definition);
    }
    process::run(copy.arg(target))?;
    let file = definition.file_name().filter(|_| definition.is_file());
    Ok(file.map_or_else(|| target.to_path_buf(), |name| target.join(name)))
}

/// Takes everything out of a copied definition's kickstart files but what says which packages there are.
pub(crate) fn keep_packages_only(project: &Path) -> Result<()> {
    for file in kickstarts(project)? {
        let text = fs::read_to_string(&file).map_err(trouble("reading", &file))?;
        fs::write(&file, packages_only(&text)).map_err(trouble("writing", &file))?;
    }
    Ok(())
}

/// Whether documentation stays out. dpkg has one setting for a whole root, so that layers which differ in it cannot be
/// compared.
pub(crate) fn excludes_docs(project: &Path) -> Result<bool> {
    let headers = headers(project)?;
    let said: Vec<bool> = headers
        .iter()
        .map(|line| line.contains("--excludedocs"))
        .collect();
    match (said.contains(&true), said.contains(&false)) {
        (true, true) => {
            Err("only some layers have --excludedocs: a root of mmdebstrap cannot".into())
        }
        (docs, _) => Ok(docs),
    }
}

/// The languages that `--inst-langs=` leaves; `None` for all.
pub(crate) fn languages(project: &Path) -> Result<Option<String>> {
    let headers = headers(project)?;
    let mut words = headers.iter().flat_map(|line| line.split_whitespace());
    let said = words.find_map(|word| word.strip_prefix("--inst-langs="));
    Ok(said.map(str::to_owned))
}

/// The lines with which `%packages` begins.
fn headers(project: &Path) -> Result<Vec<String>> {
    let mut headers = Vec::new();
    for file in kickstarts(project)? {
        let text = fs::read_to_string(&file).map_err(trouble("reading", &file))?;
        let lines = text.lines().filter(|line| line.starts_with("%packages"));
        headers.extend(lines.map(str::to_owned));
    }
    Ok(headers)
}

fn kickstarts(project: &Path) -> Result<Vec<PathBuf>> {
    if project.is_file() {
        return Ok(vec![project.to_path_buf()]);
    }
    let entries = fs::read_dir(project).map_err(trouble("reading", project))?;
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut files: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "ks"))
        .collect();
    files.sort();
    Ok(files)
}

/// `%packages` sections, and lines that name repositories or other files.
fn packages_only(text: &str) -> String {
    let mut kept = String::new();
    let mut section = None;
    for line in text.lines() {
        let word = line.split_whitespace().next().unwrap_or("");
        if section.is_none() && word.starts_with('%') && word != "%include" && word != "%ksappend" {
            section = Some(word == "%packages");
        }
        let keep = section.unwrap_or(matches!(word, "url" | "repo" | "%include" | "%ksappend"));
        if keep {
            kept.push_str(line);
            kept.push('\n');
        }
        if word == "%end" {
            section = None;
        }
    }
    kept
}

/// `kiln.lock` beside a `kiln.toml`, `NAME.kiln.lock` beside a kickstart file.
pub(crate) fn lock_of(project: &Path) -> Result<PathBuf> {
    let lock = if project.is_dir() {
        project.join("kiln.lock")
    } else {
        project.with_extension("kiln.lock")
    };
    if lock.is_file() {
        Ok(lock)
    } else {
        Err(format!("`kiln lock` wrote no {}", lock.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_says_packages_stays() {
        let text = "lang C\nrepo --name=x --baseurl=y\n%packages --nocore\nless\n%end\n%post\nrepo\n%end\nskipx\n";
        let expected = "repo --name=x --baseurl=y\n%packages --nocore\nless\n%end\n";
        assert_eq!(packages_only(text), expected);
    }
}
