//! Mutations of how connections end: the server does not close where it must, or closes where it must not.

use super::link::{Order, Turn};
use super::mutation::{Mutation, instead, nothing};
use super::sent::{Asked, Posted, leaving_of};
use crate::wire::{CONNACK, CONNECT, DISCONNECT, PUBLISH, Version, disconnect, kind_name};

/// After a packet of this kind the server's end, and the DISCONNECT before it, are not seen.
fn stays_open(kind: u8) -> Mutation {
    let title = kind_name(kind);
    let name = title.to_lowercase().replace(' ', "-");
    Mutation::new(
        format!("open-after-{name}"),
        format!("a {title} that ends the connection does not"),
    )
    .on_server(move |link, bytes| {
        let ends = bytes.first() == Some(&0xE0) || (kind == CONNECT && refuses(bytes));
        if ends && link.last == kind {
            nothing()
        } else {
            Turn::Keep
        }
    })
    .server_end(move |link, _| {
        let normal = link.last == DISCONNECT && link.left && kind != DISCONNECT;
        if link.last == kind && !normal {
            nothing()
        } else {
            Turn::Keep
        }
    })
}

fn refuses(bytes: &[u8]) -> bool {
    matches!(bytes, [0x20, _, _, code, ..] if *code != 0)
        && bytes.first().is_some_and(|first| first >> 4 == CONNACK)
}

/// A client's packet ends its connection where `which` says so.
fn ends(
    name: &str,
    says: &str,
    which: impl Fn(&mut super::link::Link, &[u8]) -> bool + Send + Sync + 'static,
) -> Mutation {
    Mutation::new(name, says).on_client(move |link, bytes| {
        if which(link, bytes) {
            link.order(Order::Cut);
        }
        Turn::Keep
    })
}

fn publish(link: &super::link::Link, bytes: &[u8]) -> Option<Posted> {
    Posted::of(link.version, bytes)
}

