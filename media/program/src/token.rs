//! Random tokens and keys, for publishers, viewers and programs.

use headwater_api::secret::Secret;

/// Generates a token or key with almost 192 random bits: 32 letters, digits, `-` and `_`. The first
/// is a letter or a digit, so that no program takes it for an option.
pub fn generate() -> Secret {
    let random = |choices: usize| char::from(ALPHABET[rand::random_range(0..choices)]);
    Secret::new((0..32).map(|n| random(if n == 0 { ALPHANUMERIC } else { ALPHABET.len() })).collect::<String>())
}

/// The characters that no URL changes, as in base64url (RFC 4648 §5); first the letters and digits.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Number of letters and digits.
const ALPHANUMERIC: usize = 62;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_tokens_are_unique_and_survive_a_url() {
        let all: std::collections::HashSet<String> = (0..1_000).map(|_| generate().reveal().to_owned()).collect();
        assert_eq!(all.len(), 1_000);
        for token in &all {
            assert_eq!(token.len(), 32);
            assert!(token.starts_with(|c: char| c.is_ascii_alphanumeric()), "{token}");
            assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')), "{token}");
        }
    }
}
