//! PUBLISH with QoS 0 and 1 in both directions, PUBACK, order, topics that match. QoS 2 and properties have files of
//! their own.

use std::time::Duration;

use super::{Case, SKIPPED, cases, check};
use crate::client::{Client, Connect, Outcome};
use crate::server::{DENIED, Server};
use crate::wire::{Out, PUBACK, PUBREC, Value, ack, ack_code, field, packet};

pub(crate) const CASES: &[Case] = cases!("publish";
    Both: each_qos_gets_its_answer, qos_3_is_refused, qos_0_with_dup_is_refused, identifier_0_is_refused,
        wildcard_in_a_topic_is_refused, empty_topic_is_refused, dup_is_not_passed_on, lower_qos_is_delivered,
        delivered_topic_matches_the_filter, acknowledged_identifier_is_a_new_message,
        identifiers_out_are_unused, first_delivery_has_dup_0, unacknowledged_is_resent_on_resume_only,
        acknowledged_is_not_resent, order_is_kept, wildcards_match, first_level_wildcards_leave_dollar_out,
        empty_payload_is_delivered, large_payload_is_delivered, truncated_publish_is_refused,
        refused_topic_does_no_harm, puback_unknown_is_ignored, puback_with_flags_is_refused,
        acknowledged_means_stored_for_the_absent, topic_longer_than_the_limit, pubacks_out_of_order_are_taken,
        qos_0_out_has_no_identifier;
    V5: begun_delivery_is_resent_though_expired, puback_error_ends_the_delivery, server_may_not_be_overrun, puback_code_must_exist;
);

fn each_qos_gets_its_answer(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut client = Client::new(server)?;
    client.send(&Out::new(&topic, "0", 0, 0).bytes(server.version))?;
    client.quiet()?;
    client.send(&Out::new(&topic, "1", 1, 0x1234).bytes(server.version))?;
    client.acked(PUBACK, 0x1234)?;
    client.send(&Out::new(&topic, "2", 2, 0xFFFF).bytes(server.version))?;
    client.acked(PUBREC, 0xFFFF)?;
    Ok(())
}

fn qos_3_is_refused(server: &Server) -> Outcome {
    let mut client = Client::new(server)?;
    client.send(&Out::new(server.name("t"), "x", 3, 1).bytes(server.version))?;
    client.told(&[0x81, 0x82, 0x9B])
}

fn qos_0_with_dup_is_refused(server: &Server) -> Outcome {
    let mut client = Client::new(server)?;
    client.send(&Out::new(server.name("t"), "x", 0, 0).dup().bytes(server.version))?;
    client.refused(&[0x81, 0x82])
}

fn identifier_0_is_refused(server: &Server) -> Outcome {
    for qos in [1, 2] {
        let mut client = Client::new(server)?;
        client.send(&Out::new(server.name("t"), "x", qos, 0).bytes(server.version))?;
        client.refused(&[0x81, 0x82])?;
    }
    Ok(())
}

fn wildcard_in_a_topic_is_refused(server: &Server) -> Outcome {
    let base = server.name("t");
    for topic in [
        format!("{base}/#"),
        format!("{base}/+"),
        "#".into(),
        "+".into(),
        format!("{base}+"),
    ] {
        let mut client = Client::new(server)?;
        client.send(&Out::new(&topic, "x", 1, 1).bytes(server.version))?;
        let packet = match client.next() {
            Err(_) => continue,
            Ok(packet) => packet,
        };
        check(server.v5() && packet.code >= 0x80, || {
            format!("{topic}: {}", packet.short())
        })?;
    }
    Ok(())
}

fn empty_topic_is_refused(server: &Server) -> Outcome {
    let mut client = Client::new(server)?;
    client.send(&Out::new("", "x", 1, 1).bytes(server.version))?;
    client.refused(&[0x81, 0x82, 0x90])
}

fn dup_is_not_passed_on(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut client = Client::new(server)?;
    client.subscribe(&topic, 1)?;
    client.publish_out(&Out::new(&topic, "x", 1, 9).dup())?;
    let got = client.take("x")?;
    check(!got.dup(), || "DUP 1 on a first delivery".into())
}

