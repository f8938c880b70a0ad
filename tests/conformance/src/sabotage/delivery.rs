//! Mutations of PUBLISH from the server: which come, how often, when, in which order, with which
//! flags and identifiers. What they carry is in `content`.

use super::link::{Link, Order, Turn};
use super::mutation::{Mutation, answer, doubled, dropped, instead, nothing};
use crate::wire::{CONNACK, PUBLISH, Packet};

/// A PUBLISH of the server is changed where `change` says that it did.
pub(super) fn publish(
    name: impl Into<String>,
    says: impl Into<String>,
    change: impl Fn(&mut Link, &mut Packet) -> bool + Send + Sync + 'static,
) -> Mutation {
    answer(name, says, move |link, it| it.kind == PUBLISH && change(link, it))
}

fn which() -> Vec<Mutation> {
    let mut all = Vec::new();
    for qos in 0..3 {
        all.push(dropped(
            format!("qos-{qos}-lost"),
            format!("messages with QoS {qos} are not delivered"),
            move |_, it| it.kind == PUBLISH && it.qos() == qos,
        ));
        all.push(doubled(
            format!("qos-{qos}-doubled"),
            format!("messages with QoS {qos} are delivered twice"),
            move |_, it| it.kind == PUBLISH && it.qos() == qos,
        ));
        all.push(
            Mutation::new(
                format!("qos-{qos}-overtakes"),
                format!("of two messages with QoS {qos} the second comes first"),
            )
            .on_server(move |link, bytes| {
                if link
                    .read(bytes)
                    .is_none_or(|it| it.kind != PUBLISH || it.qos() != qos)
                {
                    return Turn::Keep;
                }
                match link.aside.pop() {
                    Some(before) => Turn::Instead(vec![bytes.to_vec(), before]),
                    None => {
                        link.aside.push(bytes.to_vec());
                        link.order(Order::Hold(1));
                        nothing()
                    }
                }
            }),
        );
    }
    all.extend([
        dropped(
            "fifth-lost",
            "of each connection's deliveries every fifth is lost",
            |link, it| {
                link.count += u32::from(it.kind == PUBLISH);
                it.kind == PUBLISH && link.count.is_multiple_of(5)
            },
        ),
        doubled(
            "fifth-doubled",
            "of each connection's deliveries every fifth comes twice",
            |link, it| {
                link.count += u32::from(it.kind == PUBLISH);
                it.kind == PUBLISH && link.count.is_multiple_of(5)
            },
        ),
        dropped(
            "fresh-qos-2-lost",
            "messages with QoS 2 come only when they are resent",
            |_, it| it.kind == PUBLISH && it.qos() == 2 && !it.dup(),
        ),
        dropped(
            "not-resent",
            "what was not acknowledged is not resent",
            |_, it| it.kind == PUBLISH && it.dup(),
        ),
        Mutation::new(
            "resent-unasked",
            "what is not acknowledged is resent on the same connection after a second",
        )
        .on_server(|link, bytes| {
            if link
                .read(bytes)
                .is_some_and(|it| it.kind == PUBLISH && it.qos() > 0 && !it.dup())
            {
                let mut again = bytes.to_vec();
                if let Some(first) = again.first_mut() {
                    *first |= 8;
                }
                link.order(Order::Later(1_000, again));
            }
            Turn::Keep
        }),
        Mutation::new(
            "resent-though-done",
            "after a resume comes what was acknowledged before",
        )
        .on_server(|link, bytes| {
            let resumed = link
                .read(bytes)
                .is_some_and(|it| it.kind == CONNACK && it.present);
            let last = link.common().given.values().next_back().cloned();
            match last.filter(|_| resumed) {
                Some(mut again) => {
                    if let Some(first) = again.first_mut() {
                        *first |= 8;
                    }
                    Turn::Instead(vec![bytes.to_vec(), again])
                }
                None => Turn::Keep,
            }
        }),
        Mutation::new("resent-last", "what is resent comes after what is new").on_server(|link, bytes| {
            match link.read(bytes) {
                Some(it) if it.kind == PUBLISH && it.dup() => {
                    link.order(Order::Later(300, bytes.to_vec()));
                    nothing()
                }
                _ => Turn::Keep,
            }
        }),
        dropped(
            "empty-lost",
            "messages with an empty payload are not delivered",
            |_, it| it.kind == PUBLISH && it.payload.is_empty(),
        ),
        dropped(
            "retained-lost",
            "retained messages are not delivered to new subscriptions",
            |_, it| it.kind == PUBLISH && it.retain(),
        ),
        doubled(
            "retained-doubled",
            "retained messages are delivered twice",
            |_, it| it.kind == PUBLISH && it.retain(),
        ),
        dropped(
            "eleventh-retained-lost",
            "a subscription gets ten retained messages at most",
            |link, it| {
                link.count += u32::from(it.kind == PUBLISH && it.retain());
                it.kind == PUBLISH && it.retain() && link.count > 10
            },
        ),
    ]);
    all
}

