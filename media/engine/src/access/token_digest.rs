//! The form in which the registry knows a token.

use std::fmt::Write as _;

use ring::digest::{SHA256, digest};

/// The SHA-256 of a token in lower-case hexadecimal, as
/// [`TokenDocument::digest`](headwater_api::documents::TokenDocument::digest).
pub fn token_digest(token: &str) -> String {
    let hash = digest(&SHA256, token.as_bytes());
    hash.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_is_the_sha_256_of_the_token() {
        // FIPS 180-4, example of one block.
        assert_eq!(token_digest("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
