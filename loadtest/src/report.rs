//! What was measured: counts and histograms of a worker, how several of them become one, and how a run is told in JSON
//! and in words. Nothing here measures.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// Highest latency told apart, in microseconds; slower ones count as this.
const MAX_MICROS: u64 = 120_000_000;

/// A histogram of microseconds, three digits exact.
#[derive(Clone, Debug)]
pub(crate) struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        // The bounds are constants that the constructor accepts; an unbounded histogram is the equal fallback.
        let histogram = Histogram::new_with_bounds(1, MAX_MICROS, 3).or_else(|_| Histogram::new(3));
        Self(histogram.unwrap_or_else(|_| unreachable!("three significant digits are in range")))
    }
}

impl Latency {
    /// Counts one latency given in nanoseconds.
    pub(crate) fn record(&mut self, nanos: u64) {
        self.0.saturating_record((nanos / 1000).max(1));
    }

    /// Adds another's counts.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (value, count) in other.counts() {
            self.0.saturating_record_n(value, count);
        }
    }

    fn counts(&self) -> Vec<(u64, u64)> {
        self.0
            .iter_recorded()
            .map(|step| (step.value_iterated_to(), step.count_at_value()))
            .collect()
    }

    /// The figures that are shown.
    pub(crate) fn summary(&self) -> LatencySummary {
        LatencySummary {
            count: self.0.len(),
            mean_us: self.0.mean(),
            p50_us: self.0.value_at_quantile(0.5),
            p99_us: self.0.value_at_quantile(0.99),
            p999_us: self.0.value_at_quantile(0.999),
            max_us: self.0.max(),
        }
    }
}

impl Serialize for Latency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.counts().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut latency = Self::default();
        for (value, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            latency.0.saturating_record_n(value, count);
        }
        Ok(latency)
    }
}

/// Quantiles in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct LatencySummary {
    /// Latencies counted.
    pub(crate) count: u64,
    /// Mean.
    pub(crate) mean_us: f64,
    /// Median.
    pub(crate) p50_us: u64,
    /// 99 %.
    pub(crate) p99_us: u64,
    /// 99.9 %.
    pub(crate) p999_us: u64,
    /// Slowest.
    pub(crate) max_us: u64,
}

/// Counts and histograms of one worker.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct WorkerReport {
    /// Publishes written, over the whole run.
    pub(crate) sent: u64,
    /// Publishes acknowledged with success, over the whole run.
    pub(crate) acked: u64,
    /// Publishes refused by their PUBACK.
    pub(crate) refused: u64,
    /// Messages received for the first time, over the whole run.
    pub(crate) received: u64,
    /// Copies of messages received before.
    pub(crate) duplicates: u64,
    /// Messages that arrived after a later one of the same publisher.
    pub(crate) overtaken: u64,
    /// Messages that were acknowledged and did not arrive.
    pub(crate) lost: u64,
    /// Publishes that were neither acknowledged nor refused when the run ended.
    pub(crate) unanswered: u64,
    /// Connections that the broker closed.
    pub(crate) closed: u64,
    /// Rate mode: publishes not sent because their publisher was too far behind.
    pub(crate) skipped: u64,
    /// Received for the first time inside the measured window.
    pub(crate) window_received: u64,
    /// Acknowledged inside the measured window.
    pub(crate) window_acked: u64,
    /// Length of the measured window in seconds.
    pub(crate) window_seconds: f64,
    /// Publish to receive, inside the window.
    pub(crate) receive: Latency,
    /// Publish to PUBACK, inside the window.
    pub(crate) ack: Latency,
    /// CPU seconds of the generator inside the window (connect: in all).
    pub(crate) generator_cpu_seconds: f64,
}

