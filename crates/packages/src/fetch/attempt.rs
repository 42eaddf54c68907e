//! One try of a transfer and whether another one makes sense.

use std::time::{Duration, Instant};

use ureq::Timeout;

use super::url::shown;
use crate::{CancelToken, Error, ErrorKind, FetchOptions, Result};

/// Why one try failed.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) error: Error,
    /// Whether another try may help.
    pub(crate) retry: bool,
    /// How long the server asks to wait.
    pub(crate) wait: Option<Duration>,
    /// Whether this try brought bytes that the next one need not fetch again.
    pub(crate) progressed: bool,
}

impl Attempt {
    /// A failure that will be the same next time.
    pub(crate) fn last(error: Error) -> Self {
        Attempt {
            error,
            retry: false,
            wait: None,
            progressed: false,
        }
    }

    /// A failure that may pass.
    pub(crate) fn passing(error: Error) -> Self {
        Attempt {
            retry: true,
            ..Attempt::last(error)
        }
    }

    /// What an HTTP status other than success means.
    pub(crate) fn status(url: &str, status: u16, wait: Option<Duration>) -> Self {
        let url = shown(url);
        let error = match status {
            404 | 410 => Error::new(
                ErrorKind::NotFound,
                format!("{url} is not on the mirror (HTTP status {status})"),
            ),
            401 | 403 | 407 => Error::new(
                ErrorKind::Refused,
                format!("{url} was refused (HTTP status {status})"),
            )
            .with_hint("The mirror or the proxy wants credentials: give them in the URL, or use another mirror."),
            _ => Error::new(ErrorKind::Refused, format!("{url}: the server answers with HTTP status {status}")),
        };
        let retry = matches!(status, 408 | 425 | 429 | 500..=599);
        Attempt {
            error,
            retry,
            wait,
            progressed: false,
        }
    }

    /// What a failure of the HTTP client before the body means.
    pub(crate) fn request(url: &str, error: ureq::Error) -> Self {
        use ureq::Error as U;
        if let Some(refusal) = super::gate::refusal(url, &error) {
            return Attempt::last(refusal);
        }
        let (kind, retry, what) = match &error {
            U::HostNotFound => (
                ErrorKind::Network,
                true,
                "the host name cannot be looked up",
            ),
            U::Timeout(Timeout::Connect | Timeout::Resolve) => (
                ErrorKind::Network,
                true,
                "no connection within the time limit",
            ),
            U::Timeout(_) | U::BodyStalled => {
                (ErrorKind::Stalled, true, "the server stopped answering")
            }
            U::Io(io) if io.to_string().contains("lookup address") => (
                ErrorKind::Network,
                true,
                "the host name cannot be looked up",
            ),
            U::Io(io) if io.kind() == std::io::ErrorKind::UnexpectedEof => {
                (ErrorKind::Truncated, true, "the connection ended early")
            }
            U::Io(_) | U::ConnectionFailed => (ErrorKind::Network, true, "the connection failed"),
            U::ConnectProxyFailed(_) => (
                ErrorKind::Network,
                false,
                "the proxy refused the connection",
            ),
            U::Tls(_) | U::Rustls(_) | U::Pem(_) => (ErrorKind::Network, false, "TLS failed"),
            U::InvalidProxyUrl | U::BadUri(_) | U::Http(_) => {
                (ErrorKind::Input, false, "the URL is not valid")
            }
            _ => (ErrorKind::Network, true, "the transfer failed"),
        };
        let mut failure = Error::new(kind, format!("{}: {what}", shown(url)));
        if let Some(hint) = hint(kind) {
            failure = failure.with_hint(hint);
        }
        Attempt {
            retry,
            ..Attempt::last(failure.with_source(error))
        }
    }

    /// Names the proxy that was in between, where it may be at fault.
    pub(crate) fn through(self, proxy: Option<&str>) -> Self {
        let refused = self.error.to_string().contains("(HTTP status 407)");
        match proxy {
            Some(proxy) if refused || self.error.kind() == ErrorKind::Network => Attempt {
                error: self.error.within(&format!("through the proxy {proxy}")),
                ..self
            },
            _ => self,
        }
    }

    /// What a failure while reading a body means.
    pub(crate) fn body(url: &str, error: std::io::Error) -> Self {
        match error.downcast::<ureq::Error>() {
            Ok(inner) => Attempt::request(url, inner),
            Err(io) => Attempt::request(url, ureq::Error::Io(io)),
        }
    }
}

fn hint(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::Network => Some(
            "Is there a network? Check the host name, DNS, the proxy settings (http_proxy, https_proxy, no_proxy) and, for https, the installed CA certificates.",
        ),
        ErrorKind::Stalled | ErrorKind::Truncated => Some(
            "Run the command again: what has arrived is kept. If it stays so, use another mirror.",
        ),
        _ => None,
    }
}

/// When one file must be complete.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    allowed: Duration,
    until: Option<Instant>,
}

impl Deadline {
    /// From now on.
    pub(crate) fn after(allowed: Duration) -> Self {
        Deadline {
            allowed,
            until: Instant::now().checked_add(allowed),
        }
    }

    /// For files of any size, which only must not stall.
    pub(crate) fn none() -> Self {
        Deadline {
            allowed: Duration::MAX,
            until: None,
        }
    }

    /// An error once it is over.
    pub(crate) fn check(&self, url: &str) -> Result<(), Attempt> {
        if self.until.is_none_or(|until| Instant::now() < until) {
            return Ok(());
        }
        let seconds = self.allowed.as_secs_f64();
        let message = format!("{} did not come within {seconds} seconds", shown(url));
        Err(Attempt::last(Error::new(ErrorKind::Stalled, message).with_hint(
            "The server is too slow, or keeps the connection open on purpose: use another mirror.",
        )))
    }
}

/// Runs `attempt` until it succeeds, fails for good, fails `tries` times without getting further, or the deadline for `url`
/// is over. What a cancelled attempt brought never counts: the cancellation shuts its connection, which looks like an end.
pub(crate) fn retrying<T>(
    options: &FetchOptions,
    cancel: &CancelToken,
    (url, deadline, tries): (&str, &Deadline, u32),
    mut attempt: impl FnMut() -> Result<T, Attempt>,
) -> Result<T> {
    let allowed = tries.max(1);
    let (mut fruitless, mut total) = (0, 0);
    loop {
        cancel.check()?;
        let outcome = attempt();
        cancel.check()?;
        let failed = match outcome {
            Ok(value) => return Ok(value),
            Err(failed) => failed,
        };
        total += 1;
        fruitless = if failed.progressed { 1 } else { fruitless + 1 };
        if !failed.retry || fruitless >= allowed || total >= allowed.saturating_mul(8) {
            return Err(failed.error);
        }
        deadline.check(url).map_err(|late| late.error)?;
        let doubled = pause(options, fruitless);
        cancel.sleep(failed.wait.unwrap_or(doubled).min(options.backoff_max))?;
    }
}

/// How long to wait after so many tries that brought nothing.
pub(super) fn pause(options: &FetchOptions, fruitless: u32) -> Duration {
    let doubled = 1 << fruitless.saturating_sub(1).min(10);
    options
        .backoff
        .saturating_mul(doubled)
        .min(options.backoff_max)
}
