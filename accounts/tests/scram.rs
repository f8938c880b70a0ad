//! What a user's home answers to a SCRAM exchange: keys of device tokens, and nothing to tell who is not there by.

#![allow(clippy::unwrap_used)]

mod home;

use godwit_accounts::tokens::{device_token_hash, new_device_token};
use godwit_wire::account::{AccountAnswer, AccountCommand as C, NewDeviceToken, Scopes, ScramKeys};
use godwit_wire::code::Code;
use godwit_wire::ids::UserId;
use home::Home;
use uuid::Uuid;

fn keys(home: &Home, user: UserId, token: &str) -> ScramKeys {
    let token = token.into();
    match home.account(user, C::ScramKeys { token }) {
        AccountAnswer::ScramKeys(keys) => keys,
        other => panic!("not keys: {other:?}"),
    }
}

#[test]
fn a_device_tokens_keys_outlive_a_restart_and_after_its_end_only_the_salt_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (secret, id) = (new_device_token(), Uuid::now_v7());
    let (alice, made) = {
        let home = Home::open(folder.path());
        let alice = home.user("alice").user;
        let made = home.tokens.scram_keys(alice, id, &secret);
        let token = NewDeviceToken {
            id,
            token_hash: device_token_hash(&secret.0).unwrap(),
            scram: made.clone(),
            name: "phone".into(),
            scopes: Scopes {
                chat: true,
                ..Scopes::default()
            },
            expires_at: 0,
            key: None,
        };
        home.account(alice, C::CreateDeviceToken(Box::new(token)));
        (alice, made)
    };
    let home = Home::open(folder.path());
    assert!(keys(&home, alice, &id.to_string()) == made);
    let AccountAnswer::Principal(who) = home.account(alice, C::CheckDeviceToken { id }) else {
        panic!("let in")
    };
    assert_eq!(
        (who.credential, who.scopes.chat, who.scopes.rest),
        (Some(id), true, false)
    );

    home.ask(alice, C::EndDeviceToken { id }).unwrap();
    assert_eq!(
        home.refused(alice, C::CheckDeviceToken { id }),
        Code::Unauthenticated
    );
    assert!(keys(&home, alice, &id.to_string()) != made);
}

#[test]
fn who_is_nobody_gets_the_same_salt_each_time_and_keys_that_nobody_has() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(folder.path());
    let (alice, nobody) = (home.user("alice").user, UserId::anonymous("mallory"));
    for (user, token) in [
        (alice, ""),
        (alice, "no id"),
        (alice, "0198c7a0-1111-7222-8333-444455556666"),
        (nobody, ""),
    ] {
        let (first, again) = (keys(&home, user, token), keys(&home, user, token));
        assert_eq!((first.salt, first.iterations), (again.salt, 4_096));
        assert_ne!(first.stored_key, again.stored_key);
    }
    assert_eq!(
        home.refused(nobody, C::CheckDeviceToken { id: Uuid::nil() }),
        Code::Unauthenticated
    );
}
