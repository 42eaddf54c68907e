//! What becomes of every line of a layer: the rows of the plan's table, and the same as JSON.

use kiln_kickstart::{PackageRef, Script, ScriptKind};
use kiln_plan::configure::{Need, Notice, entry};
use kiln_plan::{Layer, Located, Request, Target, What};
use serde::Serialize;

/// A layer's lines, in the order of the steps: packages, commands, scripts.
#[derive(Debug, Serialize)]
pub(super) struct LayerLines {
    pub(super) layer: String,
    pub(super) lines: Vec<Line>,
}

/// One line of a kickstart, or several lines of `%packages` in a row.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    /// `file:line`, or `file:first-last`.
    pub(super) origin: String,
    /// The command or the section.
    pub(super) what: String,
    /// What becomes of it: `executed`, `planned`, `recorded`, `ignored`.
    pub(super) is: &'static str,
    /// What is done, in order.
    pub(super) actions: Vec<String>,
    /// Packages that it brings into the image, with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) packages: Vec<String>,
    /// What is to be said about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) notices: Vec<Notice>,
}

impl Line {
    fn new(origin: &str, what: &str, is: &'static str) -> Self {
        Line {
            origin: origin.to_owned(),
            what: what.to_owned(),
            is,
            actions: Vec::new(),
            packages: Vec::new(),
            notices: Vec::new(),
        }
    }
}

/// Everything that a layer says, line by line.
pub(super) fn of_layer(layer: &Layer, target: &Target) -> LayerLines {
    let mut lines: Vec<Line> = layer.pre_install.iter().map(script).collect();
    lines.extend(packages(layer));
    lines.extend(files(layer));
    lines.extend(commands(layer, target));
    lines.extend(certificates(layer));
    lines.extend(layer.scripts.iter().map(script));
    LayerLines {
        layer: layer.name.clone(),
        lines,
    }
}

fn commands<'a>(layer: &'a Layer, target: &Target) -> impl Iterator<Item = Line> + 'a {
    let conventions = target.conventions();
    layer.commands.iter().map(move |command| {
        let name = &command.item.name;
        let entry = conventions.and_then(|conventions| entry(name, conventions));
        let mut line = Line::new(
            &command.origin,
            name,
            entry.map_or("", |e| e.handling.word()),
        );
        fill(&mut line, layer, name);
        if line.actions.is_empty() && line.notices.is_empty() {
            line.actions.extend(entry.map(|e| e.note.to_owned()));
        }
        line
    })
}

fn certificates(layer: &Layer) -> impl Iterator<Item = Line> {
    layer.certificates.iter().map(|certificate| {
        let mut line = Line::new(&certificate.origin, "%certificate", "executed");
        fill(&mut line, layer, "%certificate");
        line
    })
}

/// What the lowering made of a line.
fn fill(line: &mut Line, layer: &Layer, command: &str) {
    let changes = layer.changes.iter();
    for change in changes.filter(|c| c.origin == line.origin && c.command == command) {
        line.actions
            .extend(change.actions.iter().map(|a| a.describe()));
        let need = |need: &Need| format!("{} ({})", need.package, need.why);
        line.packages.extend(change.needs.iter().map(need));
    }
    let notices = layer.notices.iter().filter(|n| n.origin == line.origin);
    line.notices.extend(notices.cloned());
}

/// Lines of `%packages` that follow each other in one file are one row.
fn packages(layer: &Layer) -> Vec<Line> {
    let mut rows: Vec<(String, u32, u32, Line)> = Vec::new();
    for request in &layer.packages {
        let (file, number) = request
            .origin
            .rsplit_once(':')
            .unwrap_or((&request.origin, ""));
        let number: u32 = number.parse().unwrap_or(0);
        let word = package(request);
        match rows.last_mut() {
            Some((of, _, last, row)) if of == file && (*last..=*last + 1).contains(&number) => {
                *last = number;
                row.actions.push(word);
            }
            _ => {
                let mut row = Line::new(&request.origin, "%packages", "executed");
                row.actions.push(word);
                rows.push((file.to_owned(), number, number, row));
            }
        }
    }
    let row = |(file, first, last, mut row): (String, u32, u32, Line)| {
        if first != last {
            row.origin = format!("{file}:{first}-{last}");
        }
        row
    };
    rows.into_iter().map(row).collect()
}

/// Files of the project that one place brought are one row.
fn files(layer: &Layer) -> Vec<Line> {
    const SHOWN: usize = 5;
    let mut rows: Vec<(Line, usize)> = Vec::new();
    for file in &layer.files {
        if file.what == What::Directory {
            continue;
        }
        if rows.last().is_none_or(|(row, _)| row.origin != file.origin) {
            rows.push((Line::new(&file.origin, "files", "executed"), 0));
        }
        let Some((row, count)) = rows.last_mut() else {
            continue;
        };
        *count += 1;
        if *count <= SHOWN {
            row.actions.push(match &file.to {
                Some(to) => format!("copy {} to {to}", file.from),
                None => format!("show {} to scripts", file.from),
            });
        }
    }
    let row = |(mut row, count): (Line, usize)| {
        if count > SHOWN {
            row.actions.push(format!("and {} more", count - SHOWN));
        }
        row
    };
    rows.into_iter().map(row).collect()
}

/// As it stands in the kickstart.
fn package(request: &Request) -> String {
    let name = match &request.what {
        PackageRef::Package(name) => name.clone(),
        PackageRef::Group { name, .. } => format!("@{name}"),
        PackageRef::Environment(name) => format!("@^{name}"),
        PackageRef::Module {
            name,
            stream,
            profile,
        } => {
            let profile = profile
                .as_ref()
                .map_or_else(String::new, |p| format!("/{p}"));
            format!("@{name}:{stream}{profile}")
        }
    };
    let sign = if request.exclude { "-" } else { "" };
    format!("{sign}{name}")
}

/// A script's row.
pub(super) fn script(script: &Located<Script>) -> Line {
    let item = &script.item;
    let what = match (item.kind, item.chroot) {
        (ScriptKind::Pre, _) => "%pre",
        (ScriptKind::PreInstall, _) => "%pre-install",
        (ScriptKind::Post, true) => "%post",
        (ScriptKind::Post, false) => "%post --nochroot",
        (ScriptKind::OnError, _) => "%onerror",
        (ScriptKind::Traceback, _) => "%traceback",
    };
    let place = match (item.kind, item.chroot) {
        (_, true) => "in the root",
        (ScriptKind::Pre, _) => "in the tools root, before anything else",
        (ScriptKind::OnError | ScriptKind::Traceback, _) => "in the tools root if the build fails",
        _ => "in the tools root, with the root at /mnt/sysimage",
    };
    let mut line = Line::new(&script.origin, what, "executed");
    let count = item.body.lines().count();
    let strict = if item.error_on_fail {
        ", its failure ends the build"
    } else {
        ""
    };
    let plural = if count == 1 { "" } else { "s" };
    line.actions.push(format!(
        "run {count} line{plural} with {} {place}{strict}",
        item.interpreter
    ));
    line.actions.extend(
        item.log
            .iter()
            .map(|log| format!("write its output to {log}")),
    );
    line
}
