//! A connection whose client came to another node, at its user's home: a transport like any other, whose bytes are those of the
//! client without TLS and WebSocket. Also how workers hear that a pipe is ready. The other end is in `relay`.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use godwit_cluster::{Cx, Pipe, RoleId, Router};
use godwit_store::coordination::StartId;
use godwit_wire::ids::{Key, UserId};
use godwit_wire::proto::peer::{Certificate, Splice};
use prometheus_client::metrics::gauge::Gauge;
use prost::Message as _;
use uuid::Uuid;

use super::conn::{Arrival, Stage};
use super::tls::Certified;
use super::transport::Transport;
use super::{Net, Place};
use crate::wire_trait::ConnId;

/// Version of what is told of a connection.
const VERSION: u32 = 1;
/// A connection that is there as long as this is.
pub(super) struct Counted(Gauge);

impl Counted {
    pub(super) fn of(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What the client's node found out before it knew the home.
pub(super) struct Told {
    pub(super) user: UserId,
    pub(super) nobody: bool,
    pub(super) client_id: Option<Box<str>>,
}

/// The transport.
pub(crate) struct Spliced {
    pub(super) pipe: Box<dyn Pipe>,
    /// The node where the client came.
    pub(super) from: StartId,
    pub(super) certified: Option<Certified>,
    /// Until its CONNECT has come.
    pub(super) told: Option<Told>,
    _counted: Counted,
}

impl Read for Spliced {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.pipe.read(into)?;
        self.pipe.taken(read);
        Ok(read)
    }
}

impl Write for Spliced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pipe.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection on its way to its user's worker.
struct NewSpliced {
    pipe: Box<dyn Pipe>,
    from: StartId,
    certified: Option<Certified>,
    told: Told,
}

/// Some pipes of a worker are ready.
struct PipesReady;

/// Takes a connection that the node `from` passes on, `about` as that node told it. One that cannot be taken is closed.
pub fn spliced(router: &Router, from: StartId, about: &[u8], pipe: Box<dyn Pipe>) {
    let Some((told, certified)) = read_about(about) else {
        tracing::warn!("a connection of another node came with something that this one does not know");
        return;
    };
    let worker = router.worker_of(&Key::User(told.user));
    let new = NewSpliced {
        pipe,
        from,
        certified,
        told,
    };
    router.hand_over(worker, RoleId::Broker, Box::new(new));
}

/// What the home is told of a connection that comes to it.
pub(super) fn about(arrival: &Arrival, certified: Option<Certified>) -> Bytes {
    let assigned = arrival.connect.client_id_assigned;
    let certificate = certified.map(|certified| Certificate {
        name: certified.name.into(),
        id: Bytes::copy_from_slice(certified.certificate.as_bytes()),
        expires_at: certified.expires_at,
    });
    let about = Splice {
        version: VERSION,
        user: arrival.user.to_bytes(),
        nobody: arrival.nobody,
        client_id: if assigned {
            arrival.connect.client_id.to_string()
        } else {
            String::new()
        },
        certificate,
    };
    about.encode_to_vec().into()
}

fn read_about(about: &[u8]) -> Option<(Told, Option<Certified>)> {
    let about = Splice::decode(about).ok()?;
    if about.version != VERSION {
        return None;
    }
    let told = Told {
        user: UserId::from_slice(&about.user)?,
        nobody: about.nobody,
        client_id: (!about.client_id.is_empty()).then(|| about.client_id.into()),
    };
    let certified = match about.certificate {
        None => None,
        Some(certificate) => Some(Certified {
            name: certificate.name.into(),
            certificate: Uuid::from_slice(&certificate.id).ok()?,
            expires_at: certificate.expires_at,
        }),
    };
    Some((told, certified))
}

/// Which pipes of a worker are ready; it is handed one word of it, however many they are.
pub(super) struct Ready {
    told: Mutex<Vec<Arc<Signal>>>,
    router: Router,
    worker: u16,
}

/// A connection's own.
struct Signal {
    id: ConnId,
    /// It stands in the list.
    is_told: AtomicBool,
    ready: Arc<Ready>,
}

impl Signal {
    fn tell(self: &Arc<Self>) {
        if self.is_told.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut told = self.ready.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.push(self.clone());
        let is_first = told.len() == 1;
        drop(told);
        if is_first {
            let Ready { router, worker, .. } = &*self.ready;
            router.hand_over(*worker, RoleId::Broker, Box::new(PipesReady));
        }
    }
}

impl Net {
    /// What a pipe of this connection calls when it is ready.
    pub(super) fn signal(&mut self, cx: &Cx<'_>, id: ConnId) -> Arc<dyn Fn() + Send + Sync> {
        let ready = self.pipes_ready.get_or_insert_with(|| {
            Arc::new(Ready {
                told: Mutex::default(),
                router: cx.router().clone(),
                worker: cx.worker(),
            })
        });
        let signal = Arc::new(Signal {
            id,
            is_told: AtomicBool::new(false),
            ready: ready.clone(),
        });
        Arc::new(move || signal.tell())
    }

    /// A pipe that came to this worker tells it.
    pub(super) fn watch_pipe(&mut self, cx: &Cx<'_>, id: ConnId) {
        if !self
            .peek(id)
            .is_some_and(|conn| matches!(conn.transport, Transport::Spliced(_)))
        {
            return;
        }
        let signal = self.signal(cx, id);
        if let Some(conn) = self.get(id)
            && let Transport::Spliced(stream) = &mut conn.transport
        {
            stream.pipe.on_ready(signal);
        }
    }

    /// Takes what is for pipes; gives back what is not.
    pub(super) fn handed_pipe(
        &mut self,
        cx: &mut Cx<'_>,
        item: Box<dyn std::any::Any + Send>,
    ) -> Option<Box<dyn std::any::Any + Send>> {
        let item = match item.downcast::<NewSpliced>() {
            Ok(new) => {
                self.came_by_pipe(cx, *new);
                return None;
            }
            Err(item) => item,
        };
        if !item.is::<PipesReady>() {
            return Some(item);
        }
        let told = match &self.pipes_ready {
            Some(ready) => std::mem::take(&mut *ready.told.lock().unwrap_or_else(PoisonError::into_inner)),
            None => Vec::new(),
        };
        for signal in told {
            // Before it is looked at: what comes meanwhile is told again.
            signal.is_told.store(false, Ordering::Release);
            self.pipe_is_ready(signal.id);
        }
        None
    }

    fn came_by_pipe(&mut self, cx: &mut Cx<'_>, new: NewSpliced) {
        let NewSpliced {
            pipe,
            from,
            certified,
            told,
        } = new;
        let spliced = Spliced {
            pipe,
            from,
            certified,
            told: Some(told),
            _counted: Counted::of(&self.metrics.spliced_home),
        };
        // Its address was counted where it came.
        self.greet(
            cx,
            Transport::Spliced(Box::new(spliced)),
            Vec::new(),
            Place::default(),
        );
    }

    /// The end of this turn reads it, and writes what it has.
    fn pipe_is_ready(&mut self, id: ConnId) {
        let Some(conn) = self.get(id) else { return };
        match conn.stage {
            Stage::Closing => return self.discard(id),
            Stage::Relay => {
                if let Some(relay) = conn.relay() {
                    relay.unread = true;
                }
            }
            _ => {
                conn.unread = true;
                if !std::mem::replace(&mut conn.dirty, true) {
                    self.dirty.push(id);
                }
            }
        }
        self.queue(id);
    }
}
