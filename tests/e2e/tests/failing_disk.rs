//! The failing disk in its short form: each kind of failure once under load, one of them long enough that clients are
//! told. The long form is `godwit-disktest` with its defaults.

mod common;

use std::time::Duration;

use common::{folder, seed, small};
use godwit_e2e::failing::{FailingDisk, Fault, PROMISED};

#[test]
fn a_failing_disk_is_told_and_nothing_is_acknowledged_falsely() {
    let folder = folder("disk");
    let seconds = |fault| if fault == Fault::SyncEio { 14 } else { 2 };
    let test = FailingDisk {
        folder: folder.path(),
        seed: seed(),
        rounds: Fault::ALL
            .map(|fault| (fault, Duration::from_secs(seconds(fault))))
            .to_vec(),
        size: small(),
    };
    eprintln!("seed {}", test.seed);
    let report = match test.run() {
        Ok(report) => report,
        Err(error) => panic!("seed {}, kept {}: {error:#}", test.seed, folder.keep()),
    };
    eprintln!("{}", serde_json::to_string(&report).unwrap_or_default());
    for round in &report.rounds {
        if round.back_ms > PROMISED.as_millis() as u64 {
            eprintln!(
                "slower than promised: {} back after {} ms",
                round.fault, round.back_ms
            );
        }
    }
    if !report.faults.is_empty() {
        panic!(
            "seed {}, kept {}:\n{}",
            test.seed,
            folder.keep(),
            report.faults.join("\n")
        );
    }
}
