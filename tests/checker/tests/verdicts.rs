//! One green run, and for every rule the same run with one planted violation: exactly that rule must be named.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::fs;
use std::process::Command;

use godwit_checker::{BadInput, Limits, Verdict};
use serde_json::{Value, json};

mod fixture;

use fixture::{Records, green, judged, recv};

/// The records of a kind for which a field has a value.
fn find<'a>(records: &'a mut Records, kind: &str, field: &str, value: &str) -> &'a mut Value {
    records
        .iter_mut()
        .find(|record| record["kind"] == kind && record[field] == value)
        .unwrap()
}

fn remove(records: &mut Records, kind: &str, field: &str, value: &str) {
    let before = records.len();
    records.retain(|record| record["kind"] != kind || record[field] != value);
    assert!(records.len() < before, "nothing to remove");
}

fn page(records: &mut Records, number: usize) -> &mut Vec<Value> {
    records
        .iter_mut()
        .filter(|r| r["kind"] == "history")
        .nth(number)
        .unwrap()["entries"]
        .as_array_mut()
        .unwrap()
}

fn got<'a>(records: &'a mut Records, session: &str, seq: u64) -> &'a mut Value {
    records
        .iter_mut()
        .find(|r| r["kind"] == "recv" && r["session"] == session && r["sequence_number"] == seq)
        .unwrap()
}

#[track_caller]
fn only(rules: &[&str], change: impl FnOnce(&mut Records)) -> Verdict {
    let mut records = green();
    change(&mut records);
    let verdict = judged(&records, &Limits::default()).unwrap();
    let broken: Vec<&str> = verdict.violations.keys().copied().collect();
    assert_eq!(broken, rules, "{verdict}");
    assert_eq!(verdict.green, rules.is_empty());
    verdict
}

#[test]
fn a_run_that_kept_every_rule_is_green() {
    let verdict = only(&[], |_| {});
    for (what, count) in [
        ("sends acknowledged", 7),
        ("sends refused", 1),
        ("acknowledged and told as refused", 1),
        ("owed deliveries checked", 12),
        ("owed topic deliveries checked", 3),
        ("deliveries repeated after a kill or reconnect", 1),
        ("deliveries repeated without cause", 0),
        ("sends by mqtt3", 2),
    ] {
        assert_eq!(verdict.counts[what], count, "{what}\n{verdict}");
    }
}

#[test]
fn ack_names_an_acknowledged_message_that_history_lacks() {
    let verdict = only(&["ACK"], |records| {
        records.push(
            json!({"kind":"send","t":650,"id":"lost","sender":"ann","conversation":"c",
            "client_message_id":"lost","door":"mqtt3","hash":"hl"}),
        );
        records.push(json!({"kind":"ack","t":660,"id":"lost"}));
    });
    let example = &verdict.violations["ACK"].examples[0];
    assert!(example.evidence[0].contains("\"lost\""), "{example:?}");
}

#[test]
fn ack_names_an_id_less_message_that_history_lacks() {
    only(&["ACK"], |records| {
        records.push(
            json!({"kind":"send","t":650,"id":"lost","sender":"ann","conversation":"c","door":"text",
            "hash":"hl"}),
        );
        records.push(json!({"kind":"ack","t":660,"id":"lost"}));
    });
}

#[test]
fn owed_names_a_skipped_mailbox() {
    // The last of the mailbox, so that it leaves no hole.
    only(&["OWED"], |records| {
        records.retain(|r| r["kind"] != "recv" || r["session"] != "bob-1" || r["sequence_number"] != 7);
    });
}

