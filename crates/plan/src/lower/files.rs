//! `[[files]]` and `files/LAYER/`: the project's own files.
//!
//! What lies below `files/LAYER/` is copied to the same place in the root. A repository keeps of modes only whether a file
//! is a program, and of owners nothing; so both are decided here and never taken from the disk.

use std::collections::BTreeSet;

use super::Lowering;
use crate::definition::{Definition, FilesDefinition};
use crate::model::{Layer, ProjectFile, What};
use crate::problem::Problem;

/// The directory with one directory for each layer.
const DIRECTORY: &str = "files";

/// Places that are mounts while an image is made and while it runs: what is copied there would be seen by nobody.
const MOUNTS: &[&str] = &["/dev", "/proc", "/run", "/sys", "/tmp"];

/// Something in the project's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its path in the project's directory, without `.` and `..`.
    pub path: String,
    /// Whether its owner may execute it.
    pub executable: bool,
    /// What it is.
    pub what: What,
}

impl Lowering<'_> {
    /// Gives each layer its files: first those of its directory, then those of `[[files]]`, in their order.
    pub(super) fn project_files(&mut self, definition: &Definition, layers: &mut [Layer]) {
        let found = match self.files.tree(DIRECTORY) {
            Ok(Some(found)) => found,
            // The project has no such directory.
            Ok(None) => Vec::new(),
            Err(reason) => return self.refuse_files(reason),
        };
        let named = |path: &str| definition.files.iter().any(|f| is_below(path, &f.from));
        let mut unknown = BTreeSet::new();
        for found in found {
            let mut parts = found.path.splitn(3, '/').skip(1);
            let (Some(name), rest) = (parts.next(), parts.next()) else {
                continue;
            };
            match (layers.iter_mut().find(|l| l.name == name), rest) {
                (Some(layer), Some(rest)) => {
                    let to = Some(format!("/{rest}"));
                    let origin = format!("{DIRECTORY}/{name}");
                    layer
                        .files
                        .push(file(&found, to, &Options::default(), origin));
                }
                (Some(_), None) if found.what == What::Directory => {}
                (Some(_), None) => {
                    let message = format!("{} is no directory and is not copied", found.path);
                    let problem = Problem::warning(message).at(self.name);
                    let hint =
                        "what lies below it goes into the layer; a link to one is not followed";
                    self.problems.push(problem.hint(hint));
                }
                (None, _) if named(&found.path) => {}
                (None, _) => {
                    unknown.insert(format!("{DIRECTORY}/{name}"));
                }
            }
        }
        let names: Vec<String> = layers
            .iter()
            .map(|l| format!("{DIRECTORY}/{}", l.name))
            .collect();
        for path in unknown {
            let problem = Problem::warning(format!("{path} belongs to no layer and is not copied"));
            let hint = format!("the layers' directories are {}", names.join(", "));
            self.problems.push(problem.at(self.name).hint(hint));
        }
        for files in &definition.files {
            if let Err(problem) = self.said_files(files, layers) {
                self.problems.push(problem.at(self.name));
            }
        }
        for layer in layers {
            let places = layer
                .files
                .iter()
                .filter_map(|f| Some((f, f.to.as_deref()?)));
            if let Some((bad, to)) = places.into_iter().find(|(_, to)| is_mount(to)) {
                let message = format!(
                    "{} cannot be copied to {to}: an image has nothing of its own there",
                    bad.from
                );
                let problem = Problem::error(message).at(bad.origin.clone());
                self.problems.push(problem.hint("choose a place outside of /dev, /proc, /run, /sys and /tmp; /etc/tmpfiles.d makes files there at boot"));
            }
        }
    }

    fn refuse_files(&mut self, reason: String) {
        let problem = Problem::error(reason).at(self.name);
        self.problems.push(problem.hint(
            "the project has regular files, directories and symbolic links, and none is reached through a link that leads out of it",
        ));
    }

    fn said_files(&self, said: &FilesDefinition, layers: &mut [Layer]) -> Result<(), Problem> {
        let subject = format!("[[files]] from = {:?}", said.from);
        let wrong = |why: String| Problem::error(format!("{subject}: {why}"));
        let options = Options::of(said).map_err(&wrong)?;
        let found = match self.files.tree(&said.from) {
            Ok(Some(found)) => found,
            Ok(None) => {
                return Err(wrong(
                    "there is no such file beside the definition".to_owned(),
                ));
            }
            Err(reason) => return Err(wrong(reason)),
        };
        let names: Vec<String> = layers.iter().map(|l| l.name.clone()).collect();
        let layer = match &said.layer {
            Some(name) => layers.iter_mut().find(|l| l.name == *name).ok_or_else(|| {
                wrong(format!("there is no layer `{name}`"))
                    .hint(format!("layers: {}", names.join(", ")))
            }),
            None => layers
                .last_mut()
                .ok_or_else(|| wrong("there is no layer".to_owned())),
        }?;
        let Some(first) = found.first() else {
            return Err(wrong("there is nothing".to_owned()));
        };
        let top = &first.path;
        let place = said
            .to
            .as_deref()
            .map(|to| place(to, first))
            .transpose()
            .map_err(&wrong)?;
        for found in &found {
            let below = found.path.strip_prefix(top.as_str());
            let below = below.ok_or_else(|| wrong(format!("{} is not below it", found.path)))?;
            let to = place
                .as_ref()
                .map(|place| format!("{}{below}", place.trim_end_matches('/')));
            // The root itself is there already.
            if to.as_deref() != Some("") {
                layer
                    .files
                    .push(file(found, to, &options, self.name.to_owned()));
            }
        }
        Ok(())
    }
}

