//! Certificate fingerprints in SDP (RFC 8122 §5).

use std::fmt;

/// The SHA-256 hash of a DER-encoded certificate. `Display` writes the SDP form.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Computes the fingerprint of a DER-encoded certificate.
    pub fn of(certificate: &[u8]) -> Self {
        let mut out = [0; 32];
        out.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, certificate).as_ref());
        Self(out)
    }

    /// Parses `sha-256 AB:CD:…`. Returns `None` for another algorithm or another length.
    pub fn parse(value: &str) -> Option<Self> {
        let (algorithm, digits) = value.trim().split_once(' ')?;
        if !algorithm.eq_ignore_ascii_case("sha-256") {
            return None;
        }
        let mut out = [0; 32];
        let mut parts = digits.trim().split(':');
        for byte in &mut out {
            let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        parts.next().is_none().then_some(Self(out))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha-256 ")?;
        self.0.iter().enumerate().try_for_each(|(i, b)| match i {
            0 => write!(f, "{b:02X}"),
            _ => write!(f, ":{b:02X}"),
        })
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprint_round_trips_and_other_forms_are_rejected() {
        let fingerprint = Fingerprint::of(b"certificate");
        let text = fingerprint.to_string();
        assert_eq!(Fingerprint::parse(&text), Some(fingerprint));
        assert_eq!(Fingerprint::parse(&text.to_lowercase()), Some(fingerprint));
        for bad in ["", "sha-256", "sha-256 ", "sha-256 AB", "sha-1 AB:CD", &text.replace("sha-256", "sha-512")] {
            assert_eq!(Fingerprint::parse(bad), None, "{bad:?}");
        }
        assert_eq!(Fingerprint::parse(&format!("{text}:00")), None);
        assert_eq!(Fingerprint::parse(&text[..text.len() - 1]), None);
        assert_eq!(Fingerprint::parse(&text.replacen(':', ":+", 1)), None);
    }
}
