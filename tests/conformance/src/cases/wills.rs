//! Wills: published when a connection ends without DISCONNECT, and only then; delay; retained or not.

use std::time::{Duration, Instant};

use super::{Case, cases, check};
use crate::client::{Client, Connect, Outcome, Will};
use crate::server::{DENIED, Server};
use crate::wire::{PUBLISH, Value, disconnect, text, user};

pub(crate) const CASES: &[Case] = cases!("wills";
    Both: published_when_the_connection_is_lost, published_when_keep_alive_ends, published_on_a_protocol_error,
        published_on_take_over, not_published_after_disconnect, not_published_twice, none_means_none,
        retained_if_asked, not_retained_otherwise, each_qos, empty_payload, wildcard_topic_is_refused,
        denied_topic_is_refused, published_once_over_reconnects, replaced_by_the_next_connect,
        empty_topic_is_refused, retained_and_empty_removes;
    V5: disconnect_4_publishes, delay_is_waited_for, delay_ends_with_the_session, coming_back_in_time_cancels,
        properties_are_published, error_disconnect_publishes, clean_start_takes_the_delayed_will,
        take_over_in_time_cancels, published_after_a_wrong_disconnect;
);

/// A watcher of a fresh topic.
fn watched(server: &Server) -> Outcome<(Client, String)> {
    let topic = server.name("w");
    let mut watcher = Client::new(server)?;
    watcher.subscribe(&topic, 2)?;
    Ok((watcher, topic))
}

fn published_when_the_connection_is_lost(server: &Server) -> Outcome {
    let (mut watcher, topic) = watched(server)?;
    let dying = Connect::new(server).will(Will::new(&topic, "gone", 1)).open()?;
    watcher.quiet()?;
    drop(dying);
    watcher.take("gone")?;
    watcher.quiet()
}

fn published_when_keep_alive_ends(server: &Server) -> Outcome {
    let (mut watcher, topic) = watched(server)?;
    let will = Will::new(&topic, "gone", 1);
    let mut silent = Connect::new(server).keep_alive(1).will(will).open()?;
    watcher.take("gone")?;
    silent.refused(&[0x8D])
}

fn published_on_a_protocol_error(server: &Server) -> Outcome {
    let (mut watcher, topic) = watched(server)?;
    let mut wrong = Connect::new(server).will(Will::new(&topic, "gone", 1)).open()?;
    wrong.send(&[0xC1, 0])?;
    wrong.refused(&[0x81])?;
    watcher.take("gone").map(drop)
}

fn published_on_take_over(server: &Server) -> Outcome {
    for connect in [Connect::new(server), Connect::new(server).kept()] {
        let (mut watcher, topic) = watched(server)?;
        let _older = connect.clone().will(Will::new(&topic, "taken", 1)).open()?;
        let mut newer = connect.open()?;
        watcher.take("taken")?;
        watcher.quiet()?;
        newer.ping()?;
    }
    Ok(())
}

fn not_published_after_disconnect(server: &Server) -> Outcome {
    let (mut watcher, topic) = watched(server)?;
    for connect in [Connect::new(server), Connect::new(server).kept()] {
        connect
            .will(Will::new(&topic, "must not", 1))
            .open()?
            .disconnect()?;
    }
    watcher.quiet_for(Duration::from_millis(800))
}

fn not_published_twice(server: &Server) -> Outcome {
    let (mut watcher, topic) = watched(server)?;
    let kept = Connect::new(server).kept();
    drop(kept.clone().will(Will::new(&topic, "once", 1)).open()?);
    watcher.take("once")?;
    // The next connection has none.
    drop(kept.open()?);
    watcher.quiet_for(Duration::from_millis(800))
}

fn none_means_none(server: &Server) -> Outcome {
    let (mut watcher, _) = watched(server)?;
    drop(Client::new(server)?);
    watcher.quiet()
}

fn retained_if_asked(server: &Server) -> Outcome {
    let (mut watcher, topic) = watched(server)?;
    let will = Will::new(&topic, "kept", 1).retain();
    drop(Connect::new(server).will(will).open()?);
    let got = watcher.take("kept")?;
    check(!got.retain(), || got.short())?;
    let mut later = Client::new(server)?;
    later.subscribe(&topic, 1)?;
    let got = later.take("kept")?;
    check(got.retain(), || got.short())
}

