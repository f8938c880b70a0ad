//! The mailbox feed: cursor rules, encodings, receipts, catching up.

use godwit_wire::account::Principal;
use godwit_wire::command::{ConversationCommand, UserCommand, Watermark};
use godwit_wire::ids::ConversationId;
use uuid::Uuid;

use super::clients::*;
use super::rig::*;
use crate::packet::{Incoming, Outgoing, Version};
use crate::wire_trait::ConnId;

const V5: Version = Version::V5;

#[test]
fn an_offline_session_gets_its_messages_after_a_crash_in_order_and_acknowledging_ends_it() {
    let mut rig = Rig::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let conversation = rig.make_conversation(&[alice.user, bob.user]);
    let b = rig.connect(&bob, persistent(V5, "b"));
    rig.subscribe(b, "me/inbox", 1);
    rig.vanish(b);
    let a = rig.connect(&alice, clean(V5, "a"));
    for n in 1..=300 {
        rig.packet(a, send(conversation, &n.to_string(), n));
    }
    rig.crash();
    let b = rig.connect(&bob, persistent(V5, "b"));
    let got = ack_all(&mut rig, b);
    assert_eq!(seqs(&got), (1..=300).collect::<Vec<_>>());
    rig.pass(2_000);
    let delivered: Vec<u64> = rig
        .told
        .iter()
        .filter_map(|(id, command)| match command {
            ConversationCommand::Delivered { up_to, .. } if *id == conversation => Some(*up_to),
            _ => None,
        })
        .collect();
    assert_eq!(delivered.last(), Some(&300), "the PUBACK is the receipt");
    assert!(delivered.len() <= 5, "and it is coalesced: {delivered:?}");
    rig.crash();
    let b = rig.connect(&bob, persistent(V5, "b"));
    assert!(ack_all(&mut rig, b).is_empty(), "the cursor was kept");
}

#[test]
fn the_first_cursor_begins_at_the_oldest_entry_and_later_ones_at_the_end() {
    let mut rig = Rig::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let conversation = rig.make_conversation(&[alice.user, bob.user]);
    let a = rig.connect(&alice, clean(V5, "a"));
    rig.packet(a, send(conversation, "before", 1));
    let clean_one = rig.connect(&bob, clean(V5, "clean"));
    rig.subscribe(clean_one, "me/inbox", 1);
    assert!(
        rig.publishes(clean_one).is_empty(),
        "a clean session begins at the end"
    );
    let first = rig.connect(&bob, persistent(V5, "first"));
    rig.packet(first, subscribe(7, "me/inbox", 1));
    assert_eq!(seqs(&rig.publishes(first)), [1]);
    let second = rig.connect(&bob, persistent(V5, "second"));
    rig.subscribe(second, "me/inbox", 1);
    assert!(rig.publishes(second).is_empty());
    rig.packet(a, send(conversation, "after", 2));
    for conn in [clean_one, first, second] {
        assert_eq!(seqs(&rig.publishes(conn)), [2]);
    }
}

#[test]
fn the_cursor_stays_over_unsubscribe_and_one_encoding_at_a_time_is_taken() {
    let mut rig = Rig::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let conversation = rig.make_conversation(&[alice.user, bob.user]);
    let a = rig.connect(&alice, clean(V5, "a"));
    let b = rig.connect(&bob, persistent(V5, "b"));
    rig.subscribe(b, "me/inbox", 1);
    assert_eq!(rig.subscribe(b, "me/inbox/json", 1), [0x83]);
    rig.packet(
        b,
        Incoming::Unsubscribe {
            packet_id: 2,
            filters: vec!["me/inbox".into()],
        },
    );
    rig.packet(a, send(conversation, "meanwhile", 1));
    rig.out(b);
    rig.packet(b, subscribe(3, "me/inbox/text", 1));
    let got = rig.publishes(b);
    assert_eq!(got.iter().map(text).collect::<Vec<_>>(), ["alice: meanwhile"]);
}

