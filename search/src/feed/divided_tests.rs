//! Tests of a divided index: shards come and go, what came is completed from where it was, what went is not shown.

use std::time::Duration;

use crate::{
    Index, Standing,
    testing::{Store, all_of, conversation, found, wait_for},
};

/// Conversations 0 to 7, two in each of the four shards, with so many messages each.
fn filled(each: usize) -> Store {
    let store = Store::default();
    for n in 0..8 {
        for _ in 0..each {
            store.append(n, "word");
        }
    }
    store
}

fn divided(folder: &tempfile::TempDir) -> Index {
    let index = Index::open(folder.path()).unwrap();
    index.divide(4);
    index
}

fn wait_whole(index: &Index, shard: u32) {
    wait_for("a whole shard", || index.standing(shard) == Standing::Whole);
}

#[test]
fn only_what_is_held_is_indexed_and_a_shard_is_whole_when_all_of_it_is_found() {
    let (folder, store) = (tempfile::tempdir().unwrap(), filled(300));
    let index = divided(&folder);
    let feed = store.feed(&index);
    let notifier = feed.notifier();
    assert_eq!(index.standing(1), Standing::Away);
    notifier.hold(&[1, 2]);
    wait_whole(&index, 1);
    wait_whole(&index, 2);
    assert_eq!(index.documents(), 4 * 300);
    assert_eq!(index.standing(0), Standing::Away);
    // What others hold is not taken, whoever notifies it.
    for n in [0, 1] {
        let tail = store.append(n, "fresh");
        notifier.notify(tail.conversation, tail.shard, tail.confirmed_up_to);
    }
    wait_for("the fresh one", || found(&index, "fresh", &all_of([1])) == [301]);
    assert!(found(&index, "fresh", &all_of([0])).is_empty());
    wait_for("current", || index.freshness(0).lag_ms == Some(0));
    feed.stop();
}

#[test]
fn a_shard_that_comes_back_is_completed_from_where_it_was() {
    let (folder, store) = (tempfile::tempdir().unwrap(), filled(50));
    let index = divided(&folder);
    let feed = store.feed(&index);
    let notifier = feed.notifier();
    notifier.hold(&[0, 1, 2, 3]);
    (0..4).for_each(|shard| wait_whole(&index, shard));
    notifier.let_go(&[3]);
    assert_eq!(index.standing(3), Standing::Away);
    let unheard = store.append(3, "word");
    notifier.notify(unheard.conversation, unheard.shard, unheard.confirmed_up_to);
    feed.stop();
    drop(index);
    store.append(3, "word");

    // A restart is the same: everything comes back.
    store.forget_ends();
    let index = divided(&folder);
    let feed = store.feed(&index);
    let read = store.entries_read();
    feed.notifier().hold(&[0, 1, 2, 3]);
    (0..4).for_each(|shard| wait_whole(&index, shard));
    assert_eq!(store.entries_read() - read, 2);
    assert_eq!(found(&index, "word", &all_of([3])).len(), 52);
    assert_eq!(index.documents(), 8 * 50 + 2);
    assert_eq!(store.indexed(3), 52, "its home waits to hear of it");
    feed.stop();
}

#[test]
fn nothing_is_reported_of_what_nobody_waits_for() {
    let (folder, store) = (tempfile::tempdir().unwrap(), filled(3));
    let index = divided(&folder);
    let feed = store.feed(&index);
    feed.notifier().hold(&[1]);
    wait_whole(&index, 1);
    // All were open tails when they were found.
    assert_eq!((store.indexed(1), store.indexed(5)), (3, 3));
    feed.stop();
    drop(index);
    std::fs::remove_dir_all(folder.path()).unwrap();
    let index = divided(&folder);
    let quiet = Store::default();
    for n in [1, 5] {
        quiet.append(n, "word");
        quiet.close(n);
    }
    let feed = quiet.feed(&index);
    feed.notifier().hold(&[1]);
    wait_whole(&index, 1);
    assert_eq!(found(&index, "word", &all_of([1, 5])).len(), 2);
    assert_eq!(quiet.reports(), 0);
    feed.stop();
}

#[test]
fn a_conversation_that_cannot_be_read_keeps_its_shard_from_being_whole_and_no_other() {
    let (folder, store) = (tempfile::tempdir().unwrap(), filled(3));
    let index = divided(&folder);
    store.set_now(1_000);
    let feed = store.feed(&index);
    store.fail_one(Some(2));
    feed.notifier().hold(&[1, 2]);
    wait_whole(&index, 1);
    assert_eq!(index.standing(2), Standing::Catching);
    // What is confirmed meanwhile in the others is found, and they are current.
    let tail = store.append(1, "fresh");
    feed.notifier()
        .notify(tail.conversation, tail.shard, tail.confirmed_up_to);
    store.set_now(5_000);
    wait_for("the fresh one", || {
        !found(&index, "fresh", &all_of([1])).is_empty()
    });
    assert_eq!(index.standing(2), Standing::Catching);
    assert_eq!(found(&index, "word", &all_of([6])).len(), 3);
    store.fail_one(None);
    wait_whole(&index, 2);
    assert_eq!(found(&index, "word", &all_of([2])).len(), 3);
}

#[test]
fn lost_notifications_are_found_again_in_the_shards_that_are_held() {
    let (folder, store) = (tempfile::tempdir().unwrap(), filled(1));
    let index = divided(&folder);
    let feed = store.feed_with(&index, 2);
    let notifier = feed.notifier();
    notifier.hold(&[0, 1]);
    wait_whole(&index, 0);
    wait_whole(&index, 1);
    for _ in 0..200 {
        for n in [0, 1, 4, 5] {
            let tail = store.append(n, "word");
            notifier.notify(tail.conversation, tail.shard, tail.confirmed_up_to);
        }
    }
    wait_for("all of it", || {
        [0, 1, 4, 5]
            .iter()
            .all(|n| index.indexed_up_to(conversation(*n)).unwrap() == 201)
    });
    assert!(feed.status().lost_notifications > 0, "the queue was never full");
    assert_eq!(index.documents(), 4 * 201);
}

#[test]
fn what_has_been_away_for_long_is_taken_out_and_read_anew_when_it_is_back() {
    let (folder, store) = (tempfile::tempdir().unwrap(), filled(5));
    let index = divided(&folder);
    let feed = store.feed_keeping(&index, Duration::from_millis(50));
    let notifier = feed.notifier();
    notifier.hold(&[0, 1]);
    wait_whole(&index, 0);
    wait_whole(&index, 1);
    notifier.let_go(&[1]);
    wait_for("room", || index.documents() == 10);
    notifier.hold(&[1]);
    wait_whole(&index, 1);
    assert_eq!(found(&index, "word", &all_of([1, 5])).len(), 10);
    assert_eq!(index.documents(), 20);
    feed.stop();
}

#[test]
fn a_divided_index_that_is_made_anew_gets_what_it_holds() {
    let (folder, store) = (tempfile::tempdir().unwrap(), filled(40));
    let index = divided(&folder);
    let feed = store.feed(&index);
    feed.notifier().hold(&[2]);
    wait_whole(&index, 2);
    feed.rebuild();
    wait_for("the rebuild", || index.standing(2) == Standing::Catching);
    wait_whole(&index, 2);
    assert_eq!(index.documents(), 2 * 40);
    assert!(index.is_complete());
    feed.stop();
}