impl WorkerReport {
    /// Adds another worker's counts; the window is the longer one, since workers run side by side.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.sent += other.sent;
        self.acked += other.acked;
        self.refused += other.refused;
        self.received += other.received;
        self.duplicates += other.duplicates;
        self.overtaken += other.overtaken;
        self.lost += other.lost;
        self.unanswered += other.unanswered;
        self.closed += other.closed;
        self.skipped += other.skipped;
        self.window_received += other.window_received;
        self.window_acked += other.window_acked;
        self.window_seconds = self.window_seconds.max(other.window_seconds);
        self.receive.merge(&other.receive);
        self.ack.merge(&other.ack);
        self.generator_cpu_seconds += other.generator_cpu_seconds;
    }

    /// One line that says why the run is not good, or `None`.
    pub(crate) fn trouble(&self) -> Option<String> {
        if self.closed > 0 {
            return Some(format!(
                "the broker closed {} connections during the run; {} acknowledged messages had not reached their recipient, \
                 {} publishes had no answer",
                self.closed, self.lost, self.unanswered
            ));
        }
        if self.lost > 0 {
            return Some(format!(
                "{} acknowledged messages never reached their recipient",
                self.lost
            ));
        }
        if self.unanswered > 0 {
            return Some(format!("{} publishes were never acknowledged", self.unanswered));
        }
        if self.refused > 0 {
            return Some(format!("{} publishes were refused by their PUBACK", self.refused));
        }
        if self.skipped > 0 {
            return Some(format!(
                "{} publishes were skipped: the broker does not keep up with --rate",
                self.skipped
            ));
        }
        None
    }
}

/// What the broker's process used.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct BrokerUse {
    /// Resident bytes before the first connect.
    pub(crate) rss_before: u64,
    /// Resident bytes with all clients connected.
    pub(crate) rss_connected: u64,
    /// Resident bytes at the end of the window, or after the rest.
    pub(crate) rss_after: u64,
    /// CPU seconds inside the window (connect: from the first connect to the end of the rest).
    pub(crate) cpu_seconds: f64,
    /// CPU seconds that neither the broker nor the generator used, in the same time: other work on the machine and
    /// network interrupts. Rates of a run with much of it say little; messages per CPU second still do.
    pub(crate) others_cpu_seconds: f64,
    /// Bytes it caused to be written to the storage layer in the same time.
    pub(crate) written_bytes: u64,
}

/// One run of a scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RunReport {
    /// Persistent sessions.
    pub(crate) sessions: usize,
    /// All connections, publishers included.
    pub(crate) connections: usize,
    /// Seconds from the first connect to the last SUBACK.
    pub(crate) connect_seconds: f64,
    /// Clients made ready (connected, and subscribed if recipients) per second.
    pub(crate) connects_per_second: f64,
    /// Received per second inside the window.
    pub(crate) received_per_second: f64,
    /// Acknowledged per second inside the window.
    pub(crate) acked_per_second: f64,
    /// Publish to receive.
    pub(crate) receive: LatencySummary,
    /// Publish to PUBACK.
    pub(crate) ack: LatencySummary,
    /// The broker's process, if it was found.
    pub(crate) broker: Option<BrokerUse>,
    /// Resident bytes per persistent session (`connect`): growth from before the first connect to after the rest.
    pub(crate) bytes_per_session: Option<f64>,
    /// Received per CPU second of the broker.
    pub(crate) received_per_cpu_second: Option<f64>,
    /// Seconds after the load until the newest messages were findable (`chat`, a few conversations).
    pub(crate) index_lag_seconds: Option<f64>,
    /// All counts.
    pub(crate) counts: WorkerReport,
    /// Why this run is not good.
    pub(crate) trouble: Option<String>,
}

/// Everything about one call of the harness.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The command line, as it can be given again.
    pub(crate) command: String,
    /// Name, version and configuration of the broker as far as known.
    pub(crate) broker: String,
    /// Which client made the load: what a message costs it is part of the generator's figures.
    pub(crate) clients: String,
    /// Each run.
    pub(crate) runs: Vec<RunReport>,
}

impl Report {
    /// The report in words.
    pub(crate) fn to_text(&self) -> String {
        let mut text = format!(
            "{}\nbroker: {}\nclients: {}\n",
            self.command, self.broker, self.clients
        );
        for (number, run) in self.runs.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "run {}: {}", number + 1, run.to_text());
        }
        if self.runs.len() > 1 {
            let mut rates: Vec<f64> = self.runs.iter().map(|run| run.received_per_second).collect();
            rates.sort_by(f64::total_cmp);
            let _ = writeln!(
                text,
                "median of {}: {:.0} messages/s",
                rates.len(),
                rates[rates.len() / 2]
            );
        }
        text
    }
}

