//! The HTTP door: REST by docs/protocol.md, its OpenAPI document, the upgrade of MQTT over WebSocket, the admin listener.
//! Handlers translate to the same commands that MQTT uses; nothing is decided here that a home decides.

mod admin;
mod auth;
pub mod connect;
mod contacts;
mod conversations;
mod device_tokens;
mod extract;
mod fuzz;
mod groups;
mod guesses;
mod health;
pub mod limits;
mod messages;
mod metrics;
mod mqtt;
mod openapi;
mod outermost;
mod problem;
mod search;
mod shares;
mod state;
mod unread;
mod users;
mod waiting;

use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue, Method, header};
use godwit_wire::account::Secret;
use godwit_wire::code::Refusal;
use godwit_wire::limits::MESSAGE_BYTES;
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use admin::admin_router;
#[doc(hidden)]
pub use fuzz::fuzz_body;
pub use health::NotReady;
pub use limits::Rate;
pub use metrics::Metrics;
pub use mqtt::{MqttUpgrade, take_apart};
pub use problem::{FieldError, Problem, ProblemBody};
pub use search::{Place, Places, SearchIndex};
pub use shares::{Share, Shares};
pub use state::{ANSWER_TIMEOUT, Api, Clock, Parts, REQUESTS};
pub use waiting::WAITING_BYTES;

/// Largest body, bytes: a message whose every character is escaped in JSON (`\u0001`), and what goes around it.
pub const BODY_BYTES: usize = 6 * MESSAGE_BYTES + 16 * 1024;

/// Who may register.
#[derive(Clone, Debug, Default)]
pub enum Register {
    /// Anybody.
    Open,
    /// Nobody: users are made by the operator.
    #[default]
    Closed,
    /// Who knows this.
    Token(Secret),
}

/// Registrations that one address may make at once; an office or a school is one address.
pub const REGISTRATIONS_AT_ONCE: u32 = 1_000;

/// What an installation decides about the HTTP door.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who may register.
    pub registration: Register,
    /// Origins of web pages that may call (CORS) and connect (WebSocket): `https://app.example.org`, or `*`.
    pub origins: Vec<String>,
    /// Requests from one address.
    pub per_address: Rate,
    /// Requests of one user; exchanges of refresh tokens of one login session.
    pub per_user: Rate,
    /// Registrations from one address: each costs a password hash and a name for ever.
    pub registrations: Rate,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            registration: Register::Closed,
            origins: Vec::new(),
            per_address: Rate::per_second(5_000, 20_000),
            per_user: Rate::per_second(500, 2_000),
            registrations: Rate::per_second(5, REGISTRATIONS_AT_ONCE),
        }
    }
}

fn described() -> (axum::Router<Api>, utoipa::openapi::OpenApi) {
    let v1 = OpenApiRouter::new()
        .routes(routes!(users::register, users::find_user))
        .routes(routes!(users::me, users::change_me))
        .route("/users/me", axum::routing::delete(not_yet))
        .routes(routes!(users::user))
        .routes(routes!(connect::connect))
        .routes(routes!(auth::login))
        .routes(routes!(auth::refresh))
        .routes(routes!(auth::logout))
        .routes(routes!(auth::change_password))
        .routes(routes!(auth::sessions, auth::end_sessions))
        .routes(routes!(auth::session, auth::end_session))
        .routes(routes!(device_tokens::create, device_tokens::list))
        .routes(routes!(device_tokens::get, device_tokens::end))
        .routes(routes!(contacts::ask, contacts::list))
        .routes(routes!(contacts::put, contacts::remove))
        .routes(routes!(conversations::open, conversations::list))
        .routes(routes!(conversations::get))
        .routes(routes!(groups::create))
        .routes(routes!(groups::change))
        .routes(routes!(groups::add_member))
        .routes(routes!(groups::remove_member))
        .routes(routes!(groups::set_role))
        .routes(routes!(messages::send, messages::history))
        .routes(routes!(messages::put_status, messages::status))
        .routes(routes!(search::in_conversation))
        .routes(routes!(search::everywhere))
        .routes(routes!(document));
    let (router, mut document) = OpenApiRouter::with_openapi(openapi::Document::openapi())
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .nest("/api/v1", v1)
        .split_for_parts();
    openapi::complete(&mut document);
    (router, document)
}

/// The OpenAPI document of [`router`].
pub fn openapi() -> utoipa::openapi::OpenApi {
    described().1
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "health", security(()),
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json", body = Object)))]
async fn document() -> axum::Json<utoipa::openapi::OpenApi> {
    axum::Json(openapi())
}

/// Of the contract, but not served yet, at a path that is.
async fn not_yet() -> Problem {
    Refusal::not_found().into()
}

/// Everything that is served on the HTTP port. Serve it with
/// `into_make_service_with_connect_info::<SocketAddr>()`, or put a `ConnectInfo` into each request: limits are by address.
pub fn router(api: Api) -> axum::Router {
    let (router, _) = described();
    served(router, api)
}

/// What is served on the HTTP port of a node that does not do REST: MQTT over WebSocket, where clients are sent to, and how it is. As for
/// [`router`].
pub fn router_without_rest(api: Api) -> axum::Router {
    let router = axum::Router::new()
        .route("/healthz", axum::routing::get(health::healthz))
        .route("/readyz", axum::routing::get(health::readyz));
    served(router, api)
}

fn served(router: axum::Router<Api>, api: Api) -> axum::Router {
    let cors = cors(&api.parts.config.origins);
    router
        .route("/mqtt", axum::routing::any(mqtt::upgrade))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(axum::middleware::from_fn_with_state(api.clone(), outermost::run))
        .layer(cors)
        .with_state(api)
}

fn cors(origins: &[String]) -> CorsLayer {
    let origins = match origins {
        [any] if any == "*" => AllowOrigin::any(),
        some => AllowOrigin::list(
            some.iter()
                .filter_map(|origin| HeaderValue::from_str(origin).ok()),
        ),
    };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static("idempotency-key"),
        ])
        .expose_headers([header::RETRY_AFTER, HeaderName::from_static("x-request-id")])
}