#[test]
fn what_is_missing_under_a_gap_is_its_own_rule_and_can_be_allowed() {
    let mut records = green();
    records.retain(|r| r["kind"] != "recv" || r["session"] != "bob-1" || r["sequence_number"] != 7);
    records
        .push(json!({"kind":"event","t":760,"session":"bob-1","user":"bob","type":"gap","conversation":"c"}));
    let verdict = judged(&records, &Limits::default()).unwrap();
    assert_eq!(
        verdict.violations.keys().collect::<Vec<_>>(),
        [&"GAP"],
        "{verdict}"
    );
    let verdict = judged(
        &records,
        &Limits {
            gaps: true,
            ..Limits::default()
        },
    )
    .unwrap();
    assert!(verdict.green, "{verdict}");
    assert_eq!(verdict.counts["owed and missing under a gap marker"], 1);
}

#[test]
fn seq_names_a_hole_and_a_repeat_in_history() {
    only(&["SEQ"], |records| {
        for entry in page(records, 1) {
            entry["seq"] = json!(entry["seq"].as_u64().unwrap() + u64::from(entry["type"] == "member"));
        }
        page(records, 1).pop();
        page(records, 1).push(json!({"seq":7,"message_id":"m5","sender":"ann","hash":"h5"}));
    });
}

#[test]
fn seq_names_a_position_acknowledged_to_two_messages() {
    only(&["SEQ"], |records| {
        find(records, "ack", "id", "try-3")["sequence"] = json!(2)
    });
}

#[test]
fn seq_names_a_delivery_under_a_number_that_history_gives_to_another() {
    only(&["SEQ"], |records| {
        got(records, "bob-1", 4)["sequence_number"] = json!(5)
    });
}

#[test]
fn inbox_names_a_hole_in_a_mailbox() {
    only(&["INBOX"], |records| {
        records.retain(|r| r["kind"] != "event" || r["session"] != "bob-1" || r["sequence_number"] != 3);
    });
}

#[test]
fn inbox_names_a_number_that_carried_two_things() {
    only(&["INBOX"], |records| {
        let last = records
            .iter_mut()
            .filter(|r| r["kind"] == "recv" && r["session"] == "bob-1")
            .last()
            .unwrap();
        last["inbox_seq"] = json!(5);
    });
}

#[test]
fn order_names_a_first_delivery_that_was_overtaken() {
    only(&["ORDER"], |records| got(records, "bob-1", 2)["t"] = json!(650));
}

#[test]
fn a_repeat_of_what_was_seen_is_no_inversion() {
    only(&[], |records| records.push(recv(770, "bob-1", "bob", 2, 2)));
}

#[test]
fn once_names_a_client_id_that_stands_twice() {
    only(&["ONCE"], |records| {
        page(records, 1)
            .push(json!({"seq":8,"message_id":"m9","client_message_id":"id1","sender":"ann","hash":"h1"}));
    });
}

#[test]
fn once_names_a_client_id_acknowledged_as_two_messages() {
    let verdict = {
        let mut records = green();
        find(&mut records, "ack", "id", "again")["message_id"] = json!("m3");
        judged(&records, &Limits::default()).unwrap()
    };
    assert!(verdict.violations.contains_key("ONCE"), "{verdict}");
}

#[test]
fn once_names_an_id_less_double_unless_it_was_in_flight_at_a_kill() {
    let double = |records: &mut Records| {
        page(records, 1).push(json!({"seq":8,"message_id":"m9","sender":"ann","hash":"h5"}));
        for (session, user) in [("ann-1", "ann"), ("bob-1", "bob")] {
            let mut second = recv(780, session, user, 9, 8);
            second["hash"] = json!("h5");
            records.push(second);
        }
    };
    only(&["ONCE"], double);
    let verdict = only(&[], |records| {
        double(records);
        find(records, "ack", "id", "try-5")["t"] = json!(720);
    });
    assert_eq!(verdict.counts["doubles of id-less sends in flight at a kill"], 1);
}

#[test]
fn content_names_what_changed_on_the_way_into_history_or_out_of_it() {
    only(&["CONTENT"], |records| {
        got(records, "bob-1", 4)["hash"] = json!("other")
    });
    only(&["CONTENT"], |records| {
        got(records, "bob-1", 4)["sender"] = json!("eve")
    });
    only(&["CONTENT"], |records| {
        find(records, "send", "id", "try-3")["hash"] = json!("other")
    });
}

