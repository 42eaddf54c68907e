//! Kickstart commands of a layer, executed in its root.

use kiln_sandbox::Call;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Error as ApplyError, ErrorKind as ApplyKind, Settings, apply};
use crate::calls::payload;
use crate::error::{Error, ErrorKind, Result};
use crate::run::{Extras, Place};
use kiln_plan::configure::Change;

pub(crate) const APPLY: &str = "rootfs.apply";

#[derive(Serialize, Deserialize)]
struct Apply {
    changes: Vec<Change>,
    settings: Settings,
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
    let payload = json!(Apply {
        changes: changes.to_vec(),
        settings
    });
    let total = changes.len() as u64;
    let mut message = |value: Value| match value.as_u64() {
        Some(done) => place.reporter.progress(done, Some(total), None),
        None => {
            let said = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            place.reporter.line(kiln_sandbox::Stream::Stdout, &said);
        }
    };
    let (value, _) = place.call(APPLY, payload, Extras::default(), &mut message)?;
    match serde_json::from_value::<Option<ApplyError>>(value) {
        Ok(None) => Ok(()),
        Ok(Some(error)) => Err(failed(error)),
        Err(e) => Err(Error::new(
            ErrorKind::Internal,
            "the executor of commands gave an unknown answer",
        )
        .cause(e.to_string())),
    }
}

pub(crate) fn apply_call(call: Call) -> Result<Value, kiln_sandbox::Error> {
    let Apply { changes, settings } = payload(&call)?;
    for (index, change) in changes.iter().enumerate() {
        if let Err(error) = apply(change, &settings, &mut |line| call.emit(json!(line))) {
            return Ok(json!(error));
        }
        call.emit(json!(index + 1));
    }
    Ok(Value::Null)
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
