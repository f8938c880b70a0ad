//! How fast it is, on demand.

use godwit_store::Op;
use godwit_store::testsuite::log;

use super::super::cql_common::{self, always, bytes, engine, fresh};
use super::scope;

#[test]
#[ignore = "measures: how many appends a second, and how long each takes"]
fn appends_per_second() {
    use godwit_store::Completion;
    use std::time::{Duration, Instant};
    const LOGS: u64 = 100;
    const RUN: Duration = Duration::from_secs(8);
    for under_way in [1, 64, 1_024] {
        let (store, base) = (engine(always()), fresh() & !0xff);
        let done = godwit_store::testsuite::Port::register(&*store, 1);
        let row = bytes(&"x".repeat(200));
        let (mut begun, mut took, mut sent) = (Vec::new(), Vec::new(), 0);
        let start = Instant::now();
        while start.elapsed() < RUN || took.len() < begun.len() {
            while start.elapsed() < RUN && begun.len() - took.len() < under_way {
                let append = Op::Append {
                    log: log(base + u128::from(sent % LOGS)),
                    view: 1,
                    seq: sent / LOGS + 1,
                    row: row.clone(),
                };
                let batch = godwit_store::Batch {
                    port: 1,
                    ticket: sent,
                    scope: scope(1),
                    ops: vec![append],
                };
                begun.push(Instant::now());
                godwit_store::testsuite::submit(&*store, batch);
                sent += 1;
            }
            match done.recv_timeout(cql_common::PATIENCE).expect("completed") {
                Completion::Written { ticket, .. } => took.push(begun[ticket as usize].elapsed()),
                other => panic!("{other:?}"),
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        took.sort_unstable();
        let at = |part: f64| took[(took.len() as f64 * part) as usize].as_secs_f64() * 1_000.0;
        eprintln!(
            "{under_way:5} under way: {:7.0} appends/s, p50 {:.1} ms, p99 {:.1} ms",
            took.len() as f64 / seconds,
            at(0.5),
            at(0.99)
        );
    }
}
