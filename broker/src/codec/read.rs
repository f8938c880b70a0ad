//! Reading the parts that packets are made of from a slice: numbers, strings, MQTT 5 properties. Copies nothing.

use godwit_wire::limits::USER_PROPERTIES;

use super::{DecodeError, reason};

/// The unread rest of a packet.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

const SHORT: DecodeError = DecodeError::malformed("a packet that ends too early");

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        let (&byte, rest) = self.0.split_first().ok_or(SHORT)?;
        self.0 = rest;
        Ok(byte)
    }

    pub(crate) fn two(&mut self) -> Result<u16, DecodeError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(SHORT)?;
        self.0 = rest;
        Ok(u16::from_be_bytes(*bytes))
    }

    pub(crate) fn four(&mut self) -> Result<u32, DecodeError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(SHORT)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    /// A variable byte integer in its shortest form.
    pub(crate) fn variable(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0;
        for index in 0..4 {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                if index > 0 && byte == 0 {
                    return Err(DecodeError::malformed("a length not in its shortest form"));
                }
                return Ok(value);
            }
        }
        Err(DecodeError::malformed("a length of more than four bytes"))
    }

    pub(crate) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.two()?;
        self.take(usize::from(len))
    }

    /// A UTF-8 string without U+0000 (MQTT-1.5.4-1, -2).
    pub(crate) fn string(&mut self) -> Result<&'a str, DecodeError> {
        let text = std::str::from_utf8(self.binary()?)
            .map_err(|_| DecodeError::malformed("a string not in UTF-8"))?;
        if text.as_bytes().contains(&0) {
            return Err(DecodeError::malformed("U+0000 in a string"));
        }
        Ok(text)
    }

    pub(crate) fn packet_id(&mut self) -> Result<u16, DecodeError> {
        match self.two()? {
            0 => Err(DecodeError::protocol("packet identifier 0")),
            id => Ok(id),
        }
    }

    /// Takes the property block that begins here.
    pub(crate) fn properties(&mut self, allowed: &'static [u8]) -> Result<Properties<'a>, DecodeError> {
        let len = self.variable()?;
        // A length of 28 bits fits.
        let block = self.take(len as usize)?;
        Ok(Properties {
            rest: Reader(block),
            allowed,
            seen: 0,
            pairs: 0,
        })
    }
}

/// MQTT 5 property identifiers (2.2.2.2) that clients send.
pub(crate) mod property {
    pub(crate) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(crate) const MESSAGE_EXPIRY: u8 = 0x02;
    pub(crate) const CONTENT_TYPE: u8 = 0x03;
    pub(crate) const RESPONSE_TOPIC: u8 = 0x08;
    pub(crate) const CORRELATION_DATA: u8 = 0x09;
    pub(crate) const SUBSCRIPTION_ID: u8 = 0x0b;
    pub(crate) const SESSION_EXPIRY: u8 = 0x11;
    pub(crate) const AUTH_METHOD: u8 = 0x15;
    pub(crate) const AUTH_DATA: u8 = 0x16;
    pub(crate) const REQUEST_PROBLEM: u8 = 0x17;
    pub(crate) const WILL_DELAY: u8 = 0x18;
    pub(crate) const REQUEST_RESPONSE: u8 = 0x19;
    pub(crate) const REASON_STRING: u8 = 0x1f;
    pub(crate) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(crate) const TOPIC_ALIAS: u8 = 0x23;
    pub(crate) const USER: u8 = 0x26;
    pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
}

/// The value of a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// One, two or four bytes, or a variable byte integer.
    Number(u32),
    /// Text.
    Text(&'a str),
    /// Bytes.
    Binary(&'a [u8]),
    /// A user property.
    Pair(&'a str, &'a str),
}

/// A block of properties, each at most once (but user properties), only those that the packet may have.
pub(crate) struct Properties<'a> {
    rest: Reader<'a>,
    allowed: &'static [u8],
    seen: u64,
    pairs: usize,
}

impl<'a> Properties<'a> {
    /// Bytes of the block that were not read yet.
    pub(crate) fn unread(&self) -> usize {
        self.rest.0.len()
    }

    /// The next one.
    pub(crate) fn next(&mut self) -> Result<Option<(u8, Value<'a>)>, DecodeError> {
        use property as p;

        if self.rest.0.is_empty() {
            return Ok(None);
        }
        let id = self.rest.byte()?;
        if !self.allowed.contains(&id) {
            return Err(DecodeError::protocol("a property that this packet may not have"));
        }
        if id != p::USER {
            // All identifiers are below 0x2b.
            let bit = 1u64 << (id & 63);
            if self.seen & bit != 0 {
                return Err(DecodeError::protocol("a property given twice"));
            }
            self.seen |= bit;
        } else {
            self.pairs += 1;
            if self.pairs > USER_PROPERTIES {
                return Err(DecodeError {
                    reason: reason::QUOTA,
                    what: "more user properties than a packet may have",
                });
            }
        }
        let value = match id {
            p::PAYLOAD_FORMAT | p::REQUEST_PROBLEM | p::REQUEST_RESPONSE => {
                let flag = self.rest.byte()?;
                if flag > 1 {
                    return Err(DecodeError::protocol("a flag that is neither 0 nor 1"));
                }
                Value::Number(u32::from(flag))
            }
            p::RECEIVE_MAXIMUM | p::TOPIC_ALIAS_MAXIMUM | p::TOPIC_ALIAS => {
                Value::Number(u32::from(self.rest.two()?))
            }
            p::MESSAGE_EXPIRY | p::SESSION_EXPIRY | p::WILL_DELAY | p::MAXIMUM_PACKET_SIZE => {
                Value::Number(self.rest.four()?)
            }
            p::SUBSCRIPTION_ID => Value::Number(self.rest.variable()?),
            p::CORRELATION_DATA | p::AUTH_DATA => Value::Binary(self.rest.binary()?),
            p::USER => Value::Pair(self.rest.string()?, self.rest.string()?),
            _ => Value::Text(self.rest.string()?),
        };
        Ok(Some((id, value)))
    }
}
