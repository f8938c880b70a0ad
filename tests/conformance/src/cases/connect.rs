//! CONNECT and CONNACK, PINGREQ, DISCONNECT, AUTH: what a connection begins and ends with. Packets that break their
//! format, wills and sessions have files of their own.

use std::time::{Duration, Instant};

use super::{Case, SKIPPED, cases, check};
use crate::client::{Client, Connect, Outcome, Will};
use crate::server::Server;
use crate::wire::{CONNACK, Out, PINGRESP, SUBACK, Value, disconnect, subscribe, text};

pub(crate) const CASES: &[Case] = cases!("connect";
    Both: first_packet_is_connect, second_connect_ends_the_connection, all_fields_in_order_are_read,
        letters_and_digits_make_a_client_id, take_over_closes_the_older_connection,
        connack_is_first_and_only, refused_connect_is_followed_by_nothing, bad_credentials_are_refused,
        keep_alive_ends_a_silent_connection, keep_alive_is_kept_by_any_packet, keep_alive_0_never_ends,
        pingreq_is_answered, disconnect_closes, clean_connect_answers_session_present_0,
        what_follows_a_disconnect_is_not_done, long_client_id_is_let_in_or_refused;
    V311: empty_client_id_needs_clean_session, empty_client_id_is_let_in, auth_packet_is_refused;
    V5: empty_client_id_gets_a_name, unknown_method_is_refused, auth_without_method_is_refused,
        announcements_are_right, disconnect_code_must_exist, unasked_response_information_stays_away;
);

fn first_packet_is_connect(server: &Server) -> Outcome {
    let topic = server.name("t");
    for bytes in [
        vec![0xC0, 0],
        subscribe(server.version, 1, &[(&topic, 0)], &[]),
        Out::new(&topic, "x", 1, 1).bytes(server.version),
        vec![0xE0, 0],
    ] {
        let mut client = Client::bare(server)?;
        client.send(&bytes)?;
        client.ended().map_err(|error| format!("{bytes:02x?}: {error}"))?;
    }
    Ok(())
}

fn second_connect_ends_the_connection(server: &Server) -> Outcome {
    let connect = Connect::new(server);
    let mut client = connect.open()?;
    client.send(&connect.bytes())?;
    client.told(&[0x82])
}

/// Every field is there; the answer is about who it is, so the packet was read to its end.
fn all_fields_in_order_are_read(server: &Server) -> Outcome {
    let will = Will::new(server.name("t"), "x", 1);
    Connect::new(server).will(will.clone()).open()?.disconnect()?;
    if !server.own {
        return Ok(());
    }
    let connect = Connect::new(server)
        .will(will)
        .username("nobody")
        .password("word");
    connect.refused(if server.v5() { &[0x86] } else { &[4] }, false)
}

fn letters_and_digits_make_a_client_id(server: &Server) -> Outcome {
    let every = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for id in [&every[..1], &every[..23], &every[23..46], &every[39..]] {
        Connect::new(server)
            .id(id)
            .open()
            .map_err(|error| format!("{id}: {error}"))?
            .disconnect()?;
    }
    Ok(())
}

fn take_over_closes_the_older_connection(server: &Server) -> Outcome {
    for clean in [true, false] {
        let connect = Connect::new(server).clean(clean);
        let mut older = connect.open()?;
        let mut newer = connect.open()?;
        older.told(&[0x8E])?;
        newer.ping()?;
        newer.quiet()?;
    }
    Ok(())
}

fn connack_is_first_and_only(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut client = Client::bare(server)?;
    let mut bytes = Connect::new(server).bytes();
    bytes.extend(subscribe(server.version, 7, &[(&topic, 1)], &[]));
    bytes.extend([0xC0, 0]);
    client.send(&bytes)?;
    let first = client.next()?;
    check(first.kind == CONNACK, || first.short())?;
    // The two answers may come in any order.
    let mut kinds = [client.next()?.kind, client.next()?.kind];
    kinds.sort_unstable();
    check(kinds == [SUBACK, PINGRESP], || format!("{kinds:?}"))?;
    client.quiet()
}

