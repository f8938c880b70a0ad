//! Where a user's home is: clients that ask connect straight to it.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use godwit_wire::code::Code;
use godwit_wire::ids::{Key, UserId};
use serde::Serialize;
use utoipa::ToSchema;

use crate::extract::Caller;
use crate::problem::Problem;
use crate::state::Api;

/// Where clients reach a node. What is not known, or not served there, is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Reached {
    /// MQTT over TCP: host and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<String>,
    /// REST, and MQTT over WebSocket at /mqtt: host and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
}

/// Says which node holds a key; `None`: nobody does at the moment. Must not block.
pub type Whereabouts = Arc<dyn Fn(&Key) -> Option<Reached> + Send + Sync>;

/// A node that stands alone, reached there.
pub fn alone(reached: Reached) -> Whereabouts {
    Arc::new(move |_| Some(reached.clone()))
}

/// The node that is the caller's home at the moment: whoever connects there needs no other node in between. Any node does, too.
#[utoipa::path(get, path = "/connect", tag = "users", responses((status = 200, body = Reached)))]
pub(crate) async fn connect(State(api): State<Api>, caller: Caller) -> Result<Answer<Reached>, Problem> {
    let user: UserId = caller.user();
    let reached = (api.parts.whereabouts)(&Key::User(user));
    reached.map(Answer).ok_or_else(|| {
        Problem::new(
            Code::Unavailable,
            "this user's home is just moving; any node may be connected to",
        )
    })
}
