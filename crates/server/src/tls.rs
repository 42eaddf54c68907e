//! TLS by a certificate that the administrator gives. A renewed one is taken up while the server runs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

/// How often the files are looked at, at most.
const LOOK: Duration = Duration::from_secs(10);

/// Files in PEM: the certificates, the server's own first, and its key.
#[derive(Clone, Debug)]
pub struct Files {
    /// The certificates.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// Why they cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{0} cannot be read: {1}")]
    File(PathBuf, io::Error),
    /// A file is no PEM, or not of this kind.
    #[error("{0}: {1}")]
    Pem(PathBuf, String),
    /// Others could read the key.
    #[error("the key {0} can be read by every user of this machine: chmod o-rwx it")]
    Open(PathBuf),
    /// They do not fit together, or are of a kind that is not supported.
    #[error("{0} and its key cannot be used: {1}")]
    Pair(PathBuf, rustls::Error),
}

/// The certificate in use.
pub(crate) struct Tls {
    files: Files,
    state: Mutex<State>,
}

struct State {
    looked: Instant,
    stamps: [Option<SystemTime>; 2],
    acceptor: TlsAcceptor,
}

impl Tls {
    pub(crate) fn open(files: Files) -> Result<Tls, Error> {
        let state = State {
            looked: Instant::now(),
            // Before the files are read: a change while they are is seen later.
            stamps: stamps(&files),
            acceptor: load(&files)?,
        };
        Ok(Tls {
            files,
            state: Mutex::new(state),
        })
    }

    /// What greets the next client. Files that cannot be used leave the certificate that was: the error is told once.
    pub(crate) fn acceptor(&self) -> (TlsAcceptor, Option<Error>) {
        self.acceptor_after(LOOK)
    }

    fn acceptor_after(&self, pause: Duration) -> (TlsAcceptor, Option<Error>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut trouble = None;
        if state.looked.elapsed() >= pause {
            state.looked = Instant::now();
            let stamps = stamps(&self.files);
            if stamps != state.stamps {
                state.stamps = stamps;
                match load(&self.files) {
                    Ok(acceptor) => state.acceptor = acceptor,
                    Err(error) => trouble = Some(error),
                }
            }
        }
        (state.acceptor.clone(), trouble)
    }
}

fn stamps(files: &Files) -> [Option<SystemTime>; 2] {
    let stamp = |path: &Path| path.metadata().and_then(|found| found.modified()).ok();
    [stamp(&files.certificate), stamp(&files.key)]
}

fn load(files: &Files) -> Result<TlsAcceptor, Error> {
    let read =
        |path: &PathBuf| std::fs::read(path).map_err(|error| Error::File(path.clone(), error));
    let wrong = |path: &PathBuf, error: String| Error::Pem(path.clone(), error);
    let chain: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_slice_iter(&read(&files.certificate)?).collect();
    let chain = chain.map_err(|error| wrong(&files.certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(wrong(
            &files.certificate,
            "it holds no certificate".to_owned(),
        ));
    }
    let key = read(&files.key)?;
    let mode = files
        .key
        .metadata()
        .map_err(|error| Error::File(files.key.clone(), error))?;
    if std::os::unix::fs::MetadataExt::mode(&mode) & 0o007 != 0 {
        return Err(Error::Open(files.key.clone()));
    }
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|error| wrong(&files.key, format!("it holds no private key: {error}")))?;
    let pair = |error| Error::Pair(files.certificate.clone(), error);
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn write(dir: &Path) -> Files {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let files = Files {
            certificate: dir.join("cert.pem"),
            key: dir.join("key.pem"),
        };
        fs::write(&files.certificate, made.cert.pem()).unwrap();
        fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o640)).unwrap();
        files
    }

    #[test]
    fn a_renewed_certificate_is_taken_up_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let files = write(dir.path());
        let tls = Tls::open(files.clone()).unwrap();
        let config = |tls: &Tls| {
            let (acceptor, trouble) = tls.acceptor_after(Duration::ZERO);
            (
                Arc::as_ptr(acceptor.config()),
                trouble.map(|error| error.to_string()),
            )
        };
        let (first, trouble) = config(&tls);
        assert_eq!(trouble, None);
        let later = SystemTime::now() + Duration::from_secs(5);
        let touch = |path: &Path, time| {
            fs::File::options()
                .append(true)
                .open(path)
                .unwrap()
                .set_modified(time)
                .unwrap()
        };
        write(dir.path());
        touch(&files.key, later);
        let (second, trouble) = config(&tls);
        assert!(first != second && trouble.is_none());
        fs::write(&files.certificate, "nothing").unwrap();
        touch(&files.certificate, later + LOOK);
        let (third, trouble) = config(&tls);
        assert!(third == second && trouble.unwrap().contains("no certificate"));
        assert_eq!(config(&tls), (second, None), "it is said once");
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let files = write(dir.path());
        let said = |files: &Files| Tls::open(files.clone()).map(drop).unwrap_err().to_string();
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(said(&files).contains("chmod"));
        let swapped = Files {
            certificate: files.certificate.clone(),
            key: files.certificate.clone(),
        };
        fs::set_permissions(&files.certificate, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(said(&swapped).contains("no private key"));
        let other = tempfile::tempdir().unwrap();
        let mixed = Files {
            certificate: files.certificate,
            key: write(other.path()).key,
        };
        assert!(said(&mixed).contains("cannot be used"));
    }
}
