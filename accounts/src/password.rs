//! Passwords: what is taken, how it is hashed and judged. Both calls take tens of milliseconds and 19 MiB: they run on
//! blocking threads, a few at a time, never on a worker.

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash};
use godwit_wire::account::Secret;

/// Shortest password, characters.
pub const PASSWORD_MIN_CHARS: usize = 8;
/// Longest password, bytes: more is no safer and costs time.
pub const PASSWORD_MAX_BYTES: usize = 1_024;

/// A well-formed hash of nothing known, judged in place of a user's that is not there, so that the time says nothing.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$Z29kd2l0bm9ib2R5aGVyZQ$CRBTvoDwdcZWr/jhtSJ3vgVkuzWzJXZcyRDQe4ybuq4";

/// Whether it is taken as a password.
pub fn acceptable(password: &str) -> bool {
    password.len() <= PASSWORD_MAX_BYTES && password.chars().count() >= PASSWORD_MIN_CHARS
}

/// The argon2id hash (19 MiB, 2 passes) as a PHC string. `None` if the system gives no randomness.
pub fn hash(password: &str) -> Option<Secret> {
    let hash: PasswordHash = Argon2::default().hash_password(password.as_bytes()).ok()?;
    Some(Secret(hash.to_string().into()))
}

/// Whether this is the password of the hash. `None` for the hash (there is no such user) takes as long and is false.
pub fn verify(password: &str, phc: Option<&Secret>) -> bool {
    let text = phc.map_or(NOBODY, |phc| &phc.0);
    let Ok(hash) = PasswordHash::new(text) else {
        return false;
    };
    let given = password.get(..PASSWORD_MAX_BYTES).unwrap_or(password);
    let good =
        given.len() == password.len() && Argon2::default().verify_password(given.as_bytes(), &hash).is_ok();
    good && phc.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_known_again_and_another_is_not() {
        let phc = hash("correct horse").unwrap();
        assert!(phc.0.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(verify("correct horse", Some(&phc)));
        assert!(!verify("correct horsf", Some(&phc)));
        assert!(!verify("correct horse", None));
        assert!(!verify("", Some(&Secret("not a hash".into()))));
        assert_ne!(hash("correct horse").unwrap(), phc, "salted");
    }

    #[test]
    fn short_and_endless_passwords_are_not_taken() {
        assert!(!acceptable("seven77") && acceptable("eight888") && acceptable("ünïcödé!"));
        assert!(!acceptable(&"x".repeat(PASSWORD_MAX_BYTES + 1)));
    }

    #[test]
    fn the_hash_of_nobody_is_well_formed_so_that_it_takes_as_long() {
        let hash = PasswordHash::new(NOBODY).unwrap();
        assert_eq!(hash.params.to_string(), "m=19456,t=2,p=1");
    }
}
