//! Users, contacts, blocks and memberships through real workers on the embedded store.

#![allow(clippy::unwrap_used)]

mod home;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use godwit_accounts::config::{Config, Direct};
use godwit_wire::account::{AccountAnswer, AccountCommand as C, ContactChange, ContactState, IdempotencyKey};
use godwit_wire::code::Code;
use godwit_wire::command::{Answer, Command, ConversationCommand, Named};
use godwit_wire::ids::{ConversationId, Key, UserId};
use godwit_wire::limits::USER_GROUPS;
use home::Home;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
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
