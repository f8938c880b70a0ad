//! Shared subscriptions: who of a group gets a message, names and filters, and what becomes of a member's work.

use super::{Case, cases, check};
use crate::client::{Client, Connect, Outcome};
use crate::server::Server;
use crate::wire::{DISCONNECT, Out, PUBACK, PUBREC, PUBREL, SUBACK, Value, ack, ack_code, subscribe};

pub(crate) const CASES: &[Case] = cases!("shared";
    Both: one_member_gets_each, wildcards_match, groups_on_one_filter_are_apart, in_a_group_and_outside,
        members_that_are_away_come_last, clean_start_gives_its_work_on, lost_clean_session_gives_its_work_on,
        unsubscribed_member_gets_no_more, lost_connection_keeps_its_work, filters_without_a_name_are_refused,
        reserved_filters_are_refused;
    V5: announced, no_local_is_a_protocol_error, granted_qos_is_respected, no_retained_messages,
        identifiers_and_codes_are_a_members_own, begun_qos_2_is_completed, begun_qos_2_ends_with_its_session,
        errors_discard_the_message;
);

/// A member of `$share/g/{topic}` with a kept session.
fn member(kept: &Connect<'_>, topic: &str, qos: u8) -> Outcome<Client> {
    let mut client = kept.open()?;
    client.subscribe(&format!("$share/g/{topic}"), qos)?;
    Ok(client)
}

fn one_member_gets_each(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut members = Vec::new();
    for _ in 0..3 {
        let mut client = Client::new(server)?;
        client.subscribe(&format!("$share/g/{topic}"), 1)?;
        members.push(client);
    }
    let mut outside = Client::new(server)?;
    outside.subscribe(&topic, 1)?;
    let mut writer = Client::new(server)?;
    for number in 0..9 {
        writer.publish(&topic, &number.to_string(), 1)?;
        outside.take(&number.to_string())?;
    }
    let mut all = Vec::new();
    for client in &mut members {
        for _ in 0..3 {
            let packet = client
                .message()
                .map_err(|error| format!("not in turn: {error}"))?;
            client.finish(&packet)?;
            all.push(packet.payload);
        }
    }
    all.sort();
    let expected: Vec<Vec<u8>> = (0..9).map(|number| number.to_string().into_bytes()).collect();
    check(all == expected, || format!("{all:?}"))?;
    members.iter_mut().try_for_each(Client::quiet)
}

fn wildcards_match(server: &Server) -> Outcome {
    let name = server.name("t");
    let topic = format!("x/{name}/y");
    for filter in [
        format!("x/{name}/+"),
        format!("x/{name}/#"),
        format!("+/{name}/y"),
        format!("+/{name}/#"),
        format!("x/{name}/y/#"),
    ] {
        let (mut one, mut two) = (Client::new(server)?, Client::new(server)?);
        for client in [&mut one, &mut two] {
            client.subscribe(&format!("$share/g/{filter}"), 1)?;
        }
        let mut writer = Client::new(server)?;
        writer.publish(&topic, "a", 1)?;
        writer.publish(&topic, "b", 1)?;
        let mut got = Vec::new();
        for client in [&mut one, &mut two] {
            let packet = client.message().map_err(|error| format!("{filter}: {error}"))?;
            client.finish(&packet)?;
            got.push(packet.payload);
        }
        got.sort();
        check(got == [b"a".to_vec(), b"b".to_vec()], || {
            format!("{filter}: {got:?}")
        })?;
        writer.publish(&format!("x/{name}z/y"), "other", 1)?;
        one.quiet()?;
        two.quiet()?;
    }
    Ok(())
}

fn groups_on_one_filter_are_apart(server: &Server) -> Outcome {
    let topic = server.name("t");
    let (mut one, mut two) = (Client::new(server)?, Client::new(server)?);
    one.subscribe(&format!("$share/g/{topic}"), 1)?;
    two.subscribe(&format!("$share/h/{topic}"), 1)?;
    Client::new(server)?.publish(&topic, "x", 1)?;
    one.take("x")?;
    two.take("x")?;
    one.quiet()?;
    two.quiet()
}

