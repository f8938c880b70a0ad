//! More requests at a time than the node serves.

#![allow(clippy::unwrap_used)]

mod api;

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use api::Site;
use axum::body::Body;
use axum::http::{Request, header};
use bytes::Bytes;
use godwit_history_api::REQUESTS;
use hyper::body::Frame;
use tower::ServiceExt as _;

/// A body that never comes.
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
    hanging.pop();
    look().expect(200);
    drop(hanging);
    look().expect(200);
}
