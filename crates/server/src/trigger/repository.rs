//! The repository of a trigger: which commit a run builds, and the build file in that commit.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use kiln_git::{Error, Limits, Options, Remote, Resolved};
use serde_json::{Map, Value, json};
use url::Url;

use crate::git;
use crate::prepare::inside;
use crate::server::Server;
use crate::store::Trigger;
use crate::substitute::{self, Place};
use crate::wire::error::{ApiError, Code};
use crate::wire::read::read;
use crate::wire::table::BUILD;

/// How long a repository may take for a run, all in all: whoever asked waits.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may say nothing.
const SILENCE: Duration = Duration::from_secs(20);
/// What a commit may have of which one file is read. A repository that can leave large files out does.
const LIMITS: Limits = Limits {
    pack: 1 << 30,
    objects: 1_000_000,
    unpacked: 4 << 30,
    in_memory: 64 << 20,
    entries: 1_000_000,
    bytes: 4 << 30,
};
/// Digits of `$SHORT_SHA`.
const SHORT: usize = 7;

/// What a trigger says of repositories.
struct Said<'a> {
    uri: &'a str,
    reference: &'a str,
    file: Option<File<'a>>,
}

/// Where its build file is.
struct File<'a> {
    /// The field that says so.
    field: &'static str,
    path: &'a str,
    /// Where they are not those of the source.
    uri: Option<&'a str>,
    revision: Option<&'a str>,
}

/// What a run builds in place of what the trigger says.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked<'a> {
    /// A branch,
    pub(super) branch: Option<&'a str>,
    /// a tag,
    pub(super) tag: Option<&'a str>,
    /// or a commit.
    pub(super) commit: Option<&'a str>,
    /// Where steps run.
    pub(super) dir: Option<&'a str>,
}

/// What a run knows of its trigger's repository.
#[derive(Debug)]
pub(super) struct Found {
    /// The source of the build.
    pub(super) source: Value,
    /// What the server fills in.
    pub(super) values: Vec<(&'static str, String)>,
    /// The build of the file, and what to call it; nothing if the trigger has the build itself.
    pub(super) build: Option<(Map<String, Value>, String)>,
}

/// Reads what a trigger says; nothing if that is nothing.
fn said(value: &Map<String, Value>) -> Option<Said<'_>> {
    let text = |message: &str, field: &str| value.get(message)?.get(field)?.as_str();
    let file = match value.get("filename").and_then(Value::as_str) {
        Some(path) => Some(File {
            field: "filename",
            path,
            uri: None,
            revision: None,
        }),
        None => value.get("gitFileSource").map(|_| File {
            field: "gitFileSource.path",
            path: text("gitFileSource", "path").unwrap_or(""),
            uri: text("gitFileSource", "uri"),
            revision: text("gitFileSource", "revision"),
        }),
    };
    value.get("sourceToBuild")?;
    Some(Said {
        uri: text("sourceToBuild", "uri").unwrap_or(""),
        reference: text("sourceToBuild", "ref").unwrap_or(""),
        file,
    })
}

/// Whether a trigger's build is in a file of a repository.
pub(super) fn has_file(value: &Map<String, Value>) -> bool {
    value.contains_key("filename") || value.contains_key("gitFileSource")
}

/// Checks what a trigger says of repositories. None is asked yet.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(value: &Map<String, Value>) -> Result<(), ApiError> {
    let wrong = |field: &str, what: String| {
        Err(ApiError::invalid(format!(
            "invalid trigger.{field}: {what}"
        )))
    };
    let Some(said) = said(value) else {
        return match has_file(value) {
            false => Ok(()),
            true => wrong(
                "sourceToBuild",
                "there is none, and the build file is in a repository".to_owned(),
            ),
        };
    };
    if let Err(what) = kiln_git::check_url(said.uri) {
        return wrong("sourceToBuild.uri", what);
    }
    if let Err(what) = check_reference(said.reference) {
        return wrong("sourceToBuild.ref", what);
    }
    if value
        .get("build")
        .and_then(|build| build.get("source"))
        .is_some()
    {
        return wrong(
            "build.source",
            "a build has one source, and sourceToBuild is there as well".to_owned(),
        );
    }
    let Some(file) = said.file else {
        return Ok(());
    };
    for other in ["build", "gitFileSource"] {
        if value.contains_key(other) && !file.field.starts_with(other) {
            let what = format!("{} names a build file, and there is one build", file.field);
            return wrong(other, what);
        }
    }
    if let Err(what) = path(file.path) {
        return wrong(file.field, what);
    }
    if let Some(Err(what)) = file.uri.map(kiln_git::check_url) {
        return wrong("gitFileSource.uri", what);
    }
    match file.revision.map(check_template) {
        Some(Err(what)) => wrong("gitFileSource.revision", what),
        _ => Ok(()),
    }
}

