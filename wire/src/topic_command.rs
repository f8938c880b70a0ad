//! What a topic's home is asked to do, and a subscription as it knows it: a part of [`command`](crate::command), whose
//! names these are.

use std::sync::Arc;

use uuid::Uuid;

use crate::command::Publish;
use crate::ids::{SessionId, UserId};

/// For a topic's home in the broker.
#[derive(Clone, Debug)]
pub enum TopicCommand {
    /// A publish; sets or clears the retained message if its flag says so. Answer: `Published` once every matching
    /// persistent session has a durable entry and the retained row is durable. It is this user's: it waits in its turn with
    /// the others of this user, and what it retains counts as the user's.
    Publish(Arc<Publish>, UserId),
    /// Adds a route. For `Wildcards` it is live in the copy of every worker of every node of the view before the answer. Answer: `Retained`, once the
    /// route is live and, for a persistent session, durable.
    Subscribe {
        /// The route.
        route: Route,
        /// Whether matching retained messages are wanted.
        retained: bool,
    },
    /// Removes the route of this filter and session if it still is the one of `route_id`. Answer: `Done`.
    Unsubscribe {
        /// As at `Subscribe`.
        route: Route,
    },
    /// Removes the routes of a session that match a topic, were given their ids before `before` and are none of `keep`:
    /// it got a publish for which it has no subscription. To the topic's key. Answer: `Done`.
    Prune {
        /// The session.
        session: SessionId,
        /// Of the publish.
        topic: Box<str>,
        /// Route ids of the subscriptions that it has.
        keep: Vec<u64>,
        /// A route id that is larger than every one that it had when this was sent.
        before: u64,
    },
    /// A member of a group went for good, or left it, and had not acknowledged this: it is given to another member.
    /// Answer: `Published` once that member has it as `Publish` would give it; `matched` says whether there is one.
    Share {
        /// The group: the filter with `$share/…`.
        filter: Arc<str>,
        /// As it was given to the member.
        publish: Arc<Publish>,
        /// The member.
        from: SessionId,
    },
    /// The client of a group's member came (`here`), or went and its session stays. Answer: `Done`.
    Member {
        /// The group: the filter with `$share/…`.
        filter: Box<str>,
        /// The member.
        session: SessionId,
        /// Whether it is connected now.
        here: bool,
    },
    /// Retained messages under this key that match a filter. Answer: `Retained`.
    Retained {
        /// The filter.
        filter: Box<str>,
    },
    /// A route of a session in memory only, for a home that was just taken up and knows what is stored: to the topic's
    /// key. One that it knows of a later SUBSCRIBE stays. Answer: `Done`.
    Announce {
        /// The route.
        route: Route,
    },
    /// The routes of sessions in memory only under keys of these shards are to be announced. To a node, and by that to each
    /// of its workers. Answer: `Done` once their homes have all of them.
    Interest {
        /// Of the topics' keys.
        shards: Arc<[u16]>,
    },
    /// A node wants all filters with a wildcard in their first two levels. To `Wildcards`. Answer: `Done` once it has them,
    /// and it is told of each that comes later; refused as `unavailable` if it is not in the view of the home.
    List {
        /// Its start.
        node: Uuid,
    },
    /// Such filters. To a node, and by that to each of its workers. Answer: `Done`; refused as `unavailable` where the
    /// worker is of another start by now.
    Copy {
        /// The node's start.
        node: Uuid,
        /// A part of them.
        routes: Arc<[Route]>,
        /// They were all given.
        whole: bool,
    },
    /// The sender stands in the view of this request, or, with `confirmed`, has let go of all that it takes. To a node, whose homes do
    /// not see it. No answer.
    View {
        /// It is stored that it has.
        confirmed: bool,
    },
}

/// A subscription as its topic's home knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where the session lives.
    pub user: UserId,
    /// The session.
    pub session: SessionId,
    /// Fresh per SUBSCRIBE.
    pub route_id: u64,
    /// Topic filter.
    pub filter: Box<str>,
    /// Whether the session outlives its connection: its route is a row.
    pub persistent: bool,
    /// Granted QoS.
    pub qos: u8,
    /// MQTT 5 No Local.
    pub no_local: bool,
    /// MQTT 5 Retain As Published.
    pub retain_as_published: bool,
    /// MQTT 5 Subscription Identifier.
    pub subscription_id: Option<u32>,
}
