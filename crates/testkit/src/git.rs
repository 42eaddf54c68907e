//! A loopback server of git repositories: git's own `http-backend` behind a small HTTP server, with repositories that want
//! credentials, redirects, and answers that no honest server gives.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// What is answered in place of git; `None`: git answers.
pub type Handler = dyn Fn(&GitRequest) -> Option<Vec<u8>> + Send + Sync;

/// A request.
#[derive(Clone, Debug)]
pub struct GitRequest {
    /// `GET` or `POST`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// By their names in small letters.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

/// Bare repositories below a directory, by their names. Dropping it ends it.
pub struct GitServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    root: PathBuf,
    /// The value of `Authorization` that paths with a beginning want.
    closed: Mutex<Vec<(String, String)>>,
    handler: Mutex<Option<Box<Handler>>>,
    requests: Mutex<Vec<GitRequest>>,
    stop: AtomicBool,
}

impl GitServer {
    /// Starts a server of the repositories below a directory.
    pub fn start(root: &Path) -> GitServer {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            ..Shared::default()
        });
        let state = Arc::clone(&shared);
        let listener = thread::spawn(move || {
            for stream in listener.incoming() {
                if state.stop.load(Ordering::SeqCst) {
                    return;
                }
                let state = Arc::clone(&state);
                if let Ok(stream) = stream {
                    thread::spawn(move || connection(&stream, &state));
                }
            }
        });
        GitServer {
            address,
            shared,
            listener: Some(listener),
        }
    }

    /// Returns the address of a repository.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    /// Paths that begin so want this header `Authorization` from now on.
    pub fn close(&self, path: &str, authorization: &str) {
        locked(&self.shared.closed).push((path.to_owned(), authorization.to_owned()));
    }

    /// From now on this answers in place of git where it wants to: everything that goes over the line.
    pub fn answer_with(
        &self,
        handler: impl Fn(&GitRequest) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) {
        *locked(&self.shared.handler) = Some(Box::new(handler));
    }

    /// Returns all requests so far.
    pub fn requests(&self) -> Vec<GitRequest> {
        locked(&self.shared.requests).clone()
    }

    /// Makes an empty repository and returns its working tree, in which [`git`] works.
    pub fn repository(&self, name: &str) -> PathBuf {
        let bare = self.shared.root.join(name);
        let tree = self.shared.root.join(format!("{name}.tree"));
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        git(
            &self.shared.root,
            &["init", "-q", "--bare", "-b", "main", &text(&bare)],
        );
        git(
            &self.shared.root,
            &["init", "-q", "-b", "main", &text(&tree)],
        );
        git(&tree, &["remote", "add", "origin", &text(&bare)]);
        tree
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

/// Runs git in a directory, with nobody's settings, and returns what it prints.
pub fn git(dir: &Path, arguments: &[&str]) -> String {
    let output = settled(Command::new("git").args(arguments).current_dir(dir))
        .output()
        .expect("git is installed");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "git {arguments:?}: {said}");
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    printed.trim().to_owned()
}

/// Commits everything in a working tree, pushes it to its repository as a branch, and returns the commit.
pub fn commit(tree: &Path, branch: &str) -> String {
    git(tree, &["add", "-A"]);
    git(tree, &["commit", "-q", "--allow-empty", "-m", "a commit"]);
    git(
        tree,
        &[
            "push",
            "-q",
            "-f",
            "origin",
            &format!("HEAD:refs/heads/{branch}"),
        ],
    );
    git(tree, &["rev-parse", "HEAD"])
}

fn settled(command: &mut Command) -> &mut Command {
    command
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_NAME", "A")
        .env("GIT_AUTHOR_EMAIL", "a@example.org")
        .env("GIT_COMMITTER_NAME", "A")
        // What is committed alike has the same digits in each run.
        .env("GIT_AUTHOR_DATE", "1700000000 +0000")
        .env("GIT_COMMITTER_DATE", "1700000000 +0000")
        .env("GIT_COMMITTER_EMAIL", "a@example.org")
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One request a connection.
fn connection(mut stream: &TcpStream, shared: &Shared) {
    let Some(request) = request(&mut BufReader::new(stream)) else {
        return;
    };
    locked(&shared.requests).push(request.clone());
    let own = locked(&shared.handler)
        .as_ref()
        .and_then(|handler| handler(&request));
    let answer = own.unwrap_or_else(|| of_git(shared, &request));
    let _ = stream.write_all(&answer);
    let _ = stream.shutdown(std::net::Shutdown::Both);
}

fn request(reader: &mut impl BufRead) -> Option<GitRequest> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split_ascii_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers
        .get("content-length")
        .map_or(Some(0), |length| length.parse().ok())?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(GitRequest {
        method,
        target,
        headers,
        body,
    })
}

/// Returns an answer with a status, a type and a body.
pub fn answer(status: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn of_git(shared: &Shared, request: &GitRequest) -> Vec<u8> {
    let given = request.headers.get("authorization");
    let closed = locked(&shared.closed)
        .iter()
        .any(|(path, wanted)| request.target.starts_with(path) && given != Some(wanted));
    if closed {
        return answer("401 Unauthorized", "text/plain", b"who are you?");
    }
    let (path, query) = request
        .target
        .split_once('?')
        .unwrap_or((&request.target, ""));
    let header = |name: &str| request.headers.get(name).map_or("", String::as_str);
    let mut command = Command::new("git");
    let mut child = settled(&mut command)
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", &shared.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", &request.method)
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", request.body.len().to_string())
        .env("HTTP_GIT_PROTOCOL", header("git-protocol"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("git http-backend is installed");
    let mut input = child.stdin.take().expect("standard input");
    // What ends early says so in its answer.
    let _ = input.write_all(&request.body);
    drop(input);
    let output = child.wait_with_output().expect("an end").stdout;
    let end = output
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("a head");
    let head = String::from_utf8_lossy(&output[..end]);
    let value = |name: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    answer(
        value("Status").unwrap_or("200 OK"),
        value("Content-Type").unwrap_or("text/plain"),
        &output[end + 4..],
    )
}
