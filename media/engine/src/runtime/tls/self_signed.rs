//! A self-signed certificate as a value: made for some names, stored as PEM text, and replaced in
//! time. Takes the time as an argument; must not know files.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use ring::digest;
use rustls::client::verify_server_name;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;

use super::names::Names;

/// Validity of a new certificate. Browsers accept 398 days at most.
const VALIDITY_PERIOD: Duration = Duration::from_secs(365 * DAY_S);
/// A certificate is replaced when it is valid for less than this.
const RENEWAL_PERIOD: Duration = Duration::from_secs(30 * DAY_S);
/// A new certificate has been valid for this long, so that it is also accepted by clients whose
/// clock is behind.
const BACKDATING_TOLERANCE: Duration = Duration::from_secs(DAY_S);

/// A self-signed certificate with its key.
#[derive(Debug, Clone)]
pub(super) struct SelfSigned {
    pub(super) certified: Arc<CertifiedKey>,
    /// SHA-256 of the certificate, as browsers show it: `AB:CD:…`.
    pub(super) fingerprint: String,
    /// Unix time, in seconds.
    pub(super) not_before_s: i64,
    /// Unix time, in seconds.
    pub(super) not_after_s: i64,
}

/// A certificate cannot be made or parsed.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// No key or certificate can be generated.
    #[error("could not generate a certificate")]
    Generate(#[from] rcgen::Error),
    /// The text is not PEM.
    #[error("not a PEM file")]
    Pem(#[from] pem::Error),
    /// The text holds no certificate.
    #[error("no certificate in the file")]
    Empty,
    /// The certificate is not X.509 (RFC 5280).
    #[error("not an X.509 certificate: {0}")]
    X509(String),
    /// Certificate and key do not match.
    #[error("certificate and key do not match")]
    Mismatch(#[from] rustls::Error),
}

impl SelfSigned {
    /// Makes a certificate with an ECDSA P-256 key. Returns it with its PEM text, which
    /// [`Self::parse`] reads. `now_s` is Unix time, in seconds.
    ///
    /// # Errors
    /// If the system provides no random numbers.
    pub(super) fn make(names: &Names, now_s: u64) -> Result<(Self, String), CertificateError> {
        let key = KeyPair::generate()?;
        let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(now_s.min(MAX_TIME_S));
        let mut params = CertificateParams::default();
        params.not_before = now - BACKDATING_TOLERANCE;
        params.not_after = now + VALIDITY_PERIOD;
        params.subject_alt_names = names.subject_alt_names();
        params.distinguished_name.push(DnType::CommonName, "Headwater, self-signed");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let text = format!("{}{}", params.self_signed(&key)?.pem(), key.serialize_pem());
        Ok((Self::parse(&text)?, text))
    }

    /// Parses the PEM text of a certificate and its key.
    ///
    /// # Errors
    /// If it is damaged, or the two do not match.
    pub(super) fn parse(text: &str) -> Result<Self, CertificateError> {
        let chain = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let leaf = chain.first().ok_or(CertificateError::Empty)?;
        let (not_before_s, not_after_s) = validity_s(leaf)?;
        let fingerprint = fingerprint(leaf);
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes())?;
        let certified = Arc::new(CertifiedKey::from_der(chain, key, &default_provider())?);
        Ok(Self { certified, fingerprint, not_before_s, not_after_s })
    }

    /// True if the certificate must be replaced: it is not valid yet, not for long any more, or
    /// lacks a name. `now_s` is Unix time, in seconds.
    pub(super) fn is_due(&self, names: &Names, now_s: u64) -> bool {
        let now_s = i64::try_from(now_s).unwrap_or(i64::MAX);
        let renew_at_s = self.not_after_s.saturating_sub(RENEWAL_PERIOD.as_secs().cast_signed());
        now_s < self.not_before_s || now_s >= renew_at_s || !self.covers(names)
    }

    fn covers(&self, names: &Names) -> bool {
        let parsed = self.certified.cert.first().map(ParsedCertificate::try_from);
        let Some(Ok(certificate)) = parsed else { return false };
        names.required().iter().all(|name| verify_server_name(&certificate, name).is_ok())
    }
}

/// Start and end of a certificate's validity, in Unix seconds.
///
/// # Errors
/// If it is not X.509.
pub(super) fn validity_s(certificate: &CertificateDer<'_>) -> Result<(i64, i64), CertificateError> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|e| CertificateError::X509(e.to_string()))?;
    let validity = parsed.validity();
    Ok((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digest = digest::digest(&digest::SHA256, certificate);
    digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

const DAY_S: u64 = 24 * 60 * 60;
/// The year 9000: X.509 ends with the year 9999.
const MAX_TIME_S: u64 = 221_845_392_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-30.
    const NOW_S: u64 = 1_795_996_800;

    fn names(addresses: &[&str]) -> Names {
        let addresses: Vec<_> = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        Names::new("studio-1", &addresses, Vec::new())
    }

    #[test]
    fn certificate_is_valid_for_a_year_and_replaced_30_days_before_its_end() {
        let names = names(&[]);
        let (made, _) = SelfSigned::make(&names, NOW_S).unwrap();
        let days = |n: u64| NOW_S + n * DAY_S;
        assert_eq!((made.not_after_s - made.not_before_s) / DAY_S.cast_signed(), 366, "at most 398 for browsers");
        assert_eq!(made.not_after_s, days(365).cast_signed());
        for (now_s, due) in [
            (NOW_S, false),
            (NOW_S - DAY_S, false),
            (NOW_S - DAY_S - 1, true),
            (days(335) - 1, false),
            (days(335), true),
            (days(1_000), true),
            (0, true),
            (u64::MAX, true),
        ] {
            assert_eq!(made.is_due(&names, now_s), due, "{now_s}");
        }
    }

    #[test]
    fn certificate_is_replaced_if_the_node_has_a_new_address() {
        let (made, _) = SelfSigned::make(&names(&["203.0.113.7", "10.0.1.12"]), NOW_S).unwrap();
        for (addresses, due) in [
            (&["203.0.113.7", "10.0.1.12"][..], false),
            (&["10.0.1.12"], false),
            (&["203.0.113.8", "10.0.1.12"], true),
            (&["2001:db8::7"], true),
        ] {
            assert_eq!(made.is_due(&names(addresses), NOW_S), due, "{addresses:?}");
        }
    }

    #[test]
    fn stored_text_gives_the_same_certificate_and_a_damaged_one_is_an_error() {
        let (made, text) = SelfSigned::make(&names(&[]), NOW_S).unwrap();
        let parsed = SelfSigned::parse(&text).unwrap();
        assert_eq!(parsed.fingerprint, made.fingerprint);
        assert_eq!(made.fingerprint.len(), 32 * 3 - 1);
        for end in (0..text.len() - 2).step_by(7) {
            assert!(SelfSigned::parse(&text[..end]).is_err(), "{end}");
        }
        let (_, other) = SelfSigned::make(&names(&[]), NOW_S).unwrap();
        let key = |text: &str| text[text.find("-----BEGIN PRIVATE").unwrap()..].to_owned();
        let mixed = text.replace(&key(&text), &key(&other));
        assert!(matches!(SelfSigned::parse(&mixed), Err(CertificateError::Mismatch(_))));
    }

    #[test]
    fn certificate_can_be_made_at_any_time_of_the_clock() {
        for now_s in [0, NOW_S, u64::MAX] {
            SelfSigned::make(&names(&[]), now_s).unwrap();
        }
    }
}
