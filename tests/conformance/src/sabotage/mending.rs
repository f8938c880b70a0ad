//! Mutations for what a server must refuse: each mends or swallows one kind of wrong packet, so that the server never
//! sees it and lets it pass. Here: texts, properties and CONNECT; the rest is in `mending_messages`.

use super::link::{Link, Turn};
use super::mutation::{Mutation, asked, instead, maybe, nothing, opening, posted};
use super::sent::{Asked, Opening, Posted, leaving_of, length};
use crate::wire::{
    CONNECT, DISCONNECT, PUBLISH, Props, SUBSCRIBE, UNSUBSCRIBE, Value, Version, disconnect, packet,
};

/// A client's packet does not reach the server where `which` says so.
pub(super) fn ignored(
    name: &str,
    says: &str,
    which: impl Fn(&mut Link, &[u8]) -> bool + Send + Sync + 'static,
) -> Mutation {
    Mutation::new(name, says).on_client(
        move |link, bytes| {
            if which(link, bytes) { nothing() } else { Turn::Keep }
        },
    )
}

pub(super) fn kind(bytes: &[u8]) -> u8 {
    bytes.first().map_or(0, |first| first >> 4)
}

/// Letters in place of whatever is no text; whether there was anything.
fn mend(text: &mut [u8], nul_too: bool) -> bool {
    let bad = match std::str::from_utf8(text) {
        Err(_) => true,
        Ok(text) => nul_too && text.contains('\0'),
    };
    if bad {
        text.iter_mut()
            .for_each(|byte| *byte = if byte.is_ascii_graphic() { *byte } else { b'x' });
    }
    bad
}

fn nul(text: &mut [u8]) -> bool {
    let bad = text.contains(&0);
    text.iter_mut()
        .for_each(|byte| *byte = if *byte == 0 { b'x' } else { *byte });
    bad
}

fn mend_props(props: &mut Props) -> bool {
    let mut changed = false;
    for (id, value) in props {
        match value {
            Value::Text(text) if !matches!(id, 0x09 | 0x16) => changed |= mend(text, true),
            Value::Pair(name, value) => changed |= mend(name, true) | mend(value, true),
            _ => {}
        }
    }
    changed
}

/// Only what may be there; whether anything was cut out.
fn only(props: &mut Props, allowed: &[u8]) -> bool {
    let before = props.len();
    props.retain(|(id, _)| allowed.contains(id));
    before != props.len()
}

fn once(props: &mut Props) -> bool {
    let before = props.len();
    let mut seen = Vec::new();
    props.retain(|(id, _)| {
        let again = seen.contains(id) && *id != 0x26;
        seen.push(*id);
        !again
    });
    before != props.len()
}

fn in_range(props: &mut Props) -> bool {
    let mut changed = false;
    for (id, value) in props {
        let to = match (*id, &*value) {
            (0x01 | 0x17 | 0x19, Value::Byte(2..)) => Value::Byte(1),
            (0x21, Value::Two(0)) => Value::Two(1_000),
            (0x27, Value::Four(0)) => Value::Four(1_000),
            (0x0B, Value::Var(0)) => Value::Var(1),
            _ => continue,
        };
        *value = to;
        changed = true;
    }
    changed
}

/// What clients may give with each.
const CONNECT_PROPS: &[u8] = &[0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27];
const PUBLISH_PROPS: &[u8] = &[0x01, 0x02, 0x03, 0x08, 0x09, 0x23, 0x26];
const WILL_PROPS: &[u8] = &[0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26];

/// All properties of a client's packet changed in some way, wherever they are.
fn props_of(
    name: &str,
    says: &str,
    change: impl Fn(u8, &mut Props) -> bool + Send + Sync + 'static,
) -> Mutation {
    Mutation::new(name, says).on_client(move |link, bytes| {
        let version = link.version;
        maybe(match kind(bytes) {
            CONNECT => Opening::of(bytes).and_then(|mut it| {
                let mut changed = change(CONNECT, &mut it.props);
                if let Some((props, _, _)) = &mut it.will {
                    changed |= change(0, props);
                }
                changed.then(|| it.bytes())
            }),
            PUBLISH => Posted::of(version, bytes)
                .and_then(|mut it| change(PUBLISH, &mut it.props).then(|| it.bytes(version))),
            SUBSCRIBE | UNSUBSCRIBE => Asked::of(version, bytes)
                .and_then(|mut it| change(SUBSCRIBE, &mut it.props).then(|| it.bytes(version))),
            DISCONNECT => leaving_of(version, bytes).and_then(|(code, mut props)| {
                change(DISCONNECT, &mut props).then(|| disconnect(version, code, &props))
            }),
            _ => None,
        })
    })
}

