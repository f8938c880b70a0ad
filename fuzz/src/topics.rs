//! Topic names and filters: the tree against a list and a matcher that knows nothing of it, the grammar against one
//! written out here, and what is granted against what can be matched.

use std::collections::BTreeMap;

use godwit_broker::TopicTree;
use godwit_wire::command::Route;
use godwit_wire::ids::{Key, SessionId, UserId};
use godwit_wire::limits::{TOPIC_BYTES, TOPIC_LEVELS};
use godwit_wire::topic::{
    self, FilterTopic, PublishTopic, classify_filter, classify_publish, covers, expand_acl, filter_key,
};
use uuid::Uuid;

/// Lines looked at of an input.
const LINES: usize = 48;
/// Names and filters that are compared each with each.
const COMPARED: usize = 12;

/// Lines: the first byte says what is done, the rest is the name or filter. `@DHL` subscribe as one of four sessions,
/// `AEIM` unsubscribe, all others are names that are matched.
pub fn topics(bytes: &[u8]) {
    let lines = bytes.split(|byte| *byte == b'\n').take(LINES);
    let lines: Vec<(u8, String)> = lines
        .filter_map(|line| line.split_first())
        .map(|(first, text)| (*first, String::from_utf8_lossy(text).into_owned()))
        .collect();
    let mut tree = TopicTree::default();
    let mut naive: BTreeMap<(u8, &str), u64> = BTreeMap::new();
    let (mut names, mut filters): (Vec<String>, Vec<&str>) = (Vec::new(), Vec::new());
    for (number, (first, text)) in (0_u64..).zip(&lines) {
        grammar(text);
        let (session, text) = (first >> 2 & 3, text.as_str());
        // A shared filter's key is that of the filter inside.
        if topic::is_filter(text) && !text.starts_with("$share/") && filters.len() < COMPARED {
            filters.push(text);
        }
        if topic::is_topic_name(text) && names.len() < COMPARED {
            names.push(text.into());
        }
        match first & 3 {
            0 if topic::is_filter(text) => {
                let old = tree.insert(route(session, text, number)).map(|old| old.route_id);
                assert_eq!(old, naive.insert((session, text), number), "what is replaced");
            }
            1 => {
                let old = tree
                    .remove(session_id(session), text, None)
                    .map(|old| old.route_id);
                assert_eq!(old, naive.remove(&(session, text)), "what is removed");
            }
            _ if topic::is_topic_name(text) => same(&tree, &naive, text),
            _ => {}
        }
        assert_eq!(tree.len(), naive.len());
    }
    names.extend(filters.iter().map(|filter| example(filter)));
    for name in names.iter().filter(|name| topic::is_topic_name(name)) {
        same(&tree, &naive, name);
        granted(&filters, name);
    }
    for window in lines.windows(3) {
        let [(_, pattern), (_, user), (_, client)] = window else {
            continue;
        };
        acl(pattern, user, client);
    }
    for ((session, filter), number) in &naive {
        assert!(
            tree.get(session_id(*session), filter)
                .is_some_and(|route| route.route_id == *number)
        );
        assert!(
            tree.remove(session_id(*session), filter, Some(number + 1))
                .is_none()
        );
        assert!(tree.remove(session_id(*session), filter, Some(*number)).is_some());
    }
    assert!(
        tree.is_empty() && tree.iter().next().is_none(),
        "nothing is left of what is gone"
    );
}

fn session_id(session: u8) -> SessionId {
    SessionId(Uuid::from_u128(u128::from(session)))
}

fn route(session: u8, filter: &str, route_id: u64) -> Route {
    Route {
        user: UserId(Uuid::nil()),
        session: session_id(session),
        route_id,
        filter: filter.into(),
        persistent: true,
        qos: 1,
        no_local: false,
        retain_as_published: false,
        subscription_id: None,
    }
}

fn same(tree: &TopicTree, naive: &BTreeMap<(u8, &str), u64>, name: &str) {
    let mut found = Vec::new();
    tree.matching(name, &mut |route| found.push(route.route_id));
    found.sort_unstable();
    let of_list = naive
        .iter()
        .filter(|((_, filter), _)| naively_matches(filter, name));
    let mut expected: Vec<u64> = of_list.map(|(_, number)| *number).collect();
    expected.sort_unstable();
    assert_eq!(found, expected, "the tree matches {name:?} as a list does");
}