#[test]
fn phantom_names_a_delivery_that_history_does_not_hold() {
    only(&["PHANTOM"], |records| {
        records.push(recv(780, "bob-1", "bob", 9, 8))
    });
}

#[test]
fn scope_names_a_delivery_to_who_was_no_member() {
    only(&["SCOPE"], |records| {
        let mut early = recv(220, "eve-1", "eve", 2, 4);
        early["sequence_number"] = json!(2);
        early["inbox_seq"] = Value::Null;
        records.push(early);
    });
}

#[test]
fn refused_names_a_refused_message_that_is_stored() {
    only(&["REFUSED"], |records| {
        page(records, 1)
            .push(json!({"seq":8,"message_id":"m9","client_message_id":"no","sender":"eve","hash":"hx"}));
    });
    only(&[], |records| {
        page(records, 1)
            .push(json!({"seq":8,"message_id":"m9","client_message_id":"no","sender":"eve","hash":"hx"}));
        find(records, "fail", "id", "no")["code"] = json!("unavailable");
    });
}

#[test]
fn dup_names_repeats_without_a_kill_or_reconnect() {
    only(&["DUP"], |records| records.push(recv(550, "ann-1", "ann", 5, 7)));
    let mut records = green();
    records.push(recv(550, "ann-1", "ann", 5, 7));
    let verdict = judged(
        &records,
        &Limits {
            duplicates: 0.1,
            ..Limits::default()
        },
    )
    .unwrap();
    assert!(verdict.green, "{verdict}");
}

#[test]
fn topics_name_loss_order_doubles_and_strangers() {
    only(&["TOPIC_LOSS"], |records| {
        remove(records, "topic_recv", "id", "p2")
    });
    only(&["TOPIC_ORDER"], |records| {
        find(records, "topic_recv", "id", "p1")["t"] = json!(825)
    });
    only(&["TOPIC_ONCE"], |records| {
        records.push(json!({"kind":"topic_recv","t":870,"session":"lamp","id":"p3","topic":"iot/bob/on"}));
    });
    only(&["TOPIC_PHANTOM"], |records| {
        records.push(json!({"kind":"topic_recv","t":870,"session":"lamp","id":"p9","topic":"iot/bob/on"}));
    });
    only(&["DUP"], |records| {
        records.push(json!({"kind":"topic_recv","t":870,"session":"lamp","id":"p1","topic":"iot/ann/on"}));
    });
}

#[test]
fn a_session_that_began_in_the_middle_is_owed_only_what_came_after() {
    let second = |from: u64, records: &mut Records| {
        records.push(recv(531, "bob-2", "bob", 5, 7));
        records.push(json!({"kind":"end","t":1000,"session":"bob-2","user":"bob","from":from}));
    };
    only(&[], |records| second(6, records));
    only(&["INBOX", "OWED"], |records| second(4, records));
}

#[test]
fn bare_text_deliveries_are_told_apart_by_content() {
    let bare = |records: &mut Records| {
        for record in records
            .iter_mut()
            .filter(|r| r["kind"] == "recv" && r["session"] == "bob-1")
        {
            for field in ["sequence_number", "message_id", "inbox_seq", "sender"] {
                record.as_object_mut().unwrap().remove(field);
            }
        }
        records.retain(|r| r["kind"] != "event" || r["session"] != "bob-1");
    };
    only(&[], bare);
    only(&["ORDER"], |records| {
        got(records, "bob-1", 2)["t"] = json!(650);
        bare(records);
    });
    only(&["OWED"], |records| {
        records.retain(|r| r["kind"] != "recv" || r["session"] != "bob-1" || r["sequence_number"] != 4);
        bare(records);
    });
}

