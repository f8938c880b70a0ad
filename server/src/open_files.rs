//! The limit on open files: raised to what the system allows, and what of it is left for connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Below this many a warning is given at start.
const WANTED: u64 = 10_000;
/// What the store, the index, listeners, HTTP connections and the process itself need.
const RESERVED: u64 = 1_024;

/// Raises the soft limit to the hard one and says how many MQTT connections fit.
pub(crate) fn raise() -> u64 {
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
    let connections = limit.saturating_sub(RESERVED).max(limit / 2);
    if limit < WANTED {
        tracing::warn!(
            limit,
            connections,
            "the limit on open files is low: raise it (ulimit -n, LimitNOFILE=) to hold more connections"
        );
    } else {
        tracing::debug!(limit, connections, "open files");
    }
    connections
}
