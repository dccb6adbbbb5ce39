//! Reads the configured certificate and its key. Must not know listeners.

use std::path::{Path, PathBuf};

use headwater_api::config;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::self_signed::CertificateError;

/// The `[tls]` configuration is unusable.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Only one of the two files is configured.
    #[error("certificate_file and key_file must be given together")]
    Incomplete,
    /// A file cannot be read or parsed.
    #[error("could not read {what} from {}", path.display())]
    Read {
        /// "a certificate" or "a private key".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: pem::Error,
    },
    /// The file holds no certificate.
    #[error("{} holds no certificate", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key do not match, or their algorithm is not supported.
    #[error("certificate and key do not match or are not supported")]
    Unusable(#[from] rustls::Error),
    /// No self-signed certificate can be made.
    #[error("could not make a self-signed certificate")]
    SelfSigned(#[from] CertificateError),
}

/// The configured certificate with its key, or `None` without one.
///
/// # Errors
/// If a file cannot be read or the two do not match.
pub(super) fn load(config: &config::Tls) -> Result<Option<CertifiedKey>, TlsError> {
    let (certificate, key) = match (&config.certificate_file, &config.key_file) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        _ => return Err(TlsError::Incomplete),
    };
    let chain = read_chain(certificate)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::Read {
        what: "a private key",
        path: key.clone(),
        source,
    })?;
    Ok(Some(CertifiedKey::from_der(chain, key, &ring::default_provider())?))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |source| TlsError::Read { what: "a certificate", path: path.to_owned(), source };
    let chain: Vec<_> = CertificateDer::pem_file_iter(path).map_err(error)?.collect::<Result<_, _>>().map_err(error)?;
    if chain.is_empty() {
        return Err(TlsError::Empty { path: path.to_owned() });
    }
    Ok(chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(name: &str, text: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("headwater-tls-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn certificate_and_key_load_only_together() {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate_file = Some(write("cert.pem", &pair.cert.pem()));
        let key_file = Some(write("key.pem", &pair.signing_key.serialize_pem()));
        let tls = config::Tls { certificate_file: certificate_file.clone(), key_file: key_file.clone() };
        assert!(load(&tls).unwrap().is_some());
        assert!(load(&config::Tls::default()).unwrap().is_none());
        let half = config::Tls { certificate_file, key_file: None };
        assert!(matches!(load(&half), Err(TlsError::Incomplete)));
        let swapped = config::Tls { certificate_file: key_file.clone(), key_file };
        assert!(matches!(load(&swapped), Err(TlsError::Empty { .. })));
    }
}
