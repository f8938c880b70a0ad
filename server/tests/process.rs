//! The real process: options, exit codes, signals, a second process, users, backup and restore, certificates.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use support::{PASSWORD, Server, eventually, get, godwit, post, run_with_input, text};

#[test]
fn what_cannot_be_taken_is_refused_with_code_2_and_one_line_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    std::fs::write(&file, "mqqt = \"off\"\n").unwrap();
    let file = file.to_str().unwrap();
    type Case<'a> = (&'a [&'a str], Option<(&'a str, &'a str)>, &'a str);
    let cases: [Case<'_>; 14] = [
        (&["serve", "--mqqt", "x"], None, "--mqqt"),
        (&["serve", "--mqtt", "nowhere"], None, "nowhere"),
        (&["serve", "--log", "loud"], None, "loud"),
        (&["serve", "--tls-cert", "x"], None, "tls_key"),
        (&["serve", "--config", file], None, "mqqt"),
        (&["serve", "--config", "/nowhere/x.toml"], None, "/nowhere/x.toml"),
        (&["serve"], Some(("GODWIT_WORKERS", "many")), "GODWIT_WORKERS"),
        (&["check-config", "--acl", "allow both users me/#"], None, "me/#"),
        (&["frobnicate"], None, "frobnicate"),
        (&["serve", "--store", "cql"], None, "node_name"),
        (&["serve", "--store", "cqk"], None, "--store"),
        (&["serve", "--roles", "brocker"], None, "brocker"),
        (&["schema", "--check"], None, "cql_nodes"),
        (
            &["schema"],
            Some(("GODWIT_CQL_REPLICATION", "many")),
            "GODWIT_CQL_REPLICATION",
        ),
    ];
    for (words, variable, named) in cases {
        let output = godwit()
            .args(words)
            .envs(variable)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {said}");
        assert!(
            said.lines().count() == 1 && said.contains(named),
            "{words:?}: {said}"
        );
    }
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing was made"
    );
}

#[test]
fn a_flag_counts_before_the_environment_and_that_before_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("godwit.toml");
    std::fs::write(
        &file,
        "http = \"127.0.0.1:1\"\nmqtt = \"127.0.0.1:2\"\nadmin = \"127.0.0.1:3\"\n",
    )
    .unwrap();
    let output = godwit()
        .args(["check-config", "--mqtt", "127.0.0.1:5"])
        .env("GODWIT_CONFIG", &file)
        .envs([
            ("GODWIT_MQTT", "127.0.0.1:4"),
            ("GODWIT_HTTP", "127.0.0.1:4"),
            ("GODWIT_HTPT", "x"),
        ])
        .output()
        .unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for part in ["mqtt 127.0.0.1:5", "http 127.0.0.1:4", "admin 127.0.0.1:3"] {
        assert!(said.contains(part), "{said}");
    }
    assert!(
        text(&output.stderr).contains("GODWIT_HTPT"),
        "a misspelt variable is named"
    );
}

#[test]
fn sigterm_ends_it_with_code_0_and_the_log_is_json() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), &[]);
    let (code, took) = server.stop();
    assert_eq!(code, Some(0), "{}", server.log());
    assert!(took < Duration::from_secs(10), "{took:?}");
    let log = server.log();
    for line in log.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        assert!(entry["level"].is_string(), "{line}");
    }
    assert!(log.contains("\"serving\"") && log.contains("\"ended\""));
}

#[test]
fn a_second_process_on_the_same_folder_is_refused_in_one_line_and_harms_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let output = godwit().arg("serve").args(server.place()).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.lines().count() == 1 && said.contains("in use by another process"),
        "{said}"
    );
    // The running one's token is still the running one's.
    assert!(add(&server, "root", PASSWORD).contains("added"));
}