fn refused_connect_is_followed_by_nothing(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut watcher = Client::new(server)?;
    watcher.subscribe(&topic, 1)?;
    let mut bytes = Connect::new(server).flip(1).bytes();
    bytes.extend(Out::new(&topic, "must not", 0, 0).bytes(server.version));
    let mut refused = Client::bare(server)?;
    refused.send(&bytes)?;
    refused.refused_connect(if server.v5() { &[0x81, 0x82] } else { &[] }, true)?;
    if server.own {
        let mut bytes = Connect::new(server).username("nobody").password("word").bytes();
        bytes.extend(Out::new(&topic, "must not either", 0, 0).bytes(server.version));
        let mut refused = Client::bare(server)?;
        refused.send(&bytes)?;
        refused.refused_connect(if server.v5() { &[0x86] } else { &[4] }, false)?;
    }
    watcher.quiet()
}

fn bad_credentials_are_refused(server: &Server) -> Outcome {
    if !server.own {
        return Err(format!("{SKIPPED}it may let everyone in"));
    }
    let codes: &[u8] = if server.v5() { &[0x86] } else { &[4] };
    Connect::new(server)
        .username("nobody")
        .password("word")
        .refused(codes, false)?;
    // Also where a session of that client id is kept.
    let kept = Connect::new(server).kept();
    kept.open()?.disconnect()?;
    kept.username("nobody").password("word").refused(codes, false)
}

fn keep_alive_ends_a_silent_connection(server: &Server) -> Outcome {
    let mut client = Connect::new(server).keep_alive(1).open()?;
    let began = Instant::now();
    client.quiet_for(Duration::from_millis(1100))?;
    client.refused(&[0x8D])?;
    let took = began.elapsed();
    check(took < Duration::from_millis(3000), || {
        format!("keep alive 1 s: closed after {took:?}")
    })
}

fn keep_alive_is_kept_by_any_packet(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut client = Connect::new(server).keep_alive(1).open()?;
    for _ in 0..6 {
        client.send(&Out::new(&topic, "x", 0, 0).bytes(server.version))?;
        client.quiet_for(Duration::from_millis(500))?;
    }
    client.ping()
}

fn keep_alive_0_never_ends(server: &Server) -> Outcome {
    let mut client = Connect::new(server).keep_alive(0).open()?;
    client.quiet_for(Duration::from_secs(4))?;
    client.ping()
}

fn pingreq_is_answered(server: &Server) -> Outcome {
    let mut client = Client::new(server)?;
    client.send(&[0xC0, 0, 0xC0, 0, 0xC0, 0])?;
    for _ in 0..3 {
        client.expect(PINGRESP)?;
    }
    client.quiet()
}

fn disconnect_closes(server: &Server) -> Outcome {
    Client::new(server)?.disconnect()
}

fn what_follows_a_disconnect_is_not_done(server: &Server) -> Outcome {
    let topic = server.name("t");
    let mut watcher = Client::new(server)?;
    watcher.subscribe(&topic, 0)?;
    let mut client = Client::new(server)?;
    let mut bytes = vec![0xE0, 0];
    bytes.extend(Out::new(&topic, "late", 0, 0).bytes(server.version));
    bytes.extend([0xC0, 0]);
    client.send(&bytes)?;
    client.ended()?;
    watcher.quiet()
}

fn clean_connect_answers_session_present_0(server: &Server) -> Outcome {
    let kept = Connect::new(server).kept();
    kept.open()?.disconnect()?;
    let client = kept.clean(true).open()?;
    check(!client.connack.present, || {
        "session present 1 after a clean start".into()
    })
}

fn auth_packet_is_refused(server: &Server) -> Outcome {
    let mut client = Client::new(server)?;
    client.send(&[0xF0, 0])?;
    client.ended()
}

fn empty_client_id_needs_clean_session(server: &Server) -> Outcome {
    Connect::new(server).id("").clean(false).refused(&[2], false)
}

fn empty_client_id_is_let_in(server: &Server) -> Outcome {
    let mut first = Connect::new(server).id("").open()?;
    let mut second = Connect::new(server).id("").open()?;
    first.ping()?;
    second.ping()
}

