//! The binary with rumqttc in place of its light client, against the embedded rumqttd: the same counts and the same
//! report. Short loads; figures are not judged here.

use serde_json::Value;
use std::{
    fs,
    process::{Command, Output},
};

fn loadtest(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_godwit-loadtest"))
        .args(words)
        .output()
        .expect("the harness runs")
}

/// Runs pairs of rumqttc clients over rumqttd for a second, with more options, and gives the report.
fn pairs_over_rumqttd(more: &[&str]) -> Value {
    let folder = tempfile::tempdir().expect("a folder");
    let json = folder.path().join("report.json");
    let mut words = vec!["pairs", "--client", "rumqttc", "--peer", "rumqttd"];
    words.extend(["--warm-up", "0.2", "--measure", "1"]);
    words.extend(["--json", json.to_str().expect("a path")]);
    words.extend(more);
    let output = loadtest(&words);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&fs::read(json).expect("a report")).expect("JSON")
}

#[test]
fn pairs_of_rumqttc_clients_lose_nothing_and_are_reported_as_light_ones_are_in_both_versions() {
    for (version, more) in [("MQTT 3.1.1", None), ("MQTT 5.0", Some("--mqtt5"))] {
        let mut words = vec!["--clients", "5", "--processes", "2", "--window", "7"];
        words.extend(more);
        let report = pairs_over_rumqttd(&words);
        let clients = report["clients"].as_str().expect("which clients");
        assert!(
            clients.contains("rumqttc") && clients.contains(version),
            "{clients}"
        );
        let run = &report["runs"][0];
        let counts = &run["counts"];
        assert_eq!(
            (run["sessions"].as_u64(), run["connections"].as_u64()),
            (Some(5), Some(10))
        );
        assert!(
            counts["window_received"]
                .as_u64()
                .is_some_and(|received| received > 100),
            "{run}"
        );
        for count in ["acked", "received"] {
            assert_eq!(counts["sent"], counts[count], "{count}: {run}");
        }
        for none in ["lost", "duplicates", "overtaken", "closed", "unanswered"] {
            assert_eq!(counts[none], 0, "{none}: {run}");
        }
        assert_eq!(run["receive"]["count"], counts["window_received"]);
        assert_eq!(run["ack"]["count"], counts["window_acked"]);
        assert!(run["ack"]["p50_us"].as_u64().is_some_and(|p50| p50 > 1), "{run}");
        assert!(
            run["broker"]["cpu_seconds"]
                .as_f64()
                .is_some_and(|seconds| seconds > 0.0),
            "{run}"
        );
    }
}

#[test]
fn a_rate_is_kept_by_rumqttc_clients_one_message_at_a_time() {
    let report = pairs_over_rumqttd(&["--clients", "4", "--window", "1", "--rate", "200"]);
    let run = &report["runs"][0];
    let received = run["counts"]["window_received"].as_u64().expect("a count");
    assert!((150..=250).contains(&received), "{run}");
    assert_eq!(run["counts"]["skipped"], 0);
}

#[test]
fn connect_with_rumqttc_is_refused_in_one_line_with_exit_code_2() {
    let output = loadtest(&["connect", "--client", "rumqttc", "--peer", "rumqttd"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(error.contains("which the light client is for"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn a_port_where_nobody_listens_is_told_in_one_line_by_rumqttc_clients_too() {
    let output = loadtest(&[
        "pairs",
        "--client",
        "rumqttc",
        "--target",
        "mqtt://127.0.0.1:1",
        "--clients",
        "3",
    ]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("does a broker listen there?"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}
