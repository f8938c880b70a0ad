//! Retained messages: stored, replaced, removed, delivered to new subscriptions, and the flag on delivery.

use std::time::Duration;

use super::{Case, cases, check};
use crate::client::{Client, Connect, Outcome};
use crate::server::Server;
use crate::wire::{Out, Value, text, user};

pub(crate) const CASES: &[Case] = cases!("retained";
    Both: stored_for_new_subscribers, replaced_by_the_next, removed_by_an_empty_payload, empty_is_never_stored,
        not_retained_leaves_it_alone, flag_is_0_for_established_subscriptions, sent_for_wildcards,
        sent_again_on_each_subscribe, qos_0_replaces_too, survives_its_publishers_session, qos_is_the_lower,
        dollar_topics_stay_out_of_wildcards, flag_stays_on_resend_after_resume,
        more_than_a_window;
    V5: handling_0_sends_always, handling_1_sends_to_new_subscriptions_only, handling_2_never_sends,
        as_published_keeps_the_flag, as_published_0_clears_the_flag, expires, expiry_is_counted_down,
        properties_are_kept, identifier_of_the_subscription_comes_along;
);

/// Nobody says when a QoS 0 message has arrived.
fn settle() {
    std::thread::sleep(Duration::from_millis(700));
}

fn stored_for_new_subscribers(server: &Server) -> Outcome {
    for qos in 0..3 {
        let topic = server.name("t");
        Client::new(server)?.retain(&topic, "kept", qos)?;
        if qos == 0 {
            settle();
        }
        let mut reader = Client::new(server)?;
        reader.subscribe(&topic, 2)?;
        let got = reader.take("kept")?;
        check(
            got.retain() && got.qos() == qos && got.topic == topic && !got.dup(),
            || got.short(),
        )?;
    }
    Ok(())
}

fn replaced_by_the_next(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut writer = Client::new(server)?;
    for (payload, qos) in [("one", 1), ("two", 2), ("three", 1)] {
        writer.retain(&topic, payload, qos)?;
    }
    let mut reader = Client::new(server)?;
    reader.subscribe(&topic, 1)?;
    reader.take("three")?;
    reader.quiet()
}

fn removed_by_an_empty_payload(server: &Server) -> Outcome {
    for qos in 0..3 {
        let topic = server.name("t");
        let mut watcher = Client::new(server)?;
        let mut writer = Client::new(server)?;
        writer.retain(&topic, "kept", 1)?;
        watcher.subscribe(&topic, 1)?;
        watcher.take("kept")?;
        writer.retain(&topic, "", qos)?;
        // It is a message like others to who is there.
        let got = watcher.take("")?;
        check(!got.retain(), || got.short())?;
        let mut reader = Client::new(server)?;
        reader.subscribe(&topic, 1)?;
        reader.quiet()?;
    }
    Ok(())
}

fn empty_is_never_stored(server: &Server) -> Outcome {
    let topic = server.name("t");
    Client::new(server)?.retain(&topic, "", 1)?;
    let mut reader = Client::new(server)?;
    reader.subscribe(&topic, 1)?;
    reader.quiet()
}

fn not_retained_leaves_it_alone(server: &Server) -> Outcome {
    let (topic, other) = (server.name("t"), server.name("t"));
    let mut writer = Client::new(server)?;
    writer.retain(&topic, "kept", 1)?;
    for qos in 0..3 {
        writer.publish(&topic, "passing", qos)?;
        writer.publish(&other, "passing", qos)?;
    }
    writer.publish(&topic, "", 1)?;
    let mut reader = Client::new(server)?;
    reader.subscribe(&topic, 1)?;
    reader.subscribe(&other, 1)?;
    reader.take("kept")?;
    reader.quiet()
}

fn flag_is_0_for_established_subscriptions(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut reader = Client::new(server)?;
    reader.subscribe(&topic, 2)?;
    let mut writer = Client::new(server)?;
    for qos in 0..3 {
        writer.retain(&topic, "x", qos)?;
        let got = reader.take("x")?;
        check(!got.retain(), || got.short())?;
    }
    Ok(())
}

