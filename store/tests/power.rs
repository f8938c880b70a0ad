//! Kill -9 and power loss under the embedded engine, through a file layer that drops or tears what was not synced and fails writes
//! and syncs on order. The engine runs in processes of its own (this test binary again).

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use godwit_faultfs::{Names, Options as Layer, order, serve};
use godwit_store::embedded::{Embedded, Options};
use godwit_store::testsuite::{Port, append, rows, submit};
use godwit_store::{Batch, Completion, Outcome, Scope, Store};
use tempfile::TempDir;

const LOGS: u64 = 3;
const UNDER_WAY: u64 = 16;
const DATA: &str = "GODWIT_STORE_TEST_DATA";

fn open(dir: &str) -> Arc<dyn Store> {
    let options = Options {
        segment_bytes: 256 << 10,
        ..Options::default()
    };
    Arc::new(Embedded::open(Path::new(dir), options).expect("opened"))
}

fn content(log: u64, seq: u64) -> String {
    format!("{log} {seq} {}", "z".repeat((seq % 700) as usize))
}

/// Says how many rows each log has after checking them: dense, with the content of their position.
fn check(store: &Arc<dyn Store>) -> Vec<u64> {
    let count = |log: u64| {
        let found = rows(&**store, u128::from(log), 0).expect("read");
        for (i, row) in found.iter().enumerate() {
            assert_eq!(
                (row.seq, row.row.as_ref()),
                (i as u64 + 1, content(log, i as u64 + 1).as_bytes())
            );
        }
        found.len() as u64
    };
    (1..=LOGS).map(count).collect()
}

#[test]
#[ignore = "the process under test; started by the others"]
fn writer() {
    let store = open(&std::env::var(DATA).expect("a folder"));
    let have = check(&store);
    let say = |line: String| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).expect("heard");
    };
    (1..=LOGS)
        .zip(&have)
        .for_each(|(log, n)| say(format!("have {log} {n}")));
    std::thread::scope(|scope| {
        for log in 1..=LOGS {
            let (store, say, mut stored) = (store.clone(), &say, have[log as usize - 1]);
            scope.spawn(move || {
                let done = Port::register(&*store, log as u16);
                let mut sent = stored;
                loop {
                    while sent < stored + UNDER_WAY {
                        sent += 1;
                        let ops = vec![append(u128::from(log), sent, &content(log, sent))];
                        submit(
                            &*store,
                            Batch {
                                port: log as u16,
                                ticket: sent,
                                scope: Scope::default(),
                                ops,
                            },
                        );
                    }
                    match done.recv().expect("completed") {
                        Completion::Written {
                            ticket,
                            outcome: Outcome::Stored,
                        } => {
                            stored = ticket;
                            say(format!("ack {log} {ticket}"));
                        }
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
    });
}

fn start(data: &Path) -> (Child, Arc<Mutex<Heard>>, std::thread::JoinHandle<()>) {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["writer", "--exact", "--ignored", "--nocapture"])
        .env(DATA, data)
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let out = BufReader::new(child.stdout.take().expect("piped"));
    let heard = Arc::<Mutex<Heard>>::default();
    let to = heard.clone();
    let listen = std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            let mut words = line.split(' ');
            let (what, log, n) = (words.next(), words.next(), words.next());
            let (Some(log), Some(n)) = (log.and_then(|w| w.parse().ok()), n.and_then(|w| w.parse().ok()))
            else {
                continue;
            };
            let mut heard = to.lock().expect("lock");
            match what {
                Some("have") => heard.have.insert(log, n),
                Some("ack") => heard.acked.insert(log, n),
                _ => None,
            };
        }
    });
    (child, heard, listen)
}

/// Waits until the process has opened its store and said what is in it.
fn started(heard: &Mutex<Heard>, round: u64) {
    let begun = Instant::now();
    while (heard.lock().expect("lock").have.len() as u64) < LOGS {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "round {round}: it does not start"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[derive(Default)]
struct Heard {
    have: HashMap<u64, u64>,
    acked: HashMap<u64, u64>,
}

#[test]
fn what_was_acknowledged_survives_kills_power_losses_and_disk_errors() {
    let seed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |d| d.as_nanos() as u64);
    println!("seed {seed}");
    let folder = TempDir::new().expect("folder");
    let path = |name: &str| folder.path().join(name);
    ["backing", "mount"]
        .iter()
        .for_each(|name| std::fs::create_dir(path(name)).expect("created"));
    let (backing, mount, control) = (path("backing"), path("mount"), path("control"));
    let layer = Layer {
        backing,
        mount: mount.clone(),
        control: control.clone(),
        seed,
        names: Names::Strict,
    };
    let served = serve(&layer).expect("a FUSE mount");
    let data = mount.join("data");
    let mut acked: HashMap<u64, u64> = HashMap::new();
    let mut total = 0;
    for round in 0..9u64 {
        let (mut child, heard, listen) = start(&data);
        started(&heard, round);
        let pause = 200 + (seed.rotate_left(round as u32 * 7) % 500);
        std::thread::sleep(Duration::from_millis(pause));
        let fault = match round {
            3 => "fail sync EIO for 120",
            4 => "fail write ENOSPC for 120",
            5 => "fail write EIO for 60",
            6 => "fail sync ENOSPC for 60",
            _ => "fail off",
        };
        order(&control, fault).expect("ordered");
        // Long enough that it goes on after the fault.
        std::thread::sleep(Duration::from_millis(if fault == "fail off" {
            10
        } else {
            1_500
        }));
        child.kill().expect("killed");
        child.wait().expect("dead");
        listen.join().expect("heard");
        if round != 7 {
            let mode = ["drop", "torn", "partial"][round as usize % 3];
            order(&control, &format!("power-loss {mode}")).expect("ordered");
        }
        let heard = heard.lock().expect("lock");
        for (log, before) in &acked {
            let have = heard.have.get(log).copied().unwrap_or(0);
            assert!(
                have >= *before,
                "round {round}, log {log}: {before} acknowledged before, {have} there"
            );
        }
        assert_eq!(heard.have.len() as u64, LOGS, "round {round}: it started");
        for (log, n) in &heard.acked {
            total += n - heard.have[log];
            acked.insert(*log, *n);
        }
    }
    println!("{total} acknowledged, {acked:?}");
    assert!(total > 1_000, "{total} acknowledged in all");
    let (mut child, heard, listen) = start(&data);
    started(&heard, 9);
    child.kill().expect("killed");
    child.wait().expect("dead");
    listen.join().expect("heard");
    let heard = heard.lock().expect("lock");
    assert!(
        acked.iter().all(|(log, n)| heard.have[log] >= *n),
        "{acked:?} {:?}",
        heard.have
    );
    served.close().expect("unmounted");
}
