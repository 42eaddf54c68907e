//! A server in a directory of its own, for chores that measure one or try to break it.

mod http;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::peer::{afresh, trouble};
use crate::{Result, process};
pub(crate) use http::Client;

/// How long a build of a measurement may take.
const LONGEST: Duration = Duration::from_secs(1800);
/// In which the kernel counts a second of a processor towards programs.
const TICKS: f64 = 100.0;
pub(crate) const PROJECT: &str = "bench";

/// A running server, which ends when dropped.
pub(crate) struct Server {
    child: Child,
    data: PathBuf,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts a server over an empty directory; with `options`, besides where it listens and keeps things.
    pub(crate) fn start(
        kiln: &Path,
        data: &Path,
        cache: &Path,
        options: &[&str],
    ) -> Result<Server> {
        afresh(data)?;
        Server::over(kiln, data, cache, options)
    }

    /// Starts a server over what another one left.
    pub(crate) fn over(kiln: &Path, data: &Path, cache: &Path, options: &[&str]) -> Result<Server> {
        let mut command = Command::new(kiln);
        command.args(["serve", "--listen", "127.0.0.1:0", "--open-to-this-machine"]);
        command
            .arg("--data")
            .arg(data)
            .arg("--build-cache")
            .arg(cache);
        command
            .args(options)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let described = process::describe(&command);
        let mut child = command
            .spawn()
            .map_err(|e| format!("`{described}` could not be started: {e}"))?;
        let mut lines = child
            .stderr
            .take()
            .map(BufReader::new)
            .into_iter()
            .flat_map(BufRead::lines);
        let address = lines.find_map(|line| {
            let line = line.ok()?;
            let (_, address) = line.split_once("http://")?;
            address.trim_end_matches('/').parse().ok()
        });
        let Some(address) = address else {
            // It has ended, or says nothing that is understood.
            let _ = child.kill();
            let status = child.wait();
            return Err(format!("`{described}` names no address: {status:?}"));
        };
        // What it says later is read as well, so that it never writes to nobody.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Server {
            child,
            data: data.to_owned(),
            address,
        })
    }

    pub(crate) fn client(&self) -> Result<Client> {
        Client::connect(self.address)
    }

    /// The most memory that it had, in MiB: proc_pid_status(5).
    pub(crate) fn peak_memory(&self) -> Result<f64> {
        let path = format!("/proc/{}/status", self.child.id());
        let path = Path::new(&path);
        let text = std::fs::read_to_string(path).map_err(trouble("reading", path))?;
        let kib = text.lines().find_map(|line| {
            let value = line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?;
            value.trim().parse::<f64>().ok()
        });
        kib.map(|kib| kib / 1024.0)
            .ok_or_else(|| format!("{} has no VmHWM", path.display()))
    }

    /// Seconds of processors that the server itself has used, and those of its builds' processes that have ended: proc_pid_stat(5).
    pub(crate) fn processor_time(&self) -> Result<(f64, f64)> {
        let path = format!("/proc/{}/stat", self.child.id());
        let path = Path::new(&path);
        let text = std::fs::read_to_string(path).map_err(trouble("reading", path))?;
        // The name, in parentheses, may have spaces; behind it the 12th word is the first of four times.
        let words = text.rsplit(") ").next().unwrap_or_default();
        let times: Vec<f64> = words
            .split(' ')
            .skip(11)
            .take(4)
            .filter_map(|word| word.parse().ok())
            .collect();
        match times.as_slice() {
            [user, system, users, systems] => {
                Ok(((user + system) / TICKS, (users + systems) / TICKS))
            }
            _ => Err(format!("{} has no times", path.display())),
        }
    }

    /// Ends the server as the kernel does when memory is short, and returns without it.
    pub(crate) fn kill(mut self) -> Result<()> {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed
            .map(drop)
            .map_err(|e| format!("killing the server: {e}"))
    }

    /// The file that a build's first attempt writes its log to.
    pub(crate) fn log(&self, build: &str) -> PathBuf {
        self.data
            .join("builds")
            .join(build)
            .join("attempt-1/log.txt")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// The address of all builds, or below it.
pub(crate) fn builds(rest: &str) -> String {
    format!("/v1/projects/{PROJECT}/locations/global/builds{rest}")
}

/// The address of a build's log as an object.
pub(crate) fn log_address(build: &str) -> String {
    format!("/download/storage/v1/b/{PROJECT}_cloudbuild/o/log-{build}.txt?alt=media")
}

/// How often a build that takes no time is asked for.
pub(crate) const OFTEN: Duration = Duration::from_millis(5);

/// Makes a build and returns its id.
pub(crate) fn create(client: &mut Client, build: &Value) -> Result<String> {
    let answer = client.json("POST", &builds(""), build)?;
    let id = answer.pointer("/metadata/build/id").and_then(Value::as_str);
    id.map(str::to_owned)
        .ok_or_else(|| format!("the answer names no build: {answer}"))
}

/// Waits until a build has succeeded, and asks so often: each question costs the server and its client some tenths of a millisecond of
/// processor time, which the build does not get where all processors are in use.
pub(crate) fn success(client: &mut Client, build: &str, every: Duration) -> Result<()> {
    let since = Instant::now();
    loop {
        let now = client.json("GET", &builds(&format!("/{build}")), &Value::Null)?;
        match now["status"].as_str() {
            Some("SUCCESS") => return Ok(()),
            Some("QUEUED" | "WORKING") if since.elapsed() < LONGEST => {}
            _ => return Err(format!("the build has not succeeded: {now}")),
        }
        std::thread::sleep(every);
    }
}

/// Uploads files as a source, and returns it as a build names it.
pub(crate) fn upload(client: &mut Client, directory: &Path) -> Result<Value> {
    let bucket = format!("{PROJECT}_cloudbuild");
    let make = format!("/storage/v1/b?project={PROJECT}");
    client.request(
        "POST",
        &make,
        "Content-Type: application/json\r\n",
        json!({ "name": bucket }).to_string().as_bytes(),
    )?;
    let mut tar = Command::new("tar");
    tar.args(["--use-compress-program", "gzip -1", "-c", "-C"])
        .arg(directory)
        .arg(".");
    let archive = tar.stdin(Stdio::null()).output();
    let archive = archive.map_err(|e| format!("`tar` could not be started: {e}"))?;
    let path = format!("/upload/storage/v1/b/{bucket}/o?name=source.tgz&uploadType=media");
    let (status, answer) = client.request(
        "POST",
        &path,
        "Content-Type: application/gzip\r\n",
        &archive.stdout,
    )?;
    if status != 200 {
        return Err(format!(
            "the source was refused: {status} {}",
            String::from_utf8_lossy(&answer)
        ));
    }
    Ok(json!({ "storageSource": { "bucket": bucket, "object": "source.tgz" } }))
}
