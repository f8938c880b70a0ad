//! Properties of MQTT 5: passed on, counted down, and wrong ones refused. Limits have a file of their own.

use std::time::Duration;

use super::{Case, SKIPPED, cases, check};
use crate::client::{Client, Connect, Outcome, Will};
use crate::server::{DENIED, Server};
use crate::wire::{
    Out, PUBACK, PUBLISH, PUBREC, PUBREL, Value, ack, bare_props, disconnect, field, packet, subscribe, text,
    unsubscribe, user, var,
};

pub(crate) const CASES: &[Case] = cases!("properties";
    V5: passed_on_unaltered, user_properties_keep_their_order, expiry_is_counted_down,
        expired_is_not_delivered, response_topic_with_wildcard_is_refused,
        subscription_identifier_from_a_client_is_refused, topic_alias_is_refused, topic_alias_0_is_refused,
        no_topic_alias_is_sent, no_topic_alias_is_sent_uninvited, no_reasons_when_not_asked_for,
        unknown_property_is_refused, twice_is_refused, in_the_wrong_packet_is_refused,
        missing_length_is_refused, length_beyond_is_refused, long_length_form_is_refused,
        values_out_of_range_are_refused, acknowledgements_may_be_short,
        session_expiry_is_never_in_a_servers_disconnect, payload_format_is_checked,
        of_a_will_are_checked;
);

fn passed_on_unaltered(server: &Server) -> Outcome {
    let topic = server.name("t");
    for qos in 0..3 {
        let mut reader = Client::new(server)?;
        reader.subscribe(&topic, qos)?;
        let mut out = Out::new(&topic, "h\u{E9}", qos, 1)
            .with(0x01, Value::Byte(1))
            .with(0x03, text("text/plain; charset=utf-8"))
            .with(0x08, text("answers/\u{1F426}"))
            .with(0x09, text(b"\x00\xFF\x80"));
        out.props.push(user("", ""));
        Client::new(server)?.publish_out(&out)?;
        let got = reader.take("h\u{E9}")?;
        for (id, value) in &out.props {
            check(got.prop(*id) == Some(value), || {
                format!("QoS {qos} {id:#04x}: {:?}", got.prop(*id))
            })?;
        }
        check(got.props.len() == out.props.len(), || format!("{:?}", got.props))?;
    }
    Ok(())
}

fn user_properties_keep_their_order(server: &Server) -> Outcome {
    let topic = server.name("t");
    let pairs: Vec<(String, String)> = (0..20)
        .map(|number| (format!("n{}", number * 7 % 5), format!("v{number}")))
        .collect();
    let kept = Connect::new(server).kept();
    let mut reader = kept.open()?;
    reader.subscribe(&topic, 1)?;
    let mut out = Out::new(&topic, "x", 1, 1);
    out.props = pairs.iter().map(|(name, value)| user(name, value)).collect();
    Client::new(server)?.publish_out(&out)?;
    let got = reader.message_is("x")?;
    check(got.users() == pairs, || format!("{:?}", got.users()))?;
    drop(reader);
    let again = kept.open()?.take("x")?;
    check(again.users() == pairs, || format!("resent: {:?}", again.users()))
}

fn expiry_is_counted_down(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut reader = kept.open()?;
    reader.subscribe(&topic, 1)?;
    let mut writer = Client::new(server)?;
    writer.publish_out(&Out::new(&topic, "now", 1, 1).with(0x02, Value::Four(100)))?;
    let got = reader.take("now")?;
    check(matches!(got.prop(0x02), Some(Value::Four(98..=100))), || {
        format!("{:?}", got.prop(0x02))
    })?;
    writer.publish_out(&Out::new(&topic, "ever", 1, 1).with(0x02, Value::Four(u32::MAX)))?;
    let got = reader.take("ever")?;
    check(
        matches!(got.prop(0x02), Some(Value::Four(seconds)) if u32::MAX - seconds < 3),
        || format!("{:?}", got.prop(0x02)),
    )?;
    reader.disconnect()?;
    writer.publish_out(&Out::new(&topic, "later", 1, 1).with(0x02, Value::Four(100)))?;
    std::thread::sleep(Duration::from_millis(2200));
    let got = kept.open()?.take("later")?;
    check(matches!(got.prop(0x02), Some(Value::Four(90..=98))), || {
        format!("100 s, 2.2 s later {:?}", got.prop(0x02))
    })
}

