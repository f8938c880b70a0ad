//! Secrets that people choose can be guessed. Each try is counted before it is judged, against what is guessed at and against the address that it comes
//! from, and is taken back when it was no failure; which path it came by makes no difference.
//!
//! What this server makes up itself is not counted: access, refresh and device tokens have 128 random bits or more, and a proof of SCRAM is one of a device
//! token. Nobody guesses those, and to count them would let strangers keep people out.

use std::collections::HashMap;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use godwit_wire::address::Customer;
use godwit_wire::code::Code;
use godwit_wire::ids::UserId;

use crate::limits::{FAILED_OF_ADDRESS, FAILED_OF_NAME, Limiter};
use crate::problem::Problem;
use crate::state::Api;

/// What is guessed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Secret {
    /// The password of who is named at a login, if that is somebody. By the text alone: what it is answered depends on guesses by this very text, so that
    /// it does not tell whose e-mail address it is, or whether it is anybody's.
    Login {
        /// Hash of the text.
        named: u64,
        /// Whoever logged in from there by this text lately has an allowance of their own there, which strangers do not use up.
        known: Option<Customer>,
    },
    /// A user's password, where who guesses is logged in already or repeats what made the user.
    PasswordOf(UserId),
    /// The registration token. By address: it is one for all, and who guesses at it may not keep others from registering.
    Registration(Customer),
}

/// Names whose addresses are remembered, 16 bytes and a few for each address.
const KNOWN_NAMES: usize = 16 * 1024;
/// Addresses of each.
const KNOWN_ADDRESSES: usize = 4;

/// Counts failures: of a secret, and of an address.
#[derive(Debug)]
pub(crate) struct Guesses {
    secrets: Limiter<Secret>,
    addresses: Limiter<Customer>,
    /// Of names. Its keys are this process's own: nobody can look for two names with one hash.
    hasher: RandomState,
    /// From where those who are named so logged in, the latest last. Lost with the process.
    known: Mutex<HashMap<u64, Vec<Customer>>>,
}

impl Default for Guesses {
    fn default() -> Self {
        Self {
            secrets: Limiter::new(FAILED_OF_NAME),
            addresses: Limiter::new(FAILED_OF_ADDRESS),
            hasher: RandomState::new(),
            known: Mutex::default(),
        }
    }
}

impl Guesses {
    /// What is guessed at by a login with this name or e-mail address.
    pub(crate) fn at_login(&self, named: &str, address: IpAddr) -> Secret {
        // As it is looked up: two texts that lead to one user are the name and the address, and no more.
        let named = self.hasher.hash_one(named.to_lowercase());
        let customer = address.into();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = known.get(&named).is_some_and(|from| from.contains(&customer));
        Secret::Login {
            named,
            known: is_known.then_some(customer),
        }
    }

    /// A login succeeded.
    pub(crate) fn welcome(&self, secret: Secret, address: IpAddr) {
        let Secret::Login { named, .. } = secret else {
            return;
        };
        let customer = address.into();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_NAMES
            && !known.contains_key(&named)
            && let Some(any) = known.keys().next().copied()
        {
            // Any: its order is this process's own.
            known.remove(&any);
        }
        let from = known.entry(named).or_default();
        from.retain(|one| *one != customer);
        if from.len() >= KNOWN_ADDRESSES {
            from.remove(0);
        }
        from.push(customer);
    }

    /// A try begins. `Err`: not now; in so many seconds. `now_ms` as for [`Limiter::take`].
    fn begin(&self, secret: Secret, address: IpAddr, now_ms: u64) -> Result<(), u64> {
        self.addresses.take(address.into(), now_ms)?;
        self.secrets
            .take(secret, now_ms)
            .inspect_err(|_| self.addresses.give_back(&address.into()))
    }

    /// It was no failure.
    fn forgive(&self, secret: Secret, address: IpAddr) {
        self.addresses.give_back(&address.into());
        self.secrets.give_back(&secret);
    }
}

impl Api {
    /// Judges what may be a guess at a secret. Counted is an outcome with the code `wrong`; that the store did not answer, say, is no guess.
    ///
    /// # Errors
    /// What judging gives; `rate_limited`, without having judged, behind too many failures.
    pub(crate) async fn guarded<T>(
        &self,
        secret: Secret,
        address: IpAddr,
        wrong: Code,
        judged: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        self.guesses
            .begin(secret, address, self.passed())
            .map_err(|seconds| {
                self.parts.metrics.logins_limited.inc();
                Problem::too_often(seconds)
            })?;
        let outcome = judged.await;
        if outcome
            .as_ref()
            .err()
            .is_none_or(|problem| problem.code() != wrong)
        {
            self.guesses.forgive(secret, address);
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn failures_lock_a_name_out_and_a_success_costs_nothing() {
        let guesses = Guesses::default();
        let (alice, bob) = (guesses.at_login("alice", HERE), guesses.at_login("bob", HERE));
        for _ in 0..1_000 {
            guesses.begin(alice, HERE, 0).unwrap();
            guesses.forgive(alice, HERE);
        }
        for _ in 0..FAILED_OF_NAME.burst {
            guesses.begin(alice, HERE, 0).unwrap();
        }
        assert_eq!(guesses.begin(alice, HERE, 0), Err(10));
        assert_eq!(guesses.begin(guesses.at_login("Alice", THERE), THERE, 0), Err(10));
        guesses.begin(bob, HERE, 0).unwrap();
    }

    #[test]
    fn long_addresses_that_begin_alike_are_different() {
        let guesses = Guesses::default();
        let named = |last: char| guesses.at_login(&format!("{}{last}@example.org", "a".repeat(200)), HERE);
        assert_ne!(named('a'), named('b'));
    }

    #[test]
    fn strangers_do_not_use_up_what_is_allowed_where_one_logged_in() {
        let guesses = Guesses::default();
        guesses.welcome(guesses.at_login("alice", HERE), HERE);
        let stranger = guesses.at_login("alice", THERE);
        for _ in 0..FAILED_OF_NAME.burst {
            guesses.begin(stranger, THERE, 0).unwrap();
        }
        assert_eq!(guesses.begin(stranger, THERE, 0), Err(10));
        for _ in 0..FAILED_OF_NAME.burst {
            guesses.begin(guesses.at_login("alice", HERE), HERE, 0).unwrap();
        }
        assert_eq!(guesses.begin(guesses.at_login("alice", HERE), HERE, 0), Err(10));
    }

    #[test]
    fn what_is_known_is_bounded() {
        let guesses = Guesses::default();
        let from = |number: u8| IpAddr::from([192, 0, 2, number]);
        for number in 0..10 {
            guesses.welcome(guesses.at_login("alice", from(number)), from(number));
        }
        let is_known = |number: &u8| {
            matches!(
                guesses.at_login("alice", from(*number)),
                Secret::Login { known: Some(_), .. }
            )
        };
        assert!((0..10).filter(is_known).eq(6..10), "the latest");
        for number in 0..2 * KNOWN_NAMES {
            guesses.welcome(guesses.at_login(&number.to_string(), HERE), HERE);
        }
        assert_eq!(guesses.known.lock().unwrap().len(), KNOWN_NAMES);
    }
}
