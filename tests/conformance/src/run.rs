//! Runs all cases of both versions in parallel, each with a deadline, and says what differs from the committed results.

use std::collections::BTreeMap;
use std::net::ToSocketAddrs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::cases::{self, Case, SKIPPED};
use crate::report;
use crate::server::Server;
use crate::wire::Version;

/// Cases at a time; they wait much more than they work.
const AT_ONCE: usize = 40;
/// What a case may take; its reads have deadlines of their own, so this is for one that goes round in circles.
const CASE: Duration = Duration::from_secs(55);

/// How the failure of a case begins that did not end in time.
pub(crate) const NO_END: &str = "no end after";

/// Another server, `host:port`; its results are printed, not compared.
const TARGET: &str = "GODWIT_CONFORMANCE_TARGET";
/// Only cases whose name contains this; their results are printed, not compared.
const ONLY: &str = "GODWIT_CONFORMANCE_ONLY";
/// Writes the results instead of comparing them.
const BLESS: &str = "BLESS";

/// What came of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Came {
    Pass,
    Fail(String),
    Skipped(String),
}

/// By version and case.
pub(crate) type Results = BTreeMap<(Version, &'static str), Came>;

/// Runs everything, and compares or writes the results.
///
/// # Errors
/// When a result is not the committed one, a file is not what would be written, or the server does not start.
pub fn conformance() -> Result<(), String> {
    let only = std::env::var(ONLY).ok();
    let target = std::env::var(TARGET).ok();
    let servers = match &target {
        Some(target) => {
            let address = target
                .to_socket_addrs()
                .map_err(|error| format!("{TARGET}: {error}"))?
                .next()
                .ok_or("no address")?;
            [Version::V311, Version::V5].map(|version| Arc::new(Server::at(version, address)))
        }
        None => servers()?,
    };
    let began = Instant::now();
    let results = run(&servers, only.as_deref());
    eprintln!("{} cases in {:.1?}", results.len(), began.elapsed());
    for ((version, name), came) in &results {
        match came {
            Came::Pass => {}
            Came::Fail(why) => eprintln!("{} {name}: FAIL: {why}", version.name()),
            Came::Skipped(why) => eprintln!("{} {name}: skipped: {why}", version.name()),
        }
    }
    if target.is_some() || only.is_some() {
        return Ok(());
    }
    if std::env::var_os(BLESS).is_some() {
        report::write(&results)
    } else {
        report::compare(&results)
    }
}

/// The product for both versions.
///
/// # Errors
/// When one does not start.
pub(crate) fn servers() -> Result<[Arc<Server>; 2], String> {
    let start = |version| Server::start(version).map(Arc::new);
    let (old, new) = thread::scope(|scope| {
        let new = scope.spawn(|| start(Version::V5));
        let old = start(Version::V311);
        (old, new.join().unwrap_or(Err("the start panicked".into())))
    });
    Ok([old?, new?])
}

fn run(servers: &[Arc<Server>; 2], only: Option<&str>) -> Results {
    let mut work: Vec<(Arc<Server>, Case)> = Vec::new();
    for case in cases::all() {
        for server in servers {
            if case.runs_on(server.version) && only.is_none_or(|only| case.name.contains(only)) {
                work.push((Arc::clone(server), case));
            }
        }
    }
    work.sort_by_key(|(_, case)| !case.name.ends_with("right_after_a_start"));
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Results::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((server, case)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let came = one(Arc::clone(server), *case, CASE);
                    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                    results.insert((server.version, case.name), came);
                }
            });
        }
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// On a thread of its own, so that its deadline holds and a panic is its failure.
pub(crate) fn one(server: Arc<Server>, case: Case, deadline: Duration) -> Came {
    let (tell, told) = mpsc::channel();
    let began = Instant::now();
    thread::spawn(move || {
        let _ = tell.send((case.run)(&server));
    });
    let came = match told.recv_timeout(deadline) {
        Ok(Ok(())) => Came::Pass,
        Ok(Err(why)) => match why.strip_prefix(SKIPPED) {
            Some(why) => Came::Skipped(why.to_owned()),
            None => Came::Fail(why),
        },
        Err(mpsc::RecvTimeoutError::Timeout) => Came::Fail(format!("{NO_END} {deadline:?}")),
        Err(mpsc::RecvTimeoutError::Disconnected) => Came::Fail("the case itself panicked".into()),
    };
    if began.elapsed() > Duration::from_secs(45) {
        eprintln!("{} took {:.1?}", case.name, began.elapsed());
    }
    came
}
