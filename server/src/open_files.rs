//! The limit on open files: raised to what the system allows, and how it is shared among the doors, so that clients can
//! never take the descriptors that the store needs.

use godwit_broker::TOLD;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Below this many a warning is given at start.
const WANTED: u64 = 10_000;
/// What the store, the index, the listeners and the process itself need, and the few that are turned away with a word.
const RESERVED: u64 = 512;
const _: () = assert!(TOLD as u64 * 4 <= RESERVED, "most of it is the store's");
/// Most HTTP connections, however many files may be open: each costs far more than one of MQTT.
const HTTP_MOST: u64 = 16 * 1024;
/// Descriptors that the system's table has room for from the start, at most (8 bytes each). A table that grows makes every thread
/// that opens one wait, 5 to 20 ms at each doubling, in the middle of the storm that made it grow; see
/// docs/decisions/0013-what-an-attack-costs-others.md.
const TABLE: u64 = 256 * 1024;
/// Fewest of each kind.
const LEAST: u64 = 64;

/// Connections that fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connections {
    /// MQTT, over any transport.
    pub(crate) mqtt: u32,
    /// HTTP and HTTPS together.
    pub(crate) http: usize,
}

impl Connections {
    fn of(limit: u64) -> Self {
        let http = (limit / 8).clamp(LEAST, HTTP_MOST);
        let mqtt = limit.saturating_sub(http + RESERVED).max(LEAST);
        Self {
            mqtt: u32::try_from(mqtt).unwrap_or(u32::MAX),
            // At most HTTP_MOST, which fits.
            http: http as usize,
        }
    }
}

/// Raises the soft limit to the hard one and says how many connections fit.
pub(crate) fn raise() -> Connections {
    let found = getrlimit(Resource::Nofile);
    if found.current != found.maximum {
        let wanted = Rlimit {
            current: found.maximum,
            maximum: found.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, wanted) {
            tracing::warn!(%error, "the limit on open files could not be raised");
        }
    }
    // `None` is "no limit".
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    make_room(limit);
    let connections = Connections::of(limit);
    if limit < WANTED {
        tracing::warn!(
            limit,
            mqtt = connections.mqtt,
            http = connections.http,
            "the limit on open files is low: raise it (ulimit -n, LimitNOFILE=) to hold more connections"
        );
    }
    connections
}

/// Has the system's table of this process grown before anybody waits for it: by a descriptor at its far end, given back at once.
fn make_room(limit: u64) {
    // Below TABLE, which fits.
    let last = limit.min(TABLE).saturating_sub(1) as i32;
    if let Err(error) = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), last) {
        tracing::debug!(%error, "the table of descriptors will grow as they are needed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_doors_together_leave_the_store_its_files() {
        for limit in [1_024, 4_096, 20_000, 1_048_576, u64::MAX] {
            let share = Connections::of(limit);
            let taken = u64::from(share.mqtt) + share.http as u64;
            assert!(taken + RESERVED <= limit, "{limit}: {share:?}");
        }
        assert_eq!(
            Connections::of(20_000),
            Connections {
                mqtt: 16_988,
                http: 2_500
            }
        );
        assert!(Connections::of(100).mqtt > 0);
    }
}
