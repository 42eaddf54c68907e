//! `kiln plan DEF`

use std::fmt::Write;
use std::path::PathBuf;

use kiln_engine::{Event, Failure, FailureKind};
use kiln_plan::configure::{Level, Notice};
use kiln_plan::{Plan, Problem, RpmRepository, RpmSource};
use serde::Serialize;

use super::Context;
use super::build::input;
use crate::args::PlanArgs;
use crate::output;
use crate::render::text::{bytes, sanitize};
use lines::{LayerLines, Line};

mod lines;

/// The plan as programs read it: what is decided, and what becomes of every line.
#[derive(Serialize)]
struct Shown<'a> {
    id: String,
    #[serde(flatten)]
    plan: &'a Plan,
    /// Directories beside the definition's own that it may read.
    include_path: &'a [PathBuf],
    /// Scripts that run before the definition is read for good.
    first: Vec<Line>,
    work: Vec<LayerLines>,
    /// Scripts that run when the build fails.
    on_failure: Vec<Line>,
}

/// Prints what a build would do.
pub(crate) fn run(args: &PlanArgs, context: &Context<'_>) -> Result<u8, Failure> {
    let planned = kiln_engine::plan(
        &context.settings.files(&args.definition.include_path),
        &args.definition.definition,
        &input(&args.definition),
    )?;
    let lowered = &planned.lowered;
    lowered
        .problems
        .iter()
        .for_each(|problem| context.terminal.event(&warning(problem)));
    let Some(plan) = &lowered.plan else {
        return Err(Failure::new(
            FailureKind::Internal,
            "a definition without errors has no plan",
        ));
    };
    let layers = plan.layers.iter();
    let shown = Shown {
        id: plan.id().to_string(),
        plan,
        include_path: &planned.include_path,
        first: lowered.pre_scripts.iter().map(lines::script).collect(),
        work: layers
            .map(|layer| lines::of_layer(layer, &plan.target))
            .collect(),
        on_failure: lowered.other_scripts.iter().map(lines::script).collect(),
    };
    if args.json {
        output::print_json(&shown)?;
    } else {
        output::print(&describe(&shown))?;
    }
    Ok(0)
}

fn warning(problem: &Problem) -> Event {
    Event::Warning {
        step: None,
        message: problem.message.clone(),
        origin: problem.origin.clone(),
        hint: problem.hints.first().cloned(),
    }
}

/// Adds a line; whatever a kickstart brought in is made harmless.
fn line(out: &mut String, depth: usize, text: &str) {
    let _ = writeln!(out, "{:1$}{2}", "", depth * 2, sanitize(text));
}

fn describe(shown: &Shown<'_>) -> String {
    let mut out = String::new();
    let plan = shown.plan;
    let target = &plan.target;
    line(
        &mut out,
        0,
        &format!(
            "{} for {}:{} on {}",
            plan.name, target.distribution, target.release, target.architecture
        ),
    );
    line(&mut out, 0, &format!("plan {}", shown.id));
    if target.processor_level() > 1 {
        let level = target.processor_level();
        let needs = format!(
            "its programs run on processors of x86-64-v{level} and newer only; this machine's is x86-64-v{}",
            kiln_sandbox::processor_level()
        );
        line(&mut out, 0, &needs);
    }
    for directory in shown.include_path {
        let directory = format!("it may also read files in {}", directory.display());
        line(&mut out, 0, &directory);
    }
    repositories(&mut out, plan);
    if !plan.system.packages.is_empty() {
        line(&mut out, 0, "Kiln adds:");
    }
    for added in &plan.system.packages {
        line(&mut out, 1, &format!("{}: {}", added.package, added.why));
    }
    for absent in &plan.system.absent {
        line(
            &mut out,
            1,
            &format!("not {}: {}", absent.package, absent.why),
        );
    }
    table(&mut out, "first:", &shown.first);
    for (number, layer) in shown.work.iter().enumerate() {
        let title = format!("layer {}, {}:", number + 1, layer.layer);
        table(&mut out, &title, &layer.lines);
    }
    table(&mut out, "if it fails:", &shown.on_failure);
    boot_and_disk(&mut out, plan);
    out
}

