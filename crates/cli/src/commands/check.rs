//! `kiln check FILE…`

use std::path::{Path, PathBuf};

use kiln_engine::web::Web;
use kiln_engine::{Failure, FailureKind, Files, Input};
use kiln_kickstart::{Diagnostic, Item, Options, Parsed, ScriptKind, Severity, parse};
use kiln_plan::Problem;
use serde::Serialize;

use super::Context;
use crate::args::CheckArgs;
use crate::kickstart_files::{FileLoader, plain, read, version, web};
use crate::output;
use crate::render::diagnostic;
use crate::render::style::{Palette, paint};
use crate::render::terminal::write_stderr;
use crate::settings::{Settings, Verbosity};

/// What was found in one file.
#[derive(Serialize)]
struct Verdict {
    file: String,
    /// Whether the file is fit for an installer; remarks that only Kiln makes do not count.
    ok: bool,
    /// Whether warnings of the installer's own reader count against it.
    #[serde(skip)]
    strict: bool,
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
    place: Option<Location>,
    help: Vec<String>,
}

/// Lines from 1, columns from 0 in bytes, the end exclusive.
#[derive(Serialize)]
struct Location {
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
    let files = context.settings.files(&args.include_path);
    let mut verdicts = Vec::new();
    for file in &args.files {
        let checked = match kind(file) {
            Kind::Definition => {
                definition(file, &files, &web, &context.settings).map(|one| vec![one])
            }
            Kind::Directory => kickstarts_in(file).map(|all| {
                let one = |file: &PathBuf| kickstart(file, &files, &options, &web, &palette);
                all.iter().map(one).collect()
            }),
            Kind::Kickstart => Ok(vec![kickstart(file, &files, &options, &web, &palette)]),
        };
        let of_file = checked.unwrap_or_else(|failure| vec![unreadable(&failure, file, &palette)]);
        verdicts.extend(of_file);
    }
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

/// What a path on the command line is.
enum Kind {
    Kickstart,
    /// A `kiln.toml`, or a directory with one.
    Definition,
    /// A directory with kickstart files.
    Directory,
}

fn kind(file: &Path) -> Kind {
    if file.extension().is_some_and(|e| e == "toml") || file.join("kiln.toml").exists() {
        return Kind::Definition;
    }
    match file.is_dir() {
        true => Kind::Directory,
        false => Kind::Kickstart,
    }
}

/// The kickstart files in a directory, by name.
fn kickstarts_in(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let wrong = |why: String| {
        let message = format!("{} cannot be checked", directory.display());
        Failure::new(FailureKind::Definition, message).cause(why)
    };
    let entries = directory.read_dir().map_err(|e| wrong(plain(&e)))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "ks"))
        .collect();
    files.sort();
    match files.is_empty() {
        true => Err(wrong(
            "it has neither a kiln.toml nor a file called *.ks".to_owned(),
        )),
        false => Ok(files),
    }
}

/// What is to be said about a definition as a whole: its layers, read in the language of its distribution, and what
/// becomes of their commands.
fn definition(
    file: &Path,
    files: &Files,
    web: &Web,
    settings: &Settings,
) -> Result<Verdict, Failure> {
    let palette = Palette::new(settings.stdout_color);
    let problems = kiln_engine::examine(files, file, &Input::default(), web.clone())?;
    Ok(Verdict {
        file: file.display().to_string(),
        ok: problems.iter().all(|p| p.severity != Severity::Error),
        strict: false,
        rendered: problems
            .iter()
            .map(|p| diagnostic::problem(p, &palette) + "\n")
            .collect(),
        findings: problems.into_iter().map(of_definition).collect(),
    })
}

fn of_definition(problem: Problem) -> Finding {
    let place = problem.origin.map(|origin| {
        let (file, line) = origin.rsplit_once(':').unwrap_or((&origin, ""));
        let line = line.parse();
        Location {
            file: if line.is_ok() { file } else { &origin }.to_owned(),
            line: line.unwrap_or(1),
            start: 0,
            end: 0,
        }
    });
    Finding {
        severity: problem.severity,
        code: "definition",
        message: problem.message,
        place,
        help: problem.hints,
    }
}

fn kickstart(
    file: &Path,
    files: &Files,
    options: &Options,
    web: &Web,
    palette: &Palette,
) -> Verdict {
    match parsed(file, files, options, web) {
        Ok((name, parsed)) => verdict(name, &parsed, palette),
        Err(failure) => unreadable(&failure, file, palette),
    }
}

fn parsed(
    file: &Path,
    files: &Files,
    options: &Options,
    web: &Web,
) -> Result<(String, Parsed), Failure> {
    let text = read(file, files)?;
    let mut loader = FileLoader::new(web, file, files)?;
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
        strict: true,
        findings: parsed
            .diagnostics
            .iter()
            .map(|found| finding(parsed, found))
            .collect(),
        rendered: diagnostic::render_all(parsed, palette),
    }
}

fn finding(parsed: &Parsed, found: &Diagnostic) -> Finding {
    let place = found.span.map(|span| Location {
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
        strict: false,
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
            (0, warnings) if verdict.strict && !verdict.ok => format!(
                " ({}: the installer's own validator refuses a file for {})",
                counted(warnings, "warning"),
                if warnings == 1 { "it" } else { "one of them" }
            ),
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
