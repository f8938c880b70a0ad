//! Search through a real index: only what the asking user may read, with the message as its conversation's home shows it.

#![allow(clippy::unwrap_used)]

mod api;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::{Site, Someone, now};
use godwit_history_api::{Config, Rate, Register, SearchIndex};
use godwit_search::{Feed, FeedConfig, Index, IndexDoc, Source, SourceError, SourcePage, Tail, Which};
use godwit_wire::ids::{ConversationId, Key};
use serde_json::{Value, json};
use uuid::Uuid;

/// What the test lets the index read.
#[derive(Clone, Default)]
struct Docs(Arc<Mutex<BTreeMap<(Uuid, u64), IndexDoc>>>);

impl Source for Docs {
    fn read(&self, conversation: Uuid, after: u64, _: u64, limit: usize) -> Result<SourcePage, SourceError> {
        let all = self.0.lock().unwrap();
        let range = all.range((conversation, after + 1)..=(conversation, u64::MAX));
        let docs: Vec<IndexDoc> = range.take(limit).map(|(_, doc)| doc.clone()).collect();
        let read_up_to = docs.last().map_or(after, |doc| doc.sequence_number);
        Ok(SourcePage { docs, read_up_to })
    }
    fn open_tails(&self, _: Which<'_>, _: Option<Tail>, _: usize) -> Result<Vec<Tail>, SourceError> {
        Ok(Vec::new())
    }
    fn conversations(&self, _: Which<'_>, _: Option<Tail>, _: usize) -> Result<Vec<Tail>, SourceError> {
        Ok(Vec::new())
    }
}

/// The shard of a conversation.
fn shard(conversation: Uuid) -> u32 {
    u32::from(Key::Conversation(ConversationId(conversation)).shard())
}

struct Searching {
    site: Site,
    docs: Docs,
    feed: Option<Feed>,
    _folder: tempfile::TempDir,
}

impl Searching {
    fn open() -> Self {
        Self::of(None)
    }

    /// Of a node that is one of several, with the index of these shards.
    fn divided(shards: &[u32]) -> Self {
        Self::of(Some(shards))
    }

    fn of(shards: Option<&[u32]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let index = Index::open(folder.path().join("index")).unwrap();
        if shards.is_some() {
            index.divide(4096);
        }
        let docs = Docs::default();
        let mut config = FeedConfig::new(|| now() as i64);
        config.commit_interval = Duration::from_millis(20);
        let feed = Feed::start(index.clone(), docs.clone(), config).unwrap();
        feed.notifier().hold(shards.unwrap_or_default());
        let config = Config {
            registration: Register::Open,
            per_user: Rate::NONE,
            ..Config::default()
        };
        let site = Site::with(config, Some(SearchIndex::new(index)), None);
        Self {
            site,
            docs,
            feed: Some(feed),
            _folder: folder,
        }
    }

    /// Sends a message and lets the index read it, as `indexed` if that is given.
    fn say(&self, by: &Someone, conversation: &str, text: &str, indexed: Option<&str>) -> Value {
        let path = format!("/api/v1/conversations/{conversation}/messages");
        let sent = self
            .site
            .post(&path, &by.token, json!({"content": text}))
            .expect(201);
        let id = |field: &str| sent[field].as_str().unwrap().parse::<Uuid>().unwrap();
        let sequence_number = sent["sequence_number"].as_u64().unwrap();
        let doc = IndexDoc {
            conversation: id("conversation_id"),
            sequence_number,
            shard: shard(id("conversation_id")),
            message_id: id("message_id"),
            sender: id("sender_id"),
            created_at_ms: now() as i64,
            text: indexed.unwrap_or(text).into(),
        };
        self.docs
            .0
            .lock()
            .unwrap()
            .insert((doc.conversation, sequence_number), doc.clone());
        self.feed
            .as_ref()
            .unwrap()
            .notifier()
            .notify(doc.conversation, doc.shard, sequence_number);
        sent
    }

