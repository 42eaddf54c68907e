//! `kiln plan DEF`

use std::fmt::Write;

use kiln_build::{Event, Failure, FailureKind};
use kiln_kickstart::PackageRef;
use kiln_plan::{Layer, Lowered, Plan, Problem, Request};

use super::Context;
use super::build::input;
use crate::args::PlanArgs;
use crate::output;
use crate::render::text::{bytes, sanitize};

/// Prints what a build would do.
pub(crate) fn run(args: &PlanArgs, context: &Context<'_>) -> Result<u8, Failure> {
    let lowered = kiln_build::plan(&args.definition.definition, &input(&args.definition))?;
    lowered
        .problems
        .iter()
        .for_each(|problem| context.terminal.event(&warning(problem)));
    let Lowered {
        plan: Some(plan),
        pre_scripts,
        ..
    } = &lowered
    else {
        return Err(Failure::new(
            FailureKind::Internal,
            "a definition without errors has no plan",
        ));
    };
    if args.json {
        output::print_json(plan)?;
    } else {
        let mut text = describe(plan);
        for script in pre_scripts {
            line(
                &mut text,
                0,
                &format!("first: %pre at {}, in a throw-away root", script.origin),
            );
        }
        output::print(&text)?;
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

fn describe(plan: &Plan) -> String {
    let mut out = String::new();
    let target = &plan.target;
    line(
        &mut out,
        0,
        &format!(
            "{} for {}:{} on {}",
            plan.name, target.distribution, target.release, target.architecture
        ),
    );
    line(&mut out, 0, &format!("plan {}", plan.id()));
    repositories(&mut out, plan);
    if !plan.system.packages.is_empty() {
        line(&mut out, 0, "Kiln adds:");
    }
    for added in &plan.system.packages {
        line(&mut out, 1, &format!("{}: {}", added.package, added.why));
    }
    for (number, one) in plan.layers.iter().enumerate() {
        layer(&mut out, number + 1, one);
    }
    boot_and_disk(&mut out, plan);
    out
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
}

fn layer(out: &mut String, number: usize, layer: &Layer) {
    line(out, 0, &format!("layer {number}, {}:", layer.name));
    let list = |exclude: bool| {
        let names = layer
            .packages
            .iter()
            .filter(|request| request.exclude == exclude)
            .map(package);
        names.collect::<Vec<_>>().join(" ")
    };
    for (label, names) in [("packages", list(false)), ("without", list(true))] {
        if !names.is_empty() {
            line(out, 1, &format!("{label}: {names}"));
        }
    }
    for command in &layer.commands {
        line(
            out,
            1,
            &format!("{} at {}", command.item.name, command.origin),
        );
    }
    for script in &layer.scripts {
        let lines = script.item.body.lines().count();
        let place = if script.item.chroot {
            "in the root"
        } else {
            "in the tools root"
        };
        line(
            out,
            1,
            &format!(
                "script at {}, {lines} lines, {place} with {}",
                script.origin, script.item.interpreter
            ),
        );
    }
}

fn package(request: &Request) -> String {
    match &request.what {
        PackageRef::Package(name) => name.clone(),
        PackageRef::Group { name, .. } => format!("@{name}"),
        PackageRef::Environment(name) => format!("@^{name}"),
        PackageRef::Module { name, stream, .. } => format!("@{name}:{stream}"),
    }
}

fn boot_and_disk(out: &mut String, plan: &Plan) {
    let append = plan.boot.append.join(" ");
    line(
        out,
        0,
        &format!(
            "boot: `{}`, {} s, arguments: {append}",
            plan.boot.title, plan.boot.timeout
        ),
    );
    let compression = &plan.compression;
    let level = compression
        .level
        .map(|level| format!(" level {level}"))
        .unwrap_or_default();
    let codec = format!("{:?}", compression.codec).to_lowercase();
    let block = compression.block_size >> 10;
    line(
        out,
        0,
        &format!("root: SquashFS, {codec}{level}, blocks of {block} KiB"),
    );
    if let Some(home) = &plan.disk.home {
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
                bytes(home.size),
                home.origin
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
            plan.disk.layout,
            formats.join(", ")
        ),
    );
}
