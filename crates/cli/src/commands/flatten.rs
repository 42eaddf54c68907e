//! `kiln flatten FILE`

use kiln_engine::{Failure, FailureKind};
use kiln_kickstart::{Options, Severity, flatten, parse};

use super::Context;
use crate::args::FlattenArgs;
use crate::kickstart_files::{FileLoader, read, version, web};
use crate::output;
use crate::render::diagnostic;
use crate::render::style::Palette;
use crate::render::terminal::write_stderr;

/// Prints a kickstart in canonical order, or what keeps it from being read.
pub(crate) fn run(args: &FlattenArgs, context: &Context<'_>) -> Result<u8, Failure> {
    let version = version(args.version.as_deref())?;
    let files = context.settings.files(&args.include_path);
    let text = read(&args.file, &files)?;
    let parsed = parse(
        &text.name,
        &text.bytes,
        &Options::new(version),
        &mut FileLoader::new(&web(args.offline, &context.settings), &args.file, &files)?,
    );
    write_stderr(&diagnostic::render_all(
        &parsed,
        &Palette::new(context.settings.stderr_color),
    ));
    let errors = parsed
        .diagnostics
        .iter()
        .filter(|found| found.severity == Severity::Error)
        .count();
    if errors > 0 {
        let message = format!(
            "{} cannot be flattened: it has {errors} error{}",
            text.name,
            if errors == 1 { "" } else { "s" }
        );
        return Err(Failure::new(FailureKind::Definition, message));
    }
    output::print(&flatten(&parsed, version))?;
    Ok(0)
}
