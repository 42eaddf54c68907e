//! The lock of a definition: the file beside it, or a fresh one.

use std::path::Path;
use std::sync::Arc;

use kiln_kickstart::Script;
use kiln_packages::{Lock, LockedPackage, TOOLS};
use kiln_plan::configure::Level;
use kiln_plan::{Hasher, Id, Located, Lowered, Plan, script_id};

use crate::define::check::{checked, no_plan};
use crate::define::load::Source;
use crate::define::owners;
use crate::means::Session;
use crate::means::vendored::AGAIN;
use crate::resolve::signed::{know_mirrors, trust, trust_repositories, vouch};
use crate::resolve::solve::{Resolver, World, is_current, read_lock};
use crate::root::outside;
use crate::root::steps::{tools_root, tools_to_come};
use crate::values::{PreFiles, Resolved, Stack};
use crate::{Failure, FailureKind};

/// A definition that was read for good, and the tools root that it is resolved in.
struct Prepared {
    lowered: Lowered,
    plan: Plan,
    world: Option<World>,
    tools: Vec<LockedPackage>,
    stack: Stack,
    pre: Option<Arc<PreFiles>>,
}

/// What a build does about the lock beside its definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    /// It takes what the lock says.
    Use,
    /// It asks the repositories.
    Resolve,
    /// It ends: the user wants what was locked, and nothing else.
    Refuse,
}

/// `current` is whether the lock, if there is one, answers the definition as it is now.
fn choose(current: Option<bool>, locked: bool) -> Choice {
    match (current, locked) {
        (Some(true), _) => Choice::Use,
        (_, true) => Choice::Refuse,
        (_, false) => Choice::Resolve,
    }
}

/// Finds the lock or makes one.
pub(crate) fn resolve(
    session: &Session<'_>,
    source: Source,
    first: Lowered,
) -> Result<Resolved, Failure> {
    let path = match &session.vendored {
        Some(vendored) => vendored.lock_path(),
        None => source.lock_path(),
    };
    let locked = session.request.locked || session.vendored.is_some();
    let found = read_lock(&path, session.family.lock_facts())?;
    if found.is_none() && choose(None, locked) == Choice::Refuse {
        let failure = Failure::new(
            FailureKind::Definition,
            format!("there is no {}", path.display()),
        );
        return Err(failure.hint("run `kiln lock` and commit the file, or build without --locked"));
    }
    let prepared = prepare(
        session,
        source,
        first,
        found.as_ref().map(|lock| (&*path, lock)),
    )?;
    let plan = &prepared.plan;
    let current = found.as_ref().map(|lock| is_current(lock, plan));
    let lock = match (choose(current, locked), found) {
        (Choice::Use, Some(lock)) => {
            trust_repositories(session, plan, &path, &lock)?;
            if prepared.pre.is_some() {
                trust(
                    session,
                    plan,
                    &path,
                    &lock.packages.iter().collect::<Vec<_>>(),
                )?;
                know_mirrors(session, plan, &path)?;
            }
            lock
        }
        (Choice::Refuse, _) => return Err(stale(session, &path)),
        (Choice::Resolve | Choice::Use, stale) => {
            if stale.is_some() {
                let message = format!(
                    "{} is stale: the definition asks for other packages now; resolving afresh",
                    path.display()
                );
                let hint = "run `kiln lock` to renew it".to_owned();
                session.steps.warn_once(message, None, Some(hint));
            }
            let resolver = Resolver::of(session);
            let world = resolver.world_of(plan, prepared.world)?;
            resolver.solve(plan, &world, &prepared.tools, &prepared.stack)?
        }
    };
    Ok(Resolved {
        plan: prepared.plan,
        lock,
        tools: prepared.stack,
        on_error: prepared.lowered.other_scripts,
        pre: prepared.pre,
    })
}

/// Makes a lock, whatever is there; returns the plan that it is of, and the repositories. `pins` is a manifest of the only packages that
/// are taken: its name, and its text.
pub(crate) fn afresh(
    session: &Session<'_>,
    source: Source,
    first: Lowered,
    pins: Option<&(String, String)>,
) -> Result<(Plan, Lock, World), Failure> {
    let prepared = prepare(session, source, first, None)?;
    let (resolver, plan) = (Resolver::of(session), &prepared.plan);
    let mut world = resolver.world_of(plan, prepared.world)?;
    if let Some((what, text)) = pins {
        for warning in world.pin(what, text)? {
            session.steps.warn_once(warning, None, None);
        }
    }
    let lock = resolver.solve(plan, &world, &prepared.tools, &prepared.stack)?;
    vouch(session, plan, &lock)?;
    Ok((prepared.plan, lock, world))
}

fn stale(session: &Session<'_>, path: &Path) -> Failure {
    let message = format!(
        "{} is stale: the definition asks for other packages now",
        path.display()
    );
    let hint = match &session.vendored {
        Some(_) => AGAIN,
        None => "run `kiln lock` and commit the file",
    };
    Failure::new(FailureKind::Definition, message).hint(hint)
}

