//! SUBSCRIBE and SUBACK, and what a subscription brings: QoS, No Local, identifiers. UNSUBSCRIBE has a file of its own.

use super::{Case, cases, check};
use crate::client::{Client, Connect, Outcome};
use crate::server::{DENIED, Server};
use crate::wire::{Out, SUBACK, Value, packet, subscribe};

pub(crate) const CASES: &[Case] = cases!("subscribe";
    Both: suback_answers_with_the_identifier, codes_are_in_order, all_three_qos_are_granted,
        refused_filters_do_not_stop_others, no_filter_is_refused, wrong_flags_are_refused,
        qos_3_is_refused, reserved_bits_are_refused, identifier_0_is_refused,
        misplaced_wildcards_are_refused, empty_filter_is_refused, same_filter_replaces,
        replacing_loses_nothing, many_filters_in_one, works_as_soon_as_acknowledged,
        missing_options_are_refused;
    V5: no_local_keeps_own_messages_away,
        retain_handling_3_is_refused, identifiers_come_with_messages, identifier_value_0_is_refused,
        identifier_twice_is_refused, identifier_is_replaced, identifier_and_options_survive_a_resume;
);

fn suback_answers_with_the_identifier(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut client = Client::new(server)?;
    for pid in [1, 0x1234, 0xFFFF] {
        client.send(&subscribe(server.version, pid, &[(&topic, 0)], &[]))?;
        let suback = client.expect(SUBACK)?;
        check(suback.pid == pid && suback.codes == [0], || suback.short())?;
    }
    client.quiet()
}

fn codes_are_in_order(server: &Server) -> Outcome {
    let t = server.name("t");
    let names: Vec<String> = (0..6).map(|number| format!("{t}/{number}")).collect();
    let wanted = [2, 0, 1, 1, 0, 2];
    let filters: Vec<(&str, u8)> = names.iter().map(String::as_str).zip(wanted).collect();
    let codes = Client::new(server)?.subscribe_all(&filters, &[])?;
    check(codes == wanted, || format!("asked {wanted:?}, got {codes:?}"))
}

fn all_three_qos_are_granted(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut client = Client::new(server)?;
    (0..3).try_for_each(|qos| client.subscribe(&topic, qos))
}

fn refused_filters_do_not_stop_others(server: &Server) -> Outcome {
    let server = &server.guarded()?;
    let topic = server.name("t");
    let denied = format!("{DENIED}/{topic}");
    let mut client = Client::new(server)?;
    let codes = client.subscribe_all(
        &[(&denied, 1), (&topic, 1), ("me/#", 0), (&format!("{topic}/#"), 2)],
        &[],
    )?;
    let no = if server.v5() { 0x87 } else { 0x80 };
    check(codes == [no, 1, no, 2], || format!("{codes:02x?}"))?;
    client.publish(&topic, "x", 1)?;
    client.message_is("x").map(drop)
}

/// A fresh connection that sends this is closed, in MQTT 5 after a DISCONNECT that says why.
pub(super) fn closes(server: &Server, bytes: &[u8]) -> Outcome {
    let mut client = Client::new(server)?;
    client.send(bytes)?;
    client
        .told(&[0x81, 0x82])
        .map_err(|error| format!("{bytes:02x?}: {error}"))
}

fn no_filter_is_refused(server: &Server) -> Outcome {
    closes(server, &subscribe(server.version, 1, &[], &[]))
}

/// The packet with other flags.
pub(super) fn with_flags(mut bytes: Vec<u8>, flags: u8) -> Vec<u8> {
    if let Some(first) = bytes.first_mut() {
        *first = *first & 0xF0 | flags;
    }
    bytes
}

fn wrong_flags_are_refused(server: &Server) -> Outcome {
    let right = subscribe(server.version, 1, &[("a", 0)], &[]);
    [0, 1, 3, 0xA]
        .into_iter()
        .try_for_each(|flags| closes(server, &with_flags(right.clone(), flags)))
}

