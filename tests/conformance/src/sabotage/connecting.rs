//! Mutations of CONNECT: what the server makes of its flags, identifiers, limits and will.

use super::link::{Link, Turn};
use super::mutation::{Mutation, instead, opening};
use super::sent::Opening;
use crate::wire::{Props, Value};

/// A property set to this where it is there, and also where it is not if `always`.
fn set(props: &mut Props, id: u8, value: Value, always: bool) -> bool {
    match props.iter_mut().find(|(it, _)| *it == id) {
        Some((_, there)) if *there == value => false,
        Some((_, there)) => {
            *there = value;
            true
        }
        None if always => {
            props.push((id, value));
            true
        }
        None => false,
    }
}

fn unset(props: &mut Props, id: u8) -> bool {
    let before = props.len();
    props.retain(|(it, _)| *it != id);
    before != props.len()
}

/// A will is changed where `change` says that it did.
fn will(
    name: &str,
    says: &str,
    change: impl Fn(&mut Props, &mut Vec<u8>, &mut Vec<u8>) -> bool + Send + Sync + 'static,
) -> Mutation {
    opening(name, says, move |_, it| {
        it.will
            .as_mut()
            .is_some_and(|(props, topic, payload)| change(props, topic, payload))
    })
}

/// Right CONNECTs only, so that nothing is mended by the way.
fn right(it: &Opening) -> bool {
    matches!(it.level, 4 | 5) && it.tail.is_empty() && it.flags & 1 == 0
}

fn sessions() -> Vec<Mutation> {
    vec![
        opening("always-clean", "every connection starts clean", |_, it| {
            let change = !it.clean() && right(it);
            it.flags |= 2;
            change
        }),
        opening("never-clean", "no connection starts clean", |_, it| {
            let change = it.clean() && right(it) && !it.id.is_empty();
            it.flags &= !2;
            change
        }),
        opening(
            "clean-is-kept",
            "sessions of clean connections are kept",
            |_, it| {
                it.level == 5
                    && right(it)
                    && it.prop(0x11).is_none()
                    && set(&mut it.props, 0x11, Value::Four(3_600), true)
            },
        ),
        opening(
            "clean-session-ends-nothing",
            "3.1.1: clean session 1 is taken for 0",
            |_, it| {
                let change = it.level == 4 && it.clean() && right(it) && !it.id.is_empty();
                it.flags &= !2;
                change
            },
        ),
        opening("expiry-ignored", "sessions end with their connection", |_, it| {
            unset(&mut it.props, 0x11)
        }),
        opening("expiry-endless", "sessions with an expiry never end", |_, it| {
            it.prop(0x11) != Some(&Value::Four(0)) && set(&mut it.props, 0x11, Value::Four(u32::MAX), false)
        }),
        opening(
            "expiry-of-1-s",
            "sessions with an expiry end after 1 s",
            |_, it| it.prop(0x11) != Some(&Value::Four(0)) && set(&mut it.props, 0x11, Value::Four(1), false),
        ),
        opening(
            "expiry-0-kept",
            "a session expiry of 0 is taken for an hour",
            |_, it| {
                it.prop(0x11) == Some(&Value::Four(0)) && set(&mut it.props, 0x11, Value::Four(3_600), false)
            },
        ),
        opening(
            "expiry-of-old-kept",
            "the next connection does not change the session expiry",
            |link, it| {
                let known = !link.common().seen.insert(it.id.clone());
                known
                    && it.level == 5
                    && !it.clean()
                    && it.prop(0x11).is_none()
                    && set(&mut it.props, 0x11, Value::Four(3_600), true)
            },
        ),
        opening(
            "ids-folded",
            "client ids are the same whatever their case",
            |_, it| {
                let lower = it.id.to_ascii_lowercase();
                let change = lower != it.id;
                it.id = lower;
                change
            },
        ),
        opening("ids-trimmed", "spaces around a client id are cut off", |_, it| {
            let trimmed = it.id.trim_ascii().to_vec();
            let change = trimmed != it.id;
            it.id = trimmed;
            change
        }),
        opening(
            "ids-cut",
            "client ids that differ in their last character are the same",
            |_, it| {
                let change = it.id.len() > 4 && it.id.last() == Some(&b'x');
                if change {
                    it.id.pop();
                }
                change
            },
        ),
        opening("ids-scattered", "no client id is known again", |link, it| {
            let count = {
                let mut common = link.common();
                let count = common.seen.len();
                common.seen.insert(count.to_be_bytes().to_vec());
                count
            };
            it.id.extend(format!("s{count}").bytes());
            right(it) && it.id.len() > 3
        }),
        opening(
            "empty-id-kept",
            "3.1.1: an empty client id may have a kept session",
            |_, it| {
                let change = it.level == 4 && it.id.is_empty() && !it.clean();
                it.flags |= 2;
                change
            },
        ),
        opening("empty-ids-are-one", "all empty client ids are one", |_, it| {
            let change = it.id.is_empty() && right(it);
            it.id = b"nobody".to_vec();
            change
        }),
        opening("versions-apart", "a session belongs to one version", |_, it| {
            it.id.push(if it.level == 5 { b'5' } else { b'4' });
            right(it) && it.id.len() > 1
        }),
        opening(
            "clean-start-ignored-after",
            "a clean start is ignored where a session is kept",
            |link, it| {
                let kept = !link.common().seen.insert(it.id.clone());
                let change = kept && it.clean() && right(it) && !it.id.is_empty();
                it.flags &= !2;
                change
            },
        ),
    ]
}

