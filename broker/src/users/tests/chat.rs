//! The mailbox over MQTT: send, inbox in its encodings, cursor rules, refused entries, receipts.

use bytes::Bytes;
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::UserCommand;
use godwit_wire::ids::ConversationId;
use godwit_wire::proto::chat;

use super::clients::*;
use super::rig::*;
use crate::packet::{Incoming, Outgoing, Version};

const V3: Version = Version::V311;
const V5: Version = Version::V5;

#[test]
fn a_message_is_acknowledged_with_its_place_and_pushed_to_everybody_in_their_encodings() {
    let mut rig = Rig::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let conversation = rig.make_conversation(&[alice.user, bob.user]);
    let a = rig.connect(&alice, persistent(V5, "a"));
    let b = rig.connect(&bob, persistent(V5, "b"));
    let text_bob = rig.connect(&bob, persistent(V3, "text"));
    assert_eq!(rig.subscribe(a, "me/inbox", 2), [1], "QoS 2 asked gives 1");
    assert_eq!(rig.subscribe(b, "me/inbox/json", 1), [1]);
    assert_eq!(rig.subscribe(text_bob, "me/inbox/text", 1), [1]);
    for conn in [a, b, text_bob] {
        rig.out(conn);
    }
    rig.packet(a, send(conversation, "hi", 1));
    let out = rig.out(a);
    let ack = out.iter().find_map(|packet| match packet {
        Outgoing::Puback(ack) => Some(ack),
        _ => None,
    });
    let ack = ack.unwrap();
    assert_eq!((ack.packet_id, ack.reason), (1, 0));
    assert!(ack.properties.contains(&("seq".into(), "1".into())));
    assert!(ack.properties.contains(&("duplicate".into(), "false".into())));
    assert!(
        out.iter()
            .any(|packet| matches!(packet, Outgoing::Publish(p) if p.packet_id % 2 == 1)),
        "the echo"
    );
    let json = rig.publishes(b);
    let value = text(&json[0]);
    assert!(
        value.contains("\"inbox_seq\":1") && value.contains("\"content\":\"hi\""),
        "{value}"
    );
    assert_eq!(
        json[0].properties.as_ref().unwrap().content_type,
        "application/json"
    );
    assert_eq!(&*json[0].topic, "me/inbox/json");
    assert_eq!(text(&rig.publishes(text_bob)[0]), "alice: hi");
}

#[test]
fn puback_waits_for_the_mailbox_of_every_recipient() {
    let mut rig = Rig::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let conversation = rig.make_conversation(&[alice.user, bob.user]);
    let a = rig.connect(&alice, clean(V5, "a"));
    rig.out(a);
    rig.hold(true);
    rig.packet(a, send(conversation, "hi", 1));
    rig.store.commit(1);
    rig.run();
    assert!(rig.out(a).is_empty(), "one of two mailboxes is not enough");
    rig.hold(false);
    rig.run();
    assert_eq!(rig.out(a).len(), 1);
    assert_eq!(rig.store.log_len(200, bob.user.0), 1);
}

#[test]
fn offers_are_taken_once_also_after_a_crash_and_a_lost_one_is_not_passed_over() {
    let mut rig = Rig::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let conversation = rig.make_conversation(&[alice.user, bob.user]);
    let a = rig.connect(&alice, clean(V5, "a"));
    for n in 1..=5 {
        rig.packet(a, send(conversation, &n.to_string(), n));
    }
    assert_eq!(rig.store.log_len(200, bob.user.0), 5);
    rig.pass(30_000);
    assert!(!rig.users.is_loaded(bob.user), "bob went idle");
    rig.crash();
    let a = rig.connect(&alice, clean(V5, "a"));
    rig.packet(a, send(conversation, "six", 6));
    assert_eq!(
        rig.store.log_len(200, bob.user.0),
        6,
        "the re-offer of five was known by their marks"
    );
    rig.hold(true);
    rig.packet(a, send(conversation, "lost", 7));
    rig.crash();
    let a = rig.connect(&alice, clean(V5, "a"));
    rig.packet(a, send(conversation, "eight", 8));
    assert_eq!(rig.store.log_len(200, bob.user.0), 8);
}

