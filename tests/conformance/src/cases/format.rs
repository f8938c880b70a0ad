//! CONNECT and small packets that break their format: flags, fields, lengths, types.

use super::{Case, cases, check};
use crate::client::{Client, Connect, Outcome, Will};
use crate::server::Server;
use crate::wire::{CONNACK, Packet, Version, packet, parse};

pub(crate) const CASES: &[Case] = cases!("format";
    Both: wrong_protocol_name_is_refused, unknown_level_is_refused, reserved_flag_is_refused,
        will_qos_3_is_refused, will_qos_without_will_is_refused, will_retain_without_will_is_refused,
        will_flag_without_fields_is_refused, will_fields_without_flag_are_refused,
        username_flag_without_name_is_refused, username_without_flag_is_refused,
        password_flag_without_word_is_refused, password_without_flag_is_refused,
        missing_client_id_is_refused, disconnect_with_flags_is_refused, connect_with_flags_is_refused,
        pingreq_with_flags_is_refused, truncated_connect_is_refused, too_many_bytes_are_refused,
        packets_of_the_server_are_refused, type_0_is_refused;
    V311: password_needs_username, unknown_level_gets_return_code_1;
    V5: auth_with_flags_is_refused;
);

/// A CONNECT that breaks its format: closed, in 3.1.1 without a CONNACK.
fn malformed(connect: &Connect<'_>) -> Outcome {
    match connect.version {
        Version::V311 => connect.refused(&[], true),
        Version::V5 => connect.refused(&[0x81, 0x82], true),
    }
}

fn wrong_protocol_name_is_refused(server: &Server) -> Outcome {
    for name in ["MQTX", "mqtt", "MQTTT", ""] {
        let mut connect = Connect::new(server);
        connect.protocol = name.into();
        let codes: &[u8] = if server.v5() { &[0x84, 0x81, 0x82] } else { &[1] };
        connect
            .refused(codes, true)
            .map_err(|error| format!("{name:?}: {error}"))?;
    }
    Ok(())
}

fn unknown_level_is_refused(server: &Server) -> Outcome {
    for level in [0, 2, 6, 0x85, 255] {
        let mut connect = Connect::new(server);
        connect.level = level;
        let bytes = connect.send()?.raw();
        // Nothing, or the answer of 3.1.1 or of 5.0, and nothing behind it.
        let new = |it: &Packet| it.kind == CONNACK && it.code == 0x84 && it.size == bytes.len();
        let right = bytes.is_empty()
            || bytes == [0x20, 2, 0, 1]
            || matches!(parse(Version::V5, &bytes), Ok(Some(it)) if new(&it));
        check(right, || format!("level {level}: {bytes:02x?}"))?;
    }
    Ok(())
}

/// Levels below those served: who asks for one above is a client of a later protocol and may be told in the form of 5.0.
fn unknown_level_gets_return_code_1(server: &Server) -> Outcome {
    for level in [1, 2] {
        let mut connect = Connect::new(server);
        connect.level = level;
        let bytes = connect.send()?.raw();
        check(bytes == [0x20, 2, 0, 1], || {
            format!("level {level}: expected 20 02 00 01 and the end, got {bytes:02x?}")
        })?;
    }
    Ok(())
}

fn reserved_flag_is_refused(server: &Server) -> Outcome {
    malformed(&Connect::new(server).flip(1))
}

fn will_qos_3_is_refused(server: &Server) -> Outcome {
    malformed(&Connect::new(server).will(Will::new(server.name("t"), "x", 3)))
}

fn will_qos_without_will_is_refused(server: &Server) -> Outcome {
    malformed(&Connect::new(server).flip(8))
}

fn will_retain_without_will_is_refused(server: &Server) -> Outcome {
    malformed(&Connect::new(server).flip(0x20))
}

fn will_flag_without_fields_is_refused(server: &Server) -> Outcome {
    malformed(&Connect::new(server).flip(4))
}

fn will_fields_without_flag_are_refused(server: &Server) -> Outcome {
    let will = Will::new(server.name("t"), "x", 0);
    malformed(&Connect::new(server).will(will).flip(4))
}

