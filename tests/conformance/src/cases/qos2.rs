//! QoS 2: PUBREC, PUBREL, PUBCOMP in both directions, over lost connections too.

use std::time::Duration;

use super::{Case, cases, check};
use crate::client::{Client, Connect, Outcome};
use crate::server::{DENIED, Server};
use crate::wire::{Out, PUBCOMP, PUBLISH, PUBREC, PUBREL, Value, ack, ack_code};

pub(crate) const CASES: &[Case] = cases!("qos2";
    Both: in_is_delivered_once, in_repeated_before_pubrel_is_delivered_once, in_completed_identifier_is_a_new_message,
        in_over_a_lost_connection_is_delivered_once, in_pubrel_on_a_new_connection_is_answered,
        in_pubrel_repeated_is_answered, in_order_over_two_messages, out_goes_all_the_way,
        out_publish_is_resent_with_dup, out_pubrel_is_resent, out_publish_is_not_resent_after_pubrel,
        out_nothing_is_resent_when_complete, pubrel_with_wrong_flags_is_refused, pubrec_with_flags_is_refused,
        pubcomp_unknown_is_ignored, pubrec_repeated_is_answered_with_pubrel,
        in_clean_start_forgets_identifiers,
        in_pubrel_unknown_is_answered;
    V5: out_pubrec_error_ends_the_delivery, in_refused_identifier_is_a_new_message, in_pubrel_unknown_gets_0x92,
        out_pubrec_unknown_gets_0x92, in_is_completed_though_expired, out_is_completed_though_expired,
        pubrec_code_must_exist;
);

fn in_is_delivered_once(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut reader = Client::new(server)?;
    reader.subscribe(&topic, 2)?;
    Client::new(server)?.publish(&topic, "x", 2)?;
    let got = reader.take("x")?;
    check(got.qos() == 2, || got.short())?;
    reader.quiet()
}

fn in_repeated_before_pubrel_is_delivered_once(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut reader = Client::new(server)?;
    reader.subscribe(&topic, 0)?;
    let mut writer = Client::new(server)?;
    let out = Out::new(&topic, "x", 2, 3);
    for out in [out.clone(), out.clone().dup(), out.clone().dup()] {
        writer.send(&out.bytes(server.version))?;
        writer.acked(PUBREC, 3)?;
    }
    writer.send(&ack(PUBREL, 3))?;
    writer.acked(PUBCOMP, 3)?;
    reader.take("x")?;
    reader.quiet()
}

fn in_completed_identifier_is_a_new_message(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut reader = Client::new(server)?;
    reader.subscribe(&topic, 0)?;
    let mut writer = Client::new(server)?;
    for out in [Out::new(&topic, "x", 2, 3), Out::new(&topic, "x", 2, 3).dup()] {
        writer.publish_out(&out)?;
        reader.take("x")?;
    }
    reader.quiet()
}

fn in_over_a_lost_connection_is_delivered_once(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut reader = Client::new(server)?;
    reader.subscribe(&topic, 0)?;
    let kept = Connect::new(server).kept();
    let mut writer = kept.open()?;
    let out = Out::new(&topic, "x", 2, 3);
    writer.send(&out.bytes(server.version))?;
    writer.acked(PUBREC, 3)?;
    drop(writer);
    let mut writer = kept.open()?;
    check(writer.connack.present, || "no session".into())?;
    writer.publish_out(&out.dup())?;
    reader.take("x")?;
    reader.quiet()
}

fn in_pubrel_on_a_new_connection_is_answered(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut reader = Client::new(server)?;
    reader.subscribe(&topic, 0)?;
    let kept = Connect::new(server).kept();
    let mut writer = kept.open()?;
    writer.send(&Out::new(&topic, "x", 2, 3).bytes(server.version))?;
    writer.acked(PUBREC, 3)?;
    drop(writer);
    let mut writer = kept.open()?;
    writer.send(&ack(PUBREL, 3))?;
    writer.acked(PUBCOMP, 3)?;
    reader.take("x")?;
    reader.quiet()
}

fn in_pubrel_repeated_is_answered(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut writer = Client::new(server)?;
    writer.publish_out(&Out::new(&topic, "x", 2, 3))?;
    writer.send(&ack(PUBREL, 3))?;
    let answer = writer.expect(PUBCOMP)?;
    check(answer.pid == 3 && matches!(answer.code, 0 | 0x92), || {
        answer.short()
    })?;
    writer.ping()
}

fn in_order_over_two_messages(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut reader = Client::new(server)?;
    reader.subscribe(&topic, 2)?;
    let mut writer = Client::new(server)?;
    writer.send(&Out::new(&topic, "first", 2, 3).bytes(server.version))?;
    writer.send(&Out::new(&topic, "second", 2, 4).bytes(server.version))?;
    writer.acked(PUBREC, 3)?;
    writer.acked(PUBREC, 4)?;
    for pid in [3, 4] {
        writer.send(&ack(PUBREL, pid))?;
        writer.acked(PUBCOMP, pid)?;
    }
    reader.take("first")?;
    reader.take("second").map(drop)
}

