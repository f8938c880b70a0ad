//! The grammar of topics against its table, and the matcher and the granting rule against each other.

#![allow(clippy::unwrap_used)] // a test may
use godwit_wire::code::Code;
use godwit_wire::ids::{ConversationId, Key};
use godwit_wire::limits::{SHARE_NAME_BYTES, TOPIC_BYTES, TOPIC_LEVELS};
use godwit_wire::topic::{
    ConversationName, Encoding, FilterTopic, PublishTopic, TopicRefusal, classify_filter, classify_publish,
    covers, expand_acl, filter_key, is_filter, is_reserved_first_level, is_user_name, matches,
};
use proptest::prelude::*;

const ID: &str = "0198c7a2-7d4e-7c1a-9b3f-2f6d1e0a5b01";

fn id() -> ConversationName<'static> {
    ConversationName::Id(ID.parse::<ConversationId>().unwrap())
}

#[test]
fn a_message_and_a_read_mark_are_published_in_the_forms_of_the_table_and_no_others() {
    let with = ConversationName::With("bob");
    for (topic, meaning) in [
        ("c/ID/send", PublishTopic::Send(id(), Encoding::Proto)),
        ("c/ID/send/json", PublishTopic::Send(id(), Encoding::Json)),
        ("c/ID/send/text", PublishTopic::Send(id(), Encoding::Text)),
        ("c/@bob/send/text", PublishTopic::Send(with, Encoding::Text)),
        ("c/ID/read", PublishTopic::Read(id(), Encoding::Proto)),
        ("c/@bob/read/json", PublishTopic::Read(with, Encoding::Json)),
    ] {
        assert_eq!(classify_publish(&topic.replace("ID", ID)), Ok(meaning), "{topic}");
    }
    for topic in [
        "c",
        "c/",
        "c/ID",
        "c/ID/",
        "c/ID/send/",
        "c/ID/send/xml",
        "c/ID/send/json/x",
        "c/ID/read/text",
        "c/+/send",
        "c/#",
        "c/@me/send",
        "c/@Bob/send",
        "c/@/send",
        "c//send",
        "c/x/send",
        "c/ID/log",
        "c/ID/typing/x",
        "me",
        "me/inbox",
        "me/live",
        "me/send",
        "u/x",
        "u/ID/inbox",
        "p",
        "p/ID",
        "p/me",
        "p/me/",
        "p/me/+",
        "p/me/a/b",
        "$SYS/x",
        "$",
        "$share/g/a",
        "c/ID/send/json/a/b/c/d/e",
    ] {
        assert_eq!(
            classify_publish(&topic.replace("ID", ID)),
            Err(TopicRefusal::NotFound),
            "{topic}"
        );
    }
    assert_eq!(
        classify_publish(&format!("c/{}/send", ID.to_uppercase())),
        Err(TopicRefusal::NotFound)
    );
}

#[test]
fn forms_that_come_later_are_told_apart_and_get_the_same_code() {
    for topic in [
        "c/ID/react",
        "c/ID/react/json",
        "c/@bob/typing",
        "c/ID/typing",
        "p/me/phone",
    ] {
        assert_eq!(
            classify_publish(&topic.replace("ID", ID)),
            Err(TopicRefusal::NotYet),
            "{topic}"
        );
    }
    for filter in [
        "me/live",
        "me/live/json",
        "c/ID/typing/+",
        "c/@bob/typing/+",
        "c/ID/log",
        "c/ID/log/json",
        "p/ID",
        "p/bob",
    ] {
        assert_eq!(
            classify_filter(&filter.replace("ID", ID)),
            Err(TopicRefusal::NotYet),
            "{filter}"
        );
    }
    assert_eq!(TopicRefusal::NotYet.code(), Code::NotFound);
    assert_eq!(TopicRefusal::NotFound.code().puback(), 0x87);
    assert_eq!(TopicRefusal::Form.code().puback(), 0x90);
}

