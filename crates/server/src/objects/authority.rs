//! The server's own certificate authority. It speaks for one name, `storage.googleapis.com`, and for no other: its certificate says so,
//! and a client that trusts it trusts it for nothing else.
//!
//! The authority is one file, `authority.json` (0600), replaced by rename: certificate, key, and when it ends. The certificate that a
//! connection shows is made when the server starts, and again before it ends; it is never stored.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
};
use serde::{Deserialize, Serialize};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, version};

/// The one name that the authority speaks for.
pub(super) const HOST: &str = "storage.googleapis.com";
const FILE: &str = "authority.json";
/// Days that an authority lasts, and a certificate.
const AUTHORITY_DAYS: i32 = 3650;
const LEAF_DAYS: i32 = 90;
/// Days before its end that a certificate is made anew. An authority is, when a certificate could outlast it.
const LEAF_MARGIN: i32 = 30;
const AUTHORITY_MARGIN: i32 = LEAF_DAYS + 30;

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Its file cannot be read or written.
    #[error("the certificate authority's file {0}: {1}")]
    File(String, #[source] std::io::Error),
    /// Its file is not what Kiln wrote.
    #[error(
        "the certificate authority's file {0} is damaged ({1}); remove it, and let clients run `kiln gcloud-env` again"
    )]
    Damaged(String, String),
    /// A certificate cannot be made.
    #[error("making a certificate: {0}")]
    Certificate(String),
}

#[derive(Serialize, Deserialize)]
struct Stored {
    certificate: String,
    key: String,
    /// The last day.
    until: String,
}

impl Stored {
    fn until(&self) -> Option<Date> {
        self.until.parse().ok()
    }
}

/// The authority; a handle that can be cloned.
#[derive(Clone)]
pub struct Authority(Arc<Inner>);

struct Inner {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
    leaf: Mutex<Leaf>,
}

struct Leaf {
    until: Date,
    acceptor: TlsAcceptor,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(…)")
    }
}

impl Authority {
    /// Opens the authority below a directory, and makes one if there is none, or if it ends soon.
    ///
    /// # Errors
    /// Its file cannot be used.
    pub fn open(directory: &Path) -> Result<Authority, AuthorityError> {
        Authority::open_on(directory, today())
    }

    fn open_on(directory: &Path, today: Date) -> Result<Authority, AuthorityError> {
        let path = directory.join(FILE);
        let shown = path.display().to_string();
        let failed = |error| AuthorityError::File(shown.clone(), error);
        let stored = match std::fs::read(&path) {
            Ok(bytes) => {
                let damaged = |error: serde_json::Error| {
                    AuthorityError::Damaged(shown.clone(), error.to_string())
                };
                Some(serde_json::from_slice::<Stored>(&bytes).map_err(damaged)?)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        let lasts = |stored: &Stored| {
            stored
                .until()
                .is_some_and(|until| days_later(today, AUTHORITY_MARGIN) <= until)
        };
        let stored = match stored.filter(lasts) {
            Some(stored) => stored,
            None => {
                let made = make(today)?;
                write(directory, &path, &made).map_err(failed)?;
                made
            }
        };
        let key = KeyPair::from_pem(&stored.key)
            .map_err(|error| AuthorityError::Damaged(shown.clone(), error.to_string()))?;
        // What the issuer's parameters say besides the name and the key has no part in what it signs.
        let issuer = Issuer::new(parameters(today, today), key);
        let leaf = leaf(&issuer, &stored.certificate, today)?;
        Ok(Authority(Arc::new(Inner {
            certificate: stored.certificate,
            issuer,
            leaf: Mutex::new(leaf),
        })))
    }

    /// Returns its certificate, which is no secret: what clients are to trust, in PEM.
    pub fn certificate(&self) -> &str {
        &self.0.certificate
    }

    /// Returns what ends TLS for the one name, with a certificate that lasts.
    pub(super) fn acceptor(&self) -> Result<TlsAcceptor, AuthorityError> {
        self.acceptor_on(today()).map(|(acceptor, _)| acceptor)
    }

    fn acceptor_on(&self, today: Date) -> Result<(TlsAcceptor, Date), AuthorityError> {
        let mut current = self.0.leaf.lock().unwrap_or_else(PoisonError::into_inner);
        if days_later(today, LEAF_MARGIN) > current.until {
            *current = leaf(&self.0.issuer, &self.0.certificate, today)?;
        }
        Ok((current.acceptor.clone(), current.until))
    }
}

fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}

fn days_later(day: Date, days: i32) -> Date {
    day.saturating_add(days.days())
}

fn certificate_error(error: impl std::fmt::Display) -> AuthorityError {
    AuthorityError::Certificate(error.to_string())
}

/// From the day before, for clocks that differ, through a day.
fn valid(parameters: &mut CertificateParams, today: Date, until: Date) {
    let day = |date: Date| {
        rcgen::date_time_ymd(
            date.year().into(),
            date.month().unsigned_abs(),
            date.day().unsigned_abs(),
        )
    };
    parameters.not_before = day(days_later(today, -1));
    parameters.not_after = day(days_later(until, 1));
}

fn parameters(today: Date, until: Date) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters
        .distinguished_name
        .push(DnType::CommonName, format!("Kiln's authority for {HOST}"));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName(HOST.to_owned())],
        excluded_subtrees: Vec::new(),
    });
    valid(&mut parameters, today, until);
    parameters
}

