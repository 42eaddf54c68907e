//! `kiln doctor`

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use kiln_engine::{Failure, FailureKind};
use kiln_sandbox::{Check, Needs, Verdict, checks};
use kiln_vm::Tools;
use serde::Serialize;

use super::Context;
use crate::args::DoctorArgs;
use crate::output;
use crate::render::style::{Palette, paint};
use crate::render::text::sanitize;

/// Free bytes that a desktop build wants for downloads, layers and the image.
const SPACE: u64 = 16 << 30;
/// Memory that a desktop build wants.
const MEMORY: u64 = 2 << 30;

#[derive(Serialize)]
struct Report<'a> {
    /// Whether builds can run.
    ok: bool,
    directories: Directories<'a>,
    checks: &'a [Check],
}

#[derive(Serialize)]
struct Directories<'a> {
    cache: &'a Path,
    state: &'a Path,
    config: &'a Path,
}

/// Prints what this machine offers to builds; exit code 3 if they cannot run.
pub(crate) fn run(args: &DoctorArgs, context: &Context<'_>) -> Result<u8, Failure> {
    let settings = &context.settings;
    let directories = Directories {
        cache: settings.cache_dir()?,
        state: settings.state_dir()?,
        config: settings.config_dir()?,
    };
    let needs = Needs {
        store: directories.cache,
        space: &[(directories.cache, SPACE)],
        memory_bytes: MEMORY,
    };
    let mut found = checks(&needs, None);
    found.extend(closed("cache", directories.cache, "--cache-dir"));
    found.extend(closed("state", directories.state, "--state-dir"));
    found.extend(machines(context));
    let ok = found.iter().all(|check| check.verdict != Verdict::Fail);
    if args.json {
        output::print_json(&Report {
            ok,
            directories,
            checks: &found,
        })?;
    } else {
        output::print(&render(
            &found,
            &directories,
            &Palette::new(settings.stdout_color),
        ))?;
    }
    Ok(if ok {
        0
    } else {
        FailureKind::Environment.exit_code()
    })
}

/// Whether a directory that is there is its user's alone. Builds refuse one of somebody else, and close one that is open.
fn closed(name: &'static str, path: &Path, option: &str) -> Option<Check> {
    let found = path.metadata().ok()?;
    let (owner, mode) = (found.uid(), found.mode() & 0o7777);
    let (verdict, detail, fix) = if owner != rustix::process::geteuid().as_raw() {
        let detail = format!("{} belongs to user {owner}", path.display());
        let fix = format!("choose another directory with {option} DIR");
        (Verdict::Fail, detail, Some(fix))
    } else if mode & 0o077 != 0 {
        let detail = format!("other users may enter {} (mode {mode:04o})", path.display());
        let fix = format!("`chmod 700 {}`; the next build does it", path.display());
        (Verdict::Warn, detail, Some(fix))
    } else {
        let detail = format!("{} is closed to other users", path.display());
        (Verdict::Ok, detail, None)
    };
    Some(Check {
        name,
        verdict,
        detail,
        fix,
    })
}

/// What only `kiln boot` and `kiln test` need: its lack is no failure.
fn machines(context: &Context<'_>) -> Vec<Check> {
    let check = |name, verdict, detail: String, fix: Option<String>| Check {
        name,
        verdict,
        detail,
        fix,
    };
    let tools = match Tools::find(&context.settings.path) {
        Ok(tools) => tools,
        Err(error) => {
            let fix = error.hint_text().map(str::to_owned);
            return vec![check(
                "qemu",
                Verdict::Warn,
                format!("{error}; `kiln boot` and `kiln test` need it"),
                fix,
            )];
        }
    };
    let firmware = |name, found: bool, what: &str| match found {
        true => check(
            name,
            Verdict::Ok,
            format!("firmware for {what} is there"),
            None,
        ),
        false => {
            let fix = "install OVMF: `apt-get install ovmf` or `dnf install edk2-ovmf`".to_owned();
            check(
                name,
                Verdict::Warn,
                format!("no firmware for {what} is installed"),
                Some(fix),
            )
        }
    };
    vec![
        check("qemu", Verdict::Ok, tools.qemu.display().to_string(), None),
        firmware("uefi", tools.uefi.is_some(), "UEFI machines"),
        firmware(
            "secure-boot",
            tools.secure.is_some(),
            "machines with Secure Boot",
        ),
    ]
}

fn render(checks: &[Check], directories: &Directories<'_>, palette: &Palette) -> String {
    let width = checks
        .iter()
        .map(|check| check.name.len())
        .max()
        .unwrap_or(0);
    let mut out = String::new();
    for Check {
        name,
        verdict,
        detail,
        fix,
    } in checks
    {
        let word = match verdict {
            Verdict::Ok => paint(palette.good, "ok  "),
            Verdict::Warn => paint(palette.warning, "warn"),
            Verdict::Fail => paint(palette.error, "FAIL"),
        };
        out.push_str(&format!("{word}  {name:<width$}  {}\n", sanitize(detail)));
        if let Some(fix) = fix {
            let indent = " ".repeat(width + 8);
            out.push_str(&format!(
                "{indent}{} {}\n",
                paint(palette.note, "fix:"),
                sanitize(fix)
            ));
        }
    }
    for (name, path) in [
        ("cache", directories.cache),
        ("state", directories.state),
        ("config", directories.config),
    ] {
        out.push_str(&format!(
            "      {name:<width$}  {}\n",
            sanitize(&path.to_string_lossy())
        ));
    }
    out
}
