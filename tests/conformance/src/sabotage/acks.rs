//! Mutations of PUBACK, PUBREC, PUBREL and PUBCOMP in both directions.

use super::link::{Order, Turn};
use super::mutation::{Mutation, answer, doubled, dropped, instead, nothing};
use super::sent::ack_of;
use crate::wire::{PUBACK, PUBCOMP, PUBREC, PUBREL, Version, ack, kind_name};

fn lower(kind: u8) -> String {
    kind_name(kind).to_lowercase()
}

/// A client's acknowledgement is lost, or becomes these, where `which` says so: kind, identifier, code.
fn client(
    name: &str,
    says: &str,
    change: impl Fn(&mut super::link::Link, u8, u16, u8) -> Option<Vec<Vec<u8>>> + Send + Sync + 'static,
) -> Mutation {
    Mutation::new(name, says).on_client(move |link, bytes| {
        match ack_of(bytes).and_then(|(kind, pid, code)| change(link, kind, pid, code)) {
            Some(others) => Turn::Instead(others),
            None => Turn::Keep,
        }
    })
}

fn of_the_server() -> Vec<Mutation> {
    let mut all = Vec::new();
    for kind in [PUBACK, PUBREC, PUBREL, PUBCOMP] {
        let (name, title) = (lower(kind), kind_name(kind));
        all.push(dropped(
            format!("{name}-missing"),
            format!("the server sends no {title}"),
            move |_, it| it.kind == kind,
        ));
        all.push(answer(
            format!("{name}-other-id"),
            format!("the server's {title} has another identifier"),
            move |_, it| {
                it.pid ^= 0x40;
                it.kind == kind
            },
        ));
        all.push(doubled(
            format!("{name}-doubled"),
            format!("the server's {title} comes twice"),
            move |_, it| it.kind == kind,
        ));
        all.push(answer(
            format!("{name}-fails"),
            format!("the server's {title} says that it failed"),
            move |link, it| {
                let change = it.kind == kind && it.code == 0 && link.version == Version::V5;
                it.code = if kind < PUBREL { 0x80 } else { 0x92 };
                change
            },
        ));
        all.push(answer(
            format!("{name}-never-fails"),
            format!("the server's {title} never says that it failed"),
            move |_, it| {
                let change = it.kind == kind && it.code >= 0x80;
                it.code = 0;
                change
            },
        ));
    }
    all.extend([
        Mutation::new(
            "qos-answers-swapped",
            "QoS 1 is answered with PUBREC, QoS 2 with PUBACK",
        )
        .on_server(|link, bytes| match link.read(bytes).map(|it| (it.kind, it.pid)) {
            Some((PUBACK, pid)) => instead(ack(PUBREC, pid)),
            Some((PUBREC, pid)) => instead(ack(PUBACK, pid)),
            _ => Turn::Keep,
        }),
        Mutation::new("qos-0-answered", "a PUBLISH with QoS 0 is answered with PUBACK").on_client(
            |link, bytes| {
                if bytes
                    .first()
                    .is_some_and(|first| first >> 4 == 3 && first & 6 == 0)
                {
                    link.order(Order::ToClient(ack(PUBACK, 1)));
                }
                Turn::Keep
            },
        ),
        Mutation::new(
            "acks-out-of-order",
            "of two PUBACKs or PUBRECs of the server the second comes first",
        )
        .on_server(|link, bytes| {
            if !bytes
                .first()
                .is_some_and(|first| matches!(first >> 4, PUBACK | PUBREC))
            {
                return Turn::Keep;
            }
            match link.aside.pop() {
                Some(before) => Turn::Instead(vec![bytes.to_vec(), before]),
                None => {
                    link.aside.push(bytes.to_vec());
                    nothing()
                }
            }
        }),
        dropped(
            "pubrel-not-resent",
            "a PUBREL that is owed does not come on the next connection",
            |link, it| it.kind == PUBREL && !link.received.contains(&it.pid),
        ),
        Mutation::new(
            "publish-after-pubrel",
            "after a resume the PUBLISH comes again though its PUBREL was sent",
        )
        .on_server(|link, bytes| {
            let owed = link
                .read(bytes)
                .filter(|it| it.kind == PUBREL && !link.received.contains(&it.pid));
            let before = owed.and_then(|it| link.common().given.get(&it.pid).cloned());
            match before {
                Some(mut publish) => {
                    if let Some(first) = publish.first_mut() {
                        *first |= 8;
                    }
                    instead(publish)
                }
                None => Turn::Keep,
            }
        }),
        Mutation::new(
            "pubrel-again-unasked",
            "a PUBREL comes again on the same connection",
        )
        .on_server(|link, bytes| {
            if bytes.first() == Some(&0x62) {
                link.order(Order::Later(700, bytes.to_vec()));
            }
            Turn::Keep
        }),
        Mutation::new(
            "second-pubrel-unanswered",
            "a PUBREL for what is complete is not answered",
        )
        .on_client(|link, bytes| match ack_of(bytes) {
            Some((PUBREL, pid, _)) if !link.inward.contains(&pid) => nothing(),
            _ => Turn::Keep,
        }),
        Mutation::new(
            "second-pubrec-unanswered",
            "a PUBREC that is repeated is not answered",
        )
        .on_client(|link, bytes| match ack_of(bytes) {
            Some((PUBREC, pid, _)) if link.received.contains(&pid) => nothing(),
            _ => Turn::Keep,
        }),
    ]);
    for kind in [PUBACK, PUBREC, PUBREL, PUBCOMP] {
        all.push(
            Mutation::new(
                format!("unknown-{}-ends", lower(kind)),
                format!("a {} for nothing ends the connection", kind_name(kind)),
            )
            .on_client(move |link, bytes| {
                let unknown = match ack_of(bytes) {
                    Some((PUBREL, pid, _)) => kind == PUBREL && !link.inward.contains(&pid),
                    Some((it, pid, _)) => it == kind && !link.out.contains_key(&pid),
                    None => false,
                };
                if unknown {
                    link.order(Order::Cut);
                }
                Turn::Keep
            }),
        );
    }
    all
}