fn texts() -> Vec<Mutation> {
    vec![
        opening(
            "bad-client-id-taken",
            "a client id that is not UTF-8 is taken",
            |_, it| mend(&mut it.id, false),
        ),
        opening(
            "nul-client-id-taken",
            "a client id with U+0000 is taken",
            |_, it| nul(&mut it.id),
        ),
        opening(
            "bad-will-topic-taken",
            "a will topic that is not UTF-8 is taken",
            |_, it| it.will.as_mut().is_some_and(|(_, topic, _)| mend(topic, true)),
        ),
        opening(
            "bad-user-name-taken",
            "a user name that is not UTF-8 is taken",
            |_, it| {
                let changed = it.user.as_mut().is_some_and(|user| mend(user, true));
                if changed {
                    // Its credentials are another matter.
                    it.user = None;
                    it.word = None;
                    it.flags &= 0x3F;
                }
                changed
            },
        ),
        posted(
            "bad-topic-taken",
            "a topic that is not UTF-8 is taken",
            |_, it| mend(&mut it.topic, false),
        ),
        posted("nul-topic-taken", "a topic with U+0000 is taken", |_, it| {
            nul(&mut it.topic)
        }),
        asked(
            SUBSCRIBE,
            "bad-filter-taken",
            "a filter that is not UTF-8 is taken",
            |_, it| it.filters.iter_mut().any(|(filter, _)| mend(filter, false)),
        ),
        asked(
            SUBSCRIBE,
            "nul-filter-taken",
            "a filter with U+0000 is taken",
            |_, it| it.filters.iter_mut().any(|(filter, _)| nul(filter)),
        ),
        asked(
            UNSUBSCRIBE,
            "bad-unsubscribe-taken",
            "an UNSUBSCRIBE that is not UTF-8 is taken",
            |_, it| it.filters.iter_mut().any(|(filter, _)| mend(filter, false)),
        ),
        props_of(
            "bad-property-taken",
            "a property's text that is not UTF-8 is taken",
            |_, props| mend_props(props),
        ),
    ]
}

fn connects() -> Vec<Mutation> {
    vec![
        opening(
            "other-protocol-taken",
            "another protocol name is taken",
            |_, it| {
                let changed = it.name != b"MQTT";
                it.name = b"MQTT".to_vec();
                changed
            },
        ),
        opening(
            "other-level-taken",
            "an unknown protocol level is taken",
            |link, it| {
                let changed = !matches!(it.level, 4 | 5);
                if changed {
                    it.level = 4;
                    // What 5.0 has at this place would be read as the client id.
                    if link.version == Version::V5 {
                        it.id = b"levelled".to_vec();
                        it.tail.clear();
                    }
                }
                changed
            },
        ),
        opening(
            "reserved-flag-ignored",
            "the reserved flag of CONNECT is ignored",
            |_, it| {
                let changed = it.flags & 1 != 0;
                it.flags &= !1;
                changed
            },
        ),
        opening(
            "will-flags-ignored",
            "will flags without a will are ignored",
            |_, it| {
                let changed = it.flags & 4 == 0 && it.flags & 0x38 != 0;
                it.flags &= if changed { !0x38 } else { 0xFF };
                changed
            },
        ),
        opening("will-qos-3-taken", "a will with QoS 3 is taken", |_, it| {
            let changed = it.flags & 0x18 == 0x18;
            it.flags &= if changed { !8 } else { 0xFF };
            changed
        }),
        opening(
            "password-alone-taken",
            "3.1.1: a password without a user name is taken",
            |_, it| {
                let changed = it.level == 4 && it.user.is_none() && it.word.take().is_some();
                it.flags &= if changed { !0x40 } else { 0xFF };
                changed
            },
        ),
        opening(
            "connect-tail-ignored",
            "bytes after the last field of CONNECT are ignored",
            |_, it| {
                let changed = !it.tail.is_empty();
                it.tail.clear();
                if changed {
                    it.user = None;
                    it.flags &= 0x3F;
                }
                changed
            },
        ),
        Mutation::new("cut-connect-taken", "a CONNECT that ends too early is taken").on_client(
            |link, bytes| {
                if kind(bytes) != CONNECT || Opening::of(bytes).is_some() || length(bytes) == Some(usize::MAX)
                {
                    return Turn::Keep;
                }
                let mut body = vec![0, 4, b'M', b'Q', b'T', b'T'];
                body.extend(match link.version {
                    Version::V5 => &[5, 2, 0, 60, 0, 0, 0][..],
                    Version::V311 => &[4, 2, 0, 60, 0, 0],
                });
                instead(packet(0x10, &body))
            },
        ),
        opening(
            "empty-will-topic-taken",
            "an empty will topic is taken",
            |_, it| {
                it.will.as_mut().is_some_and(|(_, topic, _)| {
                    let changed = topic.is_empty();
                    topic.extend(if changed { &b"x"[..] } else { b"" });
                    changed
                })
            },
        ),
        opening(
            "wildcard-will-taken",
            "a will topic with wildcards is taken",
            |_, it| {
                it.will.as_mut().is_some_and(|(_, topic, _)| {
                    let changed = topic.contains(&b'+') || topic.contains(&b'#');
                    topic.retain(|byte| !matches!(byte, b'+' | b'#'));
                    changed
                })
            },
        ),
        props_of(
            "will-properties-ignored",
            "wrong properties of a will are ignored",
            |of, props| {
                let bad_answer = |(id, value): &(u8, Value)| {
                    *id == 0x08 && matches!(value, Value::Text(text) if text.contains(&b'#'))
                };
                let before = props.len();
                if of == 0 {
                    props.retain(|it| !bad_answer(it));
                }
                of == 0
                    && ((before != props.len())
                        | only(props, WILL_PROPS)
                        | once(props)
                        | in_range(props)
                        | mend_props(props))
            },
        ),
        props_of(
            "auth-data-alone-taken",
            "authentication data without a method is taken",
            |of, props| {
                let alone = of == CONNECT && !props.iter().any(|(id, _)| *id == 0x15);
                let before = props.len();
                props.retain(|(id, _)| !alone || *id != 0x16);
                before != props.len()
            },
        ),
    ]
}