#[test]
fn the_inbox_is_subscribed_in_three_encodings_and_nothing_else_of_the_reserved_levels_is() {
    for (filter, encoding) in [
        ("me/inbox", Encoding::Proto),
        ("me/inbox/json", Encoding::Json),
        ("me/inbox/text", Encoding::Text),
    ] {
        assert_eq!(classify_filter(filter), Ok(FilterTopic::Inbox(encoding)));
    }
    for filter in [
        "me",
        "me/#",
        "me/+",
        "me/inbox/#",
        "me/inbox/+",
        "me/inbox/",
        "me/inbox/xml",
        "me/inbox/json/x",
        "u/#",
        "u/ID/inbox",
        "u/+/inbox",
        "c/#",
        "c/+/log",
        "c/+/typing/+",
        "c/ID/#",
        "c/ID/typing/x",
        "c/ID/send",
        "p/#",
        "p/+",
        "p/",
        "p",
        "$SYS/#",
        "$share/g/me/inbox",
        "$share/g/c/#",
        "$share/g/$share/h/a",
        "$share/g/$SYS/#",
        "$queue/x",
    ] {
        assert_eq!(
            classify_filter(&filter.replace("ID", ID)),
            Err(TopicRefusal::NotFound),
            "{filter}"
        );
    }
}

#[test]
fn a_shared_filter_has_a_name_without_wildcards_and_lives_where_its_inner_filter_does() {
    for inner in ["a", "#", "+/x", "a/b/#", "/", " "] {
        let filter = format!("$share/g h/{inner}");
        assert_eq!(classify_filter(&filter), Ok(FilterTopic::Shared(inner)));
        assert_eq!(filter_key(&filter), filter_key(inner));
    }
    for filter in [
        "$share",
        "$share/",
        "$share/g",
        "$share/g/",
        "$share//a",
        "$share/+/a",
        "$share/a#/a",
        "$share/g/a/#/b",
        "$share/g/a+",
    ] {
        assert_eq!(classify_filter(filter), Err(TopicRefusal::Form), "{filter}");
    }
    let name = |bytes| format!("$share/{}/a", "n".repeat(bytes));
    assert_eq!(
        classify_filter(&name(SHARE_NAME_BYTES)),
        Ok(FilterTopic::Shared("a"))
    );
    assert_eq!(
        classify_filter(&name(SHARE_NAME_BYTES + 1)),
        Err(TopicRefusal::Form)
    );
    let longest = format!("$share/g/{}", "a".repeat(TOPIC_BYTES));
    assert!(classify_filter(&longest).is_ok() && classify_filter(&format!("{longest}a")).is_err());
}

#[test]
fn ordinary_names_are_held_to_their_limits_and_only_they_get_topic_form() {
    for topic in [
        "a",
        "/",
        "a/b/c",
        "iot/alice/t",
        "cc/x",
        "me2/x",
        "café",
        " ",
        "M/e",
        "pu/x",
    ] {
        assert_eq!(classify_publish(topic), Ok(PublishTopic::Ordinary(topic)));
        assert_eq!(classify_filter(topic), Ok(FilterTopic::Ordinary(topic)));
    }
    for filter in ["#", "+", "+/+", "a/#", "/#", "+/inbox", "a/+/b", "//"] {
        assert_eq!(classify_filter(filter), Ok(FilterTopic::Ordinary(filter)));
    }
    let deepest = vec!["a"; TOPIC_LEVELS].join("/");
    let longest = "a".repeat(TOPIC_BYTES);
    assert!(classify_publish(&deepest).is_ok() && classify_filter(&deepest).is_ok());
    assert!(classify_publish(&longest).is_ok() && classify_filter(&longest).is_ok());
    for bad in [
        "",
        "a\0b",
        "a/#/b",
        "a#",
        "a+/b",
        "#/a",
        "+a",
        &format!("{deepest}/a"),
        &format!("{longest}a"),
    ] {
        assert_eq!(classify_publish(bad), Err(TopicRefusal::Form), "{bad:.20}");
        assert_eq!(classify_filter(bad), Err(TopicRefusal::Form), "{bad:.20}");
    }
    for bad in ["a/+", "#", "+"] {
        assert_eq!(classify_publish(bad), Err(TopicRefusal::Form));
    }
    for long in [
        format!("c/{longest}/send"),
        format!("$SYS/{deepest}"),
        "c/a\0/send".into(),
        "me/#/x".into(),
    ] {
        assert_eq!(classify_publish(&long), Err(TopicRefusal::NotFound));
        assert_eq!(classify_filter(&long), Err(TopicRefusal::NotFound));
    }
}

