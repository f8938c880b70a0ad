//! Mutations of what the server answers: CONNACK, SUBACK, UNSUBACK, PINGRESP, DISCONNECT and properties of all. The
//! acknowledgements of messages are in `acks`.

use super::link::{Order, Turn};
use super::mutation::{Mutation, answer, doubled, dropped, instead, nothing};
use crate::wire::{
    CONNACK, DISCONNECT, PINGRESP, PUBACK, PUBLISH, SUBACK, UNSUBACK, Value, Version, text, user,
};

/// A property of CONNACK set.
fn announces(name: &str, says: &str, id: u8, value: Value) -> Mutation {
    answer(name, says, move |link, it| {
        let change = it.kind == CONNACK && it.code == 0 && link.version == Version::V5;
        if change {
            it.props.retain(|(known, _)| *known != id);
            it.props.push((id, value.clone()));
        }
        change
    })
}

/// A property of CONNACK left out.
fn conceals(name: &str, says: &str, id: u8) -> Mutation {
    answer(name, says, move |_, it| {
        let before = it.props.len();
        if it.kind == CONNACK {
            it.props.retain(|(known, _)| *known != id);
        }
        before != it.props.len()
    })
}

fn connack() -> Vec<Mutation> {
    vec![
        answer("present-set", "session present is always 1", |_, it| {
            let change = it.kind == CONNACK && it.code == 0 && !it.present;
            it.present |= change;
            change
        }),
        answer("present-cleared", "session present is always 0", |_, it| {
            let change = it.kind == CONNACK && it.present;
            it.present &= !change;
            change
        }),
        answer(
            "present-in-refusal",
            "session present is 1 in a CONNACK that refuses",
            |_, it| {
                let change = it.kind == CONNACK && it.code != 0;
                it.present |= change;
                change
            },
        ),
        doubled("connack-doubled", "CONNACK comes twice", |_, it| {
            it.kind == CONNACK && it.code == 0
        }),
        Mutation::new("connack-second", "CONNACK comes after the next packet").on_server(|link, bytes| {
            if bytes.first() == Some(&0x20) {
                link.aside.push(bytes.to_vec());
                return nothing();
            }
            match link.aside.pop() {
                Some(connack) => Turn::Instead(vec![bytes.to_vec(), connack]),
                None => Turn::Keep,
            }
        }),
        Mutation::new(
            "everyone-let-in",
            "a CONNECT that is refused gets CONNACK 0 and stays open",
        )
        .on_server(|link, bytes| match link.read(bytes) {
            Some(it) if it.kind == CONNACK && it.code != 0 => {
                link.count = 1;
                instead(match link.version {
                    Version::V5 => vec![0x20, 3, 0, 0, 0],
                    Version::V311 => vec![0x20, 2, 0, 0],
                })
            }
            _ => Turn::Keep,
        })
        .server_end(|link, _| if link.count == 1 { nothing() } else { Turn::Keep }),
        answer(
            "refused-otherwise",
            "a CONNECT is refused for another reason",
            |link, it| {
                let other = if link.version == Version::V5 { 0x88 } else { 3 };
                let change = it.kind == CONNACK && it.code != 0;
                if change {
                    it.code = other;
                }
                change
            },
        ),
        dropped(
            "refused-silently",
            "a CONNECT that is refused gets no CONNACK",
            |_, it| it.kind == CONNACK && it.code != 0,
        ),
        Mutation::new(
            "level-answered-later",
            "an unknown protocol level is answered in the form of 5.0",
        )
        .on_server(|_, bytes| {
            if bytes == [0x20, 2, 0, 1] {
                instead(vec![0x20, 3, 0, 0x84, 0])
            } else {
                Turn::Keep
            }
        }),
        conceals("assigned-id-not-told", "an assigned client id is not told", 0x12),
        announces(
            "id-assigned-to-all",
            "a client id is assigned to who has one",
            0x12,
            text("given"),
        ),
        answer(
            "one-id-for-all",
            "all without a client id are told the same one",
            |_, it| {
                let change = it.kind == CONNACK && it.prop(0x12).is_some();
                if change {
                    it.props.retain(|(id, _)| *id != 0x12);
                    it.props.push((0x12, text("same")));
                }
                change
            },
        ),
        announces(
            "says-no-qos-2",
            "CONNACK says that QoS 1 is the most",
            0x24,
            Value::Byte(1),
        ),
        announces(
            "says-no-retain",
            "CONNACK says that there are no retained messages",
            0x25,
            Value::Byte(0),
        ),
        announces(
            "says-window-0",
            "CONNACK has a receive maximum of 0",
            0x21,
            Value::Two(0),
        ),
        announces(
            "response-information",
            "CONNACK has response information unasked",
            0x1A,
            text("info"),
        ),
        announces(
            "says-larger-packets",
            "CONNACK announces twice the packet size",
            0x27,
            Value::Four(524_288),
        ),
        announces(
            "says-larger-window",
            "CONNACK announces a larger receive maximum",
            0x21,
            Value::Two(4_000),
        ),
        announces(
            "says-aliases",
            "CONNACK announces topic aliases",
            0x22,
            Value::Two(10),
        ),
        announces(
            "says-shared",
            "CONNACK says that shared subscriptions are there",
            0x2A,
            Value::Byte(1),
        ),
        announces(
            "says-not-shared",
            "CONNACK says that shared subscriptions are not there",
            0x2A,
            Value::Byte(0),
        ),
        conceals(
            "shared-not-told",
            "CONNACK says nothing of shared subscriptions",
            0x2A,
        ),
        conceals(
            "expiry-not-told",
            "CONNACK does not tell another session expiry",
            0x11,
        ),
        announces(
            "expiry-told-wrong",
            "CONNACK tells a session expiry of 5 s",
            0x11,
            Value::Four(5),
        ),
        announces(
            "method-told",
            "CONNACK has an authentication method unasked",
            0x15,
            text("X"),
        ),
    ]
}