/// A reader with one QoS 2 message delivered and not answered, and its CONNECT.
fn owed<'a>(server: &'a Server, topic: &str) -> Outcome<(Connect<'a>, Client, u16)> {
    let kept = Connect::new(server).kept();
    let mut reader = kept.open()?;
    reader.subscribe(topic, 2)?;
    Client::new(server)?.publish(topic, "x", 2)?;
    let got = reader.message_is("x")?;
    check(got.qos() == 2 && !got.dup(), || got.short())?;
    Ok((kept, reader, got.pid))
}

fn out_goes_all_the_way(server: &Server) -> Outcome {
    let (_, mut reader, pid) = owed(server, &server.name("t"))?;
    reader.send(&ack(PUBREC, pid))?;
    reader.acked(PUBREL, pid)?;
    reader.send(&ack(PUBCOMP, pid))?;
    reader.ping()?;
    reader.quiet()
}

fn out_publish_is_resent_with_dup(server: &Server) -> Outcome {
    let (kept, mut reader, pid) = owed(server, &server.name("t"))?;
    reader.quiet_for(Duration::from_millis(1500))?;
    drop(reader);
    let mut reader = kept.open()?;
    let again = reader.take("x")?;
    check(again.pid == pid && again.dup() && again.qos() == 2, || {
        again.short()
    })?;
    reader.quiet()
}

fn out_pubrel_is_resent(server: &Server) -> Outcome {
    let (kept, mut reader, pid) = owed(server, &server.name("t"))?;
    reader.send(&ack(PUBREC, pid))?;
    reader.acked(PUBREL, pid)?;
    reader.quiet_for(Duration::from_millis(1500))?;
    drop(reader);
    for _ in 0..2 {
        let mut reader = kept.open()?;
        check(reader.connack.present, || "no session".into())?;
        reader.acked(PUBREL, pid)?;
    }
    let mut reader = kept.open()?;
    reader.acked(PUBREL, pid)?;
    reader.send(&ack(PUBCOMP, pid))?;
    reader.ping()?;
    drop(reader);
    kept.open()?.quiet()
}

fn out_publish_is_not_resent_after_pubrel(server: &Server) -> Outcome {
    let (kept, mut reader, pid) = owed(server, &server.name("t"))?;
    reader.send(&ack(PUBREC, pid))?;
    reader.acked(PUBREL, pid)?;
    drop(reader);
    let mut reader = kept.open()?;
    let first = reader.next()?;
    check(first.kind == PUBREL && first.pid == pid, || first.short())?;
    reader.quiet()
}

fn out_nothing_is_resent_when_complete(server: &Server) -> Outcome {
    let (kept, mut reader, pid) = owed(server, &server.name("t"))?;
    reader.send(&ack(PUBREC, pid))?;
    reader.acked(PUBREL, pid)?;
    reader.send(&ack(PUBCOMP, pid))?;
    reader.ping()?;
    drop(reader);
    let mut reader = kept.open()?;
    check(reader.connack.present, || "no session".into())?;
    reader.quiet()
}

fn pubrel_with_wrong_flags_is_refused(server: &Server) -> Outcome {
    for flags in [0, 1, 3, 6, 0xA] {
        let mut client = Client::new(server)?;
        client.send(&Out::new(server.name("t"), "x", 2, 3).bytes(server.version))?;
        client.acked(PUBREC, 3)?;
        client.send(&[0x60 | flags, 2, 0, 3])?;
        client
            .told(&[0x81])
            .map_err(|error| format!("flags {flags:#x}: {error}"))?;
    }
    Ok(())
}

fn pubrec_with_flags_is_refused(server: &Server) -> Outcome {
    for first in [0x51, 0x52, 0x72] {
        let mut client = Client::new(server)?;
        client.send(&[first, 2, 0, 3])?;
        client
            .told(&[0x81])
            .map_err(|error| format!("{first:#04x}: {error}"))?;
    }
    Ok(())
}

fn pubcomp_unknown_is_ignored(server: &Server) -> Outcome {
    let mut client = Client::new(server)?;
    client.send(&ack(PUBCOMP, 77))?;
    client.ping()
}

fn pubrec_repeated_is_answered_with_pubrel(server: &Server) -> Outcome {
    let (_, mut reader, pid) = owed(server, &server.name("t"))?;
    for _ in 0..2 {
        reader.send(&ack(PUBREC, pid))?;
        reader.acked(PUBREL, pid)?;
    }
    reader.send(&ack(PUBCOMP, pid))?;
    reader.ping()
}