fn username_flag_without_name_is_refused(server: &Server) -> Outcome {
    malformed(&Connect::new(server).flip(0x80))
}

fn username_without_flag_is_refused(server: &Server) -> Outcome {
    malformed(&Connect::new(server).tail(&[0, 1, b'a']))
}

fn password_flag_without_word_is_refused(server: &Server) -> Outcome {
    malformed(&Connect::new(server).username("someone").flip(0x40))
}

fn password_without_flag_is_refused(server: &Server) -> Outcome {
    malformed(&Connect::new(server).username("someone").tail(&[0, 1, b'a']))
}

fn password_needs_username(server: &Server) -> Outcome {
    malformed(&Connect::new(server).password("word"))
}

fn missing_client_id_is_refused(server: &Server) -> Outcome {
    let mut body = vec![
        0,
        4,
        b'M',
        b'Q',
        b'T',
        b'T',
        if server.v5() { 5 } else { 4 },
        2,
        0,
        60,
    ];
    if server.v5() {
        body.push(0);
    }
    let mut client = Client::bare(server)?;
    client.send(&packet(0x10, &body))?;
    client.refused_connect(if server.v5() { &[0x81, 0x82] } else { &[] }, true)
}

fn truncated_connect_is_refused(server: &Server) -> Outcome {
    let whole = Connect::new(server).bytes();
    for cut in [4, 8, 10, 12] {
        let mut client = Client::bare(server)?;
        let body = whole.get(2..whole.len() - cut).unwrap_or_default();
        client.send(&packet(0x10, body))?;
        client
            .refused_connect(if server.v5() { &[0x81, 0x82] } else { &[] }, true)
            .map_err(|error| format!("{cut} bytes short: {error}"))?;
    }
    Ok(())
}

fn connect_with_flags_is_refused(server: &Server) -> Outcome {
    let mut bytes = Connect::new(server).bytes();
    if let Some(first) = bytes.first_mut() {
        *first |= 2;
    }
    let mut client = Client::bare(server)?;
    client.send(&bytes)?;
    client.refused_connect(if server.v5() { &[0x81] } else { &[] }, true)
}

fn pingreq_with_flags_is_refused(server: &Server) -> Outcome {
    let mut client = Client::new(server)?;
    client.send(&[0xC1, 0])?;
    client.told(&[0x81])
}

fn disconnect_with_flags_is_refused(server: &Server) -> Outcome {
    let mut client = Client::new(server)?;
    client.send(&[0xE1, 0])?;
    client.told(&[0x81])
}

fn too_many_bytes_are_refused(server: &Server) -> Outcome {
    let mut all = vec![packet(0xC0, &[0])];
    if server.v5() {
        all.push(packet(0x40, &[0, 1, 0, 0, 9]));
        all.push(packet(0xE0, &[0, 0, 9]));
    } else {
        all.extend([0x40, 0x50, 0x62, 0x70].map(|first| packet(first, &[0, 1, 0])));
        all.push(packet(0xE0, &[0]));
    }
    for bytes in all {
        let mut client = Client::new(server)?;
        client.send(&bytes)?;
        client
            .told(&[0x81, 0x82])
            .map_err(|error| format!("{bytes:02x?}: {error}"))?;
    }
    Ok(())
}

fn packets_of_the_server_are_refused(server: &Server) -> Outcome {
    for bytes in [
        &[0x20_u8, 2, 0, 0][..],
        &[0x90, 3, 0, 1, 0],
        &[0xB0, 2, 0, 1],
        &[0xD0, 0],
    ] {
        let mut client = Client::new(server)?;
        client.send(bytes)?;
        client
            .told(&[0x81, 0x82])
            .map_err(|error| format!("{bytes:02x?}: {error}"))?;
    }
    Ok(())
}

fn type_0_is_refused(server: &Server) -> Outcome {
    let mut client = Client::new(server)?;
    client.send(&[0, 0])?;
    client.told(&[0x81, 0x82])
}

fn auth_with_flags_is_refused(server: &Server) -> Outcome {
    let mut client = Client::new(server)?;
    client.send(&[0xF1, 0])?;
    client.told(&[0x81, 0x82])
}
