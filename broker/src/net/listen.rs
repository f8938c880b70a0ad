//! Accepting: listeners that all workers share, connections made elsewhere, who is let in to be heard, and the pause when
//! descriptors are used up.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use godwit_cluster::Cx;

use super::addresses::{Place, Refused};
use super::conn::Conn;
use super::proxy::{Announcing, Proxies};
use super::tls::{self, TlsSettings};
use super::transport::{TlsStream, Transport};
use super::websocket::{Stream, WebSocketStream};
use super::{GREETING_BYTES, LISTENER_TOKENS, Net, TICKS, TIMER_ACCEPT};
use crate::part::Part;

/// Accepts a turn and listener, some 15 µs each.
const ACCEPTS: usize = 32;
/// Pause of accepting when descriptors are used up: long enough to cost nothing, short beside a client's patience.
const ACCEPT_PAUSE_MS: u64 = 100;

/// A listening socket, handed to every worker.
pub struct Listener {
    /// Where clients come to.
    pub socket: std::net::TcpListener,
    /// With TLS.
    pub tls: Option<Arc<TlsSettings>>,
    /// Every connection comes from one of these balancers and begins with a header of the PROXY protocol.
    pub proxies: Option<Proxies>,
}

/// Handed to a worker: the listeners are closed, the connections stay.
pub struct StopListening;

/// What a new connection runs over.
pub enum NewTransport {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// TLS, with the session's state so far.
    Tls(std::net::TcpStream, Box<rustls::ServerConnection>),
    /// A WebSocket after its upgrade, over TCP or TLS.
    WebSocket(std::net::TcpStream, Option<Box<rustls::ServerConnection>>),
}

/// A connection made elsewhere (an upgraded WebSocket), handed to any worker.
pub struct NewConnection {
    /// What it runs over.
    pub transport: NewTransport,
    /// The other side.
    pub peer: SocketAddr,
    /// Bytes of it that were read already, after decryption.
    pub already_read: Vec<u8>,
}

/// A listener of this worker.
pub(super) struct Open {
    socket: mio::net::TcpListener,
    tls: Option<Arc<TlsSettings>>,
    proxies: Option<Proxies>,
}

impl Net {
    /// Takes a listener: clients are accepted from now on.
    pub(super) fn listen(&mut self, cx: &mut Cx<'_>, listener: Listener) {
        if self.stopping {
            return;
        }
        if let Err(error) = listener.socket.set_nonblocking(true) {
            tracing::error!(%error, "a listener cannot be used");
            return;
        }
        let mut socket = mio::net::TcpListener::from_std(listener.socket);
        let token = mio::Token(LISTENER_TOKENS + self.listeners.len());
        if let Err(error) = cx
            .registry()
            .register(&mut socket, token, mio::Interest::READABLE)
        {
            tracing::error!(%error, "a listener cannot be watched");
            return;
        }
        self.listeners.push(Open {
            socket,
            tls: listener.tls,
            proxies: listener.proxies,
        });
        // Clients may wait there since before it was watched.
        self.accept(cx, self.listeners.len() - 1);
    }

