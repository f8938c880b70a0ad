//! What a crash, a shutdown or damage leaves behind, and what the next start makes of it.

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use godwit_cluster::{Role, RoleId};
use godwit_ingest::{CONVERSATION_LOG, Config};
use godwit_store::blocking::Client;
use godwit_store::embedded::{Embedded, Options};
use godwit_store::{LogId, Op, Outcome, Read, ReadAnswer, Store};
use godwit_wire::code::Code;
use godwit_wire::command::{Answer, ConversationCommand as C, HistoryAt, LoggedEntry};
use godwit_wire::entry::RetryKeys;
use godwit_wire::ids::{ConversationId, MessageId};
use godwit_wire::proto::chat;

use common::steps::{Steps, is_note, is_offer, send, yes};
use common::{Bridge, Shared, named, pair};

fn log(id: ConversationId) -> LogId {
    LogId {
        table: CONVERSATION_LOG,
        id: id.0,
    }
}

/// Writes a row of a conversation's log beside the bridge, which is not running.
fn write_row(folder: &std::path::Path, id: ConversationId, seq: u64, row: Bytes) {
    let store: Arc<dyn Store> = Arc::new(Embedded::open(folder, Options::default()).expect("it opens"));
    let (log, view) = (log(id), store.start_view());
    let client = Client::new(store.clone(), 9);
    let written = client.write(vec![Op::Append { log, view, seq, row }]);
    assert_eq!(written.expect("it writes"), Outcome::Stored);
    store.close().expect("it closes");
}

async fn is_silent<T>(what: impl Future<Output = T>) -> bool {
    tokio::time::timeout(Duration::from_millis(300), what)
        .await
        .is_err()
}

#[tokio::test]
async fn nobody_is_offered_a_message_whose_row_the_busy_store_has_not_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let bridge = Bridge::start(folder.path());
    let (ann, bob, id) = pair();
    bridge
        .send_to(id, &ann, "1", "x", Some(&bob))
        .await
        .expect("sent");
    bridge.gate.busy_for_messages.store(true, Ordering::SeqCst);
    let held = bridge.send(id, &ann, "2", "x");
    assert!(is_silent(held).await);
    assert_eq!(
        bridge.positions(&bob),
        [1],
        "a mailbox must not be ahead of the log"
    );
    bridge.gate.busy_for_messages.store(false, Ordering::SeqCst);
    let again = bridge.send(id, &ann, "2", "x").await.expect("known");
    assert_eq!((again.sequence_number, again.duplicate), (2, true));
    bridge.send(id, &ann, "3", "x").await.expect("sent");
    assert_eq!(bridge.positions(&bob), [1, 2, 3]);
    bridge.stop();
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_never_written_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let bridge = Bridge::start(folder.path());
    let (ann, bob, id) = pair();
    for n in ["1", "2"] {
        bridge.send_to(id, &ann, n, "x", Some(&bob)).await.expect("sent");
    }
    let world = bridge.world.clone();
    bridge.stop();
    let unknown = Bytes::from_static(b"of a later version");
    write_row(folder.path(), id, 3, unknown.clone());
    let bridge = Bridge::start_with(folder.path(), world);
    assert_eq!(bridge.send(id, &ann, "3", "x").await, Err(Code::Unavailable));
    assert_eq!(bridge.texts(id, &bob, HistoryAt::Newest).await.len(), 2);
    let read = Read::Log {
        log: log(id),
        after: 2,
        up_to: 9,
        max_rows: 9,
        max_bytes: 9_999,
    };
    let Some(ReadAnswer::Log { rows, .. }) = bridge.store.read_now(&[read]).expect("it reads").pop() else {
        panic!("not a log")
    };
    assert_eq!(rows.iter().map(|row| &row.row).collect::<Vec<_>>(), [&unknown]);
    bridge.stop();
}

#[tokio::test]
async fn a_repeat_right_after_a_crash_waits_until_the_first_is_fanned_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let bridge = Bridge::start(folder.path());
    let (ann, bob, id) = pair();
    let open = C::OpenDirect {
        by: ann.clone(),
        with: bob.clone(),
    };
    assert!(matches!(bridge.ask(id, open).await, Answer::Conversation(_)));
    bridge.world.lock().expect("whole").silent = Some(bob.user);
    for n in 0..40 {
        let name = n.to_string();
        let held = bridge.send(id, &ann, &name, "x");
        let soon = tokio::time::timeout(Duration::from_millis(20), held);
        assert!(soon.await.is_err());
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    bridge.store.close().expect("closed");
    drop(bridge);
    let silent = Shared::default();
    silent.lock().expect("whole").silent = Some(bob.user);
    let bridge = Bridge::start_with(folder.path(), silent);
    for n in [0, 1, 20, 39] {
        let name = n.to_string();
        assert!(
            is_silent(bridge.send(id, &ann, &name, "x")).await,
            "ACK: bob has no {n}"
        );
    }
    bridge.store.close().expect("closed");
}

#[tokio::test]
async fn times_in_a_conversation_never_run_backwards_over_restarts() {
    let folder = tempfile::tempdir().expect("a folder");
    let bridge = Bridge::start(folder.path());
    let (ann, bob, id) = pair();
    let first = bridge
        .send_to(id, &ann, "1", "x", Some(&bob))
        .await
        .expect("sent");
    let world = bridge.world.clone();
    bridge.stop();
    // As a node whose clock was an hour ahead would have written it.
    let ahead = first.created_at + 3_600_000;
    let entry = LoggedEntry::message(chat::Message {
        conversation_id: id.to_bytes(),
        sequence_number: 2,
        message_id: MessageId::fresh().to_bytes(),
        sender_id: ann.user.to_bytes(),
        content: Some(chat::message::Content::Text("x".into())),
        created_at: ahead,
        ..chat::Message::default()
    });
    let row = entry.expect("whole").to_stored(&RetryKeys::default());
    write_row(folder.path(), id, 2, row);
    for n in 3..=5 {
        let bridge = Bridge::start_with(folder.path(), world.clone());
        let sent = bridge.send(id, &ann, &n.to_string(), "x").await.expect("sent");
        assert!(sent.sequence_number == n && sent.created_at >= ahead, "{sent:?}");
        bridge.stop();
    }
}

