//! The kill test in its short form: the real binary killed -9 under full load, the records judged by the checker. The
//! long form is `godwit-killtest` with its defaults. `GODWIT_SEED` repeats a run.

mod common;

use std::time::Duration;

use common::{folder, seed, small};
use godwit_e2e::killtest::{KillTest, PowerLoss};
use godwit_e2e::rig::Size;

fn run(name: &str, size: Size, kills: u32, power_loss: Option<PowerLoss>) {
    let folder = folder(name);
    let test = KillTest {
        folder: folder.path(),
        seed: seed(),
        kills,
        acknowledged: 1_000,
        gap_ms: (200, 4_000),
        limit: Duration::from_secs(150),
        size,
        power_loss,
        planted: None,
    };
    eprintln!("{name}: seed {}", test.seed);
    let report = match test.run() {
        Ok(report) => report,
        Err(error) => panic!("seed {}, kept {}: {error:#}", test.seed, folder.keep()),
    };
    eprintln!("{}", serde_json::to_string(&report).unwrap_or_default());
    let faults = report.faults(&test);
    if !faults.is_empty() {
        panic!(
            "seed {}, kept {}:\n{}",
            test.seed,
            folder.keep(),
            faults.join("\n")
        );
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed_again_and_again() {
    run("kill", Size::full(), 6, None);
}

#[test]
fn nothing_acknowledged_is_lost_when_power_is_lost_again_and_again() {
    run("power", small(), 6, Some(PowerLoss::Mixed));
}