/// A path in a repository without detours.
fn path(text: &str) -> Result<String, String> {
    let plain = inside(text.trim_start_matches('/'));
    let path = plain.as_deref().and_then(Path::to_str);
    match path {
        Some(path) if !path.is_empty() => Ok(path.to_owned()),
        _ => Err(format!("{text:?} is no path of a file in the repository")),
    }
}

/// Checks a ref as the trigger has it, with or without substitutions.
fn check_reference(text: &str) -> Result<(), String> {
    check_template(text)?;
    match text.starts_with("refs/") || text.contains('$') {
        true => Ok(()),
        false => Err(format!(
            "{text:?} does not begin with refs/, as refs/heads/NAME and refs/tags/NAME do"
        )),
    }
}

fn check_template(text: &str) -> Result<(), String> {
    if text.contains("$(") {
        return Err(format!(
            "{text:?} has a binding of a webhook: put that into a substitution, _REF=$(body.ref), and write $_REF here"
        ));
    }
    match text.contains('$') {
        true => Ok(()),
        false => kiln_git::check_revision(text),
    }
}

/// Looks up what a run builds; nothing if its trigger has no repository. `own` are the substitutions of trigger and run.
///
/// # Errors
/// A repository cannot be read, or has not what it is asked for, or its build file is none.
pub(super) fn find(
    server: &Server,
    trigger: &Trigger,
    own: &Map<String, Value>,
    asked: Asked<'_>,
) -> Result<Option<Found>, ApiError> {
    let Some(said) = said(&trigger.value) else {
        return match asked.dir {
            None => Ok(None),
            Some(_) => Err(ApiError::invalid(
                "invalid request.source.dir: the trigger has no sourceToBuild",
            )),
        };
    };
    let Some(_held) = server.limits.repository() else {
        return Err(ApiError::new(
            Code::ResourceExhausted,
            "as many triggers read repositories as may at once: try again later",
        ));
    };
    let began = Instant::now();
    let stop = || began.elapsed() > PATIENCE;
    let credentials = git::credentials(server.settings.git_credentials.as_deref());
    let reader = Reader {
        server,
        options: Options {
            limits: LIMITS,
            patience: PATIENCE,
            silence: SILENCE,
            ..git::options(
                credentials.map_err(|error| refused("", error))?,
                server.settings.from_elsewhere,
                &stop,
            )
        },
        own: texts(own),
        trigger,
    };
    let revision = reader.revision(said.reference, asked)?;
    let resolved = reader.resolve(said.uri, &revision)?;
    let build = match &said.file {
        None => None,
        Some(file) => Some(reader.build(file, &said, &resolved.commit)?),
    };
    // Dollars in an address are no substitutions.
    let mut source = json!({ "url": plain(said.uri), "revision": resolved.commit });
    if let Some(dir) = asked.dir {
        source["dir"] = Value::from(dir);
    }
    let mut values = built_in(&said, &resolved)?;
    if let Some(file) = &said.file {
        let path = path(file.path).map_err(ApiError::invalid)?;
        values.push(("TRIGGER_BUILD_CONFIG_PATH", plain(&path)));
    }
    Ok(Some(Found {
        source: json!({ "gitSource": source }),
        values,
        build,
    }))
}

/// The value of a substitution that is not expanded.
fn plain(text: &str) -> String {
    text.replace('$', "$$")
}

fn texts(own: &Map<String, Value>) -> BTreeMap<String, String> {
    let text = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
    own.iter().filter_map(text).collect()
}

/// What Cloud Build says of a commit and its repository.
fn built_in(said: &Said<'_>, resolved: &Resolved) -> Result<Vec<(&'static str, String)>, ApiError> {
    let url = Url::parse(said.uri).map_err(ApiError::internal)?;
    let full = url.path().trim_matches('/');
    let full = full.strip_suffix(".git").unwrap_or(full);
    let name = full.rsplit('/').next().unwrap_or(full);
    let short: String = resolved.commit.chars().take(SHORT).collect();
    let mut values = vec![
        ("COMMIT_SHA", resolved.commit.clone()),
        ("REVISION_ID", resolved.commit.clone()),
        ("SHORT_SHA", short),
        ("REPO_NAME", plain(name)),
        ("REPO_FULL_NAME", plain(full)),
    ];
    let reference = resolved.reference.as_deref().unwrap_or("");
    for (start, field) in [("refs/heads/", "BRANCH_NAME"), ("refs/tags/", "TAG_NAME")] {
        if let Some(name) = reference.strip_prefix(start) {
            values.extend([(field, plain(name)), ("REF_NAME", plain(name))]);
        }
    }
    Ok(values)
}

/// What is told of a repository that cannot be read: nothing was queued, and another try is the user's to make.
fn refused(uri: &str, error: Error) -> ApiError {
    let precondition = |what: String| {
        let text = format!("cannot read the trigger's repository: {what}");
        ApiError::new(Code::FailedPrecondition, text)
    };
    match error {
        Error::Repository { .. } | Error::Asked(_) => precondition(error.to_string()),
        Error::Stopped => {
            let seconds = PATIENCE.as_secs();
            precondition(format!("{uri}: it took more than {seconds} s"))
        }
        Error::Local { .. } => ApiError::internal(error),
    }
}

