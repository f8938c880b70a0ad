//! Receive maximum and maximum packet size of MQTT 5, in both directions.

use super::{Case, SKIPPED, cases, check};
use crate::client::{Client, Connect, Outcome, Will};
use crate::server::{DENIED, LIMITED_KEEP_ALIVE, Server};
use crate::wire::{Out, PUBACK, PUBCOMP, PUBREC, PUBREL, Value, ack, subscribe, unsubscribe, user};

pub(crate) const CASES: &[Case] = cases!("limits";
    V5: receive_maximum_is_kept, receive_maximum_counts_qos_2_to_pubcomp,
        other_packets_go_on_at_a_full_window, receive_maximum_0_is_refused, maximum_packet_size_is_kept,
        too_large_counts_as_delivered, maximum_packet_size_0_is_refused, maximum_packet_size_of_the_server,
        reasons_never_exceed_the_packet_size, receive_maximum_is_kept_on_resume,
        too_large_on_resume_is_dropped, server_keep_alive_is_told_and_kept, maximum_qos_is_told_and_kept,
        will_above_the_maximum_qos_is_refused, will_that_is_no_text_is_refused,
        retained_messages_of_a_user_are_bounded;
);

fn receive_maximum_is_kept(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut reader = Connect::new(server).with(0x21, Value::Two(3)).open()?;
    reader.subscribe(&topic, 1)?;
    let mut writer = Client::new(server)?;
    for number in 0..10 {
        writer.publish(&topic, &number.to_string(), 1)?;
    }
    let mut open = Vec::new();
    for number in 0..3 {
        open.push(reader.message_is(&number.to_string())?);
    }
    reader.quiet()?;
    for (number, packet) in (3..).zip(&open) {
        reader.send(&ack(PUBACK, packet.pid))?;
        reader.message_is(&number.to_string())?;
        reader.quiet()?;
    }
    Ok(())
}

fn receive_maximum_counts_qos_2_to_pubcomp(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut reader = Connect::new(server).with(0x21, Value::Two(1)).open()?;
    reader.subscribe(&topic, 2)?;
    let mut writer = Client::new(server)?;
    for payload in ["one", "two", "three"] {
        writer.publish(&topic, payload, 2)?;
    }
    for payload in ["one", "two", "three"] {
        let got = reader.message_is(payload)?;
        reader.quiet()?;
        reader.send(&ack(PUBREC, got.pid))?;
        reader.acked(PUBREL, got.pid)?;
        reader.quiet()?;
        reader.send(&ack(PUBCOMP, got.pid))?;
    }
    reader.quiet()
}

fn other_packets_go_on_at_a_full_window(server: &Server) -> Outcome {
    let (topic, zero) = (server.name("t"), server.name("t"));
    let mut client = Connect::new(server).with(0x21, Value::Two(1)).open()?;
    client.subscribe(&topic, 1)?;
    let mut writer = Client::new(server)?;
    writer.publish(&topic, "one", 1)?;
    writer.publish(&topic, "two", 1)?;
    let one = client.message_is("one")?;
    client.quiet()?;
    client.ping()?;
    client.subscribe(&zero, 0)?;
    client.publish(&zero, "zero", 2)?;
    // QoS 0 is not counted.
    client.take("zero")?;
    client.unsubscribe(&[&zero])?;
    client.finish(&one)?;
    client.take("two").map(drop)
}

fn receive_maximum_0_is_refused(server: &Server) -> Outcome {
    Connect::new(server)
        .with(0x21, Value::Two(0))
        .refused(&[0x82, 0x81], true)
}

fn maximum_packet_size_is_kept(server: &Server) -> Outcome {
    let topic = server.name("t");
    let base = 2 + 2 + topic.len() + 2 + 1;
    let mut reader = Connect::new(server).with(0x27, Value::Four(100)).open()?;
    reader.subscribe(&topic, 1)?;
    let mut writer = Client::new(server)?;
    // One that fits exactly, one a byte too large, and one with properties too large. The client checks every packet.
    let fits = "f".repeat(100 - base);
    writer.publish(&topic, &fits, 1)?;
    writer.publish(&topic, &format!("{fits}f"), 1)?;
    let mut out = Out::new(&topic, "small", 1, 1);
    out.props.push(user("name", &"v".repeat(100)));
    writer.publish_out(&out)?;
    writer.publish(&topic, "last", 1)?;
    reader.take(&fits)?;
    reader.take("last")?;
    reader.quiet()
}