    /// The contents found, once there are `count` of them (or 10 s have passed).
    fn find(&self, by: &Someone, path: &str, count: usize) -> Vec<String> {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let answer = self.site.get(path, &by.token).expect(200);
            let results = answer["results"].as_array().unwrap();
            if results.len() >= count || Instant::now() > until {
                return results
                    .iter()
                    .map(|found| found["message"]["content"].as_str().unwrap().to_owned())
                    .collect();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Searching {
    fn drop(&mut self) {
        if let Some(feed) = self.feed.take() {
            feed.stop();
        }
    }
}

#[test]
fn words_are_found_in_my_conversations_and_nowhere_else() {
    let searching = Searching::open();
    let site = &searching.site;
    let (alice, bob, eve) = (site.someone("alice"), site.someone("bob"), site.someone("eve"));
    let (ours, theirs) = (site.direct(&alice, &bob), site.direct(&alice, &eve));
    let first = searching.say(&alice, &ours, "the quick brown fox", None);
    searching.say(&bob, &ours, "a lazy dog", None);
    searching.say(&eve, &theirs, "the quick red fox", None);
    assert_eq!(searching.find(&alice, "/api/v1/search?query=fox", 2).len(), 2);
    assert_eq!(
        searching.find(&bob, "/api/v1/search?query=fox", 1),
        ["the quick brown fox"]
    );
    assert_eq!(
        searching.find(&eve, "/api/v1/search?query=fox", 1),
        ["the quick red fox"]
    );
    let of_eve = format!("/api/v1/search?query=fox&sender={}", eve.id);
    assert_eq!(searching.find(&alice, &of_eve, 1), ["the quick red fox"]);
    let here = format!("/api/v1/conversations/{ours}/search?query=fox");
    assert_eq!(searching.find(&bob, &here, 1), ["the quick brown fox"]);
    assert_eq!(site.get(&here, &eve.token).problem(404), "not_found");
    assert!(
        searching
            .find(&bob, "/api/v1/search?query=fox&before=2020-01-01", 0)
            .is_empty()
    );
    assert_eq!(
        searching
            .find(&bob, "/api/v1/search?query=fox&after=2020-01-01", 1)
            .len(),
        1
    );

    let answer = site.get(&here, &bob.token).expect(200);
    assert_eq!(answer["results"][0]["message"], first, "field for field");
    assert_eq!(answer["results"][0]["snippet"], "the quick brown fox");
    assert_eq!(answer["results"][0]["ranges"], json!([[16, 19]]));
    assert!(answer["indexed_up_to"].is_string());
}

#[test]
fn what_was_said_before_the_joining_is_not_found_and_the_index_is_not_believed() {
    let searching = Searching::open();
    let site = &searching.site;
    let (alice, carol) = (site.someone("alice"), site.someone("carol"));
    let made = site
        .post("/api/v1/groups", &alice.token, json!({"name": "g"}))
        .expect(201);
    let group = made["conversation_id"].as_str().unwrap().to_owned();
    searching.say(&alice, &group, "secret plan", None);
    let members = format!("/api/v1/groups/{group}/members");
    site.post(&members, &alice.token, json!({"user_id": carol.id}))
        .expect(201);
    searching.say(&alice, &group, "public plan", None);
    searching.say(&alice, &group, "as stored", Some("as indexed: plan"));
    assert_eq!(
        searching.find(&alice, "/api/v1/search?query=plan", 3),
        ["as stored", "public plan", "secret plan"]
    );
    assert_eq!(
        searching.find(&carol, "/api/v1/search?query=plan", 2),
        ["as stored", "public plan"]
    );
    site.delete(&format!("{members}/{}", carol.id), &alice.token)
        .expect(204);
    assert!(searching.find(&carol, "/api/v1/search?query=plan", 0).is_empty());
}

#[test]
fn results_come_in_pages_and_wrong_questions_are_refused() {
    let searching = Searching::open();
    let site = &searching.site;
    let (alice, bob) = (site.someone("alice"), site.someone("bob"));
    let conversation = site.direct(&alice, &bob);
    for n in 0..5 {
        searching.say(&alice, &conversation, &format!("word {n}"), None);
    }
    assert_eq!(searching.find(&bob, "/api/v1/search?query=word", 5).len(), 5);
    let mut seen = Vec::new();
    let mut path = "/api/v1/search?query=word&limit=2".to_owned();
    loop {
        let page = site.get(&path, &bob.token).expect(200);
        let contents = page["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|found| found["message"]["content"].clone());
        seen.extend(contents);
        match page["next"].as_str() {
            Some(next) => path = format!("/api/v1/search?query=word&limit=2&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["word 4", "word 3", "word 2", "word 1", "word 0"]);
    for bad in [
        "limit=0",
        "limit=101",
        "cursor=x",
        "sender=x",
        "after=yesterday",
        &format!("query={}", "x".repeat(600)),
    ] {
        assert_eq!(
            site.get(&format!("/api/v1/search?{bad}"), &bob.token)
                .problem(400),
            "malformed",
            "{bad}"
        );
    }
    let carol = site.someone("carol");
    let silent = site.direct(&alice, &carol);
    let empty = site.get(
        &format!("/api/v1/conversations/{silent}/search?query=x"),
        &carol.token,
    );
    assert_eq!(empty.expect(200)["results"], json!([]));
    let without = Site::open();
    let alice = without.someone("alice");
    assert_eq!(
        without.get("/api/v1/search?query=x", &alice.token).problem(503),
        "unavailable"
    );
}

#[test]
fn that_something_matches_which_i_may_not_read_is_told_by_no_next_page() {
    let searching = Searching::open();
    let site = &searching.site;
    let (alice, carol) = (site.someone("alice"), site.someone("carol"));
    let made = site
        .post("/api/v1/groups", &alice.token, json!({"name": "g"}))
        .expect(201);
    let group = made["conversation_id"].as_str().unwrap().to_owned();
    // More than one page of what only alice may read, then one word for both, older ones in another conversation.
    let ours = site.direct(&alice, &carol);
    searching.say(&alice, &ours, "plan zero", None);
    for n in 0..5 {
        searching.say(&alice, &group, &format!("secret plan {n}"), None);
    }
    site.post(
        &format!("/api/v1/groups/{group}/members"),
        &alice.token,
        json!({"user_id": carol.id}),
    )
    .expect(201);
    searching.say(&alice, &group, "public plan", None);
    assert_eq!(searching.find(&alice, "/api/v1/search?query=plan", 7).len(), 7);
    let page = |path: &str| site.get(path, &carol.token).expect(200);
    let first = page("/api/v1/search?query=plan&limit=1");
    assert_eq!(first["results"][0]["message"]["content"], "public plan");
    let next = first["next"].as_str().expect("one more may be read");
    let second = page(&format!("/api/v1/search?query=plan&limit=1&cursor={next}"));
    assert_eq!(second["results"][0]["message"]["content"], "plan zero");
    assert!(second["next"].is_null(), "{second}");
    let here = page(&format!(
        "/api/v1/conversations/{group}/search?query=plan&limit=1"
    ));
    assert_eq!(here["results"].as_array().unwrap().len(), 1);
    assert!(here["next"].is_null(), "{here}");
    let nothing = page("/api/v1/search?query=secret");
    assert_eq!(
        (&nothing["results"], nothing["next"].is_null()),
        (&json!([]), true)
    );
}

#[test]
fn an_answer_says_that_it_is_partial_where_the_index_is_not_whole() {
    let searching = Searching::open();
    let (alice, bob) = (searching.site.someone("alice"), searching.site.someone("bob"));
    let ours = searching.site.direct(&alice, &bob);
    searching.say(&alice, &ours, "the fox", None);
    assert_eq!(searching.find(&alice, "/api/v1/search?query=fox", 1).len(), 1);
    let whole = searching
        .site
        .get("/api/v1/search?query=fox", &alice.token)
        .expect(200);
    assert_eq!(
        (&whole["partial"], whole["indexed_up_to"].is_string()),
        (&json!(false), true)
    );

    // The index of all shards is elsewhere, or nowhere: nobody says where.
    let searching = Searching::divided(&[]);
    let (alice, bob) = (searching.site.someone("alice"), searching.site.someone("bob"));
    let ours = searching.site.direct(&alice, &bob);
    searching.say(&alice, &ours, "the fox", None);
    for path in [
        "/api/v1/search?query=fox".to_owned(),
        format!("/api/v1/conversations/{ours}/search?query=fox"),
    ] {
        let partial = searching.site.get(&path, &alice.token).expect(200);
        assert_eq!(partial["results"], json!([]));
        assert_eq!(
            (&partial["partial"], partial["indexed_up_to"].is_null()),
            (&json!(true), true)
        );
    }
    // Its shard comes.
    let notifier = searching.feed.as_ref().unwrap().notifier();
    notifier.hold(&[shard(ours.parse().unwrap())]);
    searching.say(&alice, &ours, "another fox", None);
    assert_eq!(searching.find(&alice, "/api/v1/search?query=fox", 2).len(), 2);
    let whole = searching
        .site
        .get("/api/v1/search?query=fox", &alice.token)
        .expect(200);
    assert_eq!(whole["partial"], json!(false));
}
