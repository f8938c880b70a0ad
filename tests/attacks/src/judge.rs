//! Runs an attack beside the bystanders and judges: loss, doubles and disorder are never allowed, memory has its bound, and
//! latency is compared with that of the same run before the attack. No attack is known here.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::bed::{Bed, Measured, Setup};
use crate::bystander::{Bystanders, EVERY, Harm, Times};

/// No mark is below this: a p99 of 1 ms doubles by noise. In the short form of a build without optimizations it is more,
/// since what such a server takes says little.
pub const fn floor(long: bool) -> Duration {
    Duration::from_millis(if cfg!(debug_assertions) && !long { 100 } else { 20 })
}

/// A test fails only at so many times a mark, of latency or of the attack's own: the machine may be busy with other things. The
/// report prints what was.
pub const SLACK: u32 = 3;
/// Runs of which one must keep the latency.
const TRIES: usize = 3;
/// An attack that takes longer has failed.
const LONGEST: Duration = Duration::from_secs(300);
/// One attack at a time: their latencies are judged. Those that mostly wait run beside it.
static ALONE: Mutex<()> = Mutex::new(());
/// The attacker's threads stand for other machines: they leave the processors to the server and the bystanders.
const NICE: i32 = 10;

/// What an attack does; it gives lines for the report.
pub type Run = Box<dyn Fn(Arc<Bed>) -> Pin<Box<dyn Future<Output = Result<Vec<String>>> + Send>>>;

/// An attack.
pub struct Attack {
    /// A short name.
    pub name: &'static str,
    /// The server it needs.
    pub setup: Setup,
    /// The bystanders' p99 may be so many times that of before.
    pub mark: f64,
    /// And is never marked below this.
    pub floor: Duration,
    /// Whether others' connects are judged too; not where new connections are what is refused.
    pub connects: bool,
    /// How much the node's resident memory may grow, bytes.
    pub memory: u64,
    /// Where that figure comes from.
    pub because: String,
    /// Between two messages of the bystanders' line on an ordinary topic.
    pub topic_every: Duration,
    /// It mostly waits: it may run beside another one.
    pub waits: bool,
    /// How long the bystanders are watched before.
    pub before: Duration,
    /// What is done, and its stated effect on the offender; an error when the effect is another.
    pub run: Run,
}

impl fmt::Debug for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Attack {
    /// With the usual marks: p99 twice that of before, memory by `memory` more.
    pub fn new<F, R>(name: &'static str, setup: Setup, long: bool, run: F) -> Self
    where
        F: Fn(Arc<Bed>) -> R + 'static,
        R: Future<Output = Result<Vec<String>>> + Send + 'static,
    {
        Self {
            name,
            setup,
            mark: 2.0,
            floor: floor(long),
            connects: true,
            memory: 32 << 20,
            because: "buffers, the store's overlay".into(),
            topic_every: EVERY,
            waits: false,
            before: Duration::from_millis(if long { 5_000 } else { 500 }),
            run: Box::new(move |bed| Box::pin(run(bed))),
        }
    }

    /// How much memory may grow by, bytes, and why so much.
    #[must_use]
    pub fn memory(mut self, bytes: u64, because: impl Into<String>) -> Self {
        self.memory = bytes;
        self.because = because.into();
        self
    }

    /// Another mark of latency.
    #[must_use]
    pub fn mark(mut self, mark: f64) -> Self {
        self.mark = mark;
        self
    }

    /// Another pace of the bystanders' line on an ordinary topic.
    #[must_use]
    pub fn topic_every(mut self, every: Duration) -> Self {
        self.topic_every = every;
        self
    }

    /// Mostly waits, so that another one may run beside it.
    #[must_use]
    pub fn waits(mut self) -> Self {
        self.waits = true;
        self
    }

    /// New connections are not judged.
    #[must_use]
    pub fn without_connects(mut self) -> Self {
        self.connects = false;
        self
    }
}

/// What one run showed.
#[derive(Debug)]
pub struct Report {
    name: &'static str,
    mark: f64,
    floor: Duration,
    connects: bool,
    bound: u64,
    because: String,
    harm: Harm,
    before: Times,
    during: Times,
    connects_before: (Times, usize),
    connects_during: (Times, usize),
    grown: u64,
    base: u64,
    took: Duration,
    told: Result<Vec<String>>,
    measured: Vec<Measured>,
    /// The end of the server's log.
    tail: String,
}

impl Report {
    /// What must never be, whatever the machine does.
    pub fn broken(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if let Err(error) = &self.told {
            wrong.push(format!("the offender: {error:#}"));
        }
        let harm = &self.harm;
        if harm.lost + harm.doubled + harm.disordered > 0 {
            wrong.push(format!("the bystanders: {harm:?}"));
        }
        wrong.extend(
            harm.cut
                .iter()
                .map(|why| format!("a bystander was cut off: {why}")),
        );
        if self.connects && self.connects_during.1 > 0 {
            wrong.push(format!(
                "{} connections of others refused",
                self.connects_during.1
            ));
        }
        if self.grown > self.bound {
            wrong.push(format!(
                "{} more memory, allowed {}",
                mib(self.grown),
                mib(self.bound)
            ));
        }
        wrong
    }

