//! Runs an attack beside the bystanders: loss, doubles and disorder are never allowed, memory has its bound, and latency is
//! compared with that of the same run before the attack, and at a twin of the server. The words are in `report`; no attack is known here.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::bed::{Bed, Setup};
use crate::bystander::{Bystanders, EVERY, Harm};
pub use crate::report::Report;
use crate::report::{Phase, Used};

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
/// Messages of which the report says when they were sent.
const SLOWEST: usize = 5;
/// Descriptors that this process may come to need.
const DESCRIPTORS: i32 = 32_768;

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
    /// Whether bystanders at a twin of the server are watched too, as the control.
    pub twin: bool,
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
            twin: long,
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

/// A table of descriptors that grows makes every thread that opens one wait, for tens of milliseconds where there is much to do: it is
/// grown before anything is measured.
fn room_for_descriptors() {
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let most = most
        .and_then(|most| i32::try_from(most).ok())
        .unwrap_or(DESCRIPTORS);
    // Without room for it the crowds will fail by themselves.
    let _ = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), most.min(DESCRIPTORS) - 1);
}

/// The server with its bystanders.
struct Watched {
    bed: Arc<Bed>,
    bystanders: Bystanders,
}

impl Watched {
    fn start(attack: &Attack) -> Result<Self> {
        let bed = Bed::start(&attack.setup).with_context(|| attack.name)?;
        let bystanders = Bystanders::start(&bed, attack.topic_every).with_context(|| bed.tail())?;
        Ok(Self { bed, bystanders })
    }

    fn phase(&self, from: Instant, to: Instant) -> Phase {
        Phase {
            messages: self.bystanders.latencies(from, to),
            connects: self.bystanders.connects(from, to),
            probe: self.bystanders.delays(from, to),
        }
    }
}

/// One run of an attack, on a server of its own.
///
/// # Errors
/// When the server or the bystanders do not get going: nothing can be said then.
pub fn run(attack: &Attack) -> Result<Report> {
    room_for_descriptors();
    let mut first = Watched::start(attack)?;
    let bed = Arc::clone(&first.bed);
    let mut twin = attack.twin.then(|| Watched::start(attack)).transpose()?;
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
    let used = Used::so_far(&bed);
    let attacked = Instant::now();
    let work = attackers.spawn((attack.run)(Arc::clone(&bed)));
    let told = attackers.block_on(async {
        match tokio::time::timeout(LONGEST, work).await {
            Err(_) => Err(anyhow::anyhow!("not done in {LONGEST:?}")),
            Ok(done) => done.map_err(anyhow::Error::from).flatten(),
        }
    });
    let ended = Instant::now();
    let used = Used::so_far(&bed) - used;
    let longest_turn = attackers.block_on(bed.metric("godwit_worker_turn_longest_seconds"));
    let longest_turn = Duration::from_secs_f64(longest_turn.unwrap_or_default().max(0.0));
    attackers.shutdown_background();
    let harm = first.bystanders.finish();
    let harm_twin = twin
        .as_mut()
        .map_or_else(Harm::default, |twin| twin.bystanders.finish());
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
        harm_twin,
        before: first.phase(begun, attacked),
        during: first.phase(attacked, ended),
        steps: bed
            .steps()
            .into_iter()
            .map(|step| {
                let control = twin.as_ref().map(|twin| twin.phase(step.from, step.to));
                let phase = first.phase(step.from, step.to);
                (step.what, phase, control)
            })
            .collect(),
        control: twin.map(|twin| twin.phase(attacked, ended)),
        slowest: first.bystanders.slowest(attacked, ended, SLOWEST),
        longest_turn,
        used,
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
