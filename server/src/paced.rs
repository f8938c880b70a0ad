//! A connection whose client must take what is written to it: one that asks for a large answer and does not read would hold
//! its place, and the answer, for ever. Reading has its deadlines elsewhere: of headers in `http`, of bodies in REST.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// What a client must take while something waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    /// In each of these times…
    pub(crate) time: Duration,
    /// … so many bytes.
    pub(crate) bytes: usize,
}

/// A client that takes less than [`TAKEN_BYTES`] in this time, while there is more for it, is closed.
pub(crate) const TAKEN_TIME: Duration = Duration::from_secs(30);
/// 2 KiB a second: the slowest of mobile networks has it, and an answer that fits the socket's buffer is not measured.
pub(crate) const TAKEN_BYTES: usize = 64 << 10;

impl Default for Pace {
    fn default() -> Self {
        Self {
            time: TAKEN_TIME,
            bytes: TAKEN_BYTES,
        }
    }
}

/// A TCP stream that ends with [`io::ErrorKind::TimedOut`] when its client takes too little.
#[derive(Debug)]
pub(crate) struct Paced {
    stream: TcpStream,
    pace: Pace,
    /// There is something that the socket did not take: when so much must have gone.
    due: Option<Pin<Box<Sleep>>>,
    /// What went of it.
    taken: usize,
}

impl Paced {
    pub(crate) fn new(stream: TcpStream, pace: Pace) -> Self {
        Self {
            stream,
            pace,
            due: None,
            taken: 0,
        }
    }

    /// Without the deadline.
    pub(crate) fn into_inner(self) -> TcpStream {
        self.stream
    }

    fn write(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let written = write(Pin::new(&mut self.stream), cx);
        match &written {
            Poll::Ready(Ok(bytes)) => {
                self.taken += bytes;
                if self.taken >= self.pace.bytes {
                    self.due = None;
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                if self.due.is_none() {
                    self.taken = 0;
                }
                let due = self.due.get_or_insert_with(|| Box::pin(sleep(self.pace.time)));
                if due.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
        written
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Paced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |stream, cx| stream.poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Asked when everything was given to the socket: what comes next has a time of its own.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.due = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
