//! `services`: units that are enabled and disabled.

use super::{Action, draft::Draft};

/// What a unit's name may end in.
const ENDINGS: &[&str] = &[
    ".service",
    ".socket",
    ".device",
    ".mount",
    ".automount",
    ".swap",
    ".target",
    ".path",
    ".timer",
    ".slice",
    ".scope",
];

pub(super) fn lower(draft: &mut Draft<'_>) {
    let disable = units(draft, "--disabled");
    let enable = units(draft, "--enabled");
    if disable.is_empty() && enable.is_empty() {
        return draft.warn("names no service", "give --enabled=A,B or --disabled=C,D");
    }
    draft.act(Action::Units { disable, enable });
}

fn units(draft: &mut Draft<'_>, option: &str) -> Vec<String> {
    let mut units = Vec::new();
    for said in draft.last_list(option) {
        if !is_unit_name(said) {
            draft.error(
                format!("{option}={said}: not the name of a service"),
                "separate services by commas",
            );
            continue;
        }
        let bare = said.strip_suffix(".service").unwrap_or(said);
        let own = draft.context.conventions.service(bare);
        if own != bare {
            draft.note(format!("{option}={said}: the service is called {own} here"));
        }
        units.push(unit_name(own));
    }
    units
}

/// A unit's full name: a service unless it says otherwise.
fn unit_name(name: &str) -> String {
    if ENDINGS.iter().any(|e| name.ends_with(e)) {
        name.to_owned()
    } else {
        format!("{name}.service")
    }
}

/// The letters of systemd.unit(5); a name that starts with a dash would be taken for an option.
fn is_unit_name(name: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
    !name.is_empty() && name.len() <= 255 && !name.starts_with(['-', '.']) && name.bytes().all(fine)
}
