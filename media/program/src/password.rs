//! Passwords: generated, and hashed and verified with argon2id.
//!
//! The daemon creates the administrator account, and the engine verifies logins. Hashing
//! deliberately takes tens of milliseconds and 19 MiB: never call it on an async worker thread.

use std::sync::{Mutex, PoisonError};

use argon2::password_hash::PasswordHasher as _;
use argon2::password_hash::phc::{Output, PasswordHash};
use argon2::{Algorithm, Argon2, Block, Params, Version};
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
    PasswordHash::new(hash.reveal()).is_ok_and(|hash| is_hash_of(&hash, password).unwrap_or(false))
}

/// The comparison takes the same time for every output. `None` if the hash is not one of argon2, or
/// incomplete.
fn is_hash_of(hash: &PasswordHash, password: &Secret) -> Option<bool> {
    let (salt, expected) = (hash.salt?, hash.hash?);
    let version = hash.version.map_or(Ok(Version::default()), Version::try_from).ok()?;
    let params = Params::try_from(hash).ok()?;
    let mut memory = take_memory();
    memory.resize(params.block_count(), Block::default());
    let argon2 = Argon2::new(Algorithm::try_from(hash.algorithm.as_str()).ok()?, version, params);
    let mut output = [0; Output::MAX_LENGTH];
    let output = &mut output[..expected.len()];
    let hashed = argon2.hash_password_into_with_memory(password.reveal().as_bytes(), &salt, output, &mut memory);
    keep_memory(memory);
    hashed.ok()?;
    Some(Output::new(output).ok()? == expected)
}

/// Memory of earlier verifications. The allocator does not return blocks of this size from threads:
/// without reuse, 32 verifications on eight threads leave 608 MiB (glibc).
static MEMORY: Mutex<Vec<Vec<Block>>> = Mutex::new(Vec::new());
/// As many as there are verifications at the same time.
const MAX_KEPT: usize = 2;

fn take_memory() -> Vec<Block> {
    MEMORY.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
}

fn keep_memory(memory: Vec<Block>) {
    let mut kept = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() < MAX_KEPT {
        kept.push(memory);
    }
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
    fn verifications_on_many_threads_do_not_grow_the_memory() {
        let (password, hashed) = (generate(), hash(&generate()).unwrap());
        let resident_mib = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            // The second field, in pages of 4 KiB.
            statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() >> 8
        };
        assert!(!verify(&password, &hashed));
        let before = resident_mib();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..4).for_each(|_| assert!(!verify(&password, &hashed))));
            }
        });
        let grown_mib = resident_mib().saturating_sub(before);
        // Eight at the same time need 152 MiB, of which all but two blocks are returned.
        assert!(grown_mib < 250, "the memory grew by {grown_mib} MiB");
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
