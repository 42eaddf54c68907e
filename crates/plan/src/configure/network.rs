//! `network`: the host name, and profiles for NetworkManager.
//!
//! A line that says nothing but `--hostname` needs no package. Every other line becomes a keyfile in
//! `/etc/NetworkManager/system-connections` (nm-settings-keyfile(5)), as the installer writes them.

mod address;
mod keyfile;
mod members;
mod profile;

use super::{Action, draft::Draft};
use keyfile::Keyfile;
use profile::Profile;

const DIRECTORY: &str = "/etc/NetworkManager/system-connections";

pub(super) fn lower(draft: &mut Draft<'_>) {
    if let Some(name) = draft.command.text("--hostname").map(str::to_owned) {
        match check_host_name(&name) {
            Ok(()) => draft.act(Action::HostName { name }),
            Err(reason) => draft.error(
                format!("--hostname={name}: {reason}"),
                "for example --hostname=lab",
            ),
        }
    }
    if draft.command.options.iter().all(|o| o.name == "--hostname") {
        return;
    }
    draft.without_effect(&[
        (
            "--ethtool",
            "write a profile for NetworkManager in %post, or a systemd .link file",
        ),
        (
            "--wepkey",
            "WEP is broken, and the kernel's drivers have given it up; use --wpakey",
        ),
        ("--dhcpclass", "NetworkManager sends its own vendor class"),
    ]);
    if draft.command.flag("--activate")
        || draft.command.flag("--no-activate")
        || draft.command.flag("--notksdevice")
    {
        draft.note("--activate, --no-activate and --notksdevice are about the installer; --onboot=no keeps a profile down");
    }
    let Some(profile) = Profile::read(draft) else {
        return;
    };
    let managed = draft.want("network-manager", "loads the connection's profile");
    if profile.ssid.is_some() {
        draft.want("wpasupplicant", "joins wireless networks");
    }
    if profile.is_team() {
        draft.want("libteam-utils", "runs teams of devices");
    }
    for file in profile.keyfiles() {
        write(draft, &file);
    }
    if managed {
        draft.act(Action::Units {
            disable: Vec::new(),
            enable: vec!["NetworkManager.service".to_owned()],
        });
    }
}

/// NetworkManager reads only files that nobody but root can read.
fn write(draft: &mut Draft<'_>, file: &Keyfile) {
    let path = format!("{DIRECTORY}/{}.nmconnection", file.name());
    if file.has_secret() {
        draft.act(Action::WriteSecretFile {
            path,
            content: super::Secret::new(file.text()),
        });
    } else {
        draft.write(path, 0o600, file.text());
    }
}

/// hostname(7): labels of letters, digits and dashes; 64 bytes is what the kernel holds.
pub(super) fn check_host_name(name: &str) -> Result<(), &'static str> {
    let label = |l: &str| {
        let fine = l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        !l.is_empty() && l.len() <= 63 && fine && !l.starts_with('-') && !l.ends_with('-')
    };
    if name.is_empty() {
        return Err("is empty");
    }
    if name.len() > 64 {
        return Err("is longer than 64 bytes");
    }
    if !name.split('.').all(label) {
        return Err("is not a host name: labels of letters, digits and dashes, joined by dots");
    }
    Ok(())
}