fn qos_3_is_refused(server: &Server) -> Outcome {
    closes(server, &subscribe(server.version, 1, &[("a", 3)], &[]))
}

fn reserved_bits_are_refused(server: &Server) -> Outcome {
    let bits: &[u8] = if server.v5() {
        &[0x40, 0x80, 0xC0]
    } else {
        &[0x04, 0x08, 0x10, 0x20, 0x40, 0x80]
    };
    bits.iter()
        .try_for_each(|bit| closes(server, &subscribe(server.version, 1, &[("a", *bit)], &[])))
}

fn missing_options_are_refused(server: &Server) -> Outcome {
    let mut body = vec![0, 1];
    if server.v5() {
        body.push(0);
    }
    body.extend([0, 1, b'a']);
    closes(server, &packet(0x82, &body))
}

fn identifier_0_is_refused(server: &Server) -> Outcome {
    closes(server, &subscribe(server.version, 0, &[("a", 0)], &[]))
}

/// Refused in the SUBACK, or the connection closed.
fn not_granted(server: &Server, filter: &str) -> Outcome {
    let mut client = Client::new(server)?;
    client.send(&subscribe(server.version, 1, &[(filter, 0)], &[]))?;
    let Ok(answer) = client.next() else {
        return client.ended();
    };
    let refused = match answer.kind {
        SUBACK => answer.codes.iter().all(|code| *code >= 0x80),
        _ => answer.code >= 0x80,
    };
    check(refused, || format!("{filter:?}: {}", answer.short()))
}

fn misplaced_wildcards_are_refused(server: &Server) -> Outcome {
    [
        "a#", "a/#/b", "#/a", "a/b#", "##", "#a", "a+", "+a", "a/+b", "a/b+/c", "++", "+#",
    ]
    .into_iter()
    .try_for_each(|filter| not_granted(server, filter))
}

fn empty_filter_is_refused(server: &Server) -> Outcome {
    not_granted(server, "")
}

fn same_filter_replaces(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut client = Client::new(server)?;
    let mut writer = Client::new(server)?;
    for qos in [2, 0, 1] {
        client.subscribe(&topic, qos)?;
        writer.publish(&topic, "x", 2)?;
        let got = client.take("x")?;
        check(got.qos() == qos, || got.short())?;
        client.quiet()?;
    }
    Ok(())
}

fn replacing_loses_nothing(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut reader = Client::new(server)?;
    reader.subscribe(&topic, 1)?;
    let mut writer = Client::new(server)?;
    let mut bytes = Vec::new();
    for number in 0..200_u16 {
        bytes.extend(Out::new(&topic, number.to_string(), 1, number + 1).bytes(server.version));
    }
    writer.send(&bytes)?;
    for _ in 0..10 {
        reader.subscribe(&topic, 1)?;
    }
    for number in 1..=200 {
        writer.acked(crate::wire::PUBACK, number)?;
    }
    for number in 0..200 {
        reader.take(&number.to_string())?;
    }
    reader.quiet()
}

fn many_filters_in_one(server: &Server) -> Outcome {
    let t = server.name("t");
    let names: Vec<String> = (0..20).map(|number| format!("{t}/{number}")).collect();
    let filters: Vec<(&str, u8)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let mut client = Client::new(server)?;
    client.subscribe_all(&filters, &[])?;
    client.quiet()?;
    let mut writer = Client::new(server)?;
    for name in &names {
        writer.publish(name, name, 1)?;
        client.take(name)?;
    }
    Ok(())
}

fn works_as_soon_as_acknowledged(server: &Server) -> Outcome {
    let mut writer = Client::new(server)?;
    for _ in 0..20 {
        let topic = server.name("t");
        let mut reader = Client::new(server)?;
        reader.subscribe(&topic, 1)?;
        writer.publish(&topic, "x", 0)?;
        reader.take("x")?;
    }
    Ok(())
}

