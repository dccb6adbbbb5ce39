//! Which certificate the TLS listeners use.
//!
//! Selects the ring crypto provider explicitly, because other libraries in the process may enable
//! another provider, and rustls does not choose a default between two.

use std::sync::Arc;

use headwater_api::Config;
use prometheus_client::metrics::gauge::Gauge;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::ResolvesServerCert;
use rustls::sign::SingleCertAndKey;

use super::configured::{self, TlsError};
use super::own_certificate::{OwnCertificate, now_s};
use super::self_signed::validity_s;
use crate::runtime::stages::Stages;

/// The TLS configuration of the listeners.
#[derive(Debug, Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    /// The node's own certificate; `None` if one is configured.
    own: Option<Arc<OwnCertificate>>,
    /// Unix time at which the certificate expires, in seconds.
    expiry: Gauge,
}

impl ServerTls {
    /// Loads the configured certificate. Without one, loads or makes the self-signed one if HTTPS
    /// is on. `None` if HTTPS is off and no certificate is configured.
    ///
    /// # Errors
    /// If the configured certificate cannot be used, or none can be made.
    pub fn load(config: &Config) -> Result<Option<Self>, TlsError> {
        if let Some(certified) = configured::load(&config.tls)? {
            let expiry = Gauge::default();
            // rustls has parsed the certificate; should its dates be unreadable, the time is 0.
            expiry.set(certified.cert.first().and_then(|leaf| validity_s(leaf).ok()).map_or(0, |(_, end_s)| end_s));
            let config = server_config(Arc::new(SingleCertAndKey::from(certified)))?;
            return Ok(Some(Self { config, own: None, expiry }));
        }
        if config.http.tls_listen.address().is_none() {
            return Ok(None);
        }
        let own = Arc::new(OwnCertificate::load_or_make(&config.node, now_s())?);
        let server = server_config(Arc::clone(&own) as Arc<dyn ResolvesServerCert>)?;
        Ok(Some(Self { config: server, expiry: own.expiry(), own: Some(own) }))
    }

    /// The configuration of a listener.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// True if the certificate is the node's own, which browsers warn about.
    pub fn is_self_signed(&self) -> bool {
        self.own.is_some()
    }

    /// SHA-256 of the self-signed certificate (`AB:CD:…`); `None` if a certificate is configured.
    pub fn self_signed_fingerprint(&self) -> Option<String> {
        self.own.as_ref().map(|own| own.fingerprint())
    }

    /// Adds the renewal of a self-signed certificate, and the metric of its expiry.
    pub fn mount(self, stages: &mut Stages) {
        let help = "Unix time at which the certificate of the TLS listeners expires";
        stages.own_metrics().register("tls_certificate_expiry_timestamp_seconds", help, self.expiry);
        if let Some(own) = self.own {
            log::info!(sha256 = own.fingerprint(); "https uses the node's self-signed certificate");
            stages.add_background(own.run_renewal());
        }
    }
}

fn server_config(resolver: Arc<dyn ResolvesServerCert>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use headwater_api::config::Listen;

    use super::*;

    #[test]
    fn own_certificate_is_made_only_if_none_is_configured_and_https_is_on() {
        let folder = std::env::temp_dir().join(format!("headwater-server-tls-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut config = Config::default();
        config.node.data_dir.clone_from(&folder);
        config.http.tls_listen = Listen::Off;
        assert!(ServerTls::load(&config).unwrap().is_none());
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        config.http.tls_listen = Config::default().http.tls_listen;
        let own = ServerTls::load(&config).unwrap().unwrap();
        assert!(own.is_self_signed() && own.self_signed_fingerprint().is_some());
        // A configured one, from the same file.
        let file = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
        config.tls.certificate_file = Some(file.clone());
        assert!(ServerTls::load(&config).is_err(), "half a configuration is an error");
        config.tls.key_file = Some(file);
        let configured = ServerTls::load(&config).unwrap().unwrap();
        assert!(!configured.is_self_signed() && configured.expiry.get() > 0);
        assert_eq!(configured.self_signed_fingerprint(), None);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
