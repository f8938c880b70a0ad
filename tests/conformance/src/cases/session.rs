//! Session state: kept, resumed, discarded, ended; what is owed to who is away.

use std::time::Duration;

use super::{Case, cases, check};
use crate::client::{Client, Connect, Outcome};
use crate::server::Server;
use crate::wire::{Out, PUBACK, Value, disconnect};

pub(crate) const CASES: &[Case] = cases!("session";
    Both: clean_start_discards, resumed_with_its_subscriptions, none_is_created_anew, clean_lasts_no_longer,
        qos_1_and_2_are_kept_for_the_absent, kept_after_a_lost_connection, present_only_if_kept,
        taken_over_without_loss, retained_is_no_part_of_it, order_over_a_resume, client_ids_are_apart,
        long_absence_backlog;
    V5: expiry_0_ends_with_the_connection, expires_after_its_time, expiry_at_disconnect_ends_it,
        expiry_at_disconnect_prolongs_it, expiry_from_0_at_disconnect_is_refused,
        clean_start_1_with_expiry_is_kept, expires_right_after_a_start, resumed_expiry_is_the_new_one, never_ends_while_connected,
        another_expiry_is_told;
);

fn clean_start_discards(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut client = kept.open()?;
    client.subscribe(&topic, 1)?;
    client.disconnect()?;
    let mut writer = Client::new(server)?;
    writer.publish(&topic, "owed", 1)?;
    let mut client = kept.clone().clean(true).open()?;
    check(!client.connack.present, || "session present 1".into())?;
    writer.publish(&topic, "new", 1)?;
    client.quiet()?;
    drop(client);
    let mut client = kept.open()?;
    client.quiet()
}

fn resumed_with_its_subscriptions(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut client = kept.open()?;
    check(!client.connack.present, || {
        "session present 1 at the first connect".into()
    })?;
    client.subscribe(&topic, 1)?;
    client.disconnect()?;
    let mut client = kept.open()?;
    check(client.connack.present, || "session present 0".into())?;
    Client::new(server)?.publish(&topic, "x", 1)?;
    client.take("x").map(drop)
}

fn none_is_created_anew(server: &Server) -> Outcome {
    let kept = Connect::new(server).kept();
    let client = kept.open()?;
    check(!client.connack.present, || "session present 1".into())?;
    drop(client);
    check(kept.open()?.connack.present, || "session present 0".into())
}

fn clean_lasts_no_longer(server: &Server) -> Outcome {
    let topic = server.name("t");
    let clean = Connect::new(server);
    for lost in [false, true] {
        let mut client = clean.open()?;
        client.subscribe(&topic, 1)?;
        if lost {
            drop(client);
        } else {
            client.disconnect()?;
        }
        std::thread::sleep(Duration::from_millis(300));
        Client::new(server)?.publish(&topic, "x", 1)?;
        let mut client = clean.clone().clean(false).open()?;
        check(!client.connack.present, || {
            format!("lost {lost}: session present 1")
        })?;
        client.quiet()?;
        client.disconnect()?;
        clean.open()?.disconnect()?;
    }
    Ok(())
}

fn qos_1_and_2_are_kept_for_the_absent(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut client = kept.open()?;
    client.subscribe(&topic, 2)?;
    client.disconnect()?;
    let mut writer = Client::new(server)?;
    writer.publish(&topic, "one", 1)?;
    writer.publish(&topic, "two", 2)?;
    let mut client = kept.open()?;
    let one = client.take("one")?;
    let two = client.take("two")?;
    check(
        one.qos() == 1 && two.qos() == 2 && !one.dup() && !two.dup(),
        || format!("{} {}", one.short(), two.short()),
    )?;
    client.quiet()
}

fn kept_after_a_lost_connection(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut client = kept.open()?;
    client.subscribe(&topic, 1)?;
    drop(client);
    Client::new(server)?.publish(&topic, "x", 1)?;
    let mut client = kept.open()?;
    check(client.connack.present, || "session present 0".into())?;
    client.take("x").map(drop)
}

