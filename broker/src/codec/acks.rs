//! PUBACK, PUBREC, PUBREL and PUBCOMP to clients, by hand: they are most of all packets after PUBLISH.

use super::encode::{Peer, binary_len, put_binary, put_two, put_variable, variable_len};
use super::read::property;
use crate::packet::{Ack, Version};

/// Appends one, with what of its properties the client wants and takes.
pub(super) fn encode_ack(peer: Peer, first: u8, ack: &Ack, out: &mut Vec<u8>) {
    let v5 = peer.version == Version::V5;
    let pairs = ack.properties.iter();
    let pairs: usize = pairs
        .map(|(name, value)| 1 + binary_len(name.as_bytes()) + binary_len(value.as_bytes()))
        .sum();
    let long = |properties: usize| 3 + variable_len(properties) + properties;
    let fits = |properties: usize| 1 + variable_len(long(properties)) + long(properties) <= peer.max as usize;
    // MQTT-3.4.2-2 and its like: what makes the packet too large is left out.
    let why = ack
        .reason_string
        .filter(|why| v5 && peer.problem_information && fits(pairs + 1 + binary_len(why.as_bytes())));
    let properties = pairs + why.map_or(0, |why| 1 + binary_len(why.as_bytes()));
    let with_properties = v5 && peer.problem_information && properties > 0 && fits(properties);
    let remaining = match (with_properties, v5 && ack.reason != 0) {
        (true, _) => long(properties),
        (false, true) => 3,
        (false, false) => 2,
    };
    out.push(first);
    put_variable(out, remaining);
    put_two(out, ack.packet_id);
    if remaining > 2 {
        out.push(ack.reason);
    }
    if with_properties {
        put_variable(out, properties);
        if let Some(why) = why {
            out.push(property::REASON_STRING);
            put_binary(out, why.as_bytes());
        }
        for (name, value) in &ack.properties {
            out.push(property::USER);
            put_binary(out, name.as_bytes());
            put_binary(out, value.as_bytes());
        }
    }
}