fn subacks() -> Vec<Mutation> {
    vec![
        answer("suback-other-id", "SUBACK has another identifier", |_, it| {
            it.pid ^= 1;
            it.kind == SUBACK
        }),
        answer(
            "suback-id-cut",
            "SUBACK has the low byte of its identifier only",
            |_, it| {
                let change = it.kind == SUBACK && it.pid > 0xFF;
                it.pid &= 0xFF;
                change
            },
        ),
        answer(
            "unsuback-id-cut",
            "UNSUBACK has the low byte of its identifier only",
            |_, it| {
                let change = it.kind == UNSUBACK && it.pid > 0xFF;
                it.pid &= 0xFF;
                change
            },
        ),
        answer(
            "suback-backwards",
            "the codes of SUBACK are in reverse order",
            |_, it| {
                it.codes.reverse();
                it.kind == SUBACK && it.codes.len() > 1
            },
        ),
        answer(
            "suback-short",
            "SUBACK has a code for the first filter only",
            |_, it| {
                let change = it.kind == SUBACK && it.codes.len() > 1;
                if change {
                    it.codes.truncate(1);
                }
                change
            },
        ),
        answer(
            "grants-less",
            "SUBACK grants QoS 1 where QoS 2 was asked for",
            |_, it| {
                let change = it.kind == SUBACK && it.codes.contains(&2);
                it.codes
                    .iter_mut()
                    .for_each(|code| *code = (*code).min(if *code > 2 { *code } else { 1 }));
                change
            },
        ),
        answer("grants-all", "SUBACK grants what was refused", |_, it| {
            let change = it.kind == SUBACK && it.codes.iter().any(|code| *code >= 0x80);
            it.codes
                .iter_mut()
                .for_each(|code| *code = if *code >= 0x80 { 0 } else { *code });
            change
        }),
        answer(
            "one-refused-all-refused",
            "one refused filter refuses all of its SUBSCRIBE",
            |_, it| {
                let refused = it.codes.iter().copied().find(|code| *code >= 0x80);
                let change = it.kind == SUBACK && refused.is_some() && it.codes.len() > 1;
                if let (true, Some(refused)) = (change, refused) {
                    it.codes.iter_mut().for_each(|code| *code = refused);
                }
                change
            },
        ),
        answer(
            "refuses-otherwise",
            "a filter is refused with another code",
            |link, it| {
                let change = it.kind == SUBACK
                    && link.version == Version::V5
                    && it.codes.iter().any(|code| *code > 0x80);
                it.codes.iter_mut().for_each(|code| *code = (*code).min(0x80));
                change
            },
        ),
        Mutation::new("refused-filter-ends", "a refused filter ends the connection").on_server(
            |link, bytes| {
                if link
                    .read(bytes)
                    .is_some_and(|it| it.kind == SUBACK && it.codes.iter().any(|code| *code >= 0x80))
                {
                    link.order(Order::Cut);
                }
                Turn::Keep
            },
        ),
        doubled("suback-doubled", "SUBACK comes twice", |_, it| it.kind == SUBACK),
        answer("unsuback-other-id", "UNSUBACK has another identifier", |_, it| {
            it.pid ^= 1;
            it.kind == UNSUBACK
        }),
        answer(
            "unsuback-always-0",
            "UNSUBACK never says that there was nothing",
            |_, it| {
                let change = it.kind == UNSUBACK && it.codes.contains(&0x11);
                it.codes.iter_mut().for_each(|code| *code = 0);
                change
            },
        ),
        answer(
            "unsuback-backwards",
            "the codes of UNSUBACK are in reverse order",
            |_, it| {
                it.codes.reverse();
                it.kind == UNSUBACK && it.codes.len() > 1
            },
        ),
        dropped("unsuback-missing", "UNSUBSCRIBE is not answered", |_, it| {
            it.kind == UNSUBACK
        }),
        doubled("unsuback-doubled", "UNSUBACK comes twice", |_, it| {
            it.kind == UNSUBACK
        }),
    ]
}

