//! Tests of what a search finds: languages, phrases, scope, filters, pages, odd input.

use proptest::prelude::*;

use crate::{
    Error, Index, MAX_SCOPE, Query, Request, SNIPPET_CHARS, Scope, ScopeEntry,
    index::CommitNote,
    snippet,
    testing::{all_of, conversation, doc, found, sender},
    writer::{Removal, Writer},
};

/// An index with these messages as sequence 1, 2, … of conversation 1.
fn index_of(texts: &[&str]) -> (tempfile::TempDir, Index) {
    let folder = tempfile::tempdir().unwrap();
    let index = Index::open(folder.path().join("search")).unwrap();
    let mut writer = Writer::open(&index).unwrap();
    for (at, text) in texts.iter().enumerate() {
        writer.add(&doc(1, at as u64 + 1, text)).unwrap();
    }
    writer.commit(CommitNote::default()).unwrap();
    (folder, index)
}

fn add(index: &Index, docs: &[crate::IndexDoc]) {
    let mut writer = Writer::open(index).unwrap();
    for doc in docs {
        writer.add(doc).unwrap();
    }
    writer.commit(CommitNote::default()).unwrap();
}

#[test]
fn messages_of_every_language_are_found_by_their_words() {
    let texts = [
        "The quick brown fox jumps over the lazy dog",
        "Über den Wölfen fährt die Straßenbahn",
        "我们明天在北京大学图书馆见面",
        "東京タワーへ行きました。とても楽しかったです",
        "내일 학교에서 만나요",
        "ฉันอยากไปเที่ยวเชียงใหม่",
        "great job 👍🏽 see you 🎉",
        "用Rust写的服务器 is really fast です",
        "Привет, ёжик!",
        "مرحبا بكم في المدينة",
        "मुझे हिन्दी पसंद है",
        "ΟΔΥΣΣΕΎΣ",
    ];
    let (_folder, index) = index_of(&texts);
    let cases: &[(&str, &[u64])] = &[
        ("QUICK fox", &[1]),
        ("quick cat", &[]),
        ("über", &[2]),
        ("uber", &[2]),
        ("WOLFEN", &[2]),
        ("strassenbahn", &[2]),
        ("图书馆", &[3]),
        ("北京 图书", &[3]),
        ("京", &[4, 3]),
        ("馆", &[3]),
        ("京北", &[]),
        ("タワー", &[4]),
        ("楽しかった", &[4]),
        ("학교", &[5]),
        ("만나", &[5]),
        ("เชียงใหม่", &[6]),
        ("อยาก", &[6]),
        ("👍", &[7]),
        ("🎉 great", &[7]),
        ("rust", &[8]),
        ("服务器 fast", &[8]),
        ("用rust写", &[8]),
        ("です", &[8, 4]),
        ("ежик", &[9]),
        ("مدينة", &[]),
        ("المدينه", &[]),
        ("المدينة", &[10]),
        ("हिन्दी", &[11]),
        ("οδυσσευς", &[12]),
    ];
    for (query, expected) in cases {
        assert_eq!(found(&index, query, &all_of([1])), *expected, "{query}");
    }
}

#[test]
fn a_phrase_is_found_only_in_its_order() {
    let (_folder, index) = index_of(&[
        "big red house",
        "red big house",
        "house, red and big",
        "a@example.org",
        "example a org",
    ]);
    let scope = all_of([1]);
    assert_eq!(found(&index, "red house", &scope), [3, 2, 1]);
    assert_eq!(found(&index, "\"red house\"", &scope), [1]);
    assert_eq!(found(&index, "“big house” red", &scope), [2]);
    assert_eq!(found(&index, "a@example.org", &scope), [4]);
    assert_eq!(found(&index, "\"house red\" big", &scope), [3]);
}

#[test]
fn a_scope_never_shows_another_conversation_or_an_invisible_position() {
    let (_folder, index) = index_of(&[]);
    let docs: Vec<_> = (1..=20)
        .flat_map(|sequence| (1..=5).map(move |c| doc(c, sequence, "needle hay")))
        .collect();
    add(&index, &docs[..50]);
    add(&index, &docs[50..]);
    let entry = |n, intervals: &[(u64, u64)]| ScopeEntry {
        conversation: conversation(n),
        intervals: intervals.to_vec(),
    };
    let scope = Scope {
        conversations: vec![
            ScopeEntry::from(conversation(1), 15),
            entry(2, &[(3, 4), (9, 9), (4, 5)]),
            entry(3, &[]),
            entry(4, &[(7, 6)]),
            entry(99, &[(0, u64::MAX)]),
        ],
    };
    let expected: Vec<(u128, u64)> = vec![(1, 20), (1, 19), (1, 18), (1, 17), (1, 16), (1, 15)]
        .into_iter()
        .chain([(2, 9), (2, 5), (2, 4), (2, 3)])
        .collect();
    for text in ["needle", "\"needle hay\"", ""] {
        let query = Query::parse(text).unwrap();
        let page = index
            .search(&Request {
                limit: 100,
                ..Request::new(&query, &scope)
            })
            .unwrap();
        let seen: Vec<_> = page
            .hits
            .iter()
            .map(|hit| (hit.conversation, hit.sequence_number))
            .collect();
        let expected: Vec<_> = expected.iter().map(|(c, s)| (conversation(*c), *s)).collect();
        assert_eq!(seen, expected, "{text:?}");
    }
    assert!(found(&index, "needle", &Scope::default()).is_empty());
    let too_many = Scope {
        conversations: vec![ScopeEntry::from(conversation(1), 1); MAX_SCOPE + 1],
    };
    let query = Query::parse("needle").unwrap();
    assert!(matches!(
        index.search(&Request::new(&query, &too_many)),
        Err(Error::ScopeTooLarge)
    ));
}

