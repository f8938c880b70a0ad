//! What a session's log and a mailbox hold at most, and what a start after a crash reads at most.

use std::sync::Arc;

use bytes::Bytes;
use godwit_store::{Read, ReadAnswer, Store as _};
use godwit_wire::account::Principal;
use godwit_wire::ids::SessionId;

use super::super::config::UsersConfig;
use super::super::session;
use super::clients::*;
use super::rig::*;
use crate::packet::{Incoming, Outgoing, PublishIn, Version};
use crate::wire_trait::ConnId;

const V5: Version = Version::V5;
const KIB: usize = 1024;
const MIB: u64 = 1024 * 1024;

fn set(rig: &mut Rig, change: impl FnOnce(&mut UsersConfig)) {
    let mut config = UsersConfig::default();
    change(&mut config);
    rig.users.common.config = Arc::new(config);
}

fn sized(topic: &str, number: u64, bytes: usize, packet_id: u16) -> Incoming {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(bytes.max(8), b'x');
    Incoming::Publish(Box::new(PublishIn {
        topic: topic.into(),
        topic_alias: None,
        payload: payload.into(),
        qos: 1,
        retain: false,
        dup: false,
        packet_id,
        message_expiry: None,
        properties: None,
    }))
}

fn number(payload: &Bytes) -> u64 {
    u64::from_be_bytes(payload[..8].try_into().unwrap())
}

/// Publishes these numbers, each acknowledged before the next.
fn publish_all(rig: &mut Rig, who: &Principal, numbers: std::ops::RangeInclusive<u64>, bytes: usize) {
    let conn = rig.connect(who, clean(V5, "publisher"));
    for n in numbers {
        rig.packet(conn, sized("iot/alice/t", n, bytes, (n % 60_000) as u16 + 1));
        rig.out(conn);
        assert!(!rig.is_closed(conn));
    }
    rig.vanish(conn);
}

/// A session with a subscription: its connection and its id.
fn subscriber(rig: &mut Rig, who: &Principal) -> (ConnId, SessionId) {
    let conn = rig.connect(who, persistent(V5, "sub"));
    rig.subscribe(conn, "iot/alice/t", 1);
    let sessions = &rig.users.homes[&who.user].sessions;
    let found = sessions.iter().find(|session| &*session.client_id == "sub");
    (conn, found.unwrap().id)
}

fn kept(rig: &Rig, id: SessionId) -> u64 {
    rig.store.log_len(201, id.0) as u64
}

#[test]
fn the_log_of_a_session_that_never_returns_is_bounded_in_entries_and_the_newest_are_kept_in_order() {
    let mut rig = Rig::new();
    let alice = user("alice");
    set(&mut rig, |config| config.session_log_entries = 4_096);
    let (conn, id) = subscriber(&mut rig, &alice);
    rig.vanish(conn);
    publish_all(&mut rig, &alice, 1..=4_000, 8);
    assert_eq!(kept(&rig, id), 4_000);
    publish_all(&mut rig, &alice, 4_001..=12_000, 8);
    let left = kept(&rig, id);
    assert!((3_000..=5_200).contains(&left), "{left}");
    assert_eq!(rig.metrics.over_quota.get(), 12_000 - left);
    rig.crash();
    let conn = rig.connect(&alice, persistent(V5, "sub"));
    let got: Vec<u64> = ack_all(&mut rig, conn)
        .iter()
        .map(|p| number(&p.payload))
        .collect();
    assert_eq!(got, (12_001 - left..=12_000).collect::<Vec<_>>());
}

#[test]
fn the_log_of_a_session_is_bounded_in_bytes_however_often_its_home_leaves_memory_or_crashes() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let quota = |config: &mut UsersConfig| config.session_log_bytes = 8 * MIB;
    set(&mut rig, quota);
    let (conn, id) = subscriber(&mut rig, &alice);
    rig.vanish(conn);
    let most = 10 * MIB / (64 * KIB as u64);
    publish_all(&mut rig, &alice, 1..=125, 64 * KIB);
    assert_eq!(kept(&rig, id), 125);
    publish_all(&mut rig, &alice, 126..=400, 64 * KIB);
    assert!((100..=most).contains(&kept(&rig, id)), "{}", kept(&rig, id));
    for round in 0..60 {
        publish_all(&mut rig, &alice, 401 + round * 5..=405 + round * 5, 64 * KIB);
        rig.pass(25_000);
        assert!(!rig.users.is_loaded(alice.user));
    }
    assert!((100..=most).contains(&kept(&rig, id)), "{}", kept(&rig, id));
    for round in 0..60 {
        publish_all(&mut rig, &alice, 701 + round * 5..=705 + round * 5, 64 * KIB);
        rig.crash();
        set(&mut rig, quota);
    }
    assert!((100..=most).contains(&kept(&rig, id)), "{}", kept(&rig, id));
}

#[test]
fn a_client_that_answers_too_little_is_closed_at_its_quota_and_goes_on_with_what_is_left() {
    let mut rig = Rig::new();
    let alice = user("alice");
    set(&mut rig, |config| config.session_log_entries = 2_048);
    let mut connect = persistent(V5, "sub");
    connect.receive_maximum = 10;
    let conn = rig.connect(&alice, connect);
    rig.subscribe(conn, "iot/alice/t", 1);
    publish_all(&mut rig, &alice, 1..=10_000, 8);
    assert!(rig.is_closed(conn));
    let out = rig.out(conn);
    assert!(matches!(out.last(), Some(Outgoing::Disconnect(0x97, _))));
    let conn = rig.connect(&alice, persistent(V5, "sub"));
    let all: Vec<u64> = ack_all(&mut rig, conn)
        .iter()
        .map(|p| number(&p.payload))
        .collect();
    let skipped = rig.metrics.over_quota.get();
    assert!((6_000..=8_500).contains(&skipped), "{skipped}");
    assert_eq!(all, (skipped + 1..=10_000).collect::<Vec<_>>());
}

