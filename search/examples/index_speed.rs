//! Measures the index alone: `cargo run --release -p godwit-search --example index_speed -- [messages] [folder]`.
//! Prints how many messages a second the feed indexes at full speed, what it costs at 2,000 a second, how soon a
//! message is found there, how long opening takes, and what searches cost. Not a benchmark of the product.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use godwit_search::{
    Feed, FeedConfig, Index, IndexDoc, Query, Request, Scope, ScopeEntry, Source, SourceError, SourcePage,
    Tail, Which,
};
use uuid::Uuid;

/// Conversations; messages go round over them.
const CONVERSATIONS: u64 = 10_000;
/// Different words, rank n as frequent as 1/n: 20 of them make a message of about 128 bytes.
const WORDS: u64 = 50_000;
const WORDS_PER_MESSAGE: u64 = 20;
/// The rate that must be findable within 2 s, and for how long it is kept up.
const PACED_RATE: u64 = 2_000;
const PACED_SECONDS: u64 = 20;

/// A log that needs no memory: entry (conversation, sequence) is made up when read.
#[derive(Clone)]
struct MadeUp {
    /// Confirmed entries of every conversation.
    head: Arc<AtomicU64>,
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn id(n: u64) -> Uuid {
    Uuid::from_u128(u128::from(mix(n)) << 64 | u128::from(mix(n ^ 0xC0FFEE)))
}

/// splitmix64.
fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn text(seed: u64) -> String {
    let mut out = String::with_capacity(140);
    for n in 0..WORDS_PER_MESSAGE {
        let uniform = (mix(seed.wrapping_mul(31).wrapping_add(n)) >> 11) as f64 / (1_u64 << 53) as f64;
        let rank = (WORDS as f64).powf(uniform) as u64;
        out.push_str(&format!("w{:x} ", (mix(rank) % 0xFFF_FFFF) >> (4 * (rank % 5))));
    }
    out
}

impl Source for MadeUp {
    fn read(&self, conversation: Uuid, after: u64, _: u64, limit: usize) -> Result<SourcePage, SourceError> {
        let seed = conversation.as_u128() as u64;
        let last = self.head.load(SeqCst).min(after + limit as u64);
        let docs = (after + 1..=last)
            .map(|sequence_number| {
                let seed = mix(seed ^ sequence_number);
                IndexDoc {
                    conversation,
                    sequence_number,
                    shard: (conversation.as_u128() % 4096) as u32,
                    message_id: id(seed),
                    sender: id(seed % 5_000),
                    created_at_ms: now_ms(),
                    text: text(seed),
                }
            })
            .collect();
        Ok(SourcePage {
            docs,
            read_up_to: last.max(after),
        })
    }

    fn open_tails(&self, _: Which<'_>, _: Option<Tail>, _: usize) -> Result<Vec<Tail>, SourceError> {
        Ok(Vec::new())
    }

