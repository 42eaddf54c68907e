//! Who looks at the page: a cookie stands for a token, and every form carries a text that only a page of this server has.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kiln_digest::Sha256;

use super::Page;
use crate::access::{self, Caller};
use crate::address;
use crate::store::{Error, Role};
use crate::wire::error::{ApiError, Code};
use crate::wire::time;

/// The cookie's name.
const COOKIE: &str = "kiln_session";
/// How long somebody stays logged in.
const LASTS: Duration = Duration::from_secs(30 * 24 * 3600);

/// Who asks for a page.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    /// The name and the role.
    pub(super) caller: Caller,
    /// What forms have to carry.
    pub(super) proof: String,
    /// Whether there is a session to end.
    pub(super) logged_in: bool,
}

impl Visitor {
    /// Whether a role's forms are shown.
    pub(super) fn may(&self, role: Role) -> bool {
        self.caller.role >= role
    }

    /// Refuses a form that a page of another site, or of another visitor, has sent.
    pub(super) fn sent(&self, headers: &HeaderMap, proof: Option<&str>) -> Result<(), ApiError> {
        from_here(headers)?;
        match proof {
            Some(proof) if proof == self.proof => Ok(()),
            _ => Err(ApiError::new(
                Code::PermissionDenied,
                "the form is of an older page: go back, load that page again, and send it once more",
            )),
        }
    }
}

/// Refuses requests that a browser sends for a page of another site.
pub(super) fn from_here(headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text("host").unwrap_or("");
    let same = text("origin")
        .is_none_or(|origin| origin.split_once("://").is_some_and(|(_, at)| at == host));
    let site = text("sec-fetch-site").is_none_or(|site| site == "same-origin" || site == "none");
    if same && site {
        return Ok(());
    }
    Err(ApiError::new(
        Code::PermissionDenied,
        "pages of other sites may not send forms to this server",
    ))
}

/// Finds out who asks: by the cookie, or as clients are known.
pub(super) fn visitor(page: &Page, headers: &HeaderMap) -> Result<Visitor, ApiError> {
    let server = &page.server;
    if let Some(secret) = cookie(headers) {
        let found = server.store.session(&hash(secret), time::now());
        if let Some(token) = found.map_err(ApiError::internal)? {
            return Ok(Visitor {
                caller: Caller {
                    name: token.name,
                    role: token.role,
                    address: address::of(headers),
                },
                proof: proof(secret.as_bytes()),
                logged_in: true,
            });
        }
    }
    Ok(Visitor {
        caller: access::caller(&server.store, headers, server.settings.open)?,
        proof: guest(page),
        logged_in: false,
    })
}

/// What forms of somebody without a session carry.
pub(super) fn guest(page: &Page) -> String {
    proof(&page.secret)
}

fn proof(secret: &[u8]) -> String {
    let mut digest = Sha256::new();
    digest.update(b"form ");
    digest.update(secret);
    URL_SAFE_NO_PAD.encode(digest.finalize())
}

/// Begins a session for a token; the cookie.
pub(super) fn begin(page: &Page, token: &str) -> Result<Option<HeaderValue>, ApiError> {
    let store = &page.server.store;
    let known = access::by_token(store, token).map_err(ApiError::internal)?;
    let Some(known) = known else {
        return Ok(None);
    };
    let secret = URL_SAFE_NO_PAD.encode(access::random().map_err(ApiError::internal)?);
    let lasts = i64::try_from(LASTS.as_nanos()).unwrap_or(i64::MAX);
    let now = time::now();
    store
        .begin_session(&hash(&secret), &known.name, now, now.saturating_add(lasts))
        .map_err(ApiError::internal)?;
    set(page, &secret, LASTS.as_secs()).map(Some)
}

/// Ends the session; the cookie that takes the old one away.
pub(super) fn end(page: &Page, headers: &HeaderMap) -> Result<HeaderValue, ApiError> {
    if let Some(secret) = cookie(headers) {
        let ended: Result<(), Error> = page.server.store.end_session(&hash(secret));
        ended.map_err(ApiError::internal)?;
    }
    set(page, "", 0)
}

fn set(page: &Page, secret: &str, seconds: u64) -> Result<HeaderValue, ApiError> {
    let secure = if page.server.url.starts_with("https:") {
        "; Secure"
    } else {
        ""
    };
    HeaderValue::from_str(&format!(
        "{COOKIE}={secret}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}"
    ))
    .map_err(ApiError::internal)
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).into_iter();
    let texts = all.filter_map(|value| value.to_str().ok());
    let mut pairs = texts.flat_map(|text| text.split(';'));
    pairs.find_map(|pair| {
        let value = pair.trim().strip_prefix(COOKIE)?.strip_prefix('=')?;
        (!value.is_empty()).then_some(value)
    })
}

/// What the database knows of the session that a request's cookie names.
pub(crate) fn named(headers: &HeaderMap) -> Option<Vec<u8>> {
    cookie(headers).map(hash)
}

fn hash(secret: &str) -> Vec<u8> {
    Sha256::digest(secret.as_bytes()).to_vec()
}