/// Reads repositories for one run.
struct Reader<'a> {
    server: &'a Server,
    options: Options<'a>,
    own: BTreeMap<String, String>,
    trigger: &'a Trigger,
}

impl Reader<'_> {
    /// The revision that the run asks for, or that of the trigger.
    fn revision(&self, reference: &str, asked: Asked<'_>) -> Result<String, ApiError> {
        let named = |field: &str, start: &str, name: &str| {
            let whole = format!("{start}{name}");
            let checked = kiln_git::check_revision(&whole);
            let wrong = |what| ApiError::invalid(format!("invalid request.source.{field}: {what}"));
            checked.map_err(wrong).map(|()| whole)
        };
        match asked {
            Asked {
                commit: Some(commit),
                ..
            } if is_commit(commit) => Ok(commit.to_owned()),
            Asked {
                commit: Some(commit),
                ..
            } => Err(ApiError::invalid(format!(
                "invalid request.source.commitSha: {commit:?} is not a commit's forty digits"
            ))),
            Asked {
                branch: Some(name), ..
            } => named("branchName", "refs/heads/", name),
            Asked {
                tag: Some(name), ..
            } => named("tagName", "refs/tags/", name),
            _ => {
                let filled = self.filled(reference)?;
                match filled.starts_with("refs/") || is_commit(&filled) {
                    true => Ok(filled),
                    false => Err(ApiError::invalid(format!(
                        "the trigger's ref {reference:?} is {filled:?} for this run, which is neither refs/heads/NAME or refs/tags/NAME nor a commit in forty digits"
                    ))),
                }
            }
        }
    }

    /// A ref or revision of the trigger with its substitutions.
    fn filled(&self, text: &str) -> Result<String, ApiError> {
        let place = Place {
            project: &self.trigger.project,
            location: &self.trigger.location,
            id: "",
        };
        let filled = substitute::fill(text, &self.own, place)?;
        let wrong = |what| ApiError::invalid(format!("the trigger's revision {text:?}: {what}"));
        kiln_git::check_revision(&filled).map_err(wrong)?;
        Ok(filled)
    }

    fn resolve(&self, uri: &str, revision: &str) -> Result<Resolved, ApiError> {
        let remote = Remote::open(uri, &self.options);
        let found = remote.and_then(|remote| remote.resolve(revision));
        found.map_err(|error| refused(uri, error))
    }

    /// The build of a file: in the commit that is built, unless the file is said to be elsewhere.
    fn build(
        &self,
        file: &File<'_>,
        said: &Said<'_>,
        commit: &str,
    ) -> Result<(Map<String, Value>, String), ApiError> {
        let uri = file.uri.unwrap_or(said.uri);
        // The same words mean the same commit, also when the run has asked for another one than these words name.
        let is_same = uri == said.uri && file.revision.is_none_or(|one| one == said.reference);
        let commit = match is_same {
            true => commit.to_owned(),
            false => {
                let revision = self.filled(file.revision.unwrap_or(""))?;
                self.resolve(uri, &revision)?.commit
            }
        };
        let path = path(file.path).map_err(ApiError::invalid)?;
        let text = self.text(uri, &commit, &path)?;
        let place = format!("{path} in {commit} of {uri}");
        let value = kiln_buildfile::read(&text, &path).map_err(|error| {
            let at = error
                .place
                .as_ref()
                .map_or(String::new(), |at| format!("{at}: "));
            ApiError::invalid(format!("{at}{error} (in {commit} of {uri})"))
        })?;
        let build = read(&BUILD, "build", value).map_err(|error| of_file(&place, error))?;
        match build.value.contains_key("source") {
            false => Ok((build.value, place)),
            true => Err(ApiError::invalid(format!(
                "{place}: build.source: a build has one source, and it is the trigger's sourceToBuild"
            ))),
        }
    }

    /// A file of a commit.
    fn text(&self, uri: &str, commit: &str, path: &str) -> Result<String, ApiError> {
        let most = kiln_buildfile::LONGEST as u64;
        let dir = &self.server.builds;
        std::fs::create_dir_all(dir).map_err(ApiError::internal)?;
        let bytes = Remote::open(uri, &self.options)
            .and_then(|remote| remote.fetch(commit, dir, Some(most)))
            .and_then(|snapshot| snapshot.file(path, most))
            .map_err(|error| refused(uri, error))?;
        String::from_utf8(bytes)
            .map_err(|_| ApiError::invalid(format!("{path} in {commit} of {uri} is no UTF-8")))
    }
}

/// An error about the build of a file, with its place.
pub(super) fn of_file(place: &str, error: ApiError) -> ApiError {
    ApiError {
        message: format!("{place}: {}", error.message),
        ..error
    }
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
