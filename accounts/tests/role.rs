//! The accounts role through real workers on the embedded store.

#![allow(clippy::unwrap_used)]

mod home;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use godwit_accounts::config::{Config, Direct};
use godwit_accounts::tables::DEVICE_TOKENS;
use godwit_accounts::tokens::{RefreshToken, device_token_hash, new_device_token};
use godwit_store::{Read, ReadAnswer};
use godwit_wire::account::{
    AccountAnswer, AccountCommand as C, ContactChange, ContactState, IdempotencyKey, NewDeviceToken,
    NewLoginSession, Principal, Scopes, Secret,
};
use godwit_wire::code::Code;
use godwit_wire::command::{Answer, Command, ConversationCommand, Named, UserCommand};
use godwit_wire::ids::{ConversationId, Key, UserId};
use godwit_wire::limits::USER_GROUPS;
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
        name: "phone".into(),
        scopes,
        expires_at,
        key: None,
    };
    (secret, token)
}

fn contact(home: &Home, of: &Named, other: &Named, change: ContactChange) -> Option<ContactState> {
    match home.account(
        of.user,
        C::SetContact {
            other: other.clone(),
            change,
        },
    ) {
        AccountAnswer::Contact(contact, _) => contact.map(|contact| contact.state),
        other => panic!("not a contact: {other:?}"),
    }
}

fn contacts(home: &Home, of: &Named) -> Vec<(UserId, ContactState)> {
    match home.account(
        of.user,
        C::Contacts {
            after: None,
            limit: 100,
        },
    ) {
        AccountAnswer::Contacts(contacts, false) => contacts
            .into_iter()
            .map(|contact| (contact.other.user, contact.state))
            .collect(),
        other => panic!("not contacts: {other:?}"),
    }
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
fn a_name_belongs_to_the_first_who_registers_it_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let alice = {
        let home = Home::open(folder.path());
        let alice = home.user("alice");
        let again = Home::registration("alice");
        assert_eq!(
            home.refused(UserId::fresh(), C::Register(Box::new(again.clone()))),
            Code::Conflict
        );
        assert_eq!(
            home.refused(alice.user, C::Register(Box::new(again))),
            Code::Conflict
        );
        alice
    };
    let home = Home::open(folder.path());
    let AccountAnswer::Profile(profile) = home.account(alice.user, C::Profile) else {
        panic!("a profile")
    };
    assert_eq!(
        (&*profile.name, profile.admin, profile.email),
        ("alice", false, None)
    );
    assert_eq!(home.refused(UserId::fresh(), C::Profile), Code::NotFound);
}

#[test]
fn a_claim_without_a_user_is_taken_over_by_the_next_registration() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(folder.path());
    let mut first = Home::registration("alice");
    first.email = Some("a@example.org".into());
    home.account(UserId::fresh(), C::Register(Box::new(first.clone())));
    // The name is free, the address is not: the claim of the name stays behind and leads to nobody.
    let left_behind = UserId::fresh();
    let mut second = Home::registration("bob");
    second.email = Some("a@example.org".into());
    assert_eq!(
        home.refused(left_behind, C::Register(Box::new(second.clone()))),
        Code::Conflict
    );
    second.email = Some("b@example.org".into());
    let other = UserId::fresh();
    assert_eq!(
        home.refused(other, C::Register(Box::new(second.clone()))),
        Code::Conflict
    );
    let AccountAnswer::Registered(profile, false) = home.account(left_behind, C::Register(Box::new(second)))
    else {
        panic!("registered under the claim's id")
    };
    assert_eq!(
        (profile.user, profile.email.as_deref()),
        (left_behind, Some("b@example.org"))
    );
}

