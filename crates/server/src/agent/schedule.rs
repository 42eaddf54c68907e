//! Runs steps in their order, those that wait for nothing beside each other.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use super::container::Job;
use super::events::Events;
use super::step::{self, End, Means, Stop};
use crate::executor::request::{StepRequest, What};
use crate::wire::model::Status;

/// How the steps went.
#[derive(Debug)]
pub(super) enum Verdict {
    /// All well, or allowed to fail.
    Done,
    /// They were stopped.
    Stopped(Stop),
    /// One failed: the sentence.
    Failed(String),
}

/// Runs all steps.
pub(super) fn run(
    steps: &[StepRequest],
    means: &Means<'_>,
    events: &Events,
    stop: &(dyn Fn() -> Option<Stop> + Sync),
) -> io::Result<Verdict> {
    let failed = AtomicBool::new(false);
    let halt = || {
        let other = failed.load(Ordering::SeqCst).then_some(Stop::Cancelled);
        stop().or(other)
    };
    let (sender, ends) = mpsc::channel();
    thread::scope(|scope| {
        let mut left: Vec<usize> = (0..steps.len()).collect();
        let mut done = vec![false; steps.len()];
        let mut running = 0;
        let mut verdict = Verdict::Done;
        loop {
            if matches!(verdict, Verdict::Done)
                && let Some(why) = stop()
            {
                verdict = Verdict::Stopped(why);
            }
            let goes_on = matches!(verdict, Verdict::Done);
            let ready = |at: &usize| goes_on && steps[*at].after.iter().all(|step| done[*step]);
            let (now, later) = left.into_iter().partition::<Vec<_>, _>(ready);
            left = later;
            for at in now {
                running += 1;
                let (sender, halt) = (sender.clone(), &halt);
                scope.spawn(move || {
                    let result = one(steps, at, means, events, halt);
                    // The receiver is there until all steps have ended.
                    drop(sender.send((at, result)));
                });
            }
            if running == 0 {
                return Ok(verdict);
            }
            let (at, result) = ends.recv().map_err(io::Error::other)?;
            running -= 1;
            let end = match result {
                Ok(end) => end,
                Err(error) => {
                    failed.store(true, Ordering::SeqCst);
                    return Err(error);
                }
            };
            match judge(&steps[at], at, &end) {
                Judgement::Good => done[at] = true,
                Judgement::Stopped(why) if matches!(verdict, Verdict::Done) => {
                    verdict = Verdict::Stopped(why);
                    failed.store(true, Ordering::SeqCst);
                }
                Judgement::Bad(detail) if matches!(verdict, Verdict::Done) => {
                    means.log.line(&format!("ERROR: {detail}"))?;
                    verdict = Verdict::Failed(detail);
                    failed.store(true, Ordering::SeqCst);
                }
                Judgement::Stopped(_) | Judgement::Bad(_) => {}
            }
        }
    })
}

enum Judgement {
    Good,
    Stopped(Stop),
    Bad(String),
}

fn judge(step: &StepRequest, at: usize, end: &End) -> Judgement {
    let bad = |what: String| {
        if step.allow_failure {
            Judgement::Good
        } else {
            Judgement::Bad(format!("build step {at} \"{}\" failed: {what}", step.image))
        }
    };
    match end {
        End::Exited(0) => Judgement::Good,
        End::Exited(code) if step.allow_exit_codes.contains(code) => Judgement::Good,
        End::Exited(code) => bad(format!("step exited with non-zero status: {code}")),
        End::Killed(9) => {
            bad("step was killed (signal 9), as happens where memory runs out".to_owned())
        }
        End::Killed(signal) => bad(format!("step was ended by signal {signal}")),
        End::Failed(why) => bad(why.clone()),
        End::Stopped(Stop::TimedOut) if step.allow_failure && step.timeout.is_some() => {
            Judgement::Good
        }
        End::Stopped(why) => Judgement::Stopped(*why),
    }
}

fn one(
    steps: &[StepRequest],
    at: usize,
    means: &Means<'_>,
    events: &Events,
    halt: &dyn Fn() -> Option<Stop>,
) -> io::Result<End> {
    let step = &steps[at];
    let name = match &step.id {
        Some(id) => format!("Step #{at} - \"{id}\""),
        None => format!("Step #{at}"),
    };
    let several = steps.len() > 1;
    let prefix = if several {
        format!("{name}: ")
    } else {
        String::new()
    };
    events.write(What::StepBegan { step: at })?;
    if several {
        means.log.line(&format!("Starting {name}"))?;
    }
    let end = match &step.container {
        None => step::run(step, at, &prefix, means, halt),
        Some(container) => {
            let job = Job {
                step,
                container,
                number: at,
                prefix: &prefix,
                means,
                events,
            };
            job.run(halt)
        }
    };
    let (status, exit_code) = match &end {
        End::Exited(0) => (Status::Success, Some(0)),
        End::Exited(code) => (Status::Failure, Some(*code)),
        End::Killed(signal) => (Status::Failure, Some(128 + signal)),
        End::Stopped(Stop::TimedOut) => (Status::Timeout, None),
        End::Stopped(Stop::Cancelled) => (Status::Cancelled, None),
        End::Failed(why) => {
            means.log.line(&format!("{prefix}{why}"))?;
            (Status::Failure, None)
        }
    };
    if several {
        means.log.line(&format!("Finished {name}"))?;
    }
    events.write(What::StepEnded {
        step: at,
        status,
        exit_code,
    })?;
    Ok(end)
}
