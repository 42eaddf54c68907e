//! What is kept of builds that fail.
//!
//! ```text
//! <state>/failed/<time>-<pid>-…/  0700, the newest ones sort last; flock'ed while its build runs
//!   build.log                     everything that every step printed, written as it comes
//!   failure.json                  why it failed; absent where the build was killed
//! ```
//! A build writes its log here, not where the artifacts are: a log beside the artifacts of the last success is theirs. When a build
//! succeeds, its log goes to them and this directory away. The newest [`KEPT`] stay.

use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use kiln_rootfs::private::{self, Notice, Private};
use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

use crate::io::{plain, unique};
use crate::output::artifacts::LOG;
use crate::request::BuildRequest;
use crate::steps::{Steps, Timing};
use crate::{Failure, FailureKind};

const FAILED: &str = "failed";
/// Below a cache that stands in for the state directory.
const FAILED_BUILDS: &str = "failed-builds";
const FAILURE: &str = "failure.json";
/// Records of failed builds that are kept.
const KEPT: usize = 30;

/// The record of a build. Dropping it removes it, unless the build failed.
pub(crate) struct Record {
    dir: PathBuf,
    keep: bool,
    /// Tells others that the build runs.
    _held: File,
}

/// `failure.json`.
#[derive(Serialize)]
struct Note<'a> {
    kiln: &'static str,
    definition: &'a Path,
    output: &'a Path,
    ended: String,
    seconds: f64,
    failure: &'a Failure,
    warnings: Vec<String>,
    steps: Vec<Timing>,
}

impl Record {
    /// Begins a record below the state directory, or below the cache where there is no such directory and none can be made:
    /// accounts of services often have no home.
    ///
    /// # Errors
    /// Neither can be written, or one belongs to another user.
    pub(crate) fn begin(request: &BuildRequest) -> Result<(Record, Vec<Notice>), Failure> {
        if let Some(state) = &request.state
            && private::make(state).is_ok()
        {
            let notices = Private {
                path: state,
                what: "state directory",
                option: "--state-dir",
                holds: &[FAILED],
            }
            .open()?;
            if let Ok(record) = Record::below(&state.join(FAILED)) {
                return Ok((record, notices));
            }
        }
        kiln_rootfs::store::private(&request.cache).open()?;
        let failed = request.cache.join(FAILED_BUILDS);
        let record = Record::below(&failed).map_err(|error| {
            let message = format!("no log can be written in {}", failed.display());
            Failure::new(FailureKind::Environment, message).cause(plain(&error))
        })?;
        Ok((record, Vec::new()))
    }

    fn below(failed: &Path) -> std::io::Result<Record> {
        private::make(failed)?;
        prune(failed);
        let name = format!("{}-{}", stamp(Timestamp::now()), unique());
        let dir = failed.join(name);
        DirBuilder::new().mode(private::MODE).create(&dir)?;
        let held = File::open(&dir)?;
        flock(&held, FlockOperation::NonBlockingLockExclusive)?;
        let record = Record {
            dir,
            keep: false,
            _held: held,
        };
        record.create(LOG)?;
        Ok(record)
    }

    fn create(&self, name: &str) -> std::io::Result<File> {
        let mut options = File::options();
        options.read(true).write(true).create(true).mode(0o600);
        options.open(self.dir.join(name))
    }

    /// The log, for reading and writing.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn log(&self) -> Result<File, Failure> {
        self.create(LOG).map_err(|error| {
            let message = format!("{} cannot be written", self.dir.join(LOG).display());
            Failure::new(FailureKind::Environment, message).cause(plain(&error))
        })
    }

    /// Keeps the record of a build that failed; the failure names it from now on.
    pub(crate) fn keep(
        mut self,
        mut failure: Failure,
        request: &BuildRequest,
        steps: &Steps<'_>,
    ) -> Failure {
        self.keep = true;
        failure.log = Some(self.dir.join(LOG));
        let note = Note {
            kiln: env!("CARGO_PKG_VERSION"),
            definition: &request.definition,
            output: &request.output,
            ended: Timestamp::now().to_string(),
            seconds: steps.seconds(),
            failure: &failure,
            warnings: steps.warnings(),
            steps: steps.timings(),
        };
        // Where no byte more can be written the failure is told all the same, and the log is there as far as it goes.
        let part = self.dir.join(format!("{FAILURE}.part"));
        let written = serde_json::to_vec_pretty(&note)
            .map_err(std::io::Error::from)
            .and_then(|text| self.create(&format!("{FAILURE}.part"))?.write_all(&text))
            .and_then(|()| fs::rename(&part, self.dir.join(FAILURE)));
        if written.is_err() {
            let _ = fs::remove_file(&part);
        }
        failure
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // A panic is a failure too.
        if !self.keep && !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Removes the oldest records but those of builds that run.
fn prune(failed: &Path) {
    let mut dirs: Vec<PathBuf> = fs::read_dir(failed)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    dirs.sort();
    // One more is about to come.
    let old = dirs.len().saturating_sub(KEPT - 1);
    for dir in dirs.iter().take(old) {
        let alone = |dir: File| flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok();
        if File::open(dir).is_ok_and(alone) {
            let _ = fs::remove_dir_all(dir);
        }
    }
}

/// `2026-11-28T09-15-02.123Z`: a time of UTC that is a file name and sorts.
fn stamp(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H-%M-%S%.3fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_times() {
        let time = Timestamp::from_millisecond(951_782_399_007).expect("a time");
        assert_eq!(stamp(time), "2000-02-28T23-59-59.007Z");
    }

    #[test]
    fn the_newest_records_stay_and_those_of_running_builds() {
        let state = tempfile::tempdir().expect("a directory");
        let failed = state.path().join("failed");
        let running = Record::below(&failed).expect("a record");
        for count in 0..2 * KEPT {
            fs::create_dir(failed.join(format!("9999-{count:04}"))).expect("a record");
        }
        prune(&failed);
        let left = fs::read_dir(&failed).expect("a directory").count();
        assert_eq!(left, KEPT, "the running one stays in spite of its age");
        assert!(running.dir.join(LOG).exists());
        let dir = running.dir.clone();
        drop(running);
        assert!(!dir.exists(), "a build that did not fail leaves no record");
    }
}
