//! Secrets that people choose can be guessed. Each try is counted before it is judged, against what is guessed at and against the address that it comes
//! from, and is taken back when it was no failure; which path it came by makes no difference.
//!
//! What this server makes up itself is not counted: access, refresh and device tokens have 128 random bits or more, and a proof of SCRAM is one of a device
//! token. Nobody guesses those, and to count them would let strangers keep people out.

use std::future::Future;
use std::net::IpAddr;

use godwit_wire::address::Customer;
use godwit_wire::code::Code;
use godwit_wire::ids::UserId;

use crate::limits::{FAILED_OF_ADDRESS, FAILED_OF_NAME, Limiter};
use crate::problem::Problem;
use crate::state::Api;

/// What is guessed at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Secret {
    /// A user's password, whether the user was named by name, by e-mail address or by a token.
    PasswordOf(UserId),
    /// The password of somebody who is not there: told and limited like one who is.
    PasswordOfNobody(String),
    /// The registration token. By address: it is one for all, and who guesses at it may not keep others from registering.
    Registration(Customer),
}

/// Longest name of nobody that is kept, characters: what is longer cannot be a user's.
const NAME_CHARS: usize = 64;

impl Secret {
    /// The password of who was named at a login, if there is such a user.
    pub(crate) fn password(of: Option<UserId>, named: &str) -> Self {
        let nobody = || Self::PasswordOfNobody(named.to_lowercase().chars().take(NAME_CHARS).collect());
        of.map_or_else(nobody, Self::PasswordOf)
    }
}

/// Counts failures: of a secret, and of an address.
#[derive(Debug)]
pub(crate) struct Guesses {
    secrets: Limiter<Secret>,
    addresses: Limiter<Customer>,
}

impl Default for Guesses {
    fn default() -> Self {
        Self {
            secrets: Limiter::new(FAILED_OF_NAME),
            addresses: Limiter::new(FAILED_OF_ADDRESS),
        }
    }
}

impl Guesses {
    /// A try begins. `Err`: not now; in so many seconds. `now_ms` as for [`Limiter::take`].
    fn begin(&self, secret: &Secret, address: IpAddr, now_ms: u64) -> Result<(), u64> {
        self.addresses.take(address.into(), now_ms)?;
        self.secrets
            .take(secret.clone(), now_ms)
            .inspect_err(|_| self.addresses.give_back(&address.into()))
    }

    /// It was no failure.
    fn forgive(&self, secret: &Secret, address: IpAddr) {
        self.addresses.give_back(&address.into());
        self.secrets.give_back(secret);
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
            .begin(&secret, address, self.passed())
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
            self.guesses.forgive(&secret, address);
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_lock_a_name_out_and_a_success_costs_nothing() {
        let (guesses, address) = (Guesses::default(), IpAddr::from([127, 0, 0, 1]));
        let (alice, bob) = (Secret::password(None, "alice"), Secret::password(None, "bob"));
        for _ in 0..1_000 {
            guesses.begin(&alice, address, 0).unwrap();
            guesses.forgive(&alice, address);
        }
        for _ in 0..FAILED_OF_NAME.burst {
            guesses.begin(&alice, address, 0).unwrap();
        }
        assert_eq!(guesses.begin(&alice, address, 0), Err(10));
        assert_eq!(
            guesses.begin(&Secret::password(None, "Alice"), address, 0),
            Err(10)
        );
        guesses.begin(&bob, address, 0).unwrap();
    }
}
