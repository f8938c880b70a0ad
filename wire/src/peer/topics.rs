//! Commands of topics' homes, and publishes.

use uuid::Uuid;

use super::{DecodeError, FrameWriter, Result, Shared, message, need, optional, session, user};
use crate::command::{Publish, Route, TopicCommand};
use crate::ids::{MessageId, SessionId};
use crate::proto::peer::{self, topic_command};

pub(super) fn publish_out(publish: &Publish) -> peer::Publish {
    peer::Publish {
        topic: publish.topic.to_string(),
        payload: publish.payload.clone(),
        qos: publish.qos.into(),
        retain: publish.retain,
        expires_at: publish.expires_at,
        properties: publish.properties.as_deref().cloned(),
        from: publish.from.map(SessionId::to_bytes).unwrap_or_default(),
        message_id: publish.message_id.map(MessageId::to_bytes).unwrap_or_default(),
    }
}

pub(super) fn publish_in(publish: peer::Publish) -> Result<Publish> {
    Ok(Publish {
        topic: publish.topic.into(),
        payload: publish.payload,
        qos: qos(publish.qos)?,
        retain: publish.retain,
        expires_at: publish.expires_at,
        properties: publish.properties.map(Box::new),
        from: optional(&publish.from, session)?,
        message_id: optional(&publish.message_id, message)?,
    })
}

pub(super) fn qos(qos: u32) -> Result<u8> {
    match qos {
        0..=2 => Ok(qos as u8),
        _ => Err(DecodeError("qos")),
    }
}

fn route_out(route: &Route) -> peer::Route {
    peer::Route {
        user: route.user.to_bytes(),
        session: route.session.to_bytes(),
        route_id: route.route_id,
        filter: route.filter.to_string(),
        persistent: route.persistent,
        qos: route.qos.into(),
        no_local: route.no_local,
        retain_as_published: route.retain_as_published,
        subscription_id: route.subscription_id,
    }
}

fn route_in(route: Option<peer::Route>) -> Result<Route> {
    let route = need(route, "route")?;
    Ok(Route {
        user: user(&route.user)?,
        session: session(&route.session)?,
        route_id: route.route_id,
        filter: route.filter.into(),
        persistent: route.persistent,
        qos: qos(route.qos)?,
        no_local: route.no_local,
        retain_as_published: route.retain_as_published,
        subscription_id: route.subscription_id,
    })
}

pub(super) fn command_out(command: &TopicCommand, frame: &mut FrameWriter) -> peer::TopicCommand {
    use topic_command::Command as Out;
    let command = match command {
        TopicCommand::Publish(publish, user) => Out::Publish(peer::PublishOf {
            publish: frame.publish(publish),
            user: user.to_bytes(),
        }),
        TopicCommand::Subscribe { route, retained } => Out::Subscribe(peer::Subscribe {
            route: Some(route_out(route)),
            retained: *retained,
        }),
        TopicCommand::Unsubscribe { route } => Out::Unsubscribe(route_out(route)),
        TopicCommand::Prune {
            session,
            topic,
            keep,
            before,
        } => Out::Prune(peer::Prune {
            session: session.to_bytes(),
            topic: topic.to_string(),
            keep: keep.clone(),
            before: *before,
        }),
        TopicCommand::Share {
            filter,
            publish,
            from,
        } => Out::Share(peer::ShareAgain {
            filter: filter.to_string(),
            publish: frame.publish(publish),
            from: from.to_bytes(),
        }),
        TopicCommand::Member {
            filter,
            session,
            here,
        } => Out::Member(peer::Member {
            filter: filter.to_string(),
            session: session.to_bytes(),
            here: *here,
        }),
        TopicCommand::Retained { filter } => Out::Retained(filter.to_string()),
        TopicCommand::Announce { route } => Out::Announce(route_out(route)),
        TopicCommand::Interest { shards } => Out::Interest(peer::Interest {
            shards: shards.iter().map(|shard| (*shard).into()).collect(),
        }),
        TopicCommand::List { node } => Out::List(node.as_bytes().to_vec().into()),
        TopicCommand::Copy { node, routes, whole } => Out::Copy(peer::Copy {
            node: node.as_bytes().to_vec().into(),
            routes: routes.iter().map(route_out).collect(),
            whole: *whole,
        }),
        TopicCommand::View { confirmed } => Out::View(*confirmed),
    };
    peer::TopicCommand {
        command: Some(command),
    }
}

pub(super) fn command_in(command: peer::TopicCommand, shared: &Shared) -> Result<TopicCommand> {
    use topic_command::Command as In;
    Ok(match need(command.command, "topic command")? {
        In::Publish(of) => TopicCommand::Publish(shared.publish(of.publish)?, user(&of.user)?),
        In::Subscribe(subscribe) => TopicCommand::Subscribe {
            route: route_in(subscribe.route)?,
            retained: subscribe.retained,
        },
        In::Unsubscribe(route) => TopicCommand::Unsubscribe {
            route: route_in(Some(route))?,
        },
        In::Prune(prune) => TopicCommand::Prune {
            session: session(&prune.session)?,
            topic: prune.topic.into(),
            keep: prune.keep,
            before: prune.before,
        },
        In::Share(share) => TopicCommand::Share {
            filter: share.filter.into(),
            publish: shared.publish(share.publish)?,
            from: session(&share.from)?,
        },
        In::Member(member) => TopicCommand::Member {
            filter: member.filter.into(),
            session: session(&member.session)?,
            here: member.here,
        },
        In::Retained(filter) => TopicCommand::Retained {
            filter: filter.into(),
        },
        In::Announce(route) => TopicCommand::Announce {
            route: route_in(Some(route))?,
        },
        In::Interest(interest) => {
            let shards = interest.shards.into_iter().map(u16::try_from);
            let shards: std::result::Result<_, _> = shards.collect();
            TopicCommand::Interest {
                shards: shards.map_err(|_| DecodeError("shard"))?,
            }
        }
        In::View(confirmed) => TopicCommand::View { confirmed },
        In::List(node) => TopicCommand::List {
            node: Uuid::from_slice(&node).map_err(|_| DecodeError("node"))?,
        },
        In::Copy(copy) => {
            let routes: Result<_> = copy
                .routes
                .into_iter()
                .map(|route| route_in(Some(route)))
                .collect();
            TopicCommand::Copy {
                node: Uuid::from_slice(&copy.node).map_err(|_| DecodeError("node"))?,
                routes: routes?,
                whole: copy.whole,
            }
        }
    })
}
