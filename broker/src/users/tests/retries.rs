//! Sends without a client message id that are sent again: which of them are known, and which are new.

use godwit_wire::ids::ConversationId;

use super::clients::*;
use super::rig::*;
use crate::packet::{Incoming, Version};
use crate::wire_trait::ConnId;

const V3: Version = Version::V311;

#[test]
fn a_send_without_an_id_is_a_retry_only_if_its_puback_was_not_written() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conversation = rig.make_conversation(&[alice.user]);
    let a = rig.connect(&alice, clean(V3, "a"));
    rig.packet(a, send(conversation, "written", 1));
    rig.packet(a, send(conversation, "unwritten", 2));
    rig.wire.lines.get_mut(&a).unwrap().unwritten = 1;
    rig.deaf = true;
    rig.packet(a, send(conversation, "unanswered", 3));
    rig.vanish(a);
    rig.deaf = false;
    rig.run();
    assert_eq!(rig.entries(conversation), 3);
    let a = rig.connect(&alice, clean(V3, "a"));
    rig.packet(a, send(conversation, "unwritten", 2));
    rig.packet(a, send(conversation, "unanswered", 3));
    assert_eq!(rig.entries(conversation), 3, "both are retries");
    rig.packet(a, send(conversation, "written", 1));
    assert_eq!(rig.entries(conversation), 4, "this one is a new message");
    rig.packet(a, send(conversation, "unwritten", 2));
    assert_eq!(rig.entries(conversation), 5, "and a second equal one too");
}

/// A repeat, as its client marks it.
fn again(conversation: ConversationId, text: &str, packet_id: u16) -> Incoming {
    let Incoming::Publish(mut publish) = send(conversation, text, packet_id) else {
        panic!("a PUBLISH")
    };
    publish.dup = true;
    Incoming::Publish(publish)
}

#[test]
fn a_repeat_of_what_may_have_been_acknowledged_is_a_new_message_since_a_later_equal_one_may_never_have_come()
{
    let mut rig = Rig::new();
    let alice = user("alice");
    let conversation = rig.make_conversation(&[alice.user]);
    let a = rig.connect(&alice, clean(V3, "a"));
    for (text, id) in [("ok", 1), ("on its way", 2), ("unwritten", 3)] {
        rig.packet(a, send(conversation, text, id));
    }
    rig.wire.lines.get_mut(&a).unwrap().unwritten = 1;
    // The PUBACK of "ok" came, and its client had the id free: a second "ok" was lost on its way here.
    rig.vanish(a);
    let a = rig.connect(&alice, clean(V3, "a"));
    rig.packet(a, again(conversation, "ok", 1));
    assert_eq!(rig.entries(conversation), 4, "acknowledged, so stored");
    rig.packet(a, again(conversation, "on its way", 2));
    assert_eq!(rig.entries(conversation), 5, "it may double, never be lost");
    rig.packet(a, again(conversation, "unwritten", 3));
    assert_eq!(rig.entries(conversation), 5, "known not to have been written");
}

#[test]
fn what_could_not_be_sent_again_before_the_next_connection_ended_is_a_retry_still() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conversation = rig.make_conversation(&[alice.user]);
    let a = rig.connect(&alice, clean(V3, "a"));
    rig.deaf = true;
    for id in 1..=3 {
        rig.packet(a, send(conversation, "again", id));
    }
    rig.vanish(a);
    rig.deaf = false;
    rig.run();
    assert_eq!(rig.entries(conversation), 3);
    for _ in 0..2 {
        // Only the first gets through each time.
        let a = rig.connect(&alice, clean(V3, "a"));
        rig.deaf = true;
        rig.packet(a, send(conversation, "again", 1));
        rig.vanish(a);
        rig.deaf = false;
        rig.run();
    }
    let a = rig.connect(&alice, clean(V3, "a"));
    for id in 1..=3 {
        rig.packet(a, send(conversation, "again", id));
    }
    assert_eq!(rig.entries(conversation), 3, "all three are retries");
}

#[test]
fn a_client_may_bring_what_was_never_seen_among_what_it_repeats_and_in_another_order() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conversation = rig.make_conversation(&[alice.user]);
    let a = rig.connect(&alice, clean(V3, "a"));
    rig.deaf = true;
    for id in 1..=2 {
        rig.packet(a, send(conversation, "again", id));
    }
    rig.vanish(a);
    rig.deaf = false;
    rig.run();
    let a = rig.connect(&alice, clean(V3, "a"));
    // The third was lost on its way before; it comes first now, and the connection ends behind it.
    rig.deaf = true;
    rig.packet(a, send(conversation, "again", 3));
    rig.vanish(a);
    rig.deaf = false;
    rig.run();
    let a = rig.connect(&alice, clean(V3, "a"));
    for id in 1..=3 {
        rig.packet(a, send(conversation, "again", id));
    }
    assert_eq!(rig.entries(conversation), 3, "all three are retries");
}

#[test]
fn who_had_something_new_acknowledged_or_took_leave_or_uses_the_packet_id_again_is_done_with_the_old() {
    type Between = fn(&mut Rig, ConnId, ConversationId);
    let between: [(Between, usize); 3] = [
        (|rig, a, of| rig.packet(a, send(of, "new", 6)), 4),
        (
            |rig, a, _| {
                rig.packet(
                    a,
                    Incoming::Disconnect {
                        reason: 0,
                        session_expiry: None,
                    },
                )
            },
            3,
        ),
        (
            |rig, a, of| {
                rig.deaf = true;
                rig.packet(a, send(of, "new", 5));
            },
            4,
        ),
    ];
    for (case, (act, entries)) in between.into_iter().enumerate() {
        let mut rig = Rig::new();
        let alice = user("alice");
        let conversation = rig.make_conversation(&[alice.user]);
        let a = rig.connect(&alice, clean(V3, "a"));
        rig.deaf = true;
        for id in 4..=5 {
            rig.packet(a, send(conversation, "late", id));
        }
        rig.vanish(a);
        rig.deaf = false;
        rig.run();
        let a = rig.connect(&alice, clean(V3, "a"));
        act(&mut rig, a, conversation);
        rig.vanish(a);
        rig.deaf = false;
        rig.run();
        let a = rig.connect(&alice, clean(V3, "a"));
        rig.packet(a, send(conversation, "late", 5));
        assert_eq!(
            rig.entries(conversation),
            entries,
            "case {case}: 5 is a new message by now"
        );
    }
}

#[test]
fn a_retry_is_known_after_the_user_left_memory_and_only_once() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conversation = rig.make_conversation(&[alice.user]);
    let a = rig.connect(&alice, clean(V3, "a"));
    rig.deaf = true;
    rig.packet(a, send(conversation, "unanswered", 3));
    rig.vanish(a);
    rig.deaf = false;
    rig.pass(30_000);
    assert!(!rig.users.is_loaded(alice.user));
    assert_eq!(rig.entries(conversation), 1);
    let a = rig.connect(&alice, clean(V3, "a"));
    rig.packet(a, send(conversation, "unanswered", 3));
    assert_eq!(rig.entries(conversation), 1);
    rig.crash();
    let a = rig.connect(&alice, clean(V3, "a"));
    rig.packet(a, send(conversation, "unanswered", 3));
    assert_eq!(
        rig.entries(conversation),
        2,
        "nobody knows: it may double, never be lost"
    );
}
