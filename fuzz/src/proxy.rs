//! The first bytes of a connection as a PROXY header: what is read does not depend on how many bytes have come, is bounded,
//! and names the client that is written there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use godwit_broker::{Announced, PROXY_V2_BYTES, announced};

/// Most bytes looked at: longer ones are cut by the reader itself.
const MOST: usize = 700;

/// Any bytes as they come from a balancer.
pub fn proxy(bytes: &[u8]) {
    let bytes = bytes.get(..MOST).unwrap_or(bytes);
    let whole = announced(bytes);
    let end = match whole {
        Announced::Client(_, len) => {
            assert!(
                len <= bytes.len() && len <= PROXY_V2_BYTES,
                "no more than has come, nor than is taken"
            );
            assert_eq!(announced(&bytes[..len]), whole, "what follows is not looked at");
            len
        }
        Announced::Incomplete => {
            assert!(bytes.len() < PROXY_V2_BYTES, "BOUND: what is waited for");
            bytes.len()
        }
        Announced::Bad => bytes.len(),
    };
    let mut bad = false;
    for len in 0..end {
        match announced(&bytes[..len]) {
            Announced::Incomplete => assert!(!bad, "what was bad is well with more bytes"),
            Announced::Bad => bad = true,
            Announced::Client(..) => panic!("{len} of {end} bytes are called whole"),
        }
    }
    assert!(
        !bad || whole == Announced::Bad,
        "what was bad is well with more bytes"
    );
    if let Announced::Client(client, len) = whole {
        let header = &bytes[..len];
        let written = if header.starts_with(b"PROXY ") {
            version_1(header)
        } else {
            version_2(header)
        };
        assert_eq!(client, written, "{}", header.escape_ascii());
    }
}

/// The client in a header of version 1 that was taken.
fn version_1(header: &[u8]) -> Option<SocketAddr> {
    let line = std::str::from_utf8(header).ok()?.strip_suffix("\r\n")?;
    let fields: Vec<&str> = line.split(' ').collect();
    let [_, "TCP4" | "TCP6", from, _, port, _] = fields[..] else {
        return None;
    };
    Some(SocketAddr::new(from.parse().ok()?, port.parse().ok()?))
}

/// The client in a header of version 2 that was taken.
fn version_2(header: &[u8]) -> Option<SocketAddr> {
    let (command, family) = (header.get(12)? & 0x0f, header.get(13)?);
    let number = |at: usize| Some(u16::from_be_bytes([*header.get(at)?, *header.get(at + 1)?]));
    let (ip, port) = match (command, family >> 4) {
        (1, 1) => (
            IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(header.get(16..20)?).ok()?)),
            number(24)?,
        ),
        (1, 2) => (
            IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(header.get(16..32)?).ok()?)),
            number(48)?,
        ),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}