/// `godwit user add`, with the place of this server's data folder and admin listener.
fn add(server: &Server, name: &str, password: &str) -> String {
    let output = run_with_input(
        godwit()
            .args([
                "user",
                "add",
                name,
                "--administrator",
                "--password-stdin",
                "--data-dir",
            ])
            .arg(server.folder.join("data"))
            .args(["--admin", &format!("127.0.0.1:{}", server.admin)]),
        &format!("{password}\n"),
    );
    assert_eq!(
        output.status.code(),
        Some(if output.stderr.is_empty() { 0 } else { 1 })
    );
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

#[test]
fn users_are_added_with_and_without_a_running_server() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), &["--registration", "closed"]);
    let closed = post(
        &server.api("/users"),
        None,
        &serde_json::json!({ "username": "eve", "password": PASSWORD }),
    );
    assert_eq!(closed.0, 403, "{}", closed.1);
    assert!(add(&server, "online", PASSWORD).contains("administrator online added"));
    assert!(add(&server, "online", PASSWORD).contains("taken"));
    assert!(add(&server, "short", "seven77").contains("8 characters"));
    server.stop();
    assert!(add(&server, "offline", PASSWORD).contains("administrator offline added"));
    assert!(add(&server, "online", PASSWORD).contains("taken"));
    server.again();
    server.login("online");
    server.login("offline");
}

#[test]
fn without_the_token_the_admin_listener_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let admin = |path: &str| format!("http://127.0.0.1:{}{path}", server.admin);
    let dir = folder.path().join("backup");
    for token in [None, Some("wrong")] {
        let backup = post(&admin("/backup"), token, &serde_json::json!({ "dir": dir }));
        let user = post(
            &admin("/users"),
            token,
            &serde_json::json!({ "username": "eve", "password": PASSWORD }),
        );
        assert_eq!((backup.0, user.0), (401, 401));
    }
    assert!(!dir.exists());
    let (status, metrics) = get(&admin("/metrics")).unwrap();
    assert_eq!(status, 200);
    for name in [
        "godwit_store_health 0",
        "godwit_store_commit_seconds_bucket{le=\"+Inf\"}",
        "process_open_fds",
    ] {
        assert!(metrics.contains(name), "{name} in {metrics}");
    }
}

#[test]
fn a_backup_taken_while_serving_holds_what_was_acknowledged_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    server.user("before");
    let to = folder.path().join("backup");
    let backup = || {
        godwit()
            .arg("backup")
            .arg(&to)
            .args(server.place())
            .output()
            .unwrap()
    };
    let first = backup();
    assert!(first.status.success(), "{}", text(&first.stderr));
    let second = backup();
    assert_eq!(second.status.code(), Some(1));
    assert!(
        text(&second.stderr).contains("is not empty"),
        "{}",
        text(&second.stderr)
    );
    server.user("after");

    let restored = tempfile::tempdir().unwrap();
    let restore = || {
        let data = restored.path().join("data");
        godwit()
            .arg("restore")
            .arg("--from")
            .arg(&to)
            .arg("--data-dir")
            .arg(data)
            .output()
            .unwrap()
    };
    let done = restore();
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert_eq!(
        restore().status.code(),
        Some(1),
        "a folder in use is not written over"
    );
    let copy = Server::start(restored.path(), &[]);
    copy.login("before");
    let body = serde_json::json!({ "username": "after", "password": PASSWORD });
    assert_eq!(post(&copy.api("/auth/login"), None, &body).0, 401);
}

#[test]
fn one_certificate_serves_https_and_a_new_one_is_taken_up_by_sighup() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str| {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    };
    write("one.example");
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let (https, mqtts) = (support::free_port(), support::free_port());
    let server = Server::start(
        folder.path(),
        &[
            "--tls-cert",
            cert.to_str().unwrap(),
            "--tls-key",
            key.to_str().unwrap(),
            "--https",
            &format!("127.0.0.1:{https}"),
            "--mqtts",
            &format!("127.0.0.1:{mqtts}"),
        ],
    );
    let reached = |name: &str| {
        let output = Command::new("curl")
            .args([
                "-sS",
                "--max-time",
                "20",
                "--resolve",
                &format!("{name}:{https}:127.0.0.1"),
                "--cacert",
            ])
            .arg(&cert)
            .arg(format!("https://{name}:{https}/readyz"))
            .output()
            .unwrap();
        output.status.success()
    };
    assert!(reached("one.example"), "{}", server.log());
    write("two.example");
    server.signal(Signal::HUP);
    eventually("the new certificate is served", || {
        reached("two.example").then_some(())
    });
    std::fs::write(&cert, "broken").unwrap();
    server.signal(Signal::HUP);
    eventually("the broken one is told", || {
        server
            .log()
            .contains("certificates stay the old ones")
            .then_some(())
    });
}

