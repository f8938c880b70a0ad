//! What operators see and do about nodes and shards, on the admin listener: `GET /nodes`, `GET /shards`, `POST /nodes/drain`. On a node that stands
//! alone there is one of everything.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use godwit_cluster::own::{About, Group, Layout, Roles, Seat, Standing};
use godwit_store::StoreError;
use godwit_store::coordination::StartId;
use serde::{Deserialize, Serialize};

use super::look::Row;
use super::{Membership, boot_ms};
use crate::admin::failure;

/// Answer of `GET /nodes`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Nodes {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the node that answers.
    pub this: String,
    /// Number of the view that it acts in; 0: none.
    pub view: u64,
    /// Views before it in which somebody may still act.
    pub unsettled: usize,
    /// Whether its lease lasts.
    pub acts: bool,
    /// Members in the order in which they joined, then starts that are in no view.
    pub nodes: Vec<OneNode>,
}

/// A start of a node.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneNode {
    /// Its node's name.
    pub name: String,
    /// Its id.
    pub start: StartId,
    /// "member", "leaving", or "outside": joining, gone or dead.
    pub state: String,
    /// What it does.
    pub roles: Vec<String>,
    /// Where other nodes reach it.
    pub peer: String,
    /// Where MQTT clients reach it, or empty.
    pub mqtt: String,
    /// Where HTTP clients reach it, or empty.
    pub http: String,
    /// The largest view that it acts by.
    pub confirmed: u64,
    /// How long ago the node that answers saw its last heartbeat, milliseconds: up to two seconds too much. `None`: it has no row.
    pub heartbeat_ms: Option<u64>,
    /// Shards that are its by the view: of users and topics, conversations, the index.
    pub shards: [usize; 3],
    /// Shards that it has taken up, of all groups; told by itself alone.
    pub held: Option<usize>,
}

/// Answer of `GET /shards`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Shards {
    /// Number of the view.
    pub view: u64,
    /// All of them, by group and number.
    pub shards: Vec<OneShard>,
}

/// A shard of a group.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneShard {
    /// "users", "conversations" or "index".
    pub group: String,
    /// Its number.
    pub shard: u16,
    /// Whose it is by the view; `None`: nobody has the role.
    pub node: Option<String>,
    /// The view in which the node that answers took it up; `None`: it is another's, or waits for its former owner.
    pub since: Option<u64>,
}

/// Body of `POST /nodes/drain`, and of its answer.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// Name of the node; `None`: the one that is asked.
    pub name: Option<String>,
}

/// The routes; `None` of a node that stands alone.
pub(crate) fn routes(membership: Option<Membership>) -> Router {
    Router::new()
        .route("/nodes", get(nodes))
        .route("/shards", get(shards))
        .route("/nodes/drain", post(drain))
        .with_state(membership)
}

fn alone() -> Response {
    failure(
        StatusCode::CONFLICT,
        "this node stands alone (store = \"embedded\"): there are no other nodes, and all shards are its own",
    )
}