#[test]
fn user_names_have_their_form_and_are_neither_me_nor_an_id() {
    for name in ["al", "0a", "a.b_c-d", "a-", "mee", &"z".repeat(32), "c0ffee"] {
        assert!(is_user_name(name), "{name}");
    }
    let simple = ID.replace('-', "");
    for name in [
        "",
        "a",
        "me",
        ".a",
        "-a",
        "_a",
        "Al",
        "a b",
        "a/b",
        "é1",
        "a+",
        ID,
        &simple,
        &"z".repeat(33),
        "a\0",
    ] {
        assert!(!is_user_name(name), "{name}");
    }
}

#[test]
fn matching_follows_the_examples_of_the_specification() {
    for (filter, topic) in [
        ("sport/tennis/player1/#", "sport/tennis/player1"),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking"),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"),
        ("sport/#", "sport"),
        ("sport/tennis/+", "sport/tennis/player1"),
        ("sport/+", "sport/"),
        ("+/+", "/finance"),
        ("/+", "/finance"),
        ("#", "a"),
        ("#", "/"),
        ("+/monitor/Clients", "x/monitor/Clients"),
        ("$SYS/#", "$SYS/"),
        ("$SYS/monitor/+", "$SYS/monitor/Clients"),
        ("c/#", "c"),
    ] {
        assert!(matches(filter, topic), "{filter} {topic}");
    }
    for (filter, topic) in [
        ("sport/tennis/+", "sport/tennis/player1/ranking"),
        ("sport/+", "sport"),
        ("+", "/finance"),
        ("#", "$SYS/x"),
        ("+/monitor/Clients", "$SYS/monitor/Clients"),
        ("#", "c/x/send"),
        ("+/x", "me/x"),
        ("+", "p"),
        ("+/#", "u/x"),
        ("ACCOUNTS", "Accounts"),
        ("/finance", "finance"),
        ("a/b", "a"),
        ("a", "a/b"),
        ("a/+/#", "a"),
    ] {
        assert!(!matches(filter, topic), "{filter} {topic}");
    }
}

