//! Accepting: listeners that all workers share, and the pause when descriptors are used up.

use std::io;

use godwit_cluster::Cx;

use super::transport::{TlsStream, Transport};
use super::{LISTENER_TOKENS, Listener, Net, TIMER_ACCEPT};
use crate::part::Part;

/// Accepts a turn and listener.
const ACCEPTS: usize = 256;
/// Pause of accepting when descriptors are used up: long enough to cost nothing, short beside a client's patience.
const ACCEPT_PAUSE_MS: u64 = 100;

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
        self.listeners.push((socket, listener.tls));
        // Clients may wait there since before it was watched.
        self.accept(cx, self.listeners.len() - 1);
    }

    /// Accepts what waits at a listener.
    pub(super) fn accept(&mut self, cx: &mut Cx<'_>, listener: usize) {
        if self.accept_paused {
            return;
        }
        for _ in 0..ACCEPTS {
            let Some((socket, tls)) = self.listeners.get(listener) else {
                return;
            };
            let stream = match socket.accept() {
                Ok((stream, _)) => stream,
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
            let transport = match tls.clone().map(rustls::ServerConnection::new).transpose() {
                Ok(Some(tls)) => Transport::Tls(Box::new(TlsStream::new(stream, Box::new(tls)))),
                Ok(None) => Transport::Tcp(stream),
                Err(error) => {
                    tracing::warn!(%error, "a TLS session could not be begun");
                    continue;
                }
            };
            self.metrics.accepted.inc();
            self.greet(cx, transport, Vec::new());
        }
        // More may wait, and its readiness is not told twice: the others' turn first.
        self.pause_accepting(cx, 0);
    }

    fn pause_accepting(&mut self, cx: &mut Cx<'_>, ms: u64) {
        if !std::mem::replace(&mut self.accept_paused, true) {
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