fn no_local_keeps_own_messages_away(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut one = kept.open()?;
    let mut two = Client::new(server)?;
    one.subscribe(&topic, 0x05)?;
    two.subscribe(&topic, 0x01)?;
    one.publish(&topic, "of one", 1)?;
    two.take("of one")?;
    two.publish(&topic, "of two", 1)?;
    one.take("of two")?;
    two.take("of two")?;
    one.quiet()?;
    // It goes by the client id, so a new connection changes nothing.
    drop(one);
    let mut one = kept.open()?;
    one.publish(&topic, "again", 1)?;
    two.take("again")?;
    one.quiet()
}

fn retain_handling_3_is_refused(server: &Server) -> Outcome {
    closes(server, &subscribe(server.version, 1, &[("a", 0x30)], &[]))
}

fn identifiers_come_with_messages(server: &Server) -> Outcome {
    let base = server.name("t");
    let topic = format!("{base}/a");
    let mut client = Client::new(server)?;
    for (filter, identifier) in [(topic.clone(), 7), (format!("{base}/#"), 268_435_455)] {
        client.subscribe_all(&[(&filter, 1)], &[(0x0B, Value::Var(identifier))])?;
    }
    client.subscribe(&format!("{base}/+"), 1)?;
    client.publish(&topic, "x", 1)?;
    // One copy with all identifiers, or one for each subscription.
    let mut identifiers = Vec::new();
    let first = client.take("x")?;
    identifiers.extend(first.identifiers());
    if identifiers.len() < 2 {
        for _ in 0..2 {
            identifiers.extend(client.take("x")?.identifiers());
        }
    }
    identifiers.sort_unstable();
    check(identifiers == [7, 268_435_455], || format!("{identifiers:?}"))?;
    client.publish(&format!("{base}/b/c"), "y", 1)?;
    let got = client.take("y")?;
    check(got.identifiers() == [268_435_455], || {
        format!("{:?}", got.identifiers())
    })
}

fn identifier_value_0_is_refused(server: &Server) -> Outcome {
    closes(
        server,
        &subscribe(server.version, 1, &[("a", 0)], &[(0x0B, Value::Var(0))]),
    )
}

fn identifier_twice_is_refused(server: &Server) -> Outcome {
    let twice = [(0x0B, Value::Var(1)), (0x0B, Value::Var(2))];
    closes(server, &subscribe(server.version, 1, &[("a", 0)], &twice))
}

fn identifier_is_replaced(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut client = Client::new(server)?;
    for props in [&[(0x0B, Value::Var(1))][..], &[(0x0B, Value::Var(2))], &[]] {
        client.subscribe_all(&[(&topic, 1)], props)?;
        client.publish(&topic, "x", 1)?;
        let got = client.take("x")?;
        let wanted: Vec<u32> = props
            .iter()
            .filter_map(|(_, value)| {
                if let Value::Var(number) = value {
                    Some(*number)
                } else {
                    None
                }
            })
            .collect();
        check(got.identifiers() == wanted, || {
            format!("{:?}, wanted {wanted:?}", got.identifiers())
        })?;
    }
    Ok(())
}

fn identifier_and_options_survive_a_resume(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut client = kept.open()?;
    // QoS 1, No Local, retain as published.
    client.subscribe_all(&[(&topic, 0x0D)], &[(0x0B, Value::Var(77))])?;
    client.disconnect()?;
    let mut writer = Client::new(server)?;
    writer.retain(&topic, "x", 2)?;
    let mut client = kept.open()?;
    let got = client.take("x")?;
    check(
        got.identifiers() == [77] && got.retain() && got.qos() == 1,
        || format!("{} {:?}", got.short(), got.props),
    )?;
    client.publish(&topic, "own", 1)?;
    writer.publish(&topic, "y", 1)?;
    let got = client.take("y")?;
    check(got.identifiers() == [77] && !got.retain(), || {
        format!("{} {:?}", got.short(), got.props)
    })
}
