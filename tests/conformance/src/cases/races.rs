//! The same promises many times in a row with other clients each time: what holds only mostly is found here.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Case, cases, check};
use crate::client::{Client, Connect, Outcome};
use crate::server::Server;
use crate::wire::{Out, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, ack};

pub(crate) const CASES: &[Case] = cases!("races";
    Both: suback_means_live, replaced_at_once, retained_at_once, retained_removed_at_once, clean_start_at_once,
        ended_sessions_are_gone_at_once, kept_sessions_are_there_at_once, nothing_is_lost_at_a_disconnect,
        nothing_is_lost_at_a_lost_connection, take_over_storm_leaves_one, reconnecting_loses_no_qos_1,
        reconnecting_doubles_no_qos_2, publisher_reconnecting_doubles_no_qos_2;
);

/// Pairs of clients, so that wherever the server keeps them, all ways between them are gone.
const PAIRS: usize = 8;
const ROUNDS: usize = 30;

fn suback_means_live(server: &Server) -> Outcome {
    for _ in 0..PAIRS {
        let (mut reader, mut writer) = (Client::new(server)?, Client::new(server)?);
        for round in 0..ROUNDS {
            let topic = server.name("t");
            let filter = if round % 2 == 0 {
                topic.clone()
            } else {
                format!("{topic}/#")
            };
            reader.subscribe(&filter, 1)?;
            writer.publish(&topic, "x", 1)?;
            reader.take("x").map_err(|error| format!("{filter}: {error}"))?;
        }
    }
    Ok(())
}

fn replaced_at_once(server: &Server) -> Outcome {
    for _ in 0..PAIRS {
        let (mut reader, mut writer) = (Client::new(server)?, Client::new(server)?);
        let topic = server.name("t");
        for round in 0..ROUNDS {
            let qos = [2, 0, 1][round % 3];
            reader.subscribe(&topic, qos)?;
            writer.publish(&topic, "x", 2)?;
            let got = reader.take("x")?;
            check(got.qos() == qos, || {
                format!("round {round}, granted {qos}: {}", got.short())
            })?;
        }
    }
    Ok(())
}

fn retained_at_once(server: &Server) -> Outcome {
    for _ in 0..PAIRS {
        let (mut reader, mut writer) = (Client::new(server)?, Client::new(server)?);
        for round in 0..ROUNDS {
            let topic = server.name("t");
            let payload = round.to_string();
            writer.retain(&topic, "old", 1)?;
            writer.retain(&topic, &payload, 1)?;
            let filter = if round % 2 == 0 {
                topic.clone()
            } else {
                format!("{topic}/#")
            };
            reader.subscribe(&filter, 1)?;
            let got = reader
                .take(&payload)
                .map_err(|error| format!("{filter}: {error}"))?;
            check(got.retain(), || format!("{filter}: {}", got.short()))?;
        }
    }
    Ok(())
}

fn retained_removed_at_once(server: &Server) -> Outcome {
    for _ in 0..PAIRS {
        let (mut reader, mut writer) = (Client::new(server)?, Client::new(server)?);
        for round in 0..ROUNDS {
            let topic = server.name("t");
            writer.retain(&topic, "kept", 1)?;
            writer.retain(&topic, "", 1)?;
            let filter = if round % 2 == 0 {
                topic.clone()
            } else {
                format!("{topic}/#")
            };
            reader.subscribe(&filter, 1)?;
        }
        reader.quiet()?;
    }
    Ok(())
}

fn clean_start_at_once(server: &Server) -> Outcome {
    for _ in 0..PAIRS {
        let mut writer = Client::new(server)?;
        for round in 0..ROUNDS {
            let topic = server.name("t");
            let kept = Connect::new(server).kept();
            let mut reader = kept.open()?;
            reader.subscribe(&topic, 1)?;
            writer.publish(&topic, "owed", 1)?;
            reader.message_is("owed")?;
            if round % 2 == 0 {
                reader.disconnect()?;
            }
            let mut reader = kept.clean(true).open()?;
            check(!reader.connack.present, || "session present 1".into())?;
            writer.publish(&topic, "new", 1)?;
            reader.ping()?;
            check(!reader.message_waits_at_once()?, || {
                format!("round {round}: a message after a clean start")
            })?;
        }
    }
    Ok(())
}

fn ended_sessions_are_gone_at_once(server: &Server) -> Outcome {
    for round in 0..PAIRS * ROUNDS {
        let connect = Connect::new(server);
        let client = connect.open()?;
        client.disconnect()?;
        let client = connect.clean(false).open()?;
        check(!client.connack.present, || {
            format!("round {round}: session present 1")
        })?;
    }
    Ok(())
}

fn kept_sessions_are_there_at_once(server: &Server) -> Outcome {
    for round in 0..PAIRS * ROUNDS {
        let kept = Connect::new(server).kept();
        let client = kept.open()?;
        if round % 2 == 0 {
            client.disconnect()?;
        } else {
            drop(client);
        }
        check(kept.open()?.connack.present, || {
            format!("round {round}: session present 0")
        })?;
    }
    Ok(())
}

