//! Mutations of SUBSCRIBE and UNSUBSCRIBE: other options, other filters, or done later than said.

use super::link::{Link, Order, Turn};
use super::mutation::{Mutation, asked, instead, nothing};
use super::sent::Asked;
use crate::wire::{SUBACK, SUBSCRIBE, UNSUBACK, UNSUBSCRIBE, Value, Version, packet, props};

/// What would answer it.
fn answer(link: &Link, it: &Asked) -> Vec<u8> {
    let subscribe = it.first >> 4 == SUBSCRIBE;
    let mut body = it.pid.to_be_bytes().to_vec();
    body.extend(props(link.version, &[]));
    if subscribe {
        body.extend(it.filters.iter().map(|(_, options)| options & 3));
    } else if link.version == Version::V5 {
        body.extend(it.filters.iter().map(|_| 0));
    }
    packet(if subscribe { 0x90 } else { 0xB0 }, &body)
}

fn read(link: &Link, bytes: &[u8], kind: u8) -> Option<Asked> {
    Asked::of(link.version, bytes).filter(|it| it.first >> 4 == kind && it.first & 15 == 2 && it.pid > 0)
}

/// Answered at once, done after a while.
fn before_it_is_done(kind: u8, name: &str, says: &str) -> Mutation {
    Mutation::new(name, says).on_client(move |link, bytes| {
        if let Some(it) = read(link, bytes, kind) {
            link.order(Order::ToClient(answer(link, &it)));
            link.swallow
                .push((if kind == SUBSCRIBE { SUBACK } else { UNSUBACK }, it.pid));
            link.order(Order::Hold(120));
        }
        Turn::Keep
    })
}

/// Answered, and not done where `which` says so.
fn only_answered(
    kind: u8,
    name: &str,
    says: &str,
    which: impl Fn(&mut Link, &Asked) -> bool + Send + Sync + 'static,
) -> Mutation {
    Mutation::new(name, says).on_client(move |link, bytes| match read(link, bytes, kind) {
        Some(it) if which(link, &it) => {
            link.order(Order::ToClient(answer(link, &it)));
            nothing()
        }
        _ => Turn::Keep,
    })
}

/// The options of filters changed in some way.
fn options(name: &str, says: &str, change: impl Fn(u8) -> u8 + Send + Sync + 'static) -> Mutation {
    asked(SUBSCRIBE, name, says, move |link, it| {
        let mut changed = false;
        for (_, options) in &mut it.filters {
            let to = change(*options);
            changed |= to != *options;
            *options = to;
        }
        changed && link.version == Version::V5
    })
}

/// Filters changed in some way.
fn filters(
    kind: u8,
    name: &str,
    says: &str,
    change: impl Fn(&str) -> String + Send + Sync + 'static,
) -> Mutation {
    asked(kind, name, says, move |_, it| {
        let mut changed = false;
        for (filter, _) in &mut it.filters {
            let Ok(before) = std::str::from_utf8(filter) else {
                return false;
            };
            let to = change(before);
            changed |= to != before;
            *filter = to.into_bytes();
        }
        changed
    })
}

