//! What one client may take of the server: requests, connections, and patience.
//!
//! Requests are counted for each token, which a session of the page stands for as well, and for each address: whoever has not asked
//! for a while may ask much at once. Addresses of this machine are not counted; their tokens are. Messages of a webhook are counted
//! for its trigger beside that.

use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kiln_digest::Sha256;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::Sleep;

use crate::wire::error::{ApiError, Code};

/// Connections at once.
const CONNECTIONS: usize = 2048;
/// Connections at once of one address that is not this machine's.
const CONNECTIONS_OF_ONE: usize = 128;
/// Repositories that runs of triggers read at once: each takes a thread, and room on the disk.
const REPOSITORIES: usize = 8;
/// Seconds of its rate that a client may ask for at once.
const BURST: u32 = 10;
/// Clients that are remembered, before those are forgotten that have not asked for a while.
const REMEMBERED: usize = 10_000;
/// How long a client may take nothing of an answer.
const SILENCE: Duration = Duration::from_secs(120);

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    /// An address; of version 6 the network of it, as a client has many.
    Address(IpAddr),
    /// The hash of a token, valid or not.
    Token([u8; 32]),
    /// Those who know the secret of a trigger, by its id.
    Trigger(String),
}

/// What clients may ask for, on and on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Requests of a token or an address, a second.
    pub requests: u32,
    /// Messages to a trigger, a minute.
    pub hooks: u32,
}

/// How many connections an address has.
type OfOne = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// What is counted.
#[derive(Debug)]
pub(crate) struct Limits {
    rates: Rates,
    asked: Mutex<HashMap<Client, Allowance>>,
    connections: Arc<Semaphore>,
    of_one: OfOne,
    repositories: Semaphore,
}

/// What a client may still ask for.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    requests: f64,
    at: Instant,
}

/// The right to a connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    _one_of_all: OwnedSemaphorePermit,
    counted: Option<(IpAddr, OfOne)>,
}

impl Limits {
    pub(crate) fn new(rates: Rates) -> Limits {
        Limits {
            rates,
            asked: Mutex::default(),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            of_one: Arc::default(),
            repositories: Semaphore::new(REPOSITORIES),
        }
    }

    /// What a client may ask for in a second, and at once.
    fn rate(&self, client: &Client) -> (f64, f64) {
        match client {
            Client::Trigger(_) => {
                let most = f64::from(self.rates.hooks.max(1));
                (most / 60.0, most)
            }
            Client::Address(_) | Client::Token(_) => {
                let rate = f64::from(self.rates.requests.max(1));
                (rate, rate * f64::from(BURST))
            }
        }
    }

    /// Counts a message to a trigger whose secret was right; an error says how long its sender has to wait.
    pub(crate) fn hook(&self, trigger: &str) -> Result<(), Duration> {
        self.ask(Client::Trigger(trigger.to_owned()), Instant::now())
    }

    /// The right to read a repository for a trigger, until it is dropped; nothing if as many are read as may be.
    pub(crate) fn repository(&self) -> Option<SemaphorePermit<'_>> {
        self.repositories.try_acquire().ok()
    }

    /// Counts a request; an error says how long the client has to wait.
    pub(crate) fn ask(&self, client: Client, now: Instant) -> Result<(), Duration> {
        let (rate, most) = self.rate(&client);
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let grown = |allowance: &Allowance, (rate, most): (f64, f64)| {
            let since = now.saturating_duration_since(allowance.at).as_secs_f64();
            (allowance.requests + since * rate).min(most)
        };
        if asked.len() >= REMEMBERED && !asked.contains_key(&client) {
            // Whoever has its whole allowance again need not be known.
            asked.retain(|client, allowance| {
                let rate = self.rate(client);
                grown(allowance, rate) < rate.1
            });
            if asked.len() >= REMEMBERED {
                return Err(Duration::from_secs(1));
            }
        }
        let allowance = asked.entry(client).or_insert(Allowance {
            requests: most,
            at: now,
        });
        let requests = grown(allowance, (rate, most));
        if requests < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - requests) / rate));
        }
        *allowance = Allowance {
            requests: requests - 1.0,
            at: now,
        };
        Ok(())
    }

    /// Takes a place for a connection; waits while all are taken. `None`: the address has too many.
    pub(crate) async fn connection(&self, peer: IpAddr) -> Option<Connection> {
        let permit = Arc::clone(&self.connections).acquire_owned().await.ok()?;
        let counted = network(peer);
        if let Some(address) = counted {
            let mut of_one = self.of_one.lock().unwrap_or_else(PoisonError::into_inner);
            let number = of_one.entry(address).or_default();
            if *number >= CONNECTIONS_OF_ONE {
                return None;
            }
            *number += 1;
        }
        Some(Connection {
            _one_of_all: permit,
            counted: counted.map(|address| (address, Arc::clone(&self.of_one))),
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some((address, of_one)) = &self.counted else {
            return;
        };
        let mut of_one = of_one.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = of_one.get_mut(address) {
            *number -= 1;
            if *number == 0 {
                of_one.remove(address);
            }
        }
    }
}

/// What an address is counted as; those of this machine are not.
pub(crate) fn network(address: IpAddr) -> Option<IpAddr> {
    match address.to_canonical() {
        address if address.is_loopback() => None,
        IpAddr::V4(address) => Some(IpAddr::V4(address)),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Some(IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)))
        }
    }
}