impl RunReport {
    fn to_text(&self) -> String {
        let mut text = format!(
            "{} sessions, {} connections, ready at {:.0}/s ({:.1} s)",
            self.sessions, self.connections, self.connects_per_second, self.connect_seconds
        );
        if self.counts.window_seconds > 0.0 {
            let _ = write!(
                text,
                "\n  {:.0} messages/s received, {:.0}/s acknowledged over {:.1} s",
                self.received_per_second, self.acked_per_second, self.counts.window_seconds
            );
            let _ = write!(text, "\n  publish to receive {}", show(&self.receive));
            let _ = write!(text, "\n  publish to PUBACK  {}", show(&self.ack));
            let _ = write!(
                text,
                "\n  generator CPU {:.1} s",
                self.counts.generator_cpu_seconds
            );
        }
        if let Some(used) = &self.broker {
            let _ = write!(
                text,
                "\n  broker CPU {:.2} s (others on the machine {:.1} s), wrote {:.1} MB, resident {:.1} → {:.1} → {:.1} MB",
                used.cpu_seconds,
                used.others_cpu_seconds,
                used.written_bytes as f64 / 1e6,
                used.rss_before as f64 / 1e6,
                used.rss_connected as f64 / 1e6,
                used.rss_after as f64 / 1e6
            );
        }
        if let Some(rate) = self.received_per_cpu_second {
            let _ = write!(text, "; {rate:.0} messages per CPU second");
        }
        if let Some(bytes) = self.bytes_per_session {
            let _ = write!(text, "\n  {bytes:.0} bytes per session");
        }
        if let Some(seconds) = self.index_lag_seconds {
            let _ = write!(text, "\n  newest messages findable {seconds:.2} s after the load");
        }
        let _ = write!(
            text,
            "\n  sent {} acknowledged {} received {} duplicates {} overtaken {} lost {}",
            self.counts.sent,
            self.counts.acked,
            self.counts.received,
            self.counts.duplicates,
            self.counts.overtaken,
            self.counts.lost
        );
        if let Some(trouble) = &self.trouble {
            let _ = write!(text, "\n  NOT GOOD: {trouble}");
        }
        text
    }
}

fn show(latency: &LatencySummary) -> String {
    let ms = |micros: u64| micros as f64 / 1e3;
    format!(
        "p50 {:.2} p99 {:.2} p99.9 {:.2} max {:.2} ms",
        ms(latency.p50_us),
        ms(latency.p99_us),
        ms(latency.p999_us),
        ms(latency.max_us)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(latencies: &[u64], received: u64, seconds: f64) -> WorkerReport {
        let mut report = WorkerReport {
            window_received: received,
            window_seconds: seconds,
            ..Default::default()
        };
        latencies
            .iter()
            .for_each(|micros| report.receive.record(micros * 1000));
        report
    }

    #[test]
    fn merging_two_workers_gives_the_histogram_and_counts_of_one_that_did_all() {
        let all: Vec<u64> = (1..=10_000).collect();
        let mut merged = worker(&all[..3_000], 3_000, 60.0);
        merged.merge(&worker(&all[3_000..], 7_000, 60.2));
        let one = worker(&all, 10_000, 60.2);
        assert_eq!(merged.receive.summary().count, 10_000);
        assert_eq!(merged.receive.summary(), one.receive.summary());
        assert_eq!((merged.window_received, merged.window_seconds), (10_000, 60.2));
    }

    #[test]
    fn a_report_survives_the_pipe_between_worker_and_parent() {
        let mut sent = worker(&[5, 900, 1_000_000], 3, 1.5);
        sent.lost = 7;
        let line = serde_json::to_string(&sent).expect("serialises");
        let got: WorkerReport = serde_json::from_str(&line).expect("reads back");
        assert_eq!(got.receive.summary(), sent.receive.summary());
        assert_eq!((got.lost, got.window_received), (7, 3));
    }

    #[test]
    fn a_run_with_losses_is_not_good_and_says_so() {
        let mut report = worker(&[], 0, 1.0);
        assert_eq!(report.trouble(), None);
        report.lost = 2;
        assert!(
            report
                .trouble()
                .is_some_and(|line| line.contains("2 acknowledged messages never"))
        );
    }

    #[test]
    fn a_latency_beyond_the_scale_is_counted_at_its_end() {
        let mut latency = Latency::default();
        latency.record(u64::MAX);
        assert!(latency.summary().max_us >= MAX_MICROS);
    }
}
