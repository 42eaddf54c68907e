//! A server in a directory of its own, and requests as the command line tools send them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) struct Server {
    pub(crate) directory: TempDir,
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn start(options: &[&str]) -> Server {
        Server::start_with(&[], options)
    }

    /// The same with more in its environment.
    pub(crate) fn start_with(variables: &[(&str, &str)], options: &[&str]) -> Server {
        let directory = tempfile::Builder::new()
            .prefix("kiln-server-")
            .tempdir()
            .expect("a temporary directory");
        let mut command = kiln(directory.path());
        command.envs(variables.iter().copied());
        let (child, address) = start(command, directory.path(), ANY_PORT, options);
        Server {
            directory,
            child,
            address,
        }
    }

    /// Whoever reaches the port may do everything.
    pub(crate) fn open() -> Server {
        Server::start(OPEN)
    }

    /// Kills the server as the kernel would, and starts another over what it left.
    pub(crate) fn kill_and_start(&mut self) {
        self.restart_at(ANY_PORT, OPEN);
    }

    /// The same with other options.
    pub(crate) fn kill_and_start_with(&mut self, options: &[&str]) {
        self.restart_at(ANY_PORT, options);
    }

    /// The same, at the same address: who follows something finds the server again.
    pub(crate) fn kill_and_start_here(&mut self) {
        self.restart_at(&self.address.to_string(), OPEN);
    }

    fn restart_at(&mut self, listen: &str, options: &[&str]) {
        self.child.kill().expect("a kill");
        self.child.wait().expect("an end");
        let home = self.directory.path();
        let (child, address) = start(kiln(home), home, listen, options);
        (self.child, self.address) = (child, address);
    }

    /// Stops the server and starts one over what its backup is restored to, as docs/server.md says.
    pub(crate) fn restored(&mut self, options: &[&str]) -> Server {
        self.child.kill().expect("a kill");
        self.child.wait().expect("an end");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let backup = directory.path().join("backup.tar.gz");
        let tar = |words: &[&str], home: &Path, mode: &str| {
            let mut tar = Command::new("tar");
            tar.arg("-C").arg(home).args(words).arg(mode).arg(&backup);
            tar
        };
        let mut packed = tar(&["--exclude=data/cache"], self.directory.path(), "-czf");
        assert!(packed.arg("data").status().expect("tar").success());
        let mut unpacked = tar(&["--same-owner"], directory.path(), "-xzf");
        assert!(unpacked.status().expect("tar").success());
        let home = directory.path();
        let (child, address) = start(kiln(home), home, ANY_PORT, options);
        Server {
            directory,
            child,
            address,
        }
    }

    /// Kills the server; the next one refuses to start, and this is what it says.
    pub(crate) fn kill_and_fail(&mut self) -> String {
        self.child.kill().expect("a kill");
        self.child.wait().expect("an end");
        let mut command = kiln(self.directory.path());
        command.args(["serve", "--listen", ANY_PORT, "--data"]);
        let output = command
            .arg(self.data())
            .args(OPEN)
            .output()
            .expect("a server");
        assert!(!output.status.success());
        String::from_utf8(output.stderr).expect("UTF-8")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> (u16, Vec<u8>) {
        let (status, _, body) = self.answer(method, path, headers, body);
        (status, body)
    }

    /// The status, the head and the body of an answer; one in chunks is put together.
    pub(crate) fn answer(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> (u16, String, Vec<u8>) {
        let mut stream = TcpStream::connect(self.address).expect("a connection");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("a request");
        stream.write_all(body).expect("a body");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        let end = answer
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .expect("a head")
            + 4;
        let status = String::from_utf8_lossy(&answer[9..12])
            .parse()
            .expect("a status");
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let rest = &answer[end..];
        let is_chunked = head.to_lowercase().contains("transfer-encoding: chunked");
        let body = if is_chunked {
            unchunked(rest)
        } else {
            rest.to_vec()
        };
        (status, head, body)
    }

    pub(crate) fn json(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        let (status, answer) =
            self.request(method, path, "Content-Type: application/json\r\n", &body);
        (status, serde_json::from_slice(&answer).expect("JSON"))
    }

    pub(crate) fn create(&self, build: &Value) -> String {
        let (status, answer) = self.json("POST", BUILDS, build);
        assert_eq!(status, 200, "{answer}");
        answer["metadata"]["build"]["id"]
            .as_str()
            .expect("an id")
            .to_owned()
    }

    pub(crate) fn get(&self, id: &str) -> Value {
        self.json("GET", &format!("{BUILDS}/{id}"), &Value::Null).1
    }

    /// Waits until a build is as wanted.
    pub(crate) fn wait(&self, id: &str, wanted: &[&str]) -> Value {
        let since = Instant::now();
        loop {
            let build = self.get(id);
            if wanted.contains(&build["status"].as_str().unwrap_or("")) {
                return build;
            }
            assert!(since.elapsed() < Duration::from_secs(120), "{build}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn end(&self, id: &str) -> Value {
        self.wait(
            id,
            &[
                "SUCCESS",
                "FAILURE",
                "INTERNAL_ERROR",
                "TIMEOUT",
                "CANCELLED",
                "EXPIRED",
            ],
        )
    }

    /// What the clients read.
    pub(crate) fn log(&self, id: &str) -> String {
        let path = format!("/download/storage/v1/b/{PROJECT}_cloudbuild/o/log-{id}.txt?alt=media");
        let (status, body) = self.request("GET", &path, "", b"");
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        String::from_utf8(body).expect("UTF-8")
    }

    /// Makes a bucket and puts a source into it, as `gcloud builds submit` does.
    pub(crate) fn source(&self, files: &[(&str, &str)]) -> Value {
        let bucket = format!("{PROJECT}_cloudbuild");
        self.bucket(&bucket);
        let mut archive = Command::new("tar");
        let dir = self.directory.path().join("source");
        std::fs::create_dir_all(&dir).expect("a directory");
        for (name, text) in files {
            std::fs::write(dir.join(name), text).expect("a file");
        }
        let archive = archive
            .args(["-cz", "-C"])
            .arg(&dir)
            .arg(".")
            .output()
            .expect("tar");
        let path = format!("/upload/storage/v1/b/{bucket}/o?name=source%2Fs.tgz&uploadType=media");
        let (status, answer) = self.request(
            "POST",
            &path,
            "Content-Type: application/gzip\r\n",
            &archive.stdout,
        );
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
        json!({ "storageSource": { "bucket": bucket, "object": "source/s.tgz" } })
    }

    /// What `kiln token` prints.
    pub(crate) fn token(&self, arguments: &[&str]) -> String {
        let mut command = kiln(self.directory.path());
        let ran = command
            .arg("token")
            .args(arguments)
            .arg("--data")
            .arg(self.data())
            .output()
            .expect("kiln token");
        let error = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{error}");
        String::from_utf8(ran.stdout)
            .expect("UTF-8")
            .trim()
            .to_owned()
    }

    /// Under how many names the contents of a bucket are there, those in the workspaces of builds among them.
    pub(crate) fn names_of_contents(&self, bucket: &str) -> Vec<u64> {
        let mut open = vec![self.data().join("objects/content").join(bucket)];
        let mut names = Vec::new();
        while let Some(dir) = open.pop() {
            for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
                let found = entry.metadata().expect("an entry");
                match found.is_dir() {
                    true => open.push(entry.path()),
                    false => names.push(std::os::unix::fs::MetadataExt::nlink(&found)),
                }
            }
        }
        names.sort_unstable();
        names
    }

    pub(crate) fn bucket(&self, name: &str) {
        let path = format!("/storage/v1/b?project={PROJECT}");
        let (status, answer) = self.json("POST", &path, &json!({ "name": name }));
        assert!(status == 200 || status == 409, "{answer}");
    }
}

fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = rest
            .windows(2)
            .position(|two| two == b"\r\n")
            .expect("a chunk's size");
        let size = std::str::from_utf8(&rest[..end]).expect("digits");
        let size = usize::from_str_radix(size, 16).expect("a size");
        if size == 0 {
            return whole;
        }
        whole.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 4 + size..];
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        // A build's process outlives its server, and a test that has failed has not waited for its builds.
        let dir = self.directory.path().display().to_string();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            if line.contains("run-attempt") && line.contains(&dir) {
                drop(
                    Command::new("kill")
                        .arg("-9")
                        .arg(entry.file_name())
                        .status(),
                );
            }
        }
    }
}

