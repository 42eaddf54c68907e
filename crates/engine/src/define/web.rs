//! Texts that kickstart files include from the network: `%include https://…`.

use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use kiln_kickstart::LoadError;
use kiln_packages::{CancelToken, Error, FetchOptions, Fetched, Fetcher, Proxies};

use crate::Cancel;

/// A kickstart is text that people write; far above what any has.
const LARGEST: u64 = 16 << 20;
/// Texts that one run fetches: a server that always names another one must not keep a run busy.
const MOST: usize = 200;
/// From the request to the last byte, with all tries and redirects.
const DEADLINE: Duration = Duration::from_secs(60);

/// Whether includes from the network are fetched.
#[derive(Clone, Debug)]
pub enum Access {
    /// They are.
    Online(Proxies),
    /// They are refused.
    Refused {
        /// Why: the end of a sentence that begins with the URL.
        why: String,
        /// What to do.
        help: String,
    },
}

impl Access {
    /// As `--offline` has it.
    pub fn offline() -> Self {
        Access::Refused {
            why: "is on the network, but Kiln is offline".to_owned(),
            help: "leave --offline out, or fetch the file and include it by its path".to_owned(),
        }
    }

    /// As a plan has it, which never touches the network.
    pub fn planning() -> Self {
        Access::Refused {
            why: "is on the network, which a plan does not touch".to_owned(),
            help: "plan what `kiln flatten FILE` prints: it has the included lines in their place"
                .to_owned(),
        }
    }
}

/// Answers by address.
type Known = BTreeMap<String, Result<Vec<u8>, LoadError>>;

/// Fetches included texts, each once: all readings of a definition see the same bytes.
#[derive(Clone, Debug)]
pub struct Web {
    access: Access,
    cancel: Option<Cancel>,
    deadline: Duration,
    from_elsewhere: bool,
    known: Arc<Mutex<Known>>,
}

impl Web {
    /// `cancel` stops a transfer that is under way.
    pub fn new(access: Access, cancel: Option<Cancel>) -> Self {
        Web {
            access,
            cancel,
            deadline: DEADLINE,
            from_elsewhere: false,
            known: Arc::default(),
        }
    }

    /// Says whether texts come from other machines only: [`BuildRequest::from_elsewhere`](crate::BuildRequest::from_elsewhere).
    #[must_use]
    pub fn from_elsewhere(mut self, only: bool) -> Self {
        self.from_elsewhere = only;
        self
    }

    /// Brings the text at a URL, which the text named `from` includes.
    ///
    /// # Errors
    /// It cannot be had: the sentence names the URL and what the server said.
    pub fn text(&self, url: &str) -> Result<Vec<u8>, LoadError> {
        if !(url.starts_with("http://") || url.starts_with("https://")) {
            return Err(LoadError {
                message: format!("`{url}` is not an address that Kiln can fetch"),
                help: "write http://, https:// or a path".to_owned(),
            });
        }
        let proxies = match &self.access {
            Access::Online(proxies) => proxies,
            Access::Refused { why, help } => {
                return Err(LoadError {
                    message: format!("`{url}` {why}"),
                    help: help.clone(),
                });
            }
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = known.get(url) {
            return answer.clone();
        }
        if known.len() >= MOST {
            return Err(LoadError {
                message: format!("`{url}` would be text number {} from the network", MOST + 1),
                help: "put what belongs together into one file".to_owned(),
            });
        }
        let answer = self.fetch(url, proxies);
        known.insert(url.to_owned(), answer.clone());
        answer
    }

    fn fetch(&self, url: &str, proxies: &Proxies) -> Result<Vec<u8>, LoadError> {
        let options = FetchOptions {
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(15),
            attempts: 3,
            backoff_max: Duration::from_secs(2),
            // Nothing vouches for the text, so its end must be known.
            unframed: false,
            proxies: proxies.clone(),
            only: self.from_elsewhere.then_some(kiln_sandbox::is_elsewhere),
            ..FetchOptions::default()
        };
        let token = CancelToken::new();
        let fetched = Fetcher::new(options, token.clone())
            .and_then(|fetcher| self.within(&token, || fetcher.bytes(url, LARGEST, None)));
        match fetched {
            Ok(Fetched::New { bytes, .. }) => Ok(bytes),
            Ok(Fetched::NotModified) => Ok(Vec::new()),
            Err(_) if token.is_cancelled() => Err(LoadError {
                message: format!(
                    "`{url}` did not come within {} seconds",
                    self.deadline.as_secs_f32()
                ),
                help: "fetch the file and include it by its path".to_owned(),
            }),
            Err(error) => Err(refused(&error)),
        }
    }

    /// Runs a transfer that a cancelled build or the deadline ends.
    fn within<T>(&self, token: &CancelToken, work: impl FnOnce() -> T) -> T {
        let until = Instant::now() + self.deadline;
        let stopped = || self.cancel.as_ref().is_some_and(Cancel::is_cancelled);
        thread::scope(|scope| {
            let (done, waiting) = channel::<()>();
            scope.spawn(move || {
                while waiting.recv_timeout(Duration::from_millis(50))
                    == Err(RecvTimeoutError::Timeout)
                {
                    if stopped() || Instant::now() > until {
                        return token.cancel();
                    }
                }
            });
            let result = work();
            drop(done);
            result
        })
    }
}

fn refused(error: &Error) -> LoadError {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message += &format!(": {cause}");
        source = cause.source();
    }
    let hint = error.hints().first().cloned();
    LoadError {
        message,
        help: hint.unwrap_or_else(|| {
            "check the address with a browser, or fetch the file and include it by its path"
                .to_owned()
        }),
    }
}

