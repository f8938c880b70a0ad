//! Login sessions, refresh, passwords, device tokens and idempotency keys through real workers on the embedded store.

#![allow(clippy::unwrap_used)]

mod home;

use std::time::{SystemTime, UNIX_EPOCH};

use godwit_accounts::tables::DEVICE_TOKENS;
use godwit_accounts::tokens::{RefreshToken, device_token_hash, new_device_token};
use godwit_store::{Read, ReadAnswer};
use godwit_wire::account::{
    AccountAnswer, AccountCommand as C, IdempotencyKey, NewDeviceToken, NewLoginSession, Principal, Scopes,
    ScramKeys, Secret,
};
use godwit_wire::code::Code;
use godwit_wire::command::{Command, UserCommand};
use godwit_wire::ids::UserId;
use home::Home;
use uuid::Uuid;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

fn principal(answer: AccountAnswer) -> Principal {
    match answer {
        AccountAnswer::Principal(principal) => principal,
        other => panic!("not a principal: {other:?}"),
    }
}

fn login(home: &Home, user: UserId, version: u64) -> RefreshToken {
    let token = RefreshToken::first(user, Uuid::now_v7());
    let session = NewLoginSession {
        id: token.session,
        family_hash: token.family_hash,
        token_hash: token.token_hash,
        client: "test".into(),
    };
    principal(home.account(
        user,
        C::Login {
            password_version: version,
            session,
        },
    ));
    token
}

fn refresh(token: &RefreshToken, next: &RefreshToken) -> C {
    C::Refresh {
        session: token.session,
        family_hash: token.family_hash,
        token_hash: token.token_hash,
        next_hash: next.token_hash,
    }
}

fn device_token(scopes: Scopes, expires_at: u64) -> (Secret, NewDeviceToken) {
    let secret = new_device_token();
    let token = NewDeviceToken {
        id: Uuid::now_v7(),
        token_hash: device_token_hash(&secret.0).unwrap(),
        // What is proved by it is tested where it is made.
        scram: ScramKeys {
            salt: [1; 16],
            iterations: 4_096,
            stored_key: [2; 32],
            server_key: [3; 32],
        },
        name: "phone".into(),
        scopes,
        expires_at,
        key: None,
    };
    (secret, token)
}

fn ended(home: &Home) -> Vec<Uuid> {
    let told = home.told.lock().unwrap();
    told.iter()
        .filter_map(|(_, command)| match command {
            Command::User(UserCommand::CredentialEnded { credential }) => Some(*credential),
            _ => None,
        })
        .collect()
}

#[test]
fn a_login_session_is_good_until_it_ends_and_its_connections_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(folder.path());
    let alice = home.user("alice").user;
    let token = login(&home, alice, 1);
    let (access, _) = home.tokens.issue(alice, token.session, now()).unwrap();
    let who = principal(home.account(
        alice,
        C::Authenticate {
            secret: access.clone(),
        },
    ));
    assert_eq!(
        (who.user, &*who.name, who.credential),
        (alice, "alice", Some(token.session))
    );
    assert!(who.scopes.chat && who.scopes.topics && who.scopes.rest && who.expires_at > now());
    // Another user's token, and one whose end has come.
    let bob = home.user("bob").user;
    assert_eq!(
        home.refused(
            bob,
            C::Authenticate {
                secret: access.clone()
            }
        ),
        Code::Unauthenticated
    );
    let (old, _) = home
        .tokens
        .issue(alice, token.session, now() - 1_000_000_000)
        .unwrap();
    assert_eq!(
        home.refused(alice, C::Authenticate { secret: old }),
        Code::Unauthenticated
    );

    home.ask(
        alice,
        C::EndSession {
            session: token.session,
        },
    )
    .unwrap();
    assert_eq!(
        home.refused(alice, C::Authenticate { secret: access }),
        Code::Unauthenticated
    );
    assert_eq!(
        home.refused(
            alice,
            C::CheckSession {
                session: token.session,
                expires_at: now() + 60_000
            }
        ),
        Code::Unauthenticated
    );
    assert_eq!(
        home.refused(
            alice,
            C::EndSession {
                session: token.session
            }
        ),
        Code::NotFound
    );
    assert_eq!(ended(&home), [token.session]);
    assert_eq!(
        home.refused(
            UserId::fresh(),
            C::Authenticate {
                secret: Secret("x".into())
            }
        ),
        Code::Unauthenticated
    );
}

#[test]
fn a_refresh_token_used_twice_ends_its_session_and_an_invented_one_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(folder.path());
    let alice = home.user("alice").user;
    let first = login(&home, alice, 1);
    let second = first.next();
    principal(home.account(alice, refresh(&first, &second)));
    // Invented: it knows the session's id only.
    let invented = RefreshToken::first(alice, first.session);
    assert_eq!(
        home.refused(alice, refresh(&invented, &invented.next())),
        Code::Unauthenticated
    );
    let third = second.next();
    principal(home.account(alice, refresh(&second, &third)));
    assert!(ended(&home).is_empty());
    // The first one once more.
    assert_eq!(
        home.refused(alice, refresh(&first, &first.next())),
        Code::Unauthenticated
    );
    assert_eq!(ended(&home), [first.session]);
    assert_eq!(
        home.refused(alice, refresh(&third, &third.next())),
        Code::Unauthenticated
    );
    assert_eq!(home.metrics.refresh_reused.get(), 1);
}

