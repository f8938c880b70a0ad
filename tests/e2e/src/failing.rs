//! The failing disk: writes and syncs fail for a while under load, again and again. Nothing may be acknowledged falsely,
//! clients are told, the process stays, and it serves again soon after the disk does.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::RngExt;
use serde::Serialize;

use crate::binaries::Program;
use crate::rig::{Outcome, Rig, Size};

/// The promise: serving again so long after the disk's return.
pub const PROMISED: Duration = Duration::from_secs(10);
/// The test fails beyond this; between the two it reports.
pub const ALLOWED: Duration = Duration::from_secs(30);
/// A client is held for 10 s (`ack_timeout`) before it is told; an outage that shall be told must last longer.
const TOLD_AFTER: Duration = Duration::from_secs(12);

/// What the disk does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Writes fail with EIO.
    WriteEio,
    /// Writes fail with ENOSPC.
    WriteFull,
    /// Syncs fail with EIO.
    SyncEio,
    /// Syncs fail with ENOSPC.
    SyncFull,
    /// Nearly no room is left, and growth fails.
    Space,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::WriteEio,
        Self::WriteFull,
        Self::SyncEio,
        Self::SyncFull,
        Self::Space,
    ];

    fn orders(self) -> (&'static str, &'static str) {
        match self {
            Self::WriteEio => ("fail write EIO", "fail off"),
            Self::WriteFull => ("fail write ENOSPC", "fail off"),
            Self::SyncEio => ("fail sync EIO", "fail off"),
            Self::SyncFull => ("fail sync ENOSPC", "fail off"),
            Self::Space => ("space 65536 100000000000", "space real"),
        }
    }
}

/// A failing-disk test.
#[derive(Debug, Clone)]
pub struct FailingDisk {
    /// Gets data, log and records.
    pub folder: PathBuf,
    /// Decides everything random.
    pub seed: u64,
    /// What happens in which order, and for how long.
    pub rounds: Vec<(Fault, Duration)>,
    /// How large.
    pub size: Size,
}

/// One outage.
#[derive(Debug, Serialize)]
pub struct Round {
    /// What failed.
    pub fault: String,
    /// For how long, ms.
    pub outage_ms: u64,
    /// Acknowledged during the outage, of what was stored before or needed no write that failed.
    pub acknowledged: u64,
    /// From the disk's return to the first acknowledgement, ms.
    pub back_ms: u64,
    /// What /readyz said late in the outage.
    pub ready_status: u16,
    /// How often clients were told no during it.
    pub told: u64,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Outages.
    pub rounds: Vec<Round>,
    /// What is wrong beyond the records.
    pub faults: Vec<String>,
    /// The rest.
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl FailingDisk {
    /// Runs it.
    ///
    /// # Errors
    /// When the node ends, or serves nobody long after the disk's return.
    pub fn run(&self) -> Result<Report> {
        let binary = Program::Godwit.path()?;
        Program::Checker.path()?;
        let mut rig = Rig::new(&self.folder, &binary, None, true, self.size.clone(), self.seed)?;
        rig.start_clients()?;
        rig.wait_served(ALLOWED)?;
        let pid = rig.node.pid();
        let mut rounds = Vec::new();
        let mut faults = Vec::new();
        for &(fault, outage) in &self.rounds {
            let pause = rig.random().random_range(500..2_500);
            std::thread::sleep(Duration::from_millis(pause));
            let round = round(&mut rig, fault, outage)?;
            if round.back_ms > ALLOWED.as_millis() as u64 {
                faults.push(format!("{fault:?}: served again only after {} ms", round.back_ms));
            }
            if outage >= TOLD_AFTER && round.told == 0 {
                faults.push(format!("{fault:?}: nobody was told in {outage:?}"));
            }
            rounds.push(round);
        }
        if rig.node.pid() != pid || rig.node.ended()?.is_some() {
            bail!("the process did not stay: {}", rig.node.tail());
        }
        rig.settle();
        // What a failed sync should have carried is lost now, if it was not written again.
        rig.kill_and_start(Some("drop"))?;
        let outcome = rig.finish(1)?;
        faults.extend(outcome.problems.iter().cloned());
        if outcome.verdict.exit != 0 {
            faults.push(format!(
                "the checker says {} {:?}\n{}",
                outcome.verdict.exit, outcome.verdict.broken, outcome.verdict.examples
            ));
        }
        Ok(Report {
            seed: self.seed,
            rounds,
            faults,
            outcome,
        })
    }
}

fn round(rig: &mut Rig, fault: Fault, outage: Duration) -> Result<Round> {
    let (on, off) = fault.orders();
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(3)))
        .build()
        .into();
    let url = format!("{}/readyz", rig.node.http());
    let told = |rig: &Rig| rig.shared.failures().values().sum::<u64>();
    let (told_before, acknowledged_before) = (told(rig), rig.shared.acknowledged());
    rig.disk.as_ref().context("no file layer")?.order(on)?;
    let began = Instant::now();
    std::thread::sleep(outage.mul_f64(0.8));
    let ready_status = agent
        .get(&url)
        .call()
        .map_or(0, |answer| answer.status().as_u16());
    std::thread::sleep(outage.saturating_sub(began.elapsed()));
    rig.disk.as_ref().context("no file layer")?.order(off)?;
    let acknowledged = rig.shared.acknowledged() - acknowledged_before;
    let told = told(rig) - told_before;
    let back = rig
        .wait_served(ALLOWED * 2)
        .with_context(|| format!("after {fault:?} for {outage:?}"))?;
    Ok(Round {
        fault: format!("{fault:?}"),
        outage_ms: outage.as_millis() as u64,
        acknowledged,
        back_ms: back.as_millis() as u64,
        ready_status,
        told,
    })
}