/// Why a text from the network may not have a file of this machine: its lines go into scripts that can reach the
/// network.
pub fn local_file_for_a_stranger(path: &str, from: &str) -> LoadError {
    LoadError {
        message: format!(
            "`{path}` is a file of this machine, and {from} is not: it may include only what is on the network"
        ),
        help: "include the file from a kickstart of your own".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    /// A server on the loopback interface that answers every request with these bytes, one each 20 ms, and no length.
    fn without_length(head: &'static str, body: &'static str) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request);
                let _ = stream.write_all(head.as_bytes());
                for byte in body.as_bytes() {
                    if stream.write_all(&[*byte]).is_err() {
                        break;
                    }
                    thread::sleep(Duration::from_millis(20));
                }
            }
        });
        format!("http://{address}/lab.ks")
    }

    fn impatient() -> Web {
        Web {
            deadline: Duration::from_millis(500),
            ..Web::new(Access::Online(Proxies::default()), None)
        }
    }

    const KICKSTART: &str = "rootpw --lock\nfirewall --enabled --service=ssh\nlang de_DE.UTF-8\n";

    #[test]
    fn a_text_that_the_deadline_cuts_is_an_error() {
        let url = without_length(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\n",
            KICKSTART,
        );
        let error = impatient().text(&url).expect_err("cut");
        assert!(
            error.message.contains(&url) && error.message.contains("within 0.5 seconds"),
            "{error:?}"
        );
    }

    #[test]
    fn a_text_whose_end_nobody_can_tell_is_an_error() {
        for head in [
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
            "HTTP/1.0 200 OK\r\n\r\n",
        ] {
            let url = without_length(head, KICKSTART);
            let error = impatient().text(&url).expect_err("without a length");
            assert!(
                error.message.contains(&url) && error.message.contains("without a length"),
                "{error:?}"
            );
            assert!(error.help.contains("Content-Length"), "{error:?}");
        }
        let short = without_length("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", "lang C\n");
        let error = Web::new(Access::Online(Proxies::default()), None).text(&short);
        assert!(error.is_err(), "shorter than promised");
    }

    #[test]
    fn refusals_name_the_address_and_the_way_out() {
        let offline = Web::new(Access::offline(), None);
        let error = offline.text("http://192.0.2.1/a.ks").expect_err("offline");
        assert!(
            error.message.contains("http://192.0.2.1/a.ks") && error.message.contains("offline")
        );
        assert!(error.help.contains("--offline"));
        let online = Web::new(Access::Online(Proxies::default()), None);
        let error = online.text("ftp://192.0.2.1/a.ks").expect_err("no FTP");
        assert!(error.message.contains("ftp://192.0.2.1/a.ks"));
    }
}
