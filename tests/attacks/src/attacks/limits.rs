//! Limits that no other attack reaches, one after another beside the bystanders: each is met some times by an offender, who gets
//! exactly what docs/limits.md states, and each is counted. The tables name a limit as the page does, with its constant or option.
//!
//! A group of limits shares a server, whose options are set low where a limit is one.

mod doors;
mod held;
mod http;
mod owed;
mod packets;
mod rest;
mod secrets;
mod sessions;

use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::bed::{Bed, Setup};
use crate::judge::Attack;

/// Bystanders are looked at for so long at least at each limit.
const WATCHED: Duration = Duration::from_millis(300);

/// Meets a limit; gives what was seen, for the report.
type Reach = fn(Arc<Bed>) -> Pin<Box<dyn Future<Output = Result<String>> + Send>>;

/// A limit, and how it is reached.
struct Case {
    /// As the page names it.
    limit: &'static str,
    /// Its constant or option.
    at: &'static str,
    /// The sample of /metrics that grows, up to a label's value; empty: none does.
    metric: &'static str,
    reach: Reach,
}

/// `"limit", "CONSTANT", "metric" => function` for each.
macro_rules! cases {
    ($($limit:literal, $at:literal, $metric:literal => $reach:path;)*) => {
        &[$(super::Case {
            limit: $limit,
            at: $at,
            metric: $metric,
            reach: |bed| Box::pin($reach(bed)),
        }),*]
    };
}
use cases;

/// All of a table, one after another.
fn group(name: &'static str, setup: Setup, long: bool, tables: &[&'static [Case]]) -> Attack {
    let cases: Vec<&'static Case> = tables.iter().copied().flatten().collect();
    let run = move |bed: Arc<Bed>| {
        let cases = cases.clone();
        async move { all(bed, &cases).await }
    };
    Attack::new(name, setup, long, run)
}

async fn all(bed: Arc<Bed>, cases: &[&'static Case]) -> Result<Vec<String>> {
    let mut told = Vec::new();
    for case in cases {
        let named = || format!("{} ({})", case.limit, case.at);
        let counted = |bed: Arc<Bed>| async move {
            match case.metric {
                "" => Ok(0.0),
                metric => bed.metric(metric).await,
            }
        };
        let before = counted(Arc::clone(&bed)).await?;
        let begun = Instant::now();
        let mut line = (case.reach)(Arc::clone(&bed))
            .await
            .with_context(|| format!("{}, behind {told:#?}", named()))?;
        let took = begun.elapsed();
        // The bystanders are looked at for a while, however fast it went.
        tokio::time::sleep(WATCHED.saturating_sub(begun.elapsed())).await;
        bed.step(named(), begun);
        let more = counted(Arc::clone(&bed)).await? - before;
        ensure!(
            case.metric.is_empty() || more > 0.0,
            "{}: {} did not grow",
            named(),
            case.metric
        );
        let _ = write!(line, " ({:.1} s", took.as_secs_f64());
        if !case.metric.is_empty() {
            let _ = write!(line, ", counted {more}");
        }
        told.push(format!("{}: {line})", named()));
    }
    Ok(told)
}

/// Limits of packets.
pub fn packets(long: bool) -> Attack {
    packets::attack(long)
}

/// Limits of sessions and subscriptions.
pub fn sessions(long: bool) -> Attack {
    sessions::attack(long)
}

/// Limits of what is owed.
pub fn owed(long: bool) -> Attack {
    owed::attack(long)
}

/// Limits of REST and of accounts.
pub fn http(long: bool) -> Attack {
    http::attack(long)
}

/// Limits of the doors.
pub fn doors(long: bool) -> Attack {
    doors::attack(long)
}
