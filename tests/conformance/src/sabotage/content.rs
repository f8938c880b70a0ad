//! Mutations of what a PUBLISH from the server carries: topic, payload, properties.

use super::delivery::publish;
use super::mutation::Mutation;
use crate::wire::{Value, Version, text};

/// A property of PUBLISH left out.
fn without(name: &str, says: &str, id: u8) -> Mutation {
    publish(name, says, move |_, it| {
        let before = it.props.len();
        it.props.retain(|(known, _)| *known != id);
        before != it.props.len()
    })
}

pub(crate) fn list() -> Vec<Mutation> {
    vec![
        publish(
            "topic-longer",
            "messages are delivered on a topic with one level more",
            |_, it| {
                it.topic.push_str("/x");
                true
            },
        ),
        publish(
            "topic-is-filter",
            "a message is delivered on its subscription's filter",
            |link, it| {
                let filter = link
                    .filters
                    .iter()
                    .find(|filter| filter.contains(&b'+') || filter.contains(&b'#'));
                match filter {
                    Some(filter) => {
                        it.topic = String::from_utf8_lossy(filter).into_owned();
                        true
                    }
                    None => false,
                }
            },
        ),
        publish("mark-cut", "U+FEFF is cut off", |_, it| {
            let change = it.topic.contains('\u{FEFF}');
            it.topic = it.topic.replace('\u{FEFF}', "");
            change
        }),
        publish("payload-cut", "the last byte of a payload is lost", |_, it| {
            it.payload.pop().is_some()
        }),
        publish(
            "large-payload-cut",
            "a payload ends after 50,000 bytes",
            |_, it| {
                let change = it.payload.len() > 50_000;
                it.payload.truncate(50_000);
                change
            },
        ),
        without(
            "format-lost",
            "the payload format indicator is not passed on",
            0x01,
        ),
        without("expiry-lost", "the message expiry is not passed on", 0x02),
        without("content-type-lost", "the content type is not passed on", 0x03),
        without("response-topic-lost", "the response topic is not passed on", 0x08),
        without("correlation-lost", "the correlation data is not passed on", 0x09),
        without("identifiers-lost", "subscription identifiers are not sent", 0x0B),
        without("user-properties-lost", "user properties are not passed on", 0x26),
        publish(
            "content-type-lower",
            "the content type is written in another way",
            |_, it| {
                let text = it.props.iter_mut().find(|(id, _)| *id == 0x03);
                if let Some((_, Value::Text(text))) = text {
                    text.make_ascii_uppercase();
                    return true;
                }
                false
            },
        ),
        publish(
            "correlation-as-text",
            "correlation data ends at its first byte above 0x7F",
            |_, it| {
                let data = it.props.iter_mut().find(|(id, _)| *id == 0x09);
                if let Some((_, Value::Text(data))) = data {
                    let before = data.len();
                    let end = data.iter().position(|byte| *byte > 0x7F).unwrap_or(before);
                    data.truncate(end);
                    return end != before;
                }
                false
            },
        ),
        publish("users-sorted", "user properties are sorted", |_, it| {
            let before = it.users();
            it.props.sort_by_key(|(id, value)| match value {
                Value::Pair(name, value) => (*id, name.clone(), value.clone()),
                _ => (*id, Vec::new(), Vec::new()),
            });
            it.users() != before
        }),
        publish(
            "users-backwards",
            "user properties come in reverse order",
            |_, it| {
                let before = it.users();
                it.props.reverse();
                it.users() != before
            },
        ),
        publish(
            "users-once",
            "of user properties with one name only the first is passed on",
            |_, it| {
                let before = it.props.len();
                let mut names = Vec::new();
                it.props.retain(|(_, value)| match value {
                    Value::Pair(name, _) if names.contains(name) => false,
                    Value::Pair(name, _) => {
                        names.push(name.clone());
                        true
                    }
                    _ => true,
                });
                before != it.props.len()
            },
        ),
        publish(
            "empty-users-lost",
            "empty user properties are not passed on",
            |_, it| {
                let before = it.props.len();
                it.props
                    .retain(|(_, value)| !matches!(value, Value::Pair(name, _) if name.is_empty()));
                before != it.props.len()
            },
        ),
        publish(
            "expiry-not-counted",
            "the message expiry is not counted down",
            |_, it| {
                let expiry = it.props.iter_mut().find(|(id, _)| *id == 0x02);
                if let Some((_, Value::Four(left))) = expiry
                    && *left < 1_000
                    && !left.is_multiple_of(100)
                {
                    *left = left.next_multiple_of(100);
                    return true;
                }
                false
            },
        ),
        publish("expiry-halved", "the message expiry is halved", |_, it| {
            let expiry = it.props.iter_mut().find(|(id, _)| *id == 0x02);
            if let Some((_, Value::Four(left))) = expiry {
                *left /= 2;
                return true;
            }
            false
        }),
        publish(
            "identifier-other",
            "subscription identifiers are off by one",
            |_, it| {
                let mut change = false;
                for (_, value) in &mut it.props {
                    if let Value::Var(number) = value {
                        *number = number.saturating_sub(1).max(1);
                        change = true;
                    }
                }
                change
            },
        ),
        publish(
            "identifier-added",
            "messages have a subscription identifier that nobody gave",
            |link, it| {
                let change = link.version == Version::V5 && it.identifiers().is_empty();
                if change {
                    it.props.push((0x0B, Value::Var(99)));
                }
                change
            },
        ),
        publish(
            "identifier-lost-on-resume",
            "subscription identifiers are forgotten over a resume",
            |link, it| {
                let change = link.filters.is_empty() && !it.identifiers().is_empty();
                if change {
                    it.props.retain(|(id, _)| *id != 0x0B);
                }
                change
            },
        ),
        publish(
            "property-added",
            "messages have a property that nobody gave",
            |link, it| {
                let change = link.version == Version::V5 && it.prop(0x03).is_none();
                if change {
                    it.props.push((0x03, text("text/html")));
                }
                change
            },
        ),
        publish("aliased", "messages have topic alias 2", |link, it| {
            let change = link.version == Version::V5;
            if change {
                it.props.push((0x23, Value::Two(2)));
            }
            change
        }),
        publish("alias-0", "messages have topic alias 0", |link, it| {
            let change = link.version == Version::V5;
            if change {
                it.props.push((0x23, Value::Two(0)));
            }
            change
        }),
    ]
}
