//! Passwords: argon2id in PHC strings, and passwords for people to keep.

use argon2::password_hash::PasswordHasher;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordVerifier};
use lamppost_smtp::Secret;

/// Letters that cannot be mistaken for each other; 32 of them, so each carries five bits.
const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz23456789+";
/// Groups of letters in a generated password, and letters in a group: 100 bits.
const GROUPS: (usize, usize) = (4, 5);

/// Why a password could not be hashed.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// The hash function refused it.
    #[error("argon2 failed: {0}")]
    Argon2(argon2::password_hash::Error),
    /// The system gave no random salt.
    #[error("the system gave no random salt")]
    Salt(#[source] NoRandomness),
    /// The computation was interrupted.
    #[error("the computation was interrupted")]
    Interrupted,
}

/// The system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system gave no random bytes: {0}")]
pub struct NoRandomness(getrandom::Error);

/// A password with 100 random bits that people can read and type.
///
/// # Errors
/// When the system gives no random bytes.
pub fn generate_password() -> Result<Secret, NoRandomness> {
    let mut random = [0; GROUPS.0 * GROUPS.1];
    getrandom::fill(&mut random).map_err(NoRandomness)?;
    let groups = random.chunks(GROUPS.1).map(|group| {
        group.iter().map(|&byte| char::from(LETTERS[usize::from(byte & 31)])).collect::<String>()
    });
    Ok(Secret::new(groups.collect::<Vec<_>>().join("-")))
}

/// Hashes a password with argon2id, 19 MiB, two passes (OWASP's recommendation).
pub(crate) fn hash(password: &Secret) -> Result<String, HashError> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|error| HashError::Salt(NoRandomness(error)))?;
    let hash: PasswordHash = Argon2::default()
        .hash_password_with_salt(password.expose().as_bytes(), &salt)
        .map_err(HashError::Argon2)?;
    Ok(hash.to_string())
}

/// Whether the password is the hashed one; the comparison takes the same time either way.
pub(crate) fn verify(hash: &str, password: &Secret) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| {
        Argon2::default().verify_password(password.expose().as_bytes(), &hash).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_verifies() {
        let hash = hash(&Secret::new("right".into())).unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(verify(&hash, &Secret::new("right".into())));
        assert!(!verify(&hash, &Secret::new("wrong".into())));
        assert!(!verify("no hash", &Secret::new("right".into())));
    }

    #[test]
    fn generated_passwords_differ() {
        let [one, other] = [generate_password().unwrap(), generate_password().unwrap()];
        assert_eq!(one.expose().len(), 23);
        assert_ne!(one.expose(), other.expose());
    }
}
