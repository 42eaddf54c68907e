//! `kiln gcloud-env`

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use kiln_engine::{Failure, FailureKind};
use kiln_server::gcloud::{self, Error, Server, Settings};

use super::Context;
use crate::args::GcloudEnvArgs;
use crate::output;

/// The name of the configuration that is installed.
const NAME: &str = "kiln";

/// Prints or installs what gcloud needs.
pub(crate) fn run(args: &GcloudEnvArgs, context: &Context<'_>) -> Result<u8, Failure> {
    Settings::check_project(&args.project).map_err(|error| failure(&error))?;
    let server = Server::new(&args.server).map_err(|error| failure(&error))?;
    let token = args.token_file.as_deref().map(token).transpose()?;
    let text = server.certificate().map_err(|error| failure(&error))?;
    let certificate = context.settings.config_dir()?.join("gcloud/ca.pem");
    write(&certificate, &text)?;
    let settings = Settings {
        server,
        project: args.project.clone(),
        certificate,
        token,
    };
    if args.install {
        return install(&settings, context);
    }
    let mut lines = String::new();
    for (name, value) in settings.variables() {
        lines.push_str(&format!("{}\n", gcloud::export(&name, &value)));
    }
    if context.settings.gcloud.certificates {
        // They count more than gcloud's own setting, and do not have the server's authority.
        for name in ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"] {
            lines.push_str(&format!("{}\n", gcloud::export(name, "")));
        }
    }
    output::print(&lines)?;
    Ok(0)
}

fn install(settings: &Settings, context: &Context<'_>) -> Result<u8, Failure> {
    let own = &context.settings.gcloud;
    let directory = own.directory.as_deref().ok_or_else(|| {
        let message = "no directory for gcloud: neither CLOUDSDK_CONFIG nor HOME is set";
        Failure::new(FailureKind::Environment, message)
    })?;
    let file = gcloud::configuration_file(directory, NAME);
    write(&file, &settings.configuration())?;
    let say = |verb: &str, text: &str| context.terminal.note(verb, text);
    say("written", &file.display().to_string());
    say(
        "use it",
        &format!("gcloud config configurations activate {NAME}"),
    );
    if own.certificates {
        say(
            "note",
            "REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE is set here and counts more than gcloud's own setting: unset them for gcloud",
        );
    }
    Ok(0)
}

/// The absolute path of a file with a token, which others must not read.
fn token(file: &Path) -> Result<PathBuf, Failure> {
    let shown = file.display();
    let found = file
        .canonicalize()
        .and_then(|path| Ok((path.metadata()?, path)));
    let (metadata, path) = found.map_err(|error| {
        Failure::new(
            FailureKind::Usage,
            format!("the token file {shown} cannot be read"),
        )
        .cause(error.to_string())
    })?;
    if metadata.permissions().mode() & 0o077 != 0 {
        let message = format!("others may read the token file {shown}");
        return Err(Failure::new(FailureKind::Environment, message)
            .hint(format!("close it: chmod 600 {shown}")));
    }
    Ok(path)
}

/// Writes a file of the user's own: whole, or not at all.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let staged = path.with_extension("kiln-new");
    let written = || -> std::io::Result<()> {
        if let Some(directory) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)?;
        }
        let mut file: File = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&staged)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&staged, path)
    };
    written().map_err(|error| {
        let message = format!("{} cannot be written", path.display());
        Failure::new(FailureKind::Environment, message).cause(error.to_string())
    })
}

fn failure(error: &Error) -> Failure {
    match error {
        Error::Server(..) => Failure::new(FailureKind::Environment, error.to_string())
            .hint("start it with `kiln serve`, or name another with --server"),
        _ => Failure::new(FailureKind::Usage, error.to_string()),
    }
}
