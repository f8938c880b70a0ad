//! Corners in which brokers are known to have bugs and that no single statement names.

use std::time::Duration;

use super::{Case, cases, check};
use crate::client::{Client, Connect, Outcome};
use crate::server::Server;
use crate::wire::{Out, PUBACK, PUBCOMP, PUBREC, PUBREL, Value, Version, ack, packet, text, user};

pub(crate) const CASES: &[Case] = cases!("corners";
    Both: dup_on_every_resend, identifiers_of_resumed_qos_2_are_not_reused, overlapping_subscriptions,
        unsubscribe_one_of_overlapping, clean_start_against_a_live_session, remaining_length_of_five_bytes,
        packet_in_single_bytes, session_across_versions, larger_than_the_server_takes, resumed_and_new_in_order,
        crossed_acknowledgements_end_nothing, everything_at_once,
        take_over_across_versions,
        identifiers_of_both_directions_are_apart, retained_for_two_filters_at_once;
    V5: overlap_with_different_options;
);

fn dup_on_every_resend(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut reader = kept.open()?;
    reader.subscribe(&topic, 2)?;
    let mut writer = Client::new(server)?;
    for number in 0..6 {
        writer.publish(&topic, &number.to_string(), 1 + number % 2)?;
    }
    let mut first = Vec::new();
    for _ in 0..6 {
        first.push(reader.message()?);
    }
    for round in 0..3 {
        drop(reader);
        reader = kept.open()?;
        for before in &first {
            let again = reader.message()?;
            check(
                again.dup() && again.pid == before.pid && again.payload == before.payload,
                || format!("round {round}: {} then {}", before.short(), again.short()),
            )?;
        }
    }
    Ok(())
}

/// A PUBREL is owed over a resume; new messages must not get its identifier, as long as it lasts.
fn identifiers_of_resumed_qos_2_are_not_reused(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut reader = kept.open()?;
    reader.subscribe(&topic, 2)?;
    let mut writer = Client::new(server)?;
    let mut owed = Vec::new();
    for number in 0..5 {
        writer.publish(&topic, &format!("old {number}"), 2)?;
        let got = reader.message_is(&format!("old {number}"))?;
        reader.send(&ack(PUBREC, got.pid))?;
        reader.acked(PUBREL, got.pid)?;
        owed.push(got.pid);
    }
    drop(reader);
    let mut reader = kept.open()?;
    for pid in &owed {
        reader.acked(PUBREL, *pid)?;
    }
    for number in 0..40 {
        let payload = format!("new {number}");
        writer.publish(&topic, &payload, 1 + number % 2)?;
        let got = reader.take(&payload)?;
        check(!owed.contains(&got.pid) && !got.dup(), || {
            format!("owed {owed:?}: {}", got.short())
        })?;
    }
    for pid in owed {
        reader.send(&ack(PUBCOMP, pid))?;
    }
    reader.ping()?;
    drop(reader);
    kept.open()?.quiet()
}

/// How many copies come is the server's choice; each has a QoS that a subscription allows, the highest is among them.
fn overlapping_subscriptions(server: &Server) -> Outcome {
    let base = server.name("t");
    let topic = format!("{base}/a");
    let mut reader = Client::new(server)?;
    reader.subscribe_all(
        &[(&topic, 0), (&format!("{base}/+"), 2), (&format!("{base}/#"), 1)],
        &[],
    )?;
    Client::new(server)?.publish(&topic, "x", 2)?;
    let mut seen = vec![reader.take("x")?.qos()];
    while reader.message_waits()? {
        seen.push(reader.take("x")?.qos());
    }
    seen.sort_unstable();
    check(seen == [2] || seen == [0, 1, 2], || {
        format!("QoS of the copies: {seen:?}")
    })
}

/// Many times, with many clients, since a route that goes a little after its UNSUBACK is seen only now and then.
fn unsubscribe_one_of_overlapping(server: &Server) -> Outcome {
    for _ in 0..16 {
        let mut writer = Client::new(server)?;
        let mut reader = Client::new(server)?;
        for round in 0..40 {
            let base = server.name("t");
            let topic = format!("{base}/a");
            let all = format!("{base}/#");
            reader.subscribe_all(&[(&topic, 2), (&all, 1)], &[])?;
            reader.unsubscribe(&[&topic])?;
            writer.publish(&topic, "x", 2)?;
            let got = reader.take("x")?;
            check(got.qos() == 1, || {
                format!("round {round}, QoS 1 is left: {}", got.short())
            })?;
            reader.unsubscribe(&[&all])?;
        }
    }
    Ok(())
}

fn clean_start_against_a_live_session(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut older = kept.open()?;
    older.subscribe(&topic, 1)?;
    let mut writer = Client::new(server)?;
    writer.publish(&topic, "owed", 1)?;
    older.message_is("owed")?;
    let mut newer = kept.clean(true).open()?;
    check(!newer.connack.present, || "session present 1".into())?;
    older.told(&[0x8E])?;
    writer.publish(&topic, "new", 1)?;
    newer.quiet()?;
    newer.ping()
}

