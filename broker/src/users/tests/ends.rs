//! Wills, session expiry, going idle, shutting down.

use bytes::Bytes;
use godwit_wire::ids::Key;

use super::clients::*;
use super::rig::*;
use crate::packet::{Connect, Incoming, Outgoing, Version, Will};

const V5: Version = Version::V5;

pub(super) fn with_will(mut connect: Connect, topic: &str, delay: u32) -> Connect {
    connect.will = Some(Box::new(Will {
        topic: topic.into(),
        payload: Bytes::from_static(b"gone"),
        qos: 1,
        retain: false,
        delay,
        message_expiry: None,
        properties: None,
    }));
    connect
}

#[test]
fn a_will_fires_when_the_connection_ends_and_not_after_a_normal_disconnect() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conn = rig.connect(&alice, with_will(clean(V5, "c"), "iot/alice/gone", 0));
    rig.packet(
        conn,
        Incoming::Disconnect {
            reason: 0,
            session_expiry: None,
        },
    );
    assert!(rig.published.is_empty());
    let conn = rig.connect(&alice, with_will(clean(V5, "c"), "iot/alice/gone", 0));
    rig.packet(
        conn,
        Incoming::Disconnect {
            reason: 4,
            session_expiry: None,
        },
    );
    assert_eq!(rig.published.len(), 1);
    let conn = rig.connect(&alice, with_will(clean(V5, "c"), "iot/alice/gone", 0));
    rig.vanish(conn);
    assert_eq!(rig.published.len(), 2);
    assert_eq!(&*rig.published[1].topic, "iot/alice/gone");
    assert_eq!(
        (rig.store.rows_of_table(202), rig.store.rows_of_table(203)),
        (0, 0),
        "nothing of them is left"
    );
}

#[test]
fn a_will_that_the_acl_does_not_allow_refuses_the_connect() {
    let mut rig = Rig::new();
    let alice = user("alice");
    for topic in ["iot/bob/gone", "me/inbox", "c/x/send", "p/me/phone"] {
        let conn = rig.connect(&alice, with_will(clean(V5, "c"), topic, 0));
        assert!(
            matches!(&rig.out(conn)[..], [Outgoing::Connack(c)] if c.reason == 0x87),
            "{topic}"
        );
        assert!(rig.is_closed(conn));
    }
}

#[test]
fn a_delayed_will_is_void_if_the_client_returns_and_fires_if_it_does_not() {
    let mut rig = Rig::new();
    let alice = user("alice");
    rig.pass(31_000);
    let conn = rig.connect(&alice, with_will(persistent(V5, "c"), "iot/alice/gone", 60));
    rig.vanish(conn);
    rig.pass(30_000);
    let conn = rig.connect(&alice, with_will(persistent(V5, "c"), "iot/alice/gone", 60));
    rig.pass(100_000);
    assert!(rig.published.is_empty());
    rig.vanish(conn);
    rig.pass(30_000);
    assert!(!rig.users.is_loaded(alice.user), "waiting costs no memory");
    rig.pass(32_000);
    assert_eq!(rig.published.len(), 1);
}

#[test]
fn after_a_crash_a_will_waits_thirty_seconds_for_the_client_and_then_fires() {
    let mut rig = Rig::new();
    let (alice, bob) = (user("alice"), user("bob"));
    rig.connect(&alice, with_will(persistent(V5, "c"), "iot/alice/gone", 0));
    rig.connect(&bob, with_will(clean(V5, "c"), "iot/bob/gone", 0));
    rig.crash();
    rig.pass(20_000);
    assert!(rig.published.is_empty());
    rig.connect(&alice, persistent(V5, "c"));
    rig.pass(40_000);
    let topics: Vec<_> = rig
        .published
        .iter()
        .map(|publish| publish.topic.to_string())
        .collect();
    assert_eq!(topics, ["iot/bob/gone"], "alice returned, bob did not");
    rig.pass(120_000);
    assert_eq!(rig.published.len(), 1);
}

#[test]
fn a_take_over_fires_the_will_of_the_first_connection() {
    let mut rig = Rig::new();
    let alice = user("alice");
    rig.connect(&alice, with_will(persistent(V5, "c"), "iot/alice/gone", 0));
    rig.connect(&alice, with_will(persistent(V5, "c"), "iot/alice/gone", 30));
    assert_eq!(rig.published.len(), 1);
    rig.connect(&alice, persistent(V5, "c"));
    rig.pass(90_000);
    assert_eq!(
        rig.published.len(),
        1,
        "a delayed one is void when the session goes on"
    );
}