#[test]
fn a_registration_repeated_with_its_key_finds_the_user_and_with_other_content_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(folder.path());
    let mut registration = Home::registration("alice");
    registration.key = Some(IdempotencyKey {
        key: [1; 16],
        digest: [2; 16],
    });
    let user = UserId::fresh();
    home.account(user, C::Register(Box::new(registration.clone())));
    let again = home.account(user, C::Register(Box::new(registration.clone())));
    assert!(matches!(again, AccountAnswer::Registered(profile, true) if profile.user == user));
    registration.key = Some(IdempotencyKey {
        key: [1; 16],
        digest: [3; 16],
    });
    assert_eq!(
        home.refused(user, C::Register(Box::new(registration))),
        Code::Conflict
    );
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

    home.ask(alice, C::EndDeviceToken { id }).unwrap();
    assert_eq!(
        home.refused(alice, C::Authenticate { secret }),
        Code::Unauthenticated
    );
    assert_eq!(home.store.read_now(&way).unwrap(), [ReadAnswer::Row(None)]);
    assert_eq!(ended(&home), [id]);
    assert_eq!(home.refused(alice, C::EndDeviceToken { id }), Code::NotFound);
    let (over, token) = device_token(Scopes::default(), now() - 1);
    home.account(alice, C::CreateDeviceToken(Box::new(token)));
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

#[test]
fn one_asks_the_other_accepts_and_either_ends_it_for_both() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(folder.path());
    let (alice, bob) = (home.user("alice"), home.user("bob"));
    assert_eq!(
        contact(&home, &alice, &bob, ContactChange::Ask),
        Some(ContactState::RequestedByMe)
    );
    assert_eq!(
        contacts(&home, &bob),
        [(alice.user, ContactState::RequestedByThem)]
    );
    let accept = C::SetContact {
        other: bob.clone(),
        change: ContactChange::Accept,
    };
    assert_eq!(
        home.refused(alice.user, accept),
        Code::Conflict,
        "nobody accepts the own request"
    );
    assert_eq!(
        contact(&home, &bob, &alice, ContactChange::Ask),
        Some(ContactState::Accepted)
    );
    assert_eq!(contacts(&home, &alice), [(bob.user, ContactState::Accepted)]);
    assert_eq!(contact(&home, &alice, &bob, ContactChange::Remove), None);
    assert!(contacts(&home, &alice).is_empty() && contacts(&home, &bob).is_empty());
    let nobody = Named {
        user: UserId::fresh(),
        name: Arc::from("nobody"),
    };
    let ask = C::SetContact {
        other: nobody,
        change: ContactChange::Ask,
    };
    assert_eq!(home.refused(alice.user, ask), Code::NotFound);
    let self_ask = C::SetContact {
        other: alice.clone(),
        change: ContactChange::Ask,
    };
    assert_eq!(home.refused(alice.user, self_ask), Code::Malformed);
}

#[test]
fn a_block_is_kept_told_to_the_conversation_and_not_to_the_blocked_one() {
    let folder = tempfile::tempdir().unwrap();
    let (alice, bob) = {
        let home = Home::open(folder.path());
        let (alice, bob) = (home.user("alice"), home.user("bob"));
        home.ask(alice.user, C::MayWrite { by: bob.user }).unwrap();
        assert_eq!(
            contact(&home, &alice, &bob, ContactChange::Block),
            Some(ContactState::Blocked)
        );
        assert_eq!(
            home.refused(alice.user, C::MayWrite { by: bob.user }),
            Code::NotFound
        );
        home.ask(bob.user, C::MayWrite { by: alice.user }).unwrap();
        let told = home.told.lock().unwrap().clone();
        let conversation = Key::Conversation(ConversationId::direct(alice.user, bob.user));
        assert!(told.iter().any(|(key, command)| *key == conversation
            && matches!(command, Command::Conversation(ConversationCommand::Block { by, user, blocked: true })
                if *by == alice.user && *user == bob.user)));
        // To the blocked one it looks like a request that nobody accepts.
        assert_eq!(
            contact(&home, &bob, &alice, ContactChange::Ask),
            Some(ContactState::RequestedByMe)
        );
        assert_eq!(contacts(&home, &alice), [(bob.user, ContactState::Blocked)]);
        let ask = C::SetContact {
            other: bob.clone(),
            change: ContactChange::Ask,
        };
        assert_eq!(home.refused(alice.user, ask), Code::Conflict);
        (alice, bob)
    };
    let home = Home::open(folder.path());
    assert_eq!(
        home.refused(alice.user, C::MayWrite { by: bob.user }),
        Code::NotFound
    );
    contact(&home, &alice, &bob, ContactChange::Remove);
    home.ask(alice.user, C::MayWrite { by: bob.user }).unwrap();
}

