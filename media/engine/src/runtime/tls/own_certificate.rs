//! The node's self-signed certificate while it is served: kept in a file of the data folder over
//! restarts, and renewed in time. Serves in any case: a file that cannot be read is replaced, and
//! one that cannot be written costs the certificate at the next restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use headwater_api::config;
use headwater_api::error::Chain;
use headwater_program::private_file::write_private;
use prometheus_client::metrics::gauge::Gauge;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use super::names::Names;
use super::self_signed::{CertificateError, SelfSigned};

/// Interval of the check whether the certificate is due for renewal. Short, because the clock of a
/// machine may be corrected long after its start.
const RENEWAL_CHECK_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// The node's own certificate.
#[derive(Debug)]
pub(super) struct OwnCertificate {
    data_dir: PathBuf,
    names: Names,
    current_tx: watch::Sender<Arc<SelfSigned>>,
    /// Unix time at which the current certificate expires, in seconds.
    expiry: Gauge,
}

impl OwnCertificate {
    /// Loads the certificate from the data folder, or makes one if there is none, or none that can
    /// be used for long. `now_s` is Unix time, in seconds.
    ///
    /// # Errors
    /// If none can be made.
    pub(super) fn load_or_make(node: &config::Node, now_s: u64) -> Result<Self, CertificateError> {
        let (data_dir, names) = (node.data_dir.clone(), Names::of(node));
        let stored = load(&data_dir.join(FILE_NAME)).filter(|stored| !stored.is_due(&names, now_s));
        let current = match stored {
            Some(stored) => stored,
            None => {
                let (made, text) = SelfSigned::make(&names, now_s)?;
                store(&data_dir, &text);
                made
            }
        };
        let expiry = Gauge::default();
        expiry.set(current.not_after_s);
        Ok(Self { data_dir, names, current_tx: watch::Sender::new(Arc::new(current)), expiry })
    }

    /// SHA-256 of the current certificate: `AB:CD:…`.
    pub(super) fn fingerprint(&self) -> String {
        self.current_tx.borrow().fingerprint.clone()
    }

    /// Unix time at which the current certificate expires, in seconds.
    pub(super) fn expiry(&self) -> Gauge {
        self.expiry.clone()
    }

    /// Renews the certificate whenever it is due. Never returns.
    pub(super) async fn run_renewal(self: Arc<Self>) {
        loop {
            tokio::time::sleep(RENEWAL_CHECK_INTERVAL).await;
            let this = Arc::clone(&self);
            // A renewal writes a file. If it panicked, the next check tries again.
            let _ = tokio::task::spawn_blocking(move || this.renew_if_due(now_s())).await;
        }
    }

    fn renew_if_due(&self, now_s: u64) {
        if !self.current_tx.borrow().is_due(&self.names, now_s) {
            return;
        }
        match SelfSigned::make(&self.names, now_s) {
            Ok((made, text)) => {
                log::info!(sha256 = made.fingerprint.as_str(); "renewed the self-signed certificate");
                self.expiry.set(made.not_after_s);
                self.current_tx.send_replace(Arc::new(made));
                // Last: the disk may hang.
                store(&self.data_dir, &text);
            }
            // The next check tries again.
            Err(e) => log::warn!(err:% = Chain(&e); "could not renew the self-signed certificate"),
        }
    }
}

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current_tx.borrow().certified))
    }
}

/// Reads the stored certificate; `None` if there is none that can be used.
fn load(path: &Path) -> Option<SelfSigned> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
        Err(e) => {
            log::warn!(path:% = path.display(), err:% = e; "could not read the self-signed certificate, replacing it");
            return None;
        }
    };
    let parsed = SelfSigned::parse(&text);
    let warn = |e: &CertificateError| {
        log::warn!(path:% = path.display(), err:% = Chain(e); "the self-signed certificate is damaged, replacing it");
    };
    parsed.inspect_err(warn).ok()
}

fn store(data_dir: &Path, text: &str) {
    if let Err(e) = write_private(data_dir, FILE_NAME, text.trim_end()) {
        log::warn!(
            path:% = data_dir.join(FILE_NAME).display(), err:% = e;
            "could not store the self-signed certificate, the node makes another one at its next start"
        );
    }
}

/// Now, in Unix seconds.
pub(super) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Certificate and key, in the data folder.
const FILE_NAME: &str = "self-signed.pem";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const DAY_S: u64 = 24 * 60 * 60;

    /// A node with a data folder of its own.
    fn node(name: &str) -> config::Node {
        let data_dir = std::env::temp_dir().join(format!("headwater-own-certificate-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&data_dir).unwrap();
        config::Node { data_dir, addresses: vec!["203.0.113.7".parse().unwrap()], ..config::Node::default() }
    }

    fn fingerprint_at(node: &config::Node, now_s: u64) -> String {
        OwnCertificate::load_or_make(node, now_s).unwrap().fingerprint()
    }

    #[test]
    fn certificate_is_kept_over_restarts_until_it_is_due() {
        let node = node("kept");
        let (now_s, path) = (now_s(), node.data_dir.join(FILE_NAME));
        let first = fingerprint_at(&node, now_s);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fingerprint_at(&node, now_s + 300 * DAY_S), first);
        let renewed = fingerprint_at(&node, now_s + 340 * DAY_S);
        assert_ne!(renewed, first);
        assert_eq!(fingerprint_at(&node, now_s + 341 * DAY_S), renewed);
        let moved = config::Node { addresses: vec!["203.0.113.8".parse().unwrap()], ..node.clone() };
        assert_ne!(fingerprint_at(&moved, now_s + 341 * DAY_S), renewed, "the node has a new address");
        std::fs::remove_dir_all(&node.data_dir).unwrap();
    }

    #[test]
    fn damaged_certificate_is_replaced() {
        let node = node("damaged");
        let (now_s, path) = (now_s(), node.data_dir.join(FILE_NAME));
        let first = fingerprint_at(&node, now_s);
        let text = std::fs::read_to_string(&path).unwrap();
        for damaged in [&b""[..], b"\xff\xfe", &text.as_bytes()[..text.len() / 2]] {
            std::fs::write(&path, damaged).unwrap();
            let replaced = fingerprint_at(&node, now_s);
            assert_ne!(replaced, first);
            assert_eq!(fingerprint_at(&node, now_s), replaced, "the file is repaired");
        }
        std::fs::remove_dir_all(&node.data_dir).unwrap();
    }

    #[test]
    fn node_serves_although_the_certificate_cannot_be_stored() {
        let node = node("unwritable");
        std::fs::remove_dir_all(&node.data_dir).unwrap();
        assert!(OwnCertificate::load_or_make(&node, now_s()).is_ok());
        assert!(!node.data_dir.exists());
    }

    #[test]
    fn running_node_serves_the_renewed_certificate_and_its_expiry() {
        let node = node("running");
        let now_s = now_s();
        let own = OwnCertificate::load_or_make(&node, now_s).unwrap();
        let (first, expiry) = (own.fingerprint(), own.expiry());
        own.renew_if_due(now_s + 300 * DAY_S);
        assert_eq!((own.fingerprint(), expiry.get()), (first.clone(), (now_s + 365 * DAY_S).cast_signed()));
        own.renew_if_due(now_s + 340 * DAY_S);
        assert_ne!(own.fingerprint(), first);
        assert_eq!(expiry.get(), (now_s + 705 * DAY_S).cast_signed());
        std::fs::remove_dir_all(&node.data_dir).unwrap();
    }
}