#[test]
fn a_node_that_stands_alone_says_so_when_it_is_asked_for_others() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    for words in [
        &["node", "ls"][..],
        &["node", "drain"],
        &["node", "drain", "n2"],
        &["shard", "ls"],
    ] {
        let output = godwit().args(words).args(server.place()).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
        assert!(
            said.lines().count() == 1 && said.contains("stands alone"),
            "{words:?}: {said}"
        );
    }
}

#[test]
fn sessions_are_listed_and_ended_and_what_cannot_be_done_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let (_, token) = server.user("ann");
    let said = folder.path().join("phone.out");
    let words = [
        "-d",
        "-V",
        "5",
        "-u",
        "ann",
        "-P",
        &token,
        "-i",
        "phone",
        "-c",
        "-x",
        "3600",
        "-q",
        "1",
        "-t",
        "iot/ann/#",
    ];
    let mut phone = server
        .mosquitto("mosquitto_sub", &words)
        .stdout(std::fs::File::create(&said).unwrap())
        .spawn()
        .unwrap();
    let session = |words: &[&str]| {
        let output = godwit()
            .arg("session")
            .args(words)
            .args(server.place())
            .output()
            .unwrap();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let list = eventually("it subscribes", || {
        let list = session(&["ls", "ann"]).1;
        list.contains("iot/ann/#").then_some(list)
    });
    assert!(
        list.contains("phone") && list.contains("connected") && list.contains("60 min"),
        "{list}"
    );
    let kicked = session(&["kick", "ann", "phone"]);
    assert_eq!(kicked, (Some(0), "ann: 1 connections ended\n".to_owned()));
    eventually("it is told", || {
        let said = std::fs::read_to_string(&said).unwrap();
        said.contains("DISCONNECT (152)").then_some(())
    });
    phone.kill().unwrap();
    phone.wait().unwrap();
    eventually("it stays away", || {
        session(&["ls", "ann"]).1.contains("away").then_some(())
    });
    let forgotten = session(&["kick", "ann", "--all", "--forget"]);
    assert!(forgotten.1.contains("1 sessions forgotten"), "{forgotten:?}");
    assert!(!session(&["ls", "ann"]).1.contains("phone"));
    let cases: [(&[&str], i32, &str); 5] = [
        (&["ls", "nobody"], 1, "no user \"nobody\""),
        (&["ls", "a b"], 1, "a b"),
        (&["kick", "ann", "tablet"], 1, "tablet"),
        (&["kick", "ann"], 2, "<CLIENT>"),
        (&["kick", "ann", "phone", "--all"], 2, "--all"),
    ];
    for (words, code, named) in cases {
        let (ended, told) = session(words);
        assert_eq!(ended, Some(code), "{words:?}: {told}");
        assert!(
            told.lines().count() == 1 && told.contains(named),
            "{words:?}: {told}"
        );
    }
    let admin = &server.place()[7];
    let (status, problem) = get(&format!("http://{admin}/sessions?user=ann")).unwrap();
    assert_eq!(
        status, 401,
        "who may read the metrics may not read whose sessions there are: {problem}"
    );
    let token = std::fs::read_to_string(folder.path().join("data/admin.token")).unwrap();
    for (body, wanted) in [
        (serde_json::json!({ "user": "ann", "client": "x" }), 400),
        (
            serde_json::json!({ "user": "ann", "client_id": "x".repeat(70_000) }),
            400,
        ),
        (serde_json::json!({ "user": "nobody" }), 404),
    ] {
        let url = format!("http://{admin}/sessions/kick");
        let (status, problem) = post(&url, Some(token.trim()), &body);
        assert_eq!(
            (status, &problem["status"]),
            (wanted, &wanted.into()),
            "{problem}"
        );
        assert!(problem["detail"].is_string());
    }
}
