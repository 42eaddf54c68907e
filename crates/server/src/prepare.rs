//! From what a client sent to a build that can be queued: read, substituted and checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::commands::Commands;
use crate::executor::request::{ArtifactsRequest, Container, StepRequest};
use crate::git::{self, GitTask, Pin};
use crate::graph;
use crate::secrets;
use crate::substitute::{self, Place};
use crate::wire::error::ApiError;
use crate::wire::model::{Build, GitSource, Options, Source, Status, Step, Volume, Warning};
use crate::wire::read::read;
use crate::wire::table::BUILD;
use crate::wire::time;

const MOST_STEPS: usize = 300;
const MOST_ARGS: usize = 100;
const LONGEST_ARG: usize = 10_000;
const MOST_TAGS: usize = 64;
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60 * 60);
const DEFAULT_TTL: Duration = Duration::from_secs(60 * 60);

/// What every build on a server is checked with.
pub(crate) struct Rules<'a> {
    /// Images that are Kiln itself.
    pub images: &'a [String],
    /// Kiln's command line.
    pub commands: &'a dyn Commands,
    /// Says why no container can be run.
    pub engine: &'a dyn Fn() -> Result<(), String>,
    /// Says why a version of a secret cannot be had.
    pub secrets: &'a dyn Fn(&str) -> Result<(), String>,
    /// What a source from git is known to be: that of the build which this one does again.
    pub pin: Option<Pin>,
}

/// A build that can be queued.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    /// As clients see it.
    pub build: Build,
    /// As it is run.
    pub task: Task,
}

/// What an attempt's request is made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    /// What runs.
    pub steps: Vec<StepRequest>,
    /// What is kept.
    pub artifacts: Option<ArtifactsRequest>,
    /// Images that are kept for all builds.
    #[serde(default)]
    pub images: Vec<String>,
    /// Variables with secrets, and the versions that they hold.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    /// A source from git.
    #[serde(default)]
    pub git: Option<GitTask>,
    /// From start to end, in seconds.
    pub timeout: f64,
    /// How long it may wait, in seconds.
    pub queue_ttl: f64,
    /// Processors that the queue sets aside.
    pub cpus: u32,
    /// Later ones first.
    pub priority: i32,
}

/// Prepares a build for a place.
///
/// # Errors
/// What is wrong with it, as a client is told.
pub(crate) fn prepare(
    value: Value,
    place: Place<'_>,
    rules: &Rules<'_>,
) -> Result<Prepared, ApiError> {
    let reading = read(&BUILD, "build", value)?;
    let mut build: Build =
        serde_json::from_value(Value::Object(reading.value)).map_err(ApiError::internal)?;
    substitute::apply(&mut build, place)?;
    let warnings = reading.ignored.into_iter().map(|text| Warning {
        text,
        priority: "WARNING".to_owned(),
    });
    build.warnings.extend(warnings);
    let order = check(&build)?;
    let timeout = span("build.timeout", build.timeout.as_deref(), DEFAULT_TIMEOUT)?;
    let queue_ttl = span("build.queueTtl", build.queue_ttl.as_deref(), DEFAULT_TTL)?;
    let steps = build.steps.iter().zip(order).enumerate();
    let steps = steps
        .map(|(at, (step, after))| step_request(at, step, after, &build, rules))
        .collect::<Result<Vec<_>, _>>()?;
    let task = Task {
        steps,
        artifacts: artifacts(&build)?,
        images: images(&build, place.project, rules)?,
        secrets: secrets::check(&build, rules.images, rules.secrets)?,
        git: git_source(&build).map(|source| GitTask {
            url: source.url.clone(),
            revision: source.revision.clone().unwrap_or(String::new()),
            pin: rules.pin.clone(),
        }),
        timeout: timeout.as_secs_f64(),
        queue_ttl: queue_ttl.as_secs_f64(),
        cpus: cpus(&build),
        priority: priority(&build.tags),
    };
    if let Some(pin) = &rules.pin {
        git::fetched(&mut build, &pin.commit);
    }
    build.timeout = Some(time::duration(timeout));
    build.queue_ttl = Some(time::duration(queue_ttl));
    build.id = place.id.to_owned();
    build.project_id = place.project.to_owned();
    build.name = format!(
        "projects/{}/locations/{}/builds/{}",
        place.project, place.location, place.id
    );
    build.status = Status::Queued;
    let bucket = build
        .logs_bucket
        .take()
        .unwrap_or_else(|| format!("gs://{}_cloudbuild", place.project));
    build.logs_bucket = Some(if bucket.starts_with("gs://") {
        bucket
    } else {
        format!("gs://{bucket}")
    });
    Ok(Prepared { build, task })
}