/// What is too large frees its place in the window, and does not come on a later connection either.
fn too_large_counts_as_delivered(server: &Server) -> Outcome {
    let topic = server.name("t");
    let connect = Connect::new(server)
        .kept()
        .with(0x27, Value::Four(100))
        .with(0x21, Value::Two(1));
    let mut reader = connect.open()?;
    reader.subscribe(&topic, 2)?;
    let mut writer = Client::new(server)?;
    for qos in [1, 2] {
        writer.publish(&topic, &"x".repeat(200), qos)?;
    }
    writer.publish(&topic, "small", 2)?;
    reader.take("small")?;
    reader.ping()?;
    drop(reader);
    let mut wide = connect;
    wide.props.retain(|(id, _)| *id != 0x27);
    wide.open()?.quiet()
}

fn maximum_packet_size_0_is_refused(server: &Server) -> Outcome {
    Connect::new(server)
        .with(0x27, Value::Four(0))
        .refused(&[0x82, 0x81], true)
}

fn maximum_packet_size_of_the_server(server: &Server) -> Outcome {
    let mut client = Client::new(server)?;
    let limit = match client.connack.prop(0x27) {
        Some(Value::Four(limit)) if *limit < 10_000_000 => *limit as usize,
        _ => return Err(format!("{SKIPPED}no maximum packet size announced")),
    };
    let topic = server.name("t");
    let head = Out::new(&topic, "", 1, 1).bytes(server.version).len();
    // A longer packet has a longer length, by two bytes.
    let fits = Out::new(&topic, "x".repeat(limit - head - 2), 1, 1).bytes(server.version);
    check(fits.len() == limit, || format!("{} bytes are sent", fits.len()))?;
    client.send(&fits)?;
    client.expect(PUBACK)?;
    let out = Out::new(&topic, "x".repeat(limit + 10), 1, 1);
    client.send_anyway(&out.bytes(server.version));
    client.refused(&[0x95])
}

/// A client that takes 20 bytes at most: refusals come without what would make them larger (every packet is checked).
fn reasons_never_exceed_the_packet_size(server: &Server) -> Outcome {
    let server = &server.guarded()?;
    let topic = server.name("t");
    let denied = format!("{DENIED}/{topic}");
    let mut client = Connect::new(server)
        .with(0x27, Value::Four(20))
        .open()
        .or_else(|_| {
            // A CONNACK alone may have more than 20 bytes of properties that are no reasons.
            Connect::new(server).with(0x27, Value::Four(60)).open()
        })?;
    client.send(&subscribe(server.version, 1, &[(&denied, 1)], &[]))?;
    client.expect(crate::wire::SUBACK)?;
    client.send(&unsubscribe(server.version, 2, &[&denied]))?;
    client.expect(crate::wire::UNSUBACK)?;
    client.send(&Out::new(&denied, "x", 1, 3).bytes(server.version))?;
    client.expect(PUBACK)?;
    client.send(&Out::new(&denied, "x", 2, 4).bytes(server.version))?;
    client.expect(PUBREC)?;
    client.send(&ack(PUBREL, 9))?;
    client.expect(PUBCOMP)?;
    client.send(&ack(PUBREC, 9))?;
    client.expect(PUBREL)?;
    client.send(&[0xC1, 0])?;
    client.told(&[0x81])?;
    // A refused CONNECT.
    let will = Will::new(&denied, "x", 1);
    Connect::new(server)
        .with(0x27, Value::Four(20))
        .will(will)
        .refused(&[0x87], true)
}

/// Five in flight, and the client comes back with a smaller window.
fn receive_maximum_is_kept_on_resume(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut reader = kept.open()?;
    reader.subscribe(&topic, 1)?;
    let mut writer = Client::new(server)?;
    let mut first = Vec::new();
    for number in 0..5 {
        writer.publish(&topic, &number.to_string(), 1)?;
        first.push(reader.message_is(&number.to_string())?);
    }
    drop(reader);
    writer.publish(&topic, "5", 1)?;
    let mut reader = kept.with(0x21, Value::Two(2)).open()?;
    for number in 0..6 {
        let got = if number == 0 {
            let got = reader.message_is("0")?;
            let second = reader.message_is("1")?;
            reader.quiet()?;
            reader.finish(&second)?;
            got
        } else if number == 1 {
            continue;
        } else {
            reader.message_is(&number.to_string())?
        };
        check(got.dup() == (number < 5), || got.short())?;
        check(
            first.get(number).is_none_or(|before| before.pid == got.pid),
            || got.short(),
        )?;
        reader.finish(&got)?;
    }
    reader.quiet()
}

