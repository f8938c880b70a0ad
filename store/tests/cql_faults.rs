//! The CQL engine while its server is stopped for seconds, or dies and comes back: every batch that was taken completes once, and what was
//! stored is there. One server, so one test at a time.

mod cql_common;

use std::collections::HashMap;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cql_common::{PATIENCE, always, bytes, cluster, engine, fresh, wait};
use godwit_store::cql::Cql;
use godwit_store::testsuite::{Port, log, rows, submit};
use godwit_store::{Batch, Completion, Health, LogRow, Op, Outcome, Scope, Store, Submission};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const LOGS: u64 = 10;

/// Appends to ten logs in turn: ticket t is position t / 10 + 1 of log t % 10.
struct Stream {
    store: Arc<Cql>,
    done: Receiver<Completion>,
    base: u128,
    sent: u64,
    next: HashMap<u64, u64>,
    completed: u64,
}

impl Stream {
    fn new(port: u16) -> Self {
        let store = engine(always());
        let done = Port::register(&*store, port);
        Self {
            store,
            done,
            base: fresh() & !0xff,
            sent: 0,
            next: HashMap::new(),
            completed: 0,
        }
    }

    fn batch(&self) -> Batch {
        let ticket = self.sent;
        let append = Op::Append {
            log: log(self.base + u128::from(ticket % LOGS)),
            view: 1,
            seq: ticket / LOGS + 1,
            row: bytes(&ticket.to_string()),
        };
        Batch {
            port: 1,
            ticket,
            scope: Scope { shard: 1, view: 1 },
            ops: vec![append],
        }
    }

    fn send(&mut self, count: u64) {
        for _ in 0..count {
            submit(&*self.store, self.batch());
            self.sent += 1;
        }
    }

    /// Takes what has completed: stored, and for each log in order.
    fn take(&mut self, wait: Duration) -> bool {
        let Ok(completion) = self.done.recv_timeout(wait) else {
            return false;
        };
        let Completion::Written { ticket, outcome } = completion else {
            panic!("nothing was read")
        };
        assert_eq!(outcome, Outcome::Stored, "ticket {ticket}");
        let expected = self.next.entry(ticket % LOGS).or_insert(ticket % LOGS);
        assert_eq!(ticket, *expected, "once, and in order");
        *expected += LOGS;
        self.completed += 1;
        true
    }

    fn finish(mut self) {
        while self.completed < self.sent {
            assert!(
                self.take(PATIENCE),
                "{} of {} completed",
                self.completed,
                self.sent
            );
        }
        assert!(self.done.try_recv().is_err(), "once each");
        self.check(self.sent);
        assert_eq!(self.store.health(), Health::Serving);
    }

    /// The driver looks for a server that was away every ten seconds.
    fn rows(&self, n: u128) -> Vec<LogRow> {
        let begun = Instant::now();
        loop {
            match rows(&*self.store, n, 0) {
                Err(e) if e.retryable() && begun.elapsed() < PATIENCE => {}
                found => return found.expect("read"),
            }
        }
    }

    /// The first `count` are there, each once, at its place.
    fn check(&self, count: u64) {
        for n in 0..LOGS {
            let found = self.rows(self.base + u128::from(n));
            let found: Vec<_> = found.iter().map(|r| r.row.clone()).collect();
            let want: Vec<_> = (n..count)
                .step_by(LOGS as usize)
                .map(|t| bytes(&t.to_string()))
                .collect();
            assert!(
                found.len() >= want.len() && found[..want.len()] == want[..],
                "log {n}"
            );
        }
    }
}

#[test]
fn what_was_taken_while_the_server_is_stopped_completes_once_when_it_goes_on() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if cluster().is_external() {
        eprintln!("skipped: a cluster that the test did not start cannot be stopped");
        return;
    }
    let mut stream = Stream::new(1);
    stream.send(300);
    assert!(stream.take(PATIENCE), "it works before");
    cluster().stop(0).expect("stopped");
    stream.send(200);
    let (mut failing, mut busy) = (false, false);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(4_500) {
        if !busy {
            match stream.store.submit(stream.batch()) {
                Submission::Taken => stream.sent += 1,
                Submission::Busy(back) => busy = back.ticket == stream.sent,
            }
        } else {
            std::thread::sleep(Duration::from_millis(20));
        }
        failing |= stream.store.health() == Health::Failing;
    }
    cluster().cont(0).expect("goes on");
    assert!(busy && stream.sent <= 4_096 + 500, "bounded: {}", stream.sent);
    assert!(failing, "an engine whose writes do not go through says so");
    stream.send(100);
    stream.finish();
}

#[test]
fn what_was_stored_is_there_after_a_kill_and_the_rest_is_stored_when_the_server_is_back() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if cluster().is_external() {
        eprintln!("skipped: a cluster that the test did not start cannot be killed");
        return;
    }
    let mut stream = Stream::new(1);
    stream.send(2_000);
    while stream.completed < 700 {
        assert!(stream.take(PATIENCE), "{} completed", stream.completed);
    }
    cluster().kill(0).expect("killed");
    while stream.take(Duration::from_millis(100)) {}
    let stored = stream.next.values().min().copied().unwrap_or(0);
    wait(cluster().start_again(0)).expect("back");
    stream.check(stored);
    stream.finish();
}