fn remaining_length_of_five_bytes(server: &Server) -> Outcome {
    for first in [0x30, 0xC0, 0x82] {
        let mut client = Client::new(server)?;
        client.send(&[first, 0xFF, 0xFF, 0xFF, 0xFF, 0x01])?;
        client.refused(&[0x81, 0x95])?;
        // Also without the fifth byte: the fourth already says too much.
        let mut client = Client::new(server)?;
        client.send(&[first, 0x80, 0x80, 0x80, 0x80])?;
        client.refused(&[0x81, 0x95])?;
    }
    let mut client = Client::bare(server)?;
    client.send(&[0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0x01])?;
    client.ended()
}

fn packet_in_single_bytes(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut client = Client::new(server)?;
    client.subscribe(&topic, 1)?;
    for byte in Out::new(&topic, "slow", 1, 9).bytes(server.version) {
        client.send(&[byte])?;
        std::thread::sleep(Duration::from_millis(5));
    }
    client.acked(PUBACK, 9)?;
    client.take("slow").map(drop)
}

/// A session made in one version and come back to in the other, and again.
fn session_across_versions(server: &Server) -> Outcome {
    let topic = server.name("t");
    let id = server.name("i");
    let mut writer = Client::new(server)?;
    let (mine, other) = match server.version {
        Version::V311 => (Version::V311, Version::V5),
        Version::V5 => (Version::V5, Version::V311),
    };
    let mut client = Connect::new(server).id(&id).version(mine).kept().open()?;
    client.subscribe(&topic, 1)?;
    writer.publish(&topic, "unanswered", 1)?;
    let first = client.message_is("unanswered")?;
    drop(client);
    let mut out = Out::new(&topic, "while away", 1, 5);
    if server.v5() {
        out = out.with(0x02, Value::Four(1000)).with(0x03, text("text/plain"));
        out.props.push(user("name", "value"));
    }
    writer.publish_out(&out)?;
    let mut client = Connect::new(server).id(&id).version(other).kept().open()?;
    check(client.connack.present, || {
        "session present 0 in the other version".into()
    })?;
    let again = client.take("unanswered")?;
    check(again.dup() && again.pid == first.pid, || again.short())?;
    client.take("while away")?;
    client.ping()?;
    drop(client);
    writer.publish(&topic, "back", 1)?;
    let mut client = Connect::new(server).id(&id).version(mine).kept().open()?;
    check(client.connack.present, || "session present 0 when back".into())?;
    client.take("back")?;
    client.quiet()
}

/// The server may refuse what is too large for it, but nobody else is harmed.
fn larger_than_the_server_takes(server: &Server) -> Outcome {
    let mut bystander = Client::new(server)?;
    let mut client = Client::new(server)?;
    // A PUBLISH of 200 MB is announced, and begun.
    client.send_anyway(&[0x30, 0xFF, 0xFF, 0xFF, 0x5F, 0, 1, b'a']);
    client.refused(&[0x95, 0x81]).or_else(|error| {
        if error.contains("open") {
            Ok(())
        } else {
            Err(error)
        }
    })?;
    bystander.ping()
}

fn resumed_and_new_in_order(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut reader = kept.open()?;
    reader.subscribe(&topic, 1)?;
    let mut writer = Client::new(server)?;
    writer.publish(&topic, "0", 1)?;
    reader.message_is("0")?;
    drop(reader);
    writer.publish(&topic, "1", 1)?;
    let mut reader = kept.open()?;
    writer.publish(&topic, "2", 1)?;
    for payload in ["0", "1", "2"] {
        reader.take(payload)?;
    }
    reader.quiet()
}

/// A PUBACK for a QoS 2 message and a PUBREC for a QoS 1 message are wrong; neither may count as delivered.
fn crossed_acknowledgements_end_nothing(server: &Server) -> Outcome {
    let topic = server.name("t");
    for (qos, kind) in [(2, PUBACK), (1, PUBREC), (2, PUBCOMP)] {
        let kept = Connect::new(server).kept();
        let mut reader = kept.open()?;
        reader.subscribe(&topic, 2)?;
        Client::new(server)?.publish(&topic, "x", qos)?;
        let got = reader.message_is("x")?;
        reader.send(&ack(kind, got.pid))?;
        // It may be closed or left open.
        let _ = reader.next_soon();
        drop(reader);
        let mut reader = kept.open()?;
        let again = reader.message_is("x").map_err(|error| {
            format!(
                "QoS {qos}, answered with {}: {error}",
                crate::wire::kind_name(kind)
            )
        })?;
        check(again.pid == got.pid && again.dup(), || again.short())?;
        reader.finish(&again)?;
        reader.unsubscribe(&[&topic])?;
        reader.disconnect()?;
    }
    Ok(())
}