fn lower_qos_is_delivered(server: &Server) -> Outcome {
    for granted in 0..3 {
        let topic = server.name("t");
        let mut reader = Client::new(server)?;
        reader.subscribe(&topic, granted)?;
        let mut writer = Client::new(server)?;
        for qos in 0..3 {
            writer.publish(&topic, "x", qos)?;
            let got = reader.take("x")?;
            check(got.qos() == qos.min(granted), || {
                format!("published {qos}, granted {granted}, delivered {}", got.qos())
            })?;
        }
    }
    Ok(())
}

fn delivered_topic_matches_the_filter(server: &Server) -> Outcome {
    let base = server.name("t");
    let mut client = Client::new(server)?;
    client.subscribe(&format!("{base}/+/end"), 0)?;
    for topic in ["a/end", "/end", "a/b/end", "a", "a/end/", "end"] {
        client.publish(&format!("{base}/{topic}"), topic, 0)?;
    }
    // Two topics: in any order.
    let mut got = [client.message()?.topic, client.message()?.topic];
    got.sort();
    check(got == [format!("{base}//end"), format!("{base}/a/end")], || {
        format!("{got:?}")
    })?;
    client.quiet()
}

fn acknowledged_identifier_is_a_new_message(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut reader = Client::new(server)?;
    reader.subscribe(&topic, 0)?;
    let mut writer = Client::new(server)?;
    let out = Out::new(&topic, "same", 1, 5);
    writer.publish_out(&out)?;
    writer.publish_out(&out.clone().dup())?;
    writer.publish_out(&out)?;
    for _ in 0..3 {
        reader.take("same")?;
    }
    reader.quiet()
}

fn identifiers_out_are_unused(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut reader = Client::new(server)?;
    reader.subscribe(&topic, 2)?;
    let mut writer = Client::new(server)?;
    for number in 0..10 {
        writer.publish(&topic, "x", 1 + number % 2)?;
    }
    let mut seen = Vec::new();
    for _ in 0..10 {
        let got = reader.message_is("x")?;
        check(!seen.contains(&got.pid), || {
            format!("identifier {} twice in flight", got.pid)
        })?;
        seen.push(got.pid);
    }
    Ok(())
}

fn first_delivery_has_dup_0(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut client = Client::new(server)?;
    client.subscribe(&topic, 2)?;
    for qos in 0..3 {
        client.publish(&topic, "x", qos)?;
        let got = client.message_is("x")?;
        check(!got.dup() && got.qos() == qos, || got.short())?;
        client.finish(&got)?;
    }
    Ok(())
}

fn qos_0_out_has_no_identifier(server: &Server) -> Outcome {
    // Were there one, it would be read as the payload's beginning.
    let topic = server.name("t");
    let mut client = Client::new(server)?;
    client.subscribe(&topic, 0)?;
    client.publish(&topic, "exactly this", 1)?;
    client.take("exactly this").map(drop)
}

fn unacknowledged_is_resent_on_resume_only(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut reader = kept.open()?;
    reader.subscribe(&topic, 1)?;
    Client::new(server)?.publish(&topic, "x", 1)?;
    let first = reader.message_is("x")?;
    reader.quiet_for(Duration::from_millis(2500))?;
    drop(reader);
    let mut reader = kept.open()?;
    check(reader.connack.present, || "no session".into())?;
    let again = reader.message_is("x")?;
    check(again.pid == first.pid && again.dup() && again.qos() == 1, || {
        format!("first {}, again {}", first.short(), again.short())
    })?;
    reader.finish(&again)?;
    reader.ping()?;
    reader.quiet()
}

fn acknowledged_is_not_resent(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut reader = kept.open()?;
    reader.subscribe(&topic, 1)?;
    Client::new(server)?.publish(&topic, "x", 1)?;
    reader.take("x")?;
    reader.ping()?;
    drop(reader);
    kept.open()?.quiet()
}

fn order_is_kept(server: &Server) -> Outcome {
    let topic = server.name("t");
    for qos in 0..3 {
        let mut reader = Client::new(server)?;
        reader.subscribe(&topic, qos)?;
        let mut writer = Client::new(server)?;
        let mut bytes = Vec::new();
        for number in 0..16_u16 {
            bytes.extend(Out::new(&topic, number.to_string(), qos, number + 1).bytes(server.version));
        }
        writer.send(&bytes)?;
        if qos == 2 {
            for number in 1..=16 {
                writer.acked(PUBREC, number)?;
            }
            for number in 1..=16 {
                writer.send(&ack(6, number))?;
            }
        }
        for number in 0..16 {
            reader.take(&number.to_string())?;
        }
    }
    Ok(())
}

