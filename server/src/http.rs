//! HTTP connections: accepting, TLS, deadlines of the header, limits, the graceful end. What is answered is the
//! routers' affair.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::ConnectInfo;
use godwit_broker::{Announced, PROXY_V2_BYTES, Proxies, TlsSettings, announced};
use godwit_history_api::Shares;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::paced::{Pace, Paced};
use crate::shutdown::Shutdown;

/// How long the header of a request may take, and a connection may be silent between requests. The first has less:
/// [`Greeting::time`].
const HEADER_TIME: Duration = Duration::from_secs(30);
/// Bytes of a header at most.
const HEADER_BYTES: usize = 32 * 1024;
/// Pause after an accept failed (as a rule: too many open files), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections that were closed before their first request, by why, and those whose client did not take an answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refused(Family<[(&'static str, &'static str); 1], Counter>, Counter);

impl Refused {
    fn count(&self, reason: &'static str) {
        self.0.get_or_create(&[("reason", reason)]).inc();
    }

    /// Names it in a registry.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Connections to HTTP closed before their first request";
        registry.register("godwit_http_refused", help, self.0.clone());
        let help = "Connections to HTTP closed since their client took too little of an answer";
        registry.register("godwit_http_stalled", help, self.1.clone());
    }
}

/// How a new connection begins.
#[derive(Clone, Debug)]
pub(crate) struct Greeting {
    /// Until its first request is there, what a balancer announces and the handshake of TLS included.
    pub(crate) time: Duration,
    /// The balancers that announce clients, where there are any.
    pub(crate) proxies: Option<Proxies>,
    /// How many connections an address may have.
    pub(crate) shares: Shares,
    /// What a client must take of an answer.
    pub(crate) pace: Pace,
    pub(crate) refused: Refused,
}

/// One HTTP listener and what it answers with.
pub(crate) struct Door {
    pub(crate) name: &'static str,
    pub(crate) listener: TcpListener,
    pub(crate) tls: Option<Arc<TlsSettings>>,
    pub(crate) greeting: Greeting,
    pub(crate) app: axum::Router,
    /// Connections at a time; beyond it they wait in the system's queue.
    pub(crate) room: Arc<Semaphore>,
}

impl Door {
    /// Accepts until `shutdown` begins; then no more, and waits for the requests under way, at most `grace`.
    pub(crate) async fn serve(self, shutdown: Shutdown, grace: Duration) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = shutdown.begun() => break,
                // Takes what ended out of the set.
                Some(_) = connections.join_next() => continue,
                accepted = accept(&self.listener, &self.room) => accepted,
            };
            match accepted {
                Ok((stream, peer, permit)) => {
                    let tls = self.tls.as_deref().map(TlsSettings::current);
                    let (greeting, app) = (self.greeting.clone(), self.app.clone());
                    let connection = connection(stream, peer, tls, greeting, app, shutdown.clone());
                    // Ends by itself: by its client, its deadlines, or the shutdown. Errors are the client's.
                    connections.spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(door = self.name, %error, "accepting failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        if tokio::time::timeout(grace, async { while connections.join_next().await.is_some() {} })
            .await
            .is_err()
        {
            tracing::warn!(door = self.name, "requests are cut off by the shutdown");
        }
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = room.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer, permit))
}

async fn connection(
    mut stream: TcpStream,
    mut peer: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    greeting: Greeting,
    app: axum::Router,
    shutdown: Shutdown,
) {
    let refused = &greeting.refused;
    let until = Instant::now() + greeting.time;
    if let Some(proxies) = &greeting.proxies {
        if !proxies.contain(peer.ip()) {
            return refused.count("proxy_from");
        }
        match timeout_at(until, client_of(&mut stream)).await {
            Ok(Ok(client)) => peer = client.unwrap_or(peer),
            Ok(Err(_)) => return refused.count("proxy_header"),
            Err(_) => return refused.count("late"),
        }
    }
    let Some(_share) = greeting.shares.take(peer.ip(), 1) else {
        return refused.count("address_connections");
    };
    let stream = Paced::new(stream, greeting.pace);
    let Some(tls) = tls else {
        return requests(stream, peer, until, refused, app, shutdown).await;
    };
    match timeout_at(until, TlsAcceptor::from(tls).accept(stream)).await {
        Ok(Ok(stream)) => requests(stream, peer, until, refused, app, shutdown).await,
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "TLS handshake failed");
            refused.count("tls");
        }
        Err(_) => refused.count("late"),
    }
}

/// Reads a header of the PROXY protocol, and nothing behind it.
///
/// # Errors
/// There is none, it cannot be taken, or the connection ends.
async fn client_of(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let (mut header, mut len) = ([0; PROXY_V2_BYTES], 0);
    loop {
        match announced(header.get(..len).unwrap_or_default()) {
            Announced::Client(client, _) => return Ok(client),
            Announced::Bad => return Err(io::ErrorKind::InvalidData.into()),
            Announced::Incomplete => {}
        }
        // By byte, since only the balancer's word says where its end is; a header of `PROXY_V2_BYTES` is whole, or bad.
        let Some(next) = header.get_mut(len..=len) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        stream.read_exact(next).await?;
        len += 1;
    }
}

async fn requests<S>(
    stream: S,
    peer: SocketAddr,
    until: Instant,
    refused: &Refused,
    app: axum::Router,
    shutdown: Shutdown,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let asked = Arc::new(AtomicBool::new(false));
    let has_asked = asked.clone();
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(ConnectInfo(peer));
        let app = app.clone();
        async move { Ok::<_, Infallible>(app.oneshot(request).await.unwrap_or_else(|never| match never {})) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let late = async {
        tokio::time::sleep_until(until).await;
        if has_asked.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = late => return refused.count("late"),
        () = shutdown.begun() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        if is_stalled(&error) {
            refused.1.inc();
        }
        tracing::debug!(%peer, %error, "an HTTP connection ended early");
    }
}

/// Whether a connection ended by [`Paced`].
fn is_stalled(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests;