#[test]
fn a_session_that_takes_what_it_is_owed_loses_nothing_however_much_that_is() {
    let mut rig = Rig::new();
    let alice = user("alice");
    set(&mut rig, |config| {
        config.session_log_entries = 2_048;
        config.session_log_bytes = 2 * MIB;
    });
    let (sub, id) = subscriber(&mut rig, &alice);
    let publisher = rig.connect(&alice, clean(V5, "publisher"));
    for n in 1..=20_000u64 {
        rig.packet(publisher, sized("iot/alice/t", n, 1_000, (n % 60_000) as u16 + 1));
        rig.out(publisher);
        if n % 7 == 0 {
            ack_all(&mut rig, sub);
        }
        if n % 1_000 == 0 {
            rig.pass(600);
        }
    }
    ack_all(&mut rig, sub);
    rig.pass(600);
    assert_eq!((rig.metrics.over_quota.get(), kept(&rig, id)), (0, 0));
    let session = rig.users.homes[&alice.user]
        .sessions
        .iter()
        .find(|one| one.id == id);
    assert!(!session.unwrap().log.has_slices(), "nor does it cost memory");
}

#[test]
fn after_a_crash_little_is_read_of_a_log_of_large_entries() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let (conn, id) = subscriber(&mut rig, &alice);
    rig.vanish(conn);
    publish_all(&mut rig, &alice, 1..=200, 200 * KIB);
    rig.crash();
    let take_up = Read::TakeUp {
        log: session::log_id(id),
        scope: godwit_store::Scope { shard: 0, view: 2 },
    };
    let answers = rig.store.read_now(&[take_up]).unwrap();
    let [ReadAnswer::TakeUp { rows, .. }] = &answers[..] else {
        panic!("{answers:?}")
    };
    assert!(rows.len() <= 6, "{} of 200 KiB", rows.len());
}

/// Refused sends of a 3.1.1 client, kept in its own mailbox.
fn refused(rig: &mut Rig, who: &Principal, count: u64, bytes: usize) {
    let conn = rig.connect(who, clean(Version::V311, "sender"));
    let topic = format!("c/{}/send/text", uuid::Uuid::now_v7());
    let refusal = godwit_wire::code::Refusal::not_found();
    rig.refuse_sends = Some(refusal);
    for n in 1..=count {
        rig.packet(conn, sized(&topic, n, bytes, (n % 60_000) as u16 + 1));
        assert_eq!(pubacks(rig, conn).len(), 1);
    }
    rig.vanish(conn);
}

fn gap_is_told(rig: &mut Rig, who: &Principal) {
    let conn = rig.connect(who, persistent(V5, "inbox"));
    let got = ack_all(rig, conn);
    assert!(text(&got[0]).contains("\"gap\""), "{}", text(&got[0]));
    assert!(got.len() > 10);
}

#[test]
fn refused_sends_fill_a_mailbox_only_to_its_quota_and_the_gap_is_told() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let quota = |config: &mut UsersConfig| config.mailbox_bytes = 8 * MIB;
    set(&mut rig, quota);
    let inbox = rig.connect(&alice, persistent(V5, "inbox"));
    rig.subscribe(inbox, "me/inbox/json", 1);
    rig.vanish(inbox);
    for _ in 0..40 {
        refused(&mut rig, &alice, 5, 150 * KIB);
        rig.pass(40_000);
        assert!(!rig.users.is_loaded(alice.user));
    }
    let left = rig.store.log_len(200, alice.user.0);
    assert!((30..=70).contains(&left), "{left}");
    refused(&mut rig, &alice, 200, 150 * KIB);
    let left = rig.store.log_len(200, alice.user.0);
    assert!((30..=70).contains(&left), "{left}");
    gap_is_told(&mut rig, &alice);
}

#[test]
fn a_mailbox_holds_no_more_entries_than_its_quota_and_the_gap_is_told() {
    let mut rig = Rig::new();
    let alice = user("alice");
    set(&mut rig, |config| config.mailbox_entries = 3_000);
    let inbox = rig.connect(&alice, persistent(V5, "inbox"));
    rig.subscribe(inbox, "me/inbox/json", 1);
    rig.vanish(inbox);
    refused(&mut rig, &alice, 12_000, 8);
    let left = rig.store.log_len(200, alice.user.0) as u64;
    assert!((2_000..=4_100).contains(&left), "{left}");
    assert_eq!(rig.metrics.over_quota.get(), 12_000 - left);
    gap_is_told(&mut rig, &alice);
}

#[test]
fn a_mailbox_to_which_nobody_comes_and_nothing_goes_loses_what_is_over_its_time() {
    let mut rig = Rig::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let hour = 3_600_000;
    set(&mut rig, |config| config.mailbox_ms = 2 * hour);
    let conversation = rig.make_conversation(&[alice.user, bob.user]);
    let b = rig.connect(&bob, persistent(V5, "b"));
    rig.subscribe(b, "me/inbox", 1);
    rig.vanish(b);
    let a = rig.connect(&alice, clean(V5, "a"));
    for id in 1..=5 {
        rig.packet(a, send(conversation, "hi", id));
    }
    rig.vanish(a);
    let kept = |rig: &Rig| rig.store.log_len(200, bob.user.0);
    rig.pass(hour);
    assert_eq!(rig.users.homes.len(), 0, "nobody is in memory");
    assert_eq!(kept(&rig), 5);
    rig.pass(hour + 120_000);
    assert_eq!(kept(&rig), 0);
}