fn wildcards_match(server: &Server) -> Outcome {
    let base = server.name("t");
    let matches = |filter: &str, topic: &str| -> Outcome<bool> {
        let mut client = Client::new(server)?;
        client.subscribe(filter, 0)?;
        client.publish(topic, "x", 0)?;
        // What matched came before the PINGRESP of `publish`, or comes soon.
        Ok(client.message_soon())
    };
    for (filter, topic, expected) in [
        ("/#", "", true),
        ("/#", "/a", true),
        ("/#", "/a/b/c", true),
        ("/#", "x", false),
        ("/+", "/a", true),
        ("/+", "/", true),
        ("/+", "", false),
        ("/+", "/a/b", false),
        ("/+/b", "/a/b", true),
        ("/+/+", "//", true),
        ("/a/#", "/a", true),
        ("/a", "/A", false),
    ] {
        let got = matches(&format!("{base}{filter}"), &format!("{base}{topic}"))?;
        check(got == expected, || {
            format!("filter t{filter}, topic t{topic}: matched {got}")
        })?;
    }
    let got = matches(&format!("+/{base}"), &format!("/{base}"))?;
    check(got, || "+/t does not match /t".into())?;
    let got = matches(&format!("+/{base}"), &format!("any/{base}"))?;
    check(got, || "+/t does not match any/t".into())
}

fn first_level_wildcards_leave_dollar_out(server: &Server) -> Outcome {
    let base = server.name("t");
    let mut all = Client::new(server)?;
    // `+/base` cannot be crowded by other cases, unlike `#`, which is looked through.
    all.subscribe(&format!("+/{base}"), 0)?;
    let mut hash = Client::new(server)?;
    hash.subscribe("#", 0)?;
    let mut writer = Client::new(server)?;
    let _ = writer.publish(&format!("$dollar/{base}"), "hidden", 0);
    let mut writer = Client::new(server)?;
    writer.publish(&format!("open/{base}"), "shown", 0)?;
    all.take("shown")?;
    all.quiet()?;
    loop {
        let got = hash.message()?;
        check(!got.topic.starts_with('$'), || format!("# got {}", got.topic))?;
        if got.topic == format!("open/{base}") {
            return Ok(());
        }
    }
}

fn empty_payload_is_delivered(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut client = Client::new(server)?;
    client.subscribe(&topic, 1)?;
    client.publish(&topic, "", 1)?;
    client.take("").map(drop)
}

fn large_payload_is_delivered(server: &Server) -> Outcome {
    let topic = server.name("t");
    let payload: String = ('a'..='z').cycle().take(60_000).collect();
    let mut client = Client::new(server)?;
    client.subscribe(&topic, 2)?;
    client.publish(&topic, &payload, 2)?;
    client.take(&payload).map(drop)
}

fn truncated_publish_is_refused(server: &Server) -> Outcome {
    // A topic length beyond the packet; an identifier cut in half; no topic at all.
    for (first, body) in [
        (0x30, &[0_u8, 9, b'a'][..]),
        (0x32, &[0, 1, b'a', 0]),
        (0x30, &[0]),
        (0x30, &[]),
    ] {
        let mut client = Client::new(server)?;
        client.send(&packet(first, body))?;
        client
            .refused(&[0x81, 0x82])
            .map_err(|error| format!("{first:02x} {body:02x?}: {error}"))?;
    }
    Ok(())
}

/// 3.1.1: acknowledged or closed. 5.0: told. With QoS 0 nothing happens.
fn refused_topic_does_no_harm(server: &Server) -> Outcome {
    let server = &server.guarded()?;
    let topic = format!("{DENIED}/{}", server.name("t"));
    let mut client = Client::new(server)?;
    client.publish(&topic, "x", 0)?;
    for qos in [1, 2] {
        let mut client = Client::new(server)?;
        client.send(&Out::new(&topic, "x", qos, 1).bytes(server.version))?;
        if server.v5() {
            let answer = client.next()?;
            check(answer.kind == PUBACK + (qos - 1) && answer.code == 0x87, || {
                answer.short()
            })?;
            client.ping()?;
        } else {
            client.ended()?;
        }
    }
    Ok(())
}

fn puback_unknown_is_ignored(server: &Server) -> Outcome {
    let mut client = Client::new(server)?;
    client.send(&ack(PUBACK, 77))?;
    client.ping()
}

