//! What a build leaves in the output directory.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use kiln_packages::{Lock, TOOLS};
use kiln_plan::Format;
use kiln_rootfs::finish::{Finished, Installed};
use serde_json::{Value, json};

use crate::ids::image_id;
use crate::io::write_failure;
use crate::means::output::{Artifact, Output, RAW, TAR_GZ};
use crate::request::BuildReport;
use crate::steps::Steps;
use crate::values::{Made, Resolved};
use crate::{Cancel, Event, Failure, FailureKind, Unit};

const MANIFEST: &str = "manifest.json";
const PACKAGES: &str = "packages.txt";
pub(crate) const LOG: &str = "build.log";

/// A finished image, and what is said of it.
pub(crate) struct Publication<'a> {
    pub(crate) resolved: &'a Resolved,
    pub(crate) finished: &'a Finished,
    pub(crate) made: &'a Made,
    /// The image's clock.
    pub(crate) epoch: i64,
    pub(crate) output: &'a Output,
    pub(crate) steps: &'a Steps<'a>,
}

impl Publication<'_> {
    /// Writes manifest, package list and log, and moves everything to its place, the manifest last.
    pub(crate) fn publish(&self, cancel: &Cancel) -> Result<BuildReport, Failure> {
        let (output, steps) = (self.output, self.steps);
        output.write(PACKAGES, listed(&self.finished.packages).as_bytes())?;
        let formats = self.resolved.plan.formats.iter();
        let images: Vec<&'static str> = formats.map(|f| file_name(*f)).collect();
        let described = self.describe(&images)?;
        let text = serde_json::to_string_pretty(&self.manifest(&described)).map_err(|e| {
            Failure::new(FailureKind::Internal, "the manifest cannot be written down")
                .cause(e.to_string())
        })?;
        output.write(MANIFEST, format!("{text}\n").as_bytes())?;
        let copied = steps.copy_log(output.create(LOG)?);
        copied.map_err(|error| write_failure(&output.path(LOG), &error))?;
        let names: Vec<_> = images
            .into_iter()
            .chain([PACKAGES, LOG, MANIFEST])
            .collect();
        let artifacts = place(output, &names, cancel, |name, path| {
            let mut images = described.iter().filter(|a| a.name != PACKAGES);
            if let Some(artifact) = images.find(|a| a.name == name) {
                steps.emit(Event::Artifact {
                    path: path.to_owned(),
                    bytes: artifact.bytes,
                    allocated: artifact.allocated,
                    kept: false,
                });
            }
        })?;
        Ok(BuildReport {
            output: output.dir().to_owned(),
            artifacts,
            seconds: steps.seconds(),
        })
    }

    fn describe(&self, images: &[&'static str]) -> Result<Vec<Artifact>, Failure> {
        let known = |name: &str| self.made.digests.get(name).map(String::as_str);
        let describe = |name: &&'static str| self.output.describe(name, known(name));
        let title = "hashing the artifacts";
        self.steps.step(title, None, Unit::Bytes, |_| {
            std::thread::scope(|scope| {
                let hashers: Vec<_> = images
                    .iter()
                    .chain(&[PACKAGES])
                    .map(|name| scope.spawn(move || describe(name)))
                    .collect();
                hashers
                    .into_iter()
                    .map(|hasher| hasher.join().unwrap_or_else(|_| Err(panicked())))
                    .collect()
            })
        })
    }

    fn manifest(&self, artifacts: &[Artifact]) -> Value {
        let Resolved { plan, lock, .. } = self.resolved;
        let (finished, made, steps) = (self.finished, self.made, self.steps);
        let layer = |name: &String| {
            let slice: Vec<_> = lock.of_layer(name).collect();
            json!({ "name": name, "packages": slice.len(), "bytes": slice.iter().map(|p| p.size).sum::<u64>() })
        };
        json!({
            "format": 1,
            "name": plan.name,
            "target": lock.target,
            "image": image_id(self.resolved).to_string(),
            "plan": plan.id().to_string(),
            "lock": lock.id().to_string(),
            "kiln": env!("CARGO_PKG_VERSION"),
            "source-date-epoch": self.epoch,
            "kernel": made.kernel,
            "packages": with_origins(&finished.packages, lock),
            "layers": lock.layers.iter().map(layer).collect::<Vec<_>>(),
            "root": made.squashed,
            "secrets": finished.secrets,
            "kernels": finished.kernels.found,
            "compression": plan.compression,
            "artifacts": artifacts,
            "warnings": steps.warnings(),
            "steps": steps.timings(),
            "seconds": steps.seconds(),
        })
    }
}