fn limits() -> Vec<Mutation> {
    vec![
        opening("keep-alive-ignored", "the keep alive is ignored", |_, it| {
            let change = it.keep_alive == 1;
            it.keep_alive = 0;
            change
        }),
        opening("keep-alive-0-ends", "a keep alive of 0 is one of 1 s", |_, it| {
            let change = it.keep_alive == 0;
            it.keep_alive = 1;
            change
        }),
        opening(
            "keep-alive-tripled",
            "a keep alive of 1 s is one of 3 s",
            |_, it| {
                let change = it.keep_alive == 1;
                it.keep_alive = 3;
                change
            },
        ),
        opening(
            "receive-maximum-ignored",
            "the client's receive maximum is ignored",
            |_, it| unset(&mut it.props, 0x21),
        ),
        opening(
            "receive-maximum-off-by-one",
            "one more than the receive maximum is in flight",
            |_, it| {
                let more = match it.prop(0x21) {
                    Some(Value::Two(number)) => number.saturating_add(1),
                    _ => return false,
                };
                set(&mut it.props, 0x21, Value::Two(more), false)
            },
        ),
        opening(
            "receive-maximum-of-old",
            "the next connection does not change the receive maximum",
            |link, it| {
                let known = !link.common().seen.insert(it.id.clone());
                known && unset(&mut it.props, 0x21)
            },
        ),
        opening(
            "packet-size-ignored",
            "the client's maximum packet size is ignored",
            |_, it| unset(&mut it.props, 0x27),
        ),
        opening(
            "packet-size-off-by-one",
            "a packet may be one byte above the maximum packet size",
            |_, it| {
                let more = match it.prop(0x27) {
                    Some(Value::Four(number)) => number.saturating_add(1),
                    _ => return false,
                };
                set(&mut it.props, 0x27, Value::Four(more), false)
            },
        ),
        opening(
            "packet-size-of-old",
            "the next connection does not change the packet size",
            |link, it| {
                let known = !link.common().seen.insert(it.id.clone());
                known && unset(&mut it.props, 0x27)
            },
        ),
        opening(
            "problem-information-always",
            "request problem information 0 is ignored",
            |_, it| unset(&mut it.props, 0x17),
        ),
        opening(
            "aliases-invited",
            "every client is taken to allow topic aliases",
            |_, it| it.level == 5 && right(it) && set(&mut it.props, 0x22, Value::Two(10), true),
        ),
        opening(
            "no-aliases",
            "no client is taken to allow topic aliases",
            |_, it| unset(&mut it.props, 0x22),
        ),
        opening(
            "credentials-ignored",
            "user name and password are ignored",
            |_, it| {
                let change = it.user.is_some() && it.tail.is_empty() && right(it);
                it.user = None;
                it.word = None;
                it.flags &= 0x3F;
                change
            },
        ),
        opening(
            "method-ignored",
            "the authentication method is ignored",
            |_, it| {
                let before = it.props.len();
                it.props.retain(|(id, _)| !matches!(id, 0x15 | 0x16));
                before != it.props.len()
            },
        ),
    ]
}