fn empty_client_id_gets_a_name(server: &Server) -> Outcome {
    let nameless = Connect::new(server).id("");
    let mut names = Vec::new();
    for clean in [true, false, true] {
        let client = nameless.clone().clean(clean).with(0x11, Value::Four(60)).open()?;
        match client.connack.prop(0x12) {
            Some(Value::Text(name)) if !name.is_empty() => names.push(name.clone()),
            other => {
                return Err(format!(
                    "clean start {clean}: assigned client identifier {other:?}"
                ));
            }
        }
        check(!client.connack.present, || {
            "session present for a new name".into()
        })?;
    }
    let (one, two, three) = (names.first(), names.get(1), names.get(2));
    check(one != two && two != three && one != three, || {
        "one name twice".into()
    })?;
    // The name is the session's: it can be come back with.
    let back = Connect::new(server)
        .id(names.first().cloned().unwrap_or_default())
        .clean(false)
        .open()?;
    check(back.connack.present, || {
        "no session under the assigned name".into()
    })?;
    check(back.connack.prop(0x12).is_none(), || {
        "a name assigned to one who has one".into()
    })
}

fn unknown_method_is_refused(server: &Server) -> Outcome {
    let connect = Connect::new(server).with(0x15, text("X-NONE"));
    connect.refused(&[0x8C, 0x87], true)?;
    connect.with(0x16, text("data")).refused(&[0x8C, 0x87], true)
}

fn auth_without_method_is_refused(server: &Server) -> Outcome {
    for bytes in [
        &[0xF0_u8, 0][..],
        &[0xF0, 2, 0x18, 0],
        &[0xF0, 9, 0x19, 7, 0x15, 0, 4, b'N', b'O', b'N', b'E'],
    ] {
        let mut client = Client::new(server)?;
        client.send(bytes)?;
        client
            .told(&[0x81, 0x82, 0x8C])
            .map_err(|error| format!("{bytes:02x?}: {error}"))?;
    }
    Ok(())
}

fn announcements_are_right(server: &Server) -> Outcome {
    let client = Client::new(server)?;
    for (id, value) in &client.connack.props {
        let right = match (*id, value) {
            (0x24 | 0x25 | 0x28..=0x2A, Value::Byte(byte)) => *byte <= 1,
            (0x21, Value::Two(number)) => *number > 0,
            (0x27, Value::Four(number)) => *number > 0,
            (0x12 | 0x15 | 0x16 | 0x1A, _) => false,
            _ => true,
        };
        check(right, || format!("CONNACK property {id:#04x} {value:?}"))?;
    }
    // All three QoS are supported: then nothing of a maximum may be said (0x24 is only 0 or 1).
    check(client.connack.prop(0x24).is_none(), || "a maximum QoS".into())?;
    check(client.connack.prop(0x25) != Some(&Value::Byte(0)), || {
        "no retained messages".into()
    })
}

fn disconnect_code_must_exist(server: &Server) -> Outcome {
    let mut client = Client::new(server)?;
    client.send(&disconnect(server.version, 0x01, &[]))?;
    client.told(&[0x81, 0x82])
}

fn unasked_response_information_stays_away(server: &Server) -> Outcome {
    for connect in [
        Connect::new(server),
        Connect::new(server).with(0x19, Value::Byte(0)),
    ] {
        let client = connect.open()?;
        check(client.connack.prop(0x1A).is_none(), || {
            "response information".into()
        })?;
    }
    Connect::new(server)
        .with(0x19, Value::Byte(1))
        .open()?
        .disconnect()
}

fn long_client_id_is_let_in_or_refused(server: &Server) -> Outcome {
    for length in [24, 100, 1_000, 10_000] {
        let mut client = Connect::new(server).id("i".repeat(length)).send()?;
        let answer = client.next().map_err(|error| format!("{length}: {error}"))?;
        if answer.code == 0 {
            client.ping()?;
            continue;
        }
        let refused = if server.v5() { 0x85 } else { 2 };
        check(answer.code == refused, || format!("{length}: {}", answer.short()))?;
        client.ended()?;
    }
    // The longest that can be said may be too large a packet instead.
    let longest = Connect::new(server).id("i".repeat(65_535));
    match longest.open() {
        Ok(mut client) => client.ping(),
        Err(_) => longest.refused(if server.v5() { &[0x85, 0x95] } else { &[2] }, true),
    }
}
