//! An entry for fuzzers: any bytes as the body of a request. Panics only on a bug.

use godwit_wire::code::Refusal;
use serde::de::DeserializeOwned;

use crate::extract::Json;
use crate::{auth, contacts, conversations, device_tokens, groups, messages, users};

/// Reads a body as one of the forms that only REST has, by number. Gives the refusal, if it is refused. Checks: what says
/// the same has the same digest.
#[doc(hidden)]
pub fn fuzz_body(form: u8, body: &[u8]) -> Option<Refusal> {
    match form % 14 {
        0 => read::<users::NewUser>(body),
        1 => read::<users::ChangeMe>(body),
        2 => read::<auth::Login>(body),
        3 => read::<auth::Refresh>(body),
        4 => read::<auth::ChangePassword>(body),
        5 => read::<contacts::WhichUser>(body),
        6 => read::<contacts::PutContact>(body),
        7 => read::<conversations::NewConversation>(body),
        8 => read::<device_tokens::NewToken>(body),
        9 => read::<groups::NewGroup>(body),
        10 => read::<groups::ChangeGroup>(body),
        11 => read::<groups::NewRole>(body),
        12 => read::<messages::NewStatus>(body),
        _ => read::<serde_json::Value>(body),
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Option<Refusal> {
    let taken = match Json::<T>::read(body) {
        Ok(taken) => taken,
        Err(refusal) => return Some(refusal),
    };
    let Ok(said) = serde_json::from_slice::<serde_json::Value>(body) else {
        panic!("a body that is taken is JSON");
    };
    for written in [serde_json::to_vec(&said), serde_json::to_vec_pretty(&said)] {
        let again =
            written.map(|written| Json::<serde_json::Value>::read(&written).map(|again| again.digest));
        assert!(
            matches!(again, Ok(Ok(digest)) if digest == taken.digest),
            "white space makes another request"
        );
    }
    None
}
