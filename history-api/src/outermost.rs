//! What every request passes first and last: its id, the bounds on requests under way and on bytes that wait, the allowance of its address, the form
//! of its errors.

use std::net::IpAddr;

use axum::body::HttpBody as _;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use godwit_wire::code::{Code, Refusal};
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use crate::BODY_BYTES;
use crate::extract::Peer;
use crate::metrics::RequestLabels;
use crate::problem::{Problem, finish};
use crate::shares::Share;
use crate::state::Api;
use crate::unread::Drained;
use crate::waiting;

/// Methods and paths beyond this are nobody's.
const PATH_BYTES: usize = 8 * 1024;

pub(crate) async fn run(State(api): State<Api>, request: Request, next: Next) -> Response {
    let id = Uuid::now_v7();
    let metrics = api.parts.metrics.clone();
    metrics.in_flight.inc();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let peer = Peer::of(request.extensions());
    let request = request.map(|body| Drained::watch(body, &api.drains));
    let vital = is_vital(&request);
    let response = match admitted(&api, &request, peer, vital) {
        Ok(_held) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    if let Some(limit) = Problem::limit_of(&response) {
        metrics.limits_met.get_or_create(&[("limit", limit)]).inc();
    }
    // Operators have connections of their own, which bound what is given to them.
    let response = match vital {
        true => response,
        false => counted(&api, peer, response),
    };
    let response = finish(response, id);
    metrics.in_flight.dec();
    let status = response.status().as_u16();
    metrics.requests.get_or_create(&RequestLabels { status }).inc();
    // The query is left out: it may hold a token.
    tracing::debug!(%id, %method, path, status, "request");
    response
}

/// An answer that counts until its client has it.
fn counted(api: &Api, peer: IpAddr, response: Response) -> Response {
    let (parts, body) = response.into_parts();
    match waiting::answer(&api.waiting, peer, body) {
        Ok(body) => Response::from_parts(parts, body),
        Err(()) => no_room(api).into_response(),
    }
}

fn no_room(api: &Api) -> Problem {
    api.parts.metrics.no_room.inc();
    Problem::from(Refusal::unavailable())
}

/// What a request holds until it is answered: one of the requests at a time, and room for its body.
type Held = (Option<OwnedSemaphorePermit>, Option<Share>);

/// Whether operators and balancers must have an answer however many requests are under way, and cost nothing that waits.
fn is_vital(request: &Request) -> bool {
    let path = request.uri().path();
    matches!(path, "/healthz" | "/readyz" | "/metrics") && *request.method() == Method::GET
}

fn admitted(api: &Api, request: &Request, peer: IpAddr, vital: bool) -> Result<Held, Problem> {
    let permit = (!vital).then(|| api.requests.clone().try_acquire_owned());
    let permit = permit
        .transpose()
        .map_err(|_| Problem::from(Refusal::unavailable()).of_limit("requests"))?;
    if request.uri().path().len() > PATH_BYTES {
        return Err(Problem::new(Code::Malformed, "the path is too long"));
    }
    if !vital {
        api.per_address
            .take(peer.into(), api.passed())
            .map_err(|seconds| Problem::too_often(seconds).of_limit("address_requests"))?;
    }
    if request.body().size_hint().lower() > BODY_BYTES as u64 {
        return Err(Problem::new(Code::TooLarge, "the body is too large"));
    }
    let body = waiting::body(&api.waiting, peer, request.body()).map_err(|()| no_room(api))?;
    Ok((permit, body))
}
