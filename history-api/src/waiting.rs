//! Bytes that wait for a client: a body that comes slowly, an answer that is not taken. Each has its deadline elsewhere; here
//! is what all of them together may hold, and how an answer counts until the system has it.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use crate::BODY_BYTES;
use crate::shares::{Share, Shares};

/// Bytes of bodies and answers that wait at a time, in the node; one address has a quarter of it. Beyond it requests are
/// refused as `unavailable`.
pub const WAITING_BYTES: usize = 256 << 20;
/// What is no longer than this is not counted: connections bound it.
const SMALL: usize = 16 << 10;

/// The room for all of them.
pub(crate) fn room() -> Shares {
    // A body of any length allowed has room in one address's share.
    Shares::new(WAITING_BYTES, BODY_BYTES)
}

/// Room for a request's body until it is answered. `Err`: there is none.
pub(crate) fn body(room: &Shares, address: IpAddr, body: &Body) -> Result<Option<Share>, ()> {
    if body.is_end_stream() {
        return Ok(None);
    }
    // Where its length is not told it may be the longest; a longer one is refused before it is read.
    let bytes = body.size_hint().exact().map_or(BODY_BYTES, |exact| {
        usize::try_from(exact).unwrap_or(BODY_BYTES).min(BODY_BYTES)
    });
    take(room, address, bytes)
}

/// An answer that counts until it is written. `Err`: there is no room for it.
pub(crate) fn answer(room: &Shares, address: IpAddr, body: Body) -> Result<Body, ()> {
    // What has no length is made as it is taken.
    let Some(bytes) = body.size_hint().exact() else {
        return Ok(body);
    };
    let share = take(room, address, usize::try_from(bytes).unwrap_or(usize::MAX))?;
    Ok(match share {
        Some(share) => Body::new(Counted {
            body,
            share: Arc::new(share),
        }),
        None => body,
    })
}

fn take(room: &Shares, address: IpAddr, bytes: usize) -> Result<Option<Share>, ()> {
    if bytes <= SMALL {
        return Ok(None);
    }
    room.take(address, bytes).map(Some).ok_or(())
}

/// A body whose bytes hold their share wherever they wait: the server takes them out of it long before they are written.
struct Counted {
    body: Body,
    share: Arc<Share>,
}

struct Waiting {
    bytes: Bytes,
    _share: Arc<Share>,
}

impl AsRef<[u8]> for Waiting {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let counted = frame.map(|frame| {
            frame.map(|frame| {
                frame.map_data(|bytes| {
                    Bytes::from_owner(Waiting {
                        bytes,
                        _share: self.share.clone(),
                    })
                })
            })
        });
        Poll::Ready(counted)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const ALICE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const BOB: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

    /// A body that does not say how long it is.
    struct Endless;

    impl HttpBody for Endless {
        type Data = Bytes;
        type Error = axum::Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
            Poll::Pending
        }
    }

    fn first(body: &mut Body) -> Bytes {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let Poll::Ready(Some(Ok(frame))) = Pin::new(body).poll_frame(&mut cx) else {
            panic!("no frame");
        };
        frame.into_data().unwrap()
    }

    #[test]
    fn an_answer_counts_until_its_bytes_are_gone_and_others_have_their_room() {
        let room = Shares::new(1_000_000, 0);
        let long = || Body::from(vec![1; 200_000]);
        let mut waiting = answer(&room, ALICE, long()).unwrap();
        assert_eq!(waiting.size_hint().exact(), Some(200_000), "its length is told");
        assert!(answer(&room, ALICE, long()).is_err());
        drop(answer(&room, BOB, long()).unwrap());
        let bytes = first(&mut waiting);
        drop(waiting);
        assert!(
            answer(&room, ALICE, long()).is_err(),
            "the server still has its bytes"
        );
        drop(bytes);
        drop(answer(&room, ALICE, long()).unwrap());
        let small: Vec<_> = (0..1_000)
            .map(|_| answer(&room, ALICE, Body::from(vec![1; SMALL])))
            .collect();
        assert!(small.iter().all(Result::is_ok), "what is small is not counted");
    }

    #[test]
    fn a_body_counts_as_long_as_it_says_or_may_be() {
        let room = Shares::new(8 * BODY_BYTES, 0);
        let told = || Body::from(vec![1; BODY_BYTES]);
        let held = [(); 2].map(|()| body(&room, ALICE, &told()).unwrap());
        assert!(body(&room, ALICE, &told()).is_err());
        assert!(body(&room, ALICE, &Body::empty()).is_ok_and(|share| share.is_none()));
        drop(held);
        let unknown = || Body::new(Endless);
        let _held = [(); 2].map(|()| body(&room, ALICE, &unknown()).unwrap().unwrap());
        assert!(body(&room, ALICE, &unknown()).is_err());
        assert!(body(&room, BOB, &unknown()).is_ok());
    }
}