    /// What is over `slack` times its mark.
    pub fn slow(&self, slack: u32) -> Vec<String> {
        let mut pairs = vec![("messages", &self.before, &self.during)];
        if self.connects {
            pairs.push(("connects", &self.connects_before.0, &self.connects_during.0));
        }
        let mut wrong = Vec::new();
        for (what, before, during) in pairs {
            let mark = before.quantile(0.99).mul_f64(self.mark).max(self.floor);
            if during.quantile(0.99) > mark * slack {
                wrong.push(format!(
                    "{what}: p99 {} before, {} during, mark {}",
                    ms(before.quantile(0.99)),
                    ms(during.quantile(0.99)),
                    ms(mark)
                ));
            }
        }
        for Measured { what, value, mark } in &self.measured {
            if *value > mark * f64::from(slack) {
                wrong.push(format!("{what}: {value:.2}, mark {mark:.2}"));
            }
        }
        wrong
    }
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match (self.broken().is_empty(), self.slow(1).is_empty()) {
            (false, _) => "FAILED",
            (true, true) => "kept",
            (true, false) => "kept, but over a mark of time",
        };
        writeln!(f, "{} ({:.1} s): {verdict}", self.name, self.took.as_secs_f64())?;
        let harm = &self.harm;
        writeln!(
            f,
            "  bystanders: {} messages, {} lost, {} doubled, {} out of order, {} cut off",
            harm.sent,
            harm.lost,
            harm.doubled,
            harm.disordered,
            harm.cut.len()
        )?;
        let mut times = |what: &str, before: &Times, during: &Times, more: &str| {
            let (old, new) = (before.quantile(0.99), during.quantile(0.99));
            writeln!(
                f,
                "  {what}: p50 {} before, {} during; p99 {} before, {} during = {:.2}x, mark {:.1}x or {}; {} and {} samples{more}",
                ms(before.quantile(0.5)),
                ms(during.quantile(0.5)),
                ms(old),
                ms(new),
                new.as_secs_f64() / old.as_secs_f64().max(1e-6),
                self.mark,
                ms(self.floor),
                before.count(),
                during.count()
            )
        };
        times("messages", &self.before, &self.during, "")?;
        let refused = match self.connects_during.1 {
            0 => String::new(),
            count => format!(", {count} refused"),
        };
        let judged = if self.connects { "" } else { ", not judged" };
        let more = format!("{refused}{judged}");
        times(
            "connects",
            &self.connects_before.0,
            &self.connects_during.0,
            &more,
        )?;
        writeln!(
            f,
            "  memory: {} before, at most {} more; bound {} ({})",
            mib(self.base),
            mib(self.grown),
            mib(self.bound),
            self.because
        )?;
        for line in self.told.iter().flatten() {
            writeln!(f, "  offender: {line}")?;
        }
        for Measured { what, value, mark } in &self.measured {
            writeln!(f, "  {what}: {value:.2}, mark {mark:.2}")?;
        }
        for wrong in self.broken() {
            writeln!(f, "  WRONG: {wrong}")?;
        }
        for wrong in self.slow(1) {
            writeln!(f, "  over the mark: {wrong}")?;
        }
        Ok(())
    }
}

/// One run of an attack, on a server of its own.
///
/// # Errors
/// When the server or the bystanders do not get going: nothing can be said then.
pub fn run(attack: &Attack) -> Result<Report> {
    let bed = Bed::start(&attack.setup).with_context(|| attack.name)?;
    let mut bystanders = Bystanders::start(&bed, attack.topic_every).with_context(|| bed.tail())?;
    let attackers = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .on_thread_start(|| {
            let _ = rustix::process::nice(NICE);
        })
        .build()?;
    let begun = Instant::now();
    std::thread::sleep(attack.before);
    let base = bed.resident()?;
    let (peak, stop) = (Arc::new(AtomicU64::new(base)), Arc::new(AtomicBool::new(false)));
    let sampler = {
        let (bed, peak, stop) = (Arc::clone(&bed), Arc::clone(&peak), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Acquire) {
                if let Ok(bytes) = bed.resident() {
                    peak.fetch_max(bytes, Ordering::AcqRel);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        })
    };
    let attacked = Instant::now();
    let work = attackers.spawn((attack.run)(Arc::clone(&bed)));
    let told = attackers.block_on(async {
        match tokio::time::timeout(LONGEST, work).await {
            Err(_) => Err(anyhow::anyhow!("not done in {LONGEST:?}")),
            Ok(done) => done.map_err(anyhow::Error::from).flatten(),
        }
    });
    let ended = Instant::now();
    attackers.shutdown_background();
    let harm = bystanders.finish();
    stop.store(true, Ordering::Release);
    let _ = sampler.join();
    Ok(Report {
        name: attack.name,
        mark: attack.mark,
        floor: attack.floor,
        connects: attack.connects,
        bound: attack.memory,
        because: attack.because.clone(),
        harm,
        before: bystanders.latencies(begun, attacked),
        during: bystanders.latencies(attacked, ended),
        connects_before: bystanders.connects(begun, attacked),
        connects_during: bystanders.connects(attacked, ended),
        grown: peak.load(Ordering::Acquire).saturating_sub(base),
        base,
        took: ended - attacked,
        told,
        measured: bed.measured(),
        tail: bed.tail(),
    })
}

/// Runs an attack as a test: fails at once for what must never be, and when three runs are slow.
///
/// # Errors
/// What is wrong, with the whole report.
pub fn check(attack: &Attack) -> Result<(), String> {
    let alone = || ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let _alone = (!attack.waits).then(alone);
    let mut slow = String::new();
    for _ in 0..TRIES {
        let report = run(attack).map_err(|error| format!("{error:#}"))?;
        if !report.broken().is_empty() {
            return Err(format!("{report}\n{}", report.tail));
        }
        if report.slow(SLACK).is_empty() {
            eprint!("{report}");
            return Ok(());
        }
        slow = report.to_string();
    }
    Err(format!("three runs were slow, the last one:\n{slow}"))
}