fn in_a_group_and_outside(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut client = Client::new(server)?;
    client.subscribe_all(&[(&format!("$share/g/{topic}"), 1), (&topic, 1)], &[])?;
    let mut writer = Client::new(server)?;
    writer.publish(&topic, "x", 1)?;
    client.take("x")?;
    client.take("x")?;
    client.quiet()?;
    // Each goes on without the other.
    client.unsubscribe(&[&topic])?;
    writer.publish(&topic, "y", 1)?;
    client.take("y")?;
    client.quiet()
}

fn members_that_are_away_come_last(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    member(&kept, &topic, 1)?.disconnect()?;
    let mut here = Client::new(server)?;
    here.subscribe(&format!("$share/g/{topic}"), 1)?;
    let mut writer = Client::new(server)?;
    for payload in ["a", "b", "c"] {
        writer.publish(&topic, payload, 1)?;
        here.take(payload)?;
    }
    here.disconnect()?;
    writer.publish(&topic, "d", 1)?;
    let mut away = kept.open()?;
    away.take("d")?;
    away.quiet()
}

fn clean_start_gives_its_work_on(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut one = member(&kept, &topic, 1)?;
    let mut writer = Client::new(server)?;
    writer.publish(&topic, "done", 1)?;
    one.take("done")?;
    writer.publish(&topic, "owed", 1)?;
    one.message_is("owed")?;
    one.ping()?;
    let mut two = Client::new(server)?;
    two.subscribe(&format!("$share/g/{topic}"), 1)?;
    let mut one = kept.clone().clean(true).open()?;
    two.take("owed")?;
    two.quiet()?;
    one.quiet()
}

fn lost_clean_session_gives_its_work_on(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut one = Client::new(server)?;
    one.subscribe(&format!("$share/g/{topic}"), 1)?;
    let mut writer = Client::new(server)?;
    writer.publish(&topic, "done", 1)?;
    one.take("done")?;
    writer.publish(&topic, "owed", 1)?;
    one.message_is("owed")?;
    one.ping()?;
    let mut two = Client::new(server)?;
    two.subscribe(&format!("$share/g/{topic}"), 1)?;
    drop(one);
    two.take("owed")?;
    two.quiet()
}

fn unsubscribed_member_gets_no_more(server: &Server) -> Outcome {
    let topic = server.name("t");
    let filter = format!("$share/g/{topic}");
    let (mut one, mut two) = (Client::new(server)?, Client::new(server)?);
    one.subscribe(&filter, 1)?;
    two.subscribe(&filter, 1)?;
    one.unsubscribe(&[&filter])?;
    let mut writer = Client::new(server)?;
    for payload in ["a", "b"] {
        writer.publish(&topic, payload, 1)?;
        two.take(payload)?;
    }
    one.quiet()
}

fn lost_connection_keeps_its_work(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut one = member(&kept, &topic, 1)?;
    Client::new(server)?.publish(&topic, "x", 1)?;
    one.message_is("x")?;
    drop(one);
    let mut one = kept.open()?;
    let again = one.take("x")?;
    check(again.dup(), || again.short())?;
    one.quiet()
}

fn filters_without_a_name_are_refused(server: &Server) -> Outcome {
    for filter in [
        "$share",
        "$share/",
        "$share//a",
        "$share/a",
        "$share/g/",
        "$share/a+/b",
        "$share/a#/b",
        "$share/+/b",
        "$share/#",
        "$share/g/a/#/b",
        "$share/g/a+",
    ] {
        refused(server, filter)?;
    }
    Ok(())
}

fn reserved_filters_are_refused(server: &Server) -> Outcome {
    ["$share/g/$share/h/a", "$share/g/$SYS/#"]
        .into_iter()
        .try_for_each(|filter| refused(server, filter))
}

fn refused(server: &Server, filter: &str) -> Outcome {
    let mut client = Client::new(server)?;
    client.send(&subscribe(server.version, 1, &[(filter, 0)], &[]))?;
    let Ok(answer) = client.next() else {
        return client.ended();
    };
    let refused = match answer.kind {
        SUBACK => !answer.codes.is_empty() && answer.codes.iter().all(|code| *code >= 0x80),
        kind => kind == DISCONNECT && answer.code >= 0x80,
    };
    check(refused, || format!("{filter:?}: {}", answer.short()))
}

