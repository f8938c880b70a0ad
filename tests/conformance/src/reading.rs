//! Packets of the server, read strictly: whatever the specification allows in no state is an error here.

use crate::wire::{
    AUTH, CONNACK, DISCONNECT, PINGRESP, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, Props, SUBACK, UNSUBACK,
    Value, Version, kind_name, text,
};

/// A packet from the server. Fields that its kind does not have are empty.
#[derive(Debug, Clone, Default)]
pub(crate) struct Packet {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) pid: u16,
    pub(crate) code: u8,
    pub(crate) codes: Vec<u8>,
    pub(crate) present: bool,
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) props: Props,
    /// The whole packet's bytes.
    pub(crate) size: usize,
}

impl Packet {
    pub(crate) fn dup(&self) -> bool {
        self.flags & 8 != 0
    }

    pub(crate) fn qos(&self) -> u8 {
        self.flags >> 1 & 3
    }

    pub(crate) fn retain(&self) -> bool {
        self.flags & 1 != 0
    }

    pub(crate) fn prop(&self, id: u8) -> Option<&Value> {
        self.props
            .iter()
            .find(|(it, _)| *it == id)
            .map(|(_, value)| value)
    }

    /// All user properties, in order.
    pub(crate) fn users(&self) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.props
            .iter()
            .filter_map(|(_, value)| match value {
                Value::Pair(name, value) => Some((text(name), text(value))),
                _ => None,
            })
            .collect()
    }

    /// All subscription identifiers, sorted.
    pub(crate) fn identifiers(&self) -> Vec<u32> {
        let mut all: Vec<u32> = self
            .props
            .iter()
            .filter_map(|(_, value)| match value {
                Value::Var(number) => Some(*number),
                _ => None,
            })
            .collect();
        all.sort_unstable();
        all
    }

    /// In a few words, for messages.
    pub(crate) fn short(&self) -> String {
        let name = kind_name(self.kind);
        match self.kind {
            PUBLISH => format!(
                "PUBLISH q{} d{} r{} id {} \"{}\" {:?}",
                self.qos(),
                u8::from(self.dup()),
                u8::from(self.retain()),
                self.pid,
                self.topic,
                String::from_utf8_lossy(self.payload.get(..40).unwrap_or(&self.payload))
            ),
            SUBACK | UNSUBACK => format!("{name} id {} {:02x?}", self.pid, self.codes),
            PINGRESP => name.to_owned(),
            CONNACK => format!("{name} present {} code {:#04x}", self.present, self.code),
            DISCONNECT | AUTH => format!("{name} code {:#04x}", self.code),
            _ => format!("{name} id {} code {:#04x}", self.pid, self.code),
        }
    }
}