/// Three columns under a headline: where it stands, what it is, what becomes of it.
fn table(out: &mut String, title: &str, rows: &[Line]) {
    if rows.is_empty() {
        return;
    }
    line(out, 0, title);
    let width = |column: fn(&Line) -> &str| {
        let widths = rows.iter().map(|row| column(row).chars().count());
        widths.max().unwrap_or(0)
    };
    let (places, names) = (width(|r| &r.origin), width(|r| &r.what));
    for row in rows {
        let separator = if row.what == "%packages" { " " } else { "; " };
        let mut cells = vec![match row.actions.is_empty() {
            true => row.is.to_owned(),
            false => format!("{}: {}", row.is, row.actions.join(separator)),
        }];
        cells.extend(
            row.packages
                .iter()
                .map(|package| format!("needs {package}")),
        );
        cells.extend(row.notices.iter().map(notice));
        for (number, cell) in cells.iter().enumerate() {
            let (origin, what) = match number {
                0 => (row.origin.as_str(), row.what.as_str()),
                _ => ("", ""),
            };
            line(out, 1, &format!("{origin:places$}  {what:names$}  {cell}"));
        }
    }
}

fn notice(notice: &Notice) -> String {
    let level = match notice.level {
        Level::Note => "note",
        Level::Warning => "warning",
        Level::Error => "error",
    };
    let hint = notice.hint.as_ref();
    let hint = hint.map_or_else(String::new, |hint| format!(" ({hint})"));
    format!("{level}: {}{hint}", notice.message)
}

fn repositories(out: &mut String, plan: &Plan) {
    line(out, 0, "repositories:");
    if plan.default_repositories {
        line(out, 1, "the distribution's own, with updates and security");
    }
    for repository in &plan.repositories {
        let components = repository.components.join(" ");
        line(
            out,
            1,
            &format!(
                "{} {} {components} ({})",
                repository.url, repository.suite, repository.origin
            ),
        );
        if let Some((name, _)) = &repository.keys {
            line(out, 2, &format!("signed by {name}"));
        }
    }
    for repository in &plan.rpm_repositories {
        rpm_repository(out, repository);
    }
}

fn rpm_repository(out: &mut String, repository: &RpmRepository) {
    let place = match &repository.source {
        RpmSource::Base(urls) => urls.join(", "),
        RpmSource::MirrorList(url) => format!("mirror list {url}"),
        RpmSource::MetaLink(url) => format!("metalink {url}"),
        RpmSource::Known => "the distribution's own".to_owned(),
    };
    let (name, origin) = (&repository.name, &repository.origin);
    line(out, 1, &format!("{name}: {place} ({origin})"));
    let mut more = Vec::new();
    if let Some((name, _)) = &repository.keys {
        more.push(format!("signed by {name}"));
    }
    if repository.signed_metadata == Some(true) {
        more.push("with signed metadata".to_owned());
    }
    if let Some(cost) = repository.cost {
        more.push(format!("cost {cost}"));
    }
    for (word, globs) in [
        ("only", &repository.include),
        ("without", &repository.exclude),
    ] {
        if !globs.is_empty() {
            more.push(format!("{word} {}", globs.join(" ")));
        }
    }
    if let Some(proxy) = repository.shown_proxy() {
        more.push(format!("through {proxy}"));
    }
    more.iter().for_each(|said| line(out, 2, said));
}

fn boot_and_disk(out: &mut String, plan: &Plan) {
    let append = plan.boot.append.join(" ");
    line(
        out,
        0,
        &format!(
            "boot: `{}`, {} s, entry {}, arguments: {append}",
            plan.boot.title,
            plan.boot.timeout,
            plan.boot.default.id()
        ),
    );
    let compression = &plan.compression;
    let level = compression
        .level
        .map_or_else(String::new, |level| format!(" level {level}"));
    let codec = format!("{:?}", compression.codec).to_lowercase();
    let block = compression.block_size >> 10;
    line(
        out,
        0,
        &format!("root: SquashFS, {codec}{level}, blocks of {block} KiB"),
    );
    if let Some(home) = plan.disk.home() {
        let grow = if home.grow {
            ", grows to fill the disk"
        } else {
            ""
        };
        line(
            out,
            0,
            &format!(
                "home: ext4 `{}`, {}{grow} ({})",
                home.label,
                bytes(home.size.least()),
                home.origin.as_deref().unwrap_or("-")
            ),
        );
    }
    let formats: Vec<String> = plan
        .formats
        .iter()
        .map(|format| format!("{format:?}").to_lowercase())
        .collect();
    line(
        out,
        0,
        &format!(
            "disk: {:?}, written as {}",
            plan.disk.table,
            formats.join(", ")
        ),
    );
}
