//! Tests of the codec. Here is what they share.

mod encoded;
mod kept;
mod options;
mod round_trips;
mod rules;

use super::decode;
use crate::packet::Version;

pub(super) fn whole(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut left = body.len();
    while left > 0x7f {
        packet.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    packet.push(left as u8);
    packet.extend_from_slice(body);
    packet
}

pub(super) fn reason(version: Version, first: u8, body: &[u8]) -> u8 {
    decode(version, &whole(first, body))
        .map(|packet| format!("{packet:?}"))
        .unwrap_err()
        .reason
}

pub(super) fn connect(flags: u8, rest: &[u8], level: u8) -> Vec<u8> {
    whole(0x10, &[b"\0\x04MQTT", &[level, flags, 0, 0][..], rest].concat())
}

pub(super) const V3: Version = Version::V311;
pub(super) const V5: Version = Version::V5;
