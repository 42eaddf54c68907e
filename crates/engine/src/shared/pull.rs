//! From the shared cache into the store.

use std::fs::File;
use std::os::fd::OwnedFd;

use kiln_plan::Id;
use kiln_rootfs::{Layer, Place, Quiet, Reporter, Store, archive};
use kiln_sandbox::Root;
use kiln_share::Record;
use rustix::pipe::{PipeFlags, pipe_with};

use super::{ARCHIVE, LAYERS, Shared, is_attachment};
use crate::steps::{Step, Steps, locked};
use crate::{Failure, Unit};

impl Shared {
    /// Gets a layer into the store, if the shared cache has it whole.
    pub(crate) fn pull(
        &self,
        store: &Store,
        steps: &Steps<'_>,
        id: Id,
        layer: Option<&str>,
    ) -> Option<Layer> {
        let name = id.to_string();
        if locked(&self.missed).contains(&name) || self.share.is_given_up() {
            return None;
        }
        let pulled = self.find(steps, LAYERS, &name).and_then(|record| {
            let title = format!("fetching `{}` from the shared cache", title(&record));
            let work = |step: &Step<'_, '_>| Ok(self.try_pull(store, steps, step, id, &record));
            steps.step(&title, layer, Unit::Bytes, work).ok().flatten()
        });
        match &pulled {
            Some(_) => locked(&self.pulled).insert(id),
            None => locked(&self.missed).insert(name),
        };
        pulled
    }

    /// A record whose seal is right.
    pub(super) fn find(&self, steps: &Steps<'_>, kind: &str, id: &str) -> Option<Record> {
        if self.share.is_given_up() {
            return None;
        }
        let found = self.share.find(kind, id);
        found.unwrap_or_else(|error| {
            super::warn(steps, &error);
            None
        })
    }

    /// Ids of results for a key, the newest first.
    pub(crate) fn newest(&self, steps: &Steps<'_>, kind: &str, most: usize) -> Vec<Id> {
        if self.share.is_given_up() {
            return Vec::new();
        }
        let names = self.share.newest(kind, most).unwrap_or_else(|error| {
            super::warn(steps, &error);
            Vec::new()
        });
        names.iter().filter_map(|name| name.parse().ok()).collect()
    }

    fn try_pull(
        &self,
        store: &Store,
        steps: &Steps<'_>,
        step: &Step<'_, '_>,
        id: Id,
        record: &Record,
    ) -> Option<Layer> {
        let trouble = match self.receive(store, step, id, record) {
            Ok(layer) => {
                step.summarise(format!("{} MB", record.size() / 1_000_000));
                return Some(layer);
            }
            Err(trouble) => trouble,
        };
        step.summarise("it cannot be used".to_owned());
        locked(&self.spoiled).insert(id);
        match trouble {
            Trouble::Share(error) => super::warn(steps, &error),
            // The end of the build says that it was stopped.
            Trouble::Local(failure) if failure.kind == crate::FailureKind::Cancelled => {}
            Trouble::Local(failure) => {
                let cause = failure.causes.join(": ");
                let message = format!("shared cache: layers/{id}: {}: {cause}", failure.message);
                steps.warn(message, None, Some("it counts as missing".to_owned()));
            }
        }
        None
    }

    fn receive(
        &self,
        store: &Store,
        step: &Step<'_, '_>,
        id: Id,
        record: &Record,
    ) -> Result<Layer, Trouble> {
        let staging = store.stage().map_err(Failure::from)?;
        let place = Place {
            sandbox: store.sandbox(),
            root: Root::Dir {
                path: staging.fs(),
                writable: true,
            },
            epoch: 0,
            reporter: &Quiet,
            cancel: &self.cancel,
            tracer: None,
        };
        let (total, mut done) = (record.size(), 0);
        let mut progress = |bytes: u64| {
            done += bytes;
            step.progress(done, Some(total), None);
            !self.cancel.is_cancelled()
        };
        let none = Vec::new();
        let archive = record.files.get(ARCHIVE).unwrap_or(&none);
        let (from, to) = pipe()?;
        std::thread::scope(|scope| {
            let sent = scope.spawn(|| {
                let mut to = to;
                self.share.fetch(archive, &mut to, &mut progress)
            });
            let unpacked = archive::unpack_layer(&place, from);
            // What ended the archive early is the cause, not that it ended early.
            match sent.join() {
                Ok(Err(error)) if error.kind() != kiln_share::ErrorKind::Local => Err(error.into()),
                _ => unpacked.map_err(|error| Trouble::from(Failure::from(error))),
            }
        })?;
        for (name, chunks) in record.files.iter().filter(|(name, _)| is_attachment(name)) {
            let content = self.share.fetch_whole(chunks)?;
            staging.attach(name, &content).map_err(Failure::from)?;
        }
        let facts = record.facts["facts"].clone();
        Ok(staging
            .commit(id, title(record), facts)
            .map_err(Failure::from)?)
    }
}

/// What people are told of a layer; nothing else depends on it.
fn title(record: &Record) -> &str {
    record.facts["title"].as_str().unwrap_or("a layer")
}

/// Why a layer did not come.
enum Trouble {
    Share(kiln_share::Error),
    Local(Box<Failure>),
}

impl From<kiln_share::Error> for Trouble {
    fn from(error: kiln_share::Error) -> Self {
        Trouble::Share(error)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Trouble::Local(Box::new(failure))
    }
}

/// A pipe: where to read, where to write.
pub(super) fn pipe() -> Result<(OwnedFd, File), Failure> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| {
        Failure::new(crate::FailureKind::Environment, "making a pipe").cause(e.to_string())
    })?;
    Ok((read, File::from(write)))
}
