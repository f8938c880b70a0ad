//! Mutations of PUBLISH from clients: what the server makes of it, and what it acknowledges without having done it.

use super::link::{Link, Order, Turn};
use super::mutation::{Mutation, instead, nothing, posted};
use super::sent::{Posted, ack_of};
use crate::wire::{PUBACK, PUBCOMP, PUBREC, PUBREL, Value, Version, ack};

fn read(link: &Link, bytes: &[u8]) -> Option<Posted> {
    Posted::of(link.version, bytes)
}

/// A property of a client's PUBLISH left out.
fn without(name: &str, says: &str, id: u8) -> Mutation {
    posted(name, says, move |_, it| {
        let before = it.props.len();
        it.props.retain(|(known, _)| *known != id);
        before != it.props.len()
    })
}

/// A right topic, that others may be told apart by.
fn plain(it: &Posted) -> bool {
    !it.topic.is_empty() && std::str::from_utf8(&it.topic).is_ok_and(|it| !it.contains(['+', '#', '\0']))
}

fn promises() -> Vec<Mutation> {
    vec![
        Mutation::new("qos-1-only-acknowledged", "QoS 1 is acknowledged, and lost").on_client(
            |link, bytes| match read(link, bytes) {
                Some(it) if it.qos() == 1 && plain(&it) => {
                    link.order(Order::ToClient(ack(PUBACK, it.pid)));
                    nothing()
                }
                _ => Turn::Keep,
            },
        ),
        Mutation::new("qos-2-only-acknowledged", "QoS 2 is acknowledged, and lost").on_client(
            |link, bytes| match (read(link, bytes), ack_of(bytes)) {
                (Some(it), _) if it.qos() == 2 && plain(&it) => {
                    link.order(Order::ToClient(ack(PUBREC, it.pid)));
                    nothing()
                }
                (_, Some((PUBREL, pid, _))) if link.inward.contains(&pid) => {
                    link.order(Order::ToClient(ack(PUBCOMP, pid)));
                    nothing()
                }
                _ => Turn::Keep,
            },
        ),
        Mutation::new("qos-0-in-lost", "QoS 0 from clients is lost").on_client(|link, bytes| {
            match read(link, bytes) {
                Some(it) if it.qos() == 0 && plain(&it) => nothing(),
                _ => Turn::Keep,
            }
        }),
        Mutation::new(
            "acknowledged-before-done",
            "QoS 1 is acknowledged 300 ms before it is done",
        )
        .on_client(|link, bytes| {
            if let Some(it) = read(link, bytes).filter(|it| it.qos() == 1 && plain(it)) {
                link.order(Order::ToClient(ack(PUBACK, it.pid)));
                link.swallow.push((PUBACK, it.pid));
                link.order(Order::Hold(300));
            }
            Turn::Keep
        }),
        Mutation::new(
            "absent-get-nothing",
            "messages published within 400 ms after a connection ended are lost",
        )
        .on_client(|link, bytes| {
            let away = link.common().seen.contains(&b"away"[..]);
            if let Some(it) = read(link, bytes).filter(|it| away && it.qos() == 1) {
                link.order(Order::ToClient(ack(PUBACK, it.pid)));
                return nothing();
            }
            if bytes.first() == Some(&0x10) {
                link.common().seen.remove(&b"away"[..]);
            }
            Turn::Keep
        })
        .client_end(|link, _| {
            if link.connect.as_ref().is_some_and(|it| !it.clean()) {
                link.common().seen.insert(b"away".to_vec());
            }
            Turn::Keep
        }),
        Mutation::new(
            "qos-2-twice-in",
            "a QoS 2 PUBLISH that is repeated is another message",
        )
        .on_client(|link, bytes| match read(link, bytes) {
            Some(mut it) if it.qos() == 2 && link.inward.contains(&it.pid) => {
                it.first = 0x30;
                Turn::Instead(vec![it.bytes(link.version), bytes.to_vec()])
            }
            _ => Turn::Keep,
        }),
        Mutation::new(
            "qos-2-forgotten-on-resume",
            "a QoS 2 PUBLISH that is repeated on a new connection is another one",
        )
        .on_client(|link, bytes| match read(link, bytes) {
            Some(mut it) if it.qos() == 2 && it.first & 8 != 0 && !link.inward.contains(&it.pid) => {
                it.first = 0x30;
                Turn::Instead(vec![it.bytes(link.version), bytes.to_vec()])
            }
            _ => Turn::Keep,
        }),
        Mutation::new(
            "same-is-repeat",
            "a PUBLISH like one that was acknowledged is taken for a repeat",
        )
        .on_client(|link, bytes| {
            let Some(it) = read(link, bytes).filter(|it| it.qos() > 0) else {
                return match ack_of(bytes) {
                    Some((PUBREL, pid, _)) if link.common().seen.remove(&pid.to_be_bytes()[..]) => {
                        link.order(Order::ToClient(ack(PUBCOMP, pid)));
                        nothing()
                    }
                    _ => Turn::Keep,
                };
            };
            let mut key = it.pid.to_le_bytes().to_vec();
            key.extend(&it.payload);
            key.extend(&it.topic);
            if link.common().seen.insert(key) || link.inward.contains(&it.pid) {
                return Turn::Keep;
            }
            if it.qos() == 2 {
                link.common().seen.insert(it.pid.to_be_bytes().to_vec());
            }
            link.order(Order::ToClient(ack(
                if it.qos() == 1 { PUBACK } else { PUBREC },
                it.pid,
            )));
            nothing()
        }),
        Mutation::new("refused-is-open", "a refused QoS 2 PUBLISH keeps its identifier")
            .on_server(|link, bytes| {
                if let Some(it) = link.read(bytes).filter(|it| it.kind == PUBREC && it.code >= 0x80) {
                    link.count = it.pid.into();
                }
                Turn::Keep
            })
            .on_client(|link, bytes| match (read(link, bytes), ack_of(bytes)) {
                (Some(it), _) if it.qos() == 2 && link.count == u32::from(it.pid) => {
                    instead(ack(PUBREC, it.pid))
                }
                (_, Some((PUBREL, pid, _))) if link.count == u32::from(pid) => Turn::Keep,
                _ => Turn::Keep,
            }),
        Mutation::new(
            "window-not-watched",
            "the server takes more than its receive maximum",
        )
        .on_client(|link, bytes| match read(link, bytes) {
            Some(it) if it.qos() == 2 && link.inward.len() > 200 => {
                link.order(Order::ToClient(ack(PUBREC, it.pid)));
                nothing()
            }
            _ => Turn::Keep,
        }),
        Mutation::new(
            "large-taken",
            "a PUBLISH above the server's maximum packet size is taken",
        )
        .on_client(|link, bytes| match read(link, bytes) {
            Some(it) if bytes.len() > 262_144 => {
                link.order(Order::ToClient(ack(PUBACK, it.pid)));
                nothing()
            }
            _ => Turn::Keep,
        }),
        Mutation::new("denied-published", "a PUBLISH to a denied topic is taken").on_client(|link, bytes| {
            match read(link, bytes) {
                Some(mut it) if it.topic.starts_with(b"denied/") => {
                    it.topic.splice(0..7, *b"open/");
                    instead(it.bytes(link.version))
                }
                _ => Turn::Keep,
            }
        }),
        Mutation::new(
            "denied-ends",
            "a PUBLISH to a denied topic ends the connection, whatever its QoS",
        )
        .on_client(|link, bytes| {
            if read(link, bytes).is_some_and(|it| it.topic.starts_with(b"denied/") && it.qos() == 0) {
                link.order(Order::Cut);
            }
            Turn::Keep
        }),
    ]
}

