//! A directory served on the loopback interface, by the tests' mirror.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::Result;

/// A server of a directory, ended when dropped.
pub(crate) struct Mirror(Child);

impl Mirror {
    /// Starts it; returns its address as well.
    pub(crate) fn serve(program: &Path, directory: &Path) -> Result<(Mirror, String)> {
        let mut command = Command::new(program);
        command.arg(directory).stdout(Stdio::piped());
        let child = command.spawn();
        let mut child = child.map_err(|error| format!("starting the mirror: {error}"))?;
        let output = child.stdout.take();
        let mirror = Mirror(child);
        let mut url = String::new();
        if let Some(output) = output {
            let read = BufReader::new(output).read_line(&mut url);
            read.map_err(|error| format!("reading the mirror's address: {error}"))?;
        }
        match url.trim() {
            "" => Err("the mirror did not start".to_owned()),
            url => Ok((mirror, url.to_owned())),
        }
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
