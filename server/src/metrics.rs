//! What the node itself shows at `/metrics`: the store's counters, the search feed's, the process's. Each part of the
//! product registers its own; here is what is read when somebody asks.

use std::fmt;
use std::sync::Arc;

use godwit_cluster::{Router, Turns};
use godwit_history_api::Clock;
use godwit_search::{Feed, FeedState, Index};
use godwit_store::{Health, Stats, Store};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::cluster::{Membership, boot_ms};

type Encoded = Result<(), fmt::Error>;

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> Encoded {
    let encoder = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    ConstCounter::new(value).encode(encoder)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> Encoded {
    let encoder = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(value).encode(encoder)
}

/// The store's counters.
pub(crate) struct OfStore(pub(crate) Arc<dyn Store>);

impl fmt::Debug for OfStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OfStore")
    }
}

impl Collector for OfStore {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> Encoded {
        let (stats, to) = (self.0.stats(), &mut to);
        let health = match self.0.health() {
            Health::Serving => 0.0,
            Health::LowSpace => 1.0,
            Health::Failing => 2.0,
        };
        gauge(
            to,
            "godwit_store_health",
            "0 serving, 1 less than 5 % of the disk free, 2 failing",
            health,
        )?;
        counter(to, "godwit_store_commits", "Group commits (syncs)", stats.commits)?;
        counter(
            to,
            "godwit_store_batches",
            "Batches in the commits",
            stats.batches,
        )?;
        counter(
            to,
            "godwit_store_written_bytes",
            "Bytes written to the journal",
            stats.bytes,
        )?;
        counter(
            to,
            "godwit_store_reopened",
            "Journal segments begun after a failed write or sync",
            stats.reopened,
        )?;
        gauge(
            to,
            "godwit_store_overlay_bytes",
            "Bytes in memory that only the journal holds",
            stats.overlay_bytes as f64,
        )?;
        gauge(
            to,
            "godwit_store_cache_bytes",
            "Bytes of blocks of the store kept for the next reader, at most store_cache_mb",
            stats.cache_bytes as f64,
        )?;
        // An engine on other machines has none.
        if stats.disk.1 > 0 {
            gauge(
                to,
                "godwit_disk_free_bytes",
                "Bytes free on the disk of the data folder",
                stats.disk.0 as f64,
            )?;
            gauge(
                to,
                "godwit_disk_bytes",
                "Bytes of the disk of the data folder",
                stats.disk.1 as f64,
            )?;
        }
        let help = "From the first byte of a commit to durable";
        let mut histogram =
            to.encode_descriptor("godwit_store_commit_seconds", help, None, MetricType::Histogram)?;
        let sum = stats.commit_micros as f64 / 1e6;
        histogram.encode_histogram::<[(&str, &str); 0]>(sum, stats.commits, &buckets(&stats), None)
    }
}

/// The workers' turns.
pub(crate) struct OfWorkers(pub(crate) Router);

impl fmt::Debug for OfWorkers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OfWorkers")
    }
}

impl Collector for OfWorkers {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> Encoded {
        let (turns, to) = (self.0.turns(), &mut to);
        let help = "The longest turn of a worker since the start";
        gauge(
            to,
            "godwit_worker_turn_longest_seconds",
            help,
            turns.longest as f64 / 1e6,
        )?;
        let full = self.0.full_workers();
        let help = "Requests of other nodes that lie behind a full worker's inbox";
        gauge(to, "godwit_workers_full_lying", help, full.lying as f64)?;
        let help =
            "Requests of other nodes answered unavailable: as many lay behind their full worker as may";
        counter(to, "godwit_workers_full_refused", help, full.refused)?;
        let help = "Turns of the workers: what is ready waits for the end of one";
        let mut histogram =
            to.encode_descriptor("godwit_worker_turn_seconds", help, None, MetricType::Histogram)?;
        let bounds = Turns::BUCKETS_MICROS.iter().map(|bound| *bound as f64 / 1e6);
        let mut buckets: Vec<(f64, u64)> = bounds.zip(turns.buckets).collect();
        // Counters are read one after the other while turns go on.
        let longer = turns.count.saturating_sub(turns.buckets.iter().sum());
        buckets.push((f64::INFINITY, longer));
        histogram.encode_histogram::<[(&str, &str); 0]>(
            turns.micros as f64 / 1e6,
            turns.count,
            &buckets,
            None,
        )
    }
}

/// A node's place in its cluster.
pub(crate) struct OfCluster(pub(crate) Membership);

impl fmt::Debug for OfCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OfCluster")
    }
}

impl Collector for OfCluster {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> Encoded {
        let (standing, to) = (self.0.standing(), &mut to);
        let (members, unsettled) = standing.borrow().as_ref().map_or((0, 0), |standing| {
            (standing.body.seats.len(), standing.body.unsettled.len())
        });
        let holdings = self.0.holdings();
        let view = holdings.current() as f64;
        gauge(
            to,
            "godwit_cluster_view",
            "Number of the view that the node acts in",
            view,
        )?;
        gauge(
            to,
            "godwit_cluster_members",
            "Members of that view",
            members as f64,
        )?;
        let help = "Views before it in which somebody may still act";
        gauge(to, "godwit_cluster_unsettled_views", help, unsettled as f64)?;
        let help = "Shards that the node has taken up, of all three groups";
        gauge(to, "godwit_cluster_shards_held", help, self.0.held() as f64)?;
        if let Some(ahead) = self.0.clock_ahead_ms() {
            let help = "How far the machine's calendar is ahead of the median of the members'";
            gauge(to, "godwit_cluster_clock_ahead_seconds", help, ahead as f64 / 1e3)?;
        }
        let doubted = f64::from(u8::from(holdings.calendar().doubted));
        let help =
            "1 while the calendar is more than 10 s off that median, or not compared yet: nothing expires";
        gauge(to, "godwit_cluster_clock_doubted", help, doubted)?;
        let acts = f64::from(u8::from(holdings.may_act(boot_ms())));
        gauge(to, "godwit_cluster_acts", "1 while the node's lease lasts", acts)
    }
}

