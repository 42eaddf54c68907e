//! systemd units, by the root's own `systemctl` on files alone.

use std::fs;
use std::path::Path;

use super::error::{Fault, Result};
use super::run::words;
use super::{Executor, files};
use kiln_plan::configure::did_you_mean;

/// Where units come from, most specific first (systemd.unit(5)).
const UNIT_DIRS: [&str; 4] = [
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// What was asked for, for whoever applies presets later: a first boot without a machine id enables everything that
/// no preset disables (systemd.preset(5)).
const PRESETS: &str = "/etc/systemd/system-preset/10-kickstart.preset";

impl Executor<'_> {
    /// Disables first, then enables, so that a unit that is in both lists ends up enabled.
    pub(super) fn units(&mut self, disable: &[String], enable: &[String]) -> Result {
        let (there, missing): (Vec<&String>, Vec<&String>) =
            disable.iter().partition(|u| exists(u));
        for unit in missing {
            self.say(format!(
                "{unit} is not in the root, so there is nothing to disable"
            ));
        }
        self.systemctl("disable", &there)?;
        for unit in enable {
            if !exists(unit) {
                return Err(missing_unit(unit));
            }
            // One that was masked by a lower layer is wanted now.
            unmask(unit)?;
        }
        self.systemctl("enable", &enable.iter().collect::<Vec<_>>())?;
        let old = files::read_or_empty(PRESETS)?;
        files::write(PRESETS, &with_presets(&old, disable, enable), 0o644)
    }

    fn systemctl(&mut self, verb: &str, units: &[&String]) -> Result {
        if units.is_empty() {
            return Ok(());
        }
        let mut argv = words(["systemctl", "--no-reload", verb]);
        argv.extend(units.iter().map(|u| (*u).clone()));
        self.run(&argv, None)
    }

    pub(super) fn default_target(&mut self, target: &str) -> Result {
        if !exists(target) {
            return Err(missing_unit(target));
        }
        if target == "graphical.target" && !is_there("/etc/systemd/system/display-manager.service")
        {
            self.say("no display manager is installed yet: graphical.target will show a text console without one");
        }
        self.run(
            &words(["systemctl", "--no-reload", "set-default", target]),
            None,
        )
    }

    /// Sets the session for the display managers that have a file for it, and for `startx`.
    pub(super) fn desktop_session(&mut self, session: &str, manager: &str) -> Result {
        let there = ["/usr/share/xsessions", "/usr/share/wayland-sessions"]
            .iter()
            .any(|dir| Path::new(dir).join(format!("{session}.desktop")).exists());
        if !there {
            return Err(
                Fault::definition(format!("the root has no session {session}"))
                    .hint("add the desktop's packages to %packages of this layer or of one below"),
            );
        }
        if is_there("/usr/sbin/lightdm") {
            let path = "/etc/lightdm/lightdm.conf.d/50-kickstart-session.conf";
            files::write(path, &format!("[Seat:*]\nuser-session={session}\n"), 0o644)?;
        }
        if is_there("/usr/bin/sddm") {
            let path = "/etc/sddm.conf.d/50-kickstart-session.conf";
            files::write(
                path,
                &format!("[Desktop]\nSession={session}.desktop\n"),
                0o644,
            )?;
        }
        if is_there(manager) {
            self.run(
                &words(["update-alternatives", "--set", "x-session-manager", manager]),
                None,
            )?;
        }
        Ok(())
    }
}

/// The preset file with one line for each unit that is named; the first line for a unit would count.
fn with_presets(old: &str, disable: &[String], enable: &[String]) -> String {
    let unit_of = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
    let is_named = |unit: &String| disable.contains(unit) || enable.contains(unit);
    let kept = old
        .lines()
        .filter(|l| !unit_of(l).is_some_and(|u| is_named(&u)))
        .map(str::to_owned);
    let off = disable
        .iter()
        .filter(|u| !enable.contains(u))
        .map(|u| format!("disable {u}"));
    let on = enable.iter().map(|u| format!("enable {u}"));
    kept.chain(off).chain(on).map(|l| l + "\n").collect()
}

fn is_there(path: &str) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Whether a unit, or the template that it is an instance of, is in the root. A SysV script counts as its service.
fn exists(unit: &str) -> bool {
    let template = unit.split_once('@').and_then(|(head, tail)| {
        tail.rsplit_once('.')
            .map(|(_, ending)| format!("{head}@.{ending}"))
    });
    let in_dirs = |name: &str| {
        UNIT_DIRS.iter().any(|dir| {
            let path = Path::new(dir).join(name);
            // A masked unit (a link to /dev/null) has its real file further down.
            fs::symlink_metadata(&path).is_ok() && !is_mask(&path)
        })
    };
    let script = unit
        .strip_suffix(".service")
        .map(|s| format!("/etc/init.d/{s}"));
    in_dirs(unit) || template.is_some_and(|t| in_dirs(&t)) || script.is_some_and(|s| is_there(&s))
}

fn is_mask(path: &Path) -> bool {
    fs::read_link(path).is_ok_and(|to| to == Path::new("/dev/null"))
}

fn unmask(unit: &str) -> Result {
    let path = format!("/etc/systemd/system/{unit}");
    if is_mask(Path::new(&path)) {
        files::remove(&path)
    } else {
        Ok(())
    }
}

pub(super) fn mask(units: &[String]) -> Result {
    units
        .iter()
        .try_for_each(|u| files::symlink(&format!("/etc/systemd/system/{u}"), "/dev/null"))
}

fn missing_unit(unit: &str) -> Fault {
    let mut known = Vec::new();
    for dir in UNIT_DIRS {
        let Ok(entries) = fs::read_dir(dir) else {
            continue;
        };
        known.extend(
            entries
                .flatten()
                .map(|e| e.file_name().to_string_lossy().into_owned()),
        );
    }
    let near = did_you_mean(unit, known.iter().map(String::as_str));
    Fault::definition(format!("there is no unit {unit} to enable")).hint(
        format!("{near} add the package that brings it to %packages of this layer or of one below")
            .trim(),
    )
}

#[cfg(test)]
mod tests {
    use super::with_presets;

    #[test]
    fn the_last_word_on_a_unit_is_the_only_one() {
        let units = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let first = with_presets(
            "",
            &units(&["cups.service", "ssh.service"]),
            &units(&["cron.service"]),
        );
        assert_eq!(
            first,
            "disable cups.service\ndisable ssh.service\nenable cron.service\n"
        );
        let second = with_presets(&first, &units(&["cron.service"]), &units(&["ssh.service"]));
        assert_eq!(
            second,
            "disable cups.service\ndisable cron.service\nenable ssh.service\n"
        );
    }
}
