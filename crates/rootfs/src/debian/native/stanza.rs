//! Stanzas of dpkg's status file, in dpkg's own order and spelling.

use kiln_packages::debian::relation::{Operator, Relation, groups};

/// The order in which dpkg writes the fields that it knows (lib/dpkg/parse.c of dpkg 1.21 and 1.22); all others follow
/// in the order in which the package has them.
const ORDER: &[&str] = &[
    "Package",
    "Essential",
    "Protected",
    "Status",
    "Priority",
    "Section",
    "Installed-Size",
    "Origin",
    "Maintainer",
    "Bugs",
    "Architecture",
    "Multi-Arch",
    "Source",
    "Version",
    "Config-Version",
    "Replaces",
    "Provides",
    "Depends",
    "Pre-Depends",
    "Recommends",
    "Suggests",
    "Breaks",
    "Conflicts",
    "Enhances",
    "Conffiles",
    "Filename",
    "Size",
    "MD5sum",
    "MSDOS-Filename",
    "Description",
    "Triggers-Pending",
    "Triggers-Awaited",
];

/// Fields with relations, which dpkg spells anew.
const RELATIONS: &[&str] = &[
    "Replaces",
    "Provides",
    "Depends",
    "Pre-Depends",
    "Recommends",
    "Suggests",
    "Breaks",
    "Conflicts",
    "Enhances",
];

/// A field: its name, and its value with continuation lines, without white space around it but for a line end that
/// comes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) value: String,
}

/// The fields of a stanza as they stand.
pub(super) fn fields(stanza: &str) -> Vec<Field> {
    let mut found: Vec<Field> = Vec::new();
    for line in stanza.lines() {
        if line.starts_with([' ', '\t']) {
            if let Some(field) = found.last_mut() {
                field.value.push('\n');
                field.value.push_str(line);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            found.push(Field {
                name: name.to_owned(),
                value: value.trim_start_matches([' ', '\t']).to_owned(),
            });
        }
    }
    for field in &mut found {
        field.value.truncate(field.value.trim_end().len());
    }
    found
}

/// The fields of a new package's control file as dpkg keeps them.
pub(super) fn of_control(stanza: &str) -> Vec<Field> {
    let mut found = fields(stanza);
    found.retain(|f| {
        !["Status", "Conffiles", "Config-Version"]
            .iter()
            .any(|n| n.eq_ignore_ascii_case(&f.name))
    });
    found.retain_mut(spell);
    found
}

/// Spells a field as dpkg does; whether dpkg writes it at all.
fn spell(field: &mut Field) -> bool {
    if let Some(known) = ORDER.iter().find(|n| n.eq_ignore_ascii_case(&field.name)) {
        field.name = (*known).to_owned();
    }
    match field.name.as_str() {
        "Essential" | "Protected" => field.value == "yes",
        "Multi-Arch" => field.value != "no",
        // What a repository's index adds; a package's own control file has none of it.
        "Filename" | "Size" | "MD5sum" | "MSDOS-Filename" => false,
        "Version" => {
            field.value = version(&field.value).to_owned();
            true
        }
        "Priority" => {
            field.value.make_ascii_lowercase();
            true
        }
        name if RELATIONS.contains(&name) => {
            field.value = relations(&field.value);
            !field.value.is_empty()
        }
        _ => !field.value.is_empty(),
    }
}

/// An epoch of zero is not written.
fn version(text: &str) -> &str {
    text.strip_prefix("0:").unwrap_or(text)
}

fn relations(text: &str) -> String {
    let group = |relations: Vec<Relation<'_>>| -> String {
        let one: Vec<String> = relations.iter().map(relation).collect();
        one.join(" | ")
    };
    let all: Vec<String> = groups(text).map(group).collect();
    all.join(", ")
}

fn relation(relation: &Relation<'_>) -> String {
    let mut text = relation.name.to_owned();
    if let Some(architecture) = relation.qualifier {
        text.push(':');
        text.push_str(architecture);
    }
    if let Some((operator, wanted)) = relation.version {
        let sign = match operator {
            Operator::Earlier => "<<",
            Operator::EarlierOrEqual => "<=",
            Operator::Equal => "=",
            Operator::LaterOrEqual => ">=",
            Operator::Later => ">>",
        };
        text.push_str(&format!(" ({sign} {})", version(wanted)));
    }
    text
}

/// Writes fields in dpkg's order.
pub(super) fn write<'a>(fields: impl Iterator<Item = &'a Field>, out: &mut String) {
    let place = |field: &&Field| {
        ORDER
            .iter()
            .position(|name| *name == field.name)
            .unwrap_or(ORDER.len())
    };
    let mut sorted: Vec<&Field> = fields.collect();
    sorted.sort_by_key(place);
    for Field { name, value } in sorted {
        out.push_str(name);
        // A value that begins on the next line has no space before it where dpkg knows the field.
        out.push_str(if value.starts_with('\n') && name == "Conffiles" {
            ":"
        } else {
            ": "
        });
        out.push_str(value);
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_file_is_spelled_as_dpkg_does() {
        let control = "Package: tt\nVersion: 0:1\nX-Foo: bar\nArchitecture: all\nMulti-arch: no\nEssential: no\n\
                       Depends: a(>=1)|b:any,  c (<<0:2),\n d\nPriority: Optional\nDescription: d\n more\n .\n";
        let mut text = String::new();
        write(of_control(control).iter(), &mut text);
        assert_eq!(
            text,
            "Package: tt\nPriority: optional\nArchitecture: all\nVersion: 1\n\
             Depends: a (>= 1) | b:any, c (<< 2), d\nDescription: d\n more\n .\nX-Foo: bar\n"
        );
    }
}