fn subscribes() -> Vec<Mutation> {
    vec![
        before_it_is_done(
            SUBSCRIBE,
            "suback-early",
            "SUBACK comes 120 ms before the subscription is live",
        ),
        only_answered(
            SUBSCRIBE,
            "second-subscribe-ignored",
            "who subscribes to the same filter again changes nothing",
            |link, it| it.filters.iter().all(|(filter, _)| link.filters.contains(filter)),
        ),
        Mutation::new(
            "replaced-with-a-gap",
            "replacing a subscription ends it for 60 ms",
        )
        .on_client(|link, bytes| match read(link, bytes, SUBSCRIBE) {
            Some(it) if it.filters.iter().all(|(filter, _)| link.filters.contains(filter)) => {
                let mut ends = it.clone();
                ends.first = 0xA2;
                ends.pid = 64_999;
                ends.props.clear();
                link.swallow.push((UNSUBACK, 64_999));
                link.order(Order::ToServer(ends.bytes(link.version)));
                link.order(Order::Hold(60));
                Turn::Keep
            }
            _ => Turn::Keep,
        }),
        Mutation::new("subscribed-twice", "a SUBSCRIBE is done twice").on_client(|link, bytes| {
            match read(link, bytes, SUBSCRIBE) {
                Some(mut it) => {
                    it.pid = 64_998;
                    link.swallow.push((SUBACK, 64_998));
                    Turn::Instead(vec![bytes.to_vec(), it.bytes(link.version)])
                }
                None => Turn::Keep,
            }
        }),
        Mutation::new(
            "first-filter-only",
            "only the first filter of a SUBSCRIBE is subscribed to",
        )
        .on_client(|link, bytes| match read(link, bytes, SUBSCRIBE) {
            Some(mut it) if it.filters.len() > 1 => {
                link.order(Order::ToClient(answer(link, &it)));
                link.swallow.push((SUBACK, it.pid));
                it.filters.truncate(1);
                instead(it.bytes(link.version))
            }
            _ => Turn::Keep,
        }),
        options("no-local-ignored", "No Local is ignored", |it| it & !4),
        options("no-local-always", "No Local is always on", |it| it | 4),
        options("as-published-ignored", "Retain As Published is ignored", |it| {
            it & !8
        }),
        options("as-published-always", "Retain As Published is always on", |it| {
            it | 8
        }),
        options("handling-always-0", "Retain Handling is ignored", |it| it & !0x30),
        options("handling-always-1", "Retain Handling is always 1", |it| {
            it & !0x30 | 0x10
        }),
        options("handling-always-2", "Retain Handling is always 2", |it| {
            it & !0x30 | 0x20
        }),
        options("handling-1-is-2", "Retain Handling 1 is taken for 2", |it| {
            if it & 0x30 == 0x10 { it ^ 0x30 } else { it }
        }),
        asked(
            SUBSCRIBE,
            "identifier-ignored",
            "the subscription identifier is ignored",
            |_, it| {
                let before = it.props.len();
                it.props.retain(|(id, _)| *id != 0x0B);
                before != it.props.len()
            },
        ),
        asked(
            SUBSCRIBE,
            "identifier-of-first",
            "a subscription keeps its first identifier",
            |link, it| {
                if it.props.iter().any(|(id, _)| *id == 0x0B) && link.count == 0 {
                    link.count = 1;
                    return false;
                }
                let before = link.count;
                let changed = before > 0;
                if changed {
                    it.props.retain(|(id, _)| *id != 0x0B);
                    it.props.push((0x0B, Value::Var(before)));
                }
                changed
            },
        ),
        asked(
            SUBSCRIBE,
            "subscribed-with-0",
            "every subscription has QoS 0",
            |_, it| {
                let change = it.filters.iter().any(|(_, options)| matches!(options & 3, 1 | 2));
                it.filters.iter_mut().for_each(|(_, options)| *options &= !3);
                change
            },
        ),
        filters(SUBSCRIBE, "parent-not-matched", "a/# does not match a", |it| {
            it.strip_suffix("/#")
                .map_or(it.to_owned(), |it| format!("{it}/+/#"))
        }),
        filters(SUBSCRIBE, "hash-is-plus", "# matches one level", |it| {
            it.strip_suffix("/#")
                .map_or(it.to_owned(), |it| format!("{it}/+"))
        }),
        filters(
            SUBSCRIBE,
            "plus-is-hash",
            "+ at the end matches more than one level",
            |it| {
                it.strip_suffix("/+")
                    .map_or(it.to_owned(), |it| format!("{it}/#"))
            },
        ),
        filters(
            SUBSCRIBE,
            "wildcards-are-letters",
            "+ and # are letters like others",
            |it| {
                if it.len() > 1 {
                    it.replace('+', "p").replace('#', "h")
                } else {
                    it.to_owned()
                }
            },
        ),
        filters(
            SUBSCRIBE,
            "filters-folded",
            "filters match whatever the case",
            |it| it.to_lowercase(),
        ),
        filters(
            SUBSCRIBE,
            "mark-is-nothing",
            "U+FEFF in a filter is nothing",
            |it| it.replace('\u{FEFF}', ""),
        ),
        filters(
            SUBSCRIBE,
            "share-is-plain",
            "a shared filter is a plain one",
            |it| match it.strip_prefix("$share/").and_then(|it| it.split_once('/')) {
                Some((_, rest)) if !rest.is_empty() => rest.to_owned(),
                _ => it.to_owned(),
            },
        ),
        filters(
            SUBSCRIBE,
            "share-mended",
            "a shared filter without a right name is a plain one",
            |it| {
                it.strip_prefix("$share/").map_or(it.to_owned(), |it| {
                    format!("shared/{}", it.replace(['+', '#'], "x"))
                })
            },
        ),
        filters(
            SUBSCRIBE,
            "denied-subscribed",
            "a denied filter is granted",
            |it| {
                it.strip_prefix("denied/")
                    .map_or(it.to_owned(), |it| format!("open/{it}"))
            },
        ),
        filters(
            SUBSCRIBE,
            "misplaced-mended",
            "misplaced wildcards are letters",
            |it| {
                let levels: Vec<&str> = it.split('/').collect();
                let right = levels.iter().enumerate().all(|(at, level)| {
                    let last = at + 1 == levels.len();
                    !level.contains(['+', '#']) || *level == "+" || (*level == "#" && last)
                });
                if right {
                    it.to_owned()
                } else {
                    it.replace(['+', '#'], "x")
                }
            },
        ),
        filters(
            SUBSCRIBE,
            "empty-filter-mended",
            "an empty filter is granted",
            |it| {
                if it.is_empty() {
                    "x".to_owned()
                } else {
                    it.to_owned()
                }
            },
        ),
    ]
}