#[test]
fn no_local_keeps_own_messages_away_and_moves_on() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conversation = rig.make_conversation(&[alice.user]);
    let a = rig.connect(&alice, persistent(V5, "a"));
    let Incoming::Subscribe {
        packet_id,
        mut filters,
        subscription_id,
    } = subscribe(7, "me/inbox", 1)
    else {
        unreachable!()
    };
    filters[0].no_local = true;
    rig.packet(
        a,
        Incoming::Subscribe {
            packet_id,
            filters,
            subscription_id,
        },
    );
    rig.packet(a, send(conversation, "mine", 1));
    assert!(rig.publishes(a).is_empty());
}

#[test]
fn a_qos_0_inbox_is_a_live_feed_without_cursor() {
    let mut rig = Rig::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let conversation = rig.make_conversation(&[alice.user, bob.user]);
    let a = rig.connect(&alice, clean(V5, "a"));
    rig.packet(a, send(conversation, "before", 1));
    let b = rig.connect(&bob, persistent(V5, "b"));
    assert_eq!(rig.subscribe(b, "me/inbox", 0), [0]);
    rig.packet(a, send(conversation, "live", 2));
    let got = rig.publishes(b);
    assert_eq!((seqs(&got), got[0].qos), (vec![2], 0));
    rig.vanish(b);
    let b = rig.connect(&bob, persistent(V5, "b"));
    assert!(rig.publishes(b).is_empty());
    rig.packet(a, send(conversation, "again", 3));
    assert_eq!(seqs(&rig.publishes(b)), [3], "the subscription stays");
}

#[test]
fn a_read_goes_to_the_conversation_and_receipts_are_told_live_without_a_place() {
    let mut rig = Rig::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let conversation = rig.make_conversation(&[alice.user, bob.user]);
    let a = rig.connect(&alice, persistent(V5, "a"));
    rig.subscribe(a, "me/inbox/json", 1);
    rig.out(a);
    rig.packet(
        a,
        publish(&format!("c/{conversation}/read/json"), r#"{"up_to":7}"#, 1, 1),
    );
    assert!(matches!(
        rig.told[..],
        [(_, ConversationCommand::Read { up_to: 7, .. })]
    ));
    assert!(matches!(&rig.out(a)[..], [Outgoing::Puback(ack)] if ack.reason == 0));
    let watermark = Watermark {
        user: bob.user,
        delivered_up_to: 7,
        read_up_to: 3,
    };
    drop(rig.ask_user(
        alice.user,
        UserCommand::Receipt {
            conversation,
            watermark,
        },
    ));
    let got = rig.publishes(a);
    assert_eq!(got[0].qos, 0);
    assert!(text(&got[0]).contains("\"receipt\"") && !text(&got[0]).contains("inbox_seq"));
}

#[test]
fn an_error_puback_moves_the_cursor_and_is_no_receipt() {
    let mut rig = Rig::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let conversation = rig.make_conversation(&[alice.user, bob.user]);
    let a = rig.connect(&alice, clean(V5, "a"));
    let b = rig.connect(&bob, persistent(V5, "b"));
    rig.subscribe(b, "me/inbox", 1);
    rig.packet(a, send(conversation, "x", 1));
    let got = rig.publishes(b);
    rig.packet(b, Incoming::Puback(got[0].packet_id, 0x80));
    rig.pass(3_000);
    assert!(rig.told.is_empty());
    rig.crash();
    let b = rig.connect(&bob, persistent(V5, "b"));
    assert!(rig.publishes(b).is_empty());
}

#[test]
fn what_memory_no_longer_has_is_read_from_the_store() {
    let mut rig = Rig::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let conversation = rig.make_conversation(&[alice.user, bob.user]);
    let mut connect = persistent(V5, "b");
    connect.receive_maximum = 2;
    let b = rig.connect(&bob, connect);
    rig.subscribe(b, "me/inbox", 1);
    let a = rig.connect(&alice, clean(V5, "a"));
    for n in 1..=600 {
        rig.packet(a, send(conversation, &n.to_string(), n));
    }
    let got = ack_all(&mut rig, b);
    assert_eq!(seqs(&got), (1..=600).collect::<Vec<_>>());
    assert_eq!(rig.metrics.missing.get(), 0);
}

#[test]
fn sessions_of_a_revoked_credential_are_closed_and_stay() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conn = rig.connect(&alice, persistent(V5, "a"));
    rig.out(conn);
    let credential = alice.credential.unwrap();
    drop(rig.ask_user(alice.user, UserCommand::CredentialEnded { credential }));
    assert!(matches!(rig.out(conn)[..], [Outgoing::Disconnect(0x87, _)]));
    let conn = rig.connect(&alice, persistent(V5, "a"));
    assert!(matches!(&rig.out(conn)[..], [Outgoing::Connack(c)] if c.session_present));
}