fn sent_for_wildcards(server: &Server) -> Outcome {
    let base = server.name("t");
    let mut writer = Client::new(server)?;
    for topic in ["a", "b/c", "d"] {
        writer.retain(&format!("{base}/{topic}"), topic, 1)?;
    }
    for (filter, wanted) in [
        ("#", vec!["a", "b/c", "d"]),
        ("+", vec!["a", "d"]),
        ("+/c", vec!["b/c"]),
    ] {
        let mut reader = Client::new(server)?;
        reader.subscribe(&format!("{base}/{filter}"), 1)?;
        let mut got = Vec::new();
        for _ in &wanted {
            let packet = reader.message()?;
            check(packet.retain(), || packet.short())?;
            reader.finish(&packet)?;
            got.push(String::from_utf8_lossy(&packet.payload).into_owned());
        }
        got.sort();
        check(got == wanted, || format!("{filter}: {got:?}"))?;
        reader.quiet()?;
    }
    Ok(())
}

fn sent_again_on_each_subscribe(server: &Server) -> Outcome {
    let topic = server.name("t");
    Client::new(server)?.retain(&topic, "kept", 1)?;
    let mut reader = Client::new(server)?;
    for _ in 0..3 {
        reader.subscribe(&topic, 1)?;
        let got = reader.take("kept")?;
        check(got.retain(), || got.short())?;
        reader.quiet()?;
    }
    Ok(())
}

fn qos_0_replaces_too(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut writer = Client::new(server)?;
    writer.retain(&topic, "old", 1)?;
    writer.retain(&topic, "new", 0)?;
    settle();
    let mut reader = Client::new(server)?;
    reader.subscribe(&topic, 1)?;
    // The new one may be stored or not; the old one may not come.
    reader.message_is("new")?;
    reader.quiet()
}

fn survives_its_publishers_session(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut writer = Client::new(server)?;
    writer.retain(&topic, "kept", 1)?;
    writer.disconnect()?;
    let mut reader = Client::new(server)?;
    reader.subscribe(&topic, 1)?;
    reader.take("kept").map(drop)
}

fn qos_is_the_lower(server: &Server) -> Outcome {
    let topic = server.name("t");
    Client::new(server)?.retain(&topic, "kept", 2)?;
    for qos in 0..3 {
        let mut reader = Client::new(server)?;
        reader.subscribe(&topic, qos)?;
        let got = reader.take("kept")?;
        check(got.qos() == qos, || got.short())?;
    }
    Ok(())
}

fn dollar_topics_stay_out_of_wildcards(server: &Server) -> Outcome {
    let base = server.name("t");
    let mut writer = Client::new(server)?;
    let _ = writer.retain(&format!("$dollar/{base}"), "hidden", 0);
    Client::new(server)?.retain(&format!("open/{base}"), "shown", 1)?;
    let mut reader = Client::new(server)?;
    reader.subscribe(&format!("+/{base}"), 1)?;
    reader.take("shown")?;
    reader.quiet()
}

fn flag_stays_on_resend_after_resume(server: &Server) -> Outcome {
    let topic = server.name("t");
    Client::new(server)?.retain(&topic, "kept", 1)?;
    let kept = Connect::new(server).kept();
    let mut reader = kept.open()?;
    reader.subscribe(&topic, 1)?;
    let first = reader.message_is("kept")?;
    drop(reader);
    let mut reader = kept.open()?;
    let again = reader.take("kept")?;
    check(again.retain() && again.dup() && again.pid == first.pid, || {
        again.short()
    })
}

fn handling_0_sends_always(server: &Server) -> Outcome {
    sent_again_on_each_subscribe(server)
}

fn handling_1_sends_to_new_subscriptions_only(server: &Server) -> Outcome {
    let topic = server.name("t");
    Client::new(server)?.retain(&topic, "kept", 1)?;
    let kept = Connect::new(server).kept();
    let mut reader = kept.open()?;
    reader.subscribe(&topic, 0x11)?;
    reader.take("kept")?;
    reader.subscribe(&topic, 0x11)?;
    reader.subscribe(&topic, 0x12)?;
    reader.quiet()?;
    drop(reader);
    let mut reader = kept.open()?;
    reader.subscribe(&topic, 0x11)?;
    reader.quiet()?;
    reader.unsubscribe(&[&topic])?;
    reader.subscribe(&topic, 0x11)?;
    reader.take("kept").map(drop)
}