/// Many packets in one write: all are answered, PUBACKs in order. Messages to itself may come as soon as the
/// subscription is live, which is at the SUBACK at the latest; those that come are in order.
fn everything_at_once(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut client = Client::new(server)?;
    let version = server.version;
    let mut bytes = crate::wire::subscribe(version, 1, &[(&topic, 1)], &[]);
    for pid in 2..30 {
        bytes.extend(Out::new(&topic, pid.to_string(), 1, pid).bytes(version));
        bytes.extend(packet(0xC0, &[]));
    }
    client.send(&bytes)?;
    let (mut pubacks, mut pings, mut subacks, mut last) = (2, 0, 0, 0);
    while pubacks < 30 || pings < 28 || subacks < 1 {
        let got = client.next().map_err(|error| {
            format!("{error} ({subacks} SUBACK, {pings} PINGRESP, next PUBACK {pubacks})")
        })?;
        match got.kind {
            PUBACK => {
                check(got.pid == pubacks, || got.short())?;
                pubacks += 1;
            }
            crate::wire::PINGRESP => pings += 1,
            crate::wire::SUBACK => subacks += 1,
            crate::wire::PUBLISH => {
                let number = String::from_utf8_lossy(&got.payload).parse().unwrap_or(0);
                check(number > last, || format!("{} after {last}", got.short()))?;
                last = number;
                client.finish(&got)?;
            }
            _ => return Err(got.short()),
        }
    }
    Ok(())
}

fn take_over_across_versions(server: &Server) -> Outcome {
    let id = server.name("i");
    let connect = Connect::new(server).id(&id);
    let other = match server.version {
        Version::V311 => Version::V5,
        Version::V5 => Version::V311,
    };
    let mut mine = connect.open()?;
    let mut theirs = connect.clone().version(other).open()?;
    mine.told(&[0x8E])?;
    let mut back = connect.open()?;
    theirs.told(&[0x8E])?;
    back.ping()
}

/// One subscription has No Local, the other has not: what the other brings comes, once or for it alone.
fn overlap_with_different_options(server: &Server) -> Outcome {
    let base = server.name("t");
    let topic = format!("{base}/a");
    let mut client = Client::new(server)?;
    client.subscribe_all(&[(&topic, 0x06)], &[(0x0B, Value::Var(1))])?;
    client.subscribe_all(&[(&format!("{base}/#"), 0x01)], &[(0x0B, Value::Var(2))])?;
    client.publish(&topic, "own", 2)?;
    let got = client.take("own")?;
    check(got.qos() == 1 && got.identifiers() == [2], || {
        format!("{} {:?}", got.short(), got.props)
    })?;
    client.quiet()
}

/// A QoS 2 message each way, both under one identifier, step by step.
fn identifiers_of_both_directions_are_apart(server: &Server) -> Outcome {
    let (inward, outward) = (server.name("t"), server.name("t"));
    let mut other = Client::new(server)?;
    other.subscribe(&outward, 0)?;
    let mut client = Client::new(server)?;
    client.subscribe(&inward, 2)?;
    other.publish(&inward, "in", 2)?;
    let pid = client.message_is("in")?.pid;
    client.send(&Out::new(&outward, "out", 2, pid).bytes(server.version))?;
    client.acked(PUBREC, pid)?;
    client.send(&ack(PUBREC, pid))?;
    client.acked(PUBREL, pid)?;
    client.send(&ack(PUBREL, pid))?;
    client.acked(PUBCOMP, pid)?;
    client.send(&ack(PUBCOMP, pid))?;
    // Also for SUBSCRIBE.
    client.send(&crate::wire::subscribe(
        server.version,
        pid,
        &[(&outward, 0)],
        &[],
    ))?;
    let suback = client.expect(crate::wire::SUBACK)?;
    check(suback.pid == pid && suback.codes == [0], || suback.short())?;
    other.take("out")?;
    client.ping()?;
    client.quiet()
}

/// Two filters in one SUBSCRIBE that match one retained message: each is a subscription that gets it, or it comes once.
fn retained_for_two_filters_at_once(server: &Server) -> Outcome {
    let base = server.name("t");
    let topic = format!("{base}/a");
    Client::new(server)?.retain(&topic, "kept", 2)?;
    let mut reader = Client::new(server)?;
    reader.subscribe_all(&[(&topic, 1), (&format!("{base}/#"), 2)], &[])?;
    let mut seen = vec![reader.take("kept")?];
    while reader.message_waits()? {
        seen.push(reader.take("kept")?);
    }
    let mut qos: Vec<u8> = seen.iter().map(|packet| packet.qos()).collect();
    qos.sort_unstable();
    let right = seen.iter().all(|packet| packet.retain() && !packet.dup());
    check(right && (qos == [1, 2] || qos == [2]), || {
        format!("QoS of the copies {qos:?}")
    })
}
