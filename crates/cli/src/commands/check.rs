//! `kiln check FILE…`

use std::path::Path;

use kiln_build::Failure;
use kiln_build::web::Web;
use kiln_kickstart::{Diagnostic, Item, Options, Parsed, ScriptKind, Severity, parse};
use serde::Serialize;

use super::Context;
use crate::args::CheckArgs;
use crate::kickstart_files::{FileLoader, read, version, web};
use crate::output;
use crate::render::diagnostic;
use crate::render::style::{Palette, paint};
use crate::render::terminal::write_stderr;
use crate::settings::Verbosity;

/// What was found in one file.
#[derive(Serialize)]
struct Verdict {
    file: String,
    /// Whether the file is fit for an installer; remarks that only Kiln makes do not count.
    ok: bool,
    findings: Vec<Finding>,
    #[serde(skip)]
    rendered: String,
}

/// One finding, with its place spelt out.
#[derive(Serialize)]
struct Finding {
    severity: Severity,
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<Place>,
    help: Vec<String>,
}

/// Lines from 1, columns from 0 in bytes, the end exclusive.
#[derive(Serialize)]
struct Place {
    file: String,
    line: u32,
    start: u32,
    end: u32,
}

/// Checks every file; exit code 1 if one of them is not fit.
pub(crate) fn run(args: &CheckArgs, context: &Context<'_>) -> Result<u8, Failure> {
    let mut options = Options::new(version(args.version.as_deref())?);
    options.follow_includes = args.follow_includes;
    let palette = Palette::new(context.settings.stdout_color);
    let web = web(args.offline, &context.settings);
    let verdicts: Vec<Verdict> = args
        .files
        .iter()
        .map(|file| {
            check(file, args, &options, &web)
                .map(|(name, parsed)| verdict(name, &parsed, &palette))
                .unwrap_or_else(|failure| unreadable(&failure, file, &palette))
        })
        .collect();
    if args.json {
        output::print_json(&verdicts)?;
    } else {
        let findings: String = verdicts
            .iter()
            .map(|verdict| verdict.rendered.as_str())
            .collect();
        output::print(&findings)?;
        if context.settings.verbosity != Verbosity::Quiet {
            summarize(&verdicts, context);
        }
    }
    Ok(u8::from(!verdicts.iter().all(|verdict| verdict.ok)))
}

fn check(
    file: &Path,
    args: &CheckArgs,
    options: &Options,
    web: &Web,
) -> Result<(String, Parsed), Failure> {
    let text = read(file)?;
    let mut loader = FileLoader::new(web, file, &args.include_path)?;
    let mut parsed = parse(&text.name, &text.bytes, options, &mut loader);
    let is_pre = |item: &Item| matches!(item, Item::Script(s) if s.kind == ScriptKind::Pre);
    if parsed.kickstart.items.iter().any(is_pre) {
        parsed.diagnostics.retain(|d| d.code != "include-of-pre");
    }
    Ok((text.name, parsed))
}

fn verdict(file: String, parsed: &Parsed, palette: &Palette) -> Verdict {
    Verdict {
        file,
        ok: !parsed.diagnostics.iter().any(Diagnostic::counts),
        findings: parsed
            .diagnostics
            .iter()
            .map(|found| finding(parsed, found))
            .collect(),
        rendered: diagnostic::render_all(parsed, palette),
    }
}

fn finding(parsed: &Parsed, found: &Diagnostic) -> Finding {
    let place = found.span.map(|span| Place {
        file: parsed.kickstart.file_name(span.file).to_owned(),
        line: span.line,
        start: span.start,
        end: span.end,
    });
    Finding {
        severity: found.severity,
        code: found.code,
        message: found.message.clone(),
        place,
        help: found.help.clone(),
    }
}

/// A file that is not there does not keep the others from being checked.
fn unreadable(failure: &Failure, file: &Path, palette: &Palette) -> Verdict {
    let message = std::iter::once(&failure.message)
        .chain(&failure.causes)
        .cloned()
        .collect::<Vec<_>>()
        .join(": ");
    let rendered = format!("{}: {message}\n", paint(palette.error, "error[unreadable]"));
    let findings = vec![Finding {
        severity: Severity::Error,
        code: "unreadable",
        message,
        place: None,
        help: Vec::new(),
    }];
    Verdict {
        file: file.display().to_string(),
        ok: false,
        findings,
        rendered,
    }
}

fn summarize(verdicts: &[Verdict], context: &Context<'_>) {
    let palette = Palette::new(context.settings.stderr_color);
    for verdict in verdicts {
        let word = if verdict.ok {
            paint(palette.good, "ok")
        } else {
            paint(palette.error, "not ok")
        };
        let of = |severity| {
            verdict
                .findings
                .iter()
                .filter(|finding| finding.severity == severity)
                .count()
        };
        let counts = match (of(Severity::Error), of(Severity::Warning)) {
            (0, 0) => String::new(),
            (errors, warnings) => format!(
                " ({}, {})",
                counted(errors, "error"),
                counted(warnings, "warning")
            ),
        };
        write_stderr(&format!(
            "{}: {word}{counts}\n",
            crate::render::text::sanitize(&verdict.file)
        ));
    }
}

fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