pub(crate) fn list() -> Vec<Mutation> {
    let mut all: Vec<Mutation> = (0..16).map(stays_open).collect();
    all.extend([
        Mutation::new(
            "open-after-refusal",
            "a CONNECT that is refused does not end the connection",
        )
        .server_end(|link, _| {
            if link.last <= CONNECT {
                nothing()
            } else {
                Turn::Keep
            }
        }),
        Mutation::new("open-after-leaving", "DISCONNECT does not end the connection").server_end(
            |link, _| {
                if link.left { nothing() } else { Turn::Keep }
            },
        ),
        Mutation::new("take-over-unnoticed", "who is taken over stays connected")
            .on_server(|_, bytes| {
                if bytes.starts_with(&[0xE0, 2, 0x8E]) || bytes.starts_with(&[0xE0, 1, 0x8E]) {
                    nothing()
                } else {
                    Turn::Keep
                }
            })
            .server_end(|link, _| {
                if link.left || link.last == 0 {
                    Turn::Keep
                } else {
                    nothing()
                }
            }),
        ends(
            "empty-payload-ends",
            "a PUBLISH with an empty payload ends the connection",
            |link, bytes| publish(link, bytes).is_some_and(|it| it.payload.is_empty()),
        ),
        ends(
            "large-payload-ends",
            "a PUBLISH of more than 50,000 bytes ends the connection",
            |_, bytes| bytes.len() > 50_000 && bytes.first().is_some_and(|first| first >> 4 == PUBLISH),
        ),
        ends(
            "dup-ends",
            "a PUBLISH with DUP ends the connection",
            |_, bytes| bytes.first().is_some_and(|first| first & 0xF8 == 0x38),
        ),
        ends(
            "repeat-ends",
            "a QoS 2 PUBLISH repeated before its PUBREL ends the connection",
            |link, bytes| {
                publish(link, bytes).is_some_and(|it| it.qos() == 2 && link.inward.contains(&it.pid))
            },
        ),
        ends(
            "long-id-ends",
            "a client id of more than 23 bytes ends the connection",
            |link, bytes| {
                link.connect.is_none() && super::sent::Opening::of(bytes).is_some_and(|it| it.id.len() > 23)
            },
        ),
        ends(
            "capital-id-ends",
            "a client id with capital letters ends the connection",
            |link, bytes| {
                link.connect.is_none()
                    && super::sent::Opening::of(bytes)
                        .is_some_and(|it| it.id.iter().any(u8::is_ascii_uppercase))
            },
        ),
        ends(
            "one-byte-id-ends",
            "a client id of one byte ends the connection",
            |link, bytes| {
                link.connect.is_none() && super::sent::Opening::of(bytes).is_some_and(|it| it.id.len() == 1)
            },
        ),
        ends(
            "empty-id-ends",
            "an empty client id ends the connection",
            |link, bytes| {
                link.connect.is_none() && super::sent::Opening::of(bytes).is_some_and(|it| it.id.is_empty())
            },
        ),
        ends(
            "second-version-ends",
            "the other version of the protocol is not served",
            |link, bytes| {
                let mine = link.version;
                link.connect.is_none()
                    && super::sent::Opening::of(bytes).is_some_and(|it| it.version() != mine)
            },
        ),
        ends(
            "many-filters-end",
            "a SUBSCRIBE of more than 10 filters ends the connection",
            |link, bytes| Asked::of(link.version, bytes).is_some_and(|it| it.filters.len() > 10),
        ),
        ends(
            "many-packets-end",
            "the sixteenth packet of a connection ends it",
            |link, _| {
                link.count += 1;
                link.count == 16
            },
        ),
        ends(
            "reason-ends",
            "an acknowledgement with a reason string ends the connection",
            |link, bytes| {
                link.version == Version::V5 && matches!(bytes.first(), Some(0x40..=0x7F)) && bytes.len() > 6
            },
        ),
        ends(
            "short-ack-ends",
            "an acknowledgement of two bytes ends the connection",
            |link, bytes| {
                link.version == Version::V5 && matches!(bytes.first(), Some(0x40..=0x7F)) && bytes.len() == 4
            },
        ),
        ends(
            "response-information-refused",
            "who asks for response information is refused",
            |link, bytes| {
                link.connect.is_none()
                    && super::sent::Opening::of(bytes)
                        .is_some_and(|it| it.prop(0x19) == Some(&crate::wire::Value::Byte(1)))
            },
        ),
        Mutation::new(
            "pieces-end",
            "a packet whose bytes do not come all at once ends the connection",
        )
        .piece(|link, _| {
            link.order(Order::Cut);
            Turn::Keep
        }),
        Mutation::new(
            "large-ends-all",
            "who announces a packet of 100 MB ends everybody's connection",
        )
        .piece(|link, bytes| {
            if super::sent::length(bytes).is_some_and(|length| length > 100_000_000) {
                link.order(Order::CutAll);
            }
            Turn::Keep
        }),
        // How clients leave.
        Mutation::new("disconnect-is-loss", "DISCONNECT is taken for a lost connection").on_client(
            |link, bytes| {
                if bytes.first() != Some(&0xE0) {
                    return Turn::Keep;
                }
                link.order(Order::Cut);
                nothing()
            },
        ),
        Mutation::new("loss-is-disconnect", "a lost connection is taken for DISCONNECT").client_end(
            |link, _| {
                if link.left || link.connect.is_none() {
                    Turn::Keep
                } else {
                    instead(vec![0xE0, 0])
                }
            },
        ),
        Mutation::new("loss-unnoticed", "a lost connection is noticed only after 3 s").client_end(
            |link, _| {
                if link.left || link.connect.is_none() {
                    return Turn::Keep;
                }
                link.order(Order::Hold(3_000));
                Turn::Keep
            },
        ),
        Mutation::new(
            "leaving-unnoticed",
            "DISCONNECT is noticed only after 3 s, its end is seen at once",
        )
        .on_client(|link, bytes| {
            if bytes.first() == Some(&0xE0) && bytes.len() < 5 {
                link.order(Order::Hold(3_000));
            }
            Turn::Keep
        }),
        Mutation::new("disconnect-code-ignored", "every DISCONNECT is one with code 0").on_client(
            |link, bytes| match leaving_of(link.version, bytes) {
                Some((code, props)) if code != 0 => instead(disconnect(link.version, 0, &props)),
                _ => Turn::Keep,
            },
        ),
        Mutation::new("disconnect-always-4", "every DISCONNECT wants the will").on_client(|link, bytes| {
            match leaving_of(link.version, bytes) {
                Some((0, props)) if link.version == Version::V5 => {
                    instead(disconnect(link.version, 4, &props))
                }
                _ => Turn::Keep,
            }
        }),
        Mutation::new(
            "disconnect-expiry-ignored",
            "the session expiry of DISCONNECT is ignored",
        )
        .on_client(|link, bytes| match leaving_of(link.version, bytes) {
            Some((code, props)) if !props.is_empty() => instead(disconnect(link.version, code, &[])),
            _ => Turn::Keep,
        }),
        Mutation::new(
            "disconnect-is-last",
            "what follows a DISCONNECT is done before it",
        )
        .on_client(|link, bytes| {
            if bytes != [0xE0, 0] {
                return Turn::Keep;
            }
            link.order(Order::LaterToServer(150, bytes.to_vec()));
            nothing()
        }),
        ends(
            "long-topic-ends-all",
            "a topic of more than 60,000 bytes ends everybody's connection",
            |link, bytes| {
                if bytes.len() > 60_000 && publish(link, bytes).is_some_and(|it| it.topic.len() > 60_000) {
                    link.order(Order::CutAll);
                }
                false
            },
        ),
    ]);
    all
}
