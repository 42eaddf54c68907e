//! A layer: made by a step over those below it, or found again by the step's id.

use kiln_plan::Id;
use kiln_rootfs::family::Facts;
use kiln_rootfs::store::{Layer, Staging};
use kiln_rootfs::{Place, Store};
use kiln_sandbox::{CancelToken, Limits, Sandbox};
use serde_json::{Value, json};

use crate::cancel::stopped;
use crate::root::why::Inputs;
use crate::shared::Shared;
use crate::steps::{Step, Steps};
use crate::trust::guard::Guard;
use crate::values::{FACTS, INPUTS, Stack};
use crate::{Failure, FailureKind, Unit};

/// Makes layers, or finds them.
pub(crate) struct Layers<'a> {
    pub(crate) store: &'a Store,
    pub(crate) sandbox: &'a Sandbox,
    /// What a step may take.
    pub(crate) limits: &'a Limits,
    pub(crate) steps: &'a Steps<'a>,
    pub(crate) cancel: &'a CancelToken,
    /// Where other machines' layers are.
    pub(crate) shared: Option<&'a Shared>,
    /// Keeps damage of stored layers out of new ones.
    pub(crate) guard: &'a Guard,
    /// Called with each layer that was made.
    pub(crate) made: &'a dyn Fn(&Layer),
}

/// One step of the stack.
pub(crate) struct Work<'w> {
    pub(crate) inputs: Inputs,
    pub(crate) title: String,
    pub(crate) layer: &'w str,
    pub(crate) unit: Unit,
    /// What is known of the packages that it installs.
    pub(crate) facts: Option<&'w Facts>,
    pub(crate) against: Against,
}

impl<'w> Work<'w> {
    /// The kickstart's layer that it belongs to, if there is one.
    fn layer_name(&self) -> Option<&'w str> {
        (!self.layer.is_empty()).then_some(self.layer)
    }
}

/// How damage of the layers below is kept out of what a step makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Against {
    /// What it looks at is compared, in blocks of so many bytes.
    Traced(u32),
    /// All of them are, beside it.
    All,
}

impl Layers<'_> {
    /// Makes a layer over a stack, or finds it.
    pub(crate) fn layer(
        &self,
        work: &Work<'_>,
        stack: &Stack,
        make: impl FnOnce(&Place<'_>, &Step<'_, '_>, &Staging) -> Result<Value, Failure>,
    ) -> Result<Layer, Failure> {
        let name = work.layer_name();
        let id = work.inputs.id();
        if let Some(layer) = self.find(id, name) {
            let pulled = self.shared.is_some_and(|s| s.has_pulled(id));
            self.steps.cached_here(&work.title, name, pulled);
            self.push(&layer);
            return Ok(layer);
        }
        // A transfer that was stopped is a miss, and no reason to begin a step.
        if self.cancel.is_cancelled() {
            return Err(stopped());
        }
        let why = work.inputs.why_not_reused(self.store);
        let made = self
            .steps
            .step_because(why, &work.title, name, work.unit, |step| {
                let staging = self.store.stage()?;
                let sandbox = self.sandbox.limited(self.limits.clone());
                let (lower, cancel) = (stack.lower(), self.cancel);
                let place = Place::over(&sandbox, lower, &staging, stack.epoch, step, cancel);
                let made = self.guarded(work.against, stack, &place, |place| {
                    make(place, step, &staging)
                });
                let made = made.and_then(|facts| step.had_room().map(|()| facts));
                match made.map_err(|failure| step.explain(failure)) {
                    Ok(facts) => self.commit(work, staging, facts),
                    Err(failure) => Err(self.keep_failed(work, stack, staging, failure)),
                }
            })?;
        self.push(&made);
        Ok(made)
    }

    fn commit(&self, work: &Work<'_>, staging: Staging, facts: Value) -> Result<Layer, Failure> {
        if let Some(facts) = work.facts.filter(|facts| facts.built.is_some()) {
            staging.attach(FACTS, facts.text())?;
        }
        let note = work.inputs.note().map_err(|error| {
            let message = format!("the inputs of `{}` cannot be written down", work.title);
            Failure::new(FailureKind::Internal, message).cause(error.to_string())
        })?;
        staging.attach(INPUTS, &note)?;
        let id = work.inputs.id();
        let layer = staging.commit(id, &work.title, facts)?;
        self.guard.trust(id);
        (self.made)(&layer);
        Ok(layer)
    }

    /// Keeps what a failed step left, for people to look at, unless it is tried again; the failure then says how.
    fn keep_failed(
        &self,
        work: &Work<'_>,
        stack: &Stack,
        staging: Staging,
        mut failure: Failure,
    ) -> Failure {
        let counts = matches!(failure.kind, FailureKind::Step | FailureKind::Definition);
        if counts && !self.guard.has_evicted() {
            let kept = json!({
                "lower": stack.lower(),
                "title": work.title,
                "layer": work.layer_name(),
                "epoch": stack.epoch,
                "origin": failure.origin,
            });
            if staging.keep_failed(&kept).is_ok() {
                failure.reopen = Some("kiln shell --last".to_owned());
            }
        }
        failure
    }

    /// Makes something over a stack that is worth nothing where the stack is damaged.
    fn guarded<T>(
        &self,
        against: Against,
        stack: &Stack,
        place: &Place<'_>,
        make: impl FnOnce(&Place<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        match against {
            Against::Traced(block_size) => self.guard.watched(stack, place, block_size, make),
            Against::All => self.guard.beside(stack, self.cancel, || make(place)),
        }
    }

    /// A layer that is here, or comes from the shared cache.
    pub(crate) fn find(&self, id: Id, layer: Option<&str>) -> Option<Layer> {
        let pull = || {
            let pulled = self.shared?.pull(self.store, self.steps, id, layer)?;
            self.guard.trust(id);
            Some(pulled)
        };
        self.store.layer(id).or_else(pull)
    }

    fn push(&self, layer: &Layer) {
        if let Some(shared) = self.shared {
            shared.push(layer);
        }
    }
}
