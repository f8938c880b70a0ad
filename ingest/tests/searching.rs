//! What other nodes ask of a node's search index: handed to who has it, answered by that one from any thread, refused where nobody
//! takes it, bounded.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use godwit_cluster::{Cx, Flow, Loading, Reply, Role, Tag, Workers};
use godwit_ingest::{Config, FINDS, Ingest, Replies, Searching};
use godwit_store::embedded::{Embedded, Options};
use godwit_store::{Outcome, ReadAnswer, Store, View};
use godwit_wire::code::Code;
use godwit_wire::command::{Answer, Command, Find, Found, SearchCommand};
use godwit_wire::ids::{Key, UserId};

struct Nothing;

impl Role for Nothing {
    fn apply(&mut self, _: &mut Cx<'_>, _: &Key, _: Command, _: Reply) -> Flow {
        Flow::Taken
    }
    fn loaded(&mut self, _: &mut Cx<'_>, _: &Key, _: Vec<ReadAnswer>) -> Loading {
        Loading::Ready
    }
    fn load_failed(&mut self, _: &mut Cx<'_>, _: &Key) {}
    fn stored(&mut self, _: &mut Cx<'_>, _: Tag, _: Outcome) {}
    fn answered(&mut self, _: &mut Cx<'_>, _: Tag, _: Answer) {}
    fn taken_up(&mut self, _: &mut Cx<'_>, _: &[u16], _: View) {}
    fn given_up(&mut self, _: &mut Cx<'_>, _: &[u16], _: View) {}
}

/// Runs `test` over a worker that hands searches to `searching`.
fn with(searching: Option<Searching>, test: impl AsyncFnOnce(&godwit_cluster::Router)) {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 4 << 20,
        ..Options::default()
    };
    let store: Arc<dyn Store> = Arc::new(Embedded::open(&folder.path().join("s"), options).unwrap());
    let make = move |_: u16| -> [Box<dyn Role>; 3] {
        let config = Config {
            searching: searching.clone(),
            ..Config::default()
        };
        let ingest = Ingest::new(config, Default::default());
        [Box::new(Nothing), Box::new(Nothing), Box::new(ingest)]
    };
    let workers = Workers::start(1, &store, Arc::new(make)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test(workers.router()));
    workers.stop();
}

fn node() -> Key {
    Key::Node(uuid::Uuid::from_u128(1))
}

fn find() -> Command {
    Command::Search(Box::new(SearchCommand::Find(Find {
        by: UserId::fresh(),
        conversations: Vec::new(),
        query: "fox".into(),
        sender: None,
        after_ms: None,
        before_ms: None,
        limit: 1,
        cursor: None,
    })))
}

fn is_unavailable(answer: &Answer) -> bool {
    matches!(answer, Answer::Refused(refusal) if refusal.code == Code::Unavailable)
}

#[test]
fn a_search_is_answered_by_whoever_took_it_and_told_if_nobody_does() {
    with(None, async |router| {
        assert!(is_unavailable(&router.call(node(), find()).await));
    });
    let taking: Searching = Arc::new(|_, replies: Replies| {
        std::thread::spawn(move || {
            replies.answer(Answer::Found(Box::new(Found {
                more: true,
                ..Found::default()
            })));
        });
    });
    with(Some(taking), async |router| {
        for _ in 0..3 {
            let answer = router.call(node(), find()).await;
            assert!(matches!(answer, Answer::Found(found) if found.more));
        }
    });
    let dropping: Searching = Arc::new(|_, _| {});
    with(Some(dropping), async |router| {
        assert!(is_unavailable(&router.call(node(), find()).await));
    });
}

#[test]
fn searches_that_wait_have_a_most_and_those_who_come_later_are_told() {
    let kept: Arc<Mutex<Vec<Replies>>> = Arc::default();
    let keeping: Searching = {
        let kept = kept.clone();
        Arc::new(move |_, replies| kept.lock().unwrap().push(replies))
    };
    with(Some(keeping), async |router| {
        let waiting: Vec<_> = (0..FINDS)
            .map(|_| {
                let router = router.clone();
                tokio::spawn(async move { router.call(node(), find()).await })
            })
            .collect();
        while kept.lock().unwrap().len() < FINDS {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(is_unavailable(&router.call(node(), find()).await));
        for replies in kept.lock().unwrap().drain(..) {
            replies.answer(Answer::Found(Box::default()));
        }
        for one in waiting {
            assert!(matches!(one.await.unwrap(), Answer::Found(_)));
        }
    });
}