#[test]
fn a_certificate_that_is_revoked_where_its_client_came_ends_the_connections_that_showed_it() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let [mine, other, none] = ["a", "b", "c"].map(|id| rig.connect(&alice, persistent(V5, id)));
    let certificates = [mine, other].map(|conn| {
        let certificate = Uuid::now_v7();
        rig.wire.lines.get_mut(&conn).unwrap().certificate = Some(certificate);
        certificate
    });
    for conn in [mine, other, none] {
        rig.out(conn);
    }
    // They came by a password, or a token, which is good.
    let credential = certificates[0];
    drop(rig.ask_user(alice.user, UserCommand::CredentialEnded { credential }));
    assert!(matches!(rig.out(mine)[..], [Outgoing::Disconnect(0x87, _)]));
    assert!(rig.is_closed(mine) && !rig.is_closed(other) && !rig.is_closed(none));
}

#[test]
fn a_credential_without_the_chat_gets_nothing_of_the_mailbox_that_its_session_has() {
    let mut rig = Rig::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let conversation = rig.make_conversation(&[alice.user, bob.user]);
    let a = rig.connect(&alice, clean(V5, "a"));
    let phone = rig.connect(&bob, persistent(V5, "phone"));
    rig.subscribe(phone, "me/inbox", 1);
    rig.vanish(phone);
    rig.packet(a, send(conversation, "one", 1));
    let mut topics_only = bob.clone();
    topics_only.scopes.chat = false;
    let other = rig.connect(&topics_only, persistent(V5, "phone"));
    rig.packet(a, send(conversation, "two", 2));
    rig.pass(3_000);
    assert!(rig.publishes(other).is_empty());
    // The same client with the right, in place: what is owed comes.
    rig.renew(other, &bob);
    assert_eq!(seqs(&rig.publishes(other)), [1, 2]);
}

/// Bob's phone with a receive maximum of 1 and a QoS 1 subscription; one message is in flight, two wait.
fn one_in_flight_of_three(rig: &mut Rig) -> (ConnId, ConnId, ConversationId, Principal) {
    let (alice, bob) = (user("alice"), user("bob"));
    let conversation = rig.make_conversation(&[alice.user, bob.user]);
    let mut connect = persistent(V5, "phone");
    connect.receive_maximum = 1;
    let phone = rig.connect(&bob, connect);
    rig.subscribe(phone, "me/inbox", 1);
    let a = rig.connect(&alice, clean(V5, "a"));
    for n in 1..=3 {
        rig.packet(a, send(conversation, &n.to_string(), n));
    }
    assert_eq!(pubacks(rig, a), [1, 2, 3]);
    assert_eq!(seqs(&rig.publishes(phone)), [1]);
    (a, phone, conversation, bob)
}

#[test]
fn what_was_owed_comes_with_qos_1_after_the_subscription_was_replaced_by_a_live_feed() {
    let mut rig = Rig::new();
    let (a, phone, conversation, bob) = one_in_flight_of_three(&mut rig);
    assert_eq!(rig.subscribe(phone, "me/inbox", 0), [0]);
    rig.vanish(phone);
    rig.packet(a, send(conversation, "to nobody", 4));
    rig.crash();
    let phone = rig.connect(&bob, persistent(V5, "phone"));
    let got = rig.publishes(phone);
    assert_eq!(seqs(&got), [1, 2, 3]);
    assert!(got.iter().all(|publish| publish.qos == 1));
    assert!(got[0].dup, "it was given before");
    for publish in got {
        rig.packet(phone, Incoming::Puback(publish.packet_id, 0));
    }
    rig.pass(3_000);
    rig.crash();
    let phone = rig.connect(&bob, persistent(V5, "phone"));
    assert!(
        rig.publishes(phone).is_empty(),
        "what it acknowledged is not owed, and the live feed owes nothing"
    );
}

