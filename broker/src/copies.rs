//! What this node keeps of other nodes' retained messages for clients that have not taken it yet. On its own node such a message
//! is shared with its topic's home and costs nothing more; over a link each answer is a copy of its own, as large as the
//! filter of a SUBSCRIBE makes it. Each connection has its bound; this is that of all of them together (decision 0014).

use std::sync::Arc;

use godwit_wire::command::Publish;
use prometheus_client::metrics::gauge::Gauge;

use crate::topics::weight;

/// Most bytes of a node that such copies may take; a filter whose retained messages would be beyond it is refused (quota).
pub(crate) const COPIES_BYTES: usize = 256 * 1024 * 1024;
/// And of one user, over all its sessions: as much as one of its connections may have wait.
pub(crate) const COPIES_OF_USER: usize = COPIES_BYTES / 4;

/// The bytes of a node that are held so; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Copies(Gauge);

/// A part of them, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    of: Copies,
    bytes: usize,
}

/// There is no room for so much more.
#[derive(Debug)]
pub(crate) struct Full;

/// What of these nobody else has, bytes: in a message that its topic's home has too, nothing.
pub(crate) fn copied(found: &[Arc<Publish>]) -> usize {
    let alone = found.iter().filter(|publish| Arc::strong_count(publish) == 1);
    alone.map(|publish| weight(publish)).sum()
}

impl Copies {
    /// Takes room for so many bytes.
    pub(crate) fn hold(&self, bytes: usize) -> Result<Held, Full> {
        let before = self.0.inc_by(in_gauge(bytes));
        let held = Held {
            of: self.clone(),
            bytes,
        };
        // Workers that come at once may both be refused, never both be let in.
        match bytes == 0 || before.saturating_add(in_gauge(bytes)) <= in_gauge(COPIES_BYTES) {
            true => Ok(held),
            false => Err(Full),
        }
    }

    /// For the registry.
    pub(crate) fn gauge(&self) -> Gauge {
        self.0.clone()
    }
}

impl Held {
    /// How many bytes it is.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A part of it, at most all of it, that is given back by itself.
    pub(crate) fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self {
            of: self.of.clone(),
            bytes,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.0.dec_by(in_gauge(self.bytes));
    }
}

fn in_gauge(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
