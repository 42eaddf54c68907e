//! A kickstart in canonical order, as the reference's flattener writes it.
//!
//! Commands come by write priority and class name; lines of a repeatable command stay in their order, those of
//! another command are merged: the last one counts, but a value that it does not give stays. Then come scripts,
//! opaque sections, one `%packages` and certificates.

mod layout;
mod packages;
mod special;
mod view;

use std::collections::BTreeMap;

use crate::section::given;
use crate::table::{self, CommandVariant};
use crate::{
    Certificate, Command, Item, Kickstart, Opaque, Parsed, Script, ScriptKind, Value, Version,
};
use view::View;

/// Writes a kickstart without errors in canonical form; what this returns reads as the same kickstart, as far as
/// the reference's own output does.
pub fn flatten(parsed: &Parsed, version: Version) -> String {
    let kickstart = &parsed.kickstart;
    let mut out = match kickstart.platform.as_str() {
        "" => String::new(),
        platform => format!("#platform={platform}\n"),
    };
    out.push_str(&format!("#version={}\n", version.label()));
    out.push_str(&commands(kickstart, version));
    let scripts = kickstart.scripts();
    for script in scripts.filter(|s| !s.body.trim().is_empty()) {
        write_script(&mut out, script);
    }
    for item in &kickstart.items {
        if let Item::Opaque(opaque) = item {
            write_opaque(&mut out, opaque);
        }
    }
    packages::write(&mut out, kickstart.packages(), version);
    for item in &kickstart.items {
        if let Item::Certificate(certificate) = item {
            write_certificate(&mut out, certificate);
        }
    }
    out
}

/// Where a command's text goes: priority, then class name without the version that introduced it.
type SortKey = (u32, &'static str);

fn sort_key(variant: &'static CommandVariant) -> SortKey {
    let name = variant.class.split_once('_').map_or("", |(_, name)| name);
    (variant.priority.unwrap_or(0), name)
}

fn commands(kickstart: &Kickstart, version: Version) -> String {
    let mut groups: BTreeMap<SortKey, Vec<&Command>> = BTreeMap::new();
    for command in kickstart.commands() {
        if let Some(variant) = variant(&command.name, version) {
            groups.entry(sort_key(variant)).or_default().push(command);
        }
    }
    for always in ["bootloader", "logging"] {
        if let Some(variant) = variant(always, version) {
            groups.entry(sort_key(variant)).or_default();
        }
    }
    let texts = groups
        .into_iter()
        .map(|(sort_key, commands)| match commands.as_slice() {
            [] => special::unset(sort_key.1, version).to_owned(),
            commands => group(kickstart, commands, version),
        });
    texts.collect()
}

fn variant(name: &str, version: Version) -> Option<&'static CommandVariant> {
    table::command(name)?.variant(version)
}

/// Writes all lines of one command (or of commands that share their state, such as `halt` and `reboot`).
fn group(kickstart: &Kickstart, commands: &[&Command], version: Version) -> String {
    let Some(last) = commands.last() else {
        return String::new();
    };
    let Some(variant) = variant(&last.name, version) else {
        return String::new();
    };
    if let Some(text) = special::raw(kickstart, last) {
        return text;
    }
    if !variant.repeatable {
        let mut view = View::default();
        // What earlier lines say does not matter to this one.
        let from = match last.name.as_str() {
            "firstboot" => commands.len() - 1,
            _ => 0,
        };
        for command in commands.iter().skip(from) {
            view.merge(command, &variant.arguments);
        }
        if last.name == "clearpart" {
            return special::clearpart(commands, &view);
        }
        return line(&last.name, &view, version, true);
    }
    let mut out = String::new();
    for command in commands {
        let mut view = View::default();
        view.merge(command, &variant.arguments);
        out.push_str(&line(&command.name, &view, version, out.is_empty()));
    }
    if !out.is_empty() && matches!(last.name.as_str(), "mount" | "nvdimm") {
        out.push('\n');
    }
    out
}

/// One command line, with its comment where it is the `first` of its kind.
fn line(name: &str, view: &View<'_>, version: Version, first: bool) -> String {
    if let Some(text) = special::line(name, view, version) {
        return text;
    }
    let Some(layout) = layout::of(name) else {
        return String::new();
    };
    let mut out = String::new();
    if first && !layout.comment.is_empty() {
        out.push_str(&format!("# {}\n", layout.comment));
    }
    out.push_str(match name {
        "poweroff" => "shutdown",
        name => name,
    });
    view.write(layout.parts, &mut out);
    if matches!(name, "nvdimm" | "raid" | "volgroup") {
        out.truncate(out.trim_end().len());
    }
    out.push('\n');
    out
}

fn write_script(out: &mut String, script: &Script) {
    out.push_str(match script.kind {
        ScriptKind::Pre => "\n%pre",
        ScriptKind::PreInstall => "\n%pre-install",
        ScriptKind::Post => "\n%post",
        ScriptKind::Traceback => "\n%traceback",
        ScriptKind::OnError => "\n%onerror",
    });
    if script.interpreter != "/bin/sh" && !script.interpreter.is_empty() {
        out.push_str(&format!(" --interpreter={}", script.interpreter));
    }
    if script.kind == ScriptKind::Post && !script.chroot {
        out.push_str(" --nochroot");
    }
    if let Some(log) = script.log.as_deref() {
        out.push_str(&format!(" --logfile={log}"));
    }
    if script.error_on_fail {
        out.push_str(" --erroronfail");
    }
    out.push('\n');
    out.push_str(&script.body);
    end(out);
}

/// `%end` on a line of its own.
fn end(out: &mut String) {
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out.push_str("%end\n");
}

/// The reference doubles the line ends of opaque sections and leaves out the last one. (It leaves out the one
/// between two such sections, too: what it writes then cannot be read again, so Kiln does not.)
fn write_opaque(out: &mut String, opaque: &Opaque) {
    out.push_str(&format!("\n{}", opaque.name));
    for word in &opaque.args {
        out.push_str(&format!(" {word}"));
    }
    out.push('\n');
    for line in crate::source::lines(&opaque.body) {
        out.push_str(line.text);
        out.push('\n');
    }
    out.push_str("%end");
}

fn write_certificate(out: &mut String, certificate: &Certificate) {
    out.push_str(&format!(
        "\n%certificate --filename=\"{}\"",
        certificate.filename
    ));
    let options = [("--type", &certificate.kind), ("--dir", &certificate.dir)];
    for (name, value) in options {
        if let Some(value) = value.as_deref().filter(|v| !v.is_empty()) {
            out.push_str(&format!(" {name}=\"{value}\""));
        }
    }
    out.push('\n');
    out.push_str(&certificate.body);
    end(out);
}

/// The text of a header option, if it was given.
fn header_text<'a>(header: &'a Command, name: &str) -> Option<&'a str> {
    match given(header, name) {
        Some(Value::Text(text)) => Some(text),
        _ => None,
    }
}