#[test]
fn with_direct_contacts_only_contacts_may_write() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::with(
        folder.path(),
        Config {
            direct: Direct::Contacts,
        },
    );
    let (alice, bob) = (home.user("alice"), home.user("bob"));
    assert_eq!(
        home.refused(alice.user, C::MayWrite { by: bob.user }),
        Code::NotFound
    );
    contact(&home, &bob, &alice, ContactChange::Ask);
    assert_eq!(
        home.refused(alice.user, C::MayWrite { by: bob.user }),
        Code::NotFound
    );
    contact(&home, &alice, &bob, ContactChange::Accept);
    home.ask(alice.user, C::MayWrite { by: bob.user }).unwrap();
    assert_eq!(
        home.refused(UserId::fresh(), C::MayWrite { by: bob.user }),
        Code::NotFound
    );
}

#[test]
fn conversations_come_in_pages_and_groups_have_a_limit() {
    let folder = tempfile::tempdir().unwrap();
    let alice = {
        let home = Home::open(folder.path());
        let alice = home.user("alice").user;
        let mut joined: Vec<(ConversationId, bool)> =
            (0..7).map(|n| (ConversationId::fresh(), n % 2 == 0)).collect();
        for (conversation, group) in &joined {
            for _ in 0..2 {
                let answer = home.ask(
                    alice,
                    C::Joined {
                        conversation: *conversation,
                        group: *group,
                    },
                );
                assert!(matches!(answer, Ok(Answer::Done)));
            }
        }
        home.ask(
            alice,
            C::Left {
                conversation: joined.remove(3).0,
            },
        )
        .unwrap();
        joined.sort_unstable();
        let page = |after, limit| match home.account(alice, C::Conversations { after, limit }) {
            AccountAnswer::Conversations(page, more) => (page, more),
            other => panic!("not a page: {other:?}"),
        };
        assert_eq!(page(None, 4), (joined[..4].to_vec(), true));
        assert_eq!(page(Some(joined[3].0), 4), (joined[4..].to_vec(), false));
        alice
    };
    let home = Home::open(folder.path());
    let group = |home: &Home| {
        home.ask(
            alice,
            C::Joined {
                conversation: ConversationId::fresh(),
                group: true,
            },
        )
    };
    for _ in 4..USER_GROUPS {
        group(&home).unwrap();
    }
    assert_eq!(group(&home).unwrap_err().code, Code::Quota);
    home.ask(
        alice,
        C::Joined {
            conversation: ConversationId::fresh(),
            group: false,
        },
    )
    .unwrap();
}

#[test]
fn the_operator_makes_the_first_admin_while_no_node_runs() {
    use godwit_accounts::admin::{AddUserError, add_user};
    use godwit_store::Store;
    let folder = tempfile::tempdir().unwrap();
    let mut registration = Home::registration("root");
    registration.admin = true;
    registration.email = Some("root@example.org".into());
    let root = {
        let open =
            || godwit_store::embedded::Embedded::open(&folder.path().join("store"), Default::default());
        let store: Arc<dyn Store> = Arc::new(open().unwrap());
        let client = godwit_store::blocking::Client::new(store.clone(), 0);
        let root = add_user(&client, store.start_view(), registration.clone(), now()).unwrap();
        let again = add_user(&client, store.start_view(), registration.clone(), now());
        assert!(matches!(again, Err(AddUserError::NameTaken)));
        registration.name = Arc::from("other");
        let address = add_user(&client, store.start_view(), registration, now());
        assert!(matches!(address, Err(AddUserError::EmailTaken)));
        store.close().unwrap();
        root
    };
    let home = Home::open(folder.path());
    let AccountAnswer::Profile(profile) = home.account(root, C::Profile) else {
        panic!("a profile")
    };
    assert!(profile.admin && &*profile.name == "root");
}
