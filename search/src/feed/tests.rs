//! Tests of the feed: exactly once over deaths, lag told, failures survived, rebuilds.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::{
    FeedState, Index, Removal,
    testing::{EIO, ENOSPC, Faults, Store, all_of, conversation, doc, found, open_failing, wait_for},
};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Every entry of the conversations is found exactly once.
fn assert_exactly_once(index: &Index, conversations: u128, each: usize) {
    for n in 1..=conversations {
        let expected: Vec<u64> = (1..=each as u64).rev().collect();
        let mut seen = Vec::new();
        let query = crate::Query::parse("word").unwrap();
        let scope = all_of([n]);
        let mut cursor = None;
        loop {
            let request = crate::Request {
                limit: 100,
                cursor: cursor.as_deref(),
                ..crate::Request::new(&query, &scope)
            };
            let page = index.search(&request).unwrap();
            seen.extend(page.hits.iter().map(|hit| hit.sequence_number));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, expected, "conversation {n}");
    }
    assert_eq!(index.documents(), conversations as u64 * each as u64);
}

#[test]
fn what_is_notified_is_found_and_reported() {
    let (folder, store) = (folder(), Store::default());
    let index = Index::open(folder.path()).unwrap();
    let feed = store.feed(&index);
    let notifier = feed.notifier();
    for round in 0..50 {
        for n in 1..=4 {
            let tail = store.append(n, &format!("word {round}"));
            notifier.notify(tail.conversation, tail.shard, tail.confirmed_up_to);
        }
    }
    let end = store.append_other(1);
    notifier.notify(end.conversation, end.shard, end.confirmed_up_to);
    wait_for("reports", || {
        store.indexed(1) == 51 && (2..=4).all(|n| store.indexed(n) == 50)
    });
    assert_exactly_once(&index, 4, 50);
    assert_eq!(index.indexed_up_to(conversation(1)).unwrap(), 51);
    wait_for("following", || feed.status().state == FeedState::Following);
    feed.stop();
}

