//! UNSUBSCRIBE and UNSUBACK.

use super::subscribe::{closes, with_flags};
use super::{Case, cases, check};
use crate::client::{Client, Connect, Outcome};
use crate::server::Server;
use crate::wire::{PUBCOMP, PUBREC, PUBREL, UNSUBACK, ack, unsubscribe};

pub(crate) const CASES: &[Case] = cases!("unsubscribe";
    Both: unsuback_answers_with_the_identifier, unsubscribe_of_nothing_is_answered,
        unsubscribe_compares_exactly, unsubscribe_stops_messages, unsubscribe_stops_messages_at_once,
        unsubscribe_completes_what_was_begun, unsubscribe_without_filter_is_refused,
        unsubscribe_with_wrong_flags_is_refused, unsubscribe_many_in_one,
        unsubscribe_identifier_0_is_refused;
    V5: unsubscribe_tells_what_existed;
);

fn unsuback_answers_with_the_identifier(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut client = Client::new(server)?;
    for pid in [1, 0x1234, 0xFFFF] {
        client.subscribe(&topic, 0)?;
        client.send(&unsubscribe(server.version, pid, &[&topic]))?;
        let unsuback = client.expect(UNSUBACK)?;
        check(unsuback.pid == pid, || unsuback.short())?;
    }
    client.quiet()
}

fn unsubscribe_of_nothing_is_answered(server: &Server) -> Outcome {
    let mut client = Client::new(server)?;
    let codes = client.unsubscribe(&[&server.name("t")])?;
    check(!server.v5() || codes == [0x11], || format!("{codes:02x?}"))
}

fn unsubscribe_compares_exactly(server: &Server) -> Outcome {
    let base = server.name("t");
    let filter = format!("{base}/+");
    let topic = format!("{base}/a");
    let mut client = Client::new(server)?;
    client.subscribe(&filter, 0)?;
    for other in [
        topic.clone(),
        format!("{base}/#"),
        format!("{base}/+/"),
        "+/+".into(),
        "#".into(),
    ] {
        client.unsubscribe(&[&other])?;
    }
    client.publish(&topic, "still", 0)?;
    client.take("still")?;
    client.unsubscribe(&[&filter])?;
    client.publish(&topic, "gone", 0)?;
    client.quiet()
}

fn unsubscribe_stops_messages(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut reader = Client::new(server)?;
    reader.subscribe(&topic, 1)?;
    let mut writer = Client::new(server)?;
    writer.publish(&topic, "before", 1)?;
    reader.take("before")?;
    reader.unsubscribe(&[&topic])?;
    for qos in 0..3 {
        writer.publish(&topic, "after", qos)?;
    }
    reader.quiet()
}

/// Many times, since a route that goes a little after its UNSUBACK is seen only now and then.
fn unsubscribe_stops_messages_at_once(server: &Server) -> Outcome {
    for _ in 0..8 {
        let mut reader = Client::new(server)?;
        let mut writer = Client::new(server)?;
        for _ in 0..100 {
            let topic = server.name("t");
            reader.subscribe(&topic, 1)?;
            reader.unsubscribe(&[&topic])?;
            writer.publish(&topic, "after", 1)?;
        }
        reader.quiet()?;
    }
    Ok(())
}

fn unsubscribe_completes_what_was_begun(server: &Server) -> Outcome {
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut reader = kept.open()?;
    reader.subscribe(&topic, 2)?;
    let mut writer = Client::new(server)?;
    writer.publish(&topic, "one", 1)?;
    writer.publish(&topic, "two", 2)?;
    let one = reader.message_is("one")?;
    let two = reader.message_is("two")?;
    reader.unsubscribe(&[&topic])?;
    reader.send(&ack(PUBREC, two.pid))?;
    reader.acked(PUBREL, two.pid)?;
    drop(reader);
    let mut reader = kept.open()?;
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let packet = reader.next()?;
        kinds.push((packet.kind, packet.pid));
    }
    kinds.sort_unstable();
    check(
        kinds == [(crate::wire::PUBLISH, one.pid), (PUBREL, two.pid)],
        || format!("{kinds:?}"),
    )?;
    reader.send(&ack(PUBCOMP, two.pid))?;
    reader.ping()
}

fn unsubscribe_without_filter_is_refused(server: &Server) -> Outcome {
    closes(server, &unsubscribe(server.version, 1, &[]))
}

fn unsubscribe_with_wrong_flags_is_refused(server: &Server) -> Outcome {
    let right = unsubscribe(server.version, 1, &["a"]);
    [0, 1, 3, 0xA]
        .into_iter()
        .try_for_each(|flags| closes(server, &with_flags(right.clone(), flags)))
}

fn unsubscribe_many_in_one(server: &Server) -> Outcome {
    let t = server.name("t");
    let names: Vec<String> = (0..4).map(|number| format!("{t}/{number}")).collect();
    let mut client = Client::new(server)?;
    let filters: Vec<(&str, u8)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    client.subscribe_all(&filters, &[])?;
    let three: Vec<&str> = names.iter().take(3).map(String::as_str).collect();
    client.unsubscribe(&three)?;
    client.quiet()?;
    for name in &names {
        client.publish(name, name, 0)?;
    }
    client.take(&format!("{t}/3"))?;
    client.quiet()
}

fn unsubscribe_identifier_0_is_refused(server: &Server) -> Outcome {
    closes(server, &unsubscribe(server.version, 0, &["a"]))
}

fn unsubscribe_tells_what_existed(server: &Server) -> Outcome {
    let (one, two, none) = (server.name("t"), server.name("t"), server.name("t"));
    let mut client = Client::new(server)?;
    client.subscribe_all(&[(&one, 0), (&two, 2)], &[])?;
    let codes = client.unsubscribe(&[&one, &none, &two, &one])?;
    check(codes == [0, 0x11, 0, 0x11], || format!("{codes:02x?}"))
}