fn unsubscribes() -> Vec<Mutation> {
    vec![
        before_it_is_done(
            UNSUBSCRIBE,
            "unsuback-early",
            "UNSUBACK comes 120 ms before the subscription has ended",
        ),
        only_answered(
            UNSUBSCRIBE,
            "unsubscribe-ignored",
            "UNSUBSCRIBE does nothing",
            |_, _| true,
        ),
        Mutation::new(
            "first-unsubscribed-only",
            "only the first filter of an UNSUBSCRIBE is ended",
        )
        .on_client(|link, bytes| match read(link, bytes, UNSUBSCRIBE) {
            Some(mut it) if it.filters.len() > 1 => {
                link.order(Order::ToClient(answer(link, &it)));
                link.swallow.push((UNSUBACK, it.pid));
                it.filters.truncate(1);
                instead(it.bytes(link.version))
            }
            _ => Turn::Keep,
        }),
        asked(
            UNSUBSCRIBE,
            "unsubscribe-matches",
            "UNSUBSCRIBE ends what its filter matches",
            |link, it| match (link.filters.first(), it.filters.first_mut()) {
                (Some(there), Some((filter, _))) if filter != there && filter.contains(&b'#') => {
                    *filter = there.clone();
                    true
                }
                _ => false,
            },
        ),
        asked(
            UNSUBSCRIBE,
            "unsubscribe-ends-all",
            "UNSUBSCRIBE ends all subscriptions",
            |link, it| {
                let others: Vec<_> = link
                    .filters
                    .iter()
                    .filter(|known| !it.filters.iter().any(|(filter, _)| filter == *known))
                    .cloned()
                    .collect();
                let change = !others.is_empty() && link.version == Version::V311;
                it.filters.extend(others.into_iter().map(|filter| (filter, 0)));
                change
            },
        ),
        Mutation::new("unsubscribe-forgets", "UNSUBSCRIBE forgets what was begun")
            .on_client(|link, bytes| {
                if bytes.first() == Some(&0xA2) {
                    link.common().seen.insert(b"unsubscribed".to_vec());
                    link.order(Order::Hold(1));
                }
                Turn::Keep
            })
            .on_server(|link, bytes| {
                let forgotten = link.common().seen.contains(&b"unsubscribed"[..]);
                let resent = link.read(bytes).is_some_and(|it| it.kind == 3 && it.dup());
                if forgotten && resent {
                    nothing()
                } else {
                    Turn::Keep
                }
            }),
        Mutation::new(
            "unsubscribe-of-nothing-ends",
            "UNSUBSCRIBE of what is not there ends the connection",
        )
        .on_client(|link, bytes| {
            let known = read(link, bytes, UNSUBSCRIBE)
                .is_none_or(|it| it.filters.iter().any(|(filter, _)| link.filters.contains(filter)));
            if !known {
                link.order(Order::Cut);
            }
            Turn::Keep
        }),
    ]
}

pub(crate) fn list() -> Vec<Mutation> {
    [subscribes(), unsubscribes()].into_iter().flatten().collect()
}