fn make(today: Date) -> Result<Stored, AuthorityError> {
    let until = days_later(today, AUTHORITY_DAYS);
    let key = KeyPair::generate().map_err(certificate_error)?;
    let certificate = parameters(today, until)
        .self_signed(&key)
        .map_err(certificate_error)?;
    Ok(Stored {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
        until: until.to_string(),
    })
}

fn leaf(
    issuer: &Issuer<'static, KeyPair>,
    authority: &str,
    today: Date,
) -> Result<Leaf, AuthorityError> {
    let until = days_later(today, LEAF_DAYS);
    let key = KeyPair::generate().map_err(certificate_error)?;
    let mut parameters =
        CertificateParams::new(vec![HOST.to_owned()]).map_err(certificate_error)?;
    parameters.distinguished_name.push(DnType::CommonName, HOST);
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters.use_authority_key_identifier_extension = true;
    valid(&mut parameters, today, until);
    let certificate = parameters
        .signed_by(&key, issuer)
        .map_err(certificate_error)?;
    let chain = vec![certificate.der().clone(), decode(authority)?];
    let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(certificate_error)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(certificate_error)?;
    Ok(Leaf {
        until,
        acceptor: TlsAcceptor::from(Arc::new(config)),
    })
}

fn decode(pem: &str) -> Result<CertificateDer<'static>, AuthorityError> {
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(certificate_error)
}

/// Appears whole, and for its owner only.
fn write(directory: &Path, path: &Path, stored: &Stored) -> std::io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let staged = path.with_extension("new");
    let _ = std::fs::remove_file(&staged);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&staged)?;
    file.write_all(&serde_json::to_vec(stored)?)?;
    file.sync_all()?;
    std::fs::rename(&staged, path)?;
    std::fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn day(year: i16, month: i8) -> Date {
        Date::new(year, month, 1).unwrap()
    }

    #[test]
    fn an_authority_stays_until_it_ends_soon() {
        let directory = tempfile::tempdir().unwrap();
        let open = |today| Authority::open_on(directory.path(), today).unwrap();
        let first = open(day(2026, 11));
        assert_eq!(open(day(2030, 1)).certificate(), first.certificate());
        let mode = std::fs::metadata(directory.path().join(FILE))
            .unwrap()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        // It would end in October 2036, and a certificate could outlast it.
        assert_ne!(open(day(2036, 8)).certificate(), first.certificate());
    }

    #[test]
    fn a_certificate_is_made_anew_before_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::open_on(directory.path(), day(2026, 11)).unwrap();
        let until = |today| authority.acceptor_on(today).unwrap().1;
        assert_eq!(until(day(2026, 11)), until(day(2026, 12)));
        let later = day(2027, 1);
        assert_eq!(until(later), days_later(later, LEAF_DAYS));
    }

    #[test]
    fn a_damaged_file_is_told() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE), b"{").unwrap();
        let error = Authority::open(directory.path()).unwrap_err();
        assert!(error.to_string().contains("kiln gcloud-env"), "{error}");
    }
}