/// Counts of each bucket alone, up to infinity.
fn buckets(stats: &Stats) -> Vec<(f64, u64)> {
    let mut below = 0;
    let mut buckets = Vec::with_capacity(stats.commit_histogram.len() + 1);
    for (bound, up_to) in Stats::COMMIT_BUCKETS_MICROS.iter().zip(stats.commit_histogram) {
        // The counters are read one after the other while commits go on.
        buckets.push((*bound as f64 / 1e6, up_to.saturating_sub(below)));
        below = below.max(up_to);
    }
    buckets.push((f64::INFINITY, stats.commits.saturating_sub(below)));
    buckets
}

/// The search index and its feed.
pub(crate) struct OfSearch {
    pub(crate) index: Index,
    pub(crate) feed: Arc<std::sync::Mutex<Option<Feed>>>,
    pub(crate) now_ms: Clock,
}

impl fmt::Debug for OfSearch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OfSearch")
    }
}

impl Collector for OfSearch {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> Encoded {
        let to = &mut to;
        gauge(
            to,
            "godwit_search_documents",
            "Messages in the search index",
            self.index.documents() as f64,
        )?;
        gauge(
            to,
            "godwit_search_segments",
            "Segments of the search index",
            self.index.segments() as f64,
        )?;
        let now = i64::try_from((self.now_ms)()).unwrap_or(i64::MAX);
        if let Some(lag) = self.index.freshness(now).lag_ms {
            gauge(
                to,
                "godwit_search_lag_seconds",
                "Age of the oldest message that may not be found yet",
                lag as f64 / 1e3,
            )?;
        }
        let feed = self
            .feed
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(status) = feed.as_ref().map(Feed::status) else {
            return Ok(());
        };
        let state = match status.state {
            FeedState::Following => 0.0,
            FeedState::CatchingUp => 1.0,
            FeedState::Rebuilding => 2.0,
            FeedState::Stale { .. } => 3.0,
            FeedState::Stopped => 4.0,
        };
        gauge(
            to,
            "godwit_search_state",
            "0 following, 1 catching up, 2 rebuilding, 3 failing, 4 stopped",
            state,
        )?;
        gauge(
            to,
            "godwit_search_catching_shards",
            "Shards whose index is being completed: searches in them are partial",
            self.index.catching() as f64,
        )?;
        gauge(
            to,
            "godwit_search_pending",
            "Conversations waiting to be indexed",
            status.pending as f64,
        )?;
        counter(to, "godwit_search_indexed", "Messages indexed", status.indexed)?;
        counter(
            to,
            "godwit_search_commits",
            "Commits of the search index",
            status.commits,
        )?;
        counter(
            to,
            "godwit_search_failures",
            "Failures of disk or store met by the search feed",
            status.failures,
        )
    }
}

/// The process, as Linux tells it.
#[derive(Debug)]
pub(crate) struct OfProcess;

impl Collector for OfProcess {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> Encoded {
        let to = &mut to;
        if let Some(bytes) = resident_bytes() {
            gauge(
                to,
                "process_resident_memory_bytes",
                "Resident memory",
                bytes as f64,
            )?;
        }
        if let Some(bytes) = allocated_bytes() {
            gauge(
                to,
                "process_allocated_bytes",
                "Memory in use of what the allocator has; the rest of the resident memory is code, stacks, mapped files and gaps",
                bytes as f64,
            )?;
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            gauge(to, "process_open_fds", "Open files", files.count() as f64)?;
        }
        if let Some(seconds) = cpu_seconds() {
            gauge(
                to,
                "process_cpu_seconds",
                "Time spent on processors, user and system",
                seconds,
            )?;
        }
        Ok(())
    }
}

fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * u64::try_from(rustix::param::page_size()).ok()?)
}

/// Needs the allocator to be this process's own; another one counts nothing there.
#[cfg(feature = "jemalloc")]
fn allocated_bytes() -> Option<usize> {
    tikv_jemalloc_ctl::epoch::advance().ok()?;
    tikv_jemalloc_ctl::stats::allocated::read().ok()
}

#[cfg(not(feature = "jemalloc"))]
fn allocated_bytes() -> Option<usize> {
    None
}

fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name, which is in parentheses and may hold anything: user time is field 14, system time 15.
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn the_commit_histogram_counts_every_commit_once() {
        let stats = Stats {
            commits: 10,
            commit_histogram: [1, 1, 4, 4, 4, 9, 9, 9, 9, 9],
            ..Stats::default()
        };
        let counts: Vec<u64> = buckets(&stats).iter().map(|bucket| bucket.1).collect();
        assert_eq!(counts, [1, 0, 3, 0, 0, 5, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn the_process_tells_its_memory_files_and_time() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(OfProcess));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for name in [
            "process_resident_memory_bytes ",
            "process_open_fds ",
            "process_cpu_seconds ",
        ] {
            assert!(text.contains(name), "{text}");
        }
    }
}
