//! Every command and answer between homes comes through a frame unchanged, and what does not belong into one is refused.

use std::sync::Arc;

use bytes::Bytes;
use godwit_wire::account::*;
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::*;
use godwit_wire::ids::{ConversationId, Key, MessageId, SessionId, UserId};
use godwit_wire::peer::{FrameWriter, PeerAnswer, read_frame};
use godwit_wire::proto::peer::Frame;
use godwit_wire::proto::stored::{PublishProperties, UserProperty};
use godwit_wire::proto::{chat, peer};
use prost::Message as _;
use uuid::Uuid;

fn user(n: u128) -> UserId {
    UserId(Uuid::from_u128(n))
}

fn named(n: u128) -> Named {
    Named {
        user: user(n),
        name: format!("user{n}").into(),
    }
}

fn conversation(n: u128) -> ConversationId {
    ConversationId(Uuid::from_u128(n))
}

fn session(n: u128) -> SessionId {
    SessionId(Uuid::from_u128(n))
}

fn entry(n: u64) -> Arc<LoggedEntry> {
    let message = chat::Message {
        conversation_id: conversation(1).to_bytes(),
        sequence_number: n,
        message_id: MessageId(Uuid::from_u128(7)).to_bytes(),
        client_message_id: "mine".into(),
        sender_id: user(3).to_bytes(),
        sender_name: "user3".into(),
        content_type: chat::ContentType::Text as i32,
        content: Some(chat::message::Content::Text("hello".into())),
        reply_to: Bytes::new(),
        created_at: 5,
    };
    Arc::new(LoggedEntry::message(message).expect("an entry"))
}

fn publish(topic: &str) -> Arc<Publish> {
    let property = UserProperty {
        name: "a".into(),
        value: "b".into(),
    };
    Arc::new(Publish {
        topic: topic.into(),
        payload: Bytes::from_static(b"payload"),
        qos: 2,
        retain: true,
        expires_at: Some(99),
        properties: Some(Box::new(PublishProperties {
            payload_is_utf8: Some(true),
            user_properties: vec![property],
            ..PublishProperties::default()
        })),
        from: Some(session(4)),
        message_id: Some(MessageId(Uuid::from_u128(8))),
    })
}

fn route() -> Route {
    Route {
        user: user(1),
        session: session(2),
        route_id: 3,
        filter: "a/+/c".into(),
        persistent: true,
        qos: 1,
        no_local: true,
        retain_as_published: true,
        subscription_id: Some(9),
    }
}

fn scram() -> ScramKeys {
    ScramKeys {
        salt: [1; 16],
        iterations: 4096,
        stored_key: [2; 32],
        server_key: [3; 32],
    }
}

fn conversation_commands() -> Vec<ConversationCommand> {
    let by = user(1);
    let send = |identity, direct_with| {
        ConversationCommand::Send(Box::new(Send {
            sender: named(1),
            identity,
            fresh: true,
            content: chat::send_request::Content::Ciphertext(Bytes::from_static(b"x")),
            content_type: chat::ContentType::Encrypted,
            reply_to: Some(MessageId(Uuid::from_u128(2))),
            direct_with,
        }))
    };
    let page = |at| ConversationCommand::History { by, at, limit: 50 };
    vec![
        send(SendIdentity::Client("c1".into()), Some(named(2))),
        send(SendIdentity::Implicit([7; 16]), None),
        ConversationCommand::OpenDirect {
            by: named(1),
            with: named(2),
        },
        ConversationCommand::CreateGroup {
            by: named(1),
            name: "g".into(),
            description: "d".into(),
            members: vec![named(2), named(3)],
            full_history: true,
        },
        ConversationCommand::Change {
            by,
            name: Some(String::new()),
            description: None,
        },
        ConversationCommand::AddMember { by, user: named(2) },
        ConversationCommand::RemoveMember { by, user: user(2) },
        ConversationCommand::SetRole {
            by,
            user: user(2),
            role: chat::Role::Admin,
        },
        ConversationCommand::Get { by },
        page(HistoryAt::Newest),
        page(HistoryAt::Before(Position::Sequence(3))),
        page(HistoryAt::After(Position::Message(MessageId(Uuid::from_u128(4))))),
        page(HistoryAt::Around(Position::Sequence(0))),
        ConversationCommand::Visible { by },
        ConversationCommand::Read { by, up_to: 4 },
        ConversationCommand::Delivered { user: by, up_to: 4 },
        ConversationCommand::Status { by },
        ConversationCommand::Block {
            by,
            user: user(2),
            blocked: true,
        },
        ConversationCommand::Indexed { up_to: 0 },
    ]
}