fn expired_is_not_delivered(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut reader = kept.open()?;
    reader.subscribe(&topic, 2)?;
    reader.disconnect()?;
    let mut writer = Client::new(server)?;
    for qos in [1, 2] {
        writer.publish_out(&Out::new(&topic, "short", qos, 1).with(0x02, Value::Four(1)))?;
    }
    writer.publish(&topic, "lasting", 1)?;
    std::thread::sleep(Duration::from_millis(2200));
    let mut reader = kept.open()?;
    reader.take("lasting")?;
    reader.quiet()
}

/// A fresh connection that sends these bytes is told so and closed.
fn told(server: &Server, bytes: &[u8], codes: &[u8]) -> Outcome {
    let mut client = Client::new(server)?;
    client.send(bytes)?;
    client
        .told(codes)
        .map_err(|error| format!("{:02x?}: {error}", bytes.get(..40).unwrap_or(bytes)))
}

fn response_topic_with_wildcard_is_refused(server: &Server) -> Outcome {
    let topic = server.name("t");
    for bad in ["a/#", "+", "a/+/b"] {
        let mut client = Client::new(server)?;
        client.send(
            &Out::new(&topic, "x", 1, 1)
                .with(0x08, text(bad))
                .bytes(server.version),
        )?;
        let answer = client.next()?;
        check(answer.code >= 0x80, || format!("{bad}: {}", answer.short()))?;
    }
    Ok(())
}

fn subscription_identifier_from_a_client_is_refused(server: &Server) -> Outcome {
    let out = Out::new(server.name("t"), "x", 0, 0).with(0x0B, Value::Var(5));
    told(server, &out.bytes(server.version), &[0x81, 0x82])
}

/// One above the announced maximum, which may be 0.
fn topic_alias_is_refused(server: &Server) -> Outcome {
    let client = Client::new(server)?;
    let maximum = match client.connack.prop(0x22) {
        Some(Value::Two(maximum)) => *maximum,
        _ => 0,
    };
    if maximum == u16::MAX {
        return Err(format!("{SKIPPED}every alias is allowed"));
    }
    let out = Out::new(server.name("t"), "x", 0, 0).with(0x23, Value::Two(maximum + 1));
    told(server, &out.bytes(server.version), &[0x94])
}

fn topic_alias_0_is_refused(server: &Server) -> Outcome {
    let out = Out::new(server.name("t"), "x", 0, 0).with(0x23, Value::Two(0));
    told(server, &out.bytes(server.version), &[0x94, 0x82])
}

/// Two messages on one topic; neither may have an alias above the client's maximum.
fn aliases(server: &Server, connect: &Connect<'_>, maximum: u16) -> Outcome {
    let topic = server.name("t");
    let mut reader = connect.open()?;
    reader.subscribe(&topic, 1)?;
    let mut writer = Client::new(server)?;
    for _ in 0..3 {
        writer.publish(&topic, "x", 1)?;
        let got = reader.take("x")?;
        let alias = match got.prop(0x23) {
            Some(Value::Two(alias)) => *alias,
            _ => 0,
        };
        check(
            alias <= maximum && !(got.prop(0x23).is_some() && alias == 0),
            || format!("{:?}", got.props),
        )?;
    }
    Ok(())
}

fn no_topic_alias_is_sent(server: &Server) -> Outcome {
    aliases(server, &Connect::new(server).with(0x22, Value::Two(1)), 1)
}

fn no_topic_alias_is_sent_uninvited(server: &Server) -> Outcome {
    aliases(server, &Connect::new(server), 0)?;
    aliases(server, &Connect::new(server).with(0x22, Value::Two(0)), 0)
}

