//! Which files of a directory are left out: `.gcloudignore` and `.gitignore`, as `gcloud builds submit` reads them.
//!
//! `.gcloudignore` of the directory itself counts, with `#!include:FILE` for another file beside it. Where it is missing and
//! the directory is one of Git's, `.git`, `.gitignore` and what the latter names are left out. Files of that kind further
//! down are files like others.

use std::fs;
use std::io;
use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::{Error, Kind};

const OWN: &str = ".gcloudignore";
const INCLUDE: &str = "!include:";

/// What is left out of a directory.
#[derive(Clone, Debug)]
pub struct Ignored(Gitignore);

impl Ignored {
    /// Reads what a directory says.
    ///
    /// # Errors
    /// A file cannot be read, or one that is included is not there.
    pub fn of(dir: &Path) -> Result<Self, Error> {
        let mut builder = GitignoreBuilder::new("");
        if let Some(text) = text(&dir.join(OWN))? {
            lines(&mut builder, dir, &text, true)?;
        } else {
            let git = text(&dir.join(".gitignore"))?;
            if git.is_some() || dir.join(".git").exists() {
                lines(
                    &mut builder,
                    dir,
                    ".gcloudignore\n.git\n.gitignore\n",
                    false,
                )?;
            }
            if let Some(text) = git {
                lines(&mut builder, dir, &text, false)?;
            }
        }
        let built = builder.build().map_err(|error| {
            Error::new(
                Kind::Input,
                format!("{}: an ignore file has a wrong pattern", dir.display()),
            )
            .cause(error)
        })?;
        Ok(Ignored(built))
    }

    /// Whether a path, relative to the directory, is left out. What is below a directory that is left out is never asked for.
    pub fn contains(&self, path: &Path, is_dir: bool) -> bool {
        self.0.matched(path, is_dir).is_ignore()
    }
}

/// The text of a file, if there is one.
fn text(path: &Path) -> Result<Option<String>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(Error::new(Kind::Input, format!("{} cannot be read", path.display())).cause(error))
        }
    }
}

/// Adds the lines of a file; those that are no pattern have no effect, as for gcloud and Git.
fn lines(
    builder: &mut GitignoreBuilder,
    dir: &Path,
    text: &str,
    includes: bool,
) -> Result<(), Error> {
    for (number, line) in text.lines().enumerate() {
        let included = line
            .strip_prefix('#')
            .and_then(|comment| comment.trim_start().strip_prefix(INCLUDE));
        match included {
            Some(name) if includes => include(builder, dir, name, number + 1)?,
            // The builder takes comments for what they are; a line that is no pattern is left out.
            _ => drop(builder.add_line(None, &anywhere(line))),
        }
    }
    Ok(())
}

/// gcloud takes a pattern for one of the whole tree unless it begins with a slash; Git also where a slash is inside.
fn anywhere(line: &str) -> String {
    let (not, pattern) = match line.strip_prefix('!') {
        Some(pattern) => ("!", pattern),
        None => ("", line),
    };
    let inside = pattern.trim_end().trim_end_matches('/').contains('/');
    if !inside || pattern.starts_with(['/', '#']) || pattern.starts_with("**/") {
        return line.to_owned();
    }
    format!("{not}**/{pattern}")
}

fn include(
    builder: &mut GitignoreBuilder,
    dir: &Path,
    name: &str,
    line: usize,
) -> Result<(), Error> {
    let own = dir.join(OWN);
    let wrong = |what: String| {
        Error::new(Kind::Input, what)
            .at(format!("{}:{line}:1", own.display()))
            .hint("`#!include:` names a file in the same directory")
    };
    if name.contains('/') {
        return Err(wrong(format!("{name:?} is not in the same directory")));
    }
    let found = text(&dir.join(name))?;
    let found =
        found.ok_or_else(|| wrong(format!("{name:?}, which is to be included, is missing")))?;
    lines(builder, dir, &found, false)
}