/// Reads bytes from the front.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (front, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or("the packet ends too early")?;
        self.rest = rest;
        Ok(front)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?.first().copied().unwrap_or_default())
    }

    fn two(&mut self) -> Result<u16, String> {
        Ok(self
            .take(2)?
            .iter()
            .fold(0, |sum, byte| sum << 8 | u16::from(*byte)))
    }

    fn four(&mut self) -> Result<u32, String> {
        Ok(self
            .take(4)?
            .iter()
            .fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
    }

    fn var(&mut self) -> Result<u32, String> {
        let mut number = 0_u32;
        for place in 0..4 {
            let byte = self.byte()?;
            number |= u32::from(byte & 0x7F) << (7 * place);
            if byte & 0x80 == 0 {
                if byte == 0 && place > 0 {
                    return Err("a Variable Byte Integer is longer than it need be".into());
                }
                return Ok(number);
            }
        }
        Err("a Variable Byte Integer of five bytes".into())
    }

    fn field(&mut self) -> Result<&'a [u8], String> {
        let length = self.two()?;
        self.take(length.into())
    }

    fn text(&mut self) -> Result<&'a [u8], String> {
        let bytes = self.field()?;
        let text = std::str::from_utf8(bytes).map_err(|_| "a text that is not UTF-8")?;
        if text.contains('\0') {
            return Err("a text with U+0000".into());
        }
        Ok(bytes)
    }

    fn props(&mut self, version: Version, kind: u8) -> Result<Props, String> {
        if version == Version::V311 {
            return Ok(Vec::new());
        }
        let length = self.var()?;
        let mut inner = Reader {
            rest: self.take(length as usize)?,
        };
        let mut found: Props = Vec::new();
        while !inner.rest.is_empty() {
            let id = inner.byte()?;
            if !(id == 0x26 || (id == 0x0B && kind == PUBLISH)) && found.iter().any(|(it, _)| *it == id) {
                return Err(format!("property {id:#04x} twice in {}", kind_name(kind)));
            }
            let value = match id {
                0x01 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => Value::Byte(inner.byte()?),
                0x13 | 0x21 | 0x22 | 0x23 => Value::Two(inner.two()?),
                0x02 | 0x11 | 0x27 => Value::Four(inner.four()?),
                0x0B => Value::Var(inner.var()?),
                0x03 | 0x08 | 0x12 | 0x15 | 0x1A | 0x1C | 0x1F => text(inner.text()?),
                0x09 | 0x16 => text(inner.field()?),
                0x26 => Value::Pair(inner.text()?.to_vec(), inner.text()?.to_vec()),
                _ => return Err(format!("property {id:#04x} does not exist")),
            };
            let allowed = match id {
                0x01 | 0x02 | 0x03 | 0x08 | 0x09 | 0x0B | 0x23 => kind == PUBLISH,
                0x15 | 0x16 => kind == CONNACK || kind == AUTH,
                0x1C => kind == CONNACK || kind == DISCONNECT,
                0x1F => kind != PUBLISH,
                0x26 => true,
                _ => kind == CONNACK,
            };
            if !allowed {
                return Err(format!(
                    "property {id:#04x} in a {} from the server",
                    kind_name(kind)
                ));
            }
            found.push((id, value));
        }
        Ok(found)
    }
}

/// Whether the server may give this reason code in this packet.
fn code_exists(version: Version, kind: u8, code: u8) -> bool {
    if version == Version::V311 {
        return match kind {
            CONNACK => code <= 5,
            SUBACK => matches!(code, 0..=2 | 0x80),
            _ => true,
        };
    }
    match kind {
        CONNACK => {
            matches!(code, 0 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F)
        }
        PUBACK | PUBREC => matches!(code, 0 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99),
        PUBREL | PUBCOMP => matches!(code, 0 | 0x92),
        SUBACK => matches!(
            code,
            0..=2 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2
        ),
        UNSUBACK => matches!(code, 0 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91),
        DISCONNECT => {
            matches!(code, 0 | 0x80..=0x83 | 0x87 | 0x89 | 0x8B | 0x8D..=0x90 | 0x93..=0xA2)
        }
        AUTH => matches!(code, 0 | 0x18),
        _ => false,
    }
}

