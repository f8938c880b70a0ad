//! Topic aliases of MQTT 5, in both directions.

use super::{Case, cases, check};
use crate::client::{Client, Connect, Outcome};
use crate::server::{DENIED, Server};
use crate::wire::{Out, PUBACK, PUBCOMP, PUBREC, Packet, Value, ack};

pub(crate) const CASES: &[Case] = cases!("alias";
    V5: stands_for_its_topic, every_one_that_was_announced_is_taken, may_be_given_to_another_topic,
        above_the_maximum_is_refused, of_nothing_is_refused, ends_with_its_connection,
        of_a_topic_without_rights_is_refused, repeated_in_full_is_known, is_sent_for_a_topic_that_repeats,
        resent_messages_have_their_topic;
);

/// Topic Alias and Topic Alias Maximum.
const ALIAS: u8 = 0x23;
const MAXIMUM: u8 = 0x22;

fn maximum(client: &Client) -> Outcome<u16> {
    match client.connack.prop(MAXIMUM) {
        Some(Value::Two(maximum)) if *maximum > 0 => Ok(*maximum),
        _ => Err(format!("{}no aliases are taken here", super::SKIPPED)),
    }
}

fn with(topic: &str, payload: &str, qos: u8, pid: u16, alias: u16) -> Out {
    Out::new(topic, payload, qos, pid).with(ALIAS, Value::Two(alias))
}

fn stands_for_its_topic(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut reader = Client::new(server)?;
    reader.subscribe(&topic, 2)?;
    let mut writer = Client::new(server)?;
    maximum(&writer)?;
    writer.publish_out(&with(&topic, "first", 0, 0, 1))?;
    for qos in 0..3 {
        let payload = format!("by alias, QoS {qos}");
        writer.publish_out(&with("", &payload, qos, 7, 1))?;
    }
    for payload in ["first", "by alias, QoS 0", "by alias, QoS 1", "by alias, QoS 2"] {
        let got = reader.take(payload)?;
        check(got.topic == topic, || got.short())?;
        check(got.prop(ALIAS).is_none(), || {
            "an alias that is another connection's".into()
        })?;
    }
    reader.quiet()
}

fn every_one_that_was_announced_is_taken(server: &Server) -> Outcome {
    let first = server.name("t");
    let mut reader = Client::new(server)?;
    reader.subscribe(&format!("{first}/#"), 1)?;
    let mut writer = Client::new(server)?;
    let aliases: Vec<u16> = (1..=maximum(&writer)?.min(100)).collect();
    for alias in &aliases {
        let topic = format!("{first}/{alias}");
        writer.publish_out(&with(&topic, "given", 1, 7, *alias))?;
        reader.take("given")?;
    }
    for alias in aliases.iter().rev() {
        writer.publish_out(&with("", "used", 1, 7, *alias))?;
        let got = reader.take("used")?;
        check(got.topic == format!("{first}/{alias}"), || got.short())?;
    }
    Ok(())
}

fn may_be_given_to_another_topic(server: &Server) -> Outcome {
    let (one, two) = (server.name("t"), server.name("t"));
    let mut reader = Client::new(server)?;
    reader.subscribe(&one, 1)?;
    reader.subscribe(&two, 1)?;
    let mut writer = Client::new(server)?;
    maximum(&writer)?;
    for (topic, expected) in [
        (&*one, &one),
        ("", &one),
        (&two, &two),
        ("", &two),
        (&one, &one),
        ("", &one),
    ] {
        writer.publish_out(&with(topic, "x", 1, 7, 1))?;
        let got = reader.take("x")?;
        check(got.topic == *expected, || got.short())?;
    }
    Ok(())
}

fn above_the_maximum_is_refused(server: &Server) -> Outcome {
    let mut client = Client::new(server)?;
    let maximum = maximum(&client)?;
    let topic = server.name("t");
    client.publish_out(&with(&topic, "x", 1, 7, maximum))?;
    if maximum < u16::MAX {
        client.send(&with(&topic, "x", 1, 8, maximum + 1).bytes(server.version))?;
        client.told(&[0x94])?;
    }
    Ok(())
}

fn of_nothing_is_refused(server: &Server) -> Outcome {
    for qos in 0..3 {
        let mut client = Client::new(server)?;
        maximum(&client)?;
        let pid = if qos > 0 { 7 } else { 0 };
        client.send(&with("", "x", qos, pid, 1).bytes(server.version))?;
        client.told(&[0x82])?;
    }
    Ok(())
}

/// Also where the session goes on.
fn ends_with_its_connection(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut client = kept.open()?;
    maximum(&client)?;
    client.publish_out(&with(&topic, "x", 1, 7, 1))?;
    client.publish_out(&with("", "x", 1, 7, 1))?;
    drop(client);
    let mut client = kept.open()?;
    check(client.connack.present, || "the session is gone".into())?;
    client.send(&with("", "x", 1, 7, 1).bytes(server.version))?;
    client.told(&[0x82])
}

