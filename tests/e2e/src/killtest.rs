//! The kill test: the node is killed -9 at random moments under full load, perhaps with a power loss each time, and must
//! lose, double, reorder nothing.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rand::RngExt;
use serde::Serialize;

use crate::binaries::Program;
use crate::rig::{Outcome, Rig, Size};

/// Clients are served again after a kill within this, or the run is over.
const SERVED: Duration = Duration::from_secs(60);
/// How long to wait for an acknowledgement to kill behind.
const ACKNOWLEDGED: Duration = Duration::from_secs(1);
/// How long to wait for a send in flight before a kill.
const BUSY: Duration = Duration::from_secs(10);

/// What a power loss leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerLoss {
    /// Only what was synced.
    Drop,
    /// Of what was not, random sectors.
    Torn,
    /// Of what was not, all but the end of the last write.
    Partial,
    /// Each time another.
    Mixed,
}

/// A kill test.
#[derive(Debug, Clone)]
pub struct KillTest {
    /// Gets data, log and records.
    pub folder: PathBuf,
    /// Decides everything that is random here.
    pub seed: u64,
    /// At least so many kills.
    pub kills: u32,
    /// At least so many acknowledged sends.
    pub acknowledged: u64,
    /// Between a start and the next kill, milliseconds: from, to.
    pub gap_ms: (u64, u64),
    /// Loading ends after this, whatever was reached.
    pub limit: Duration,
    /// How large.
    pub size: Size,
    /// The data folder on the file layer, and what each kill loses.
    pub power_loss: Option<PowerLoss>,
    /// A bug to be switched on.
    pub planted: Option<String>,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Kills.
    pub kills: u32,
    /// Sends in flight at a kill, the fewest.
    pub least_in_flight: i64,
    /// From kill to ready, ms, sorted.
    pub start_ms: Vec<u64>,
    /// From kill to the first acknowledgement, ms, sorted.
    pub served_ms: Vec<u64>,
    /// Of loading, seconds.
    pub seconds: f64,
    /// The rest.
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl Report {
    /// What makes the test fail, beyond the checker's exit code.
    pub fn faults(&self, test: &KillTest) -> Vec<String> {
        let mut faults = self.outcome.problems.clone();
        if self.outcome.verdict.exit != 0 {
            faults.push(format!(
                "the checker says {} {:?}\n{}",
                self.outcome.verdict.exit, self.outcome.verdict.broken, self.outcome.verdict.examples
            ));
        }
        if self.kills < test.kills {
            faults.push(format!("only {} of {} kills", self.kills, test.kills));
        }
        if self.outcome.acknowledged < test.acknowledged {
            let got = self.outcome.acknowledged;
            faults.push(format!("only {got} of {} acknowledged", test.acknowledged));
        }
        if self.least_in_flight < 1 {
            faults.push("a kill with nothing in flight".to_owned());
        }
        faults
    }
}

impl KillTest {
    /// Runs it.
    ///
    /// # Errors
    /// When the node does not start again, ends by itself, or serves nobody after a kill.
    pub fn run(&self) -> Result<Report> {
        let program = match self.planted {
            Some(_) => Program::GodwitPlanted,
            None => Program::Godwit,
        };
        let binary = program.path()?;
        Program::Checker.path()?;
        let mut rig = Rig::new(
            &self.folder,
            &binary,
            self.planted.as_deref(),
            self.power_loss.is_some(),
            self.size.clone(),
            self.seed,
        )?;
        rig.start_clients()?;
        rig.wait_served(SERVED)?;
        let began = Instant::now();
        let mut report = Kills::default();
        while began.elapsed() < self.limit {
            let enough = rig.shared.acknowledged() >= self.acknowledged;
            if report.count >= self.kills {
                if enough {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
                if let Some(status) = rig.node.ended()? {
                    bail!("the node ended by itself ({status}): {}", rig.node.tail());
                }
                continue;
            }
            self.kill(&mut rig, &mut report)?;
        }
        let seconds = began.elapsed().as_secs_f64();
        rig.settle();
        // Once more at rest: what was acknowledged last must have survived, too.
        let mode = self.mode(&mut rig);
        rig.kill_and_start(mode)?;
        report.start_ms.sort_unstable();
        report.served_ms.sort_unstable();
        let outcome = rig.finish(1)?;
        Ok(Report {
            seed: self.seed,
            kills: report.count,
            least_in_flight: report.least.unwrap_or(0),
            start_ms: report.start_ms,
            served_ms: report.served_ms,
            seconds,
            outcome,
        })
    }

    fn kill(&self, rig: &mut Rig, report: &mut Kills) -> Result<()> {
        let gap = rig.random().random_range(self.gap_ms.0..=self.gap_ms.1);
        std::thread::sleep(Duration::from_millis(gap));
        let until = Instant::now() + BUSY;
        while rig.shared.in_flight() < 1 && Instant::now() < until {
            std::thread::yield_now();
        }
        let mode = self.mode(rig);
        if rig.random().random_bool(0.5) {
            // Right behind an acknowledgement: one that was given too early is not true yet.
            let before = rig.shared.acknowledged();
            let until = Instant::now() + ACKNOWLEDGED;
            while rig.shared.acknowledged() == before && Instant::now() < until {
                std::hint::spin_loop();
            }
        }
        let killed = Instant::now();
        let (in_flight, started) = rig.kill_and_start(mode)?;
        report.count += 1;
        report.least = Some(report.least.map_or(in_flight, |least| least.min(in_flight)));
        report.start_ms.push(started.as_millis() as u64);
        rig.wait_served(SERVED)?;
        report.served_ms.push(killed.elapsed().as_millis() as u64);
        Ok(())
    }

    fn mode(&self, rig: &mut Rig) -> Option<&'static str> {
        const MODES: [&str; 3] = ["drop", "torn", "partial"];
        let index = match self.power_loss? {
            PowerLoss::Drop => 0,
            PowerLoss::Torn => 1,
            PowerLoss::Partial => 2,
            PowerLoss::Mixed => rig.random().random_range(0..MODES.len()),
        };
        Some(MODES[index])
    }
}

#[derive(Default)]
struct Kills {
    count: u32,
    least: Option<i64>,
    start_ms: Vec<u64>,
    served_ms: Vec<u64>,
}
