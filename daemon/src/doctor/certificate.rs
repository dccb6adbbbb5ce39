//! Checks that the configured certificate is valid and fits its key. The node renews a self-signed
//! one itself.

use std::path::Path;

use headwater_api::config::Tls;
use headwater_api::error::Chain;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::Finding;

const CHECK: &str = "certificate";
/// Warns below this number of remaining days: by then a renewal has been due for two weeks.
const WARN_DAYS: i64 = 14;

/// Reads both files, checks that they fit, and counts the remaining days. `self_signed` is the
/// fingerprint of the running node's own certificate; `now_s` is Unix time.
pub(super) fn check(tls: &Tls, self_signed: Option<&str>, now_s: u64) -> Finding {
    let (certificate, key) = match (&tls.certificate_file, &tls.key_file) {
        (None, None) => {
            let fingerprint = self_signed.map(|sha256| format!(", SHA-256 {sha256}")).unwrap_or_default();
            let message = format!("none in [tls]: HTTPS uses a self-signed one{fingerprint}, and there is no RTMPS");
            return Finding::skip(CHECK, message);
        }
        (Some(certificate), Some(key)) => (certificate, key),
        _ => {
            return Finding::fail(
                CHECK,
                "[tls] names only one of certificate_file and key_file",
                "name both or neither",
            );
        }
    };
    let leaf = match read(certificate, key) {
        Ok(leaf) => leaf,
        Err((message, remedy)) => return Finding::fail(CHECK, message, remedy),
    };
    let valid = match x509_parser::parse_x509_certificate(&leaf) {
        Ok((_, parsed)) => parsed.validity().clone(),
        Err(e) => {
            return Finding::fail(CHECK, format!("{} cannot be read: {e}", certificate.display()), "get a new one");
        }
    };
    let now_s = i64::try_from(now_s).unwrap_or(i64::MAX);
    let days = (valid.not_after.timestamp() - now_s).div_euclid(24 * 60 * 60);
    let renew = "renew it and restart the node";
    if now_s < valid.not_before.timestamp() {
        Finding::fail(CHECK, format!("it is valid only from {}", valid.not_before), "check the clock, or wait")
    } else if now_s > valid.not_after.timestamp() {
        Finding::fail(CHECK, format!("it expired on {}", valid.not_after), renew)
    } else if days < WARN_DAYS {
        Finding::warn(CHECK, format!("it expires in {days} days"), renew)
    } else {
        Finding::ok(CHECK, format!("fits its key, valid for {days} more days"))
    }
}

/// Returns the leaf certificate, or a fault and its remedy.
fn read(certificate: &Path, key: &Path) -> Result<CertificateDer<'static>, (String, &'static str)> {
    let unusable = |path: &Path, e: &dyn std::fmt::Display| format!("{} cannot be used: {e}", path.display());
    let file = "the file must be PEM, and readable by the node's user";
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|e| (unusable(certificate, &Chain(&e)), file))?;
    let leaf = chain.first().cloned().ok_or_else(|| (unusable(certificate, &"it holds no certificate"), file))?;
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|e| (unusable(key, &Chain(&e)), file))?;
    CertifiedKey::from_der(chain, key_der, &rustls::crypto::ring::default_provider()).map_err(|e| {
        (format!("certificate and key do not fit: {e}"), "name the key that belongs to the certificate")
    })?;
    Ok(leaf)
}

#[cfg(test)]
mod tests {
    use super::super::CheckStatus;
    use super::*;

    const DAY_S: u64 = 24 * 60 * 60;
    /// 2027-01-01.
    const NEW_YEAR_S: u64 = 1_798_761_600;

    #[test]
    fn certificate_fails_if_expired_or_mismatched_and_warns_before_it_expires() {
        let folder = std::env::temp_dir().join(format!("headwaterd-doctor-certificate-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let pair = |name: &str| {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(2026, 1, 1);
            params.not_after = rcgen::date_time_ymd(2027, 1, 1);
            let (cert, secret) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
            std::fs::write(&cert, params.self_signed(&key).unwrap().pem()).unwrap();
            std::fs::write(&secret, key.serialize_pem()).unwrap();
            Tls { certificate_file: Some(cert), key_file: Some(secret) }
        };
        let (tls, other) = (pair("a"), pair("b"));
        let mark = |tls: &Tls, now_s| check(tls, None, now_s).status;
        assert_eq!(
            check(&tls, None, NEW_YEAR_S - 100 * DAY_S),
            Finding::ok("certificate", "fits its key, valid for 100 more days")
        );
        assert_eq!(mark(&tls, NEW_YEAR_S - 3 * DAY_S), CheckStatus::Warn);
        assert_eq!(mark(&tls, NEW_YEAR_S + 1), CheckStatus::Fail);
        assert_eq!(mark(&tls, NEW_YEAR_S - 400 * DAY_S), CheckStatus::Fail);
        let mixed = Tls { key_file: other.key_file.clone(), ..tls.clone() };
        assert!(check(&mixed, None, NEW_YEAR_S - 100 * DAY_S).message.contains("do not fit"));
        assert_eq!(mark(&Tls { key_file: None, ..tls.clone() }, 0), CheckStatus::Fail);
        assert_eq!(mark(&Tls { certificate_file: Some("/nonexistent".into()), ..tls }, 0), CheckStatus::Fail);
        let own = check(&Tls::default(), Some("AB:CD"), 0);
        assert!(own.status == CheckStatus::Skip && own.message.contains("self-signed one, SHA-256 AB:CD"), "{own:?}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