    fn conversations(
        &self,
        _: Which<'_>,
        after: Option<Tail>,
        limit: usize,
    ) -> Result<Vec<Tail>, SourceError> {
        let from = after.map_or(0, |tail| u64::from(tail.shard) + 1);
        let confirmed_up_to = self.head.load(SeqCst);
        // The list's place is kept in `shard`, which nothing else here reads.
        Ok((from..CONVERSATIONS.min(from + limit as u64))
            .map(|n| Tail {
                conversation: id(n),
                shard: n as u32,
                confirmed_up_to,
            })
            .collect())
    }
}

/// CPU time of this process in seconds, from the kernel's accounting of ticks.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn memory_mb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

fn folder_bytes(path: &Path) -> u64 {
    fs::read_dir(path)
        .unwrap()
        .flatten()
        .map(|entry| entry.metadata().unwrap().len())
        .sum()
}

fn config() -> FeedConfig {
    FeedConfig::new(now_ms)
}

fn main() {
    let mut args = std::env::args().skip(1);
    let messages: u64 = args.next().map_or(1_000_000, |n| n.parse().unwrap());
    let temporary = std::env::temp_dir().join(format!("godwit-index-{}", std::process::id()));
    let folder = args.next().map_or(temporary, Into::into);
    let source = MadeUp {
        head: Arc::new(AtomicU64::new(messages / CONVERSATIONS)),
    };

    let start = Instant::now();
    for n in 0..20_000 {
        std::hint::black_box(text(n));
    }
    println!(
        "making up a message costs the source {:.1} us",
        start.elapsed().as_secs_f64() * 1e6 / 20_000.0
    );

    let index = Index::open(&folder).unwrap();
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let feed = Feed::start(index.clone(), source.clone(), config()).unwrap();
    while !index.is_complete() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let documents = index.documents() as f64;
    println!(
        "full speed: {documents} messages in {wall:.1} s = {:.0}/s; {cpu:.1} CPU s = {:.0}/CPU s; {} MB anonymous; {} segments; {:.0} bytes/message",
        documents / wall,
        documents / cpu,
        memory_mb(),
        index.segments(),
        folder_bytes(&folder) as f64 / documents,
    );

    paced(&index, &feed, &source);
    while index.freshness(now_ms()).lag_ms != Some(0) {
        std::thread::sleep(Duration::from_millis(5));
    }
    // Every conversation got every round's message, none twice.
    assert_eq!(index.documents(), source.head.load(SeqCst) * CONVERSATIONS);
    feed.stop();
    drop(index);
    opening(&folder, &source);
    searches(&Index::open(&folder).unwrap());
    fs::remove_dir_all(&folder).unwrap();
}

/// 2,000 messages a second, one in each of 2,000 conversations; each second one of them is looked for.
fn paced(index: &Index, feed: &Feed, source: &MadeUp) {
    std::thread::sleep(Duration::from_secs(5));
    let notifier = feed.notifier();
    let (start, cpu, before) = (Instant::now(), cpu_seconds(), feed.status());
    let mut found_after = Vec::new();
    let mut first = 0;
    for second in 0..PACED_SECONDS {
        if first == 0 {
            source.head.fetch_add(1, SeqCst);
        }
        let head = source.head.load(SeqCst);
        for part in 0..100 {
            for n in 0..PACED_RATE / 100 {
                let conversation = id(first + part * (PACED_RATE / 100) + n);
                notifier.notify(conversation, (conversation.as_u128() % 4096) as u32, head);
            }
            if part == 50 {
                let sent = Instant::now();
                let probe = id(first + 50 * (PACED_RATE / 100));
                let mut waits = 0;
                while index.indexed_up_to(probe).unwrap() < head {
                    std::thread::sleep(Duration::from_millis(2));
                    waits += 1;
                    assert!(waits < 5_000, "not found within 10 s");
                }
                found_after.push(sent.elapsed());
            }
            let due = Duration::from_millis(second * 1_000 + (part + 1) * 10);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
        first = (first + PACED_RATE) % CONVERSATIONS;
    }
    let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let after = feed.status();
    found_after.sort();
    println!(
        "paced: {:.0} messages/s for {wall:.0} s: {:.1} % of a core, {} commits; findable after {} ms (median), {} ms (worst); {} segments",
        (after.indexed - before.indexed) as f64 / wall,
        100.0 * cpu / wall,
        after.commits - before.commits,
        found_after[found_after.len() / 2].as_millis(),
        found_after[found_after.len() - 1].as_millis(),
        index.segments(),
    );
}

/// Opening, and how long until the feed says that everything is indexed.
fn opening(folder: &Path, source: &MadeUp) {
    let start = Instant::now();
    let index = Index::open(folder).unwrap();
    let opened = start.elapsed();
    let mark = Instant::now();
    for n in 0..1_000 {
        index.indexed_up_to(id(n)).unwrap();
    }
    let marks = mark.elapsed() / 1_000;
    let start = Instant::now();
    let feed = Feed::start(index.clone(), source.clone(), config()).unwrap();
    while index.freshness(now_ms()).lag_ms != Some(0) {
        std::thread::sleep(Duration::from_micros(100));
    }
    println!(
        "opening with {} messages: {:.1} ms; feed current after {:.1} ms more; the mark of a conversation {:.0} us",
        index.documents(),
        opened.as_secs_f64() * 1e3,
        start.elapsed().as_secs_f64() * 1e3,
        marks.as_secs_f64() * 1e6,
    );
    drop(feed);
}

fn searches(index: &Index) {
    let words = text(mix(7) ^ 12_345);
    let (rare, common) = (
        words.split_whitespace().next_back().unwrap_or("w1").to_owned(),
        format!("w{:x}", {
            let rank = 1;
            (mix(rank) % 0xFFF_FFFF) >> (4 * (rank % 5))
        }),
    );
    let one = Scope {
        conversations: vec![ScopeEntry::from(id(17), 1)],
    };
    let many = Scope {
        conversations: (0..200).map(|n| ScopeEntry::from(id(n * 7), 1)).collect(),
    };
    for (name, text, scope) in [
        ("common word, one conversation", common.as_str(), &one),
        ("common word, 200 conversations", &common, &many),
        ("another word, 200 conversations", &rare, &many),
        (
            "phrase of two, 200 conversations",
            &format!("\"{common} {common}\""),
            &many,
        ),
    ] {
        let query = Query::parse(text).unwrap();
        let start = Instant::now();
        let mut hits = 0;
        for _ in 0..20 {
            hits = index.search(&Request::new(&query, scope)).unwrap().hits.len();
        }
        println!(
            "{name}: {:.2} ms ({hits} hits)",
            start.elapsed().as_secs_f64() * 1e3 / 20.0
        );
    }
}
