//! Who is asking, and what that one may do.

use std::net::IpAddr;

use axum::http::{HeaderMap, Method, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kiln_digest::Sha256;

use crate::address;
use crate::store::{Error, Role, Store, Token};
use crate::wire::error::{ApiError, Code};
use crate::wire::time;

/// Begins every token, so that one is known for what it is where it should not be.
const START: &str = "kiln_";

/// Makes a token and keeps its hash. `None`: the name is taken.
///
/// # Errors
/// The database cannot be written, or the kernel has no random numbers.
pub fn create(store: &Store, name: &str, role: Role) -> Result<Option<String>, Error> {
    let text = format!("{START}{}", URL_SAFE_NO_PAD.encode(random()?));
    let token = Token {
        name: name.to_owned(),
        role,
        created: time::now(),
    };
    Ok(store.add_token(&token, &hash(&text))?.then_some(text))
}

/// The token that a webhook's address has to bring, if it is the one of this name. What is compared are hashes, all of their
/// bytes, so that the time tells nothing.
///
/// # Errors
/// The database cannot be read.
pub fn secret(store: &Store, name: &str, given: &str) -> Result<Option<Caller>, Error> {
    let given = hash(given);
    let Some((token, hash)) = store.token_named(name)? else {
        return Ok(None);
    };
    let pairs = hash.iter().zip(&given);
    let differs = pairs.fold(hash.len() ^ given.len(), |differs, (one, other)| {
        std::hint::black_box(differs | usize::from(one ^ other))
    });
    Ok((differs == 0).then_some(Caller {
        name: token.name,
        role: token.role,
        address: None,
    }))
}

/// Random bytes of the kernel, too many to be guessed.
pub(crate) fn random() -> Result<[u8; 32], std::io::Error> {
    let mut bytes = [0_u8; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(bytes)
}

/// The token that a text is, if it is one.
pub(crate) fn by_token(store: &Store, text: &str) -> Result<Option<Token>, Error> {
    store.token(&hash(text))
}

fn hash(token: &str) -> Vec<u8> {
    Sha256::digest(token.as_bytes()).to_vec()
}

/// Who asks, and with which role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The token's name, or `anyone`.
    pub name: String,
    /// What is allowed.
    pub role: Role,
    /// The address that the request came from.
    pub address: Option<IpAddr>,
}

impl Caller {
    /// Puts on record what somebody did.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn note(&self, store: &Store, what: &str, build: Option<&str>) -> Result<(), Error> {
        let address = self.address.map(|address| address.to_string());
        store.audit_from(time::now(), (&self.name, address.as_deref()), what, build)
    }

    /// Refuses what the role does not allow.
    ///
    /// # Errors
    /// It does not.
    pub fn needs(&self, role: Role) -> Result<(), ApiError> {
        if self.role >= role {
            return Ok(());
        }
        Err(ApiError::new(
            Code::PermissionDenied,
            format!(
                "the token {} has the role {}, this needs {}",
                self.name,
                self.role.name(),
                role.name()
            ),
        ))
    }
}

/// The role that a request to the buckets needs.
pub fn for_objects(method: &Method) -> Role {
    match *method {
        Method::GET | Method::HEAD | Method::CONNECT => Role::View,
        _ => Role::Submit,
    }
}

/// Finds out who asks. `open`: whoever reaches the port may do everything, except pages of other sites in a browser.
///
/// # Errors
/// No token, or an unknown one; in the open, a request that a page of another site made.
pub fn caller(store: &Store, headers: &HeaderMap, open: bool) -> Result<Caller, ApiError> {
    let refused = |why: &str| ApiError::new(Code::Unauthenticated, why);
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    if let Some(token) = given.filter(|token| token.starts_with(START)) {
        let found = store.token(&hash(token)).map_err(ApiError::internal)?;
        let token = found.ok_or_else(|| refused("the token is unknown to this server"))?;
        return Ok(Caller {
            name: token.name,
            role: token.role,
            address: address::of(headers),
        });
    }
    if !open {
        return Err(refused("this needs a token: Authorization: Bearer kiln_…"));
    }
    if is_foreign_page(headers) {
        return Err(ApiError::new(
            Code::PermissionDenied,
            "pages of other sites may not use this server",
        ));
    }
    Ok(Caller {
        name: "anyone".to_owned(),
        role: Role::Admin,
        address: address::of(headers),
    })
}

/// A browser says where a page came from; and a page that reached the port under a name of its own is one of these too.
fn is_foreign_page(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text(header::HOST).unwrap_or("");
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let is_ours = name.is_empty()
        || name == "localhost"
        || name == "storage.googleapis.com"
        || name
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok();
    let origin = text(header::ORIGIN);
    let same =
        origin.is_none_or(|origin| origin.split_once("://").is_some_and(|(_, at)| at == host));
    !is_ours || !same
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn tokens_are_known_and_their_role_counts() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let text = create(&store, "ann", Role::View).unwrap().unwrap();
        assert!(create(&store, "ann", Role::View).unwrap().is_none());
        let bearer = format!("Bearer {text}");
        let ann = caller(&store, &headers(&[("authorization", &bearer)]), false).unwrap();
        assert_eq!(ann.name, "ann");
        assert_eq!(
            ann.needs(Role::Submit).unwrap_err().code,
            Code::PermissionDenied
        );
        ann.needs(Role::View).unwrap();
        for wrong in ["", "Bearer kiln_x", "Basic x"] {
            let error = caller(&store, &headers(&[("authorization", wrong)]), false).unwrap_err();
            assert_eq!(error.code, Code::Unauthenticated, "{wrong}");
        }
        let bytes = std::fs::read(dir.path().join("kiln.db")).unwrap();
        let wal = std::fs::read(dir.path().join("kiln.db-wal")).unwrap();
        let is_there = |bytes: &[u8]| {
            bytes
                .windows(text.len())
                .any(|part| part == text.as_bytes())
        };
        assert!(
            !is_there(&bytes) && !is_there(&wal),
            "the token itself is kept"
        );
    }

    #[test]
    fn an_open_server_is_closed_to_pages_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let asks = |list: &[(&'static str, &str)]| caller(&store, &headers(list), true).is_ok();
        assert!(asks(&[
            ("host", "127.0.0.1:8470"),
            ("authorization", "Bearer gcloud")
        ]));
        assert!(asks(&[
            ("host", "[::1]:8470"),
            ("origin", "http://[::1]:8470")
        ]));
        assert!(asks(&[("host", "storage.googleapis.com")]));
        assert!(!asks(&[("host", "evil.example:8470")]));
        assert!(!asks(&[
            ("host", "127.0.0.1:8470"),
            ("origin", "http://evil.example")
        ]));
        assert!(!asks(&[("host", "127.0.0.1:8470"), ("origin", "null")]));
    }
}
