//! `kiln secret`: the values that a server has for its builds. No option takes one: other users see command lines.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use kiln_engine::{Failure, FailureKind};
use kiln_server::secrets::{Error, LONGEST, Secrets};

use super::Context;
use super::serve::{data, note};
use crate::args::secret::{SecretArgs, SecretCommand};
use crate::output;

/// Keeps, lists and removes secrets.
pub(crate) fn run(args: &SecretArgs, context: &Context<'_>) -> Result<u8, Failure> {
    let data = data(args.data.as_ref(), context)?;
    let store = kiln_server::open_store(&data).map_err(|error| super::serve::failure(&error))?;
    let secrets = Secrets::of(&data);
    match &args.command {
        SecretCommand::Create { name, from } => {
            let value = value(from.as_deref())?;
            secrets.create(name, &value).map_err(failure)?;
            note(&store, &format!("secret create {name}"))?;
        }
        SecretCommand::Add { name, from } => {
            let value = value(from.as_deref())?;
            let version = secrets.add(name, &value).map_err(failure)?;
            note(&store, &format!("secret add {name} {version}"))?;
            output::print(&format!("{version}\n"))?;
        }
        SecretCommand::List { json } => {
            let all = secrets.list().map_err(failure)?;
            if *json {
                output::print_json(&all)?;
            } else {
                let line = |secret: &kiln_server::secrets::Secret| {
                    let newest = secret.versions.last().map(ToString::to_string);
                    format!("{}  {}\n", secret.name, newest.as_deref().unwrap_or("-"))
                };
                output::print(&all.iter().map(line).collect::<String>())?;
            }
        }
        SecretCommand::Delete { name } => {
            secrets.delete(name).map_err(failure)?;
            note(&store, &format!("secret delete {name}"))?;
        }
    }
    Ok(0)
}

/// What a file or standard input says; a byte more than may be tells that it is too long.
fn value(from: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let most = LONGEST as u64 + 1;
    let mut value = Vec::new();
    let read = match from {
        Some(path) => File::open(path).and_then(|file| file.take(most).read_to_end(&mut value)),
        None => io::stdin().lock().take(most).read_to_end(&mut value),
    };
    read.map_err(|error| {
        let place = from.map_or("standard input".into(), Path::to_string_lossy);
        let message = format!("the value in {place} cannot be read");
        Failure::new(FailureKind::Environment, message).cause(error.to_string())
    })?;
    Ok(value)
}

fn failure(error: Error) -> Failure {
    let hint = match &error {
        Error::Taken(name) => Some(format!(
            "`kiln secret add {name}` keeps another version of it"
        )),
        Error::Missing(_) => {
            Some("`kiln secret list` shows them; `kiln secret create` makes one".to_owned())
        }
        Error::Files(..) => {
            Some("the command runs as the user who owns the server's data".to_owned())
        }
        Error::Name(_) | Error::Value(_) => None,
    };
    let kind = match error {
        Error::Files(..) => FailureKind::Environment,
        _ => FailureKind::Usage,
    };
    let failure = Failure::new(kind, error.to_string());
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
