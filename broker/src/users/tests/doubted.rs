//! A node whose calendar is far off the other members': nothing ends by it, and what is over ends when it is right again.

use super::clients::*;
use super::rig::*;
use crate::packet::{Incoming, Version};

const V5: Version = Version::V5;
const DAY: u64 = 24 * 3_600 * 1_000;

#[test]
fn with_a_doubted_calendar_no_session_ends_and_no_owed_message_and_late_rather_than_never() {
    let mut rig = Rig::new();
    let alice = user("alice");
    rig.pass(31_000);
    let mut connect = persistent(V5, "c");
    connect.session_expiry = 100;
    let c = rig.connect(&alice, connect);
    rig.subscribe(c, "iot/alice/t", 1);
    let d = rig.connect(&alice, persistent(V5, "d"));
    rig.subscribe(d, "iot/alice/t", 1);
    rig.vanish(c);
    rig.vanish(d);
    let publisher = rig.connect(&alice, clean(V5, "p"));
    let Incoming::Publish(mut packet) = publish("iot/alice/t", "x", 1, 1) else {
        panic!("a publish");
    };
    packet.message_expiry = Some(5);
    rig.packet(publisher, Incoming::Publish(packet));

    rig.harness.doubt_clock(true);
    rig.pass(400_000);
    assert_eq!(
        rig.routes(),
        2,
        "its time is over by a calendar that may be wrong"
    );
    let d = rig.connect(&alice, persistent(V5, "d"));
    assert_eq!(rig.publishes(d).len(), 1);
    assert_eq!(rig.metrics.expired.get(), 0);

    rig.harness.doubt_clock(false);
    rig.pass(5_000);
    assert_eq!(rig.routes(), 1, "now it ends");
}

#[test]
fn with_a_doubted_calendar_no_mailbox_is_trimmed_by_time() {
    let mut rig = Rig::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let conversation = rig.make_conversation(&[alice.user, bob.user]);
    let send = |rig: &mut Rig, id: u16| {
        let a = rig.connect(&alice, clean(V5, "a"));
        let topic = format!("c/{conversation}/send/text");
        rig.packet(a, publish(&topic, &id.to_string(), 1, id));
        rig.vanish(a);
        rig.pass(30_000);
    };
    send(&mut rig, 1);
    rig.harness.doubt_clock(true);
    rig.harness.advance(91 * DAY);
    send(&mut rig, 2);
    assert_eq!(rig.store.log_len(200, bob.user.0), 2);
    rig.harness.doubt_clock(false);
    send(&mut rig, 3);
    assert_eq!(
        rig.store.log_len(200, bob.user.0),
        2,
        "the first is over its 90 days"
    );
}