fn user_commands() -> Vec<UserCommand> {
    let target = Target {
        session: session(1),
        qos: 1,
        retain_as_published: true,
        subscription_ids: vec![1, 2],
    };
    let event = chat::inbox_event::Event::Gap(chat::Gap {
        after: 3,
        conversation_id: Bytes::new(),
    });
    vec![
        UserCommand::Offer {
            entry: entry(4),
            after: 3,
        },
        UserCommand::Note(Box::new(chat::InboxEvent {
            inbox_seq: 0,
            event: Some(event),
        })),
        UserCommand::Receipt {
            conversation: conversation(1),
            watermark: Watermark {
                user: user(1),
                delivered_up_to: 2,
                read_up_to: 1,
            },
        },
        UserCommand::Deliver {
            publish: publish("a/b"),
            targets: vec![target],
            late: 7,
        },
        UserCommand::Share {
            publish: publish("a/b"),
            session: session(3),
            filter: "$share/g/a/#".into(),
            waits: true,
            last: true,
        },
        UserCommand::CredentialEnded {
            credential: Uuid::from_u128(5),
        },
        UserCommand::Sessions,
        UserCommand::Kick {
            client_id: Some("phone".into()),
            forget: true,
        },
        UserCommand::Kick {
            client_id: None,
            forget: false,
        },
    ]
}

fn topic_commands() -> Vec<TopicCommand> {
    vec![
        TopicCommand::Publish(publish("a/b/c"), user(1)),
        TopicCommand::Subscribe {
            route: route(),
            retained: true,
        },
        TopicCommand::Unsubscribe { route: route() },
        TopicCommand::Prune {
            session: session(1),
            topic: "a/b".into(),
            keep: vec![0, u64::MAX],
            before: 7,
        },
        TopicCommand::Share {
            filter: "$share/g/a/#".into(),
            publish: publish("a/b"),
            from: session(2),
        },
        TopicCommand::Member {
            filter: "$share/g/a/#".into(),
            session: session(2),
            here: true,
        },
        TopicCommand::Retained { filter: "#".into() },
        TopicCommand::Announce { route: route() },
        TopicCommand::Interest {
            shards: [0, 7, 4_095].into(),
        },
        TopicCommand::View { confirmed: true },
        TopicCommand::List {
            node: Uuid::from_u128(7),
        },
        TopicCommand::Copy {
            node: Uuid::from_u128(7),
            routes: [route(), route()].into(),
            whole: true,
        },
    ]
}

fn account_commands() -> Vec<AccountCommand> {
    let (id, secret) = (Uuid::from_u128(1), |text: &str| Secret(text.into()));
    let key = IdempotencyKey {
        key: [1; 16],
        digest: [2; 16],
    };
    let set = |change| AccountCommand::SetContact {
        other: named(2),
        change,
    };
    vec![
        AccountCommand::Authenticate {
            secret: secret("s3cret"),
        },
        AccountCommand::ScramKeys { token: "t".into() },
        AccountCommand::CheckDeviceToken { id },
        AccountCommand::CheckCertificate {
            certificate: id,
            expires_at: 8,
        },
        AccountCommand::Standing { credential: id },
        AccountCommand::MayWrite { by: user(1) },
        AccountCommand::Joined {
            conversation: conversation(1),
            group: true,
        },
        AccountCommand::Left {
            conversation: conversation(1),
        },
        AccountCommand::Conversations {
            after: Some(conversation(1)),
            limit: 3,
        },
        AccountCommand::CheckSession {
            session: id,
            expires_at: 8,
        },
        AccountCommand::Register(Box::new(Registration {
            name: "u".into(),
            display_name: "U".into(),
            email: Some("u@example.org".into()),
            phc: secret("$argon2id$"),
            admin: true,
            key: Some(key),
        })),
        AccountCommand::Profile,
        AccountCommand::ChangeProfile {
            display_name: Some(String::new()),
        },
        AccountCommand::Password,
        AccountCommand::Login {
            password_version: 1,
            session: NewLoginSession {
                id,
                family_hash: [1; 32],
                token_hash: [2; 32],
                client: "curl".into(),
            },
        },
        AccountCommand::Refresh {
            session: id,
            family_hash: [1; 32],
            token_hash: [2; 32],
            next_hash: [3; 32],
        },
        AccountCommand::ChangePassword {
            password_version: 2,
            phc: secret("$argon2id$"),
            keep: Some(id),
        },
        AccountCommand::Sessions,
        AccountCommand::EndSession { session: id },
        AccountCommand::EndOtherSessions { keep: id },
        AccountCommand::CreateDeviceToken(Box::new(NewDeviceToken {
            id,
            token_hash: [4; 32],
            scram: scram(),
            name: "sensor".into(),
            scopes: Scopes {
                chat: true,
                topics: false,
                rest: true,
            },
            expires_at: 0,
            key: None,
        })),
        AccountCommand::DeviceTokens,
        AccountCommand::EndDeviceToken { id },
        AccountCommand::Contacts {
            after: None,
            limit: 9,
        },
        set(ContactChange::Ask),
        set(ContactChange::Accept),
        set(ContactChange::Block),
        set(ContactChange::Remove),
        AccountCommand::PeerContact {
            by: named(1),
            asks: true,
        },
        AccountCommand::Reserve { key, id },
    ]
}

