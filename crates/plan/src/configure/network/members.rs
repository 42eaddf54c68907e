//! Devices made of others: bonds, bridges and teams.

use super::keyfile::escape;
use crate::configure::draft::Draft;
use crate::configure::firewall::is_interface;

/// What a device is made of.
#[derive(Debug)]
pub(super) enum Kind {
    Plain,
    Bond {
        members: Vec<String>,
        options: Vec<(String, String)>,
    },
    Bridge {
        members: Vec<String>,
        options: Vec<(String, String)>,
    },
    Team {
        members: Vec<(String, String)>,
        config: String,
    },
}

impl Kind {
    /// Reads a line; `None` after an error notice.
    pub(super) fn read(draft: &mut Draft<'_>) -> Option<Self> {
        kind(draft)
    }

    /// NetworkManager's word for it.
    pub(super) fn word(&self) -> Option<&'static str> {
        match self {
            Kind::Plain => None,
            Kind::Bond { .. } => Some("bond"),
            Kind::Bridge { .. } => Some("bridge"),
            Kind::Team { .. } => Some("team"),
        }
    }

    /// The devices that are joined, each with its configuration.
    pub(super) fn members(&self) -> Vec<(&str, &str)> {
        match self {
            Kind::Plain => Vec::new(),
            Kind::Bond { members, .. } | Kind::Bridge { members, .. } => {
                members.iter().map(|m| (m.as_str(), "")).collect()
            }
            Kind::Team { members, .. } => members
                .iter()
                .map(|(m, c)| (m.as_str(), c.as_str()))
                .collect(),
        }
    }

    /// Keys of its own section.
    pub(super) fn settings(&self) -> Vec<(String, String)> {
        match self {
            Kind::Plain => Vec::new(),
            Kind::Bond { options, .. } | Kind::Bridge { options, .. } => options.clone(),
            Kind::Team { config, .. } if config.is_empty() => Vec::new(),
            Kind::Team { config, .. } => vec![("config".to_owned(), escape(config))],
        }
    }
}

fn kind(draft: &mut Draft<'_>) -> Option<Kind> {
    let bond = draft.all_lists("--bondslaves");
    let bridge = draft.all_lists("--bridgeslaves");
    let team = team_members(&draft.all_lists("--teamslaves").join(","));
    if [bond.is_empty(), bridge.is_empty(), team.is_empty()]
        .iter()
        .filter(|e| !**e)
        .count()
        > 1
    {
        draft.error(
            "is a bond, a bridge and a team at once",
            "give one of --bondslaves, --bridgeslaves, --teamslaves",
        );
        return None;
    }
    let mut names = bond
        .iter()
        .chain(&bridge)
        .copied()
        .chain(team.iter().map(|(n, _)| n.as_str()));
    if let Some(bad) = names.find(|n| !is_interface(n)) {
        draft.error(
            format!("joins {bad}, which is not the name of a network device"),
            "separate devices by commas",
        );
        return None;
    }
    let owned = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect::<Vec<_>>();
    if !bond.is_empty() {
        return Some(Kind::Bond {
            members: owned(bond),
            options: options(draft, "--bondopts")?,
        });
    }
    if !bridge.is_empty() {
        return Some(Kind::Bridge {
            members: owned(bridge),
            options: options(draft, "--bridgeopts")?,
        });
    }
    if !team.is_empty() {
        let config = draft.command.text("--teamconfig").unwrap_or("").to_owned();
        return Some(Kind::Team {
            members: team,
            config,
        });
    }
    Some(Kind::Plain)
}

/// `mode=active-backup,miimon=100`, or separated by semicolons where values hold commas.
fn options(draft: &mut Draft<'_>, name: &str) -> Option<Vec<(String, String)>> {
    let said = match draft.command.text(name) {
        Some(text) => text.to_owned(),
        None => draft.all_lists(name).join(","),
    };
    let separator = if said.contains(';') { ';' } else { ',' };
    let mut options = Vec::new();
    for pair in said
        .split(separator)
        .map(str::trim)
        .filter(|p| !p.is_empty())
    {
        // The reference's own documents write `miimon-100` as well.
        let split = pair.split_once('=').or_else(|| pair.split_once('-'));
        let sane = |k: &str| {
            !k.is_empty()
                && k.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
        };
        match split {
            Some((key, value)) if sane(key) && !value.contains(char::is_control) => {
                options.push((key.to_owned(), escape(value)));
            }
            _ => {
                draft.error(
                    format!("{name}={said}: not NAME=VALUE pairs"),
                    "for example mode=active-backup,miimon=100",
                );
                return None;
            }
        }
    }
    Some(options)
}

/// `eth1'{"prio": 10}',eth2`: names, each with a configuration in quotes.
fn team_members(said: &str) -> Vec<(String, String)> {
    let mut members = Vec::new();
    let mut rest = said;
    while !rest.is_empty() {
        let end = rest.find([',', '\'']).unwrap_or(rest.len());
        let (name, mut after) = rest.split_at(end);
        let mut config = "";
        if let Some(quoted) = after.strip_prefix('\'') {
            let close = quoted.find('\'').unwrap_or(quoted.len());
            config = &quoted[..close];
            after = quoted[close..].trim_start_matches('\'');
        }
        if !name.trim().is_empty() {
            members.push((name.trim().to_owned(), config.to_owned()));
        }
        rest = after.trim_start_matches([',', ' ']);
    }
    members
}