fn of_the_client() -> Vec<Mutation> {
    let mut all = Vec::new();
    for kind in [PUBACK, PUBREC, PUBREL, PUBCOMP] {
        let title = kind_name(kind);
        all.push(client(
            &format!("{}-ignored", lower(kind)),
            &format!("a client's {title} is ignored"),
            move |_, it, _, _| (it == kind).then(Vec::new),
        ));
    }
    all.extend([
        client(
            "failed-acks-ignored",
            "a client's PUBACK or PUBREC with an error is ignored",
            |_, _, _, code| (code >= 0x80).then(Vec::new),
        ),
        client(
            "failed-acks-close",
            "a client's PUBREC with an error is taken as success",
            |_, kind, pid, code| (code >= 0x80).then(|| vec![ack(kind, pid)]),
        ),
        client(
            "any-ack-will-do",
            "an acknowledgement of the wrong kind settles a delivery",
            |link, kind, pid, _| match (kind, link.out.get(&pid)?) {
                (PUBACK, 2) => {
                    link.swallow.push((PUBREL, pid));
                    Some(vec![ack(PUBREC, pid), ack(PUBCOMP, pid)])
                }
                (PUBCOMP, 2) if !link.received.contains(&pid) => {
                    link.swallow.push((PUBREL, pid));
                    Some(vec![ack(PUBREC, pid), ack(PUBCOMP, pid)])
                }
                (PUBREC, 1) => Some(vec![ack(PUBACK, pid)]),
                _ => None,
            },
        ),
        client(
            "pubrec-completes",
            "PUBREC completes a delivery",
            |link, kind, pid, code| {
                (kind == PUBREC && code == 0 && link.out.contains_key(&pid))
                    .then(|| vec![ack(PUBREC, pid), ack(PUBCOMP, pid)])
            },
        ),
        client(
            "acks-are-cumulative",
            "a PUBACK settles all deliveries before it",
            |link, kind, pid, _| {
                let all: Vec<u16> = link
                    .out
                    .iter()
                    .filter(|(_, qos)| **qos == 1)
                    .map(|(pid, _)| *pid)
                    .collect();
                (kind == PUBACK && all.len() > 1).then(|| {
                    let _ = pid;
                    all.into_iter().map(|pid| ack(PUBACK, pid)).collect()
                })
            },
        ),
        client(
            "acks-in-order-only",
            "a PUBACK is ignored unless it is for the oldest delivery",
            |link, kind, pid, _| {
                (kind == PUBACK && link.out.keys().next().is_some_and(|oldest| *oldest != pid)).then(Vec::new)
            },
        ),
        Mutation::new(
            "written-is-delivered",
            "what was written to a client counts as acknowledged",
        )
        .on_server(|link, bytes| {
            if let Some(it) = link.read(bytes).filter(|it| it.kind == 3 && it.qos() == 1) {
                link.order(Order::ToServer(ack(PUBACK, it.pid)));
            }
            Turn::Keep
        }),
        Mutation::new(
            "written-is-received",
            "what was written with QoS 2 counts as received",
        )
        .on_server(|link, bytes| {
            if let Some(it) = link.read(bytes).filter(|it| it.kind == 3 && it.qos() == 2) {
                link.order(Order::ToServer(ack(PUBREC, it.pid)));
            }
            Turn::Keep
        }),
        Mutation::new(
            "pubrel-is-complete",
            "a PUBREL that was written counts as completed",
        )
        .on_server(|link, bytes| {
            if let Some(it) = link.read(bytes).filter(|it| it.kind == PUBREL) {
                link.order(Order::ToServer(ack(PUBCOMP, it.pid)));
            }
            Turn::Keep
        }),
        Mutation::new(
            "one-identifier-space",
            "a client's QoS 2 message may not have an identifier of a delivery",
        )
        .on_client(|link, bytes| match super::sent::Posted::of(link.version, bytes) {
            Some(posted) if posted.qos() == 2 && link.out.contains_key(&posted.pid) => {
                instead(ack(PUBREC, posted.pid))
            }
            _ => Turn::Keep,
        }),
        Mutation::new(
            "full-window-blocks-all",
            "with all of its window open a client gets no answers",
        )
        .on_server(|link, bytes| {
            let window = match link.connect.as_ref().and_then(|connect| connect.prop(0x21)) {
                Some(crate::wire::Value::Two(window)) => usize::from(*window),
                _ => return Turn::Keep,
            };
            let answer = bytes
                .first()
                .is_some_and(|first| !matches!(first >> 4, 2 | 3 | 6 | 14));
            if answer && link.out.len() >= window {
                nothing()
            } else {
                Turn::Keep
            }
        }),
    ]);
    all
}

pub(crate) fn list() -> Vec<Mutation> {
    [of_the_server(), of_the_client()].into_iter().flatten().collect()
}
