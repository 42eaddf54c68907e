//! Reading one command line.

use std::collections::HashSet;

use crate::arguments::{self, Position};
use crate::report::{Report, quote};
use crate::table::{self, CommandEntry, CommandVariant, State};
use crate::words::Word;
use crate::{Command, Severity, Value, Version, rules, spelling};

/// What earlier command lines leave behind for later ones.
#[derive(Default)]
pub(crate) struct Seen {
    /// Table names of the commands that stood before.
    commands: HashSet<&'static str>,
    /// What the rules of single commands remember.
    pub(crate) rules: rules::Memory,
}

/// Commands whose words are handed on as they are.
const RAW: [&str; 4] = ["auth", "authconfig", "authselect", "realm"];

/// What a command makes of words that no argument claims.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extras {
    Wrong,
    /// Further values; what starts with a dash is a misspelt option.
    Values,
    /// Further values, whatever they start with.
    All,
}

fn extras_policy(command: &str) -> Extras {
    match command {
        "btrfs" | "raid" | "updates" => Extras::Values,
        "volgroup" => Extras::All,
        _ => Extras::Wrong,
    }
}

/// Reads a line that is neither blank nor a section; `None` where it has no effect or cannot be read.
pub(crate) fn read(
    words: &[Word],
    position: Position,
    version: Version,
    seen: &mut Seen,
    report: &mut Report,
) -> Option<Command> {
    let (first, rest) = words.split_first()?;
    let entry = table::command(&first.text);
    let Some((entry, variant)) = entry.and_then(|e| Some((e, e.variant(version)?))) else {
        report_unknown(first, entry, position, version, report);
        return None;
    };
    let whole = position.span(first.start, words.last().map_or(first.end, |w| w.end));
    match variant.state {
        State::Removed => {
            report_removed(first, entry, position, version, report);
            return None;
        }
        State::Deprecated => {
            report.warning(
                "deprecated-command",
                position.word(first),
                format!(
                    "`{}` is deprecated in {version} and has no effect",
                    entry.name
                ),
                "remove the line",
            );
            return None;
        }
        State::Active => {}
    }
    let mut command = Command {
        name: canonical(&entry.name).to_owned(),
        options: Vec::new(),
        args: Vec::new(),
        span: whole,
    };
    if RAW.contains(&entry.name.as_str()) {
        command.args = rest.iter().map(|w| w.text.clone()).collect();
    } else {
        match_arguments(&mut command, variant, rest, position, version, report);
    }
    normalise(&mut command, version);
    report_conflicts(entry, version, seen, &command, report);
    rules::check(&command, version, &mut seen.rules, report);
    Some(command)
}

/// The name under which a command is kept.
fn canonical(name: &str) -> &str {
    match name {
        "partition" => "part",
        name => name,
    }
}

fn match_arguments(
    command: &mut Command,
    variant: &'static CommandVariant,
    words: &[Word],
    position: Position,
    version: Version,
    report: &mut Report,
) {
    let matched = arguments::match_words(&variant.arguments, words, position, command.span, report);
    command.options = matched.options;
    command.args = matched.positional;
    let policy = extras_policy(&command.name);
    let (wrong, values): (Vec<Word>, Vec<Word>) =
        matched.extras.into_iter().partition(|w| match policy {
            Extras::Wrong => true,
            Extras::Values => w.text.starts_with('-'),
            Extras::All => false,
        });
    // The reference takes the last run of words for the members of a volume group.
    if command.name == "volgroup" && !values.is_empty() {
        command.args.truncate(1);
    }
    command.args.extend(values.into_iter().map(|w| w.text));
    arguments::report_extras(&wrong, &variant.arguments, &command.name, position, report);
    report_deprecated_options(command, variant, report);
    if version == Version::Rhel9 && command.name == "timezone" {
        report_future_options(command, words, report);
    }
}

/// Brings what versions spell differently into one form.
fn normalise(command: &mut Command, version: Version) {
    for option in &mut command.options {
        if option.name == "--isUtc" {
            option.name = "--utc".to_owned();
        }
        // Older versions number MD devices: `md0` is device 0.
        if let ("--device", Value::Text(device)) = (option.name.as_str(), &mut option.value)
            && command.name == "raid"
            && matches!(version, Version::Rhel8 | Version::Rhel9 | Version::F42)
            && let Some(number) = device.strip_prefix("md")
        {
            *device = number.to_owned();
        }
    }
}

