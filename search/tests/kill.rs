//! The index over kill -9 of its process: this test starts itself as a child that indexes, kills it at random moments,
//! and then counts. Deaths inside one process are tested beside the code.
#![allow(clippy::unwrap_used)]

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use godwit_search::{
    Feed, FeedConfig, Index, IndexDoc, Query, Request, Scope, ScopeEntry, Source, SourceError, SourcePage,
    Tail, Which,
};
use rand::Rng;
use uuid::Uuid;

const FOLDER: &str = "GODWIT_KILL_TEST_FOLDER";
const CONVERSATIONS: u128 = 40;
const EACH: u64 = 3_000;

/// A log that is always the same.
struct Fixed;

fn tail(n: u128) -> Tail {
    Tail {
        conversation: Uuid::from_u128(n + 1),
        shard: n as u32,
        confirmed_up_to: EACH,
    }
}

impl Source for Fixed {
    fn read(&self, conversation: Uuid, after: u64, _: u64, limit: usize) -> Result<SourcePage, SourceError> {
        let read_up_to = EACH.min(after + limit as u64);
        let docs = (after + 1..=read_up_to)
            .map(|sequence_number| IndexDoc {
                conversation,
                sequence_number,
                shard: 0,
                message_id: Uuid::from_u128(conversation.as_u128() << 64 | u128::from(sequence_number)),
                sender: Uuid::from_u128(7),
                created_at_ms: sequence_number.cast_signed(),
                text: format!("word number {sequence_number}"),
            })
            .collect();
        Ok(SourcePage { docs, read_up_to })
    }

    fn open_tails(
        &self,
        which: Which<'_>,
        after: Option<Tail>,
        limit: usize,
    ) -> Result<Vec<Tail>, SourceError> {
        self.conversations(which, after, limit)
    }

    fn conversations(
        &self,
        _: Which<'_>,
        after: Option<Tail>,
        limit: usize,
    ) -> Result<Vec<Tail>, SourceError> {
        let from = after.map_or(0, |tail| u128::from(tail.shard) + 1);
        Ok((from..CONVERSATIONS).take(limit).map(tail).collect())
    }
}

fn feed(folder: &Path) -> (Index, Feed) {
    let index = Index::open(folder).expect("a killed index opens");
    let mut config = FeedConfig::new(|| 0);
    // Commits as often as it can, so that most kills hit one.
    config.commit_interval = Duration::ZERO;
    let feed = Feed::start(index.clone(), Fixed, config).unwrap();
    (index, feed)
}

/// The child: indexes until it is killed. A plain run of the tests does nothing here.
#[test]
fn child_that_indexes_until_it_is_killed() {
    if let Some(folder) = env::var_os(FOLDER) {
        let _running = feed(Path::new(&folder));
        std::thread::sleep(Duration::from_secs(60));
    }
}

#[test]
fn after_kill_9_at_random_moments_each_message_is_there_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("search");
    let mut deaths_in_between = 0;
    for _ in 0..8 {
        let commits = fs::read(path.join("meta.json")).ok();
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child_that_indexes_until_it_is_killed"])
            .env(FOLDER, &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Dies somewhere behind its first commit, most often in the middle of a later one.
        let start = Instant::now();
        while fs::read(path.join("meta.json")).ok() == commits && start.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_millis(rand::rng().next_u64() % 300));
        child.kill().unwrap();
        child.wait().unwrap();
        let documents = Index::open(&path).unwrap().documents();
        println!("killed at {documents} messages");
        if documents == CONVERSATIONS as u64 * EACH {
            break;
        }
        deaths_in_between += usize::from(documents > 0);
    }
    assert!(
        deaths_in_between > 0,
        "no kill came between the first and the last commit"
    );
    let (index, _feed) = feed(&path);
    let start = Instant::now();
    while !index.is_complete()
        || (0..CONVERSATIONS).any(|n| index.indexed_up_to(tail(n).conversation).unwrap() < EACH)
    {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "the index does not catch up"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(index.documents(), CONVERSATIONS as u64 * EACH);
    for n in 0..CONVERSATIONS {
        let query = Query::parse("word").unwrap();
        let scope = Scope {
            conversations: vec![ScopeEntry::from(tail(n).conversation, 1)],
        };
        let (mut cursor, mut seen) = (None::<String>, Vec::new());
        loop {
            let request = Request {
                limit: 100,
                cursor: cursor.as_deref(),
                ..Request::new(&query, &scope)
            };
            let page = index.search(&request).unwrap();
            seen.extend(page.hits.iter().map(|hit| hit.sequence_number));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, (1..=EACH).rev().collect::<Vec<_>>(), "conversation {n}");
    }
}