fn announced(server: &Server) -> Outcome {
    let client = Client::new(server)?;
    let said = client.connack.prop(0x2A);
    check(matches!(said, None | Some(Value::Byte(1))), || {
        format!("{said:?}")
    })
}

fn no_local_is_a_protocol_error(server: &Server) -> Outcome {
    let mut client = Client::new(server)?;
    client.send(&subscribe(server.version, 1, &[("$share/group/a", 0x05)], &[]))?;
    client.told(&[0x82])
}

fn granted_qos_is_respected(server: &Server) -> Outcome {
    for granted in 0..3 {
        let topic = server.name("t");
        let mut client = Client::new(server)?;
        client.subscribe(&format!("$share/g/{topic}"), granted)?;
        let mut writer = Client::new(server)?;
        for sent in 0..3_u8 {
            writer.publish(&topic, &sent.to_string(), sent)?;
            let packet = client.take(&sent.to_string())?;
            check(packet.qos() == sent.min(granted), || {
                format!("granted {granted}, sent {sent}: {}", packet.short())
            })?;
        }
    }
    Ok(())
}

fn no_retained_messages(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut writer = Client::new(server)?;
    writer.retain(&topic, "old", 1)?;
    let mut client = Client::new(server)?;
    client.subscribe(&format!("$share/g/{topic}"), 1)?;
    client.quiet()?;
    writer.publish(&topic, "new", 1)?;
    client.take("new").map(drop)
}

fn identifiers_and_codes_are_a_members_own(server: &Server) -> Outcome {
    let topic = server.name("t");
    let filter = format!("$share/g/{topic}");
    let mut client = Client::new(server)?;
    client.subscribe_all(&[(&filter, 1)], &[(0x0B, Value::Var(77))])?;
    Client::new(server)?.publish(&topic, "x", 1)?;
    let packet = client.take("x")?;
    check(packet.prop(0x0B) == Some(&Value::Var(77)), || packet.short())?;
    let codes = client.unsubscribe(&[&filter, &filter])?;
    check(codes == [0, 0x11], || format!("{codes:02x?}"))
}

fn begun_qos_2_is_completed(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut one = member(&kept, &topic, 2)?;
    let mut writer = Client::new(server)?;
    writer.publish(&topic, "a", 2)?;
    writer.publish(&topic, "b", 2)?;
    let first = one.message_is("a")?;
    one.send(&ack(PUBREC, first.pid))?;
    one.acked(PUBREL, first.pid)?;
    let second = one.message_is("b")?;
    drop(one);
    let mut two = Client::new(server)?;
    two.subscribe(&format!("$share/g/{topic}"), 2)?;
    let mut one = kept.open()?;
    let pubrel = one.acked(PUBREL, first.pid)?;
    one.send(&ack(crate::wire::PUBCOMP, pubrel.pid))?;
    let again = one.take("b")?;
    check(again.dup() && again.pid == second.pid, || again.short())?;
    two.quiet()
}

fn begun_qos_2_ends_with_its_session(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut one = member(&kept, &topic, 2)?;
    let mut writer = Client::new(server)?;
    writer.publish(&topic, "a", 2)?;
    one.message_is("a")?;
    let mut two = Client::new(server)?;
    two.subscribe(&format!("$share/g/{topic}"), 2)?;
    let mut one = kept.clone().clean(true).open()?;
    two.quiet()?;
    one.quiet()?;
    writer.publish(&topic, "b", 2)?;
    two.take("b").map(drop)
}

fn errors_discard_the_message(server: &Server) -> Outcome {
    for (qos, kind) in [(1, PUBACK), (2, PUBREC)] {
        let topic = server.name("t");
        let kept = Connect::new(server).kept();
        let mut one = member(&kept, &topic, qos)?;
        let mut two = Client::new(server)?;
        let mut writer = Client::new(server)?;
        writer.publish_out(&Out::new(&topic, "a", qos, 9))?;
        let packet = one.message_is("a")?;
        two.subscribe(&format!("$share/g/{topic}"), qos)?;
        one.send(&ack_code(kind, packet.pid, 0x83))?;
        one.ping()?;
        two.quiet()?;
        drop(kept.clone().clean(true).open()?);
        two.quiet()?;
        writer.publish(&topic, "b", qos)?;
        two.take("b")?;
    }
    Ok(())
}
