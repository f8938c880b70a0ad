//! The memory that a node may use: looked at all the time, and while it is at its bound no further MQTT connection is let in. Those that are
//! in have bounds of their own, and so has everything of HTTP. What is not counted: pages of files, which the system takes back by itself.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;

/// Between two looks: a flood of connections takes some 50 MB in that time.
const LOOK: Duration = Duration::from_millis(50);
/// Part of a control group's limit that is the bound where none is configured, in percent: the kernel ends the process at the limit itself.
const OF_GROUP: u64 = 90;
/// Part of the bound below which newcomers are let in again, in percent: not one for each that goes.
const AGAIN: u64 = 95;
const MB: u64 = 1 << 20;

/// Whether the node is at its bound, for everybody who lets somebody in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// See the type.
    pub(crate) full: Arc<AtomicBool>,
    used: Gauge<u64, AtomicU64>,
    bound: u64,
}

impl Memory {
    /// `configured`: megabytes, 0: what the process's control group (version 2) may have, less a tenth; without one there is no bound.
    pub(crate) fn new(configured: u32) -> Self {
        let bound = match u64::from(configured) * MB {
            0 => group_limit().map_or(0, |limit| limit / 100 * OF_GROUP),
            bytes => bytes,
        };
        Self {
            bound,
            ..Self::default()
        }
    }

    /// Looks from now on.
    pub(crate) fn watch(&self, runtime: &Handle) {
        if self.bound == 0 {
            return;
        }
        tracing::info!(
            mb = self.bound / MB,
            "at so much memory no further MQTT connection is let in"
        );
        let memory = self.clone();
        runtime.spawn(async move {
            let mut looks = tokio::time::interval(LOOK);
            looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                looks.tick().await;
                if let Some(used) = used_bytes() {
                    memory.look(used);
                }
            }
        });
    }

    fn look(&self, used: u64) {
        self.used.set(used);
        let was = self.full.load(Ordering::Relaxed);
        let full = used >= if was { self.bound / 100 * AGAIN } else { self.bound };
        if full != was {
            self.full.store(full, Ordering::Relaxed);
            let (used_mb, bound_mb) = (used / MB, self.bound / MB);
            match full {
                true => tracing::warn!(used_mb, bound_mb, "at the bound on memory: nobody new is let in"),
                false => tracing::info!(used_mb, bound_mb, "below the bound on memory again"),
            }
        }
    }

    /// Names what it counts.
    pub(crate) fn register(&self, registry: &mut Registry) {
        if self.bound == 0 {
            return;
        }
        let bound = Gauge::<u64, AtomicU64>::default();
        bound.set(self.bound);
        registry.register(
            "godwit_memory_used_bytes",
            "Memory of the process but for pages of files",
            self.used.clone(),
        );
        registry.register(
            "godwit_memory_bound_bytes",
            "How much of it there may be before nobody new is let in",
            bound,
        );
    }
}

/// Resident pages that are not of files.
fn used_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut fields = statm.split(' ').skip(1).map_while(|field| field.parse().ok());
    let (resident, of_files): (u64, u64) = (fields.next()?, fields.next()?);
    let page = u64::try_from(rustix::param::page_size()).ok()?;
    Some(resident.saturating_sub(of_files) * page)
}

/// What this process's control group may have, or the next above it that says so.
fn group_limit() -> Option<u64> {
    let of_process = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = of_process.lines().find_map(|line| line.strip_prefix("0::/"))?;
    limit_at(Path::new("/sys/fs/cgroup"), Path::new(group))
}

fn limit_at(root: &Path, group: &Path) -> Option<u64> {
    group
        .ancestors()
        .filter_map(|group| std::fs::read_to_string(root.join(group).join("memory.max")).ok())
        // "max" is none.
        .filter_map(|limit| limit.trim().parse().ok())
        .min()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn newcomers_are_kept_out_from_the_bound_on_and_let_in_again_somewhat_below_it() {
        let memory = Memory::new(100);
        let at = |mb: u64| {
            memory.look(mb * MB);
            memory.full.load(Ordering::Relaxed)
        };
        assert_eq!(
            [99, 100, 99, 96, 94, 99].map(at),
            [false, true, true, true, false, false]
        );
    }

    #[test]
    fn the_narrowest_limit_of_the_control_groups_around_the_process_counts() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        assert_eq!(limit_at(root.path(), Path::new("a/b")), None);
        std::fs::write(inner.join("memory.max"), "max\n").unwrap();
        std::fs::write(root.path().join("a/memory.max"), "4096000\n").unwrap();
        assert_eq!(limit_at(root.path(), Path::new("a/b")), Some(4_096_000));
        std::fs::write(inner.join("memory.max"), "1000\n").unwrap();
        assert_eq!(limit_at(root.path(), Path::new("a/b")), Some(1_000));
    }

    #[test]
    fn the_process_uses_some_memory() {
        assert!(used_bytes().unwrap() > 64 * 1_024);
    }
}