/// What can be said without looking at a step's image; returns what each step waits for.
fn check(build: &Build) -> Result<Vec<Vec<usize>>, ApiError> {
    match build.steps.len() {
        0 => {
            return Err(ApiError::invalid(
                "invalid build: no build steps are specified",
            ));
        }
        steps if steps > MOST_STEPS => {
            return Err(ApiError::invalid(format!(
                "invalid build: {steps} build steps are specified, {MOST_STEPS} is the maximum"
            )));
        }
        _ => {}
    }
    if build.tags.len() > MOST_TAGS {
        return Err(ApiError::invalid(format!(
            "invalid build: more than {MOST_TAGS} tags"
        )));
    }
    let is_tag = |tag: &str| {
        let mut bytes = tag.bytes();
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        tag.len() <= 128
            && bytes.next().is_some_and(word)
            && bytes.all(|byte| word(byte) || byte == b'.' || byte == b'-')
    };
    if let Some(tag) = build.tags.iter().find(|tag| !is_tag(tag)) {
        return Err(ApiError::invalid(format!(
            "invalid build: invalid tag {tag:?}: tags must match format [\\w][\\w.-]{{0,127}}"
        )));
    }
    if let Some(source) = &build.source {
        check_source(source)?;
    }
    graph::order(&build.steps)
}

fn git_source(build: &Build) -> Option<&GitSource> {
    build.source.as_ref()?.git_source.as_ref()
}

fn check_source(source: &Source) -> Result<(), ApiError> {
    let storage = match (&source.storage_source, &source.git_source) {
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid(
                "invalid build.source: a build has one source, and there are two",
            ));
        }
        (None, Some(source)) => return git::check(source, &|dir| inside(dir).is_some()),
        (None, None) => return Ok(()),
        (Some(storage), None) => storage,
    };
    if storage.bucket.is_empty() || storage.object.is_empty() {
        return Err(ApiError::invalid(
            "invalid build: build.source.storageSource needs a bucket and an object",
        ));
    }
    Ok(())
}

fn span(name: &str, text: Option<&str>, default: Duration) -> Result<Duration, ApiError> {
    let Some(text) = text else {
        return Ok(default);
    };
    match time::read_duration(text) {
        Some(span) if span > LONGEST => Err(ApiError::invalid(format!(
            "invalid {name}: {text} is more than a day"
        ))),
        Some(span) if !span.is_zero() => Ok(span),
        _ => Ok(default),
    }
}

fn step_request(
    at: usize,
    step: &Step,
    after: Vec<usize>,
    build: &Build,
    rules: &Rules<'_>,
) -> Result<StepRequest, ApiError> {
    let none = Options::default();
    let shared = build.options.as_ref().unwrap_or(&none);
    let wrong = |field: &str, what: String| {
        ApiError::invalid(format!("invalid build.steps[{at}].{field}: {what}"))
    };
    check_words(step, &wrong)?;
    let env: Vec<String> = shared.env.iter().chain(&step.env).cloned().collect();
    if let Some(entry) = env.iter().find(|entry| !is_assignment(entry)) {
        return Err(wrong("env", format!("{entry:?} is not NAME=VALUE")));
    }
    let dir = directory(step, build)
        .ok_or_else(|| wrong("dir", "the directory leads out of /workspace".to_owned()))?;
    let container = if rules.images.contains(&step.name) {
        check_kiln(step, &dir, rules, &wrong)?;
        None
    } else {
        (rules.engine)().map_err(|why| {
            let own = rules.images.join(" or ");
            let name = &step.name;
            let what = format!("the image {name:?} needs a container engine: {why}; steps with the image {own} run without one");
            wrong("name", what)
        })?;
        Some(container(step, shared, &wrong)?)
    };
    let timeout = match &step.timeout {
        None => None,
        Some(text) => Some(span("build.steps.timeout", Some(text), LONGEST)?.as_secs_f64()),
    };
    let secret_env = match container {
        Some(_) => shared.secret_env.iter().chain(&step.secret_env),
        None => [].iter().chain(&[]),
    };
    let secret_env: BTreeSet<&String> = secret_env.collect();
    Ok(StepRequest {
        image: step.name.clone(),
        id: step.id.clone(),
        args: step.args.clone(),
        env,
        secret_env: secret_env.into_iter().cloned().collect(),
        dir,
        timeout,
        allow_failure: step.allow_failure,
        allow_exit_codes: step.allow_exit_codes.clone(),
        after,
        container,
    })
}