/// Everything that may be refused is; none of the answers may say why.
fn no_reasons_when_not_asked_for(server: &Server) -> Outcome {
    let server = &server.guarded()?;
    let topic = server.name("t");
    let mut client = Connect::new(server).with(0x17, Value::Byte(0)).open()?;
    let denied = format!("{DENIED}/{topic}");
    let mut bytes = subscribe(
        server.version,
        1,
        &[("$share//a", 1), (&denied, 1), ("me/inbox", 1)],
        &[],
    );
    bytes.extend(unsubscribe(
        server.version,
        2,
        &[&topic, "a/#/b"].map(|it| it as &str)[..1],
    ));
    bytes.extend(Out::new(&denied, "x", 1, 3).bytes(server.version));
    bytes.extend(Out::new(&denied, "x", 2, 4).bytes(server.version));
    bytes.extend(ack(PUBREL, 9));
    bytes.extend(ack(PUBREC, 9));
    client.send(&bytes)?;
    for _ in 0..6 {
        let answer = client.next()?;
        check(answer.props.is_empty(), || {
            format!("{} {:?}", answer.short(), answer.props)
        })?;
    }
    Ok(())
}

fn unknown_property_is_refused(server: &Server) -> Outcome {
    for id in [0x04, 0x0C, 0x10, 0x1B, 0x20, 0x2B, 0x7F] {
        let out = Out::new(server.name("t"), "x", 0, 0).with(id, Value::Byte(1));
        told(server, &out.bytes(server.version), &[0x81, 0x82])?;
        Connect::new(server)
            .with(id, Value::Byte(1))
            .refused(&[0x81, 0x82], true)?;
    }
    Ok(())
}

fn twice_is_refused(server: &Server) -> Outcome {
    let topic = server.name("t");
    for (id, value) in [
        (0x01, Value::Byte(0)),
        (0x02, Value::Four(9)),
        (0x03, text("a")),
        (0x08, text("a")),
        (0x09, text("a")),
    ] {
        let out = Out::new(&topic, "x", 0, 0)
            .with(id, value.clone())
            .with(id, value);
        told(server, &out.bytes(server.version), &[0x81, 0x82])?;
    }
    for (id, value) in [
        (0x11, Value::Four(9)),
        (0x17, Value::Byte(1)),
        (0x19, Value::Byte(0)),
        (0x21, Value::Two(9)),
        (0x22, Value::Two(9)),
        (0x27, Value::Four(999)),
    ] {
        let connect = Connect::new(server).with(id, value.clone()).with(id, value);
        connect
            .refused(&[0x81, 0x82], true)
            .map_err(|error| format!("{id:#04x}: {error}"))?;
    }
    Ok(())
}

fn in_the_wrong_packet_is_refused(server: &Server) -> Outcome {
    let topic = server.name("t");
    let out = Out::new(&topic, "x", 0, 0).with(0x11, Value::Four(9));
    told(server, &out.bytes(server.version), &[0x81, 0x82])?;
    Connect::new(server)
        .with(0x02, Value::Four(9))
        .refused(&[0x81, 0x82], true)?;
    let bytes = subscribe(server.version, 1, &[(&topic, 0)], &[(0x02, Value::Four(9))]);
    told(server, &bytes, &[0x81, 0x82])?;
    told(
        server,
        &disconnect(server.version, 0, &[(0x02, Value::Four(9))]),
        &[0x81, 0x82],
    )
}

fn missing_length_is_refused(server: &Server) -> Outcome {
    // PUBLISH QoS 0 and CONNECT that end where the length should be.
    told(server, &packet(0x30, &field("a")), &[0x81])?;
    told(server, &packet(0x82, &[0, 1]), &[0x81, 0x82])
}

fn length_beyond_is_refused(server: &Server) -> Outcome {
    for length in [1, 5, 127] {
        let mut body = field("a");
        body.push(length);
        told(server, &packet(0x30, &body), &[0x81])?;
    }
    // A property that is cut by the length.
    let mut body = field("a");
    body.extend([3, 0x02, 0, 0, 0, 9]);
    told(server, &packet(0x30, &body), &[0x81])
}