fn present_only_if_kept(server: &Server) -> Outcome {
    let connect = Connect::new(server);
    let mut seen = Vec::new();
    for (clean, kept) in [
        (true, false),
        (false, true),
        (false, true),
        (true, false),
        (false, false),
        (false, true),
    ] {
        let mut connect = connect.clone().clean(clean);
        if server.v5() {
            connect = connect.with(0x11, Value::Four(if kept { 3600 } else { 0 }));
        }
        let client = connect.open()?;
        seen.push(client.connack.present);
        client.disconnect()?;
    }
    // 3.1.1 knows only clean or not: the fifth makes a session, which the sixth finds.
    let wanted = [false, false, true, false, false, !server.v5()];
    check(seen == wanted, || format!("{seen:?}, wanted {wanted:?}"))
}

fn taken_over_without_loss(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut older = kept.open()?;
    older.subscribe(&topic, 1)?;
    let mut writer = Client::new(server)?;
    writer.publish(&topic, "unanswered", 1)?;
    let first = older.message_is("unanswered")?;
    let mut newer = kept.open()?;
    check(newer.connack.present, || "session present 0".into())?;
    let again = newer.take("unanswered")?;
    check(again.dup() && again.pid == first.pid, || again.short())?;
    writer.publish(&topic, "next", 1)?;
    newer.take("next")?;
    older.told(&[0x8E])
}

fn retained_is_no_part_of_it(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut client = kept.open()?;
    client.retain(&topic, "kept", 1)?;
    client.disconnect()?;
    kept.clean(true).open()?.disconnect()?;
    let mut reader = Client::new(server)?;
    reader.subscribe(&topic, 1)?;
    reader.take("kept").map(drop)
}

fn order_over_a_resume(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut reader = kept.open()?;
    reader.subscribe(&topic, 2)?;
    let mut writer = Client::new(server)?;
    for number in 0..10 {
        writer.publish(&topic, &number.to_string(), 1 + number % 2)?;
    }
    let mut first = Vec::new();
    for number in 0..10 {
        first.push(reader.message_is(&number.to_string())?);
    }
    drop(reader);
    for number in 10..15 {
        writer.publish(&topic, &number.to_string(), 1)?;
    }
    let mut reader = kept.open()?;
    let mut got = Vec::new();
    for _ in 0..15 {
        let packet = reader.message()?;
        let before = first
            .iter()
            .find(|packet_before| packet_before.payload == packet.payload);
        check(packet.dup() == before.is_some(), || packet.short())?;
        check(before.is_none_or(|before| before.pid == packet.pid), || {
            packet.short()
        })?;
        got.push((
            packet.qos(),
            String::from_utf8_lossy(&packet.payload).parse().unwrap_or(99),
        ));
        if packet.qos() == 1 {
            reader.send(&crate::wire::ack(PUBACK, packet.pid))?;
        }
    }
    // The order is promised for each QoS.
    for qos in [1, 2] {
        let numbers: Vec<u32> = got.iter().filter(|(q, _)| *q == qos).map(|(_, n)| *n).collect();
        check(numbers.is_sorted(), || format!("QoS {qos}: {numbers:?}"))?;
    }
    Ok(())
}

fn client_ids_are_apart(server: &Server) -> Outcome {
    let topic = server.name("t");
    let id = server.name("i");
    let kept = Connect::new(server).kept();
    let mut one = kept.clone().id(&id).open()?;
    one.subscribe(&topic, 1)?;
    one.disconnect()?;
    for other in [format!("{id}x"), id.to_uppercase(), format!(" {id}")] {
        let mut client = kept.clone().id(other).open()?;
        check(!client.connack.present, || "session present 1".into())?;
        client.quiet()?;
    }
    check(kept.id(&id).open()?.connack.present, || {
        "session present 0".into()
    })
}

fn long_absence_backlog(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut reader = kept.open()?;
    reader.subscribe(&topic, 1)?;
    reader.disconnect()?;
    let mut writer = Client::new(server)?;
    for round in 0..4 {
        let mut bytes = Vec::new();
        for number in 0..100_u16 {
            let payload = (round * 100 + number).to_string();
            bytes.extend(Out::new(&topic, payload, 1, number + 1).bytes(server.version));
        }
        writer.send(&bytes)?;
        for number in 1..=100 {
            writer.acked(PUBACK, number)?;
        }
    }
    let mut reader = kept.open()?;
    for number in 0..400 {
        reader.take(&number.to_string())?;
    }
    reader.quiet()
}