/// Where a step runs, relative to the workspace: a source from git says where steps do that say nothing absolute.
fn directory(step: &Step, build: &Build) -> Option<PathBuf> {
    let own = step.dir.as_deref().unwrap_or("");
    let below = git_source(build).and_then(|source| source.dir.as_deref());
    match below {
        Some(below) if !Path::new(own).is_absolute() => inside(&format!("{below}/{own}")),
        _ => inside(own),
    }
}

/// What a step of Kiln itself may say: its arguments, and nothing that needs another program.
fn check_kiln(
    step: &Step,
    dir: &Path,
    rules: &Rules<'_>,
    wrong: &impl Fn(&str, String) -> ApiError,
) -> Result<(), ApiError> {
    if let Some(program) = &step.entrypoint
        && program != "kiln"
    {
        return Err(wrong(
            "entrypoint",
            format!("there is no {program:?} in the image, only kiln"),
        ));
    }
    if step.script.is_some() {
        return Err(wrong("script", "the image kiln has no shell".to_owned()));
    }
    if !step.volumes.is_empty() {
        let what = "a step of kiln has the workspace and nothing else";
        return Err(wrong("volumes", what.to_owned()));
    }
    let mut find = |path: &Path| {
        let text = path.to_str().ok_or("a path is no UTF-8")?;
        let whole = Path::new("/workspace").join(dir).join(text);
        inside(whole.to_str().unwrap_or(""))
            .ok_or_else(|| format!("{text:?} is not below /workspace"))
    };
    rules
        .commands
        .read(&step.args, 1, &mut find)
        .map(drop)
        .map_err(|why| wrong("args", why))
}

/// What a step has in its container.
fn container(
    step: &Step,
    shared: &Options,
    wrong: &impl Fn(&str, String) -> ApiError,
) -> Result<Container, ApiError> {
    if step.script.is_some() && (step.entrypoint.is_some() || !step.args.is_empty()) {
        let what = "a step has a script, or an entrypoint and args";
        return Err(wrong("script", what.to_owned()));
    }
    let mut volumes: Vec<Volume> = Vec::new();
    for volume in shared.volumes.iter().chain(&step.volumes) {
        let named = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let name_is_good = volume
            .name
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric())
            && volume.name.len() <= 128
            && volume.name.bytes().all(named);
        if !name_is_good {
            let what = format!("{:?} is no name of a volume", volume.name);
            return Err(wrong("volumes", what));
        }
        let path = Path::new(&volume.path);
        let plain = path
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        let taken = ["/workspace", "/builder", "/var/run/docker.sock"];
        let is_taken = taken.iter().any(|taken| path.starts_with(taken));
        if !plain
            || !path.is_absolute()
            || path.parent().is_none()
            || volume.path.contains(':')
            || is_taken
        {
            let what = format!(
                "{:?} is no path for a volume: it is absolute, and not /workspace or /builder",
                volume.path
            );
            return Err(wrong("volumes", what));
        }
        if volumes
            .iter()
            .any(|other| other.name == volume.name || other.path == volume.path)
        {
            let what = format!("the volume {:?} or its path is there twice", volume.name);
            return Err(wrong("volumes", what));
        }
        volumes.push(volume.clone());
    }
    Ok(Container {
        entrypoint: step.entrypoint.clone(),
        script: step.script.clone(),
        volumes,
    })
}

