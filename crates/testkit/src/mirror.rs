//! A mirror on the loopback interface.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::fault::{Fault, Rule, matches};
use crate::server;

/// Where a mirror's files come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A directory.
    Directory(PathBuf),
    /// Another mirror; every file is fetched once and kept in a directory.
    Forward {
        /// Its URL, for instance that of a Debian mirror; paths are appended.
        upstream: String,
        /// Where fetched files are kept.
        cache: PathBuf,
    },
}

/// A request that a mirror got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The path, or the whole URL where the mirror was used as a proxy.
    pub target: String,
    /// The first byte that was asked for (`Range`).
    pub from: u64,
    /// Header lines as they came, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Status of the answer; 0: none.
    pub status: u16,
    /// Bytes of body sent.
    pub sent: u64,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    requests: Vec<Request>,
}

/// What the threads of a mirror share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) source: Source,
    state: Mutex<State>,
    stop: AtomicBool,
    /// Requests that are being answered.
    busy: AtomicUsize,
}

/// Counts a request as being answered for as long as it lives.
#[derive(Debug)]
pub(crate) struct Busy<'a>(&'a AtomicUsize);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Shared {
    pub(crate) fn busy(&self) -> Busy<'_> {
        self.busy.fetch_add(1, Ordering::SeqCst);
        Busy(&self.busy)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// All faults that hit this request; counts them down.
    pub(crate) fn faults(&self, path: &str) -> Vec<Fault> {
        let mut state = self.state();
        let hit = state
            .rules
            .iter_mut()
            .filter(|rule| rule.times != Some(0) && matches(&rule.pattern, path));
        hit.map(|rule| {
            rule.times = rule.times.map(|left| left - 1);
            rule.fault.clone()
        })
        .collect()
    }

    pub(crate) fn log(&self, request: Request) {
        self.state().requests.push(request);
    }
}

/// A running mirror. It stops when dropped.
#[derive(Debug)]
pub struct Mirror {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Mirror {
    /// Starts a mirror on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// If no port can be had.
    pub fn start(source: Source) -> Self {
        Mirror::start_at("127.0.0.1:0", source).expect("a port on the loopback interface")
    }

    /// Starts a mirror at an address.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn start_at(address: &str, source: Source) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            source,
            state: Mutex::default(),
            stop: AtomicBool::new(false),
            busy: AtomicUsize::new(0),
        });
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Ok(Mirror {
            address,
            shared,
            thread: Some(thread),
        })
    }

    /// Serves a directory.
    pub fn of(directory: impl Into<PathBuf>) -> Self {
        Mirror::start(Source::Directory(directory.into()))
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a fault. Where several apply to a request, all do, in the order they were added.
    pub fn inject(&self, rule: Rule) {
        self.shared.state().rules.push(rule);
    }

    /// Removes all faults.
    pub fn heal(&self) {
        self.shared.state().rules.clear();
    }

    /// The requests so far, in the order in which they were finished; forgets them. Waits (a few seconds at most)
    /// for those that are being answered, since a client may have all it needs before the mirror has noted it.
    pub fn take_requests(&self) -> Vec<Request> {
        let until = Instant::now() + Duration::from_secs(5);
        while self.shared.busy.load(Ordering::SeqCst) > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::mem::take(&mut self.shared.state().requests)
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the listener. Threads of open connections notice by themselves.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.stopping() {
            return;
        }
        let Ok(stream) = stream else { continue };
        let shared = Arc::clone(shared);
        std::thread::spawn(move || server::connection(&stream, &shared));
    }
}