#[test]
fn an_offer_after_one_that_never_came_is_refused() {
    let mut rig = Rig::new();
    let bob = user("bob");
    let entry = |n| {
        std::sync::Arc::new(
            godwit_wire::command::LoggedEntry::message(chat::Message {
                conversation_id: ConversationId(uuid::Uuid::from_u128(5)).to_bytes(),
                sequence_number: n,
                message_id: godwit_wire::ids::MessageId::fresh().to_bytes(),
                sender_id: user("x").user.to_bytes(),
                content: Some(chat::message::Content::Text("x".into())),
                ..chat::Message::default()
            })
            .unwrap(),
        )
    };
    let offer = |n, after| UserCommand::Offer {
        entry: entry(n),
        after,
    };
    let mut first = rig.ask_user(bob.user, offer(4, 3));
    assert!(
        matches!(first.try_recv(), Ok(godwit_wire::command::Answer::Refused(r)) if r.code == Code::Unavailable)
    );
    rig.hold(true);
    let mut third = rig.ask_user(bob.user, offer(3, 0));
    let mut again = rig.ask_user(bob.user, offer(3, 0));
    let mut fourth = rig.ask_user(bob.user, offer(4, 3));
    rig.run();
    assert!(third.try_recv().is_err() && again.try_recv().is_err() && fourth.try_recv().is_err());
    rig.hold(false);
    rig.run();
    for answer in [&mut third, &mut again, &mut fourth] {
        assert!(matches!(
            answer.try_recv(),
            Ok(godwit_wire::command::Answer::Kept { .. })
        ));
    }
    assert_eq!(
        rig.store.log_len(200, bob.user.0),
        2,
        "the repeat waited for the one in flight"
    );
}

#[test]
fn a_refused_send_is_told_in_5_and_is_a_durable_entry_in_3_1_1() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conversation = ConversationId::fresh();
    rig.refuse_sends = Some(Refusal::not_found());
    let five = rig.connect(&alice, persistent(V5, "five"));
    let three = rig.connect(&alice, persistent(V3, "three"));
    rig.subscribe(three, "me/inbox/json", 1);
    rig.out(five);
    rig.out(three);
    rig.packet(five, send(conversation, "x", 1));
    let out = rig.out(five);
    let [Outgoing::Puback(ack)] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!((ack.reason, ack.properties[0].1.as_str()), (0x87, "not_found"));
    rig.hold(true);
    let topic = format!("c/{conversation}/send/json");
    let body = r#"{"client_message_id":"m1","content":"secret plan"}"#;
    rig.packet(three, publish(&topic, body, 1, 4));
    assert!(
        rig.out(three).is_empty(),
        "not acknowledged before the entry is durable"
    );
    rig.hold(false);
    rig.run();
    let out = rig.out(three);
    assert!(
        out.iter()
            .any(|packet| matches!(packet, Outgoing::Puback(ack) if ack.packet_id == 4))
    );
    let refused = out.iter().find_map(|packet| match packet {
        Outgoing::Publish(publish) => Some(text(publish)),
        _ => None,
    });
    let refused = refused.unwrap();
    for part in ["\"refused\"", "\"not_found\"", "\"m1\"", &topic] {
        assert!(refused.contains(part), "{refused}");
    }
    rig.refuse_sends = Some(Refusal::unavailable());
    rig.packet(three, publish(&topic, body, 1, 5));
    assert!(rig.is_closed(three), "not for good: it is sent again");
}

#[test]
fn low_space_refuses_sends_before_the_engine_fails() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conversation = rig.make_conversation(&[alice.user]);
    let a = rig.connect(&alice, persistent(V5, "a"));
    rig.out(a);
    rig.store
        .low_space
        .store(true, std::sync::atomic::Ordering::Relaxed);
    rig.packet(a, send(conversation, "x", 1));
    assert!(matches!(&rig.out(a)[..], [Outgoing::Puback(ack)] if ack.reason == 0x83));
    assert_eq!(rig.entries(conversation), 0);
}