/// Refuses arguments that no system takes.
fn check_words(step: &Step, wrong: &impl Fn(&str, String) -> ApiError) -> Result<(), ApiError> {
    if step.name.is_empty() {
        return Err(wrong(
            "name",
            "a step needs the name of an image".to_owned(),
        ));
    }
    if step.args.len() > MOST_ARGS || step.args.iter().any(|arg| arg.len() > LONGEST_ARG) {
        return Err(wrong(
            "args",
            format!("more than {MOST_ARGS} arguments, or one of more than {LONGEST_ARG} bytes"),
        ));
    }
    Ok(())
}

fn is_assignment(entry: &str) -> bool {
    entry
        .split_once('=')
        .is_some_and(|(name, _)| !name.is_empty())
        && !entry.contains('\0')
}

/// A path below `/workspace`, relative to it; nothing if it leads out.
pub(crate) fn inside(path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    let relative = match path.is_absolute() {
        true => path.strip_prefix("/workspace").ok()?,
        false => path,
    };
    let mut plain = PathBuf::new();
    for part in relative.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !plain.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(plain)
}

/// The images that a build keeps. Names lead to its own project: what other builds run under another name is not its to change.
fn images(build: &Build, project: &str, rules: &Rules<'_>) -> Result<Vec<String>, ApiError> {
    let wrong = |what: String| ApiError::invalid(format!("invalid build.images: {what}"));
    if build.images.is_empty() {
        return Ok(Vec::new());
    }
    (rules.engine)().map_err(|why| wrong(format!("they need a container engine: {why}")))?;
    for name in &build.images {
        let (host, path) = name.split_once('/').unwrap_or(("", name));
        let is_ours =
            host == "gcr.io" || host.ends_with(".gcr.io") || host.ends_with("-docker.pkg.dev");
        let rest = path
            .strip_prefix(project)
            .and_then(|rest| rest.strip_prefix('/'));
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/:".contains(c);
        let is_name = |rest: &str| {
            let parts = rest.split(['/', ':']);
            rest.len() <= 200
                && rest.chars().all(fits)
                && parts
                    .into_iter()
                    .all(|part| !part.is_empty() && !part.starts_with('.'))
        };
        if project == "cloud-builders" || !is_ours || !rest.is_some_and(is_name) {
            return Err(wrong(format!(
                "{name:?} is not gcr.io/{project}/NAME: the server keeps images for builds, and pushes none to a registry; a step can (docker push)"
            )));
        }
    }
    Ok(build.images.clone())
}

fn artifacts(build: &Build) -> Result<Option<ArtifactsRequest>, ApiError> {
    let objects = build
        .artifacts
        .as_ref()
        .and_then(|kept| kept.objects.as_ref());
    let Some(objects) = objects else {
        return Ok(None);
    };
    let place = objects.location.strip_prefix("gs://");
    if place.is_none_or(|place| place.is_empty() || place.starts_with('/')) {
        return Err(ApiError::invalid(format!(
            "invalid build.artifacts.objects.location: {:?} is not gs://BUCKET/PATH",
            objects.location
        )));
    }
    if objects.paths.is_empty() {
        return Err(ApiError::invalid(
            "invalid build.artifacts.objects.paths: there are none",
        ));
    }
    let mut paths = Vec::new();
    for path in &objects.paths {
        let plain = inside(path).and_then(|path| path.to_str().map(str::to_owned));
        match plain {
            Some(path) if !path.is_empty() => paths.push(path),
            _ => {
                return Err(ApiError::invalid(format!(
                    "invalid build.artifacts.objects.paths: {path:?} is not below /workspace"
                )));
            }
        }
    }
    Ok(Some(ArtifactsRequest {
        location: objects.location.clone(),
        paths,
    }))
}

/// The processors that a machine type has on Cloud Build.
fn cpus(build: &Build) -> u32 {
    let machine = build
        .options
        .as_ref()
        .and_then(|options| options.machine_type.as_deref());
    match machine {
        Some("E2_MEDIUM") => 1,
        Some("N1_HIGHCPU_8" | "E2_HIGHCPU_8") => 8,
        Some("N1_HIGHCPU_32" | "E2_HIGHCPU_32") => 32,
        _ => 2,
    }
}

