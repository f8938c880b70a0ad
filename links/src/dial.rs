//! Calls the nodes with larger start ids, again and again while they are known. What a link then carries is elsewhere.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use futures::StreamExt as _;
use hyper::client::conn::http2;
use hyper::http::uri::{PathAndQuery, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::error::LinkError;
use crate::link::Link;
use crate::session;
use crate::stream::{Codec, Gate, MESSAGE_BYTES, PATH, Pair};
use crate::{Inner, http};

/// The first pause between two calls, and the longest; jitter makes them up to twice as long.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

/// Calls until the node is no longer known.
pub(crate) async fn keep(inner: Arc<Inner>, link: Arc<Link>) {
    let ended = link.ended.clone();
    tokio::select! {
        () = ended.cancelled() => {}
        () = inner.stop.cancelled() => {}
        () = again(&inner, &link) => {}
    }
}

async fn again(inner: &Arc<Inner>, link: &Arc<Link>) {
    let mut pauses = pauses();
    let mut said = String::new();
    loop {
        // A task of its own: a panic ends this call only.
        let mut call = JoinSet::new();
        call.spawn(attempt(inner.clone(), link.clone()));
        let (was_up, error) = match call.join_next().await {
            Some(Ok(ended)) => ended,
            Some(Err(error)) => (true, error.to_string()),
            None => (false, String::new()),
        };
        let (node, addr) = (link.node, &link.addr);
        if was_up {
            tracing::warn!(%node, addr, error, "a link to another node broke");
            pauses = self::pauses();
            said.clear();
        } else if said != error {
            tracing::warn!(%node, addr, error, "no link to another node: trying again");
            said = error;
        }
        tokio::time::sleep(pauses.next().unwrap_or(PAUSES[1])).await;
    }
}

fn pauses() -> ExponentialBackoff {
    let [least, most] = PAUSES;
    let builder = ExponentialBuilder::default()
        .with_min_delay(least)
        .with_max_delay(most);
    builder.with_jitter().without_max_times().build()
}

/// Whether there was a link, and why there is none now.
async fn attempt(inner: Arc<Inner>, link: Arc<Link>) -> (bool, String) {
    let mut was_up = false;
    let error = match connect(&inner, &link, &mut was_up).await {
        Ok(error) | Err(error) => error,
    };
    (was_up, error.to_string())
}

async fn connect(inner: &Inner, link: &Arc<Link>, was_up: &mut bool) -> Result<LinkError, LinkError> {
    let tcp = timeout(http::GREETING, TcpStream::connect(&link.addr)).await;
    let tcp = tcp.map_err(|_| LinkError::Late)??;
    tcp.set_nodelay(true)?;
    match &inner.secured {
        None => call(inner, link, tcp, was_up).await,
        Some(secured) => {
            let stream = timeout(http::GREETING, secured.connect(&link.addr, tcp)).await;
            call(inner, link, stream.map_err(|_| LinkError::Late)??, was_up).await
        }
    }
}

async fn call<I>(inner: &Inner, link: &Arc<Link>, io: I, was_up: &mut bool) -> Result<LinkError, LinkError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(http::PING)
        .keep_alive_timeout(http::PONG)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(http::WINDOW)
        .initial_connection_window_size(http::WINDOW)
        .max_send_buf_size(http::SEND_BUFFER);
    let made = timeout(http::GREETING, builder.handshake(TokioIo::new(io))).await;
    let (mut sender, connection) = made.map_err(|_| LinkError::Late)??;
    // Ends with this call.
    let mut driver = JoinSet::new();
    driver.spawn(connection);

    let (mut pair, outbound) = Pair::new();
    let service = tower::service_fn(move |request| {
        let asked = sender.send_request(request);
        async move { asked.await.map(|response| response.map(Gate::of_called)) }
    });
    let origin = Uri::from_static("http://godwit");
    let mut grpc = tonic::client::Grpc::with_origin(service, origin)
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    let outbound = outbound.filter_map(|message| std::future::ready(message.ok()));
    let greeting = async {
        let path = PathAndQuery::from_static(PATH);
        let response = grpc.streaming(tonic::Request::new(outbound), path, Codec).await?;
        pair.reads(response.into_inner());
        inner.me.call(link.node, &mut pair).await
    };
    let met = timeout(http::GREETING, greeting)
        .await
        .map_err(|_| LinkError::Late)??;
    let (open, opened) = link.open(met.credit)?;
    *was_up = true;
    pair.open(open).await?;
    tracing::info!(node = %link.node, name = met.node, addr = link.addr, "a link to another node is up");
    Ok(session::read(opened, pair).await)
}