#[test]
fn a_shutdown_leaves_what_is_in_flight_in_the_list_of_open_tails() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut steps = Steps::new(folder.path(), Config::default());
    let (ann, bob, id) = pair();
    let mut first = steps.call(id, send(&ann, "1", Some(&bob)));
    assert!(matches!(steps.answered(&mut first), Answer::Sent(_)));
    drop(steps.call(id, send(&ann, "2", None)));
    let ingest = &mut steps.ingest;
    steps.harness.with(RoleId::Ingest, |cx| ingest.shut_down(cx));
    std::thread::sleep(Duration::from_millis(100));
    steps.turn();
    assert!(!steps.ingest.quiet() && steps.is_listed(id));
}

#[test]
fn a_tail_that_was_closed_before_the_start_came_to_it_is_listed_again_by_the_next_send() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ann, bob, id) = pair();
    let mut before = Steps::new(folder.path(), Config::default());
    let mut first = before.call(id, send(&ann, "1", Some(&bob)));
    assert!(matches!(before.answered(&mut first), Answer::Sent(_)));
    drop(before);
    let mut steps = Steps::new(folder.path(), Config::default());
    // The lists are read, but a busy start comes to this conversation late; somebody wrote there meanwhile.
    steps.hold_reads = true;
    steps.turn();
    let lists = std::mem::take(&mut steps.held_reads);
    steps.hold_reads = false;
    let mut second = steps.call(id, send(&ann, "2", None));
    assert!(matches!(steps.answered(&mut second), Answer::Sent(_)));
    // Quiet for long enough to be closed, not to be dropped.
    steps.rest(6);
    assert!(!steps.is_listed(id));
    let mut get = steps.call(id, C::Get { by: ann.user });
    steps.answered(&mut get);
    for list in lists {
        steps.complete(list);
    }
    steps.turn();
    let _third = steps.call(id, send(&ann, "3", None));
    steps.until_alone("a stored row", |steps| steps.is_listed(id));
}

#[test]
fn a_conversation_that_the_index_reached_late_leaves_the_list_all_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config {
        confirmed: Some(Arc::new(|_, _, _| {})),
        ..Config::default()
    };
    let mut steps = Steps::new(folder.path(), config);
    let (ann, bob, id) = pair();
    let mut first = steps.call(id, send(&ann, "1", Some(&bob)));
    assert!(matches!(steps.answered(&mut first), Answer::Sent(_)));
    steps.rest(20);
    assert!(steps.is_listed(id), "it is not indexed");
    drop(steps.call(id, C::Indexed { up_to: 1 }));
    steps.rest(20);
    assert!(!steps.is_listed(id));
}

#[test]
fn what_was_stored_but_not_announced_is_announced_by_the_next_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ann, bob, id) = pair();
    let mut before = Steps::new(folder.path(), Config::default());
    drop(before.call(id, send(&ann, "1", Some(&bob))));
    let mut refused = 0;
    before.until_alone("an announcement", |steps| {
        steps.answer(|_, command| (!is_note(command)).then(|| yes(command)));
        refused = steps.asked.iter().filter(|(_, c, _)| is_note(c)).count();
        refused == 2
    });
    drop(before);
    let mut steps = Steps::new(folder.path(), Config::default());
    let mut told = Vec::new();
    steps.until_alone("an announcement and what waited behind it", |steps| {
        steps.turn();
        steps.asked.iter().filter(|(_, c, _)| is_note(c)).count() == 2
            && steps.asked.iter().any(|(_, c, _)| is_offer(c))
    });
    steps.answer(|user, command| {
        told.push((user, is_note(command)));
        Some(yes(command))
    });
    for user in [ann.user, bob.user] {
        let of_user: Vec<bool> = told
            .iter()
            .filter(|(to, _)| *to == user)
            .map(|(_, n)| *n)
            .collect();
        assert_eq!(of_user, [true, false], "the conversation first, then its message");
    }
    steps.rest(15);
    assert!(steps.ingest.quiet());
}

#[tokio::test]
async fn the_last_admin_hands_over_before_leaving() {
    let folder = tempfile::tempdir().expect("a folder");
    let bridge = Bridge::start(folder.path());
    let (ann, bob) = (named("ann"), named("bob"));
    let id = ConversationId::fresh();
    let create = C::CreateGroup {
        by: ann.clone(),
        name: "friends".into(),
        description: String::new(),
        members: vec![bob.clone()],
        full_history: true,
    };
    assert!(matches!(bridge.ask(id, create).await, Answer::Conversation(_)));
    let leave = C::RemoveMember {
        by: ann.user,
        user: ann.user,
    };
    assert!(matches!(bridge.ask(id, leave).await, Answer::Done));
    let entries = bridge.texts(id, &bob, HistoryAt::Newest).await;
    // A crash between the two leaves two admins, not none.
    assert_eq!(entries, [(1, "Role".to_owned()), (2, "Left".to_owned())]);
    assert_eq!(bridge.positions(&ann), [1, 2]);
    bridge.stop();
}