fn answers() -> Vec<Answer> {
    let watermark = Watermark {
        user: user(1),
        delivered_up_to: 2,
        read_up_to: 1,
    };
    let mut all = vec![
        Answer::Refused(Refusal::not_found()),
        Answer::Done,
        Answer::Sent(Sent {
            message_id: MessageId(Uuid::from_u128(1)),
            sequence_number: 2,
            created_at: 3,
            duplicate: true,
        }),
        Answer::Conversation(Box::new(ConversationInfo {
            id: conversation(1),
            group: true,
            name: "g".into(),
            description: "d".into(),
            members: vec![(named(1), chat::Role::Admin, 4)],
            watermarks: vec![watermark],
            last_sequence: 9,
            last_message: Some(entry(9)),
            created_at: 1,
            created: true,
        })),
        Answer::History(HistoryPage {
            entries: vec![entry(1), entry(2)],
            has_more: true,
        }),
        Answer::Status(vec![watermark]),
        Answer::Visible(vec![(1, 4), (9, u64::MAX)]),
        Answer::Kept {
            gone: vec![session(1)],
        },
        Answer::Away,
        Answer::Sessions(vec![
            SessionInfo {
                client_id: "phone".into(),
                live: Some(LiveInfo {
                    since: 1_000,
                    is_v5: true,
                    via: Some(Uuid::from_u128(9)),
                }),
                disconnected_at: 0,
                expiry: 60,
                filters: vec!["a/#".into(), "me/inbox".into()],
                subscriptions: 2,
                owed: 3,
                owed_bytes: 4,
            },
            SessionInfo {
                client_id: "".into(),
                live: None,
                disconnected_at: 2_000,
                expiry: u32::MAX,
                filters: Vec::new(),
                subscriptions: 0,
                owed: 0,
                owed_bytes: 0,
            },
        ]),
        Answer::Published {
            matched: true,
            routes: 3,
        },
        Answer::PublishRefused {
            refusal: Refusal::unavailable(),
            routes: 4,
        },
        Answer::Retained(vec![publish("a")]),
        Answer::Confirmed(7),
        Answer::Found(Box::new(Found {
            hits: vec![FoundAt {
                conversation: conversation(1),
                sequence_number: 2,
                created_at_ms: -3,
            }],
            more: true,
            partial: true,
            indexed_up_to_ms: Some(4),
        })),
        Answer::Found(Box::default()),
    ];
    all.extend(
        account_answers()
            .into_iter()
            .map(|answer| Answer::Account(Box::new(answer))),
    );
    all
}