/// Owner and mode, as said.
struct Options {
    owner: (String, String),
    mode: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            owner: ("root".to_owned(), "root".to_owned()),
            mode: None,
        }
    }
}

impl Options {
    fn of(said: &FilesDefinition) -> Result<Self, String> {
        let mut options = Options::default();
        if let Some(owner) = &said.owner {
            let (user, group) = owner.split_once(':').unwrap_or((owner, owner));
            if user.is_empty() || group.is_empty() || group.contains(':') {
                return Err(format!(
                    "the owner {owner:?} is neither USER nor USER:GROUP"
                ));
            }
            options.owner = (user.to_owned(), group.to_owned());
        }
        if let Some(mode) = &said.mode {
            let bits = u32::from_str_radix(mode, 8)
                .ok()
                .filter(|bits| *bits <= 0o7777);
            let bad = || format!("the mode {mode:?} is not octal, from \"0000\" to \"7777\"");
            options.mode = Some(bits.ok_or_else(bad)?);
        }
        Ok(options)
    }
}

fn file(found: &Found, to: Option<String>, options: &Options, origin: String) -> ProjectFile {
    let plain = if found.executable { 0o755 } else { 0o644 };
    let mode = match (&found.what, options.mode) {
        (What::Link(_), _) => 0o777,
        (What::Directory, None) => 0o755,
        // Who may read in it may enter it.
        (What::Directory, Some(mode)) => mode & 0o777 | (mode & 0o444) >> 2,
        (What::File { .. }, mode) => mode.unwrap_or(plain),
    };
    ProjectFile {
        from: found.path.clone(),
        to,
        what: found.what.clone(),
        mode,
        owner: options.owner.clone(),
        origin,
    }
}

/// Where something goes that `to` was said for. A directory's content goes right there, as with `cp -T`.
fn place(to: &str, first: &Found) -> Result<String, String> {
    let sound = |part: &str| part != ".." && part != "." && !part.contains(['\0', '\n']);
    if !to.starts_with('/') || !to.split('/').all(sound) {
        return Err(format!(
            "to = {to:?} is no absolute path without `.` and `..`"
        ));
    }
    let parts: Vec<&str> = to.split('/').filter(|part| !part.is_empty()).collect();
    let plain = format!("/{}", parts.join("/"));
    if first.what == What::Directory || !to.ends_with('/') {
        return Ok(plain);
    }
    let name = first.path.rsplit('/').next().unwrap_or(&first.path);
    Ok(format!("{}/{name}", plain.trim_end_matches('/')))
}

fn is_mount(to: &str) -> bool {
    MOUNTS.iter().any(|mount| is_below(to, mount))
}

/// Whether a path is another one or lies below it.
fn is_below(path: &str, above: &str) -> bool {
    let above = above.trim_start_matches("./").trim_end_matches('/');
    path.strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