fn out_pubrec_error_ends_the_delivery(server: &Server) -> Outcome {
    let (kept, mut reader, pid) = owed(server, &server.name("t"))?;
    reader.send(&ack_code(PUBREC, pid, 0x80))?;
    reader.ping()?;
    reader.quiet()?;
    drop(reader);
    kept.open()?.quiet()
}

fn in_refused_identifier_is_a_new_message(server: &Server) -> Outcome {
    let server = &server.guarded()?;
    let topic = server.name("t");
    let mut reader = Client::new(server)?;
    reader.subscribe(&topic, 2)?;
    let mut writer = Client::new(server)?;
    writer.send(&Out::new(format!("{DENIED}/{topic}"), "no", 2, 3).bytes(server.version))?;
    let answer = writer.expect(PUBREC)?;
    check(answer.pid == 3 && answer.code == 0x87, || answer.short())?;
    writer.publish_out(&Out::new(&topic, "yes", 2, 3))?;
    reader.take("yes").map(drop)
}

fn in_pubrel_unknown_gets_0x92(server: &Server) -> Outcome {
    let mut client = Client::new(server)?;
    client.send(&ack(PUBREL, 77))?;
    let answer = client.expect(PUBCOMP)?;
    check(answer.pid == 77 && answer.code == 0x92, || answer.short())
}

fn out_pubrec_unknown_gets_0x92(server: &Server) -> Outcome {
    let mut client = Client::new(server)?;
    client.send(&ack(PUBREC, 77))?;
    let answer = client.expect(PUBREL)?;
    check(answer.pid == 77 && answer.code == 0x92, || answer.short())
}

/// The message expires between PUBREC and PUBREL; the exchange goes on.
fn in_is_completed_though_expired(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut writer = Client::new(server)?;
    writer.send(
        &Out::new(&topic, "x", 2, 3)
            .with(0x02, Value::Four(1))
            .bytes(server.version),
    )?;
    writer.acked(PUBREC, 3)?;
    std::thread::sleep(Duration::from_millis(2100));
    writer.send(&ack(PUBREL, 3))?;
    writer.acked(PUBCOMP, 3).map(drop)
}

/// Expired after it was sent: it is resent, and completed, all the same.
fn out_is_completed_though_expired(server: &Server) -> Outcome {
    let topic = server.name("t");
    for answered in [false, true] {
        let kept = Connect::new(server).kept();
        let mut reader = kept.open()?;
        reader.subscribe(&topic, 2)?;
        let mut writer = Client::new(server)?;
        writer.publish_out(&Out::new(&topic, "x", 2, 3).with(0x02, Value::Four(1)))?;
        let got = reader.message_is("x")?;
        if answered {
            reader.send(&ack(PUBREC, got.pid))?;
            reader.acked(PUBREL, got.pid)?;
        }
        drop(reader);
        std::thread::sleep(Duration::from_millis(2100));
        let mut reader = kept.open()?;
        let again = reader
            .next()
            .map_err(|error| format!("PUBREC sent before: {answered}: {error}"))?;
        let kind = if answered { PUBREL } else { PUBLISH };
        check(again.kind == kind && again.pid == got.pid, || again.short())?;
        if !answered {
            reader.send(&ack(PUBREC, got.pid))?;
            reader.acked(PUBREL, got.pid)?;
        }
        reader.send(&ack(PUBCOMP, got.pid))?;
        reader.ping()?;
    }
    Ok(())
}

fn pubrec_code_must_exist(server: &Server) -> Outcome {
    let (_, mut reader, pid) = owed(server, &server.name("t"))?;
    reader.send(&ack_code(PUBREC, pid, 0x04))?;
    reader.told(&[0x81, 0x82])
}

fn in_clean_start_forgets_identifiers(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut reader = Client::new(server)?;
    reader.subscribe(&topic, 0)?;
    let kept = Connect::new(server).kept();
    let mut writer = kept.open()?;
    writer.send(&Out::new(&topic, "same", 2, 3).bytes(server.version))?;
    writer.acked(PUBREC, 3)?;
    drop(writer);
    // Whether the first is delivered, as its PUBREC may be taken to say, or not: the second is another message.
    let first = reader.message_soon();
    let mut writer = kept.clean(true).open()?;
    writer.publish_out(&Out::new(&topic, "same", 2, 3))?;
    reader.take("same")?;
    check(!first || !reader.message_soon(), || {
        "delivered once too often".into()
    })
}

fn in_pubrel_unknown_is_answered(server: &Server) -> Outcome {
    let mut client = Client::new(server)?;
    client.send(&ack(PUBREL, 77))?;
    let answer = client.expect(PUBCOMP)?;
    check(answer.pid == 77, || answer.short())?;
    client.ping()
}