/// Repositories of tests are on this machine.
pub(crate) const OPEN: &[&str] = &["--open-to-this-machine", "--downloads-from-this-machine"];

/// A port that the kernel chooses.
const ANY_PORT: &str = "127.0.0.1:0";
pub(crate) const PROJECT: &str = "demo-proj";
pub(crate) const BUILDS: &str = "/v1/projects/demo-proj/locations/global/builds";

pub(crate) fn kiln(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command
        .env_clear()
        .env("HOME", home)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null());
    command
}

fn start(mut command: Command, home: &Path, listen: &str, options: &[&str]) -> (Child, SocketAddr) {
    let mut child = command
        .args([
            "serve", "--listen", listen, "--cpus", "4", "--memory", "8192", "--data",
        ])
        .arg(home.join("data"))
        .args(options)
        .stderr(Stdio::piped())
        .spawn()
        .expect("a server");
    let mut lines = BufReader::new(child.stderr.take().expect("standard error")).lines();
    let mut said = String::new();
    let address = loop {
        let line = lines
            .next()
            .unwrap_or_else(|| panic!("no address: {said}"))
            .expect("a line");
        if let Some((_, address)) = line.split_once("http://") {
            break address.trim_end_matches('/').parse().expect("an address");
        }
        said.push_str(&line);
    };
    std::thread::spawn(move || lines.for_each(drop));
    (child, address)
}

/// A repository that takes connections and never answers: what asks it hangs.
pub(crate) fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let kickstart = format!(
        "url --url=http://127.0.0.1:{port}/dists/bookworm\nrootpw x\npart / --size=500\n%packages\n%end\n"
    );
    (listener, kickstart)
}
