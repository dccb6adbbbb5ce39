//! How a token is identified without revealing it.

use std::fmt::Write as _;

use ring::digest;

/// The SHA-256 of a token in lower-case hexadecimal, as
/// [`TokenDocument::digest`](headwater_api::documents::TokenDocument::digest).
///
/// Of a JSON web token, what is signed is hashed, not the signature: who knows one ECDSA signature
/// can compute another valid one, and a revoked token must stay revoked.
pub fn token_digest(token: &str) -> String {
    let mut text = String::with_capacity(2 * digest::SHA256_OUTPUT_LEN);
    for byte in hash(token).as_ref() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The first half of a token's digest, by which revoked tokens are recognized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TokenId(pub(super) [u8; TokenId::BYTES]);

impl TokenId {
    /// Length of an id.
    pub(super) const BYTES: usize = 16;
    /// The id where there is no token.
    pub(super) const NONE: Self = Self([0; Self::BYTES]);

    /// The id of a token.
    pub(super) fn of(token: &str) -> Self {
        let hash = hash(token);
        let mut id = [0; Self::BYTES];
        id.copy_from_slice(&hash.as_ref()[..Self::BYTES]);
        Self(id)
    }

    /// The id of the token with this [`token_digest`]; `None` if it is not one.
    pub(super) fn from_digest(digest: &str) -> Option<Self> {
        let mut id = [0; Self::BYTES];
        for (byte, digits) in id.iter_mut().zip(digest.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        (digest.len() == 2 * digest::SHA256_OUTPUT_LEN).then_some(Self(id))
    }
}

fn hash(token: &str) -> digest::Digest {
    let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
    digest::digest(&digest::SHA256, signed.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_is_the_sha_256_of_the_token() {
        // FIPS 180-4, example of one block.
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(token_digest("abc"), digest);
        assert_eq!(TokenId::from_digest(digest), Some(TokenId::of("abc")));
        for wrong in ["", "ba78", &digest[1..], &digest.replace('b', "x"), &"ä".repeat(32)] {
            assert_eq!(TokenId::from_digest(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn signatures_of_the_same_claims_have_the_same_digest() {
        assert_eq!(token_digest("header.claims.signature"), token_digest("header.claims.other"));
        assert_ne!(token_digest("header.claims.signature"), token_digest("header.other.signature"));
    }
}