fn long_length_form_is_refused(server: &Server) -> Outcome {
    // 0 as two bytes: the property length, a subscription identifier, the remaining length.
    let mut body = field("a");
    body.extend([0x80, 0]);
    told(server, &packet(0x30, &body), &[0x81])?;
    told(
        server,
        &packet(0x82, &[0, 1, 3, 0x0B, 0x81, 0, 0, 1, b'a', 0]),
        &[0x81, 0x82],
    )?;
    told(server, &[0xC0, 0x80, 0], &[0x81])?;
    // Five bytes.
    let mut body = vec![0, 1, 6, 0x0B];
    body.extend([0xFF, 0xFF, 0xFF, 0xFF, 1]);
    body.extend([0, 1, b'a', 0]);
    told(server, &packet(0x82, &body), &[0x81, 0x82])
}

fn values_out_of_range_are_refused(server: &Server) -> Outcome {
    for id in [0x17, 0x19] {
        Connect::new(server)
            .with(id, Value::Byte(2))
            .refused(&[0x81, 0x82], true)?;
    }
    let out = Out::new(server.name("t"), "x", 0, 0).with(0x01, Value::Byte(2));
    told(server, &out.bytes(server.version), &[0x81, 0x82])?;
    // Authentication data without a method.
    Connect::new(server)
        .with(0x16, text("data"))
        .refused(&[0x81, 0x82], true)
}

/// An acknowledgement may leave out code and properties; or have both.
fn acknowledgements_may_be_short(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut client = Client::new(server)?;
    client.subscribe(&topic, 1)?;
    for tail in [&[][..], &[0], &[0, 0]] {
        client.publish(&topic, "x", 1)?;
        let got = client.message_is("x")?;
        let mut body = got.pid.to_be_bytes().to_vec();
        body.extend(tail);
        client.send(&packet(0x40, &body))?;
    }
    client.publish(&topic, "x", 1)?;
    let got = client.message_is("x")?;
    let bare = bare_props(&[(0x1F, text("why")), user("a", "b")]);
    let mut body = got.pid.to_be_bytes().to_vec();
    body.push(0);
    body.extend(var(bare.len()));
    body.extend(bare);
    client.send(&packet(0x40, &body))?;
    client.ping()?;
    client.quiet()
}

fn session_expiry_is_never_in_a_servers_disconnect(server: &Server) -> Outcome {
    // Reading refuses it; these are the ways to get a DISCONNECT.
    let kept = Connect::new(server).kept();
    let mut older = kept.open()?;
    let mut newer = kept.open()?;
    older.told(&[0x8E])?;
    newer.send(&[0xC1, 0])?;
    newer.told(&[0x81])
}

/// A payload that says it is UTF-8 and is not: refused, or passed on as it is.
fn payload_format_is_checked(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut client = Client::new(server)?;
    client.subscribe(&topic, 0)?;
    client.send(
        &Out::new(&topic, b"\xFF\xFE", 1, 1)
            .with(0x01, Value::Byte(1))
            .bytes(server.version),
    )?;
    let answer = client.next()?;
    match answer.kind {
        PUBACK if answer.code == 0x99 => client.ping(),
        PUBACK | PUBLISH if answer.code == 0 && !server.own => Ok(()),
        _ => check(answer.code == 0x99, || answer.short()),
    }
}

/// Twice, not for wills, a value that is none, an indicator that the payload does not keep to may pass.
fn of_a_will_are_checked(server: &Server) -> Outcome {
    let topic = server.name("t");
    let will = || Will::new(&topic, "x", 0);
    for wrong in [
        will().with(0x18, Value::Four(1)).with(0x18, Value::Four(1)),
        will().with(0x02, Value::Four(1)).with(0x02, Value::Four(1)),
        will().with(0x23, Value::Two(1)),
        will().with(0x0B, Value::Var(1)),
        will().with(0x11, Value::Four(1)),
        will().with(0x01, Value::Byte(2)),
        will().with(0x08, text("a/#")),
        will().with(0x03, text(b"\xFF")),
    ] {
        Connect::new(server)
            .will(wrong.clone())
            .refused(&[0x81, 0x82, 0x90], true)
            .map_err(|error| format!("{:?}: {error}", wrong.props))?;
    }
    // A will's property among those of CONNECT.
    Connect::new(server)
        .with(0x18, Value::Four(1))
        .will(will())
        .refused(&[0x81, 0x82], true)
}