fn unavailable(error: &StoreError) -> Response {
    failure(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

async fn nodes(State(membership): State<Option<Membership>>) -> Response {
    let Some(membership) = membership else {
        return alone();
    };
    match membership.nodes().await {
        Ok(nodes) => Json(nodes).into_response(),
        Err(error) => unavailable(&error),
    }
}

async fn shards(State(membership): State<Option<Membership>>) -> Response {
    let Some(membership) = membership else {
        return alone();
    };
    match membership.shards() {
        Some(shards) => Json(shards).into_response(),
        None => failure(StatusCode::SERVICE_UNAVAILABLE, "this node is in no view yet"),
    }
}

async fn drain(State(membership): State<Option<Membership>>, Json(asked): Json<Drain>) -> Response {
    let Some(membership) = membership else {
        return alone();
    };
    let own = &membership.0.about.name;
    let Some(name) = asked.name.filter(|name| name != own) else {
        tracing::info!("asked to leave the cluster");
        membership.drain();
        let asked = Drain {
            name: Some(own.clone()),
        };
        return (StatusCode::ACCEPTED, Json(asked)).into_response();
    };
    let (working, of) = (membership.clone(), name.clone());
    match tokio::task::spawn_blocking(move || working.drain_node(&of)).await {
        Ok(Ok(true)) => (StatusCode::ACCEPTED, Json(Drain { name: Some(name) })).into_response(),
        Ok(Ok(false)) => failure(StatusCode::NOT_FOUND, format!("no node {name} is in the cluster")),
        Ok(Err(error)) => unavailable(&error),
        Err(_) => failure(
            StatusCode::INTERNAL_SERVER_ERROR,
            "asking came to a sudden end; see the log",
        ),
    }
}

impl Membership {
    /// All nodes that are in the view, or have a row.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn nodes(&self) -> Result<Nodes, StoreError> {
        let rows = self.rows().await?;
        Ok(self.nodes_of(rows))
    }

    /// All shards by the view that this node stands in; `None` before its first.
    pub fn shards(&self) -> Option<Shards> {
        let standing = self.0.standing.borrow().clone()?;
        Some(shards_of(&standing, |slot| self.0.holdings.held(slot)))
    }

    /// Asks another node of the view to leave, by its name: it looks for that every two seconds. Blocks. `false`: nobody in the view is
    /// called so.
    ///
    /// # Errors
    /// The store does not answer; the node may leave all the same.
    pub fn drain_node(&self, name: &str) -> Result<bool, StoreError> {
        let standing = self.0.standing.borrow().clone();
        let seats = standing.iter().flat_map(|standing| &standing.body.seats);
        let seats = seats.filter(|seat| &*seat.name == name);
        let starts: Vec<StartId> = seats.map(|seat| seat.start).collect();
        for start in &starts {
            self.drain_other(*start)?;
        }
        Ok(!starts.is_empty())
    }

    fn nodes_of(&self, rows: Vec<Row>) -> Nodes {
        let standing = self.0.standing.borrow().clone();
        let (now, own) = (boot_ms(), *self.0.start.borrow());
        let age = |start| self.seen().age(now, start);
        let mut nodes = nodes_of(standing.as_deref(), rows, age);
        if let Some(node) = nodes.iter_mut().find(|node| Some(node.start) == own) {
            node.held = Some(self.held());
        }
        Nodes {
            cluster: self.0.cluster.clone(),
            this: self.0.about.name.clone(),
            view: self.0.holdings.current(),
            unsettled: standing.map_or(0, |standing| standing.body.unsettled.len()),
            acts: self.0.holdings.may_act(now),
            nodes,
        }
    }
}

/// Members first, with their rows if they have any, then the other rows.
fn nodes_of(
    standing: Option<&Standing>,
    mut rows: Vec<Row>,
    age: impl Fn(StartId) -> Option<u64>,
) -> Vec<OneNode> {
    let mut nodes = Vec::new();
    let seats = standing.map_or(&[][..], |standing| &standing.body.seats);
    for (at, seat) in seats.iter().enumerate() {
        let row = rows.iter().position(|row| row.start == seat.start);
        let row = row.map(|at| rows.swap_remove(at));
        let mut shards = [0; 3];
        for slot in standing.iter().flat_map(|standing| standing.map.slots_of(at)) {
            if let Some((group, _)) = Layout::PRODUCT.of(slot) {
                shards[group as usize] += 1;
            }
        }
        nodes.push(one(Some(seat), row, shards, &age));
    }
    rows.sort_by_key(|row| row.start);
    nodes.extend(rows.into_iter().map(|row| one(None, Some(row), [0; 3], &age)));
    nodes
}

fn one(
    seat: Option<&Seat>,
    row: Option<Row>,
    shards: [usize; 3],
    age: &impl Fn(StartId) -> Option<u64>,
) -> OneNode {
    let start = seat.map(|seat| seat.start).or(row.as_ref().map(|row| row.start));
    let start = start.unwrap_or_default();
    let state = match seat {
        Some(seat) if seat.leaving => "leaving",
        Some(_) => "member",
        None => "outside",
    };
    let confirmed = row.as_ref().map_or(0, |row| row.confirmed);
    let heartbeat_ms = row.as_ref().and_then(|_| age(start));
    let about: About = row.and_then(|row| row.about).unwrap_or_default();
    let name = seat.map_or(about.name, |seat| seat.name.to_string());
    OneNode {
        name,
        start,
        state: state.into(),
        roles: names(seat.map_or(about.roles, |seat| seat.roles)),
        peer: about.peer,
        mqtt: about.mqtt,
        http: about.http,
        confirmed,
        heartbeat_ms,
        shards,
        held: None,
    }
}

fn names(roles: Roles) -> Vec<String> {
    let all = [
        (Roles::BROKER, "broker"),
        (Roles::INGEST, "ingest"),
        (Roles::SEARCH, "search"),
        (Roles::API, "api"),
    ];
    let had = all.into_iter().filter(|(role, _)| roles.has(*role));
    had.map(|(_, name)| name.to_owned()).collect()
}

fn shards_of(standing: &Standing, held: impl Fn(u16) -> Option<u64>) -> Shards {
    let slots = (0..Layout::PRODUCT.slots()).filter_map(|slot| {
        let slot = u16::try_from(slot).ok()?;
        let (group, shard) = Layout::PRODUCT.of(slot)?;
        let owner = standing
            .map
            .owner(slot)
            .and_then(|at| standing.body.seats.get(at));
        Some(OneShard {
            group: group_name(group).into(),
            shard,
            node: owner.map(|seat| seat.name.to_string()),
            since: held(slot),
        })
    });
    Shards {
        view: standing.number,
        shards: slots.collect(),
    }
}

/// As operators know the groups.
fn group_name(group: Group) -> &'static str {
    match group {
        Group::Users => "users",
        Group::Conversations => "conversations",
        Group::Index => "index",
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn starts_that_are_in_no_view_are_listed_with_what_they_say_of_themselves() {
        let about = About {
            name: "n1".into(),
            roles: Roles::BROKER.and(Roles::API),
            peer: "10.0.0.1:7883".into(),
            ..About::default()
        };
        let row = |start, about| Row {
            start: Uuid::from_u128(start),
            about,
            confirmed: 3,
        };
        let rows = vec![row(2, None), row(1, Some(about))];
        let nodes = nodes_of(None, rows, |start| (start == Uuid::from_u128(1)).then_some(7));
        assert_eq!((nodes[0].name.as_str(), nodes[1].name.as_str()), ("n1", ""));
        assert_eq!(nodes[0].roles, ["broker", "api"]);
        assert_eq!((nodes[0].heartbeat_ms, nodes[1].heartbeat_ms), (Some(7), None));
        assert!(nodes.iter().all(|node| node.state == "outside"));
    }
}
