//! Passwords: generated, and hashed and verified with argon2id.
//!
//! The daemon creates the administrator account, and the engine verifies logins. Hashing
//! deliberately takes tens of milliseconds and 19 MiB: never call it on an async worker thread.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use headwater_api::secret::Secret;

/// Generates a password with 100 random bits, in groups that are easy to type:
/// `k7mwp-x3rtd-h9vbn-q4fzs`.
pub fn generate() -> Secret {
    let groups: [String; 4] =
        std::array::from_fn(|_| (0..5).map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())])).collect());
    Secret::new(groups.join("-"))
}

/// Hashes a password with argon2id (RFC 9106) and a random salt, in PHC form.
///
/// # Errors
/// If the system provides no random bytes.
pub fn hash(password: &Secret) -> Result<Secret, argon2::password_hash::Error> {
    let hash: PasswordHash = Argon2::default().hash_password(password.reveal().as_bytes())?;
    Ok(Secret::new(hash.to_string()))
}

/// True if the hash is of this password. False if the hash is malformed.
pub fn verify(password: &Secret, hash: &Secret) -> bool {
    PasswordHash::new(hash.reveal())
        .is_ok_and(|hash| Argon2::default().verify_password(password.reveal().as_bytes(), &hash).is_ok())
}

/// 32 letters and digits without look-alikes.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_matches_only_its_own_hash() {
        let password = generate();
        let hashed = hash(&password).unwrap();
        assert!(hashed.reveal().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hashed.reveal());
        assert!(verify(&password, &hashed));
        assert!(!verify(&generate(), &hashed) && !verify(&Secret::new(""), &hashed));
        assert!(!verify(&password, &Secret::new("no hash")) && !verify(&password, &Secret::new("")));
        assert_ne!(hash(&password).unwrap(), hashed, "the salt is random");
    }

    #[test]
    fn generated_passwords_are_unique_and_have_no_look_alikes() {
        let all: std::collections::HashSet<String> = (0..1_000).map(|_| generate().reveal().to_owned()).collect();
        assert_eq!(all.len(), 1_000);
        for password in &all {
            assert_eq!(password.len(), 23);
            assert!(!password.contains(['l', 'o', '0', '1']), "{password}");
        }
    }
}
