//! CONNECT with everything that may be wrong in it, and the ways in which it is answered.

use crate::client::{Client, Outcome};
use crate::server::Server;
use crate::wire::{self, CONNACK, Props, Value, Version, field, packet};

/// A will in a CONNECT.
#[derive(Debug, Clone)]
pub(crate) struct Will {
    pub(crate) topic: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) props: Props,
}

impl Will {
    pub(crate) fn new(topic: impl AsRef<[u8]>, payload: &str, qos: u8) -> Self {
        Self {
            topic: topic.as_ref().to_vec(),
            payload: payload.as_bytes().to_vec(),
            qos,
            retain: false,
            props: Vec::new(),
        }
    }

    pub(crate) fn retain(mut self) -> Self {
        self.retain = true;
        self
    }

    pub(crate) fn with(mut self, id: u8, value: Value) -> Self {
        self.props.push((id, value));
        self
    }
}

/// A CONNECT, right unless told otherwise: a fresh client id, clean, keep alive 60.
#[derive(Debug, Clone)]
pub(crate) struct Connect<'a> {
    server: &'a Server,
    pub(crate) version: Version,
    pub(crate) protocol: Vec<u8>,
    pub(crate) level: u8,
    pub(crate) id: Vec<u8>,
    pub(crate) clean: bool,
    pub(crate) keep_alive: u16,
    pub(crate) will: Option<Will>,
    pub(crate) username: Option<Vec<u8>>,
    pub(crate) password: Option<Vec<u8>>,
    pub(crate) props: Props,
    /// Bits of the flags to turn over at the end.
    pub(crate) flip: u8,
    /// Bytes behind the last field.
    pub(crate) tail: Vec<u8>,
}

impl<'a> Connect<'a> {
    pub(crate) fn new(server: &'a Server) -> Self {
        Self {
            server,
            version: server.version,
            protocol: b"MQTT".to_vec(),
            level: if server.v5() { 5 } else { 4 },
            id: server.name("c").into_bytes(),
            clean: true,
            keep_alive: 60,
            will: None,
            username: None,
            password: None,
            props: Vec::new(),
            flip: 0,
            tail: Vec::new(),
        }
    }

    /// The other version than the server's run has.
    pub(crate) fn version(mut self, version: Version) -> Self {
        self.version = version;
        self.level = if version == Version::V5 { 5 } else { 4 };
        self
    }

    pub(crate) fn id(mut self, id: impl AsRef<[u8]>) -> Self {
        self.id = id.as_ref().to_vec();
        self
    }

    pub(crate) fn clean(mut self, clean: bool) -> Self {
        self.clean = clean;
        self
    }

    /// A session that outlives the connection: clean start 0, in MQTT 5 for an hour.
    pub(crate) fn kept(self) -> Self {
        let v5 = self.version == Version::V5;
        let kept = self.clean(false);
        if v5 {
            kept.with(0x11, Value::Four(3600))
        } else {
            kept
        }
    }

    pub(crate) fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    pub(crate) fn will(mut self, will: Will) -> Self {
        self.will = Some(will);
        self
    }

    pub(crate) fn username(mut self, name: impl AsRef<[u8]>) -> Self {
        self.username = Some(name.as_ref().to_vec());
        self
    }

    pub(crate) fn password(mut self, word: impl AsRef<[u8]>) -> Self {
        self.password = Some(word.as_ref().to_vec());
        self
    }

    pub(crate) fn with(mut self, id: u8, value: Value) -> Self {
        self.props.push((id, value));
        self
    }

    pub(crate) fn flip(mut self, bits: u8) -> Self {
        self.flip = bits;
        self
    }

    pub(crate) fn tail(mut self, bytes: &[u8]) -> Self {
        self.tail = bytes.to_vec();
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut flags = u8::from(self.clean) << 1;
        if let Some(will) = &self.will {
            flags |= 4 | will.qos << 3 | u8::from(will.retain) << 5;
        }
        flags |= u8::from(self.password.is_some()) << 6 | u8::from(self.username.is_some()) << 7;
        let mut body = field(&self.protocol);
        body.push(self.level);
        body.push(flags ^ self.flip);
        body.extend(self.keep_alive.to_be_bytes());
        body.extend(wire::props(self.version, &self.props));
        body.extend(field(&self.id));
        if let Some(will) = &self.will {
            body.extend(wire::props(self.version, &will.props));
            body.extend(field(&will.topic));
            body.extend(field(&will.payload));
        }
        for given in [&self.username, &self.password].into_iter().flatten() {
            body.extend(field(given));
        }
        body.extend(&self.tail);
        packet(0x10, &body)
    }

    /// Sends it on a new connection and reads nothing.
    pub(crate) fn send(&self) -> Outcome<Client> {
        let mut client = Client::bare(self.server)?;
        client.version = self.version;
        client.id = self.id.clone();
        for (id, value) in &self.props {
            if let (0x27, Value::Four(limit @ 1..)) = (*id, value) {
                client.limit = *limit as usize;
            }
        }
        client.send(&self.bytes())?;
        Ok(client)
    }

    /// Sends it and reads a CONNACK with code 0, as the first packet.
    pub(crate) fn open(&self) -> Outcome<Client> {
        let mut client = self.send()?;
        let connack = client.next()?;
        if connack.kind != CONNACK || connack.code != 0 {
            return Err(format!("expected CONNACK 0, got {}", connack.short()));
        }
        client.connack = connack;
        Ok(client)
    }

    /// Sends it and wants it refused: a CONNACK with one of these codes and then the end, or, where `silent`, the end
    /// without a CONNACK.
    pub(crate) fn refused(&self, codes: &[u8], silent: bool) -> Outcome {
        self.send()?.refused_connect(codes, silent)
    }
}