/// Gets the tools root, runs `%pre` scripts in it, and reads the definition for good.
fn prepare(
    session: &Session<'_>,
    mut source: Source,
    first: Lowered,
    lock: Option<(&Path, &Lock)>,
) -> Result<Prepared, Failure> {
    let has_pre = !first.pre_scripts.is_empty();
    let plan = first.plan.clone().ok_or_else(no_plan)?;
    let usable = lock.filter(|(_, lock)| has_pre || is_current(lock, &plan));
    let (world, locked) = match usable {
        Some((path, lock)) => {
            // What `%pre` leaves may bring further repositories; the tools root that it runs in comes from those known by now.
            let now = |p: &&LockedPackage| !has_pre || p.layer == TOOLS;
            let packages = lock.packages.iter().filter(now);
            trust(session, &plan, path, &packages.collect::<Vec<_>>())?;
            know_mirrors(session, &plan, path)?;
            (None, lock.of_layer(TOOLS).cloned().collect::<Vec<_>>())
        }
        None => {
            let world = Resolver::of(session).world(&plan)?;
            let locked = world.read.tools()?;
            (Some(world), locked)
        }
    };
    let packages: Vec<&LockedPackage> = locked.iter().collect();
    // Where the whole image may come from elsewhere, the tools wait until that is known.
    let wait = session.shared.is_some() && usable.is_some() && !has_pre;
    let stack = match wait {
        true => tools_to_come(session, &plan, &packages),
        false => tools(session, &plan, &packages)?,
    };
    let pre = match has_pre {
        true => {
            let run = || outside::pre(session, &first, &stack);
            Some(session.pre.get(scripts_id(&first), run)?)
        }
        false => None,
    };
    source.pre = pre.as_deref().map(PreFiles::dir);
    let lowered = checked(source.lower(&session.request.input))?;
    notices(session, &lowered);
    let plan = lowered.plan.clone().ok_or_else(no_plan)?;
    owners::fit(&plan, session.sandbox.ids())?;
    Ok(Prepared {
        lowered,
        plan,
        world,
        tools: locked,
        stack,
        pre,
    })
}

fn tools(
    session: &Session<'_>,
    plan: &Plan,
    packages: &[&LockedPackage],
) -> Result<Stack, Failure> {
    tools_root(session, plan, packages, &|| download(session, packages))
}

/// Sees to it that the tools root is there.
pub(crate) fn with_tools(session: &Session<'_>, resolved: Resolved) -> Result<Resolved, Failure> {
    if !resolved.tools.layers.is_empty() {
        return Ok(resolved);
    }
    let packages: Vec<&LockedPackage> = resolved.lock.of_layer(TOOLS).collect();
    let tools = tools(session, &resolved.plan, &packages)?;
    Ok(Resolved { tools, ..resolved })
}

/// The id of a definition's `%pre` scripts.
fn scripts_id(first: &Lowered) -> Id {
    let scripts = first.pre_scripts.iter();
    let hash =
        |hasher: Hasher, script: &Located<Script>| hasher.id("script", script_id(&script.item));
    scripts.fold(Hasher::new("pre-scripts"), hash).finish()
}

/// Has packages in the store, from the network or from the vendored directory.
pub(crate) fn download(session: &Session<'_>, packages: &[&LockedPackage]) -> Result<(), Failure> {
    let resolver = Resolver::of(session);
    let Some(vendored) = &session.vendored else {
        return resolver.download(packages);
    };
    let local: Vec<LockedPackage> = packages.iter().map(|p| vendored.localised(p)).collect();
    let local: Vec<&LockedPackage> = local.iter().collect();
    let done = resolver.download(&local);
    done.map_err(|failure| failure.hint(AGAIN))
}

/// Says what was found about the definition.
fn notices(session: &Session<'_>, lowered: &Lowered) {
    for problem in &lowered.problems {
        session.steps.warn_once(
            problem.message.clone(),
            problem.origin.clone(),
            problem.hints.first().cloned(),
        );
    }
    let Some(plan) = &lowered.plan else { return };
    for notice in plan.layers.iter().flat_map(|l| &l.notices) {
        if notice.level == Level::Warning {
            let (message, origin) = (notice.message.clone(), notice.origin.clone());
            let hint = notice.hint.clone();
            session.steps.warn_once(message, Some(origin), hint);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locked_build_never_asks_and_one_that_is_not_never_refuses() {
        for (current, locked, choice) in [
            (None, false, Choice::Resolve),
            (None, true, Choice::Refuse),
            (Some(false), false, Choice::Resolve),
            (Some(false), true, Choice::Refuse),
            (Some(true), false, Choice::Use),
            (Some(true), true, Choice::Use),
        ] {
            assert_eq!(choose(current, locked), choice, "{current:?} {locked}");
        }
    }
}