/// MQTT 5, 4.7, and the reserved first levels.
fn naively_matches(filter: &str, name: &str) -> bool {
    fn levels(filter: &[&str], name: &[&str]) -> bool {
        match (filter.split_first(), name.split_first()) {
            (Some((&"#", [])), _) => true,
            (Some((&"+", filter)), Some((_, name))) => levels(filter, name),
            (Some((one, filter)), Some((other, name))) => one == other && levels(filter, name),
            (None, None) => true,
            _ => false,
        }
    }
    let (filter, name): (Vec<&str>, Vec<&str>) = (filter.split('/').collect(), name.split('/').collect());
    let hidden = naively_reserved(name[0]) && matches!(filter[0], "+" | "#");
    !hidden && levels(&filter, &name)
}

fn naively_reserved(level: &str) -> bool {
    matches!(level, "c" | "p" | "u" | "me") || level.starts_with('$')
}

/// What the grammar says of some text agrees with the same written out.
fn grammar(text: &str) {
    let levels: Vec<&str> = text.split('/').collect();
    let fits = !text.is_empty() && text.len() <= TOPIC_BYTES && levels.len() <= TOPIC_LEVELS;
    let fits = fits && !text.contains('\0');
    let is_name = fits && !text.contains(['+', '#']);
    let in_place = |(at, level): (usize, &&str)| match *level {
        "+" => true,
        "#" => at + 1 == levels.len(),
        other => !other.contains(['+', '#']),
    };
    let is_filter = fits && levels.iter().enumerate().all(in_place);
    assert_eq!(topic::is_topic_name(text), is_name, "a topic name: {text:?}");
    assert_eq!(topic::is_filter(text), is_filter, "a filter: {text:?}");
    let reserved = naively_reserved(levels[0]);
    assert_eq!(topic::is_reserved_first_level(text), reserved);
    match classify_publish(text) {
        Ok(PublishTopic::Ordinary(ordinary)) => assert!(ordinary == text && is_name && !reserved),
        Ok(PublishTopic::Send(..) | PublishTopic::Read(..)) => {
            assert!(levels[0] == "c" && (3..=4).contains(&levels.len()));
        }
        Err(_) => assert!(reserved || !is_name, "an ordinary name is refused: {text:?}"),
    }
    match classify_filter(text) {
        Ok(FilterTopic::Ordinary(ordinary)) => assert!(ordinary == text && is_filter && !reserved),
        Ok(FilterTopic::Inbox(_)) => assert!(levels[..2] == ["me", "inbox"] && levels.len() <= 3),
        Ok(FilterTopic::Shared(inner)) => {
            assert!(levels[0] == "$share" && levels[2..].join("/") == inner && !naively_reserved(levels[2]));
        }
        Err(_) => assert!(reserved || !is_filter, "an ordinary filter is refused: {text:?}"),
    }
}

/// A name that the filter should match.
fn example(filter: &str) -> String {
    filter.replace('+', "x").replace('#', "y/z")
}

/// SCOPE: what is granted lets nothing through that the rule does not; and a route is found under its key.
fn granted(filters: &[&str], name: &str) {
    for filter in filters.iter().filter(|filter| topic::matches(filter, name)) {
        match filter_key(filter) {
            Key::Wildcards => assert!(filter.split('/').take(2).any(|level| matches!(level, "+" | "#"))),
            key => assert_eq!(key, Key::of_topic(name), "{filter:?} {name:?}"),
        }
        for allow in filters.iter().filter(|allow| covers(allow, filter)) {
            assert!(
                topic::matches(allow, name),
                "{allow:?} grants {filter:?}, which matches {name:?}"
            );
        }
    }
}

/// What is filled into a rule never changes its levels and wildcards.
fn acl(pattern: &str, user: &str, client: &str) {
    let count = |text: &str| {
        let of = |wanted| text.bytes().filter(|byte| *byte == wanted).count();
        [of(b'/'), of(b'+'), of(b'#'), of(0)]
    };
    if let Some(expanded) = expand_acl(pattern, user, client) {
        assert_eq!(
            count(&expanded),
            count(pattern),
            "{pattern:?} with {user:?} and {client:?}"
        );
    }
}