fn of_a_topic_without_rights_is_refused(server: &Server) -> Outcome {
    let server = &server.guarded()?;
    let (denied, allowed) = (format!("{DENIED}/{}", server.name("t")), server.name("t"));
    let mut client = Client::new(server)?;
    maximum(&client)?;
    client.subscribe(&allowed, 1)?;
    for topic in [&*denied, "", ""] {
        client.send(&with(topic, "x", 1, 7, 1).bytes(server.version))?;
        let answer = client.expect(PUBACK)?;
        check(answer.code == 0x87, || answer.short())?;
    }
    // Nor does it get the rights of what it stood for before.
    client.publish_out(&with(&allowed, "mine", 1, 7, 2))?;
    client.take("mine")?;
    client.send(&with(&denied, "x", 1, 8, 2).bytes(server.version))?;
    client.send(&with("", "x", 1, 9, 2).bytes(server.version))?;
    for pid in [8, 9] {
        let answer = client.expect(PUBACK)?;
        check((answer.pid, answer.code) == (pid, 0x87), || answer.short())?;
    }
    client.quiet()
}

/// A QoS 2 PUBLISH that went by its alias, and is repeated with its topic on the next connection: one message.
fn repeated_in_full_is_known(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut reader = Client::new(server)?;
    reader.subscribe(&topic, 2)?;
    let kept = Connect::new(server).kept();
    let mut writer = kept.open()?;
    maximum(&writer)?;
    writer.publish_out(&with(&topic, "first", 1, 6, 1))?;
    reader.take("first")?;
    writer.send(&with("", "once", 2, 7, 1).bytes(server.version))?;
    writer.acked(PUBREC, 7)?;
    drop(writer);
    reader.take("once")?;
    let mut writer = kept.open()?;
    writer.send(&Out::new(&topic, "once", 2, 7).dup().bytes(server.version))?;
    writer.acked(PUBREC, 7)?;
    writer.send(&ack(crate::wire::PUBREL, 7))?;
    writer.acked(PUBCOMP, 7)?;
    reader.quiet()
}

/// The topic of a PUBLISH from the server, by what its aliases stand for.
fn topic_of(known: &mut [String], got: &Packet) -> Outcome<String> {
    let Some(alias) = got.prop(ALIAS) else {
        return Ok(got.topic.clone());
    };
    let place = match alias {
        Value::Two(number @ 1..) => known.get_mut(usize::from(*number) - 1),
        _ => None,
    };
    let place = place.ok_or_else(|| format!("an alias above the maximum or 0: {alias:?}"))?;
    if !got.topic.is_empty() {
        place.clone_from(&got.topic);
    }
    check(!place.is_empty(), || format!("{alias:?} stands for nothing yet"))?;
    Ok(place.clone())
}

fn is_sent_for_a_topic_that_repeats(server: &Server) -> Outcome {
    let first = server.name("topic");
    let mut reader = Connect::new(server).with(MAXIMUM, Value::Two(2)).open()?;
    reader.subscribe(&format!("{first}/#"), 2)?;
    let mut writer = Client::new(server)?;
    let (mut known, mut without_topic) = (vec![String::new(); 2], 0);
    for round in 0..4 {
        for number in 0..4 {
            let topic = format!("{first}/{number}");
            writer.publish(&topic, &format!("{round}"), number % 3)?;
            let got = reader.take(&format!("{round}"))?;
            let meant = topic_of(&mut known, &got)?;
            check(meant == topic, || format!("{} stands for {meant}", got.short()))?;
            without_topic += usize::from(got.topic.is_empty());
        }
    }
    if server.own {
        check(without_topic >= 4, || {
            format!("{without_topic} of 16 without their topic")
        })?;
    }
    Ok(())
}

fn resent_messages_have_their_topic(server: &Server) -> Outcome {
    let topic = server.name("topic");
    let kept = Connect::new(server).kept().with(MAXIMUM, Value::Two(3));
    let mut reader = kept.open()?;
    reader.subscribe(&topic, 1)?;
    let mut writer = Client::new(server)?;
    let mut known = vec![String::new(); 3];
    for number in 0..4 {
        writer.publish(&topic, &number.to_string(), 1)?;
        let got = reader.message_is(&number.to_string())?;
        topic_of(&mut known, &got)?;
    }
    drop(reader);
    let mut reader = kept.open()?;
    let mut known = vec![String::new(); 3];
    for number in 0..4 {
        let got = reader.take(&number.to_string())?;
        let meant = topic_of(&mut known, &got)?;
        check(got.dup() && meant == topic, || got.short())?;
    }
    reader.quiet()
}
