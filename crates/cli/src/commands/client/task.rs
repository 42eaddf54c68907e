//! What `kiln submit` is to build: a build file, or a kickstart or project alone.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use kiln_client::config;
use kiln_client::repository::Repository;
use kiln_engine::{Failure, FailureKind};
use serde_json::{Value, json};

use super::failure;
use crate::args::client::SubmitArgs;

/// Build files of a directory, in the order in which they count.
const CONFIGS: &[&str] = &["cloudbuild.yaml", "cloudbuild.yml", "cloudbuild.json"];

/// What is to be built.
pub(super) struct Task {
    /// The source; for one that the server fetches, the directory in it where steps run.
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
        Ok(Task {
            dir,
            shown: shown.display().to_string(),
            what,
            substitutions: substitutions(args)?,
            tags: args.tag.clone(),
        })
    }

    /// The same for a commit of a repository, which is looked into if nothing says what to build. Returns the revision as well:
    /// what was looked into is what is built.
    pub(super) fn of_repository(
        args: &SubmitArgs,
        repository: &Repository,
    ) -> Result<(Task, String), Failure> {
        let mut revision = repository.revision.clone();
        let (mut dir, name) = (repository.path.as_str(), Path::new(&repository.path));
        let is_file = is_config(name) || name.extension().is_some_and(|ending| ending == "ks");
        let mut file = None;
        if is_file {
            let (before, last) = dir.rsplit_once('/').unwrap_or(("", dir));
            (dir, file) = (before, Some(last.to_owned()));
        }
        let within = |name: &str| match dir {
            "" => name.to_owned(),
            dir => format!("{dir}/{name}"),
        };
        let (what, shown) = match (&args.config, file) {
            (Some(config), _) => (What::Config(read(config)?), config.display().to_string()),
            (None, Some(file)) if !is_config(Path::new(&file)) => {
                (What::Definition(file.clone()), within(&file))
            }
            (None, file) => {
                let opened = repository.open().map_err(failure)?;
                revision = opened.commit();
                let choice = match file {
                    Some(file) => Choice::Config(file),
                    None => {
                        let names = opened.files(dir).map_err(failure)?;
                        let url = &repository.url;
                        let hint = format!("{url}#{}:{}", repository.revision, within("NAME.ks"));
                        choose(names, &format!("/{dir} of {url}"), &hint)?
                    }
                };
                match choice {
                    Choice::Config(name) => {
                        let path = within(&name);
                        (What::Config(opened.text(&path).map_err(failure)?), path)
                    }
                    Choice::Definition(name) => {
                        let path = within(&name);
                        (What::Definition(name), path)
                    }
                }
            }
        };
        let task = Task {
            dir: PathBuf::from(dir),
            shown,
            what,
            substitutions: substitutions(args)?,
            tags: args.tag.clone(),
        };
        Ok((task, revision))
    }

    /// The build, without its source. Steps run in `dir`, relative to the source.
    pub(super) fn build(&self, project: &str, dir: &Path) -> Result<Value, Failure> {
        let mut build = match &self.what {
            What::Config(text) => config::read(text, &self.shown).map_err(failure)?,
            What::Definition(name) => json!({
                "steps": [{ "name": "kiln", "args": ["build", name] }],
                "artifacts": { "objects": {
                    "location": format!("gs://{project}_cloudbuild/images/$BUILD_ID"),
                    "paths": [dir.join("output/*")],
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

fn substitutions(args: &SubmitArgs) -> Result<Vec<(String, String)>, Failure> {
    let mut all = Vec::new();
    for list in &args.substitutions {
        all.extend(config::substitutions(list).map_err(failure)?);
    }
    Ok(all)
}

/// What a directory alone says: its build file, its `kiln.toml`, or its one kickstart.
fn of_directory(dir: &Path) -> Result<(What, PathBuf), Failure> {
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
    let hint = dir.join("NAME.ks").display().to_string();
    match choose(names.collect(), &dir.display().to_string(), &hint)? {
        Choice::Config(name) => {
            let file = dir.join(name);
            Ok((What::Config(read(&file)?), file))
        }
        Choice::Definition(name) if name == "." => {
            Ok((What::Definition(name), dir.join("kiln.toml")))
        }
        Choice::Definition(name) => {
            let file = dir.join(&name);
            Ok((What::Definition(name), file))
        }
    }
}

/// What is built of a directory.
enum Choice {
    /// What a build file says.
    Config(String),
    /// A kickstart; `.`: a project.
    Definition(String),
}

/// Chooses among the names of a directory. `hint` is how a kickstart there is named.
fn choose(mut names: Vec<String>, shown: &str, hint: &str) -> Result<Choice, Failure> {
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    if let Some(name) = CONFIGS.iter().find(|name| has(name)) {
        return Ok(Choice::Config((*name).to_owned()));
    }
    if has("kiln.toml") {
        return Ok(Choice::Definition(".".to_owned()));
    }
    names.retain(|name| name.ends_with(".ks"));
    names.sort();
    match names.as_slice() {
        [one] => Ok(Choice::Definition(one.clone())),
        [] => {
            let message = format!("{shown} has no cloudbuild.yaml, no kiln.toml and no kickstart");
            Err(Failure::new(FailureKind::Usage, message)
                .hint("name another directory, or a build file with --config"))
        }
        several => {
            let message = format!(
                "{shown} has several kickstarts and no cloudbuild.yaml: {}",
                several.join(", ")
            );
            let one = hint.replace("NAME.ks", &several[0]);
            let hint = format!("name the one to build: kiln submit {one}");
            Err(Failure::new(FailureKind::Usage, message).hint(hint))
        }
    }
}
