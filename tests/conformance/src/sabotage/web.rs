//! MQTT over WebSocket: the upgrade and frames instead of packets, and the mutations of them.

use std::sync::{Arc, Mutex};

use super::link::{Link, Order, Turn};
use super::mutation::{Event, Mutation, instead, nothing};
use super::proxy::{Wires, Work};

/// One direction.
#[derive(Debug, Default)]
pub(crate) struct Side {
    upgraded: bool,
    /// It is no WebSocket: all is passed on as it is.
    plain: bool,
}

/// The whole frame at the front: its bytes.
fn whole(bytes: &[u8]) -> Option<usize> {
    let [_, second, ..] = bytes else { return None };
    let (head, length) = match second & 0x7F {
        126 => {
            let long = bytes.get(2..4)?;
            (4, long.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
        }
        length => (2, length.into()),
    };
    let length = head + if second & 0x80 == 0 { 0 } else { 4 } + length;
    (bytes.len() >= length).then_some(length)
}

impl Side {
    /// The head of HTTP at the front, taken out once.
    fn head(&mut self, bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head: Vec<u8> = bytes.drain(..end + 4).collect();
        self.upgraded = true;
        self.plain = !String::from_utf8_lossy(&head)
            .to_lowercase()
            .contains("upgrade: websocket");
        Some(head)
    }

    pub(crate) fn client(
        &mut self,
        work: &Work,
        number: u64,
        link: &Mutex<Link>,
        wires: &Arc<Wires>,
        bytes: &mut Vec<u8>,
    ) {
        if !self.upgraded {
            let Some(head) = self.head(bytes) else { return };
            wires.to_server(&head);
        }
        if self.plain {
            return wires.to_server(&std::mem::take(bytes));
        }
        while let Some(length) = whole(bytes) {
            let frame: Vec<u8> = bytes.drain(..length).collect();
            let (turn, orders) = work.turn(number, link, &Event::FrameFromClient(frame.clone()));
            work.obey(wires, orders);
            match turn {
                Turn::Keep => wires.to_server(&frame),
                Turn::Instead(all) => all.iter().for_each(|bytes| wires.to_server(bytes)),
            }
        }
    }

    pub(crate) fn server(
        &mut self,
        work: &Work,
        number: u64,
        link: &Mutex<Link>,
        wires: &Arc<Wires>,
        bytes: &mut Vec<u8>,
    ) {
        if !self.upgraded {
            let Some(head) = self.head(bytes) else { return };
            if self.plain {
                wires.to_client(&head);
                return wires.to_client(&std::mem::take(bytes));
            }
            let (turn, _) = work.turn(number, link, &Event::Head(head.clone()));
            match turn {
                Turn::Keep => wires.to_client(&head),
                Turn::Instead(all) => all.iter().for_each(|bytes| wires.to_client(bytes)),
            }
        }
        if self.plain {
            return wires.to_client(&std::mem::take(bytes));
        }
        while let Some(length) = whole(bytes) {
            let frame: Vec<u8> = bytes.drain(..length).collect();
            let (turn, orders) = work.turn(number, link, &Event::FrameFromServer(frame.clone()));
            work.obey(wires, orders);
            match turn {
                Turn::Keep => wires.to_client(&frame),
                Turn::Instead(all) => all.iter().for_each(|bytes| wires.to_client(bytes)),
            }
        }
    }
}

/// The same frame with another first byte.
fn first(bytes: &[u8], first: u8) -> Turn {
    let mut bytes = bytes.to_vec();
    if let Some(byte) = bytes.first_mut() {
        *byte = first;
    }
    instead(bytes)
}

fn is(bytes: &[u8], first: u8) -> bool {
    bytes.first() == Some(&first)
}

/// The lines of a head but those that begin with this.
fn without(head: &[u8], line: &str) -> String {
    String::from_utf8_lossy(head)
        .split_inclusive("\r\n")
        .filter(|it| !it.to_lowercase().starts_with(line))
        .collect()
}

pub(crate) fn list() -> Vec<Mutation> {
    vec![
        Mutation::new("ws-no-subprotocol", "WebSocket: the answer names no subprotocol")
            .head(|_, head| instead(without(head, "sec-websocket-protocol").into_bytes())),
        Mutation::new(
            "ws-first-subprotocol",
            "WebSocket: the first subprotocol offered is taken",
        )
        .head(|_, head| {
            let head = without(head, "sec-websocket-protocol");
            instead(
                head.replacen("\r\n", "\r\nSec-WebSocket-Protocol: other\r\n", 1)
                    .into_bytes(),
            )
        }),
        Mutation::new("ws-text-out", "WebSocket: the server sends text frames").frame_on_server(
            |_, bytes| {
                if is(bytes, 0x82) {
                    first(bytes, 0x81)
                } else {
                    Turn::Keep
                }
            },
        ),
        Mutation::new("ws-text-in-taken", "WebSocket: text frames are taken as binary").frame_on_client(
            |_, bytes| {
                if !is(bytes, 0x81) {
                    return Turn::Keep;
                }
                let ping = [0xC0, 0];
                let mut bytes = bytes.get(..6).unwrap_or_default().to_vec();
                bytes.extend(ping);
                first(&bytes, 0x82)
            },
        ),
        Mutation::new("ws-text-in-ignored", "WebSocket: text frames are ignored").frame_on_client(
            |_, bytes| {
                if is(bytes, 0x81) { nothing() } else { Turn::Keep }
            },
        ),
        Mutation::new(
            "ws-frame-is-packet",
            "WebSocket: a frame that is no whole packet is ignored",
        )
        .frame_on_client(|_, bytes| {
            let packet = bytes.get(6..).unwrap_or_default();
            let whole = super::sent::length(packet) == Some(packet.len());
            if whole || !matches!(bytes.first(), Some(0x82 | 0x02 | 0x80 | 0)) {
                Turn::Keep
            } else {
                nothing()
            }
        }),
        Mutation::new(
            "ws-fragments-refused",
            "WebSocket: a message in fragments ends the connection",
        )
        .frame_on_client(|link, bytes| {
            if is(bytes, 0x02) {
                link.order(Order::Cut);
            }
            Turn::Keep
        }),
        Mutation::new(
            "ws-fragment-lost",
            "WebSocket: the last fragment of a message is lost",
        )
        .frame_on_client(|_, bytes| if is(bytes, 0x80) { nothing() } else { Turn::Keep }),
        Mutation::new("ws-no-pong", "WebSocket: a ping is not answered")
            .frame_on_server(|_, bytes| if is(bytes, 0x8A) { nothing() } else { Turn::Keep }),
        Mutation::new("ws-empty-pong", "WebSocket: a pong has not what the ping had").frame_on_server(
            |_, bytes| {
                if is(bytes, 0x8A) {
                    instead(vec![0x8A, 0])
                } else {
                    Turn::Keep
                }
            },
        ),
        Mutation::new("ws-unmasked-taken", "WebSocket: frames without a mask are taken").frame_on_client(
            |_, bytes| match bytes {
                [first, second, rest @ ..] if second & 0x80 == 0 => {
                    let mut masked = vec![*first, second | 0x80, 0, 0, 0, 0];
                    masked.extend(rest);
                    instead(masked)
                }
                _ => Turn::Keep,
            },
        ),
        Mutation::new(
            "ws-packet-in-two-frames",
            "WebSocket: a packet of the server comes in two frames",
        )
        .frame_on_server(|_, bytes| match bytes {
            [0x82, length @ 2..=125, kind, rest @ ..] => {
                let mut second = vec![0x82, length - 1];
                second.extend(rest);
                Turn::Instead(vec![vec![0x82, 1, *kind], second])
            }
            _ => Turn::Keep,
        }),
    ]
}
