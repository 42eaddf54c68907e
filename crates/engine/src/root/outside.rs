//! Scripts that run outside of the root, in the tools root: `%pre`, `%onerror` and `%traceback`.

use std::path::Path;

use kiln_kickstart::Script;
use kiln_plan::{Hasher, Located, Lowered};
use kiln_rootfs::Place;
use kiln_rootfs::scripts::{self, ScriptContext};
use kiln_rootfs::store::Staging;

use crate::means::Session;
use crate::values::{PreFiles, Stack, overlay};
use crate::{Failure, FailureKind, Unit};

/// Runs the `%pre` scripts of a definition; returns what they leave in `/tmp`.
pub(crate) fn pre(
    session: &Session<'_>,
    first: &Lowered,
    tools: &Stack,
) -> Result<PreFiles, Failure> {
    let run = || outside(session, "%pre", &first.pre_scripts, tools, None);
    let left = session.guard.beside(tools, &session.cancel.run, run);
    named(left.inspect_err(|failure| {
        on_error(session, failure, &first.other_scripts, tools, None);
    })?)
}

/// Runs `%onerror` and `%traceback` scripts; the failure that led here stays the one that is reported. They see the
/// layers that were finished, and what they change is thrown away. They are for everything that fails but the user's own stop,
/// and what will be tried again.
pub(crate) fn on_error(
    session: &Session<'_>,
    failure: &Failure,
    list: &[Located<Script>],
    tools: &Stack,
    root: Option<&Stack>,
) {
    let stopped = failure.kind == FailureKind::Cancelled || session.guard.has_evicted();
    if list.is_empty() || stopped {
        return;
    }
    if let Err(failure) = outside(session, "%onerror", list, tools, root) {
        session.steps.warn(failure.message, failure.origin, None);
    }
}

fn outside(
    session: &Session<'_>,
    kind: &str,
    list: &[Located<Script>],
    tools: &Stack,
    root: Option<&Stack>,
) -> Result<Staging, Failure> {
    let plural = if list.len() == 1 { "" } else { "s" };
    let title = format!("running {} {kind} script{plural}", list.len());
    session.steps.step(&title, None, Unit::Files, |step| {
        let store = &session.store;
        let shared = store.stage()?;
        let (scratch, changes) = (store.stage()?, store.stage()?);
        let sandbox = session.sandbox.limited(session.limits.clone());
        let place = Place::over(
            &sandbox,
            tools.lower(),
            &scratch,
            tools.epoch,
            step,
            &session.cancel.run,
        );
        let context = script_context(session);
        for script in list {
            let root = root.map(|stack| overlay(stack.lower(), &changes));
            scripts::run_outside(&place, script, &context, &shared.fs(), root)?;
        }
        Ok(shared)
    })
}

/// What every script of a build has.
pub(crate) fn script_context(session: &Session<'_>) -> ScriptContext {
    ScriptContext {
        access: session.network.access(session.steps),
        environment: session.family.script_environment(),
        tools: None,
        tmp: None,
        files: None,
    }
}

/// Names the files by their content.
fn named(staging: Staging) -> Result<PreFiles, Failure> {
    let mut hasher = Hasher::new("pre.v1");
    for (name, bytes) in files_below(&staging.fs()).map_err(|e| unreadable_pre(&e))? {
        hasher = hasher.text("file", &name).bytes("content", &bytes);
    }
    let id = hasher.finish();
    Ok(PreFiles { staging, id })
}

/// All regular files below a directory by their paths in it, sorted. Links are not followed: their target is noted.
fn files_below(dir: &Path) -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let (mut found, mut pending) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(next) = pending.pop() {
        for entry in std::fs::read_dir(&next)? {
            let (path, kind) = entry.and_then(|e| Ok((e.path(), e.file_type()?)))?;
            let name = path.strip_prefix(dir).unwrap_or(&path);
            let name = name.to_string_lossy().into_owned();
            if kind.is_dir() {
                pending.push(path);
                found.push((name, Vec::new()));
            } else if kind.is_file() {
                found.push((name, std::fs::read(&path)?));
            } else if kind.is_symlink() {
                let target = std::fs::read_link(&path)?;
                found.push((name, target.to_string_lossy().into_owned().into_bytes()));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn unreadable_pre(error: &std::io::Error) -> Failure {
    Failure::new(FailureKind::Step, "what %pre left in /tmp cannot be read")
        .cause(crate::io::plain(error))
        .hint("let the script make its files readable, and remove what it does not need")
}
