//! `timezone` and `timesource`.

use std::net::IpAddr;

use kiln_kickstart::Command;

use super::{Action, draft::Draft};

/// Every service that sets the clock from the network.
const TIME_SERVICES: [&str; 4] = [
    "systemd-timesyncd.service",
    "chrony.service",
    "chronyd.service",
    "ntpsec.service",
];

pub(super) fn timezone(draft: &mut Draft<'_>, has_timesource: bool) {
    if let Some(zone) = draft.command.args.first().cloned() {
        if !is_zone(&zone) {
            return draft.error(
                format!("{zone}: not the name of a time zone"),
                "for example Europe/Prague or Etc/UTC",
            );
        }
        draft.need("tzdata", "holds the time zones");
        draft.act(Action::Timezone { zone });
    }
    // Absent means that the clock runs in local time: that is what the command documents.
    let clock = if draft.command.flag("--utc") || draft.command.flag("--isUtc") {
        "UTC"
    } else {
        "LOCAL"
    };
    draft.write("/etc/adjtime", 0o644, format!("0.0 0 0.0\n0\n{clock}\n"));
    let servers = draft.last_list("--ntpservers");
    if draft.command.flag("--nontp") {
        disable(draft);
    } else if !servers.is_empty() && has_timesource {
        draft.warn(
            "--ntpservers has no effect beside timesource",
            "move the servers to timesource lines",
        );
    } else {
        for server in servers {
            source(
                draft,
                server,
                Kind::Server,
                false,
                draft.is_rpm() || draft.asked_for("chrony"),
            );
        }
    }
}

fn is_zone(zone: &str) -> bool {
    let part = |p: &str| {
        !p.is_empty()
            && p != ".."
            && p != "."
            && p.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_+-".contains(&b))
    };
    zone.split('/').all(part)
}

/// `timesource`, one line of several; `all` are the layer's.
pub(super) fn timesource(draft: &mut Draft<'_>, all: &[&Command]) {
    let disabled = |c: &Command| c.flag("--ntp-disable");
    if disabled(draft.command) {
        return disable(draft);
    }
    if all.iter().any(|c| disabled(c)) {
        return draft.warn(
            "has no effect beside `timesource --ntp-disable`",
            "drop one of the lines",
        );
    }
    // Only chrony speaks NTS, and it excludes timesyncd, so all sources of the layer go to the same service. Sources in
    // several layers agree where %packages names chrony.
    let chrony = draft.is_rpm() || draft.asked_for("chrony") || all.iter().any(|c| c.flag("--nts"));
    let nts = draft.command.flag("--nts");
    match (
        draft.command.text("--ntp-server"),
        draft.command.text("--ntp-pool"),
    ) {
        (Some(server), _) => source(draft, server, Kind::Server, nts, chrony),
        (None, Some(pool)) => source(draft, pool, Kind::Pool, nts, chrony),
        (None, None) => draft.error(
            "names no source",
            "give --ntp-server=HOST, --ntp-pool=HOST or --ntp-disable",
        ),
    }
}

fn disable(draft: &mut Draft<'_>) {
    let disable = TIME_SERVICES.map(str::to_owned).to_vec();
    draft.act(Action::Units {
        disable,
        enable: Vec::new(),
    });
}

#[derive(Clone, Copy)]
enum Kind {
    Server,
    Pool,
}

fn source(draft: &mut Draft<'_>, host: &str, kind: Kind, nts: bool, chrony: bool) {
    let name = host
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if host.is_empty() || !(name || host.parse::<IpAddr>().is_ok()) {
        return draft.error(
            format!("{host}: not a host name or address"),
            "give one host a line",
        );
    }
    // A file of its own for every source: both services add them up, over all layers.
    let file: String = host
        .chars()
        .map(|c| if c == ':' { '-' } else { c })
        .collect();
    if chrony {
        draft.need("chrony", "sets the clock from the network");
        let kind = match kind {
            Kind::Server => "server",
            Kind::Pool => "pool",
        };
        let nts = if nts { " nts" } else { "" };
        draft.write(
            format!("/etc/chrony/sources.d/{file}.sources"),
            0o644,
            format!("{kind} {host} iburst{nts}\n"),
        );
        let words = ["pool", "server"].map(str::to_owned).to_vec();
        let path = if draft.is_rpm() {
            "/etc/chrony.conf"
        } else {
            "/etc/chrony/chrony.conf"
        };
        draft.act(Action::CommentOut {
            path: path.to_owned(),
            words,
        });
        if draft.is_rpm() {
            draft.act(read_sources());
        }
        let service = format!("{}.service", draft.context.conventions.service("chrony"));
        return enable(draft, &service);
    }
    // timesyncd takes a pool's name as any other.
    draft.need("systemd-timesyncd", "sets the clock from the network");
    let path = format!("/etc/systemd/timesyncd.conf.d/{file}.conf");
    draft.write(path, 0o644, format!("[Time]\nNTP={host}\n"));
    enable(draft, "systemd-timesyncd.service");
}

/// Debian's chrony.conf reads the directory of sources already.
fn read_sources() -> Action {
    const LINE: &str = "sourcedir /etc/chrony/sources.d";
    let script = format!("grep -qxF '{LINE}' /etc/chrony.conf || echo '{LINE}' >>/etc/chrony.conf");
    Action::Run {
        argv: vec!["sh".to_owned(), "-c".to_owned(), script],
        purpose: "having chrony read its directory of sources".to_owned(),
        only_if_present: false,
    }
}

fn enable(draft: &mut Draft<'_>, unit: &str) {
    draft.act(Action::Units {
        disable: Vec::new(),
        enable: vec![unit.to_owned()],
    });
}
