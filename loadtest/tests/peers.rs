//! The binary against real brokers: a good run ends well, a broker that loses acknowledged messages is found out, and
//! an absent one is named in one line. Short loads; figures are not judged here.

use serde_json::Value;
use std::{
    fs,
    net::{TcpListener, TcpStream},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

fn loadtest(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_godwit-loadtest"))
        .args(words)
        .output()
        .expect("the harness runs")
}

fn has_mosquitto() -> bool {
    let there = Command::new("mosquitto").arg("-h").output().is_ok();
    if !there {
        assert!(std::env::var_os("CI").is_none(), "CI needs mosquitto");
        eprintln!("skipped: mosquitto is not installed");
    }
    there
}

/// A mosquitto with more configuration, ended when dropped.
struct Mosquitto {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Mosquitto {
    fn start(more: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .expect("a free port")
            .local_addr()
            .expect("bound")
            .port();
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("mosquitto.conf");
        fs::write(
            &config,
            format!("listener {port} 127.0.0.1\nallow_anonymous true\n{more}\n"),
        )
        .expect("written");
        let child = Command::new("mosquitto")
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto starts");
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "mosquitto does not listen"
            );
            thread::sleep(Duration::from_millis(10));
        }
        Self {
            child,
            port,
            _folder: folder,
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run_of(file: &std::path::Path) -> Value {
    let report: Value = serde_json::from_slice(&fs::read(file).expect("a report")).expect("JSON");
    report["runs"][0].clone()
}

#[test]
fn pairs_over_mosquitto_end_well_in_both_versions_and_with_two_workers() {
    if !has_mosquitto() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let json = folder.path().join("report.json");
    for version in [None, Some("--mqtt5")] {
        let mut words = vec![
            "pairs",
            "--peer",
            "mosquitto",
            "--clients",
            "5",
            "--processes",
            "2",
        ];
        words.extend([
            "--warm-up",
            "0.2",
            "--measure",
            "1",
            "--json",
            json.to_str().expect("a path"),
        ]);
        words.extend(version);
        let output = loadtest(&words);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let run = run_of(&json);
        let counts = &run["counts"];
        assert!(
            counts["window_received"]
                .as_u64()
                .is_some_and(|received| received > 100),
            "{run}"
        );
        assert_eq!(counts["sent"], counts["received"]);
        assert_eq!(counts["lost"], 0);
        assert!(
            run["broker"]["cpu_seconds"]
                .as_f64()
                .is_some_and(|seconds| seconds > 0.0),
            "{run}"
        );
    }
}

#[test]
fn connect_over_the_embedded_rumqttd_delivers_every_message_and_tells_bytes_per_session() {
    let folder = tempfile::tempdir().expect("a folder");
    let json = folder.path().join("report.json");
    let words = [
        "connect",
        "--peer",
        "rumqttd",
        "--clients",
        "30",
        "--messages",
        "3",
        "--rest",
        "0.2",
        "--json",
    ];
    let output = loadtest(&[&words[..], &[json.to_str().expect("a path")]].concat());
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let run = run_of(&json);
    assert_eq!(
        (run["sessions"].as_u64(), run["counts"]["received"].as_u64()),
        (Some(30), Some(90))
    );
    assert!(
        run["bytes_per_session"].as_f64().is_some_and(|bytes| bytes > 0.0),
        "{run}"
    );
}

#[test]
fn a_broker_that_drops_acknowledged_messages_makes_the_run_fail_in_one_line() {
    if !has_mosquitto() {
        return;
    }
    let broker = Mosquitto::start("max_queued_messages 1");
    let target = format!("mqtt://127.0.0.1:{}", broker.port);
    let words = ["pairs", "--target", &target, "--clients", "10", "--window", "400"];
    let output = loadtest(&[&words[..], &["--warm-up", "0.5", "--measure", "1"]].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        error.contains("acknowledged messages never reached their recipient"),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn a_broker_that_dies_in_the_middle_makes_the_run_fail_and_is_named_as_the_reason() {
    if !has_mosquitto() {
        return;
    }
    for client in ["light", "rumqttc"] {
        a_broker_dies_under(client);
    }
}

fn a_broker_dies_under(client: &str) {
    let mut broker = Mosquitto::start("");
    let target = format!("mqtt://127.0.0.1:{}", broker.port);
    let killer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(1500));
        broker.child.kill().expect("killed");
    });
    let words = [
        "pairs",
        "--target",
        &target,
        "--client",
        client,
        "--clients",
        "5",
        "--warm-up",
        "0.2",
        "--measure",
        "3",
    ];
    let output = loadtest(&words);
    killer.join().expect("killed");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(error.contains("the broker closed 10 connections"), "{error}");
}

#[test]
fn a_login_that_the_broker_wants_is_told_in_one_line_by_both_clients() {
    if !has_mosquitto() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let users = folder.path().join("users");
    fs::write(&users, "").expect("written");
    let broker = Mosquitto::start(&format!(
        "allow_anonymous false\npassword_file {}",
        users.display()
    ));
    let target = format!("mqtt://127.0.0.1:{}", broker.port);
    for client in ["light", "rumqttc"] {
        for version in [None, Some("--mqtt5")] {
            let mut words = vec!["pairs", "--target", &target, "--client", client, "--clients", "2"];
            words.extend(version);
            let output = loadtest(&words);
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success());
            assert!(
                error.contains("refused a connection with") && error.contains("give --username"),
                "{client} {version:?}: {error}"
            );
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}

#[test]
fn a_port_where_nobody_listens_is_told_in_one_line() {
    let output = loadtest(&["pairs", "--target", "mqtt://127.0.0.1:1", "--clients", "3"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(error.contains("does a broker listen there?"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}
