//! The PROXY protocol, versions 1 and 2: whom a balancer announces before the client's own first byte. Read by a look
//! at what the socket holds, so that nothing of what follows is taken, and nothing is kept while it is incomplete.

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use godwit_cluster::Cx;
use ipnet::IpNet;
use proxy_header::{Error, ParseConfig, ProxyHeader};

use super::Net;
use super::conn::Stage;
use super::tls::{self, TlsSettings};
use super::transport::Transport;
use crate::wire_trait::ConnId;

/// Longest header of version 1, its line end included (PROXY protocol, 2.1).
const PROXY_V1_BYTES: usize = 107;
/// Longest header of version 2 that is taken: its fixed part, the largest addresses (of Unix sockets), and 304 bytes of
/// what balancers add. The specification asks receivers for no more (2.2).
pub const PROXY_V2_BYTES: usize = 536;
/// Bytes of it before the addresses.
const V2_FIXED_BYTES: usize = 16;
/// What it begins with.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V1: &[u8] = b"PROXY ";

/// What the first bytes of a connection say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// More is needed.
    Incomplete,
    /// No header, or one that is not taken.
    Bad,
    /// A header of so many bytes. `None`: the balancer itself, or a client without an address.
    Client(Option<SocketAddr>, usize),
}

/// Reads a header from what came so far.
pub fn announced(bytes: &[u8]) -> Announced {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(a, b)| a == b);
    let most = if begins(V2) {
        match bytes.get(14..16) {
            Some(&[high, low]) => V2_FIXED_BYTES + usize::from(u16::from_be_bytes([high, low])),
            _ => PROXY_V2_BYTES,
        }
    } else if begins(V1) {
        PROXY_V1_BYTES
    } else {
        return Announced::Bad;
    };
    if most > PROXY_V2_BYTES {
        return Announced::Bad;
    }
    let looked_at = bytes.get(..most).unwrap_or(bytes);
    match ProxyHeader::parse(looked_at, ParseConfig::default()) {
        Ok((header, len)) => {
            let client = header.proxied_address().map(|address| address.source);
            Announced::Client(client, len)
        }
        Err(Error::BufferTooShort) if looked_at.len() < most => Announced::Incomplete,
        Err(_) => Announced::Bad,
    }
}

/// Who may announce clients.
#[derive(Clone, Debug, Default)]
pub struct Proxies(Arc<[IpNet]>);

impl Proxies {
    /// These networks.
    pub fn new(networks: &[IpNet]) -> Self {
        Self(networks.into())
    }

    /// Whether this address is one of them. Compared with each: a handful.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// A connection whose announcement is awaited.
pub(crate) struct Announcing {
    pub(super) socket: mio::net::TcpStream,
    pub(super) tls: Option<Arc<TlsSettings>>,
}

impl Announcing {
    /// Takes the header from the socket if it is there as a whole.
    fn take(&mut self) -> io::Result<Announced> {
        let mut seen = [0; PROXY_V2_BYTES];
        let len = match self.socket.peek(&mut seen) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Announced::Incomplete),
            Err(error) => return Err(error),
        };
        let announced = announced(seen.get(..len).unwrap_or_default());
        if let Announced::Client(_, len) = announced {
            // It was seen, so it is there.
            self.socket.read_exact(seen.get_mut(..len).unwrap_or_default())?;
        }
        Ok(announced)
    }
}

impl Net {
    /// Whether a connection's own bytes may be read: at once without a balancer, else when it has announced its client
    /// and the client may come in.
    pub(super) fn is_announced(&mut self, cx: &Cx<'_>, id: ConnId) -> bool {
        let Some(conn) = self.get(id) else { return false };
        let Transport::Announcing(announcing) = &mut conn.transport else {
            return true;
        };
        if conn.stage != Stage::Greeting {
            return false;
        }
        let (client, peer) = match announcing.take() {
            Ok(Announced::Incomplete) if !conn.ended => {
                conn.unread = false;
                return false;
            }
            Ok(Announced::Client(client, _)) => (client, announcing.socket.peer_addr().ok()),
            Ok(_) | Err(_) => {
                self.drop_silently(id, "proxy_header");
                return false;
            }
        };
        let Some(address) = client.or(peer) else {
            self.drop_silently(id, "proxy_header");
            return false;
        };
        tracing::debug!(client = %address, balancer = ?peer, "a client was announced");
        match self.admit(cx, address.ip()) {
            _ if self.place(id).refused().is_some() => {}
            Ok(place) => self.set_place(id, place),
            Err(refused) => {
                self.drop_silently(id, refused.name());
                return false;
            }
        }
        self.unwrap(id)
    }

    /// Puts the client's own transport in place of the announcing one.
    fn unwrap(&mut self, id: ConnId) -> bool {
        let Some(slot) = self.slots.get_mut(id.index as usize) else {
            return false;
        };
        let session = match slot.conn.as_deref().map(|conn| &conn.transport) {
            Some(Transport::Announcing(announcing)) => tls::session(announcing.tls.as_deref()),
            _ => return false,
        };
        let Ok(session) = session else {
            self.drop_silently(id, "tls");
            return false;
        };
        let Some(conn) = slot.conn.take() else {
            return false;
        };
        slot.conn = Some(Box::new(conn.over(|transport| match transport {
            Transport::Announcing(announcing) => tls::transport(announcing.socket, session),
            other => other,
        })));
        true
    }
}