fn not_retained_otherwise(server: &Server) -> Outcome {
    let (mut watcher, topic) = watched(server)?;
    drop(
        Connect::new(server)
            .will(Will::new(&topic, "passing", 1))
            .open()?,
    );
    let got = watcher.take("passing")?;
    check(!got.retain(), || got.short())?;
    let mut later = Client::new(server)?;
    later.subscribe(&topic, 1)?;
    later.quiet()
}

fn each_qos(server: &Server) -> Outcome {
    for qos in 0..3 {
        let (mut watcher, topic) = watched(server)?;
        drop(Connect::new(server).will(Will::new(&topic, "gone", qos)).open()?);
        let got = watcher.take("gone")?;
        check(got.qos() == qos, || got.short())?;
    }
    Ok(())
}

fn empty_payload(server: &Server) -> Outcome {
    let (mut watcher, topic) = watched(server)?;
    drop(Connect::new(server).will(Will::new(&topic, "", 1)).open()?);
    watcher.take("").map(drop)
}

fn wildcard_topic_is_refused(server: &Server) -> Outcome {
    for topic in ["a/#", "+/a"] {
        let codes: &[u8] = if server.v5() {
            &[0x81, 0x82, 0x87, 0x90]
        } else {
            &[5]
        };
        Connect::new(server)
            .will(Will::new(topic, "x", 1))
            .refused(codes, true)?;
    }
    Ok(())
}

fn denied_topic_is_refused(server: &Server) -> Outcome {
    let server = &server.guarded()?;
    let will = Will::new(format!("{DENIED}/x"), "x", 1);
    let codes: &[u8] = if server.v5() { &[0x87] } else { &[5] };
    Connect::new(server).will(will).refused(codes, false)
}

fn published_once_over_reconnects(server: &Server) -> Outcome {
    let (mut watcher, topic) = watched(server)?;
    let kept = Connect::new(server).kept();
    drop(kept.clone().will(Will::new(&topic, "first", 1)).open()?);
    watcher.take("first")?;
    kept.clone()
        .will(Will::new(&topic, "second", 1))
        .open()?
        .disconnect()?;
    kept.open()?.disconnect()?;
    watcher.quiet_for(Duration::from_millis(800))
}

fn replaced_by_the_next_connect(server: &Server) -> Outcome {
    let (mut watcher, topic) = watched(server)?;
    let kept = Connect::new(server).kept();
    kept.clone()
        .will(Will::new(&topic, "old", 1))
        .open()?
        .disconnect()?;
    drop(kept.will(Will::new(&topic, "new", 1)).open()?);
    watcher.take("new")?;
    watcher.quiet()
}

fn disconnect_4_publishes(server: &Server) -> Outcome {
    let (mut watcher, topic) = watched(server)?;
    let leaving = Connect::new(server).will(Will::new(&topic, "wanted", 1)).open()?;
    leaving.disconnect_with(4, &[])?;
    watcher.take("wanted").map(drop)
}

fn error_disconnect_publishes(server: &Server) -> Outcome {
    let (mut watcher, topic) = watched(server)?;
    let mut leaving = Connect::new(server).will(Will::new(&topic, "wanted", 1)).open()?;
    leaving.send(&disconnect(server.version, 0x80, &[]))?;
    leaving.ended()?;
    watcher.take("wanted").map(drop)
}

fn delay_is_waited_for(server: &Server) -> Outcome {
    let (mut watcher, topic) = watched(server)?;
    let will = Will::new(&topic, "late", 1).with(0x18, Value::Four(2));
    drop(Connect::new(server).kept().will(will).open()?);
    let lost = Instant::now();
    watcher.quiet_for(Duration::from_millis(1400))?;
    watcher.take("late")?;
    let took = lost.elapsed();
    check(took < Duration::from_secs(6), || {
        format!("a delay of 2 s took {took:?}")
    })
}

fn delay_ends_with_the_session(server: &Server) -> Outcome {
    let (mut watcher, topic) = watched(server)?;
    // Without expiry the session ends with its connection; with 1 s, then.
    for expiry in [0, 1] {
        let will = Will::new(&topic, "ended", 1).with(0x18, Value::Four(1000));
        drop(
            Connect::new(server)
                .with(0x11, Value::Four(expiry))
                .will(will)
                .open()?,
        );
        watcher
            .take("ended")
            .map_err(|error| format!("session expiry {expiry}: {error}"))?;
    }
    Ok(())
}

