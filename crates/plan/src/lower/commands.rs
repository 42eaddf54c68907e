//! Each layer's commands and certificates as changes.

use std::collections::BTreeSet;

use kiln_kickstart::{Certificate, Command, Opt, PackageRef, Value};

use crate::Conventions;
use crate::configure::{self, Context, Line, Meaning};
use crate::model::{Layer, Plan};

/// Fills in what the layers' commands change. Last of all, since what is changed depends on packages of all layers.
pub(super) fn lower(plan: &mut Plan, conventions: Conventions) {
    let (packages, excluded) = named(plan);
    let context = Context {
        conventions,
        packages: &packages,
        excluded: &excluded,
        salt: &plan.name,
    };
    for layer in &mut plan.layers {
        let Meaning { changes, notices } = meaning(layer, &context);
        (layer.changes, layer.notices) = (changes, notices);
    }
}

fn meaning(layer: &Layer, context: &Context<'_>) -> Meaning {
    let lines = layer.commands.iter().map(|located| Line {
        command: &located.item,
        origin: &located.origin,
    });
    let lines: Vec<Line<'_>> = lines.collect();
    let mut meaning = configure::lower(&lines, context);
    for located in &layer.certificates {
        let command = command(&located.item);
        let line = Line {
            command: &command,
            origin: &located.origin,
        };
        let more = configure::lower_certificate(line, &located.item.body, context);
        meaning.changes.extend(more.changes);
        meaning.notices.extend(more.notices);
    }
    meaning
}

/// A `%certificate` as a command of that name.
fn command(certificate: &Certificate) -> Command {
    let span = certificate.span;
    let option = |name: &str, value: &str| Opt {
        name: name.to_owned(),
        value: Value::Text(value.to_owned()),
        span,
    };
    let options = std::iter::once(option("--filename", &certificate.filename))
        .chain(certificate.dir.iter().map(|dir| option("--dir", dir)))
        .chain(certificate.kind.iter().map(|kind| option("--type", kind)));
    Command {
        name: "%certificate".to_owned(),
        options: options.collect(),
        args: Vec::new(),
        span,
    }
}

/// Names that the definition asks for and excludes; the last mention counts.
fn named(plan: &Plan) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut wanted, mut excluded) = (BTreeSet::new(), BTreeSet::new());
    let added = plan.system.packages.iter().map(|p| &p.package);
    wanted.extend(added.map(|package| name(package).to_owned()));
    for request in plan.layers.iter().flat_map(|l| &l.packages) {
        if let PackageRef::Package(package) = &request.what {
            let (to, from) = if request.exclude {
                (&mut excluded, &mut wanted)
            } else {
                (&mut wanted, &mut excluded)
            };
            let name = name(package);
            from.remove(name);
            to.insert(name.to_owned());
        }
    }
    (wanted, excluded)
}

/// The name in `name[:architecture]`, `name=version` or `name/suite`.
fn name(package: &str) -> &str {
    package.split([':', '=', '/']).next().unwrap_or(package)
}