fn wills() -> Vec<Mutation> {
    vec![
        opening("will-lost", "wills are not published", |_, it| {
            let change = it.will.take().is_some() && right(it);
            it.flags &= 0xC3;
            change
        }),
        opening(
            "will-invented",
            "who has no will gets the last one of its client id",
            |link, it| {
                if let Some((props, topic, payload)) = it.will.clone() {
                    let mut kept = crate::wire::field(&topic);
                    kept.extend(&payload);
                    let _ = props;
                    link.common().given.insert(0, kept);
                    return false;
                }
                let kept = link.common().given.get(&0).cloned();
                let Some((topic, payload)) = kept.as_deref().and_then(|kept| {
                    let (length, rest) = kept.split_first_chunk::<2>()?;
                    rest.split_at_checked(u16::from_be_bytes(*length).into())
                }) else {
                    return false;
                };
                it.will = Some((Vec::new(), topic.to_vec(), payload.to_vec()));
                it.flags |= 0x0C;
                right(it)
            },
        ),
        opening(
            "will-of-old",
            "the will of the first connection stays",
            |link, it| {
                let Some((_, topic, payload)) = it.will.as_mut() else {
                    return false;
                };
                let mut key = topic.clone();
                key.push(0);
                let mut common = link.common();
                let before = common.seen.iter().find(|it| it.starts_with(&key)).cloned();
                match before {
                    Some(before) => {
                        *payload = before.get(key.len()..).unwrap_or_default().to_vec();
                        true
                    }
                    None => {
                        key.extend(payload.iter());
                        common.seen.insert(key);
                        false
                    }
                }
            },
        ),
        opening("will-qos-0", "wills are published with QoS 0", |_, it| {
            let change = it.flags & 0x18 != 0 && it.will.is_some() && it.flags & 0x18 != 0x18;
            it.flags &= !0x18;
            change
        }),
        opening("will-qos-1", "wills are published with QoS 1", |_, it| {
            let change = it.flags & 0x18 != 8 && it.will.is_some() && it.flags & 0x18 != 0x18;
            it.flags = it.flags & !0x18 | 8;
            change
        }),
        opening("will-not-retained", "wills are never retained", |_, it| {
            let change = it.flags & 0x20 != 0 && it.will.is_some();
            it.flags &= !0x20;
            change
        }),
        opening("will-retained", "wills are always retained", |_, it| {
            let change = it.flags & 0x20 == 0 && it.will.is_some();
            it.flags |= 0x20;
            change
        }),
        will("will-at-once", "the will delay is ignored", |props, _, _| {
            unset(props, 0x18)
        }),
        will(
            "will-late",
            "a will comes 5 s later than it should, or with its session's end",
            |props, _, _| match props.iter().find(|(id, _)| *id == 0x18) {
                Some((_, Value::Four(delay))) => {
                    let delay = *delay + 5;
                    set(props, 0x18, Value::Four(delay), false)
                }
                _ => set(props, 0x18, Value::Four(5), false),
            },
        ),
        will(
            "will-bare",
            "a will is published without its properties",
            |props, _, _| {
                let change = props.iter().any(|(id, _)| *id != 0x18);
                props.retain(|(id, _)| *id == 0x18);
                change
            },
        ),
        will(
            "will-emptied",
            "a will is published without its payload",
            |_, _, payload| {
                let change = !payload.is_empty();
                payload.clear();
                change
            },
        ),
        will(
            "will-filled",
            "an empty will is published with a payload",
            |_, _, payload| {
                let change = payload.is_empty();
                payload.push(b'x');
                change
            },
        ),
        will(
            "will-elsewhere",
            "a will is published on another topic",
            |_, topic, _| {
                let change = !topic.is_empty() && !topic.contains(&b'#') && !topic.contains(&b'+');
                topic.extend(b"/x");
                change
            },
        ),
        will(
            "will-not-denied",
            "a will on a denied topic is let in",
            |_, topic, _| {
                let change = topic.starts_with(b"denied");
                topic.extend(b"x");
                topic.splice(0..0, *b"a");
                change
            },
        ),
    ]
}

/// Kept apart: the whole of it is in one turn, not in one packet.
fn changed_client(_: &mut Link, bytes: &[u8]) -> Turn {
    match Opening::of(bytes) {
        Some(it) if right(&it) && it.level == 5 && it.will.is_none() => {
            let mut it = it;
            it.level = 4;
            it.props.clear();
            instead(it.bytes())
        }
        _ => Turn::Keep,
    }
}

pub(crate) fn list() -> Vec<Mutation> {
    let mut all: Vec<Mutation> = [sessions(), limits(), wills()].into_iter().flatten().collect();
    all.push(Mutation::new("served-as-3.1.1", "who speaks 5.0 is served as 3.1.1").on_client(changed_client));
    all
}