fn flags() -> Vec<Mutation> {
    vec![
        publish("dup-set", "DUP is set on a first delivery", |_, it| {
            let change = it.qos() > 0 && !it.dup();
            it.flags |= 8;
            change
        }),
        publish(
            "dup-cleared",
            "DUP is not set when something is resent",
            |_, it| {
                let change = it.dup();
                it.flags &= !8;
                change
            },
        ),
        publish("retain-set", "RETAIN is set on every delivery", |_, it| {
            let change = !it.retain();
            it.flags |= 1;
            change
        }),
        publish("retain-cleared", "RETAIN is set on no delivery", |_, it| {
            let change = it.retain();
            it.flags &= !1;
            change
        }),
        publish(
            "retain-cleared-on-resend",
            "RETAIN is not set when something is resent",
            |_, it| {
                let change = it.retain() && it.dup();
                it.flags &= !1;
                change
            },
        ),
        publish("qos-raised", "QoS 1 is delivered as QoS 2", |_, it| {
            let change = it.qos() == 1;
            it.flags = it.flags & !6 | 4;
            change
        }),
        publish("qos-0-raised", "QoS 0 is delivered as QoS 1", |_, it| {
            let change = it.qos() == 0;
            if change {
                it.flags |= 2;
                it.pid = 65_001;
            }
            change
        }),
        publish("qos-2-lowered", "QoS 2 is delivered as QoS 1", |_, it| {
            let change = it.qos() == 2;
            it.flags = it.flags & !6 | 2;
            change
        }),
        publish("qos-1-lowered", "QoS 1 is delivered as QoS 0", |_, it| {
            let change = it.qos() == 1;
            it.flags &= !14;
            change
        }),
        publish(
            "other-id-on-resend",
            "what is resent has another identifier",
            |_, it| {
                it.pid ^= 0x40;
                it.dup()
            },
        ),
        publish(
            "one-pid-for-all",
            "all deliveries have the same identifier",
            |_, it| {
                let change = it.qos() > 0;
                it.pid = 7;
                change
            },
        ),
        publish(
            "id-reused",
            "a delivery after a resume has an identifier whose PUBREL is owed",
            |link, it| {
                let owed = link.common().given.keys().next().copied();
                match owed.filter(|_| it.qos() > 0 && !it.dup() && !link.out.contains_key(&it.pid)) {
                    Some(owed) if owed != it.pid => {
                        it.pid = owed;
                        true
                    }
                    _ => false,
                }
            },
        ),
        Mutation::new("id-in-qos-0", "a PUBLISH with QoS 0 has an identifier").on_server(|link, bytes| {
            match link.read(bytes) {
                Some(mut it) if it.kind == PUBLISH && it.qos() == 0 => {
                    it.payload.splice(0..0, [0, 9]);
                    instead(super::sent::built(link.version, &it))
                }
                _ => Turn::Keep,
            }
        }),
        publish("id-0", "deliveries have identifier 0", |_, it| {
            let change = it.qos() > 0;
            it.pid = 0;
            change
        }),
    ]
}

pub(crate) fn list() -> Vec<Mutation> {
    [which(), flags()].into_iter().flatten().collect()
}