/// The first whole packet in `bytes` and how many bytes it has; None while more bytes are needed.
///
/// # Errors
/// When it is one that no server may send.
pub(crate) fn parse(version: Version, bytes: &[u8]) -> Result<Option<Packet>, String> {
    let Some((first, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let digits = rest.iter().take(4).position(|byte| byte & 0x80 == 0);
    let Some(digits) = digits else {
        return if rest.len() < 4 {
            Ok(None)
        } else {
            Err("a remaining length of five bytes".into())
        };
    };
    let mut reader = Reader { rest };
    let length = reader.var()?;
    let Some(body) = reader.rest.get(..length as usize) else {
        return Ok(None);
    };
    let mut found = Packet {
        kind: first >> 4,
        flags: first & 0x0F,
        size: 2 + digits + body.len(),
        ..Packet::default()
    };
    let mut body = Reader { rest: body };
    body_of(version, &mut found, &mut body)?;
    if !body.rest.is_empty() {
        return Err(format!(
            "{} bytes too many in {}",
            body.rest.len(),
            kind_name(found.kind)
        ));
    }
    let expected = match found.kind {
        PUBLISH => found.flags,
        PUBREL => 2,
        _ => 0,
    };
    if found.flags != expected {
        return Err(format!("flags {:#x} in {}", found.flags, kind_name(found.kind)));
    }
    let coded = matches!(
        found.kind,
        CONNACK | PUBACK | PUBREC | PUBREL | PUBCOMP | DISCONNECT | AUTH
    );
    let bad = found
        .codes
        .iter()
        .chain(coded.then_some(&found.code))
        .find(|code| !code_exists(version, found.kind, **code));
    match bad {
        Some(code) => Err(format!("reason code {code:#04x} in {}", kind_name(found.kind))),
        None => Ok(Some(found)),
    }
}

fn body_of(version: Version, found: &mut Packet, body: &mut Reader<'_>) -> Result<(), String> {
    match found.kind {
        CONNACK => {
            let flags = body.byte()?;
            if flags > 1 {
                return Err(format!("CONNACK flags {flags:#04x}"));
            }
            found.present = flags == 1;
            found.code = body.byte()?;
            found.props = body.props(version, CONNACK)?;
        }
        PUBLISH => {
            if found.qos() == 3 {
                return Err("PUBLISH with QoS 3".into());
            }
            if found.qos() == 0 && found.dup() {
                return Err("PUBLISH with QoS 0 and DUP".into());
            }
            found.topic = String::from_utf8_lossy(body.text()?).into_owned();
            if found.topic.contains(['+', '#']) {
                return Err("PUBLISH with a wildcard in its topic".into());
            }
            if found.qos() > 0 {
                found.pid = body.two()?;
                if found.pid == 0 {
                    return Err("PUBLISH with packet identifier 0".into());
                }
            }
            found.props = body.props(version, PUBLISH)?;
            if found.topic.is_empty() && found.prop(0x23).is_none() {
                return Err("PUBLISH with neither topic nor alias".into());
            }
            found.payload = body.take(body.rest.len())?.to_vec();
        }
        PUBACK | PUBREC | PUBREL | PUBCOMP => {
            found.pid = body.two()?;
            if version == Version::V5 && !body.rest.is_empty() {
                found.code = body.byte()?;
                if !body.rest.is_empty() {
                    found.props = body.props(version, found.kind)?;
                }
            }
        }
        SUBACK | UNSUBACK => {
            found.pid = body.two()?;
            found.props = body.props(version, found.kind)?;
            if version == Version::V5 || found.kind == SUBACK {
                found.codes = body.take(body.rest.len())?.to_vec();
                if found.codes.is_empty() {
                    return Err(format!("{} without codes", kind_name(found.kind)));
                }
            }
        }
        PINGRESP => {}
        DISCONNECT | AUTH if version == Version::V5 => {
            if !body.rest.is_empty() {
                found.code = body.byte()?;
                if !body.rest.is_empty() {
                    found.props = body.props(version, found.kind)?;
                }
            }
        }
        kind => return Err(format!("a {} from the server", kind_name(kind))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Out;

    #[test]
    fn what_no_server_may_send_is_an_error() {
        for (version, bytes) in [
            (Version::V311, &[0x20, 2, 2, 0][..]),
            (Version::V311, &[0x20, 2, 0, 6]),
            (Version::V5, &[0x20, 3, 0, 1, 0]),
            (Version::V311, &[0x21, 2, 0, 0]),
            (Version::V311, &[0x36, 5, 0, 1, b'a', 0, 1]),
            (Version::V311, &[0x38, 3, 0, 1, b'a']),
            (Version::V311, &[0x32, 5, 0, 1, b'a', 0, 0]),
            (Version::V311, &[0x30, 3, 0, 1, b'#']),
            (Version::V311, &[0x30, 3, 0, 1, 0xFF]),
            (Version::V311, &[0xD0, 1, 0]),
            (Version::V311, &[0xE0, 0]),
            (Version::V311, &[0xD0, 0x80, 0]),
            (Version::V5, &[0x40, 3, 0, 1, 0x92]),
            (Version::V5, &[0x30, 6, 0, 1, b'a', 2, 0x24, 1]),
        ] {
            assert!(parse(version, bytes).is_err(), "{bytes:02x?}");
        }
    }

    #[test]
    fn what_is_built_is_read() {
        let out = Out::new("a/b", "x", 1, 7).with(0x02, Value::Four(5)).retain();
        let bytes = out.bytes(Version::V5);
        let packet = parse(Version::V5, &bytes).unwrap().unwrap();
        assert_eq!(
            (packet.topic.as_str(), packet.qos(), packet.pid, packet.retain()),
            ("a/b", 1, 7, true)
        );
        assert_eq!(packet.prop(0x02), Some(&Value::Four(5)));
        assert_eq!(packet.size, bytes.len());
        assert!(parse(Version::V5, &bytes[..bytes.len() - 1]).unwrap().is_none());
    }
}
