//! Packets of clients taken apart without judging them, so that they can be changed and put together again. What cannot
//! even be taken apart is None. Packets of servers are read by `reading` and put together here too.

use crate::wire::{
    AUTH, CONNACK, DISCONNECT, PINGRESP, PUBLISH, Packet, Props, SUBACK, UNSUBACK, Value, Version,
    bare_props, field, packet, props, var,
};

/// Reads from the front of a slice.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(front)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self, length: usize) -> Option<u32> {
        let bytes = self.take(length)?;
        Some(bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
    }

    fn two(&mut self) -> Option<u16> {
        self.number(2).and_then(|number| u16::try_from(number).ok())
    }

    fn field(&mut self) -> Option<Vec<u8>> {
        let length = self.two()?;
        self.take(length.into()).map(<[u8]>::to_vec)
    }

    fn var(&mut self) -> Option<usize> {
        let mut number = 0;
        for place in 0..4 {
            let byte = self.byte()?;
            number |= usize::from(byte & 0x7F) << (7 * place);
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn props(&mut self, version: Version) -> Option<Props> {
        if version == Version::V311 {
            return Some(Vec::new());
        }
        let length = self.var()?;
        let mut inner = Bytes(self.take(length)?);
        let mut found = Vec::new();
        while let Some(id) = inner.byte() {
            let value = match id {
                0x13 | 0x21..=0x23 => Value::Two(inner.two()?),
                0x02 | 0x11 | 0x18 | 0x27 => Value::Four(inner.number(4)?),
                0x0B => Value::Var(u32::try_from(inner.var()?).ok()?),
                0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => Value::Text(inner.field()?),
                0x26 => Value::Pair(inner.field()?, inner.field()?),
                _ => Value::Byte(inner.byte()?),
            };
            found.push((id, value));
        }
        Some(found)
    }
}

/// First byte and body of a whole packet.
pub(crate) fn body(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let mut rest = Bytes(bytes);
    let first = rest.byte()?;
    let length = rest.var()?;
    (rest.0.len() == length).then_some((first, rest.0))
}

/// How many bytes the first packet in `bytes` has by its own word; None while that cannot be said, and
/// `Some(usize::MAX)` if it never can.
pub(crate) fn length(bytes: &[u8]) -> Option<usize> {
    let digits = bytes.get(1..)?.iter().take(4).position(|byte| byte & 0x80 == 0);
    match digits {
        None if bytes.len() > 4 => Some(usize::MAX),
        None => None,
        Some(digits) => Bytes(bytes.get(1..)?).var().map(|body| 2 + digits + body),
    }
}

/// A CONNECT.
#[derive(Debug, Clone)]
pub(crate) struct Opening {
    pub(crate) first: u8,
    pub(crate) name: Vec<u8>,
    pub(crate) level: u8,
    pub(crate) flags: u8,
    pub(crate) keep_alive: u16,
    pub(crate) props: Props,
    pub(crate) id: Vec<u8>,
    /// Properties, topic, payload.
    pub(crate) will: Option<(Props, Vec<u8>, Vec<u8>)>,
    pub(crate) user: Option<Vec<u8>>,
    pub(crate) word: Option<Vec<u8>>,
    pub(crate) tail: Vec<u8>,
}

impl Opening {
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        let (first, body) = body(bytes).filter(|(first, _)| first >> 4 == 1)?;
        let mut rest = Bytes(body);
        let name = rest.field()?;
        let level = rest.byte()?;
        let flags = rest.byte()?;
        let version = if level == 5 { Version::V5 } else { Version::V311 };
        Some(Self {
            first,
            name,
            level,
            flags,
            keep_alive: rest.two()?,
            props: rest.props(version)?,
            id: rest.field()?,
            will: match flags & 4 {
                0 => None,
                _ => Some((rest.props(version)?, rest.field()?, rest.field()?)),
            },
            user: if flags & 0x80 == 0 {
                None
            } else {
                Some(rest.field()?)
            },
            word: if flags & 0x40 == 0 {
                None
            } else {
                Some(rest.field()?)
            },
            tail: rest.0.to_vec(),
        })
    }

    pub(crate) fn version(&self) -> Version {
        if self.level == 5 {
            Version::V5
        } else {
            Version::V311
        }
    }

    pub(crate) fn clean(&self) -> bool {
        self.flags & 2 != 0
    }

    pub(crate) fn prop(&self, id: u8) -> Option<&Value> {
        self.props
            .iter()
            .find(|(it, _)| *it == id)
            .map(|(_, value)| value)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let version = self.version();
        let mut body = field(&self.name);
        body.extend([self.level, self.flags]);
        body.extend(self.keep_alive.to_be_bytes());
        body.extend(props(version, &self.props));
        body.extend(field(&self.id));
        if let Some((given, topic, payload)) = &self.will {
            body.extend(props(version, given));
            body.extend(field(topic));
            body.extend(field(payload));
        }
        for given in [&self.user, &self.word].into_iter().flatten() {
            body.extend(field(given));
        }
        body.extend(&self.tail);
        packet(self.first, &body)
    }
}