/// A message published when the client has just left, and before it is back, is owed.
fn leaving(server: &Server, lost: bool) -> Outcome {
    for _ in 0..PAIRS {
        let mut writer = Client::new(server)?;
        let topic = server.name("t");
        let kept = Connect::new(server).kept();
        let mut reader = kept.open()?;
        reader.subscribe(&topic, 2)?;
        for round in 0..ROUNDS {
            let payload = round.to_string();
            if lost {
                drop(reader);
            } else {
                reader.disconnect()?;
            }
            writer.publish(&topic, &payload, u8::try_from(1 + round % 2).unwrap_or(1))?;
            reader = kept.open()?;
            check(reader.connack.present, || {
                format!("round {round}: session present 0")
            })?;
            reader.take(&payload)?;
            reader.ping()?;
        }
    }
    Ok(())
}

fn nothing_is_lost_at_a_disconnect(server: &Server) -> Outcome {
    leaving(server, false)
}

fn nothing_is_lost_at_a_lost_connection(server: &Server) -> Outcome {
    leaving(server, true)
}

fn take_over_storm_leaves_one(server: &Server) -> Outcome {
    for clean in [true, false] {
        let connect = Connect::new(server).clean(clean);
        let mut all = Vec::new();
        for _ in 0..40 {
            all.push(connect.send()?);
        }
        // Whichever connects last stays; all others are closed, with or without a CONNACK.
        let until = Instant::now() + Duration::from_secs(6);
        let mut alive = all.len();
        while alive > 1 && Instant::now() < until {
            alive = all.iter_mut().map(|client| usize::from(client.is_open())).sum();
        }
        check(alive == 1, || format!("{alive} connections of one client id"))?;
        let mut last = connect.open()?;
        last.ping()?;
    }
    Ok(())
}

/// A reader that loses its connection every few messages, while a writer goes on. How often each number came.
fn reconnecting(server: &Server, qos: u8) -> Outcome<BTreeMap<u32, u32>> {
    const MESSAGES: u32 = 200;
    let topic = server.name("t");
    let kept = Connect::new(server).kept();
    let mut reader = kept.open()?;
    reader.subscribe(&topic, qos)?;
    let mut counts = BTreeMap::new();
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| -> Outcome {
            let mut writer = Client::new(server)?;
            (0..MESSAGES).try_for_each(|number| writer.publish(&topic, &number.to_string(), qos))
        });
        let until = Instant::now() + Duration::from_secs(20);
        let mut packets = 0;
        // What a QoS 2 receiver must remember: identifiers whose PUBREL did not come yet.
        let mut known = Vec::new();
        while (counts.len() as u32) < MESSAGES && Instant::now() < until {
            packets += 1;
            if packets % 13 == 0 {
                drop(reader);
                reader = kept.open()?;
                check(reader.connack.present, || "session present 0".into())?;
            }
            let Some(got) = reader.next_soon()? else {
                continue;
            };
            match got.kind {
                PUBLISH => {
                    let number = String::from_utf8_lossy(&got.payload).parse().unwrap_or(u32::MAX);
                    if qos == 1 || !known.contains(&got.pid) {
                        *counts.entry(number).or_insert(0) += 1;
                    }
                    if qos == 2 {
                        known.push(got.pid);
                    }
                    reader.send(&ack(if qos == 2 { PUBREC } else { PUBACK }, got.pid))?;
                }
                PUBREL => {
                    known.retain(|pid| *pid != got.pid);
                    reader.send(&ack(PUBCOMP, got.pid))?;
                }
                _ => return Err(got.short()),
            }
        }
        writing.join().unwrap_or(Err("the writer panicked".into()))?;
        let missing: Vec<u32> = (0..MESSAGES)
            .filter(|number| !counts.contains_key(number))
            .collect();
        check(missing.is_empty(), || format!("never came: {missing:?}"))
    })?;
    Ok(counts)
}

fn reconnecting_loses_no_qos_1(server: &Server) -> Outcome {
    reconnecting(server, 1).map(drop)
}

fn reconnecting_doubles_no_qos_2(server: &Server) -> Outcome {
    let counts = reconnecting(server, 2)?;
    let twice: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    check(twice.is_empty(), || format!("came more than once: {twice:?}"))
}

/// A writer that loses its connection at each step of the exchange and goes on as the specification says.
fn publisher_reconnecting_doubles_no_qos_2(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut reader = Client::new(server)?;
    reader.subscribe(&topic, 0)?;
    let kept = Connect::new(server).kept();
    let mut writer = kept.open()?;
    for number in 0..60_u16 {
        let pid = 1 + number % 7;
        let out = Out::new(&topic, number.to_string(), 2, pid);
        writer.send(&out.bytes(server.version))?;
        if number % 3 == 0 {
            drop(writer);
            writer = kept.open()?;
            writer.send(&out.dup().bytes(server.version))?;
        }
        writer.acked(PUBREC, pid)?;
        if number % 4 == 0 {
            drop(writer);
            writer = kept.open()?;
        }
        writer.send(&ack(PUBREL, pid))?;
        if number % 5 == 0 {
            drop(writer);
            writer = kept.open()?;
            writer.send(&ack(PUBREL, pid))?;
        }
        let done = writer.expect(PUBCOMP)?;
        check(done.pid == pid && matches!(done.code, 0 | 0x92), || done.short())?;
    }
    for number in 0..60 {
        reader.take(&number.to_string())?;
    }
    reader.quiet()
}
