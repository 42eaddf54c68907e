//! The events of an attempt: one JSON object a line, written whole.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::executor::request::{Event, What};
use crate::wire::time;

/// Where events go.
#[derive(Debug)]
pub(super) struct Events(Mutex<File>);

impl Events {
    /// Opens the file for what comes next.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Events(Mutex::new(file)))
    }

    /// Writes one; it is on the disk when this returns.
    pub(super) fn write(&self, what: What) -> io::Result<()> {
        let event = Event {
            time: time::now(),
            what,
        };
        let mut line = serde_json::to_vec(&event)?;
        line.push(b'\n');
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&line)?;
        file.sync_data()
    }
}