#[test]
fn a_message_sent_to_an_idle_feed_is_found_within_two_seconds() {
    let (folder, store) = (folder(), Store::default());
    let index = Index::open(folder.path()).unwrap();
    let feed = super::Feed::start(index.clone(), store.clone(), super::FeedConfig::new(|| 0)).unwrap();
    wait_for("idle", || index.is_complete());
    std::thread::sleep(Duration::from_millis(300));
    let start = std::time::Instant::now();
    let tail = store.append(1, "word");
    feed.notifier()
        .notify(tail.conversation, tail.shard, tail.confirmed_up_to);
    wait_for("the message", || !found(&index, "word", &all_of([1])).is_empty());
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn a_feed_that_dies_at_any_moment_leaves_each_message_once() {
    let (folder, store) = (folder(), Store::default());
    let mut appended = 0;
    for death in 0..12_u64 {
        let index = Index::open(folder.path()).unwrap();
        let feed = store.feed(&index);
        let notifier = feed.notifier();
        for _ in 0..40 {
            appended += 1;
            for n in 1..=5 {
                let tail = store.append(n, "word");
                notifier.notify(tail.conversation, tail.shard, tail.confirmed_up_to);
            }
        }
        std::thread::sleep(Duration::from_millis(death * 9 % 70));
        // Ends without a commit.
        drop(feed);
    }
    let index = Index::open(folder.path()).unwrap();
    let feed = store.feed(&index);
    wait_for("catching up", || (1..=5).all(|n| store.indexed(n) == appended));
    assert_exactly_once(&index, 5, appended as usize);
    feed.stop();
}

#[test]
fn a_restart_reads_only_what_was_not_indexed() {
    let (folder, store) = (folder(), Store::default());
    for n in 1..=300 {
        for _ in 0..10 {
            store.append(n, "word");
        }
    }
    let index = Index::open(folder.path()).unwrap();
    let feed = store.feed(&index);
    wait_for("the first build", || index.is_complete());
    assert_eq!(store.conversations_listed(), 300);
    feed.stop();
    drop(index);
    store.append(7, "word");
    let (read, listed) = (store.entries_read(), store.conversations_listed());
    let index = Index::open(folder.path()).unwrap();
    assert!(index.is_complete());
    let feed = store.feed(&index);
    wait_for("the one message", || store.indexed(7) == 11);
    assert_eq!(
        (store.entries_read() - read, store.conversations_listed() - listed),
        (1, 1)
    );
    drop(feed);
}

#[test]
fn a_full_queue_forgets_notifications_but_no_message() {
    let (folder, store) = (folder(), Store::default());
    let index = Index::open(folder.path()).unwrap();
    let feed = store.feed_with(&index, 4);
    let notifier = feed.notifier();
    for _ in 0..200 {
        for n in 1..=20 {
            let tail = store.append(n, "word");
            notifier.notify(tail.conversation, tail.shard, tail.confirmed_up_to);
        }
    }
    wait_for("all of it", || (1..=20).all(|n| store.indexed(n) == 200));
    assert!(feed.status().lost_notifications > 0, "the queue was never full");
    assert_exactly_once(&index, 20, 200);
}

#[test]
fn the_index_says_how_far_it_lags() {
    let (folder, store) = (folder(), Store::default());
    let index = Index::open(folder.path()).unwrap();
    assert_eq!(index.freshness(1_000).indexed_up_to_ms, None);
    store.set_now(1_000);
    let feed = store.feed(&index);
    wait_for("nothing to do", || {
        index.freshness(1_000).indexed_up_to_ms == Some(1_000)
    });
    // Idle means current, however late it is.
    store.set_now(9_000);
    wait_for("idle", || index.freshness(9_000).lag_ms == Some(0));
    store.fail(true);
    let tail = store.append(1, "word");
    feed.notifier()
        .notify(tail.conversation, tail.shard, tail.confirmed_up_to);
    wait_for("stale", || matches!(feed.status().state, FeedState::Stale { .. }));
    let stuck = index.freshness(20_000);
    assert!(stuck.indexed_up_to_ms <= Some(9_000), "{stuck:?}");
    assert!(stuck.lag_ms >= Some(11_000), "{stuck:?}");
    store.set_now(20_000);
    store.fail(false);
    wait_for("current again", || index.freshness(20_000).lag_ms == Some(0));
    assert_eq!(found(&index, "word", &all_of([1])), [1]);
    feed.stop();
    // After a restart the claim is the one that was committed, not a later one.
    drop(index);
    let index = Index::open(folder.path()).unwrap();
    let claimed = index.freshness(50_000).indexed_up_to_ms;
    assert!(claimed.is_some() && claimed <= Some(20_000), "{claimed:?}");
}

#[test]
fn a_conversation_that_cannot_be_read_holds_up_no_other_and_is_not_claimed() {
    let (folder, store) = (folder(), Store::default());
    let index = Index::open(folder.path()).unwrap();
    store.set_now(1_000);
    let feed = store.feed(&index);
    let notifier = feed.notifier();
    wait_for("idle", || index.freshness(1_000).lag_ms == Some(0));
    store.fail_one(Some(1));
    let stuck = store.append(1, "word");
    notifier.notify(stuck.conversation, stuck.shard, stuck.confirmed_up_to);
    wait_for("stale", || matches!(feed.status().state, FeedState::Stale { .. }));
    for n in 1..=20_u64 {
        store.set_now(5_000 + n.cast_signed());
        let tail = store.append(2, "word");
        notifier.notify(tail.conversation, tail.shard, tail.confirmed_up_to);
        wait_for("the other", || store.indexed(2) == n);
        assert!(
            index.freshness(9_000).indexed_up_to_ms <= Some(1_000),
            "claims what is not indexed"
        );
    }
    store.fail_one(None);
    wait_for("both", || index.freshness(9_000).lag_ms == Some(0));
    assert_eq!(found(&index, "word", &all_of([1])), [1]);
}

#[test]
fn a_full_or_failing_disk_makes_the_index_stale_and_nothing_is_lost_or_doubled() {
    for (code, steps) in [(ENOSPC, [0, 3, 11, 29]), (EIO, [1, 7, 17, 40])] {
        let (folder, store, faults) = (folder(), Store::default(), Faults::default());
        let index = open_failing(folder.path(), &faults);
        let feed = store.feed(&index);
        let notifier = feed.notifier();
        let mut appended = 0;
        for after in steps {
            let failures = feed.status().failures;
            faults.set(Some(code), after);
            wait_for("a failure", || {
                appended += 1;
                for n in 1..=3 {
                    let tail = store.append(n, "word");
                    notifier.notify(tail.conversation, tail.shard, tail.confirmed_up_to);
                }
                std::thread::sleep(Duration::from_millis(5));
                feed.status().failures > failures
            });
            // Searches go on meanwhile.
            found(&index, "word", &all_of([1]));
            faults.set(None, 0);
            wait_for("recovery", || (1..=3).all(|n| store.indexed(n) == appended));
        }
        assert_exactly_once(&index, 3, appended as usize);
        wait_for("following", || feed.status().state == FeedState::Following);
        feed.stop();
    }
}

#[test]
fn a_folder_of_another_version_or_with_damage_is_rebuilt_from_the_store() {
    let (folder, store) = (folder(), Store::default());
    for _ in 0..300 {
        store.append(1, "word");
        store.append(2, "word");
    }
    let build = |store: &Store| {
        let index = Index::open(folder.path()).unwrap();
        assert!(!index.is_complete());
        let feed = store.feed(&index);
        wait_for("the build", || index.is_complete());
        assert_exactly_once(&index, 2, 300);
        feed.stop();
    };
    build(&store);
    let meta = folder.path().join("meta.json");
    let text = fs::read_to_string(&meta).unwrap();
    fs::write(&meta, text.replace("godwit_text_1", "godwit_text_0")).unwrap();
    build(&store);
    fs::write(&meta, "{ not json").unwrap();
    build(&store);
    for file in fs::read_dir(folder.path()).unwrap().flatten() {
        if file.path().extension().is_some_and(|end| end == "term") {
            fs::write(file.path(), b"damaged").unwrap();
        }
    }
    build(&store);
}

#[test]
fn a_rebuild_while_messages_flow_ends_with_each_message_once() {
    let (folder, store) = (folder(), Store::default());
    let index = Index::open(folder.path()).unwrap();
    let feed = store.feed(&index);
    let notifier = feed.notifier();
    for round in 0..200 {
        for n in 1..=10 {
            let tail = store.append(n, "word");
            notifier.notify(tail.conversation, tail.shard, tail.confirmed_up_to);
        }
        if round % 70 == 30 {
            feed.rebuild();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    wait_for("all of it", || {
        index.is_complete() && (1..=10).all(|n| index.indexed_up_to(conversation(n)).unwrap() == 200)
    });
    assert_exactly_once(&index, 10, 200);
}

#[test]
fn a_removal_is_durable_when_it_says_so() {
    let (folder, store) = (folder(), Store::default());
    for n in 1..=8 {
        for _ in 0..3 {
            store.append(n, "word");
        }
    }
    let index = Index::open(folder.path()).unwrap();
    let feed = store.feed(&index);
    wait_for("the build", || index.is_complete());
    let told = Arc::new(AtomicUsize::new(0));
    let remove = |removal| {
        let told = told.clone();
        feed.remove(removal, move |done| {
            told.fetch_add(if done { 1 } else { 1_000 }, SeqCst);
        })
        .unwrap();
    };
    store.redact(1, 2);
    remove(Removal::Message(doc(1, 2, "").message_id));
    store.delete(2);
    remove(Removal::Conversation(conversation(2)));
    // Shard 3 moves away and comes back.
    remove(Removal::Shard(3));
    wait_for("removals", || told.load(SeqCst) == 3);
    let left: Vec<usize> = (1..=8)
        .map(|n| found(&index, "word", &all_of([n])).len())
        .collect();
    assert_eq!(left, [2, 0, 0, 3, 3, 3, 0, 3]);
    let tail = store.append(3, "word");
    feed.notifier()
        .notify(tail.conversation, tail.shard, tail.confirmed_up_to);
    wait_for("the shard is back", || {
        found(&index, "word", &all_of([3])) == [4, 3, 2, 1]
    });
    drop(feed);
    drop(index);
    let index = Index::open(folder.path()).unwrap();
    assert_eq!(found(&index, "word", &all_of([1])), [3, 1]);
}

#[test]
fn a_second_feed_on_one_folder_is_stale_and_takes_over_when_the_first_ends() {
    let (folder, store) = (folder(), Store::default());
    let first = Index::open(folder.path()).unwrap();
    let feed = store.feed(&first);
    store.append(1, "word");
    let tail = store.append(1, "word");
    feed.notifier()
        .notify(tail.conversation, tail.shard, tail.confirmed_up_to);
    wait_for("the first", || store.indexed(1) == 2);
    let second = Index::open(folder.path()).unwrap();
    let other = Store::default();
    other.append(2, "word");
    let waiting = other.feed(&second);
    wait_for("refused", || {
        matches!(waiting.status().state, FeedState::Stale { .. })
    });
    feed.stop();
    wait_for("taken over", || {
        found(&second, "word", &all_of([1, 2])).len() == 3
    });
}