fn properties() -> Vec<Mutation> {
    vec![
        props_of(
            "unknown-properties-ignored",
            "properties that do not exist are ignored",
            |_, props| {
                let before = props.len();
                props.retain(|(id, _)| !matches!(id, 0x04 | 0x0C | 0x10 | 0x1B | 0x20 | 0x2B | 0x7F));
                before != props.len()
            },
        ),
        props_of(
            "misplaced-properties-ignored",
            "properties in the wrong packet are ignored",
            |of, props| match of {
                CONNECT => only(props, CONNECT_PROPS),
                PUBLISH => only(props, PUBLISH_PROPS),
                SUBSCRIBE => only(props, &[0x0B, 0x26]),
                DISCONNECT => only(props, &[0x11, 0x1F, 0x26]),
                _ => false,
            },
        ),
        props_of(
            "second-property-ignored",
            "of a property given twice the second is ignored",
            |_, props| once(props),
        ),
        props_of("ranges-mended", "values out of range are taken", |_, props| {
            in_range(props)
        }),
        ignored(
            "broken-properties-ignored",
            "a PUBLISH or SUBSCRIBE whose properties cannot be read is ignored",
            |link, bytes| {
                link.version == Version::V5
                    && match kind(bytes) {
                        PUBLISH => Posted::of(link.version, bytes).is_none(),
                        SUBSCRIBE => Asked::of(link.version, bytes).is_none(),
                        _ => false,
                    }
            },
        ),
        posted(
            "alias-ignored",
            "the topic alias of a client is ignored",
            |_, it| {
                let before = it.props.len();
                it.props.retain(|(id, _)| *id != 0x23);
                before != it.props.len() && !it.topic.is_empty()
            },
        ),
        posted(
            "clients-identifier-ignored",
            "a subscription identifier in a client's PUBLISH is ignored",
            |_, it| {
                let before = it.props.len();
                it.props.retain(|(id, _)| *id != 0x0B);
                before != it.props.len()
            },
        ),
        posted(
            "wildcard-response-taken",
            "a response topic with wildcards is taken",
            |_, it| {
                let before = it.props.len();
                it.props.retain(|(id, value)| {
                    *id != 0x08
                        || !matches!(value, Value::Text(text) if text.contains(&b'#') || text.contains(&b'+'))
                });
                before != it.props.len()
            },
        ),
    ]
}

pub(crate) fn list() -> Vec<Mutation> {
    [texts(), connects(), properties()]
        .into_iter()
        .flatten()
        .collect()
}
