//! The end of a test boot: failed units, the caller's script, the picture, the report and its files.

use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::agent;
use crate::boot_state::{BootState, no_result, round};
use crate::error::{Error, Result};
use crate::report::{FailedUnit, Reason, Report, Verdict};
use crate::request::Expect;
use crate::screen::{Drawn, Picture};

use super::Run;

/// How long start-up jobs may still run once the expected state is reached.
const SETTLE: Duration = Duration::from_secs(90);
/// How long the list of failed units may take.
const COLLECT: Duration = Duration::from_secs(60);

impl Run<'_> {
    /// Asks for failed units, runs the script, takes the picture and writes the files.
    pub(super) fn conclude(
        mut self,
        verdict: Verdict,
        drawn: Option<Drawn>,
        note: Option<String>,
    ) -> Result<Report> {
        let seconds = round(self.start.elapsed().as_secs_f64());
        let reached = verdict == Verdict::Passed;
        self.gather_units(&verdict)?;
        let picture = self.machine.picture();
        let mut verdict = self.with_units(verdict);
        if reached && self.request.script.is_some() {
            verdict = self.run_script(verdict)?;
        }
        self.boot.finish_log(Instant::now());
        self.flush()?;
        let report = self.report(verdict, drawn, note, seconds, picture.as_ref());
        self.publish(&report, picture.as_ref())?;
        Ok(report)
    }

    fn gather_units(&mut self, verdict: &Verdict) -> Result<()> {
        let alive = !matches!(
            verdict,
            Verdict::Failed {
                reason: Reason::KernelPanic | Reason::Died,
                ..
            }
        );
        let reached = *verdict == Verdict::Passed;
        if !self.boot.observed() || !alive {
            if reached {
                self.boot.warn(
                    "the observer did not start in the guest: failed units were not looked for"
                        .to_owned(),
                );
            }
            return Ok(());
        }
        let (settle, collect) = (SETTLE.mul_f64(self.pace()), COLLECT.mul_f64(self.pace()));
        if reached && !self.pump_until(settle, |boot| boot.settled_at.is_some())? {
            self.boot
                .warn("start-up jobs of systemd are still waiting".to_owned());
        }
        self.machine.tell(agent::COLLECT);
        if !self.pump_until(collect, |boot| boot.collected)? {
            self.boot
                .warn("the guest did not list its failed units in time".to_owned());
        } else if !reached {
            self.machine.tell(agent::DIAGNOSE);
            self.pump_until(collect, |boot| boot.diagnosed)?;
        }
        Ok(())
    }

    /// Pumps until `done` or for `limit`; says whether it is done.
    fn pump_until(&mut self, limit: Duration, done: impl Fn(&BootState) -> bool) -> Result<bool> {
        let deadline = Instant::now() + limit;
        while !done(&self.boot) {
            if Instant::now() >= deadline || self.ended.is_some() {
                return Ok(false);
            }
            self.pump()?;
        }
        Ok(true)
    }

    /// A failed unit is a verdict of its own, or the likely cause of a state not reached.
    fn with_units(&self, verdict: Verdict) -> Verdict {
        if self.boot.failed_units.is_empty() {
            return verdict;
        }
        let units = self
            .boot
            .failed_units
            .iter()
            .map(describe)
            .collect::<Vec<_>>()
            .join("; ");
        match verdict {
            Verdict::Passed if self.request.allow_failed_units => Verdict::Passed,
            Verdict::Passed => Verdict::Failed {
                reason: Reason::UnitFailed,
                detail: units,
            },
            Verdict::Failed {
                reason: Reason::NoDesktop | Reason::NoLogin | Reason::UnitFailed,
                detail,
            } => Verdict::Failed {
                reason: Reason::UnitFailed,
                detail: format!("{detail}; failed units: {units}"),
            },
            other => other,
        }
    }

    /// Runs the caller's script. A verdict that is bad already stays.
    fn run_script(&mut self, verdict: Verdict) -> Result<Verdict> {
        if !self.boot.observed() {
            return Ok(worse(
                verdict,
                "it could not be run: the observer did not start in the guest".to_owned(),
            ));
        }
        self.boot.script = Some(no_result());
        self.machine.tell(agent::RUN);
        let limit = self.request.timeout;
        let ended = self.pump_until(limit, |boot| {
            boot.script.as_ref().is_some_and(|s| s.exit_code.is_some())
        })?;
        let code = self
            .boot
            .script
            .as_ref()
            .and_then(|script| script.exit_code);
        Ok(match (ended, code) {
            (true, Some(0)) => verdict,
            (true, code) => worse(
                verdict,
                format!("it ended with exit code {}", code.unwrap_or(-1)),
            ),
            (false, _) => {
                let why = self
                    .ended
                    .clone()
                    .unwrap_or_else(|| format!("it did not end within {} s", limit.as_secs()));
                worse(verdict, why)
            }
        })
    }

    fn report(
        &mut self,
        verdict: Verdict,
        drawn: Option<Drawn>,
        accel_note: Option<String>,
        seconds: f64,
        picture: Option<&Picture>,
    ) -> Report {
        let expect = self.expected().unwrap_or(Expect::Desktop);
        let boot = &mut self.boot;
        let hardware = &self.request.hardware;
        let mut failed_units = std::mem::take(&mut boot.failed_units);
        if failed_units.is_empty() && !boot.collected {
            let unknown = |unit: &String| FailedUnit {
                unit: unit.clone(),
                result: "unknown".into(),
                log: Vec::new(),
            };
            failed_units.extend(boot.console_failed.iter().map(unknown));
        }
        Report {
            verdict,
            image: self.request.image.clone(),
            expect,
            firmware: hardware.firmware,
            bus: hardware.bus,
            accel: self.attempt.engine.into(),
            accel_note,
            memory_mib: hardware.memory_mib,
            cpus: hardware.cpus,
            seconds,
            stages: std::mem::take(&mut boot.stages),
            os: boot.os.take(),
            kernel: boot.kernel.take(),
            system_state: boot.state.take().map(|state| state.system),
            session_user: boot.session.take().map(|session| session.user),
            failed_units,
            logs: std::mem::take(&mut boot.logs),
            drawn,
            screen: picture.map(Picture::figures),
            script: boot.script.take(),
            kernel_args: self.kernel_args.clone(),
            warnings: std::mem::take(&mut boot.warnings),
            console: std::mem::take(&mut boot.console).into(),
        }
    }

    fn publish(&mut self, report: &Report, picture: Option<&Picture>) -> Result<()> {
        let output = &self.request.output;
        let path = output.join("serial.log");
        let mut log = Vec::new();
        self.serial_log
            .rewind()
            .and_then(|()| self.serial_log.read_to_end(&mut log))
            .map_err(|e| Error::file("reading the log for", &path, e))?;
        put(output, "serial.log", &log)?;
        if let Some(picture) = picture {
            let png = picture
                .to_png()
                .map_err(|e| Error::internal("encoding desktop.png").cause(e))?;
            put(output, "desktop.png", &png)?;
        } else {
            // No picture of an earlier boot may pass for this one's.
            let _ = std::fs::remove_file(output.join("desktop.png"));
        }
        let mut json = serde_json::to_vec_pretty(report)
            .map_err(|e| Error::internal("encoding boot.json").cause(e))?;
        json.push(b'\n');
        put(output, "boot.json", &json)
    }
}

