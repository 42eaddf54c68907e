//! What can be said of a definition before anything is fetched or run.

use std::sync::Arc;

use kiln_kickstart::Severity;
use kiln_plan::configure::Level;
use kiln_plan::{Input, Lowered, Plan, Problem};
use kiln_rootfs::{Families, Family};

use crate::define::load::Source;
use crate::define::web::{Access, Web};
use crate::request::BuildRequest;
use crate::{Cancel, Failure, FailureKind};

/// Reads a definition, as far as that goes before its `%pre` scripts.
pub(crate) fn open(request: &BuildRequest, cancel: &Cancel) -> Result<(Source, Lowered), Failure> {
    let source = Source::open(&request.files, &request.definition, web(request, cancel))?;
    let lowered = source.lower(&Input {
        before_pre: true,
        ..request.input.clone()
    });
    // A transfer that was stopped is no mistake of the definition.
    cancel.check()?;
    if let Some(plan) = &lowered.plan {
        family(&request.families, plan)?;
    }
    Ok((source, checked(lowered)?))
}

/// How a build reads what kickstart files include from the network.
fn web(request: &BuildRequest, cancel: &Cancel) -> Web {
    let access = if request.offline {
        Access::offline()
    } else {
        Access::Online(request.proxies.clone())
    };
    Web::new(access, Some(cancel.clone())).from_elsewhere(request.from_elsewhere)
}

/// The family that can build a plan.
pub(crate) fn family(families: &Families, plan: &Plan) -> Result<Arc<dyn Family>, Failure> {
    let target = &plan.target;
    families.of(target).ok_or_else(|| {
        let message = format!(
            "{}:{} can be planned, but not built: nothing in this Kiln installs its packages",
            target.distribution, target.release
        );
        Failure::new(FailureKind::Definition, message).hint(
            "`kiln plan` shows what the definition means; `--distribution` builds it for another",
        )
    })
}

/// A plan without errors, and its `%pre` scripts.
pub(crate) fn checked(lowered: Lowered) -> Result<Lowered, Failure> {
    let errors: Vec<&Problem> = lowered
        .problems
        .iter()
        .filter(|p| p.severity == Severity::Error)
        .collect();
    let Some(first) = errors.first() else {
        return refused(&lowered).map_or(Ok(lowered), Err);
    };
    let mut failure = Failure::new(FailureKind::Definition, first.message.clone());
    failure.origin = first.origin.clone();
    failure.hints = first.hints.clone();
    failure.excerpt = first.rendered.clone();
    for more in &errors[1..] {
        let place = more
            .origin
            .as_ref()
            .map_or_else(String::new, |o| format!("{o}: "));
        failure.others.push(format!("{place}{}", more.message));
    }
    Err(failure)
}

/// Commands that no image can have.
fn refused(lowered: &Lowered) -> Option<Failure> {
    let plan = lowered.plan.as_ref()?;
    let notices = plan.layers.iter().flat_map(|l| &l.notices);
    let mut errors = notices.filter(|n| n.level == Level::Error);
    let first = errors.next()?;
    let mut failure = Failure::new(FailureKind::Definition, first.message.clone());
    failure.origin = Some(first.origin.clone());
    failure.hints.extend(first.hint.clone());
    failure
        .others
        .extend(errors.map(|n| format!("{}: {}", n.origin, n.message)));
    Some(failure)
}

/// A definition without errors has a plan.
pub(crate) fn no_plan() -> Failure {
    Failure::new(
        FailureKind::Internal,
        "a definition without errors gave no plan",
    )
}