#[test]
fn a_filter_is_covered_only_by_one_that_matches_all_it_can() {
    for (allow, filter) in [
        ("#", "#"),
        ("#", "a/+"),
        ("+/#", "#"),
        ("#", "+/#"),
        ("a/#", "a"),
        ("a/#", "a/+/#"),
        ("a/+", "a/b"),
        ("a/+", "a/+"),
        ("iot/alice/#", "iot/alice/x/#"),
        ("$SYS/#", "$SYS/x"),
        ("c/#", "c/+"),
        ("+", "a"),
        ("/+/#", "/#"),
        ("+/+/#", "/#"),
    ] {
        assert!(covers(allow, filter), "{allow} {filter}");
    }
    for (allow, filter) in [
        ("a/#", "#"),
        ("a/+", "a/#"),
        ("a/+/#", "a/#"),
        ("/+", "/#"),
        ("/+/+/#", "/#"),
        ("+", "#"),
        ("+/+/#", "#"),
        ("#", "$SYS/x"),
        ("+/x", "c/x"),
        ("#", "me/#"),
        ("a/b", "a/+"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("iot/alice/#", "iot/+/x"),
        ("a", "+"),
    ] {
        assert!(!covers(allow, filter), "{allow} {filter}");
    }
}

#[test]
fn the_key_of_a_filter_is_that_of_every_topic_it_matches() {
    for filter in ["#", "+", "+/b/c", "foo/#", "foo/+", "foo/+/x", "/+", "/#"] {
        assert_eq!(filter_key(filter), Key::Wildcards, "{filter}");
    }
    assert_eq!(filter_key("a/b/#"), Key::Topic("a/b".into()));
    assert_eq!(filter_key("a/b/+/c"), Key::Topic("a/b".into()));
    assert_eq!(filter_key("a"), Key::Topic("a".into()));
}

#[test]
fn acl_patterns_are_filled_in_once_and_values_cannot_widen_them() {
    assert_eq!(
        expand_acl("iot/%u/#", "alice", "x").as_deref(),
        Some("iot/alice/#")
    );
    assert_eq!(expand_acl("%c/%u/%c", "a", "b").as_deref(), Some("b/a/b"));
    assert_eq!(expand_acl("d/%c", "a", "%u").as_deref(), Some("d/%u"));
    assert_eq!(expand_acl("100%/%x%", "a", "b").as_deref(), Some("100%/%x%"));
    assert_eq!(expand_acl("iot/%u", "alice", "a/b").as_deref(), Some("iot/alice"));
    for value in ["", "#", "+", "a/b", "/", "a\0", "a+"] {
        assert_eq!(expand_acl("dev/%c/#", "alice", value), None, "{value}");
        assert_eq!(expand_acl("dev/%u/#", value, "x"), None, "{value}");
    }
}

/// Levels that differ in every way that matters; `z` is in no filter.
const LEVELS: [&str; 6] = ["a", "b", "", "$s", "c", "z"];

fn filter() -> impl Strategy<Value = String> {
    let level = prop::sample::select(vec!["a", "b", "", "$s", "c", "+", "+"]);
    (prop::collection::vec(level, 0..=3), any::<bool>()).prop_filter_map("empty", |(mut levels, rest)| {
        if rest {
            levels.push("#");
        }
        let filter = levels.join("/");
        is_filter(&filter).then_some(filter)
    })
}

fn topics() -> Vec<String> {
    let mut all: Vec<String> = LEVELS.iter().map(ToString::to_string).collect();
    let mut last = all.clone();
    for _ in 0..3 {
        last = last
            .iter()
            .flat_map(|topic| LEVELS.iter().map(move |level| format!("{topic}/{level}")))
            .collect();
        all.extend_from_slice(&last);
    }
    all.retain(|topic| !topic.is_empty());
    all
}

/// A slow matcher of another build than the one under test.
fn matches_by_recursion(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        ([], []) | (["#"], _) => true,
        (["+", filter @ ..], [_, topic @ ..]) => matches_by_recursion(filter, topic),
        ([a, filter @ ..], [b, topic @ ..]) => a == b && matches_by_recursion(filter, topic),
        _ => false,
    }
}

proptest! {
    #[test]
    fn covering_is_exactly_matching_every_topic_the_other_matches(allow in filter(), filter in filter()) {
        let all = topics();
        let counter = all.iter().find(|topic| matches(&filter, topic) && !matches(&allow, topic));
        prop_assert_eq!(covers(&allow, &filter), counter.is_none(), "{} {} {:?}", allow, filter, counter);
    }

    #[test]
    fn every_topic_that_a_filter_matches_lives_at_the_filters_key(filter in filter()) {
        for topic in topics().iter().filter(|topic| matches(&filter, topic)) {
            let key = filter_key(&filter);
            prop_assert!(key == Key::Wildcards || key == Key::of_topic(topic), "{} {}", filter, topic);
        }
    }

    #[test]
    fn the_matcher_agrees_with_a_recursive_one(filter in filter()) {
        let levels: Vec<_> = filter.split('/').collect();
        for topic in topics() {
            let names: Vec<_> = topic.split('/').collect();
            let hidden = matches!(levels[0], "+" | "#") && is_reserved_first_level(&topic);
            let expected = !hidden && matches_by_recursion(&levels, &names);
            prop_assert_eq!(matches(&filter, &topic), expected, "{} {}", filter, topic);
        }
    }

    #[test]
    fn no_text_makes_the_grammar_panic(text in "\\PC{0,40}", reserved in "(c|p|u|me|\\$share|\\$)/.{0,40}") {
        for text in [text, reserved] {
            let _ = (classify_publish(&text), classify_filter(&text), filter_key(&text), is_user_name(&text));
            let _ = (matches(&text, &text), covers(&text, &text), expand_acl(&text, &text, &text));
        }
    }
}