fn worse(verdict: Verdict, detail: String) -> Verdict {
    match verdict {
        Verdict::Passed => Verdict::Failed {
            reason: Reason::ScriptFailed,
            detail,
        },
        failed => failed,
    }
}

fn describe(unit: &FailedUnit) -> String {
    let own = |line: &&String| !line.trim().is_empty() && !is_of_the_manager(line, &unit.unit);
    let log = unit
        .log
        .iter()
        .rfind(own)
        .map_or_else(String::new, |line| format!(": {}", line.trim()));
    format!("{} ({}){log}", unit.unit, unit.result)
}

/// Whether systemd says a line about the unit: that it failed, and what it used. The unit's own words say why.
fn is_of_the_manager(line: &str, unit: &str) -> bool {
    let about = line
        .trim()
        .strip_prefix(unit)
        .and_then(|l| l.strip_prefix(": "));
    let about_unit = about.is_some_and(|l| {
        [
            "Consumed ",
            "Deactivated ",
            "Failed with result",
            "Main process exited",
            "Scheduled restart",
        ]
        .iter()
        .any(|start| l.starts_with(start))
    });
    about_unit
        || ["Starting ", "Failed to start ", "Stopped ", "Stopping "]
            .iter()
            .any(|start| line.trim().starts_with(&format!("{start}{unit}")))
}

/// Puts a file into its place by rename.
fn put(dir: &Path, name: &str, content: &[u8]) -> Result<()> {
    let path = dir.join(name);
    let written = || -> std::io::Result<()> {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        let mut file = tempfile::Builder::new()
            .prefix(".kiln-")
            .permissions(mode)
            .tempfile_in(dir)?;
        file.write_all(content)?;
        file.persist(&path)?;
        Ok(())
    };
    written().map_err(|e| Error::file("writing", &path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_unit_is_described_by_its_own_words() {
        let log = [
            "Starting console-setup.service - Set console font and keymap...",
            "setfont: putfont: 512,8x16: failed: -1",
            "console-setup.service: Main process exited, code=exited, status=1/FAILURE",
            "console-setup.service: Failed with result 'exit-code'.",
            "Failed to start console-setup.service - Set console font and keymap.",
            "console-setup.service: Consumed 5.793s CPU time.",
        ];
        let unit = FailedUnit {
            unit: "console-setup.service".into(),
            result: "exit-code".into(),
            log: log.map(str::to_owned).to_vec(),
        };
        assert_eq!(
            describe(&unit),
            "console-setup.service (exit-code): setfont: putfont: 512,8x16: failed: -1"
        );
    }
}