#[test]
fn a_name_in_a_topic_is_resolved_once_and_the_order_of_sends_stays() {
    let mut rig = Rig::new();
    let (alice, bob) = (user("alice"), user("bob"));
    rig.store.put_fact(100, "bob", bob.user.to_bytes());
    let direct = ConversationId::direct(alice.user, bob.user);
    rig.make_conversation_as(direct, &[alice.user, bob.user]);
    let a = rig.connect(&alice, clean(V5, "a"));
    let b = rig.connect(&bob, persistent(V5, "b"));
    rig.subscribe(b, "me/inbox/text", 1);
    rig.out(a);
    rig.give(a, publish("c/@bob/send/text", "one", 1, 1));
    assert!(rig.wire.lines[&a].paused, "what follows waits for the name");
    rig.run();
    assert!(!rig.wire.lines[&a].paused);
    rig.packet(a, publish("c/@bob/send/text", "two", 1, 2));
    rig.packet(a, publish("c/@nobody/send/text", "three", 1, 3));
    let got: Vec<_> = rig.publishes(b).iter().map(text).collect();
    assert_eq!(got, ["alice: one", "alice: two"]);
    assert!(matches!(rig.out(a).last(), Some(Outgoing::Puback(ack)) if ack.reason == 0x87));
}

#[test]
fn reserved_forms_and_strangers_are_refused_alike() {
    let mut rig = Rig::new();
    let mut nobody = user("");
    nobody.credential = None;
    nobody.scopes = Default::default();
    let mut topics_only = user("sensor");
    topics_only.scopes.chat = false;
    let conversation = rig.make_conversation(&[topics_only.user]);
    for who in [&nobody, &topics_only] {
        let conn = rig.connect(who, clean(V5, "c"));
        rig.out(conn);
        let topics = [
            format!("c/{conversation}/send"),
            format!("c/{conversation}/typing"),
            "me/inbox".into(),
            "p/me/phone".into(),
            "$SYS/x".into(),
        ];
        for (id, topic) in (1..).zip(topics) {
            rig.packet(conn, publish(&topic, "x", 1, id));
            assert!(
                matches!(&rig.out(conn)[..], [Outgoing::Puback(ack)] if ack.reason == 0x87),
                "{topic}"
            );
        }
        assert_eq!(rig.subscribe(conn, "me/inbox", 1), [0x87]);
    }
}

#[test]
fn a_client_message_id_in_a_user_property_names_the_message() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conversation = rig.make_conversation(&[alice.user]);
    let a = rig.connect(&alice, clean(V5, "a"));
    for id in 1..=2 {
        let Incoming::Publish(mut packet) = send(conversation, "x", id) else {
            unreachable!()
        };
        packet.properties = Some(Box::new(godwit_wire::proto::stored::PublishProperties {
            user_properties: vec![godwit_wire::proto::stored::UserProperty {
                name: "client_message_id".into(),
                value: "m1".into(),
            }],
            ..Default::default()
        }));
        rig.packet(a, Incoming::Publish(packet));
    }
    assert_eq!(rig.entries(conversation), 1);
    let out = rig.out(a);
    let Some(Outgoing::Puback(ack)) = out.last() else {
        panic!("{out:?}")
    };
    assert!(ack.properties.contains(&("duplicate".into(), "true".into())));
}

#[test]
fn a_form_that_is_not_utf8_is_malformed() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conversation = rig.make_conversation(&[alice.user]);
    let a = rig.connect(&alice, clean(V5, "a"));
    rig.out(a);
    let Incoming::Publish(mut packet) = send(conversation, "", 1) else {
        unreachable!()
    };
    packet.payload = Bytes::from_static(b"\xff\xfe");
    rig.packet(a, Incoming::Publish(packet));
    assert!(matches!(&rig.out(a)[..], [Outgoing::Puback(ack)] if ack.reason == 0x99));
}