fn content() -> Vec<Mutation> {
    vec![
        posted("retain-in-ignored", "no message is retained", |_, it| {
            let change = it.retain() && plain(it);
            it.first &= !1;
            change
        }),
        posted("all-retained", "every message is retained", |_, it| {
            let change = !it.retain() && plain(it) && it.qos() < 3;
            it.first |= 1;
            change
        }),
        posted(
            "retained-qos-0-ignored",
            "a message with QoS 0 is not retained",
            |_, it| {
                let change = it.retain() && it.qos() == 0;
                it.first &= !1;
                change
            },
        ),
        posted(
            "first-retained-stays",
            "a retained message is not replaced",
            |link, it| {
                let change = it.retain() && !link.common().seen.insert(it.topic.clone());
                it.first &= if change { !1 } else { !0 };
                change
            },
        ),
        posted(
            "empty-removes-not",
            "an empty payload does not remove what is retained",
            |_, it| {
                let change = it.retain() && it.payload.is_empty();
                it.first &= !1;
                change
            },
        ),
        posted(
            "empty-is-retained",
            "an empty payload is retained like others",
            |_, it| {
                let change = it.retain() && it.payload.is_empty();
                it.payload.push(b' ');
                change
            },
        ),
        posted(
            "empty-removes-always",
            "an empty payload removes what is retained, with RETAIN 0 too",
            |_, it| {
                let change = !it.retain() && it.payload.is_empty() && plain(it);
                it.first |= 1;
                change
            },
        ),
        posted(
            "qos-2-in-lowered",
            "QoS 2 is stored as QoS 1 where it is retained",
            |link, it| {
                let change = it.retain() && it.qos() == 2 && plain(it);
                if change {
                    // Answered in its own words.
                    link.order(Order::ToClient(ack(PUBREC, it.pid)));
                    link.swallow.push((PUBACK, it.pid));
                    it.set_qos(1);
                }
                change
            },
        ),
        without("expiry-in-ignored", "messages never expire", 0x02),
        without(
            "format-in-ignored",
            "the payload format indicator is ignored",
            0x01,
        ),
        posted("all-expire", "every message expires after 1 s", |link, it| {
            let change =
                link.version == Version::V5 && plain(it) && !it.props.iter().any(|(id, _)| *id == 0x02);
            if change {
                it.props.push((0x02, Value::Four(1)));
            }
            change
        }),
        posted(
            "dollar-is-plain",
            "topics that begin with $ are like others",
            |_, it| {
                let change = it.topic.starts_with(b"$");
                if let (true, Some(first)) = (change, it.topic.first_mut()) {
                    *first = b's';
                }
                change
            },
        ),
        posted(
            "topics-folded",
            "topics are the same whatever their case",
            |_, it| {
                let lower = it.topic.to_ascii_lowercase();
                let change = lower != it.topic && plain(it);
                it.topic = lower;
                change
            },
        ),
        posted(
            "topics-trimmed",
            "a slash or a space at a topic's end is cut off",
            |_, it| {
                let change = matches!(it.topic.last(), Some(b'/' | b' ')) && it.topic.len() > 1;
                if change {
                    it.topic.pop();
                }
                change
            },
        ),
        posted(
            "topics-squeezed",
            "empty levels of a topic are cut out",
            |_, it| {
                let text = String::from_utf8_lossy(&it.topic).into_owned();
                let squeezed = text.replace("//", "/");
                let change = squeezed != text && plain(it);
                it.topic = squeezed.into_bytes();
                change
            },
        ),
        posted(
            "topics-normalised",
            "topics are normalised: accents, percent signs, dots",
            |_, it| {
                let text = String::from_utf8_lossy(&it.topic).into_owned();
                let normal = text
                    .replace("e\u{301}", "\u{E9}")
                    .replace("%C3%A9", "\u{E9}")
                    .replace("/./", "/")
                    .replace("\u{FEFF}", "");
                let change = normal != text && plain(it);
                it.topic = normal.into_bytes();
                change
            },
        ),
        posted("topics-cut", "topics end after their third level", |_, it| {
            let ends: Vec<usize> = (0..it.topic.len())
                .filter(|at| it.topic.get(*at) == Some(&b'/'))
                .collect();
            match ends.get(2) {
                Some(end) if plain(it) => {
                    it.topic.truncate(*end);
                    true
                }
                _ => false,
            }
        }),
    ]
}

pub(crate) fn list() -> Vec<Mutation> {
    let mut all: Vec<Mutation> = promises().into_iter().chain(content()).collect();
    for qos in 0..3_u8 {
        all.push(
            Mutation::new(
                format!("qos-{qos}-in-twice"),
                format!("a PUBLISH with QoS {qos} is taken twice"),
            )
            .on_client(move |link, bytes| match read(link, bytes) {
                Some(it) if it.qos() == qos && plain(&it) && it.first & 8 == 0 => {
                    let mut again = it;
                    again.first &= 0xF1;
                    let again = again.bytes(link.version);
                    Turn::Instead(vec![bytes.to_vec(), again])
                }
                _ => Turn::Keep,
            }),
        );
    }
    all
}
