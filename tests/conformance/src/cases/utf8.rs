//! Texts: UTF-8 that is none, U+0000, U+FEFF, and that nothing is normalised.

use super::{Case, cases, check};
use crate::client::{Client, Connect, Outcome, Will};
use crate::server::Server;
use crate::wire::{Out, Value, Version, field, packet, props, text};

pub(crate) const CASES: &[Case] = cases!("utf8";
    Both: client_id_must_be_utf8, will_topic_must_be_utf8, user_name_must_be_utf8, publish_topic_must_be_utf8,
        subscribe_filter_must_be_utf8, unsubscribe_filter_must_be_utf8, nul_in_a_publish_topic_is_refused,
        nul_in_a_filter_is_refused, nul_in_a_client_id_is_refused, byte_order_mark_stays,
        nothing_is_normalised;
    V5: user_property_must_be_utf8, content_type_must_be_utf8, response_topic_must_be_utf8,
        reason_string_must_be_utf8;
);

/// Not UTF-8: a stray byte, a cut sequence, too long a form, surrogates, beyond U+10FFFF.
const BAD: [&[u8]; 6] = [
    b"a\xFFb",
    b"a\xE2\x82",
    b"a\xC0\xAFb",
    b"a\xED\xA0\x80b",
    b"a\xED\xBF\xBFb",
    b"a\xF4\x90\x80\x80b",
];

fn refused(connect: &Connect<'_>) -> Outcome {
    match connect.version {
        Version::V311 => connect.refused(&[], true),
        Version::V5 => connect.refused(&[0x81, 0x82, 0x85, 0x90], true),
    }
}

/// A connection that sends this is closed.
fn closes(server: &Server, bytes: &[u8]) -> Outcome {
    let mut client = Client::new(server)?;
    client.send(bytes)?;
    client
        .refused(&[0x81, 0x82, 0x8F, 0x90])
        .map_err(|error| format!("{bytes:02x?}: {error}"))
}

fn client_id_must_be_utf8(server: &Server) -> Outcome {
    BAD.iter().try_for_each(|bad| {
        refused(&Connect::new(server).id(bad)).map_err(|error| format!("{bad:02x?}: {error}"))
    })
}

fn nul_in_a_client_id_is_refused(server: &Server) -> Outcome {
    refused(&Connect::new(server).id("a\0b"))
}

fn will_topic_must_be_utf8(server: &Server) -> Outcome {
    BAD.iter().chain([&&b"a\0b"[..]]).try_for_each(|bad| {
        refused(&Connect::new(server).will(Will::new(bad, "x", 0)))
            .map_err(|error| format!("{bad:02x?}: {error}"))
    })
}

fn user_name_must_be_utf8(server: &Server) -> Outcome {
    BAD.iter().chain([&&b"a\0b"[..]]).try_for_each(|bad| {
        let connect = Connect::new(server).username(bad).password("word");
        refused(&connect).map_err(|error| format!("{bad:02x?}: {error}"))
    })
}

fn publish_topic_must_be_utf8(server: &Server) -> Outcome {
    BAD.iter()
        .try_for_each(|bad| closes(server, &Out::new(bad, "x", 0, 0).bytes(server.version)))
}

fn nul_in_a_publish_topic_is_refused(server: &Server) -> Outcome {
    closes(server, &Out::new("a\0b", "x", 0, 0).bytes(server.version))?;
    closes(server, &Out::new("a/\0", "x", 1, 1).bytes(server.version))
}

/// SUBSCRIBE (0x82) or UNSUBSCRIBE (0xA2) of these bytes.
fn filter_packet(server: &Server, first: u8, filter: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 1];
    body.extend(props(server.version, &[]));
    body.extend(field(filter));
    if first == 0x82 {
        body.push(0);
    }
    packet(first, &body)
}

fn subscribe_filter_must_be_utf8(server: &Server) -> Outcome {
    BAD.iter()
        .try_for_each(|bad| closes(server, &filter_packet(server, 0x82, bad)))
}

fn unsubscribe_filter_must_be_utf8(server: &Server) -> Outcome {
    BAD.iter()
        .try_for_each(|bad| closes(server, &filter_packet(server, 0xA2, bad)))
}

fn nul_in_a_filter_is_refused(server: &Server) -> Outcome {
    closes(server, &filter_packet(server, 0x82, b"a\0b"))?;
    closes(server, &filter_packet(server, 0xA2, b"a\0b"))
}

fn byte_order_mark_stays(server: &Server) -> Outcome {
    let base = server.name("t");
    let marked = format!("\u{FEFF}{base}/\u{FEFF}x\u{FEFF}");
    let mut client = Client::new(server)?;
    client.subscribe(&marked, 0)?;
    client.publish(&format!("{base}/x"), "without", 0)?;
    client.publish(&marked, "with", 0)?;
    let got = client.take("with")?;
    check(got.topic == marked, || format!("topic {:?}", got.topic))
}

/// Other forms of one text, other cases, other slashes: all are other topics.
fn nothing_is_normalised(server: &Server) -> Outcome {
    let base = server.name("t");
    let mut client = Client::new(server)?;
    client.subscribe(&format!("{base}/caf\u{E9}"), 0)?;
    for other in [
        format!("{base}/cafe\u{301}"),
        format!("{base}/CAF\u{C9}"),
        format!("{base}/caf\u{E9}/"),
        format!("{base}//caf\u{E9}"),
        format!("/{base}/caf\u{E9}"),
        format!("{base}/caf\u{E9} "),
        format!("{base}/./caf\u{E9}"),
        format!("{base}/caf%C3%A9"),
    ] {
        client.publish(&other, &other, 0)?;
    }
    client.publish(&format!("{base}/caf\u{E9}"), "the one", 0)?;
    client.take("the one")?;
    client.quiet()
}

fn bad_property(server: &Server, id: u8, value: &dyn Fn(&[u8]) -> Value) -> Outcome {
    let topic = server.name("t");
    BAD.iter().chain([&&b"a\0b"[..]]).try_for_each(|bad| {
        closes(
            server,
            &Out::new(&topic, "x", 0, 0)
                .with(id, value(bad))
                .bytes(server.version),
        )
    })
}

fn user_property_must_be_utf8(server: &Server) -> Outcome {
    bad_property(server, 0x26, &|bad| Value::Pair(b"name".to_vec(), bad.to_vec()))?;
    bad_property(server, 0x26, &|bad| Value::Pair(bad.to_vec(), b"value".to_vec()))
}

fn content_type_must_be_utf8(server: &Server) -> Outcome {
    bad_property(server, 0x03, &|bad| text(bad))
}

fn response_topic_must_be_utf8(server: &Server) -> Outcome {
    bad_property(server, 0x08, &|bad| text(bad))
}

fn reason_string_must_be_utf8(server: &Server) -> Outcome {
    let mut body = vec![0];
    body.extend(props(server.version, &[(0x1F, text(b"a\xFFb"))]));
    closes(server, &packet(0xE0, &body))
}