fn expiry_0_ends_with_the_connection(server: &Server) -> Outcome {
    let connect = Connect::new(server).clean(false);
    for connect in [connect.clone(), connect.with(0x11, Value::Four(0))] {
        connect.open()?.disconnect()?;
        drop(connect.open()?);
        std::thread::sleep(Duration::from_millis(300));
        check(!connect.open()?.connack.present, || "session present 1".into())?;
    }
    Ok(())
}

fn expires_after_its_time(server: &Server) -> Outcome {
    let topic = server.name("t");
    let connect = Connect::new(server).clean(false).with(0x11, Value::Four(1));
    let mut client = connect.open()?;
    client.subscribe(&topic, 1)?;
    client.disconnect()?;
    check(connect.open()?.connack.present, || "gone at once".into())?;
    std::thread::sleep(Duration::from_millis(3000));
    let mut client = connect.open()?;
    check(!client.connack.present, || {
        "session present 1 after 3 s, expiry 1 s".into()
    })?;
    Client::new(server)?.publish(&topic, "x", 1)?;
    client.quiet()
}

fn expiry_at_disconnect_ends_it(server: &Server) -> Outcome {
    let connect = Connect::new(server).kept();
    connect.open()?.disconnect_with(0, &[(0x11, Value::Four(0))])?;
    check(!connect.open()?.connack.present, || "session present 1".into())
}

fn expiry_at_disconnect_prolongs_it(server: &Server) -> Outcome {
    let connect = Connect::new(server).clean(false).with(0x11, Value::Four(1));
    connect.open()?.disconnect_with(0, &[(0x11, Value::Four(600))])?;
    std::thread::sleep(Duration::from_millis(2500));
    check(connect.open()?.connack.present, || "session present 0".into())
}

fn expiry_from_0_at_disconnect_is_refused(server: &Server) -> Outcome {
    let mut client = Client::new(server)?;
    client.send(&disconnect(server.version, 0, &[(0x11, Value::Four(60))]))?;
    client.told(&[0x82])
}

fn clean_start_1_with_expiry_is_kept(server: &Server) -> Outcome {
    let connect = Connect::new(server).with(0x11, Value::Four(600));
    connect.open()?.disconnect()?;
    check(connect.clean(false).open()?.connack.present, || {
        "session present 0".into()
    })
}

fn resumed_expiry_is_the_new_one(server: &Server) -> Outcome {
    let kept = Connect::new(server).kept();
    kept.open()?.disconnect()?;
    let mut without = kept.clone();
    without.props.clear();
    let client = without.open()?;
    check(client.connack.present, || "session present 0".into())?;
    client.disconnect()?;
    check(!kept.open()?.connack.present, || {
        "session present 1, the last connection had no expiry".into()
    })
}

fn never_ends_while_connected(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut client = Connect::new(server)
        .clean(false)
        .with(0x11, Value::Four(1))
        .open()?;
    client.subscribe(&topic, 1)?;
    std::thread::sleep(Duration::from_millis(2500));
    Client::new(server)?.publish(&topic, "x", 1)?;
    client.take("x").map(drop)
}

/// The server waits a while after its start so that clients may come back from an outage; a session that was made since
/// has nothing to do with that.
fn expires_right_after_a_start(server: &Server) -> Outcome {
    let connect = Connect::new(server).clean(false).with(0x11, Value::Four(1));
    connect.open()?.disconnect()?;
    std::thread::sleep(Duration::from_millis(4000));
    check(!connect.open()?.connack.present, || {
        "session present 1 after 4 s, expiry 1 s (within 30 s of the server's start)".into()
    })
}

/// Who asks for a session without end is told if it gets less.
fn another_expiry_is_told(server: &Server) -> Outcome {
    let client = Connect::new(server)
        .clean(false)
        .with(0x11, Value::Four(u32::MAX))
        .open()?;
    let told = client.connack.prop(0x11).cloned();
    let wanted = server.own.then_some(Value::Four(90 * 86_400));
    check(told == wanted, || format!("session expiry in CONNACK: {told:?}"))?;
    let client = Connect::new(server)
        .clean(false)
        .with(0x11, Value::Four(77))
        .open()?;
    check(
        matches!(client.connack.prop(0x11), None | Some(Value::Four(77))),
        || format!("{:?}", client.connack.props),
    )
}