#[test]
fn a_session_ends_when_its_time_is_over_and_not_while_it_is_connected() {
    let mut rig = Rig::new();
    let alice = user("alice");
    rig.pass(31_000);
    let mut connect = persistent(V5, "c");
    connect.session_expiry = 100;
    let conn = rig.connect(&alice, connect.clone());
    rig.subscribe(conn, "iot/alice/t", 1);
    rig.pass(500_000);
    assert!(!rig.is_closed(conn));
    rig.vanish(conn);
    rig.pass(90_000);
    assert_eq!(rig.routes(), 1);
    rig.pass(115_000);
    assert_eq!(rig.routes(), 0, "its route went with it");
    assert_eq!(
        (rig.store.rows_of_table(202), rig.store.rows_of_table(203)),
        (0, 0)
    );
    let conn = rig.connect(&alice, connect);
    assert!(matches!(&rig.out(conn)[..], [Outgoing::Connack(c)] if !c.session_present));
}

#[test]
fn a_session_that_was_connected_at_a_crash_expires_its_time_after_the_restart() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let mut connect = persistent(V5, "c");
    connect.session_expiry = 100;
    let conn = rig.connect(&alice, connect);
    rig.subscribe(conn, "iot/alice/t", 1);
    rig.crash();
    rig.pass(120_000);
    assert_eq!(rig.routes(), 1);
    rig.pass(120_000);
    assert_eq!(rig.routes(), 0);
}

#[test]
fn a_longer_expiry_than_allowed_is_told() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let mut connect = persistent(V5, "c");
    connect.session_expiry = u32::MAX;
    let conn = rig.connect(&alice, connect);
    let out = rig.out(conn);
    assert!(
        matches!(&out[..], [Outgoing::Connack(c)] if c.session_expiry == Some(90 * 24 * 3_600)),
        "{out:?}"
    );
}

#[test]
fn an_offline_user_leaves_memory_and_what_it_was_owed_stays() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    rig.subscribe(sub, "iot/alice/t", 1);
    let publisher = rig.connect(&alice, clean(V5, "p"));
    for id in 1..=5 {
        rig.packet(publisher, publish("iot/alice/t", "x", 1, id));
    }
    let got = rig.publishes(sub);
    rig.packet(sub, Incoming::Puback(got[0].packet_id, 0));
    rig.vanish(sub);
    rig.vanish(publisher);
    rig.pass(9_000);
    assert!(rig.users.is_loaded(alice.user));
    rig.pass(5_000);
    assert!(!rig.users.is_loaded(alice.user));
    let sub = rig.connect(&alice, persistent(V5, "sub"));
    let again = rig.publishes(sub);
    assert_eq!(again.len(), 4);
    assert!(again.iter().all(|publish| publish.dup));
    assert_eq!(again[0].packet_id, got[1].packet_id);
}

#[test]
fn the_sixty_fifth_session_is_refused() {
    let mut rig = Rig::new();
    let alice = user("alice");
    for n in 0..64 {
        rig.connect(&alice, persistent(V5, &format!("c{n}")));
    }
    let conn = rig.connect(&alice, persistent(V5, "one more"));
    assert!(matches!(&rig.out(conn)[..], [Outgoing::Connack(c)] if c.reason == 0x97));
    let conn = rig.connect(&alice, persistent(V5, "c3"));
    assert!(matches!(&rig.out(conn)[..], [Outgoing::Connack(c)] if c.reason == 0));
}

#[test]
fn a_user_whose_shard_is_given_up_is_dropped_with_its_connections() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conn = rig.connect(&alice, persistent(V5, "c"));
    let shard = Key::User(alice.user).shard();
    rig.users.given_up(&mut rig.wire, &[shard].into());
    assert!(rig.is_closed(conn) && !rig.users.is_loaded(alice.user));
}

#[test]
fn a_shutdown_keeps_sessions_and_wills_for_the_next_start() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let conn = rig.connect(&alice, with_will(persistent(V5, "c"), "iot/alice/gone", 0));
    rig.shut_down(conn);
    assert!(rig.published.is_empty() && rig.users.quiet());
    rig.crash();
    rig.pass(35_000);
    assert_eq!(rig.published.len(), 1, "the client did not return");
}

