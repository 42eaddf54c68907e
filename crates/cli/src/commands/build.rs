//! `kiln build DEF` and `kiln lock DEF`

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kiln_engine::{BuildRequest, Cancel, Event, Failure, FailureKind, Input, LockOptions};

use super::Context;
use crate::args::{BuildArgs, DefinitionArgs, Layout, LockArgs};
use crate::output;
use crate::settings::ProgressStyle;

/// Builds an image and prints the paths of its artifacts.
pub(crate) fn run(args: &BuildArgs, context: &Context<'_>) -> Result<u8, Failure> {
    let mut request = request(&args.definition, context)?;
    request.output.clone_from(&args.output);
    request.input.formats = (!args.format.is_empty()).then(|| args.format.clone());
    request.vendor.clone_from(&args.vendor);
    request.offline = args.offline || args.vendor.is_some();
    request.network = args.network.into();
    request.locked = args.locked;
    request.allow_unsigned_lock = args.allow_unsigned_lock;
    request.plain_unpacking = args.plain_unpacking;
    request.shared = super::shared::resolve(&args.shared, &context.settings)?;
    if let Some(jobs) = args.jobs {
        request.threads = jobs as usize;
    }
    let report = kiln_engine::build(
        &request,
        &|event| context.terminal.event(&event),
        &cancel(context)?,
    )?;
    if context.settings.progress != ProgressStyle::Json {
        let paths: String = report
            .artifacts
            .iter()
            .map(|path| format!("{}\n", path.display()))
            .collect();
        output::print(&paths)?;
    }
    Ok(0)
}

/// Resolves, writes the lock file and prints its path.
pub(crate) fn lock(args: &LockArgs, context: &Context<'_>) -> Result<u8, Failure> {
    let mut request = request(&args.definition, context)?;
    request.offline = args.offline;
    let cancel = cancel(context)?;
    let sink = |event: Event| context.terminal.event(&event);
    let options = LockOptions {
        vendor: args.vendor.clone(),
        keep_metadata: args.keep_metadata,
        manifest: args.manifest.is_some(),
        pins: args.from_manifest.as_deref().map(pins).transpose()?,
    };
    let locked = kiln_engine::lock(&request, &options, &sink, &cancel)?;
    let (path, lock) = (locked.path, locked.lock);
    if let (Some(file), Some(text)) = (&args.manifest, &locked.manifest) {
        write_whole(file, text.as_bytes()).map_err(|error| unwritable(file, &error))?;
    }
    write_whole(&path, lock.text().as_bytes()).map_err(|error| unwritable(&path, &error))?;
    let packages = kiln_engine::counted(lock.packages.len(), "package");
    context
        .terminal
        .note("locked", &format!("{packages} in {}", path.display()));
    if context.settings.progress != ProgressStyle::Json {
        output::print(&format!("{}\n", path.display()))?;
    }
    Ok(0)
}

/// A manifest of dnf's: its name for messages, and its text.
fn pins(file: &Path) -> Result<(String, String), Failure> {
    let name = file.display().to_string();
    match fs::read_to_string(file) {
        Ok(text) => Ok((name, text)),
        Err(error) => {
            let message = format!("{name} cannot be read");
            Err(Failure::new(FailureKind::Definition, message).cause(error.to_string()))
        }
    }
}

/// What the command line adds to a definition.
pub(crate) fn input(args: &DefinitionArgs) -> Input {
    Input {
        distribution: args.distribution.clone(),
        profile: args.profile.clone(),
        layout: args.layout.map(|layout| match layout {
            Layout::Gpt => "gpt".to_owned(),
            Layout::Mbr => "mbr".to_owned(),
        }),
        ..Input::default()
    }
}

fn request(args: &DefinitionArgs, context: &Context<'_>) -> Result<BuildRequest, Failure> {
    let settings = &context.settings;
    Ok(BuildRequest {
        files: settings.files(&args.include_path),
        definition: args.definition.clone(),
        input: input(args),
        output: PathBuf::from("output"),
        cache: settings.cache_dir()?.to_path_buf(),
        state: settings.state_dir().ok().map(Path::to_path_buf),
        offline: false,
        network: kiln_engine::Reach::default(),
        locked: false,
        allow_unsigned_lock: false,
        proxies: settings.proxies(),
        from_elsewhere: settings.from_elsewhere,
        epoch: settings.source_date_epoch()?,
        threads: settings.processors,
        vendor: None,
        shared: None,
        plain_unpacking: false,
        families: kiln_engine::Families::default(),
    })
}

fn cancel(context: &Context<'_>) -> Result<Cancel, Failure> {
    let cancel = Cancel::new().map_err(|error| {
        Failure::new(FailureKind::Environment, "no file descriptor is left")
            .cause(error.to_string())
    })?;
    let switch = cancel.clone();
    context.interrupt.on_signal(move || switch.cancel())?;
    Ok(cancel)
}

/// Writes beside the target and renames, so that no half-written file is ever seen.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut part = tempfile::Builder::new();
    // As `fs::write` would make it: what the user's mask leaves of this.
    part.prefix(".kiln-")
        .permissions(fs::Permissions::from_mode(0o666));
    let mut part = part.tempfile_in(path.parent().unwrap_or(Path::new("")))?;
    part.write_all(bytes)?;
    part.persist(path)?;
    Ok(())
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        FailureKind::Environment,
        format!("{} cannot be written", path.display()),
    )
    .cause(error.to_string())
}