#[test]
fn a_repeat_of_bare_text_that_stands_twice_is_not_taken_for_the_later_one() {
    // The fifth text (position 7) stands once more at 9, with another message between; after a reconnect the session gets
    // 7 again, then 8, then 9.
    only(&[], |records| {
        page(records, 1).push(json!({"seq":8,"message_id":"m8","sender":"ann","hash":"h8"}));
        page(records, 1).push(json!({"seq":9,"message_id":"m9","sender":"ann","hash":"h5"}));
        find(records, "ack", "id", "try-5")["t"] = json!(720);
        records.push(recv(781, "ann-1", "ann", 8, 8));
        let mut ninth = recv(782, "ann-1", "ann", 9, 9);
        ninth["hash"] = json!("h5");
        records.push(ninth);
        for (t, hash) in [(781, "h8"), (782, "h5")] {
            records.push(
                json!({"kind":"recv","t":t,"session":"bob-1","user":"bob","conversation":"c","hash":hash}),
            );
        }
        for record in records
            .iter_mut()
            .filter(|r| r["kind"] == "recv" && r["session"] == "bob-1")
        {
            for field in ["sequence_number", "message_id", "inbox_seq", "sender"] {
                record.as_object_mut().unwrap().remove(field);
            }
        }
        records.retain(|r| r["kind"] != "event" || r["session"] != "bob-1");
    });
}

#[test]
fn a_publish_below_qos_2_in_flight_at_a_kill_or_reconnect_may_come_twice() {
    let twice = |records: &mut Records| {
        records.push(json!({"kind":"topic_recv","t":870,"session":"lamp","id":"p1","topic":"iot/ann/on"}));
        find(records, "topic_ack", "id", "p1")["t"] = json!(880);
    };
    only(&["DUP"], twice);
    only(&[], |records| {
        twice(records);
        records.push(json!({"kind":"kill","t":815}));
    });
    only(&[], |records| {
        twice(records);
        records.push(json!({"kind":"connect","t":815,"session":"switch"}));
    });
}

#[test]
fn a_run_that_shows_too_little_is_not_judged() {
    let refused = |change: &dyn Fn(&mut Records)| {
        let mut records = green();
        change(&mut records);
        judged(&records, &Limits::default()).unwrap_err().to_string()
    };
    assert!(refused(&|r| remove(r, "history", "conversation", "c")).contains("history of c was not read"));
    assert!(refused(&|r| remove(r, "members", "conversation", "c")).contains("members of c"));
    assert!(refused(&|r| remove(r, "end", "user", "bob")).contains("bob-1"));
    assert!(refused(&|r| remove(r, "end", "session", "lamp")).contains("drained"));
    assert!(refused(&|r| remove(r, "send", "id", "try-1")).contains("nobody recorded"));
    assert!(refused(&|r| r.push(json!({"kind":"sned","t":1}))).contains("jsonl:"));
    let limits = Limits {
        acknowledged: 1000,
        ..Limits::default()
    };
    assert!(matches!(judged(&green(), &limits), Err(BadInput::Incomplete(_))));
}

#[test]
fn the_exit_code_tells_green_red_and_unjudged_apart() {
    let code = |records: &[Value]| {
        let folder = tempfile::tempdir().unwrap();
        let lines: Vec<String> = records.iter().map(Value::to_string).collect();
        fs::write(folder.path().join("run.jsonl"), lines.join("\n")).unwrap();
        let out = Command::new(env!("CARGO_BIN_EXE_godwit-checker"))
            .arg(folder.path())
            .output()
            .unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        let json: Option<Value> = text
            .lines()
            .last()
            .map(|line| serde_json::from_str(line).unwrap());
        (out.status.code().unwrap(), json.map(|json| json["green"].clone()))
    };
    let mut red = green();
    remove(&mut red, "topic_recv", "id", "p2");
    assert_eq!(code(&green()), (0, Some(json!(true))));
    assert_eq!(code(&red), (1, Some(json!(false))));
    assert_eq!(code(&[]), (2, None));
}
