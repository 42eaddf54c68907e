//! `kiln login URL`: keeps a server's address, and a token for it, so that no command line has to hold them.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use kiln_client::builds::Builds;
use kiln_client::connection::Connection;
use kiln_engine::{Failure, FailureKind};

use super::{LONGEST_TOKEN, Login, failure, login_file};
use crate::args::client::LoginArgs;
use crate::commands::Context;

/// Asks the server whether it takes the token, and keeps both.
pub(crate) fn run(args: &LoginArgs, context: &Context<'_>) -> Result<u8, Failure> {
    let token = match &args.token_file {
        Some(file) => super::token(file)?,
        None => typed(context)?,
    };
    let connection = Connection::new(&args.server, (!token.is_empty()).then(|| token.clone()))
        .map_err(failure)?;
    let builds = Builds {
        connection,
        project: args.project.clone(),
    };
    builds.list(1, "").map_err(failure)?;
    let file = login_file(context)?;
    let place = file.with_file_name("server-token");
    let kept = (!token.is_empty()).then(|| place.clone());
    let login = Login {
        server: Some(builds.connection.base().to_owned()),
        project: Some(args.project.clone()),
        token_file: kept.clone(),
    };
    let text = toml::to_string(&login).map_err(|error| {
        Failure::new(FailureKind::Internal, "the login could not be written down")
            .cause(error.to_string())
    })?;
    let written = match &kept {
        Some(_) => write(&place, &format!("{token}\n")),
        None => match fs::remove_file(&place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
    };
    written
        .and_then(|()| write(&file, &text))
        .map_err(|error| {
            let message = format!("{} cannot be written", file.display());
            Failure::new(FailureKind::Environment, message).cause(error.to_string())
        })?;
    context.terminal.note(
        "using",
        &format!("{} from now on", builds.connection.base()),
    );
    Ok(0)
}

/// The token from standard input; an empty line is none.
fn typed(context: &Context<'_>) -> Result<String, Failure> {
    context.terminal.note(
        "token",
        "is read from standard input; nothing if the server is open to this machine",
    );
    let mut text = String::new();
    let mut stdin = io::stdin();
    let read = match rustix::termios::isatty(&stdin) {
        true => hidden(&stdin, &mut text),
        false => stdin
            .by_ref()
            .take(LONGEST_TOKEN)
            .read_to_string(&mut text)
            .map(drop),
    };
    read.map_err(|error| {
        Failure::new(FailureKind::Environment, "the token cannot be read").cause(error.to_string())
    })?;
    Ok(text.trim().to_owned())
}

/// A line that is not shown while it is typed.
fn hidden(stdin: &io::Stdin, text: &mut String) -> io::Result<()> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let before = tcgetattr(stdin)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(stdin, OptionalActions::Flush, &silent)?;
    let read = stdin.read_line(text);
    tcsetattr(stdin, OptionalActions::Flush, &before)?;
    read.map(drop)
}

/// Writes a file of the user's own: whole, or not at all.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let staged = path.with_extension("kiln-new");
    if let Some(directory) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
    }
    match fs::remove_file(&staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&staged)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&staged, path)
}