fn report_deprecated_options(command: &Command, variant: &CommandVariant, report: &mut Report) {
    for argument in variant.arguments.iter().filter(|a| a.deprecated) {
        let name = argument.names.first().map_or("", String::as_str);
        if let Some(option) = command.options.iter().find(|o| o.name == name) {
            report.warning(
                "deprecated-option",
                option.span,
                format!("`{name}` is deprecated and has no effect"),
                "remove the option",
            );
        }
    }
}

/// RHEL 9 still honours these options, and says that they will go.
fn report_future_options(command: &Command, words: &[Word], report: &mut Report) {
    let replaced = [
        ("--isUtc", "write `--utc`"),
        ("--nontp", "write `timesource --ntp-disable`"),
        ("--ntpservers", "write `timesource --ntp-server=…` lines"),
    ];
    for (name, help) in replaced {
        let empty = |o: &crate::Opt| o.value == Value::List(Vec::new());
        // The reference sees this one only where it is written in full.
        if name == "--isUtc" && words.iter().all(|w| w.text != name) {
            continue;
        }
        let mut options = command.options.iter();
        if let Some(option) = options.find(|o| o.name == name && !empty(o)) {
            let message = format!("`{name}` will be removed from the language");
            report.warning("deprecated-option", option.span, message, help);
        }
    }
}

fn report_unknown(
    word: &Word,
    entry: Option<&'static CommandEntry>,
    position: Position,
    version: Version,
    report: &mut Report,
) {
    let message = format!("unknown command {} in {version}", quote(&word.text));
    let mut help = Vec::new();
    if let Some(entry) = entry {
        help.push(known_in(entry));
    } else if word.text.starts_with('\u{feff}') {
        help.push("the file starts with a byte order mark: save it without".to_owned());
    } else if report.has_room()
        && let Some(near) = nearest_command(&word.text, version)
    {
        help.push(format!("did you mean `{near}`?"));
    }
    report.push(
        Severity::Error,
        "unknown-command",
        position.word(word),
        message,
        help,
    );
}

fn nearest_command(word: &str, version: Version) -> Option<&'static str> {
    let active = |e: &&CommandEntry| e.variant(version).is_some_and(|v| v.state == State::Active);
    let known = table::command_table().iter().filter(active);
    spelling::nearest(word, known.map(|e| e.name.as_str()))
}

fn known_in(entry: &CommandEntry) -> String {
    let names: Vec<_> = entry.active_in().iter().map(|v| v.name()).collect();
    match names.is_empty() {
        true => "no version that Kiln reads has this command any more".to_owned(),
        false => format!("it takes effect in {} only", names.join(", ")),
    }
}

fn report_removed(
    word: &Word,
    entry: &CommandEntry,
    position: Position,
    version: Version,
    report: &mut Report,
) {
    let message = format!(
        "`{}` has been removed from the language in {version}",
        entry.name
    );
    let mut help = vec!["remove the line".to_owned()];
    help.push(match entry.name.as_str() {
        "auth" | "authconfig" => "use `authselect` instead".to_owned(),
        "vnc" => "use `rdp` instead".to_owned(),
        "install" | "method" => "use `url`, `nfs`, `cdrom` or `harddrive` alone".to_owned(),
        _ => known_in(entry),
    });
    report.push(
        Severity::Error,
        "removed-command",
        position.word(word),
        message,
        help,
    );
}

fn report_conflicts(
    entry: &'static CommandEntry,
    version: Version,
    seen: &mut Seen,
    command: &Command,
    report: &mut Report,
) {
    let name = table_name(&entry.name);
    if seen.commands.insert(name) {
        let against = |e: &'static str| {
            let variant = table::command(e).and_then(|e| e.variant(version));
            variant.map_or(&[][..], |v| &v.conflicts[..])
        };
        let mine = against(name);
        let mut other: Vec<_> = seen.commands.iter().copied().collect();
        other.retain(|o| mine.iter().any(|m| table_name(m) == *o));
        other.sort_unstable();
        if let Some(other) = other.first() {
            report.error_help(
                "conflicting-commands",
                command.span,
                format!("`{}` and `{other}` exclude each other", entry.name),
                "keep one of them",
            );
        }
    }
}

/// One name for spellings that are the same command.
fn table_name(name: &str) -> &str {
    match name {
        "partition" => "part",
        name => name,
    }
}
