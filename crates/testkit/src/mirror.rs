//! A mirror on the loopback interface.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::fault::Rule;
use crate::server;
use crate::shared::{Request, Shared, Source};

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
        let shared = Arc::new(Shared::new(source));
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

    /// Returns its address, `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the address.
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

    /// Returns the requests so far, in the order in which they were finished; forgets them. Waits (a few seconds at most)
    /// for those that are being answered, since a client may have all it needs before the mirror has noted it.
    pub fn take_requests(&self) -> Vec<Request> {
        let until = Instant::now() + Duration::from_secs(5);
        while self.shared.is_busy() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::mem::take(&mut self.shared.state().requests)
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.shared.stop();
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