fn account_answers() -> Vec<AccountAnswer> {
    let (id, profile) = (
        Uuid::from_u128(1),
        Profile {
            user: user(1),
            name: "u".into(),
            display_name: "U".into(),
            email: None,
            admin: false,
            created_at: 4,
        },
    );
    let token = DeviceToken {
        id,
        name: "sensor".into(),
        scopes: Scopes::default(),
        created_at: 1,
        expires_at: 2,
    };
    let contact = |state| Contact {
        other: named(2),
        state,
        since: 3,
    };
    vec![
        AccountAnswer::Principal(Principal {
            user: user(1),
            name: "u".into(),
            credential: Some(id),
            expires_at: 3,
            scopes: Scopes {
                chat: false,
                topics: true,
                rest: false,
            },
            admin: true,
        }),
        AccountAnswer::ScramKeys(scram()),
        AccountAnswer::Conversations(vec![(conversation(1), true)], true),
        AccountAnswer::Registered(profile.clone(), true),
        AccountAnswer::Profile(profile),
        AccountAnswer::Password(Secret("$argon2id$".into()), 7),
        AccountAnswer::Sessions(vec![LoginSession {
            id,
            client: "curl".into(),
            created_at: 1,
            last_used_at: 2,
            expires_at: 3,
        }]),
        AccountAnswer::DeviceToken(token.clone(), true),
        AccountAnswer::DeviceTokens(vec![token]),
        AccountAnswer::Contacts(
            vec![
                contact(ContactState::RequestedByMe),
                contact(ContactState::RequestedByThem),
                contact(ContactState::Blocked),
            ],
            true,
        ),
        AccountAnswer::Contact(Some(contact(ContactState::Accepted)), true),
        AccountAnswer::Contact(None, false),
        AccountAnswer::PeerContact(true),
        AccountAnswer::Reserved(id, true),
    ]
}

fn over_the_wire(frame: FrameWriter) -> Frame {
    Frame::decode(&*frame.finish().encode_to_vec()).expect("a frame")
}

fn requests() -> Vec<(Key, Command)> {
    let (at_user, at_conversation) = (Key::User(user(1)), Key::Conversation(conversation(2)));
    let account = |command| (at_user.clone(), Command::Account(Box::new(command)));
    let conversation = |command| (at_conversation.clone(), Command::Conversation(command));
    let mut all: Vec<(Key, Command)> = account_commands().into_iter().map(account).collect();
    all.extend(conversation_commands().into_iter().map(conversation));
    all.extend(
        user_commands()
            .into_iter()
            .map(|command| (at_user.clone(), Command::User(command))),
    );
    for (i, command) in topic_commands().into_iter().enumerate() {
        let key = match i % 3 {
            0 => Key::Topic("a/b".into()),
            1 => Key::Wildcards,
            _ => Key::Node(Uuid::from_u128(9)),
        };
        all.push((key, Command::Topic(command)));
    }
    let find = Find {
        by: user(1),
        conversations: vec![self::conversation(2), self::conversation(3)],
        query: "a \"b c\"".into(),
        sender: Some(user(4)),
        after_ms: Some(-5),
        before_ms: Some(i64::MAX),
        limit: 20,
        cursor: Some("1".into()),
    };
    let plain = Find {
        sender: None,
        after_ms: None,
        before_ms: None,
        cursor: None,
        ..find.clone()
    };
    for command in [
        SearchCommand::Find(find),
        SearchCommand::Find(plain),
        SearchCommand::Confirmed(vec![(self::conversation(2), 9)]),
    ] {
        all.push((Key::Node(Uuid::from_u128(9)), Command::Search(Box::new(command))));
    }
    all
}

#[test]
fn every_command_comes_through_a_frame_as_it_was_and_in_order() {
    let sent = requests();
    let mut frame = FrameWriter::default();
    for (id, (key, command)) in (1..).zip(&sent) {
        frame
            .request(id, 40 + id, key, command)
            .expect("goes to another node");
    }
    frame.credit(17);
    let read = read_frame(over_the_wire(frame));
    assert_eq!((read.requests.len(), read.credit), (sent.len(), 17));
    for (id, ((key, command), read)) in (1..).zip(sent.iter().zip(read.requests)) {
        let read = read.expect("a request");
        assert_eq!((read.id, read.view, &read.key), (id, 40 + id, key));
        // What is secret is hidden by Debug, and compared by its bytes below.
        assert_eq!(format!("{:?}", read.command), format!("{command:?}"));
        let alone = |command: &Command| {
            let mut frame = FrameWriter::default();
            frame.request(1, 1, key, command).expect("goes to another node");
            frame.finish()
        };
        assert_eq!(alone(&read.command), alone(command));
    }
}