#[test]
fn sender_and_dates_filter_and_a_blank_query_lists() {
    let (_folder, index) = index_of(&["one", "two", "three", "four"]);
    let scope = all_of([1]);
    let ask = |text: &str, change: &dyn Fn(&mut Request<'_>)| {
        let query = Query::parse(text).unwrap();
        let mut request = Request::new(&query, &scope);
        change(&mut request);
        let hits = index.search(&request).unwrap().hits;
        hits.into_iter()
            .map(|hit| hit.sequence_number)
            .collect::<Vec<_>>()
    };
    assert_eq!(ask("", &|r| r.sender = Some(sender(1))), [3, 1]);
    assert_eq!(ask("three", &|r| r.sender = Some(sender(0))), [0; 0]);
    assert_eq!(ask(" ", &|r| r.after_ms = Some(2_000)), [4, 3, 2]);
    assert_eq!(ask(" ", &|r| r.before_ms = Some(2_000)), [1]);
    assert_eq!(
        ask("two", &|r| (r.after_ms, r.before_ms) = (Some(2_000), Some(2_001))),
        [2]
    );
    assert_eq!(ask("!?", &|_| {}), [0; 0]);
}

#[test]
fn pages_hold_every_message_once_newest_first_over_commits_and_equal_times() {
    let (_folder, index) = index_of(&[]);
    let mut docs: Vec<_> = (1..=40)
        .flat_map(|s| (1..=3).map(move |c| doc(c, s, "page")))
        .collect();
    for doc in &mut docs {
        doc.created_at_ms /= 7_000;
    }
    for part in docs.chunks(17) {
        add(&index, part);
    }
    let (query, scope) = (Query::parse("page").unwrap(), all_of([1, 2, 3]));
    let mut seen = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let request = Request {
            limit: 7,
            cursor: cursor.as_deref(),
            ..Request::new(&query, &scope)
        };
        let page = index.search(&request).unwrap();
        assert!(page.hits.len() == 7 || page.next.is_none());
        seen.extend(
            page.hits
                .iter()
                .map(|h| (h.created_at_ms, h.conversation, h.sequence_number)),
        );
        match page.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    assert_eq!(seen.len(), 120);
    assert!(
        seen.windows(2).all(|pair| pair[0] > pair[1]),
        "ordered and without repeats"
    );
    let request = Request {
        cursor: Some("nonsense"),
        ..Request::new(&query, &scope)
    };
    assert!(matches!(index.search(&request), Err(Error::BadCursor)));
}

#[test]
fn a_search_past_its_deadline_gives_up() {
    let texts = vec!["common"; 500];
    let (_folder, index) = index_of(&texts);
    let (query, scope) = (Query::parse("common").unwrap(), all_of([1]));
    let request = Request {
        deadline: Some(std::time::Instant::now()),
        ..Request::new(&query, &scope)
    };
    assert!(matches!(index.search(&request), Err(Error::TimedOut)));
}

#[test]
fn removed_messages_conversations_and_shards_are_found_no_more() {
    let (_folder, index) = index_of(&["keep", "drop"]);
    add(&index, &[doc(2, 1, "drop"), doc(3, 1, "drop"), doc(7, 1, "drop")]);
    let scope = all_of([1, 2, 3, 7]);
    assert_eq!(found(&index, "drop", &scope).len(), 4);
    let mut writer = Writer::open(&index).unwrap();
    writer.remove(Removal::Message(doc(1, 2, "").message_id));
    writer.remove(Removal::Conversation(conversation(2)));
    // Conversations 3 and 7 are of one shard.
    writer.remove(Removal::Shard(doc(3, 1, "").shard));
    writer.commit(CommitNote::default()).unwrap();
    assert!(found(&index, "drop", &scope).is_empty());
    assert_eq!(found(&index, "keep", &scope), [1]);
    assert_eq!(index.committed_mark(conversation(2)).unwrap(), 0);
    assert_eq!(index.committed_mark(conversation(1)).unwrap(), 1);
}

#[test]
fn the_mark_of_a_conversation_is_its_highest_committed_number() {
    let (_folder, index) = index_of(&[]);
    for round in 0..12 {
        let docs: Vec<_> = (1..=9)
            .flat_map(|s| [doc(1, round * 9 + s, "x"), doc(2, round + 1, "y")])
            .collect();
        add(&index, &docs);
    }
    assert_eq!(index.committed_mark(conversation(1)).unwrap(), 108);
    assert_eq!(index.committed_mark(conversation(2)).unwrap(), 12);
    assert_eq!(index.committed_mark(conversation(3)).unwrap(), 0);
}