fn rest() -> Vec<Mutation> {
    vec![
        dropped("pingresp-missing", "PINGREQ is not answered", |_, it| {
            it.kind == PINGRESP
        }),
        doubled("pingresp-doubled", "PINGRESP comes twice", |_, it| {
            it.kind == PINGRESP
        }),
        Mutation::new(
            "pings-answered-at-once",
            "the second of two PINGREQ is not answered",
        )
        .on_server(|link, bytes| {
            if bytes != [0xD0, 0] {
                return Turn::Keep;
            }
            link.count += 1;
            if link.count.is_multiple_of(2) {
                nothing()
            } else {
                Turn::Keep
            }
        }),
        dropped(
            "disconnect-untold",
            "the server closes without DISCONNECT",
            |_, it| it.kind == DISCONNECT,
        ),
        answer(
            "disconnect-otherwise",
            "the server's DISCONNECT has reason 0x80",
            |_, it| {
                let change = it.kind == DISCONNECT && it.code != 0x80;
                if change {
                    it.code = 0x80;
                }
                change
            },
        ),
        answer(
            "disconnect-with-expiry",
            "the server's DISCONNECT has a session expiry",
            |_, it| {
                let change = it.kind == DISCONNECT;
                if change {
                    it.props.push((0x11, Value::Four(60)));
                }
                change
            },
        ),
        Mutation::new("talks-after-disconnect", "packets follow the server's DISCONNECT").on_server(
            |_, bytes| match bytes.first() {
                Some(0xE0) => Turn::Instead(vec![[bytes, &[0xD0, 0]].concat()]),
                _ => Turn::Keep,
            },
        ),
        answer(
            "reasons-everywhere",
            "all answers have a reason string, asked for or not",
            |link, it| {
                let change = link.version == Version::V5
                    && !matches!(it.kind, PUBLISH | PINGRESP)
                    && !(it.kind == CONNACK && it.code == 0);
                if change {
                    it.props.push((0x1F, text("for no reason at all")));
                }
                change
            },
        ),
        answer(
            "users-in-acks",
            "refusals have user properties, asked for or not",
            |link, it| {
                let change = link.version == Version::V5
                    && (it.code >= 0x80 || it.codes.iter().any(|code| *code >= 0x80))
                    && it.kind != CONNACK;
                if change {
                    it.props.push(user("a", "b"));
                }
                change
            },
        ),
        Mutation::new("flags-in-acks", "the server's PUBACK has flags").on_server(|_, bytes| {
            match bytes.split_first() {
                Some((first, rest)) if first >> 4 == PUBACK => instead([&[first | 2], rest].concat()),
                _ => Turn::Keep,
            }
        }),
        Mutation::new("unasked-pingresp", "a PINGRESP comes unasked after each SUBACK").on_server(
            |link, bytes| {
                if bytes.first() == Some(&0x90) {
                    link.order(Order::Later(30, vec![0xD0, 0]));
                }
                Turn::Keep
            },
        ),
    ]
}

pub(crate) fn list() -> Vec<Mutation> {
    [connack(), subacks(), rest()].into_iter().flatten().collect()
}