#[test]
fn every_answer_comes_through_a_frame_as_it_was_and_in_order() {
    let sent = answers();
    let mut frame = FrameWriter::default();
    for (id, answer) in (1..).zip(&sent) {
        frame.answer(id, &PeerAnswer::Answer(answer.clone()));
    }
    frame.answer(0, &PeerAnswer::Moved);
    let mut read = read_frame(over_the_wire(frame)).answers;
    assert!(matches!(read.pop(), Some((0, PeerAnswer::Moved))));
    assert_eq!(read.len(), sent.len());
    for (id, (answer, (read_id, read))) in (1..).zip(sent.iter().zip(read)) {
        assert_eq!(read_id, id);
        assert_eq!(
            format!("{read:?}"),
            format!("{:?}", PeerAnswer::Answer(answer.clone()))
        );
        let alone = |answer: &PeerAnswer| {
            let mut frame = FrameWriter::default();
            frame.answer(1, answer);
            frame.finish()
        };
        assert_eq!(alone(&read), alone(&PeerAnswer::Answer(answer.clone())));
    }
}

#[test]
fn what_many_get_stands_in_a_frame_once_and_is_shared_again_behind_it() {
    let (one, other, message) = (publish("a/b"), publish("a/b"), entry(4));
    let mut frame = FrameWriter::default();
    for n in 1..=100 {
        let publish = if n == 50 { &other } else { &one };
        let deliver = Command::User(UserCommand::Deliver {
            publish: publish.clone(),
            targets: vec![],
            late: 0,
        });
        frame
            .request(n, 1, &Key::User(user(n.into())), &deliver)
            .expect("fits");
        let offer = Command::User(UserCommand::Offer {
            entry: message.clone(),
            after: 0,
        });
        frame
            .request(n, 1, &Key::User(user(n.into())), &offer)
            .expect("fits");
    }
    let frame = over_the_wire(frame);
    assert_eq!((frame.publishes.len(), frame.entries.len()), (2, 1));
    let shared: Vec<_> = read_frame(frame)
        .requests
        .into_iter()
        .filter_map(|request| match request.expect("a request").command {
            Command::User(UserCommand::Deliver { publish, .. }) => Some(publish),
            _ => None,
        })
        .collect();
    assert!(Arc::ptr_eq(&shared[0], &shared[99]) && !Arc::ptr_eq(&shared[0], &shared[49]));
}

#[test]
fn a_command_that_cannot_be_read_is_told_by_its_id_and_harms_no_other() {
    let mut frame = FrameWriter::default();
    for id in 1..=3 {
        let command = Command::Topic(TopicCommand::Publish(publish("a"), user(1)));
        frame
            .request(id, 1, &Key::Topic("a".into()), &command)
            .expect("fits");
    }
    let mut frame = frame.finish();
    frame.requests[1].command = Some(peer::request::Command::Topic(peer::TopicCommand {
        command: Some(peer::topic_command::Command::Publish(peer::PublishOf {
            publish: 77,
            user: Bytes::new(),
        })),
    }));
    frame.answers.push(peer::Answer { id: 9, answer: None });
    let read = read_frame(frame);
    let ids: Vec<_> = read
        .requests
        .iter()
        .map(|request| {
            request
                .as_ref()
                .map(|r| r.id)
                .map_err(|(id, error)| (*id, error.0))
        })
        .collect();
    assert_eq!(ids, [Ok(1), Err((2, "publish")), Ok(3)]);
    let [(9, PeerAnswer::Answer(Answer::Refused(refusal)))] = &read.answers[..] else {
        panic!("{:?}", read.answers)
    };
    assert_eq!(refusal.code, Code::Unavailable);
}

#[test]
fn a_code_of_a_later_version_promises_nothing() {
    let frame = Frame {
        answers: vec![peer::Answer {
            id: 1,
            answer: Some(peer::answer::Answer::Refused(peer::Refusal {
                code: "of_tomorrow".into(),
                detail: "x".into(),
            })),
        }],
        ..Frame::default()
    };
    let [(1, PeerAnswer::Answer(Answer::Refused(refusal)))] = &read_frame(frame).answers[..] else {
        panic!("an answer")
    };
    assert_eq!(refusal.code, Code::Unavailable);
}

#[test]
fn a_workers_own_copy_never_leaves_its_node() {
    let mut frame = FrameWriter::default();
    let command = Command::Topic(TopicCommand::Retained { filter: "#".into() });
    assert!(frame.request(1, 1, &Key::WildcardCopy(3), &command).is_err());
    assert!(frame.is_empty());
}
