//! Passwords: made, hashed and checked with argon2id.
//!
//! The daemon makes the administrator, the engine lets it in. Hashing takes some ten milliseconds and 19 MiB on purpose: never
//! call it on a thread that others wait for.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use headwater_api::secret::Secret;

/// A new password of 100 random bits, in groups that can be read aloud and typed: `k7mwp-x3rtd-h9vbn-q4fzs`.
pub fn generate() -> Secret {
    let groups: [String; 4] =
        std::array::from_fn(|_| (0..5).map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())])).collect());
    Secret::new(groups.join("-"))
}

/// argon2id in PHC form (RFC 9106), with a random salt.
///
/// # Errors
/// If the system gives no random bytes.
pub fn hash(password: &Secret) -> Result<Secret, argon2::password_hash::Error> {
    let hash: PasswordHash = Argon2::default().hash_password(password.reveal().as_bytes())?;
    Ok(Secret::new(hash.to_string()))
}

/// True if the hash is of this password. A hash that cannot be read is of none.
pub fn verify(password: &Secret, hash: &Secret) -> bool {
    PasswordHash::new(hash.reveal())
        .is_ok_and(|hash| Argon2::default().verify_password(password.reveal().as_bytes(), &hash).is_ok())
}

/// 32 letters and digits that are not taken for each other.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_good_for_its_own_hash_alone() {
        let password = generate();
        let hashed = hash(&password).unwrap();
        assert!(hashed.reveal().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hashed.reveal());
        assert!(verify(&password, &hashed));
        assert!(!verify(&generate(), &hashed) && !verify(&Secret::new(""), &hashed));
        assert!(!verify(&password, &Secret::new("no hash")) && !verify(&password, &Secret::new("")));
        assert_ne!(hash(&password).unwrap(), hashed, "the salt is random");
    }

    #[test]
    fn no_two_passwords_are_alike_and_none_has_letters_that_are_mistaken() {
        let all: std::collections::HashSet<String> = (0..1_000).map(|_| generate().reveal().to_owned()).collect();
        assert_eq!(all.len(), 1_000);
        for password in &all {
            assert_eq!(password.len(), 23);
            assert!(!password.contains(['l', 'o', '0', '1']), "{password}");
        }
    }
}