fn highlighted(content: &str, query: &str, max: usize) -> (String, Vec<String>) {
    let query = Query::parse(query).unwrap();
    let snippet = snippet(content, &query, max);
    let chars: Vec<char> = snippet.text.chars().collect();
    let marked = snippet
        .ranges
        .iter()
        .map(|[start, end]| chars[*start..*end].iter().collect())
        .collect();
    (snippet.text, marked)
}

#[test]
fn ranges_are_code_points_of_the_snippet() {
    let marked = |content, query| highlighted(content, query, SNIPPET_CHARS).1;
    assert_eq!(
        marked("Über Straße, ÜBER!", "uber strasse"),
        ["Über", "Straße", "ÜBER"]
    );
    assert_eq!(marked("👍🏽 cafe\u{301} 東京タワー", "café"), ["cafe\u{301}"]);
    assert_eq!(marked("我在北京大学", "北京大学"), ["北京大学"]);
    assert_eq!(marked("我在北京大学", "学"), ["学"]);
    assert_eq!(
        marked("big red house; red, big house", "\"red house\""),
        ["red house"]
    );
    assert_eq!(marked("ok 👍🏽👍 ok", "👍"), ["👍🏽👍"]);
    assert_eq!(marked("อยากไปเชียงใหม่", "เชียงใหม่"), ["เชียงใหม่"]);
    assert_eq!(marked("nothing here", "else"), [""; 0]);
    assert_eq!(marked("a\nb\tc", "b"), ["b"]);
}

#[test]
fn a_snippet_is_cut_around_the_place_with_most_of_the_query() {
    let content = format!(
        "{} alpha {} alpha beta {}",
        "x ".repeat(200),
        "y ".repeat(200),
        "z ".repeat(200)
    );
    let (text, marked) = highlighted(&content, "alpha beta", 60);
    assert_eq!(marked, ["alpha", "beta"]);
    assert!(
        text.starts_with('…') && text.ends_with('…') && text.chars().count() <= 62,
        "{text}"
    );
    let (text, marked) = highlighted(&content, "absent", 60);
    assert!(
        text.starts_with("x x") && text.ends_with('…') && marked.is_empty(),
        "{text}"
    );
    let (text, marked) = highlighted(&"漢".repeat(1_000), "漢漢", 50);
    assert_eq!((text.chars().count(), marked.len()), (51, 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_query_or_text_panics_and_ranges_lie_inside(
        text in "(\\PC|[\\x00-\\x20\"'„“漢字かなカﾞ한ไทย\u{301}\u{200d}👍🏽]){0,300}",
        query in "(\\PC|[\\x00-\\x20\"'„“漢字かな한ไทย\u{301}\u{200d}👍]|AND|OR|NOT|text:|\\*|\\(|\\)){0,80}",
        max in 0_usize..200,
    ) {
        let (_folder, index) = index_of(&[&text]);
        if let Ok(parsed) = Query::parse(&query) {
            let scope = all_of([1]);
            index.search(&Request::new(&parsed, &scope)).unwrap();
            let cut = snippet(&text, &parsed, max);
            let length = cut.text.chars().count();
            prop_assert!(length <= max.max(16) + 2);
            let mut end = 0;
            for range in &cut.ranges {
                prop_assert!(range[0] >= end && range[0] < range[1] && range[1] <= length);
                end = range[1];
            }
        }
    }

    #[test]
    fn a_message_is_found_by_each_stretch_of_itself(
        text in "([a-zäöüß]{1,8} |[東京大学図書館]{1,6}|[가나다라]{1,4} |[กขคงจ]{1,5}|👍| ){1,30}",
        from in 0_usize..60,
        length in 1_usize..30,
    ) {
        let part: String = text.chars().skip(from).take(length).collect();
        // A stretch that begins or ends inside a word is no query for that word.
        let whole = crate::text::pieces(&part).iter().all(|piece| piece.kind != crate::text::Kind::Word);
        let parsed = Query::parse(&part).unwrap();
        prop_assume!(whole && !parsed.is_blank());
        let (_folder, index) = index_of(&["other", &text]);
        prop_assert_eq!(found(&index, &part, &all_of([1])), [2]);
        prop_assert!(!snippet(&text, &parsed, 1_000).ranges.is_empty());
    }
}

#[test]
fn queries_of_any_length_are_answered_or_refused() {
    let (_folder, index) = index_of(&["x"]);
    for text in [
        "\"".repeat(500),
        "(((".repeat(100),
        "\u{0}".repeat(512),
        "\u{301}".repeat(512),
        "x".repeat(10_000),
    ] {
        match Query::parse(&text) {
            Ok(query) => {
                index.search(&Request::new(&query, &all_of([1]))).unwrap();
            }
            Err(error) => assert!(matches!(error, Error::QueryTooLong)),
        }
    }
}
