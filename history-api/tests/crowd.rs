//! More requests at a time than the node serves, and more that waits for clients than it keeps.

#![allow(clippy::unwrap_used)]

mod api;

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use api::Site;
use axum::body::{Body, HttpBody as _};
use axum::extract::ConnectInfo;
use axum::http::{Request, header};
use bytes::Bytes;
use godwit_history_api::{REQUESTS, WAITING_BYTES};
use hyper::body::{Frame, SizeHint};
use tower::ServiceExt as _;

/// A short body that never comes.
struct Never;

impl hyper::body::Body for Never {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(100)
    }
}

/// What the door says of a client: the address of one of very many.
fn from(client: usize) -> ConnectInfo<SocketAddr> {
    let address = Ipv4Addr::from_bits(u32::try_from(client).unwrap() + (10 << 24));
    ConnectInfo((address, 4_000).into())
}

#[test]
fn one_request_under_way_too_many_is_told_to_come_later_and_is_served_then() {
    let site = Site::open();
    let alice = site.someone("alice");
    let look = || site.get("/api/v1/users/me", &alice.token);
    look().expect(200);
    // Each waits for its body, and goes on when it is asked; here it never is again.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _timers = runtime.enter();
    let mut task = Context::from_waker(std::task::Waker::noop());
    let mut hanging = Vec::new();
    for _ in 0..REQUESTS {
        let request = Request::post("/api/v1/users")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::new(Never))
            .unwrap();
        let mut one = Box::pin(site.http.clone().oneshot(request));
        assert!(one.as_mut().poll(&mut task).is_pending());
        hanging.push(one);
    }
    assert_eq!(look().problem(503), "unavailable");
    site.get("/healthz", "").expect(200);
    site.get("/readyz", "").expect(200);
    hanging.pop();
    look().expect(200);
    drop(hanging);
    look().expect(200);
}

#[test]
fn answers_that_nobody_takes_have_a_bound_and_other_addresses_are_served() {
    let site = Site::open();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let ask = |client: usize| {
        let request = Request::get("/api/v1/openapi.json").extension(from(client));
        let asked = site.http.clone().oneshot(request.body(Body::empty()).unwrap());
        runtime.block_on(asked).unwrap()
    };
    let length = |answer: &axum::response::Response| answer.body().size_hint().exact().unwrap();
    let one = length(&ask(0));
    let (mut waiting, mut last) = (Vec::new(), ask(0));
    while last.status() == 200 {
        waiting.push(last);
        last = ask(0);
        let kept = waiting.len() as u64 * one;
        assert!(kept <= WAITING_BYTES as u64, "{kept} bytes wait for one address");
    }
    assert_eq!(last.status(), 503);
    assert!(last.headers().contains_key(header::RETRY_AFTER));
    let kept = waiting.len() as u64 * one;
    assert!(kept > WAITING_BYTES as u64 / 4 - one, "refused at {kept} bytes");
    assert_eq!(ask(1).status(), 200, "another address is served");
    waiting.pop();
    assert_eq!(ask(0).status(), 200);
}