#[test]
fn a_live_feed_does_not_overtake_what_was_owed_before_it() {
    let mut rig = Rig::new();
    let (a, phone, conversation, _) = one_in_flight_of_three(&mut rig);
    assert_eq!(rig.subscribe(phone, "me/inbox", 0), [0]);
    rig.packet(a, send(conversation, "no room", 4));
    assert!(rig.publishes(phone).is_empty());
    assert_eq!(rig.metrics.dropped_qos0.get(), 1);
    rig.packet(phone, Incoming::Puback(1, 0));
    let second = rig.publishes(phone);
    rig.packet(phone, Incoming::Puback(second[0].packet_id, 0));
    let third = rig.publishes(phone);
    assert_eq!((seqs(&second), seqs(&third)), (vec![2], vec![3]));
    // In flight, but behind it nothing waits.
    rig.packet(a, send(conversation, "live", 5));
    let live = rig.publishes(phone);
    assert_eq!((seqs(&live), live[0].qos), (vec![5], 0));
    // What the live feed had, and had not, is behind the cursor.
    rig.packet(phone, Incoming::Puback(third[0].packet_id, 0));
    rig.packet(phone, subscribe(9, "me/inbox", 1));
    assert_eq!(seqs(&ack_all(&mut rig, phone)), [4, 5]);
}

#[test]
fn what_was_begun_before_unsubscribe_is_completed_on_the_next_connection_and_nothing_more() {
    let mut rig = Rig::new();
    let (_, phone, _, bob) = one_in_flight_of_three(&mut rig);
    let unsubscribe = Incoming::Unsubscribe {
        packet_id: 2,
        filters: vec!["me/inbox".into()],
    };
    rig.packet(phone, unsubscribe);
    rig.vanish(phone);
    rig.crash();
    let phone = rig.connect(&bob, persistent(V5, "phone"));
    let got = rig.publishes(phone);
    assert_eq!((seqs(&got), got[0].qos, got[0].dup), (vec![1], 1, true));
    rig.packet(phone, Incoming::Puback(1, 0));
    assert!(rig.publishes(phone).is_empty());
    // Not even by a live feed in the other encoding; with QoS 1 the cursor goes on.
    rig.subscribe(phone, "me/inbox/json", 0);
    assert!(rig.publishes(phone).is_empty());
    rig.packet(phone, subscribe(9, "me/inbox/json", 1));
    assert_eq!(rig.publishes(phone).len(), 2);
}

#[test]
fn my_own_messages_that_were_owed_come_after_the_subscription_was_replaced_by_one_with_no_local() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conversation = rig.make_conversation(&[alice.user]);
    let mut connect = persistent(V5, "phone");
    connect.receive_maximum = 1;
    let phone = rig.connect(&alice, connect);
    rig.subscribe(phone, "me/inbox", 1);
    let a = rig.connect(&alice, clean(V5, "a"));
    rig.packet(a, send(conversation, "begun", 1));
    rig.packet(a, send(conversation, "waits", 2));
    assert_eq!(seqs(&rig.publishes(phone)), [1]);
    let no_local = |qos| {
        let mut packet = subscribe(8, "me/inbox", qos);
        if let Incoming::Subscribe { filters, .. } = &mut packet {
            filters[0].no_local = true;
        }
        packet
    };
    rig.packet(phone, no_local(1));
    rig.packet(a, send(conversation, "after", 3));
    // Neither a crash nor a live feed in between takes them away.
    rig.crash();
    let mut connect = persistent(V5, "phone");
    connect.receive_maximum = 1;
    let phone = rig.connect(&alice, connect);
    assert_eq!(seqs(&rig.publishes(phone)), [1]);
    rig.packet(phone, no_local(0));
    rig.packet(phone, no_local(1));
    rig.packet(phone, Incoming::Puback(1, 0));
    assert_eq!(
        seqs(&ack_all(&mut rig, phone)),
        [2],
        "what came after No Local is not given"
    );
}
