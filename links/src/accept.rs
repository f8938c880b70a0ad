//! Takes calls of nodes with smaller start ids. What a link then carries is elsewhere.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::error::LinkError;
use crate::stream::{Codec, Gate, MESSAGE_BYTES, Outbound, PATH, Pair};
use crate::{Inner, http, session};

/// How long a refused caller has to read why.
const LAST_WORD: Duration = Duration::from_millis(500);
/// Between two attempts to accept when descriptors are short.
const SHORT: Duration = Duration::from_millis(100);

/// Accepts until the links stop.
pub(crate) async fn listen(inner: Arc<Inner>, listener: TcpListener) {
    let stop = inner.stop.clone();
    tokio::select! {
        () = stop.cancelled() => {}
        () = accept(&inner, &listener) => {}
    }
}

async fn accept(inner: &Arc<Inner>, listener: &TcpListener) {
    let strangers = Arc::new(Semaphore::new(http::STRANGERS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = strangers.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((tcp, from)) => {
                connections.spawn(connection(inner.clone(), tcp, from, permit));
            }
            Err(error) => {
                tracing::warn!(%error, "a call of another node cannot be accepted");
                sleep(SHORT).await;
            }
        }
    }
}

async fn connection(inner: Arc<Inner>, tcp: TcpStream, from: SocketAddr, permit: OwnedSemaphorePermit) {
    let by = Instant::now() + http::GREETING;
    // A delay more is no reason to refuse.
    let _ = tcp.set_nodelay(true);
    let Some(secured) = &inner.secured else {
        return serve(&inner, tcp, from, (permit, by), None).await;
    };
    match timeout_at(by, secured.accept(tcp)).await {
        Ok(Ok((stream, shown))) => serve(&inner, stream, from, (permit, by), shown).await,
        Ok(Err(error)) => inner.refused(from, None, &error),
        Err(_) => inner.refused(from, None, &LinkError::Late),
    }
}

/// One connection, and what its parts tell each other.
#[derive(Clone)]
struct Call {
    inner: Arc<Inner>,
    from: SocketAddr,
    /// The certificate that it showed.
    shown: Option<Arc<CertificateDer<'static>>>,
    /// A connection carries one call.
    is_used: Arc<AtomicBool>,
    /// Its bytes are no longer counted.
    is_open: Arc<AtomicBool>,
    /// It is no stranger's.
    known: CancellationToken,
    /// It has no more use.
    done: CancellationToken,
}

async fn serve<I>(
    inner: &Arc<Inner>,
    io: I,
    from: SocketAddr,
    (permit, by): (OwnedSemaphorePermit, Instant),
    shown: Option<CertificateDer<'static>>,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let call = Call {
        inner: inner.clone(),
        from,
        shown: shown.map(Arc::new),
        is_used: Arc::default(),
        is_open: Arc::default(),
        known: CancellationToken::new(),
        done: CancellationToken::new(),
    };
    let (known, done) = (call.known.clone(), call.done.clone());
    let service = service_fn(move |request| {
        let call = call.clone();
        async move { Ok::<_, Infallible>(call.answer(request).await) }
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(http::PING)
        .keep_alive_timeout(http::PONG)
        .initial_stream_window_size(http::WINDOW)
        .initial_connection_window_size(http::WINDOW)
        .max_concurrent_streams(1)
        .max_send_buf_size(http::SEND_BUFFER);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(io), service));
    let mut permit = Some(permit);
    loop {
        tokio::select! {
            // The stream's reader says why.
            _ = &mut connection => return,
            () = known.cancelled(), if permit.is_some() => permit = None,
            () = sleep_until(by), if permit.is_some() => {
                return inner.refused(from, None, &LinkError::Late);
            }
            () = done.cancelled() => break,
        }
    }
    connection.as_mut().graceful_shutdown();
    // What it does with the last word is its own.
    let _ = tokio::time::timeout(LAST_WORD, connection).await;
}

impl Call {
    async fn answer(self, request: hyper::Request<Incoming>) -> hyper::Response<tonic::body::Body> {
        if request.uri().path() != PATH || self.is_used.swap(true, Ordering::Relaxed) {
            return Status::unimplemented("one call of godwit.peer.v1.Links/Link").into_http();
        }
        let gate = request.map(|body| Gate::new(body, self.is_open.clone()));
        let mut grpc = tonic::server::Grpc::new(Codec)
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES);
        let mut ends = Some((Pair::new(), self));
        let service = tower::service_fn(move |request: tonic::Request<_>| {
            let response = ends.take().map(|((mut pair, outbound), call)| {
                pair.reads(request.into_inner());
                // Ends with its connection.
                tokio::spawn(call.run(pair));
                tonic::Response::new(outbound)
            });
            let response: Result<tonic::Response<Outbound>, Status> =
                response.ok_or_else(|| Status::internal("called twice"));
            std::future::ready(response)
        });
        grpc.streaming(service, gate).await
    }

    async fn run(self, mut pair: Pair) {
        let _done = self.done.clone().drop_guard();
        let (met, proof) = match self.inner.me.be_called(&mut pair).await {
            Ok(met) => met,
            Err(error) => {
                self.inner.refused(self.from, None, &error);
                return pair.refuse(&error).await;
            }
        };
        let known = self.inner.link(met.start).ok_or(LinkError::NotMember);
        let known = known.and_then(|link| {
            if let Some(secured) = &self.inner.secured {
                secured.is_at(self.shown.as_deref(), &link.addr)?;
            }
            Ok(link)
        });
        let (link, (open, opened)) = match known.and_then(|link| Ok((link.clone(), link.open(met.credit)?))) {
            Ok(both) => both,
            Err(error) => {
                self.inner.refused(self.from, Some(&met), &error);
                return pair.refuse(&error).await;
            }
        };
        self.is_open.store(true, Ordering::Relaxed);
        self.known.cancel();
        let (node, from) = (met.start, self.from);
        tracing::info!(%node, name = met.node, %from, "another node has made a link");
        let error = match async { pair.send(proof).await.and(pair.open(open).await) }.await {
            Ok(()) => session::read(opened, pair).await,
            Err(error) => error,
        };
        if !link.ended.is_cancelled() {
            tracing::warn!(%node, %from, error = %error, "the link of another node broke");
        }
    }
}