/// In flight, and larger than what the client takes on its next connection.
fn too_large_on_resume_is_dropped(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    for qos in [1, 2] {
        let mut reader = kept.open()?;
        reader.subscribe(&topic, 2)?;
        let mut writer = Client::new(server)?;
        writer.publish(&topic, &"x".repeat(200), qos)?;
        reader.message()?;
        drop(reader);
        let mut reader = kept.clone().with(0x27, Value::Four(100)).open()?;
        writer.publish(&topic, "small", qos)?;
        reader
            .take("small")
            .map_err(|error| format!("QoS {qos}: {error}"))?;
        reader.quiet()?;
        reader.disconnect()?;
        kept.open()?
            .quiet()
            .map_err(|error| format!("QoS {qos}, without a limit again: {error}"))?;
    }
    Ok(())
}

/// Who asks for a longer keep-alive than the server wants, or for none, is told the server's, and held to it.
fn server_keep_alive_is_told_and_kept(server: &Server) -> Outcome {
    let server = &server.limited()?;
    let told = |client: &Client| client.connack.prop(0x13).cloned();
    let same = Connect::new(server).keep_alive(LIMITED_KEEP_ALIVE).open()?;
    check(told(&same).is_none(), || "told what it asked for".into())?;
    for asked in [0, 600] {
        let mut client = Connect::new(server).keep_alive(asked).open()?;
        let expected = Some(Value::Two(LIMITED_KEEP_ALIVE));
        check(told(&client) == expected, || client.connack.short())?;
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(700));
            client.ping()?;
        }
        client.told(&[0x8D])?;
    }
    Ok(())
}

fn maximum_qos_is_told_and_kept(server: &Server) -> Outcome {
    let topic = server.name("t");
    let client = Client::new(server)?;
    check(client.connack.prop(0x24).is_none(), || {
        "a maximum QoS where 2 is served".into()
    })?;
    let server = &server.limited()?;
    let mut client = Client::new(server)?;
    check(client.connack.prop(0x24) == Some(&Value::Byte(1)), || {
        client.connack.short()
    })?;
    for qos in 0..3 {
        let codes = client.subscribe_all(&[(&topic, qos)], &[])?;
        check(codes.iter().all(|code| *code <= qos), || {
            format!("QoS {qos}: {codes:02x?}")
        })?;
    }
    client.publish(&topic, "one", 1)?;
    client.take("one")?;
    client.send(&Out::new(&topic, "two", 2, 9).bytes(server.version))?;
    client.told(&[0x9B])
}

fn will_above_the_maximum_qos_is_refused(server: &Server) -> Outcome {
    let server = &server.limited()?;
    let topic = server.name("t");
    let fits = Connect::new(server).will(Will::new(&topic, "x", 1)).open()?;
    drop(fits);
    Connect::new(server)
        .will(Will::new(&topic, "x", 2))
        .refused(&[0x9B], false)
}

fn will_that_is_no_text_is_refused(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut will = Will::new(&topic, "x", 1).with(0x01, Value::Byte(1));
    Connect::new(server).will(will.clone()).open()?.disconnect()?;
    will.payload = vec![0xFF, 0xFE];
    Connect::new(server).will(will).refused(&[0x99], false)
}

/// Under topics of different homes; another user is not concerned, and takes one over.
fn retained_messages_of_a_user_are_bounded(server: &Server) -> Outcome {
    let server = &server.limited()?;
    let topics: Vec<String> = (0..5).map(|n| format!("{}/{n}/x", server.name("t"))).collect();
    let [one, two, three, four, five] = &*topics else {
        return Err("five topics".into());
    };
    let connect = Connect::new(server);
    let mut client = connect.open()?;
    let refused = |client: &mut Client, topic: &str| -> Outcome {
        client.send(&Out::new(topic, "x", 1, 9).retain().bytes(server.version))?;
        let answer = client.expect(PUBACK)?;
        check(answer.code == 0x97, || answer.short())
    };
    for topic in [one, two, three] {
        client.retain(topic, "x", 1)?;
    }
    refused(&mut client, four)?;
    client.retain(two, "another", 1)?;
    client.retain(one, "", 1)?;
    client.retain(four, "x", 1)?;
    refused(&mut client, five)?;
    // What is stored counts for a home that is in memory no longer, or for another session of the user.
    drop(client);
    let mut client = connect.open()?;
    refused(&mut client, five)?;
    let mut other = Client::new(server)?;
    for topic in [five, four] {
        other.retain(topic, "x", 1)?;
    }
    let mut reader = Client::new(server)?;
    for (topic, payload) in [(two, "another"), (three, "x"), (four, "x"), (five, "x")] {
        reader.subscribe(topic, 1)?;
        reader.take(payload)?;
    }
    reader.subscribe(one, 1)?;
    reader.quiet()?;
    for topic in [two, three, four, five] {
        client.retain(topic, "", 1)?;
    }
    Ok(())
}
