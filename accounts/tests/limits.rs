//! Limits of one user's account, each reached: login sessions, contacts, Idempotency-Keys.

#![allow(clippy::unwrap_used)]

mod home;

use std::time::Duration;

use godwit_accounts::config::{CONTACTS, IDEMPOTENCY_KEYS, LOGIN_SESSIONS};
use godwit_accounts::tokens::RefreshToken;
use godwit_wire::account::{
    AccountAnswer, AccountCommand as C, ContactChange, IdempotencyKey, NewLoginSession,
};
use godwit_wire::code::Code;
use godwit_wire::command::{Answer, Command, Named};
use godwit_wire::ids::{Key, UserId};
use home::Home;
use tokio::task::JoinSet;
use uuid::Uuid;

/// Asked at a time.
const AT_ONCE: usize = 200;

/// Asks one user's home all of these, many at a time; none may be refused.
fn ask_all(home: &Home, user: UserId, commands: impl Iterator<Item = C>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut under_way = JoinSet::new();
        for command in commands {
            if under_way.len() == AT_ONCE {
                let answer = under_way.join_next().await.unwrap().unwrap();
                assert!(!matches!(answer, Answer::Refused(_)), "{answer:?}");
            }
            let router = home.router.clone();
            under_way.spawn(async move {
                router
                    .call(Key::User(user), Command::Account(Box::new(command)))
                    .await
            });
        }
        for answer in under_way.join_all().await {
            assert!(!matches!(answer, Answer::Refused(_)), "{answer:?}");
        }
    });
}

#[test]
fn of_one_login_session_too_many_the_one_that_was_not_used_for_longest_ends() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(folder.path());
    let alice = home.user("alice").user;
    let log_in = || {
        // Times of use are milliseconds.
        std::thread::sleep(Duration::from_millis(2));
        let token = RefreshToken::first(alice, Uuid::now_v7());
        let session = NewLoginSession {
            id: token.session,
            family_hash: token.family_hash,
            token_hash: token.token_hash,
            client: String::new(),
        };
        home.account(
            alice,
            C::Login {
                password_version: 1,
                session,
            },
        );
        token
    };
    let sessions = || match home.account(alice, C::Sessions) {
        AccountAnswer::Sessions(sessions) => sessions.into_iter().map(|one| one.id).collect::<Vec<_>>(),
        other => panic!("not sessions: {other:?}"),
    };
    let first = log_in();
    let second = log_in();
    for _ in 2..LOGIN_SESSIONS {
        log_in();
    }
    assert_eq!(sessions().len(), LOGIN_SESSIONS);
    std::thread::sleep(Duration::from_millis(2));
    home.account(
        alice,
        C::Refresh {
            session: first.session,
            family_hash: first.family_hash,
            token_hash: first.token_hash,
            next_hash: [7; 32],
        },
    );
    let last = log_in();
    let left = sessions();
    assert_eq!(left.len(), LOGIN_SESSIONS);
    assert!(left.contains(&first.session), "it was used just now");
    assert!(left.contains(&last.session));
    assert!(!left.contains(&second.session));
    let refresh = C::Refresh {
        session: second.session,
        family_hash: second.family_hash,
        token_hash: second.token_hash,
        next_hash: [8; 32],
    };
    assert_eq!(home.refused(alice, refresh), Code::Unauthenticated);
}

#[test]
fn a_user_has_as_many_contacts_as_it_may_requests_among_them() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(folder.path());
    let (alice, bob) = (home.user("alice"), home.user("bob"));
    let stranger = |number: usize| Named {
        user: UserId(Uuid::from_u128(0x0189_0000_0000_7000_8000 << 48 | number as u128)),
        name: format!("stranger{number}").into(),
    };
    let asks = |number: usize| C::PeerContact {
        by: stranger(number),
        asks: true,
    };
    ask_all(&home, alice.user, (0..CONTACTS).map(asks));
    assert_eq!(home.refused(alice.user, asks(CONTACTS)), Code::Quota);
    let set = |other: &Named, change| C::SetContact {
        other: other.clone(),
        change,
    };
    for change in [ContactChange::Ask, ContactChange::Block] {
        assert_eq!(home.refused(alice.user, set(&bob, change)), Code::Quota);
    }
    // Who is there already may ask again, and one that goes makes room.
    assert!(home.ask(alice.user, asks(5)).is_ok());
    ask_all(
        &home,
        alice.user,
        std::iter::once(C::PeerContact {
            by: stranger(0),
            asks: false,
        }),
    );
    assert!(home.ask(alice.user, asks(CONTACTS)).is_ok());
    assert_eq!(home.refused(alice.user, asks(CONTACTS + 1)), Code::Quota);
    assert!(matches!(home.ask(bob.user, asks(0)), Ok(Answer::Account(_))));
}

#[test]
fn a_user_has_as_many_idempotency_keys_as_it_may_and_known_ones_hold() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(folder.path());
    let alice = home.user("alice").user;
    let reserve = |number: usize| {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&(number as u64).to_be_bytes());
        C::Reserve {
            key: IdempotencyKey { key, digest: [1; 16] },
            id: Uuid::from_u128(number as u128),
        }
    };
    ask_all(&home, alice, (0..IDEMPOTENCY_KEYS).map(reserve));
    assert_eq!(home.refused(alice, reserve(IDEMPOTENCY_KEYS)), Code::Quota);
    match home.account(alice, reserve(17)) {
        AccountAnswer::Reserved(id, true) => assert_eq!(id, Uuid::from_u128(17)),
        other => panic!("a known key: {other:?}"),
    }
    let bob = home.user("bob").user;
    assert!(
        home.ask(bob, reserve(IDEMPOTENCY_KEYS)).is_ok(),
        "bob's are apart"
    );
}
