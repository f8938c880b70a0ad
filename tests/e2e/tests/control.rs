//! The recording clients and the checker tried on a broker that is not ours: mosquitto stopped in order keeps everything
//! and must be green, killed -9 it loses what it had acknowledged and must be red.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use godwit_e2e::chat::Seen;
use godwit_e2e::judge::{Verdict, judge};
use godwit_e2e::mqtt::{Login, Version};
use godwit_e2e::node::Ports;
use godwit_e2e::record::{Line, Recorder, now};
use godwit_e2e::session::{Script, Session};
use godwit_e2e::shared::Shared;
use godwit_e2e::topics::{Publisher, Subscriber};
use rand::SeedableRng;
use rand::rngs::StdRng;

fn start(folder: &Path, port: u16) -> Child {
    let configuration = folder.join("mosquitto.conf");
    let text = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {}/\n\
         max_inflight_messages 256\nmax_queued_messages 0\nlog_type none\nuser root\n",
        folder.display()
    );
    std::fs::write(&configuration, text).unwrap();
    let child = Command::new("mosquitto")
        .arg("-c")
        .arg(&configuration)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("mosquitto is installed; ./dev test does it");
    let until = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < until, "mosquitto does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

fn end(mut child: Child, signal: &str) {
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args([signal, &pid])
            .status()
            .unwrap()
            .success()
    );
    child.wait().unwrap();
}

fn run(signal: &str, ends: u32) -> (Verdict, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let records = folder.path().join("records");
    std::fs::create_dir(&records).unwrap();
    let port = Ports::free().unwrap().mqtt;
    let shared = Arc::new(Shared::new(Recorder::create(&records).unwrap()));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let login = |client: &str, version| Login {
        version,
        client: client.to_owned(),
        user: "u".to_owned(),
        token: "t".to_owned(),
        port,
        // mosquitto 2.0.11 reorders what it queues above a client's receive maximum.
        receive_maximum: None,
    };
    fn session<S: Script>(
        shared: &Arc<Shared>,
        login: Login,
        filter: Option<(String, u8)>,
        script: S,
    ) -> Session<S> {
        Session {
            name: login.client.clone(),
            login,
            filter,
            script,
            shared: Arc::clone(shared),
            random: StdRng::seed_from_u64(1),
        }
    }
    let mut broker = start(folder.path(), port);
    let mut names = Vec::new();
    let mut tasks = Vec::new();
    for (name, version, qos) in [
        ("s31", Version::V3, 1),
        ("s32", Version::V3, 2),
        ("s51", Version::V5, 1),
        ("s52", Version::V5, 2),
    ] {
        let script = Subscriber::new(Arc::clone(&shared), name, "iot/u/#", Arc::new(Seen::default()));
        let session = session(
            &shared,
            login(name, version),
            Some(("iot/u/#".to_owned(), qos)),
            script,
        );
        tasks.push(runtime.spawn(session.run()));
        names.push(name);
    }
    std::thread::sleep(Duration::from_millis(500));
    for (name, version) in [("p3", Version::V3), ("p5", Version::V5)] {
        let script = Publisher::new(Arc::clone(&shared), "u", name, 10, StdRng::seed_from_u64(2));
        tasks.push(runtime.spawn(session(&shared, login(name, version), None, script).run()));
    }
    for _ in 0..ends {
        std::thread::sleep(Duration::from_millis(700));
        shared.recorder.write(&Line::Kill { t: now() });
        end(broker, signal);
        broker = start(folder.path(), port);
    }
    std::thread::sleep(Duration::from_millis(300));
    shared.stop();
    let until = Instant::now() + Duration::from_secs(20);
    let quiet = || now() - shared.last_delivered() > 1_500_000_000;
    while (shared.in_flight() > 0 || !quiet()) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    for name in names {
        shared.recorder.write(&Line::End {
            t: now(),
            session: name,
            user: None,
            from: 0,
        });
    }
    tasks.iter().for_each(|task| task.abort());
    end(broker, "-TERM");
    shared.recorder.flush().unwrap();
    let verdict = judge(&records, 500).unwrap();
    if std::env::var_os("GODWIT_E2E_TRACE").is_some() {
        eprintln!("kept {}", folder.keep().display());
    }
    (verdict, shared.problems())
}

#[test]
fn a_broker_that_keeps_everything_over_orderly_stops_is_green() {
    let (verdict, problems) = run("-TERM", 4);
    assert_eq!(
        verdict.exit, 0,
        "{:?}\n{}\n{problems:?}",
        verdict.broken, verdict.examples
    );
}

#[test]
fn a_broker_that_forgets_at_kill_9_what_it_acknowledged_is_red() {
    // A kill may come when everything acknowledged has just been delivered: then nothing is lost with it.
    for _ in 0..8 {
        let (verdict, problems) = run("-KILL", 3);
        assert!(!problems.is_empty(), "sessions were forgotten and nobody noticed");
        if verdict.exit == 1 && verdict.names("TOPIC_LOSS") {
            return;
        }
        assert!(verdict.exit < 2, "{:?}\n{}", verdict.counts, verdict.examples);
    }
    panic!("what was acknowledged and forgotten was never missed");
}