/// Moves finished artifacts to their places, the last one last. What was there stays until each is whole, and all of it where the build
/// is cancelled before.
fn place(
    output: &Output,
    names: &[&str],
    cancel: &Cancel,
    placed: impl Fn(&str, &Path),
) -> Result<Vec<PathBuf>, Failure> {
    cancel.check()?;
    let place = |name: &&str| {
        let path = output.publish(name)?;
        placed(name, &path);
        Ok(path)
    };
    names.iter().map(place).collect()
}

fn panicked() -> Failure {
    Failure::new(FailureKind::Internal, "hashing an artifact panicked")
}

fn file_name(format: Format) -> &'static str {
    match format {
        Format::Raw => RAW,
        Format::TarGz => TAR_GZ,
    }
}

/// Name, version and architecture of every package of the image, sorted.
fn listed(packages: &[Installed]) -> String {
    packages
        .iter()
        .map(|p| format!("{}\t{}\t{}\n", p.name, p.version, p.architecture))
        .collect()
}

/// Every package of the image, with the layer that the lock has it in, or `script` where the lock has no such package: then a
/// script installed it.
fn with_origins(packages: &[Installed], lock: &Lock) -> Vec<Value> {
    let locked = lock.packages.iter().filter(|p| p.layer != TOOLS);
    let locked: HashMap<_, _> = locked
        .map(|p| ((&p.name, &p.version, &p.architecture), p.layer.as_str()))
        .collect();
    let described = |p: &Installed| {
        let layer = locked.get(&(&p.name, &p.version, &p.architecture));
        json!({ "name": p.name, "version": p.version, "architecture": p.architecture, "origin": layer.unwrap_or(&"script") })
    };
    packages.iter().map(described).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::space::Space;

    /// An output directory with the artifacts of a build before, and those of this one in the making.
    fn built() -> (tempfile::TempDir, Output) {
        let dir = tempfile::tempdir().expect("a directory");
        for name in [RAW, MANIFEST] {
            fs::write(dir.path().join(name), "before").expect("an artifact");
        }
        let output = Output::open(dir.path()).expect("an output directory");
        output.write(RAW, b"now").expect("an artifact");
        (dir, output)
    }

    fn there(dir: &tempfile::TempDir) -> Vec<String> {
        let read = |name| fs::read_to_string(dir.path().join(name)).expect("an artifact");
        [RAW, MANIFEST].map(read).into()
    }

    #[test]
    fn what_was_there_stays_until_the_new_one_is_whole() {
        let (dir, output) = built();
        let cancel = Cancel::new().expect("a token");
        assert_eq!(there(&dir), ["before", "before"]);
        // One artifact is not there: nothing after it is moved, the manifest last of all.
        let missing = place(&output, &[TAR_GZ, RAW, MANIFEST], &cancel, |_, _| {});
        assert!(missing.is_err());
        assert_eq!(there(&dir), ["before", "before"]);
        output.write(MANIFEST, b"now").expect("an artifact");
        let seen = std::cell::RefCell::new(Vec::new());
        let placed = place(&output, &[RAW, MANIFEST], &cancel, |name, _| {
            seen.borrow_mut().push(name.to_owned());
        });
        assert_eq!(
            placed.expect("moved"),
            [RAW, MANIFEST].map(|name| dir.path().join(name))
        );
        assert_eq!(seen.into_inner(), [RAW, MANIFEST]);
        assert_eq!(there(&dir), ["now", "now"]);
        drop(output);
        assert_eq!(dir.path().read_dir().expect("it").count(), 2);
    }

    #[test]
    fn a_build_that_is_cancelled_while_it_describes_its_artifacts_moves_none() {
        let (dir, output) = built();
        output.write(MANIFEST, b"now").expect("an artifact");
        let cancel = Cancel::new().expect("a token");
        cancel.cancel();
        let failure = place(&output, &[RAW, MANIFEST], &cancel, |_, _| panic!("moved"));
        assert_eq!(failure.expect_err("cancelled").kind, FailureKind::Cancelled);
        drop(output);
        assert_eq!(there(&dir), ["before", "before"]);
        assert_eq!(dir.path().read_dir().expect("it").count(), 2);
    }

    /// `/dev/full` is a disk that is.
    #[test]
    fn a_full_disk_is_told_and_leaves_what_was_there() {
        let (dir, output) = built();
        std::os::unix::fs::symlink("/dev/full", output.path(MANIFEST)).expect("a link");
        let failure = output.write(MANIFEST, b"now").expect_err("full");
        let space = Space::new(&dir.path().join("cache"), Some(dir.path()));
        let failure = space.explain(failure);
        assert_eq!(failure.kind, FailureKind::Environment);
        let said = format!(
            "the disk that holds the output directory is full: {}",
            dir.path().display()
        );
        assert_eq!(failure.message, said);
        drop(output);
        assert_eq!(there(&dir), ["before", "before"]);
    }
}