/// `priority-high` and `priority-low` among the tags.
fn priority(tags: &[String]) -> i32 {
    let has = |name: &str| tags.iter().any(|tag| tag == name);
    i32::from(has("priority-high")) - i32::from(has("priority-low"))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use serde_json::json;

    use super::*;
    use crate::commands::Find;

    /// Takes `build PATH` and nothing else.
    struct Builds;

    impl Commands for Builds {
        fn read(&self, args: &[String], _: u32, find: Find<'_>) -> Result<Vec<OsString>, String> {
            match args {
                [build, path] if build == "build" => {
                    Ok(vec!["build".into(), find(Path::new(path))?.into()])
                }
                _ => Err("not build PATH".to_owned()),
            }
        }
    }

    fn prepared(value: Value) -> Result<Prepared, String> {
        let place = Place {
            project: "demo",
            location: "global",
            id: "b-1",
        };
        let rules = Rules {
            images: &["kiln".to_owned()],
            commands: &Builds,
            engine: &|| Err("podman is not installed".to_owned()),
            secrets: &|_| Ok(()),
            pin: None,
        };
        prepare(value, place, &rules).map_err(|error| error.message)
    }

    #[test]
    fn a_build_is_prepared() {
        let value = json!({
            "steps": [{ "name": "kiln", "args": ["build", "/workspace/$_N.ks"], "dir": "a/b", "timeout": "5s" }],
            "artifacts": { "objects": { "location": "gs://out/$BUILD_ID", "paths": ["output/*"] } },
            "options": { "env": ["A=1"], "pool": { "name": "p" }, "machineType": "E2_HIGHCPU_8" },
            "substitutions": { "_N": "lab" }, "tags": ["priority-high"], "logsBucket": "logs",
        });
        let Prepared { build, task } = prepared(value).unwrap();
        assert_eq!(task.steps[0].args[1], "/workspace/lab.ks");
        assert_eq!(task.steps[0].env, ["A=1"]);
        assert_eq!(task.steps[0].timeout, Some(5.0));
        assert_eq!((task.cpus, task.priority, task.timeout), (8, 1, 3600.0));
        assert_eq!(task.artifacts.unwrap().location, "gs://out/b-1");
        assert_eq!(build.logs_bucket.as_deref(), Some("gs://logs"));
        assert_eq!(build.timeout.as_deref(), Some("3600s"));
        assert_eq!(build.warnings.len(), 1, "{:?}", build.warnings);
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for (step, expected) in [
            (
                json!({ "name": "ubuntu" }),
                "build.steps[0].name: the image \"ubuntu\" needs a container engine",
            ),
            (
                json!({ "name": "kiln", "entrypoint": "bash" }),
                "no \"bash\" in the image",
            ),
            (
                json!({ "name": "kiln", "script": "x" }),
                "build.steps[0].script: the image kiln has no shell",
            ),
            (
                json!({ "name": "kiln", "args": ["build", "/etc/x.ks"] }),
                "\"/etc/x.ks\" is not below /workspace",
            ),
            (
                json!({ "name": "kiln", "args": ["build", "../x.ks"] }),
                "not below /workspace",
            ),
            (
                json!({ "name": "kiln", "args": ["serve"] }),
                "not build PATH",
            ),
            (
                json!({ "name": "kiln", "dir": "../.." }),
                "leads out of /workspace",
            ),
            (json!({ "name": "kiln", "env": ["A"] }), "not NAME=VALUE"),
            (json!({ "args": [] }), "needs the name of an image"),
        ] {
            let error = prepared(json!({ "steps": [step] })).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let many: Vec<Value> = (0..10_000).map(|_| json!({ "name": "kiln" })).collect();
        assert!(
            prepared(json!({ "steps": many }))
                .unwrap_err()
                .contains("300 is the maximum")
        );
        assert!(prepared(json!({})).unwrap_err().contains("no build steps"));
    }
}
