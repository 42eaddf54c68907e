//! What the tests of kickstart commands share: a kickstart text, lowered.

use std::collections::BTreeSet;

use kiln_kickstart::{Command, Item, NoIncludes, Options, parse};
use kiln_plan::Conventions;
use kiln_plan::configure::{Context, Line, Meaning, lower};

/// Lowers the commands of a kickstart text. `packages` are those that the definition asks for; one with a dash before
/// its name is excluded.
pub(crate) fn lowered(text: &str, packages: &[&str]) -> Meaning {
    lowered_for(Conventions::Debian, text, packages)
}

/// The same, by the conventions of a distribution.
pub(crate) fn lowered_for(conventions: Conventions, text: &str, packages: &[&str]) -> Meaning {
    let commands = commands(text);
    let lines: Vec<Line<'_>> = commands
        .iter()
        .map(|(origin, command)| Line { command, origin })
        .collect();
    let excluded: BTreeSet<String> = packages
        .iter()
        .filter_map(|p| p.strip_prefix('-'))
        .map(str::to_owned)
        .collect();
    let packages = packages.iter().map(|p| (*p).to_owned()).collect();
    let context = Context {
        conventions,
        packages: &packages,
        excluded: &excluded,
        salt: "test",
    };
    lower(&lines, &context)
}

fn commands(text: &str) -> Vec<(String, Command)> {
    let parsed = parse(
        "test.ks",
        text.as_bytes(),
        &Options::default(),
        &mut NoIncludes,
    );
    let errors: Vec<&str> = parsed
        .diagnostics
        .iter()
        .filter(|d| d.severity == kiln_kickstart::Severity::Error)
        .map(|d| d.message.as_str())
        .collect();
    assert_eq!(errors, [""; 0], "the test's kickstart must be right");
    let place = |c: &Command| parsed.kickstart.location(c.span);
    let items = parsed.kickstart.items.iter();
    items
        .filter_map(|i| match i {
            Item::Command(command) => Some((place(command), command.clone())),
            _ => None,
        })
        .collect()
}
