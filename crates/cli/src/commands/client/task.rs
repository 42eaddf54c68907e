//! What `kiln submit` is to build: a build file, or a kickstart or project alone.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use kiln_client::config;
use kiln_engine::{Failure, FailureKind};
use serde_json::{Value, json};

use super::failure;
use crate::args::client::SubmitArgs;

/// Build files of a directory, in the order in which they count.
const CONFIGS: &[&str] = &["cloudbuild.yaml", "cloudbuild.yml", "cloudbuild.json"];

/// What is to be built.
pub(super) struct Task {
    /// The source.
    pub(super) dir: PathBuf,
    /// What the build is read from, for messages.
    pub(super) shown: String,
    what: What,
    substitutions: Vec<(String, String)>,
    tags: Vec<String>,
}

enum What {
    /// A build file's text.
    Config(String),
    /// A kickstart, or a directory with a `kiln.toml`, relative to the source.
    Definition(String),
}

impl Task {
    /// Finds out what is meant, and reads the build file.
    pub(super) fn of(args: &SubmitArgs) -> Result<Task, Failure> {
        let given = &args.source;
        let metadata = fs::metadata(given).map_err(|error| {
            let message = format!("{} cannot be read", given.display());
            Failure::new(FailureKind::Usage, message).cause(error.to_string())
        })?;
        let (dir, file) = match metadata.is_dir() {
            true => (given.clone(), None),
            false => {
                let dir = given.parent().filter(|dir| !dir.as_os_str().is_empty());
                (dir.unwrap_or(Path::new(".")).to_owned(), Some(given))
            }
        };
        too_wide(&dir)?;
        let definition = file.filter(|file| !is_config(file) && args.config.is_none());
        let what = match (&args.config, file, definition) {
            (_, _, Some(file)) => {
                let name = file.file_name().and_then(|name| name.to_str());
                let name = name.ok_or_else(|| {
                    let message = format!("the name of {} is no UTF-8", file.display());
                    Failure::new(FailureKind::Usage, message)
                })?;
                (What::Definition(name.to_owned()), file.clone())
            }
            (Some(config), ..) => (What::Config(read(config)?), config.clone()),
            (None, Some(file), None) => (What::Config(read(file)?), file.clone()),
            (None, None, None) => of_directory(&dir)?,
        };
        let (what, shown) = what;
        let mut substitutions = Vec::new();
        for list in &args.substitutions {
            substitutions.extend(config::substitutions(list).map_err(failure)?);
        }
        Ok(Task {
            dir,
            shown: shown.display().to_string(),
            what,
            substitutions,
            tags: args.tag.clone(),
        })
    }

    /// The build, without its source.
    pub(super) fn build(&self, project: &str) -> Result<Value, Failure> {
        let mut build = match &self.what {
            What::Config(text) => config::read(text, &self.shown).map_err(failure)?,
            What::Definition(name) => json!({
                "steps": [{ "name": "kiln", "args": ["build", name] }],
                "artifacts": { "objects": {
                    "location": format!("gs://{project}_cloudbuild/images/$BUILD_ID"),
                    "paths": ["output/*"],
                } },
            }),
        };
        config::amend(&mut build, &self.substitutions, &self.tags);
        Ok(build)
    }
}

fn is_config(file: &Path) -> bool {
    let ending = file.extension().and_then(|ending| ending.to_str());
    matches!(ending, Some("yaml" | "yml" | "json"))
}

/// A file in the home directory or the root would take all of it along.
fn too_wide(dir: &Path) -> Result<(), Failure> {
    let whole = dir.canonicalize().map_err(|error| {
        Failure::new(
            FailureKind::Usage,
            format!("{} cannot be read", dir.display()),
        )
        .cause(error.to_string())
    })?;
    let is_home = whole.join(".config").is_dir() && whole.join(".cache").is_dir();
    if whole.parent().is_some() && !is_home {
        return Ok(());
    }
    let message = format!(
        "{} is a home directory, or the root: all of it would be sent",
        whole.display()
    );
    Err(Failure::new(FailureKind::Usage, message)
        .hint("put what belongs to the build into a directory of its own"))
}

fn read(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let most = config::LONGEST as u64 + 1;
    let opened = fs::File::open(file);
    let read = opened.and_then(|opened| opened.take(most).read_to_string(&mut text));
    read.map_err(|error| {
        let message = format!("the build file {} cannot be read", file.display());
        Failure::new(FailureKind::Definition, message).cause(error.to_string())
    })?;
    Ok(text)
}

/// What a directory alone says: its build file, its `kiln.toml`, or its one kickstart.
fn of_directory(dir: &Path) -> Result<(What, PathBuf), Failure> {
    for name in CONFIGS {
        let file = dir.join(name);
        if file.exists() {
            return Ok((What::Config(read(&file)?), file));
        }
    }
    if dir.join("kiln.toml").exists() {
        return Ok((What::Definition(".".to_owned()), dir.join("kiln.toml")));
    }
    let entries = fs::read_dir(dir).map_err(|error| {
        Failure::new(
            FailureKind::Usage,
            format!("{} cannot be read", dir.display()),
        )
        .cause(error.to_string())
    })?;
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let mut kickstarts: Vec<String> = names.filter(|name| name.ends_with(".ks")).collect();
    kickstarts.sort();
    match kickstarts.as_slice() {
        [one] => Ok((What::Definition(one.clone()), dir.join(one))),
        [] => {
            let message = format!(
                "{} has no cloudbuild.yaml, no kiln.toml and no kickstart",
                dir.display()
            );
            Err(Failure::new(FailureKind::Usage, message)
                .hint("name another directory, or a build file with --config"))
        }
        several => {
            let message = format!(
                "{} has several kickstarts and no cloudbuild.yaml: {}",
                dir.display(),
                several.join(", ")
            );
            let hint = format!(
                "name the one to build: kiln submit {}",
                dir.join(&several[0]).display()
            );
            Err(Failure::new(FailureKind::Usage, message).hint(hint))
        }
    }
}
