//! Somebody who looks on while a server goes and comes again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::served::{Client, log_address};

/// What was shown of each log.
pub(super) type Shown = Mutex<BTreeMap<String, Vec<u8>>>;

/// Reads what is new of a log, again and again, as gcloud does. Whoever does not answer is asked again.
pub(super) fn follow(build: &str, place: &Mutex<SocketAddr>, over: &AtomicBool, shown: &Shown) {
    let mut read = Vec::new();
    while !over.load(Ordering::SeqCst) {
        let range = format!("Range: bytes={}-\r\n", read.len());
        let asked = Client::connect(*place.lock().unwrap_or_else(PoisonError::into_inner))
            .and_then(|mut client| client.request("GET", &log_address(build), &range, b""));
        if let Ok((206, body)) = asked {
            read.extend_from_slice(&body);
        }
        thread::sleep(Duration::from_millis(100));
    }
    let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
    shown.insert(build.to_owned(), read);
}