/// The token that a request brings.
pub(crate) fn token(headers: &HeaderMap) -> Option<Client> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let token = value.strip_prefix(b"Bearer ")?;
    token
        .starts_with(b"kiln_")
        .then(|| Client::Token(Sha256::digest(token)))
}

/// Tells a client when to come back.
pub(crate) fn too_many(wait: Duration) -> Response {
    let seconds = wait.as_secs() + 1;
    let text = format!("too many requests: try again in {seconds} s");
    let error = ApiError::new(Code::ResourceExhausted, text);
    let kind = HeaderValue::from_static("application/json; charset=UTF-8");
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::RETRY_AFTER, HeaderValue::from(seconds)),
    ];
    let body = error.body().to_string();
    (StatusCode::TOO_MANY_REQUESTS, headers, body).into_response()
}

/// A connection that ends when its client takes nothing of an answer for a while.
#[derive(Debug)]
pub(crate) struct Patient<S> {
    inner: S,
    silence: Duration,
    end: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(crate) fn new(inner: S) -> Patient<S> {
        Patient {
            inner,
            silence: SILENCE,
            end: None,
        }
    }

    /// Passes on what a write came to, or ends a wait that is too long.
    fn waited<T>(
        &mut self,
        context: &mut Context<'_>,
        came: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if came.is_ready() {
            self.end = None;
            return came;
        }
        let silence = self.silence;
        let end = self
            .end
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(silence)));
        match end.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let came = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.waited(context, came)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let came = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.waited(context, came)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let came = Pin::new(&mut self.inner).poll_flush(context);
        self.waited(context, came)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let came = Pin::new(&mut self.inner).poll_shutdown(context);
        self.waited(context, came)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    fn limits(requests: u32) -> Limits {
        Limits::new(Rates { requests, hooks: 3 })
    }

    #[test]
    fn messages_to_a_trigger_have_a_rate_of_their_own() {
        let limits = limits(1);
        let now = Instant::now();
        let hook = |name: &str, now| limits.ask(Client::Trigger(name.to_owned()), now);
        for _ in 0..3 {
            hook("a", now).unwrap();
        }
        let wait = hook("a", now).unwrap_err();
        assert_eq!(wait, Duration::from_secs(20));
        hook("b", now).unwrap();
        hook("a", now + wait).unwrap();
    }

    fn address(text: &str) -> Client {
        Client::Address(network(text.parse().unwrap()).unwrap())
    }

    #[test]
    fn who_asks_too_much_waits_and_others_do_not() {
        let limits = limits(2);
        let now = Instant::now();
        for _ in 0..2 * BURST {
            limits.ask(address("192.0.2.1"), now).unwrap();
        }
        let wait = limits.ask(address("192.0.2.1"), now).unwrap_err();
        assert_eq!(wait, Duration::from_millis(500));
        limits.ask(address("192.0.2.2"), now).unwrap();
        let later = now + wait;
        limits.ask(address("192.0.2.1"), later).unwrap();
        limits.ask(address("192.0.2.1"), later).unwrap_err();
    }

    #[test]
    fn a_network_is_one_client_and_this_machine_is_none() {
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:2"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        for own in ["127.0.0.1", "::1", "::ffff:127.0.0.9"] {
            assert_eq!(network(own.parse().unwrap()), None, "{own}");
        }
    }

    #[test]
    fn many_clients_do_not_fill_the_memory() {
        let limits = limits(1);
        let now = Instant::now();
        let many = |number: usize, now| {
            let client = Client::Token(Sha256::digest(number.to_le_bytes()));
            limits.ask(client, now)
        };
        for number in 0..REMEMBERED {
            many(number, now).unwrap();
        }
        many(REMEMBERED, now).unwrap_err();
        many(0, now).unwrap();
        many(REMEMBERED, now + Duration::from_secs(5)).unwrap();
        let asked = limits.asked.lock().unwrap();
        assert_eq!(asked.len(), 1);
    }

    #[test]
    fn the_answer_says_when_to_come_back() {
        let response = too_many(Duration::from_millis(1500));
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    }

    #[tokio::test]
    async fn an_address_has_so_many_connections() {
        let limits = limits(1);
        let of = |text: &str| limits.connection(text.parse().unwrap());
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS_OF_ONE {
            held.push(of("192.0.2.1").await.unwrap());
        }
        assert!(of("192.0.2.1").await.is_none());
        assert!(of("192.0.2.2").await.is_some());
        held.pop();
        assert!(of("192.0.2.1").await.is_some());
        held.clear();
        assert!(limits.of_one.lock().unwrap().is_empty());
        for _ in 0..2 * CONNECTIONS_OF_ONE {
            held.push(of("127.0.0.1").await.unwrap());
        }
    }

    #[tokio::test]
    async fn who_takes_nothing_is_left() {
        let (near, far) = tokio::io::duplex(16);
        let mut patient = Patient::new(near);
        patient.silence = Duration::from_millis(50);
        let error = patient.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(far);
    }
}
