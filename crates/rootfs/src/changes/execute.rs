//! Kickstart commands of a layer, executed in its root.

use kiln_sandbox::{Call, Say};
use serde::{Deserialize, Serialize};

use super::{Error as ApplyError, ErrorKind as ApplyKind, Settings, apply};
use crate::error::{Error, ErrorKind, Result};
use crate::run::{Extras, Place};
use kiln_plan::configure::Change;

/// Executes changes until one fails.
#[derive(Serialize, Deserialize)]
pub(crate) struct Apply {
    changes: Vec<Change>,
    settings: Settings,
}

/// What is said on the way.
#[derive(Serialize, Deserialize)]
pub(crate) enum Said {
    /// How many changes are made.
    Done(u64),
    /// What a program printed.
    Line(String),
}

/// Executes changes in order.
///
/// # Errors
/// The first change that fails, with its `file:line`, and the program that failed in it.
pub fn execute(place: &Place<'_>, changes: &[Change]) -> Result<()> {
    let settings = Settings {
        epoch: Some(place.epoch),
    };
    // The payload goes through a pipe, never through argv: passwords' hashes are in it.
    let apply = Apply {
        changes: changes.to_vec(),
        settings,
    };
    let total = changes.len() as u64;
    let mut hear = |said| match said {
        Said::Done(done) => place.reporter.progress(done, Some(total), None),
        Said::Line(line) => place.reporter.line(kiln_sandbox::Stream::Stdout, &line),
    };
    let (answer, _) = place.call_and_hear(&apply, (), Extras::default(), &mut hear)?;
    answer.map_or(Ok(()), |error| Err(failed(error)))
}

impl Call for Apply {
    const NAME: &'static str = "rootfs.apply";
    type Handed = ();
    type Message = Said;
    type Answer = Option<ApplyError>;

    fn run(self, (): (), say: &Say<Said>) -> Result<Option<ApplyError>, kiln_sandbox::Error> {
        let mut line = |line: &str| say.say(Said::Line(line.to_owned()));
        for (done, change) in (1..).zip(&self.changes) {
            if let Err(error) = apply(change, &self.settings, &mut line) {
                return Ok(Some(*error));
            }
            say.say(Said::Done(done));
        }
        Ok(None)
    }
}

fn failed(error: ApplyError) -> Error {
    let kind = match error.kind {
        ApplyKind::Definition => ErrorKind::Definition,
        ApplyKind::Step => ErrorKind::Step,
        ApplyKind::Internal => ErrorKind::Internal,
    };
    let mut made =
        Error::new(kind, format!("`{}`: {}", error.command, error.message)).at(error.origin);
    made.causes.push(format!("while {}", error.doing));
    made.hints.extend(error.hint);
    if let Some(program) = error.program {
        made.status = Some(match (program.code, program.signal) {
            (Some(code), _) => format!("exit status {code}"),
            (_, Some(signal)) => crate::describe(kiln_sandbox::Status::Signaled(signal)),
            _ => "could not be run".to_owned(),
        });
        made.command = Some(program.argv);
        made.tail = program.tail;
    }
    made
}