fn puback_with_flags_is_refused(server: &Server) -> Outcome {
    let mut client = Client::new(server)?;
    client.send(&[0x42, 2, 0, 1])?;
    client.told(&[0x81])
}

fn acknowledged_means_stored_for_the_absent(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut reader = kept.open()?;
    reader.subscribe(&topic, 2)?;
    reader.disconnect()?;
    let mut writer = Client::new(server)?;
    writer.publish(&topic, "one", 1)?;
    writer.publish(&topic, "two", 2)?;
    let mut reader = kept.open()?;
    reader.take("one")?;
    reader.take("two")?;
    reader.quiet()
}

/// 65,535 bytes are what the length field can say; the server's own limit is lower and refuses in a way of the protocol.
fn topic_longer_than_the_limit(server: &Server) -> Outcome {
    let mut bystander = Client::new(server)?;
    let mut client = Client::new(server)?;
    let mut body = field(vec![b'a'; 65_535]);
    body.extend([0, 1]);
    if server.v5() {
        body.push(0);
    }
    client.send(&packet(0x32, &body))?;
    match client.next() {
        Ok(answer) => check(
            answer.kind == PUBACK || (server.v5() && answer.code >= 0x80),
            || answer.short(),
        )?,
        Err(_) => client.ended()?,
    }
    bystander.ping()
}

fn pubacks_out_of_order_are_taken(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut reader = kept.open()?;
    reader.subscribe(&topic, 1)?;
    let mut writer = Client::new(server)?;
    let mut got = Vec::new();
    for payload in ["a", "b", "c"] {
        writer.publish(&topic, payload, 1)?;
        got.push(reader.message_is(payload)?);
    }
    for packet in [got.get(2), got.first()].into_iter().flatten() {
        reader.send(&ack(PUBACK, packet.pid))?;
    }
    reader.ping()?;
    drop(reader);
    let mut reader = kept.open()?;
    let again = reader.take("b")?;
    check(
        again.dup() && Some(again.pid) == got.get(1).map(|b| b.pid),
        || again.short(),
    )?;
    reader.quiet()
}

fn puback_error_ends_the_delivery(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut reader = kept.open()?;
    reader.subscribe(&topic, 1)?;
    Client::new(server)?.publish(&topic, "x", 1)?;
    let got = reader.message_is("x")?;
    reader.send(&ack_code(PUBACK, got.pid, 0x80))?;
    reader.ping()?;
    reader.quiet()?;
    drop(reader);
    kept.open()?.quiet()
}

fn puback_code_must_exist(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut client = Client::new(server)?;
    client.subscribe(&topic, 1)?;
    client.publish(&topic, "x", 1)?;
    let got = client.message_is("x")?;
    client.send(&ack_code(PUBACK, got.pid, 0x03))?;
    client.told(&[0x81, 0x82])
}

/// As many QoS 2 messages open as the server announced that it takes, and one more.
fn server_may_not_be_overrun(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut client = Client::new(server)?;
    let limit = match client.connack.prop(0x21) {
        Some(Value::Two(limit)) => *limit,
        _ => return Err(format!("{SKIPPED}no receive maximum announced")),
    };
    check(limit <= 4096, || format!("{SKIPPED}receive maximum {limit}"))?;
    let mut bytes = Vec::new();
    for pid in 1..=limit {
        bytes.extend(Out::new(&topic, "x", 2, pid).bytes(server.version));
    }
    client.send_anyway(&bytes);
    for pid in 1..=limit {
        client.acked(PUBREC, pid)?;
    }
    client.send(&Out::new(&topic, "x", 2, limit + 1).bytes(server.version))?;
    client.told(&[0x93])
}

/// Expiry is for deliveries that were not begun: what was sent is resent.
fn begun_delivery_is_resent_though_expired(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut reader = kept.open()?;
    reader.subscribe(&topic, 1)?;
    Client::new(server)?.publish_out(&Out::new(&topic, "x", 1, 3).with(0x02, Value::Four(1)))?;
    let got = reader.message_is("x")?;
    drop(reader);
    std::thread::sleep(Duration::from_millis(2100));
    let mut reader = kept.open()?;
    check(reader.connack.present, || "no session".into())?;
    let again = reader.take("x")?;
    check(again.pid == got.pid && again.dup(), || again.short())
}