fn coming_back_in_time_cancels(server: &Server) -> Outcome {
    let (mut watcher, topic) = watched(server)?;
    let kept = Connect::new(server).kept();
    let will = Will::new(&topic, "must not", 1).with(0x18, Value::Four(1));
    drop(kept.clone().will(will).open()?);
    let back = kept.open()?;
    check(back.connack.present, || "no session".into())?;
    watcher.quiet_for(Duration::from_millis(2500))
}

/// A clean start ends the session that the will was waiting with, which publishes it.
fn clean_start_takes_the_delayed_will(server: &Server) -> Outcome {
    let (mut watcher, topic) = watched(server)?;
    let kept = Connect::new(server).kept();
    let will = Will::new(&topic, "ended", 1).with(0x18, Value::Four(1000));
    drop(kept.clone().will(will).open()?);
    watcher.quiet()?;
    let _back = kept.clean(true).open()?;
    watcher.take("ended").map(drop)
}

fn properties_are_published(server: &Server) -> Outcome {
    let (mut watcher, topic) = watched(server)?;
    let mut will = Will::new(&topic, "x", 1)
        .with(0x01, Value::Byte(1))
        .with(0x02, Value::Four(300))
        .with(0x03, text("text/plain"))
        .with(0x08, text("answers/here"))
        .with(0x09, text(b"\x01\x02"));
    will.props
        .extend([user("z", "1"), user("a", "2"), user("z", "0")]);
    drop(Connect::new(server).will(will.clone()).open()?);
    let got = watcher.take("x")?;
    check(got.kind == PUBLISH, String::new)?;
    let same = [0x01, 0x03, 0x08, 0x09].into_iter().all(|id| {
        got.prop(id)
            == will
                .props
                .iter()
                .find(|(it, _)| *it == id)
                .map(|(_, value)| value)
    });
    let users: Vec<String> = got
        .users()
        .iter()
        .map(|(name, value)| format!("{name}{value}"))
        .collect();
    check(same && users == ["z1", "a2", "z0"], || format!("{:?}", got.props))?;
    check(matches!(got.prop(0x02), Some(Value::Four(295..=300))), || {
        format!("{:?}", got.prop(0x02))
    })?;
    check(got.prop(0x18).is_none(), || "a will delay in a PUBLISH".into())
}

fn take_over_in_time_cancels(server: &Server) -> Outcome {
    let (mut watcher, topic) = watched(server)?;
    let kept = Connect::new(server).kept();
    let will = Will::new(&topic, "must not", 1).with(0x18, Value::Four(1));
    let mut older = kept.clone().will(will).open()?;
    let mut newer = kept.open()?;
    older.told(&[0x8E])?;
    watcher.quiet_for(Duration::from_millis(2500))?;
    newer.ping()
}

/// A DISCONNECT that sets an expiry where there was none is a protocol error, not the end that discards a will.
fn published_after_a_wrong_disconnect(server: &Server) -> Outcome {
    let (mut watcher, topic) = watched(server)?;
    let mut wrong = Connect::new(server).will(Will::new(&topic, "gone", 1)).open()?;
    wrong.send(&disconnect(server.version, 0, &[(0x11, Value::Four(60))]))?;
    wrong.refused(&[0x82])?;
    watcher.take("gone").map(drop)
}

fn empty_topic_is_refused(server: &Server) -> Outcome {
    let codes: &[u8] = if server.v5() { &[0x81, 0x82, 0x90] } else { &[] };
    Connect::new(server)
        .will(Will::new("", "x", 1))
        .refused(codes, true)
}

fn retained_and_empty_removes(server: &Server) -> Outcome {
    let (mut watcher, topic) = watched(server)?;
    Client::new(server)?.retain(&topic, "kept", 1)?;
    watcher.take("kept")?;
    drop(
        Connect::new(server)
            .will(Will::new(&topic, "", 1).retain())
            .open()?,
    );
    watcher.take("")?;
    let mut later = Client::new(server)?;
    later.subscribe(&topic, 1)?;
    later.quiet()
}
