//! Bodies that nobody read. A request refused by its head (no credential, too often, a bad id) is answered before its body has
//! come; were the body dropped, the server would close the connection under a client that means to use it again, and
//! the answer could be lost with it. So what is left of it is read and thrown away, within bounds.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::Semaphore;

use crate::BODY_BYTES;

/// Bodies thrown away at a time, one task each; more are dropped, and their connections closed.
pub(crate) const AT_A_TIME: usize = 256;
/// How long the rest of one may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A body whose rest is read when it is dropped.
pub(crate) struct Drained {
    body: Option<Body>,
    turns: Arc<Semaphore>,
}

impl Drained {
    /// Watches a request's body, unless there is none.
    pub(crate) fn watch(body: Body, turns: &Arc<Semaphore>) -> Body {
        if body.is_end_stream() {
            return body;
        }
        Body::new(Self {
            body: Some(body),
            turns: turns.clone(),
        })
    }
}

impl HttpBody for Drained {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else {
            return;
        };
        // What says that it is longer than any request is not waited for.
        if body.size_hint().lower() > BODY_BYTES as u64 {
            return;
        }
        let (Ok(turn), Ok(runtime)) = (
            self.turns.clone().try_acquire_owned(),
            tokio::runtime::Handle::try_current(),
        ) else {
            return;
        };
        runtime.spawn(async move {
            let _ = tokio::time::timeout(PATIENCE, throw_away(body)).await;
            drop(turn);
        });
    }
}

async fn throw_away(mut rest: Body) {
    let mut read = 0;
    while read <= BODY_BYTES {
        match std::future::poll_fn(|cx| Pin::new(&mut rest).poll_frame(cx)).await {
            Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
            _ => return,
        }
    }
}