#[test]
fn a_password_change_ends_the_other_sessions_and_outdated_judgements() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(folder.path());
    let alice = home.user("alice").user;
    let (mine, other) = (login(&home, alice, 1), login(&home, alice, 1));
    let change = |version| C::ChangePassword {
        password_version: version,
        phc: Secret("new".into()),
        keep: Some(mine.session),
    };
    home.ask(alice, change(1)).unwrap();
    assert_eq!(home.refused(alice, change(1)), Code::Conflict);
    assert_eq!(ended(&home), [other.session]);
    let AccountAnswer::Sessions(left) = home.account(alice, C::Sessions) else {
        panic!("sessions")
    };
    assert_eq!(
        left.iter().map(|session| session.id).collect::<Vec<_>>(),
        [mine.session]
    );
    let session = NewLoginSession {
        id: Uuid::now_v7(),
        family_hash: [0; 32],
        token_hash: [0; 32],
        client: String::new(),
    };
    assert_eq!(
        home.refused(
            alice,
            C::Login {
                password_version: 1,
                session
            }
        ),
        Code::Unauthenticated
    );
    assert!(matches!(home.account(alice, C::Password), AccountAnswer::Password(phc, 2) if &*phc.0 == "new"));
}

#[test]
fn a_device_token_keeps_its_scopes_leads_to_its_user_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (alice, secret, id) = {
        let home = Home::open(folder.path());
        let alice = home.user("alice").user;
        let scopes = Scopes {
            chat: true,
            ..Scopes::default()
        };
        let (secret, token) = device_token(scopes, 0);
        let id = token.id;
        home.account(alice, C::CreateDeviceToken(Box::new(token)));
        (alice, secret, id)
    };
    let home = Home::open(folder.path());
    let who = principal(home.account(
        alice,
        C::Authenticate {
            secret: secret.clone(),
        },
    ));
    assert_eq!((who.credential, who.expires_at), (Some(id), 0));
    assert_eq!(
        who.scopes,
        Scopes {
            chat: true,
            topics: false,
            rest: false
        }
    );
    let hash = device_token_hash(&secret.0).unwrap();
    let way = [Read::Row {
        table: DEVICE_TOKENS,
        partition: hash.to_vec().into(),
        name: bytes::Bytes::new(),
    }];
    assert_eq!(
        home.store.read_now(&way).unwrap(),
        [ReadAnswer::Row(Some(alice.to_bytes()))]
    );

    let standing = |credential| C::Standing { credential };
    let stands = principal(home.account(alice, standing(id)));
    assert_eq!((stands.credential, stands.scopes), (Some(id), who.scopes));
    home.ask(alice, C::EndDeviceToken { id }).unwrap();
    assert_eq!(home.refused(alice, standing(id)), Code::Unauthenticated);
    assert_eq!(
        home.refused(alice, C::Authenticate { secret }),
        Code::Unauthenticated
    );
    assert_eq!(home.store.read_now(&way).unwrap(), [ReadAnswer::Row(None)]);
    assert_eq!(ended(&home), [id]);
    assert_eq!(home.refused(alice, C::EndDeviceToken { id }), Code::NotFound);
    let (over, token) = device_token(Scopes::default(), now() - 1);
    let id = token.id;
    home.account(alice, C::CreateDeviceToken(Box::new(token)));
    // Over by its time, not revoked; so is a certificate, of which no row is kept, and a user who is not there has neither.
    principal(home.account(alice, standing(id)));
    let (_, another) = device_token(Scopes::default(), 0);
    home.account(alice, C::CreateDeviceToken(Box::new(another)));
    principal(home.account(alice, standing(id)));
    let certificate = Uuid::new_v8([1; 16]);
    principal(home.account(alice, standing(certificate)));
    let nobody = UserId::fresh();
    for credential in [id, certificate] {
        assert_eq!(home.refused(nobody, standing(credential)), Code::Unauthenticated);
    }
    assert_eq!(
        home.refused(alice, C::Authenticate { secret: over }),
        Code::Unauthenticated
    );
}

#[test]
fn a_device_token_repeated_with_its_key_is_made_once() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(folder.path());
    let alice = home.user("alice").user;
    let make = |digest| {
        let (_, mut token) = device_token(Scopes::default(), 0);
        token.key = Some(IdempotencyKey {
            key: [7; 16],
            digest: [digest; 16],
        });
        C::CreateDeviceToken(Box::new(token))
    };
    let AccountAnswer::DeviceToken(first, false) = home.account(alice, make(1)) else {
        panic!("made")
    };
    let AccountAnswer::DeviceToken(again, true) = home.account(alice, make(1)) else {
        panic!("found")
    };
    assert_eq!(first, again);
    assert_eq!(home.refused(alice, make(2)), Code::Conflict);
    home.ask(alice, C::EndDeviceToken { id: first.id }).unwrap();
    assert_eq!(
        home.refused(alice, make(1)),
        Code::NotFound,
        "an ended one does not come back"
    );
}

#[test]
fn an_idempotency_key_stands_for_one_request() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(folder.path());
    let alice = home.user("alice").user;
    let (id, key) = (
        Uuid::now_v7(),
        IdempotencyKey {
            key: [1; 16],
            digest: [1; 16],
        },
    );
    let reserve = |key, id| C::Reserve { key, id };
    assert!(
        matches!(home.account(alice, reserve(key, id)), AccountAnswer::Reserved(kept, false) if kept == id)
    );
    let again = home.account(alice, reserve(key, Uuid::now_v7()));
    assert!(matches!(again, AccountAnswer::Reserved(kept, true) if kept == id));
    let other = IdempotencyKey {
        digest: [2; 16],
        ..key
    };
    assert_eq!(home.refused(alice, reserve(other, id)), Code::Conflict);
}