#[test]
fn an_idle_live_session_is_small() {
    use std::mem::size_of;

    use super::super::home::Home;
    use super::super::inbox::Inbox;
    use super::super::session::{Live, Session, Subscription};

    let home = size_of::<Home>() + size_of::<Session>() + size_of::<Live>();
    let all = home + size_of::<Inbox>() + size_of::<Subscription>();
    println!(
        "home {} session {} live {}",
        size_of::<Home>(),
        size_of::<Session>(),
        size_of::<Live>()
    );
    println!(
        "inbox {} subscription {}",
        size_of::<Inbox>(),
        size_of::<Subscription>()
    );
    // 2 KB together with the connection's own state and the maps that lead here.
    assert!(all <= 1_000, "{all} bytes");
}

#[test]
fn mailbox_entries_over_their_time_go_and_a_session_that_did_not_have_them_is_told_of_the_gap() {
    const DAY: u64 = 24 * 3_600 * 1_000;
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
    let b = rig.connect(&bob, persistent(V5, "b"));
    rig.subscribe(b, "me/inbox/json", 1);
    rig.vanish(b);
    send(&mut rig, 1);
    assert_eq!(rig.store.log_len(200, bob.user.0), 1);
    rig.harness.advance(60 * DAY);
    send(&mut rig, 2);
    assert_eq!(rig.store.log_len(200, bob.user.0), 2);
    rig.harness.advance(31 * DAY);
    send(&mut rig, 3);
    assert_eq!(
        rig.store.log_len(200, bob.user.0),
        2,
        "the first is over its 90 days"
    );
    rig.crash();
    let mut connect = persistent(V5, "b");
    connect.session_expiry = u32::MAX;
    let b = rig.connect(&bob, connect.clone());
    rig.subscribe(b, "me/inbox/json", 1);
    rig.vanish(b);
    rig.harness.advance(10 * DAY);
    send(&mut rig, 4);
    rig.harness.advance(80 * DAY);
    rig.connect(&bob, connect.clone());
    rig.harness.advance(11 * DAY);
    rig.crash();
    send(&mut rig, 5);
    assert_eq!(rig.store.log_len(200, bob.user.0), 1);
    let b = rig.connect(&bob, connect);
    let got: Vec<_> = rig.publishes(b).iter().map(text).collect();
    assert!(got[0].contains("\"gap\""), "{got:?}");
    assert!(got.last().unwrap().contains("\"content\":\"5\""), "{got:?}");
}

#[test]
fn a_stop_does_not_wait_for_wills_in_line_and_the_next_start_publishes_them() {
    const MANY: usize = 100;
    let mut rig = Rig::new();
    let users: Vec<_> = (0..MANY).map(|n| user(&format!("u{n}"))).collect();
    let connect = |rig: &mut Rig, n: usize| {
        rig.connect(
            &users[n],
            with_will(persistent(V5, "c"), &format!("iot/u{n}/gone"), 0),
        )
    };
    let conns: Vec<_> = (0..MANY).map(|n| connect(&mut rig, n)).collect();
    rig.deaf = true;
    for conn in &conns[1..] {
        rig.vanish(*conn);
    }
    // Those that are on their way are published, nobody else.
    rig.shut_down(conns[0]);
    rig.deaf = false;
    rig.run();
    let mut published: Vec<_> = rig.published.iter().map(|one| one.topic.clone()).collect();
    assert!(published.len() < MANY * 3 / 4, "{}", published.len());
    assert!(rig.users.quiet(), "nothing keeps the process");

    rig.crash();
    rig.pass(10_000);
    // The last one was in line; that its client returns does not take back what was due.
    rig.connect(&users[MANY - 1], persistent(V5, "c"));
    rig.connect(&users[0], persistent(V5, "c"));
    rig.pass(60_000);
    published.extend(rig.published.iter().map(|one| one.topic.clone()));
    published.sort_unstable();
    let mut wanted: Vec<_> = (1..MANY).map(|n| format!("iot/u{n}/gone")).collect();
    wanted.sort_unstable();
    assert_eq!(published.iter().map(|topic| &**topic).collect::<Vec<_>>(), wanted);
}
