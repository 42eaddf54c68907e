//! The commands that speak with a build server. The protocol is `kiln-client`'s; here are settings, text and exit codes.

mod artifacts;
mod builds;
mod follow;
mod local;
mod login;
mod submit;
mod task;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kiln_client::builds::Builds;
use kiln_client::connection::Connection;
use kiln_client::{Error, Kind};
use kiln_engine::{Failure, FailureKind};
use serde::{Deserialize, Serialize};

use super::Context;
use crate::args::client::RemoteArgs;

pub(crate) use artifacts::run as artifacts;
pub(crate) use builds::{cancel, list, retry};
pub(crate) use follow::run as logs;
pub(crate) use login::run as login;
pub(crate) use submit::run as submit;

const DEFAULT_SERVER: &str = "http://127.0.0.1:8470";
const DEFAULT_PROJECT: &str = "kiln-local";
/// Bytes of a file with a token at most.
const LONGEST_TOKEN: u64 = 4096;

/// What `kiln login` keeps in `server.toml` of the configuration.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Login {
    server: Option<String>,
    project: Option<String>,
    token_file: Option<PathBuf>,
}

fn login_file(context: &Context<'_>) -> Result<PathBuf, Failure> {
    Ok(context.settings.config_dir()?.join("server.toml"))
}

/// Reads what `kiln login` kept; nothing if there was none.
fn read_login(context: &Context<'_>) -> Result<Login, Failure> {
    let Ok(path) = login_file(context) else {
        return Ok(Login::default());
    };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Login::default()),
        Err(error) => {
            let message = format!("{} cannot be read", path.display());
            return Err(Failure::new(FailureKind::Environment, message).cause(error.to_string()));
        }
    };
    toml::from_str(&text).map_err(|error| {
        let message = format!("{} cannot be understood", path.display());
        Failure::new(FailureKind::Usage, message)
            .cause(error.message().to_owned())
            .hint("write it anew with `kiln login URL`")
    })
}

/// Settles which server is asked, and as who.
fn connect(args: &RemoteArgs, context: &Context<'_>) -> Result<Builds, Failure> {
    let said = &context.settings.remote;
    let login = read_login(context)?;
    let server = args
        .server
        .as_ref()
        .or(said.server.as_ref())
        .or(login.server.as_ref())
        .map_or(DEFAULT_SERVER, String::as_str);
    let is_known = login
        .server
        .as_deref()
        .is_some_and(|known| same(known, server));
    // What `kiln login` keeps is for its own server: another one is not shown the token.
    let kept = login.token_file.as_ref().filter(|_| is_known);
    let token = match (&args.token_file, &said.token.0, &said.token_file) {
        (Some(file), ..) => Some(token(file)?),
        (None, Some(text), _) => Some(text.clone()),
        (None, None, Some(file)) => Some(token(file)?),
        (None, None, None) => kept.map(|file| token(file)).transpose()?,
    };
    let project = args
        .project
        .clone()
        .or(login.project.filter(|_| is_known))
        .unwrap_or_else(|| DEFAULT_PROJECT.to_owned());
    let connection = Connection::new(server, token).map_err(failure)?;
    if connection.is_bare() {
        let text = format!(
            "the token goes to {server} without TLS, readable for whoever listens on the way; use https:// or an SSH tunnel"
        );
        context.terminal.event(&kiln_engine::Event::Warning {
            step: None,
            message: text,
            origin: None,
            hint: None,
        });
    }
    Ok(Builds {
        connection,
        project,
    })
}

fn same(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

/// Reads a token from a file that others must not read.
fn token(file: &Path) -> Result<String, Failure> {
    let shown = file.display();
    let wrong = |error: std::io::Error| {
        Failure::new(
            FailureKind::Usage,
            format!("the token file {shown} cannot be read"),
        )
        .cause(error.to_string())
    };
    let opened = File::open(file).map_err(wrong)?;
    let metadata = opened.metadata().map_err(wrong)?;
    if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
        let message = format!("others may read the token file {shown}");
        return Err(Failure::new(FailureKind::Environment, message)
            .hint(format!("close it: chmod 600 {shown}")));
    }
    let mut text = String::new();
    opened
        .take(LONGEST_TOKEN)
        .read_to_string(&mut text)
        .map_err(wrong)?;
    Ok(text.trim().to_owned())
}

/// A failure of the client as one of the command.
fn failure(error: Error) -> Failure {
    let kind = match error.kind {
        Kind::Input => FailureKind::Definition,
        Kind::Usage => FailureKind::Usage,
        Kind::Environment | Kind::Unreachable => FailureKind::Environment,
    };
    let mut failure = Failure::new(kind, error.message);
    failure.origin = error.place;
    failure.causes.extend(error.cause);
    failure.hints.extend(error.hint);
    failure
}

/// The page of a build.
fn page(builds: &Builds, id: &str) -> String {
    format!("{}/builds/{id}", builds.connection.base())
}
