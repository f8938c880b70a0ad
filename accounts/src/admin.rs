//! What an operator does to accounts while no node runs: the first admin. With a running node it is done over its admin
//! listener.

use bytes::Bytes;
use godwit_store::{Op, Outcome, Read, ReadAnswer, StoreError, View, blocking};
use godwit_wire::account::Registration;
use godwit_wire::ids::UserId;

use crate::people::profile_row;
use crate::rows::{self, kind};
use crate::state::put;
use crate::tables::{USER_EMAILS, USER_NAMES, USERS};

/// Why a user was not made.
#[derive(Debug, thiserror::Error)]
pub enum AddUserError {
    /// The name leads to a user.
    #[error("the user name is taken")]
    NameTaken,
    /// The e-mail address leads to a user.
    #[error("the e-mail address is taken")]
    EmailTaken,
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes a user on a store that no node uses. `view` is the store's start view, `now` milliseconds since 1970. The
/// registration's name, address and password were checked by the caller.
///
/// # Errors
/// See [`AddUserError`]. A crash in between leaves a claimed name, which the next try takes over.
pub fn add_user(
    store: &blocking::Client,
    view: View,
    registration: Registration,
    now: u64,
) -> Result<UserId, AddUserError> {
    let name = Bytes::copy_from_slice(registration.name.as_bytes());
    let user = match store.read(Read::Fact {
        table: USER_NAMES,
        key: name.clone(),
    })? {
        ReadAnswer::Fact(Some(claimed)) => UserId::from_slice(&claimed).ok_or(AddUserError::NameTaken)?,
        _ => UserId::fresh(),
    };
    let profile = Read::Row {
        table: USERS,
        partition: user.to_bytes(),
        name: rows::name(kind::PROFILE, &[]),
    };
    if store.read(profile)? != ReadAnswer::Row(None) {
        return Err(AddUserError::NameTaken);
    }
    let value = user.to_bytes();
    let claim = |table, key| Op::Claim {
        table,
        key,
        value: value.clone(),
    };
    if store.write(vec![claim(USER_NAMES, name)])? != Outcome::Stored {
        return Err(AddUserError::NameTaken);
    }
    if let Some(address) = &registration.email
        && store.write(vec![claim(USER_EMAILS, Bytes::from(address.clone()))])? != Outcome::Stored
    {
        return Err(AddUserError::EmailTaken);
    }
    let row = profile_row(registration, now);
    match store.write(vec![put(user, view, kind::PROFILE, &[], &row)])? {
        Outcome::Stored => Ok(user),
        _ => Err(StoreError::Unavailable("nobody knows whether the user was stored".into()).into()),
    }
}
