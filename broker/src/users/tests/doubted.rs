//! A node whose calendar is far off the other members': nothing ends by it, and what is over ends when it is right again.

use godwit_cluster::RoleId;

use super::clients::*;
use super::ends::with_will;
use super::rig::*;
use crate::packet::{Incoming, Version};

const V5: Version = Version::V5;
const HOUR: u64 = 3_600 * 1_000;
const DAY: u64 = 24 * HOUR;

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
    let left: Vec<_> = rig.publishes(d).iter().map(|one| one.message_expiry).collect();
    assert_eq!(left, [Some(1)], "nobody knows that its time is over");
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

#[test]
fn what_a_node_writes_whose_calendar_may_be_an_hour_behind_ends_late_at_one_that_is_right() {
    let mut rig = Rig::new();
    let alice = user("alice");
    rig.pass(31_000);
    // Of two nodes nobody knows which is right, and this is the one that is not.
    rig.harness.doubt_clock(true);
    rig.harness.may_be_later(HOUR);
    let mut connect = persistent(V5, "c");
    connect.session_expiry = 100;
    let c = rig.connect(&alice, connect);
    rig.subscribe(c, "iot/alice/t", 1);
    let d = rig.connect(&alice, persistent(V5, "d"));
    rig.subscribe(d, "iot/alice/t", 1);
    let e = rig.connect(&alice, with_will(persistent(V5, "e"), "iot/alice/gone", 100));
    for conn in [c, d, e] {
        rig.vanish(conn);
    }
    let publisher = rig.connect(&alice, clean(V5, "p"));
    let Incoming::Publish(mut packet) = publish("iot/alice/t", "x", 1, 1) else {
        panic!("a publish");
    };
    packet.message_expiry = Some(100);
    rig.packet(publisher, Incoming::Publish(packet));
    rig.vanish(publisher);
    assert_eq!(rig.routes(), 2);

    // It is set right.
    rig.harness.advance(HOUR);
    rig.harness.doubt_clock(false);
    rig.harness.may_be_later(0);
    rig.pass(90_000);
    assert_eq!(rig.routes(), 2, "90 of 100 seconds have passed");
    assert!(rig.published.iter().all(|one| &*one.topic != "iot/alice/gone"));
    let d = rig.connect(&alice, persistent(V5, "d"));
    let left: Vec<_> = rig.publishes(d).iter().map(|one| one.message_expiry).collect();
    assert_eq!(left, [Some(10)]);
    rig.pass(20_000);
    assert_eq!(rig.routes(), 1, "and now they are over");
    let gone = rig.published.iter().filter(|one| &*one.topic == "iot/alice/gone");
    assert_eq!(gone.count(), 1);
}

#[test]
fn a_delayed_will_whose_row_was_read_is_not_published_by_a_calendar_that_is_doubted_since() {
    let mut rig = Rig::new();
    let alice = user("alice");
    rig.pass(31_000);
    let conn = rig.connect(&alice, with_will(persistent(V5, "c"), "iot/alice/gone", 60));
    rig.vanish(conn);
    rig.pass(59_000);
    rig.harness.advance(HOUR);
    while let Some(tag) = rig.harness.take_timer() {
        let (users, wire) = (&mut rig.users, &mut rig.wire);
        rig.harness
            .with(RoleId::Broker, |cx| users.timer(cx, wire, number(tag)));
    }
    rig.harness.doubt_clock(true);
    rig.pass(5_000);
    assert!(rig.published.is_empty());
    rig.harness.doubt_clock(false);
    rig.pass(5_000);
    assert_eq!(rig.published.len(), 1);
}

#[test]
fn a_session_left_in_time_to_come_and_mail_of_then_were_written_by_a_wrong_calendar_and_are_of_now() {
    let mut rig = Rig::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let conversation = rig.make_conversation(&[alice.user, bob.user]);
    rig.pass(31_000);
    rig.harness.doubt_clock(true);
    rig.harness.may_be_later(75 * 365 * DAY);
    let mut connect = persistent(V5, "c");
    connect.session_expiry = 100;
    let c = rig.connect(&alice, connect);
    rig.subscribe(c, "iot/alice/t", 1);
    rig.vanish(c);
    let send = |rig: &mut Rig, id: u16| {
        let a = rig.connect(&alice, clean(V5, "a"));
        let topic = format!("c/{conversation}/send/text");
        rig.packet(a, publish(&topic, &id.to_string(), 1, id));
        rig.vanish(a);
        rig.pass(30_000);
    };
    send(&mut rig, 1);
    rig.pass(400_000);
    assert_eq!(rig.routes(), 1, "nothing ends by what may be wrong");

    // Its next owner is right.
    rig.crash();
    send(&mut rig, 2);
    assert_eq!(rig.routes(), 1);
    rig.pass(200_000);
    assert_eq!(rig.routes(), 0, "it ended 100 s after that");
    rig.harness.advance(91 * DAY);
    send(&mut rig, 3);
    assert_eq!(
        rig.store.log_len(200, bob.user.0),
        2,
        "the first is over its 90 days"
    );
}