fn handling_2_never_sends(server: &Server) -> Outcome {
    let topic = server.name("t");
    Client::new(server)?.retain(&topic, "kept", 1)?;
    let mut reader = Client::new(server)?;
    reader.subscribe(&topic, 0x21)?;
    reader.subscribe(&topic, 0x21)?;
    reader.quiet()
}

fn as_published_keeps_the_flag(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut reader = Client::new(server)?;
    reader.subscribe(&topic, 0x09)?;
    let mut writer = Client::new(server)?;
    writer.retain(&topic, "with", 1)?;
    writer.publish(&topic, "without", 1)?;
    let with = reader.take("with")?;
    let without = reader.take("without")?;
    check(with.retain() && !without.retain(), || {
        format!("{} {}", with.short(), without.short())
    })
}

fn as_published_0_clears_the_flag(server: &Server) -> Outcome {
    flag_is_0_for_established_subscriptions(server)
}

fn expires(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut writer = Client::new(server)?;
    writer.publish_out(
        &Out::new(&topic, "short", 1, 1)
            .retain()
            .with(0x02, Value::Four(1)),
    )?;
    std::thread::sleep(Duration::from_millis(2200));
    let mut reader = Client::new(server)?;
    reader.subscribe(&topic, 1)?;
    reader.quiet()
}

fn expiry_is_counted_down(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut writer = Client::new(server)?;
    writer.publish_out(&Out::new(&topic, "x", 1, 1).retain().with(0x02, Value::Four(100)))?;
    std::thread::sleep(Duration::from_millis(2200));
    let mut reader = Client::new(server)?;
    reader.subscribe(&topic, 1)?;
    let got = reader.take("x")?;
    check(matches!(got.prop(0x02), Some(Value::Four(90..=98))), || {
        format!("expiry 100 s, 2.2 s later {:?}", got.prop(0x02))
    })
}

fn properties_are_kept(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut out = Out::new(&topic, "x", 1, 1)
        .retain()
        .with(0x01, Value::Byte(1))
        .with(0x03, text("text/plain"))
        .with(0x08, text("answers/here"))
        .with(0x09, text(b"\x00\xFF\x01"));
    out.props.extend([user("b", "1"), user("a", "2"), user("b", "3")]);
    Client::new(server)?.publish_out(&out)?;
    let mut reader = Client::new(server)?;
    reader.subscribe(&topic, 1)?;
    let got = reader.take("x")?;
    let same = [0x01, 0x03, 0x08, 0x09]
        .into_iter()
        .all(|id| got.prop(id) == out.props.iter().find(|(it, _)| *it == id).map(|(_, value)| value));
    let users: Vec<String> = got
        .users()
        .iter()
        .map(|(name, value)| format!("{name}{value}"))
        .collect();
    check(same && users == ["b1", "a2", "b3"], || format!("{:?}", got.props))
}

fn identifier_of_the_subscription_comes_along(server: &Server) -> Outcome {
    let topic = server.name("t");
    Client::new(server)?.retain(&topic, "x", 1)?;
    let mut reader = Client::new(server)?;
    reader.subscribe_all(&[(&topic, 1)], &[(0x0B, Value::Var(321))])?;
    let got = reader.take("x")?;
    check(got.identifiers() == [321], || format!("{:?}", got.identifiers()))
}

fn more_than_a_window(server: &Server) -> Outcome {
    let base = server.name("t");
    let mut writer = Client::new(server)?;
    for number in 0..40 {
        writer.retain(&format!("{base}/{number}"), "x", 1)?;
    }
    let mut connect = Connect::new(server);
    if server.v5() {
        connect = connect.with(0x21, Value::Two(3));
    }
    let mut reader = connect.open()?;
    reader.subscribe(&format!("{base}/#"), 1)?;
    let mut topics = Vec::new();
    for _ in 0..40 {
        topics.push(reader.take("x")?.topic);
    }
    topics.sort();
    topics.dedup();
    check(topics.len() == 40, || format!("{} topics of 40", topics.len()))?;
    reader.quiet()
}
