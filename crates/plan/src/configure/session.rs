//! `xconfig`, `skipx`, `firstboot` and `eula`.

use super::{Action, draft::Draft};

/// Desktops by the names that kickstart files give them: session file, program behind `x-session-manager`.
const DESKTOPS: &[(&str, &str, &str)] = &[
    ("gnome", "gnome", "/usr/bin/gnome-session"),
    (
        "gnome-classic",
        "gnome-classic",
        "/usr/bin/gnome-session-classic",
    ),
    ("kde", "plasma", "/usr/bin/startplasma-x11"),
    ("plasma", "plasma", "/usr/bin/startplasma-x11"),
    ("xfce", "xfce", "/usr/bin/startxfce4"),
    ("xfce4", "xfce", "/usr/bin/startxfce4"),
    ("lxde", "LXDE", "/usr/bin/startlxde"),
    ("lxqt", "lxqt", "/usr/bin/startlxqt"),
    ("mate", "mate", "/usr/bin/mate-session"),
    ("cinnamon", "cinnamon", "/usr/bin/cinnamon-session-cinnamon"),
];

pub(super) fn xconfig(draft: &mut Draft<'_>, skipx: bool) {
    draft.without_effect(&[
        ("--driver", "X finds its driver itself"),
        ("--resolution", "X finds the screen's own resolution"),
        ("--depth", "X finds the screen's own depth"),
        ("--videoram", "X asks the card"),
    ]);
    if let Some(desktop) = draft.command.text("--defaultdesktop") {
        match DESKTOPS
            .iter()
            .find(|(name, ..)| name.eq_ignore_ascii_case(desktop))
        {
            // What prefdm and startx read there.
            Some(_) if draft.is_rpm() => draft.act(Action::SetVariables {
                path: "/etc/sysconfig/desktop".to_owned(),
                variables: vec![("DESKTOP".to_owned(), desktop.to_ascii_uppercase())],
            }),
            Some((_, session, manager)) => draft.act(Action::DesktopSession {
                session: (*session).to_owned(),
                manager: (*manager).to_owned(),
            }),
            None => {
                let known: Vec<&str> = DESKTOPS.iter().map(|(name, ..)| *name).collect();
                draft.error(
                    format!("--defaultdesktop={desktop}: not a desktop that Kiln knows"),
                    known.join(", "),
                );
            }
        }
    }
    if !draft.command.flag("--startxonboot") {
        return;
    }
    if skipx {
        return draft.error("--startxonboot contradicts skipx", "drop one of them");
    }
    draft.act(Action::DefaultTarget {
        target: "graphical.target".to_owned(),
    });
}

pub(super) fn skipx(draft: &mut Draft<'_>) {
    draft.act(Action::DefaultTarget {
        target: "multi-user.target".to_owned(),
    });
}

pub(super) fn firstboot(draft: &mut Draft<'_>) {
    let off = ["--disable", "--disabled"];
    match draft.switch(&["--enable", "--enabled", "--reconfig"], &off) {
        Some(true) if draft.is_rpm() => {
            if !draft.want("initial-setup", "asks for accounts at the first boot") {
                return;
            }
            draft.act(Action::Units {
                disable: Vec::new(),
                enable: vec!["initial-setup.service".to_owned()],
            });
        }
        Some(true) => {
            let message =
                "is not enabled: Debian has no setup program for the first boot but GNOME's";
            draft.warn(
                message,
                "add gnome-initial-setup to %packages, or write a unit in %post",
            );
        }
        // The reference's default is to leave it disabled as well.
        Some(false) | None => {
            draft.act(Action::MaskUnits {
                units: vec!["systemd-firstboot.service".to_owned()],
            });
            if draft.is_rpm() {
                return draft.act(Action::Units {
                    disable: vec!["initial-setup.service".to_owned()],
                    enable: Vec::new(),
                });
            }
            draft.act(Action::SetKey {
                path: "/etc/gdm3/daemon.conf".to_owned(),
                section: "daemon".to_owned(),
                key: "InitialSetupEnable".to_owned(),
                value: "false".to_owned(),
                only_if_present: true,
            });
        }
    }
}

pub(super) fn eula(draft: &mut Draft<'_>) {
    if draft.switch(&["--agreed", "--agree", "--accepted", "--accept"], &[]) == Some(true) {
        draft.note("is recorded: nothing in the image asks for it");
    } else {
        draft.warn("does not agree to anything", "write `eula --agreed`");
    }
}