    /// Accepts what waits at a listener.
    pub(super) fn accept(&mut self, cx: &mut Cx<'_>, listener: usize) {
        if self.accept_paused {
            return;
        }
        for _ in 0..ACCEPTS {
            let Some(open) = self.listeners.get(listener) else {
                return;
            };
            let (stream, peer) = match open.socket.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The client is gone already.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                    ) =>
                {
                    continue;
                }
                Err(error) => {
                    // Descriptors or memory are used up: a pause, not a spin.
                    self.metrics.accept_failures.inc();
                    tracing::warn!(%error, "accepting a connection failed");
                    self.pause_accepting(cx, ACCEPT_PAUSE_MS);
                    return;
                }
            };
            self.metrics.accepted.inc();
            self.accepted(cx, listener, stream, peer);
        }
        // More may wait, and its readiness is not told twice: the others' turn first.
        self.accept_paused = true;
        self.later.accepts = true;
    }

    /// A connection came from `peer`.
    fn accepted(&mut self, cx: &mut Cx<'_>, listener: usize, socket: mio::net::TcpStream, peer: SocketAddr) {
        let Some(open) = self.listeners.get(listener) else {
            return;
        };
        if let Some(proxies) = &open.proxies {
            if !proxies.contain(peer.ip()) {
                tracing::debug!(%peer, "a connection past the balancer was not let in");
                self.metrics.count_refused("proxy_from");
                return;
            }
            let tls = open.tls.clone();
            let transport = Transport::Announcing(Box::new(Announcing { socket, tls }));
            // Counted when the client is known.
            self.greet(cx, transport, Vec::new(), Place::default());
            return;
        }
        let place = match self.admit(cx, peer.ip()) {
            Ok(place) => place,
            Err(refused) => {
                self.metrics.count_refused(refused.name());
                return;
            }
        };
        match tls::session(open.tls.as_deref()) {
            Ok(session) => self.greet(cx, tls::transport(socket, session), Vec::new(), place),
            Err(error) => {
                tracing::warn!(%error, "a TLS session could not be begun");
                self.config.addresses.left(place);
            }
        }
    }

    /// A connection that was made elsewhere.
    pub(super) fn welcome(&mut self, cx: &mut Cx<'_>, new: NewConnection) {
        if new.already_read.len() > GREETING_BYTES {
            // Nobody sends that much before the upgrade is answered.
            self.metrics.count_refused("too_large");
            return;
        }
        let socket = |stream: std::net::TcpStream| {
            stream
                .set_nonblocking(true)
                .and_then(|()| stream.set_nodelay(true))
                .map(|()| mio::net::TcpStream::from_std(stream))
        };
        let (ahead, input) = match new.transport {
            NewTransport::WebSocket(..) => (new.already_read, Vec::new()),
            _ => (Vec::new(), new.already_read),
        };
        let made = match new.transport {
            NewTransport::Tcp(stream) => socket(stream).map(Transport::Tcp),
            NewTransport::Tls(stream, tls) => {
                socket(stream).map(|socket| Transport::Tls(Box::new(TlsStream::new(socket, tls))))
            }
            NewTransport::WebSocket(stream, tls) => socket(stream).map(|socket| {
                let stream = match tls {
                    Some(tls) => Stream::Tls(TlsStream::new(socket, tls)),
                    None => Stream::Tcp(socket),
                };
                Transport::WebSocket(Box::new(WebSocketStream::new(stream, ahead)))
            }),
        };
        match made {
            Ok(transport) => {
                self.metrics.accepted.inc();
                // Its upgrade was answered already: it is told in its CONNACK.
                let admitted = self.admit(cx, new.peer.ip());
                let place = admitted.or_else(|refused| {
                    let told = self.config.addresses.to_be_told(refused);
                    told.ok_or_else(|| self.metrics.count_refused(refused.name()))
                });
                if let Ok(place) = place {
                    self.greet(cx, transport, input, place);
                }
            }
            Err(error) => tracing::debug!(%error, "a new connection is gone already"),
        }
    }

    /// A new connection: its CONNECT is awaited.
    pub(super) fn greet(&mut self, cx: &mut Cx<'_>, mut transport: Transport, input: Vec<u8>, place: Place) {
        if self.stopping {
            return;
        }
        let Some(place) = self.place_of_node(place) else {
            // Dropped, so that it learns at once; the descriptors left are the store's.
            let full = self.config.memory_full.load(Ordering::Relaxed);
            let refused = if full { Refused::Memory } else { Refused::Full };
            self.metrics.count_refused(refused.name());
            return;
        };
        // Without it small packets wait for each other; a socket that refuses it is gone and will say so.
        if let Some(socket) = transport.socket() {
            let _ = socket.set_nodelay(true);
        }
        let until = self.now + self.config.connect_seconds * TICKS + 1;
        let conn = Box::new(Conn::new(transport, input, self.now, until));
        if let Some(id) = self.add(cx, conn, place) {
            self.look_at(id, until);
            self.queue(id);
        }
    }

    /// Where a new connection is counted: as its address says while the node has room, then among those that are told
    /// where else to go, where that is known. `None`: nowhere, it is closed.
    fn place_of_node(&self, place: Place) -> Option<Place> {
        let addresses = &self.config.addresses;
        let most = i64::from(self.config.max_connections);
        // Before and after: whatever other workers do in between, no less room is seen used than is.
        let told = addresses.told_open();
        let open = self.metrics.connections.get();
        let open = open - i64::from(told.min(addresses.told_open()));
        if self.config.memory_full.load(Ordering::Relaxed) && place.refused().is_none() {
            addresses.left(place);
            return addresses.to_be_told(Refused::Memory);
        }
        if most == 0 || open < most || place.refused().is_some() {
            return Some(place);
        }
        addresses.left(place);
        self.config.server_reference.as_ref()?;
        addresses.to_be_told(Refused::Full)
    }

    fn pause_accepting(&mut self, cx: &mut Cx<'_>, ms: u64) {
        // While the lease is over that is seen to elsewhere.
        if !std::mem::replace(&mut self.accept_paused, true) && !self.lapse.is_over {
            cx.after(ms, Part::Net.tag(TIMER_ACCEPT));
        }
    }

    /// The pause is over.
    pub(super) fn accept_again(&mut self, cx: &mut Cx<'_>) {
        self.accept_paused = false;
        // Each is the first in its turn: one at which very many wait would keep the others waiting for ever.
        let first = self.first_listener;
        self.first_listener = (first + 1) % self.listeners.len().max(1);
        for listener in (first..self.listeners.len()).chain(0..first) {
            self.accept(cx, listener);
        }
    }
}