/// A PUBLISH.
#[derive(Debug, Clone)]
pub(crate) struct Posted {
    pub(crate) first: u8,
    pub(crate) topic: Vec<u8>,
    pub(crate) pid: u16,
    pub(crate) props: Props,
    pub(crate) payload: Vec<u8>,
}

impl Posted {
    pub(crate) fn of(version: Version, bytes: &[u8]) -> Option<Self> {
        let (first, body) = body(bytes).filter(|(first, _)| first >> 4 == PUBLISH)?;
        let mut rest = Bytes(body);
        Some(Self {
            first,
            topic: rest.field()?,
            pid: if first & 6 == 0 { 0 } else { rest.two()? },
            props: rest.props(version)?,
            payload: rest.0.to_vec(),
        })
    }

    pub(crate) fn qos(&self) -> u8 {
        self.first >> 1 & 3
    }

    pub(crate) fn set_qos(&mut self, qos: u8) {
        self.first = self.first & !6 | qos << 1;
    }

    pub(crate) fn retain(&self) -> bool {
        self.first & 1 != 0
    }

    pub(crate) fn bytes(&self, version: Version) -> Vec<u8> {
        let mut body = field(&self.topic);
        if self.qos() > 0 {
            body.extend(self.pid.to_be_bytes());
        }
        body.extend(props(version, &self.props));
        body.extend(&self.payload);
        packet(self.first, &body)
    }
}

/// A SUBSCRIBE or UNSUBSCRIBE.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) first: u8,
    pub(crate) pid: u16,
    pub(crate) props: Props,
    /// Filters with their options; UNSUBSCRIBE has none.
    pub(crate) filters: Vec<(Vec<u8>, u8)>,
}

impl Asked {
    pub(crate) fn of(version: Version, bytes: &[u8]) -> Option<Self> {
        let (first, body) = body(bytes).filter(|(first, _)| matches!(first >> 4, 8 | 10))?;
        let mut rest = Bytes(body);
        let (pid, props) = (rest.two()?, rest.props(version)?);
        let mut filters = Vec::new();
        while !rest.0.is_empty() {
            let filter = rest.field()?;
            filters.push((filter, if first >> 4 == 8 { rest.byte()? } else { 0 }));
        }
        Some(Self {
            first,
            pid,
            props,
            filters,
        })
    }

    pub(crate) fn bytes(&self, version: Version) -> Vec<u8> {
        let mut body = self.pid.to_be_bytes().to_vec();
        body.extend(props(version, &self.props));
        for (filter, options) in &self.filters {
            body.extend(field(filter));
            if self.first >> 4 == 8 {
                body.push(*options);
            }
        }
        packet(self.first, &body)
    }
}

/// Kind, identifier and reason code (0 if it has none) of a PUBACK, PUBREC, PUBREL or PUBCOMP.
pub(crate) fn ack_of(bytes: &[u8]) -> Option<(u8, u16, u8)> {
    let (first, body) = body(bytes).filter(|(first, _)| matches!(first >> 4, 4..=7))?;
    let mut rest = Bytes(body);
    let pid = rest.two()?;
    Some((first >> 4, pid, rest.byte().unwrap_or(0)))
}

/// Code and properties of a DISCONNECT.
pub(crate) fn leaving_of(version: Version, bytes: &[u8]) -> Option<(u8, Props)> {
    let (_, body) = body(bytes).filter(|(first, _)| first >> 4 == DISCONNECT)?;
    let mut rest = Bytes(body);
    let code = rest.byte().unwrap_or(0);
    let props = if rest.0.is_empty() {
        Vec::new()
    } else {
        rest.props(version)?
    };
    Some((code, props))
}

/// A server's packet as bytes again.
pub(crate) fn built(version: Version, it: &Packet) -> Vec<u8> {
    let mut body = Vec::new();
    match it.kind {
        CONNACK => {
            body.extend([u8::from(it.present), it.code]);
            body.extend(props(version, &it.props));
        }
        PUBLISH => {
            body.extend(field(&it.topic));
            if it.qos() > 0 {
                body.extend(it.pid.to_be_bytes());
            }
            body.extend(props(version, &it.props));
            body.extend(&it.payload);
        }
        SUBACK | UNSUBACK => {
            body.extend(it.pid.to_be_bytes());
            body.extend(props(version, &it.props));
            body.extend(&it.codes);
        }
        PINGRESP => {}
        kind => {
            if !matches!(kind, DISCONNECT | AUTH) {
                body.extend(it.pid.to_be_bytes());
            }
            if version == Version::V5 && (it.code != 0 || !it.props.is_empty()) {
                body.push(it.code);
                if !it.props.is_empty() {
                    let bare = bare_props(&it.props);
                    body.extend(var(bare.len()));
                    body.extend(bare);
                }
            }
        }
    }
    packet(it.kind << 4 | it.flags, &body)
}
