//! An entry of a session's own log: a publish on an ordinary topic with the options of the session's subscriptions, and
//! its stored form.

use std::sync::Arc;

use bytes::Bytes;
use godwit_wire::command::{Publish, Target};
use godwit_wire::proto::stored::{PublishProperties, SharedOf, StoredPublish, UserProperty};
use prost::Message as _;

use super::log::Entry;
use super::session::{Subscription, recent_number};

/// A publish for one session.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Owed {
    pub(crate) publish: Arc<Publish>,
    /// Granted, at most as published.
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) subscription_ids: Vec<u32>,
    /// The group that gave it, if one did.
    pub(crate) share: Option<Arc<Share>>,
}

/// A group, and what the next member needs beside what this one gets.
#[derive(Debug, PartialEq)]
pub(crate) struct Share {
    /// With `$share/…`.
    pub(crate) filter: Arc<str>,
    /// As published.
    qos: u8,
    /// As published.
    retain: bool,
}

impl Owed {
    /// What a member of a group gets of a publish.
    pub(crate) fn shared(publish: Arc<Publish>, filter: Arc<str>, member: &Subscription) -> Self {
        Self {
            qos: publish.qos.min(member.qos),
            retain: publish.retain && member.retain_as_published,
            subscription_ids: member.subscription_id.into_iter().collect(),
            share: Some(Arc::new(Share {
                filter,
                qos: publish.qos,
                retain: publish.retain,
            })),
            publish,
        }
    }

    /// The publish as the group got it.
    pub(crate) fn as_published(&self) -> Arc<Publish> {
        let Some(share) = self.share.as_deref() else {
            return self.publish.clone();
        };
        if (share.qos, share.retain) == (self.publish.qos, self.publish.retain) {
            return self.publish.clone();
        }
        Arc::new(Publish {
            qos: share.qos,
            retain: share.retain,
            ..(*self.publish).clone()
        })
    }

    /// By which a repeat of a QoS 2 message is known; one of a group is another one than that of the session's own
    /// subscription.
    pub(crate) fn number(&self) -> Option<u64> {
        let number = recent_number(self.publish.message_id?);
        // It is in rows, so it may never change.
        let of = |share: &Share| xxhash_rust::xxh3::xxh3_64(share.filter.as_bytes());
        let group = self.share.as_deref().map_or(0, of);
        Some(number ^ group)
    }

    /// What this target gets of a publish.
    pub(crate) fn new(publish: Arc<Publish>, target: Target) -> Self {
        Self {
            qos: publish.qos.min(target.qos),
            retain: publish.retain && target.retain_as_published,
            subscription_ids: target.subscription_ids,
            share: None,
            publish,
        }
    }

    /// Its row.
    pub(crate) fn row(&self) -> Bytes {
        let publish = &*self.publish;
        StoredPublish {
            topic: publish.topic.to_string(),
            payload: publish.payload.clone(),
            qos: u32::from(self.qos),
            retain: self.retain,
            subscription_ids: self.subscription_ids.clone(),
            properties: publish.properties.as_deref().cloned(),
            expires_at: publish.expires_at.unwrap_or(0),
            publisher_number: self.number().unwrap_or(0),
            shared: self.share.as_deref().map(|share| SharedOf {
                filter: share.filter.to_string(),
                qos: u32::from(share.qos),
                retain: share.retain,
            }),
            owner: Bytes::new(),
            view: 0,
        }
        .encode_to_vec()
        .into()
    }

    /// The entry of a row, and the number of its QoS 2 message (0: none). `None`: not a row of this form.
    pub(crate) fn from_row(row: Bytes) -> Option<(Self, u64)> {
        let row = StoredPublish::decode(row).ok()?;
        let publish = Publish {
            topic: row.topic.into(),
            payload: row.payload,
            qos: row.qos.min(2) as u8,
            retain: row.retain,
            expires_at: Some(row.expires_at).filter(|at| *at > 0),
            properties: row.properties.map(Box::new),
            from: None,
            message_id: None,
        };
        let owed = Self {
            qos: publish.qos,
            retain: row.retain,
            subscription_ids: row.subscription_ids,
            share: row.shared.map(|shared| {
                Arc::new(Share {
                    filter: shared.filter.into(),
                    qos: shared.qos.min(2) as u8,
                    retain: shared.retain,
                })
            }),
            publish: Arc::new(publish),
        };
        Some((owed, row.publisher_number))
    }
}

impl Entry for Owed {
    fn weight(&self) -> usize {
        let publish = &*self.publish;
        let properties = publish.properties.as_deref().map_or(0, properties_weight);
        publish.payload.len() + publish.topic.len() + properties + 128
    }

    fn emptied(&self) -> Self {
        let publish = Publish {
            topic: "".into(),
            payload: Bytes::new(),
            properties: None,
            ..*self.publish
        };
        Self {
            publish: Arc::new(publish),
            subscription_ids: Vec::new(),
            share: None,
            ..*self
        }
    }
}

/// Two strings of a user property have at least this much of the heap, beside their bytes.
const USER_PROPERTY: usize = size_of::<UserProperty>() + 2 * 32;

/// Many small user properties are some twenty times as large in memory as on the wire.
fn properties_weight(properties: &PublishProperties) -> usize {
    properties.encoded_len() + properties.user_properties.len() * USER_PROPERTY
}

#[cfg(test)]
mod tests {
    use godwit_wire::ids::{MessageId, SessionId};

    use super::*;

    #[test]
    fn a_row_reads_back_with_what_the_session_is_to_get() {
        let publish = Arc::new(Publish {
            topic: "iot/a/b".into(),
            payload: Bytes::from_static(b"x"),
            qos: 2,
            retain: true,
            expires_at: Some(77),
            properties: None,
            from: Some(SessionId::fresh()),
            message_id: Some(MessageId::fresh()),
        });
        let target = |retain_as_published| Target {
            session: SessionId::fresh(),
            qos: 1,
            retain_as_published,
            subscription_ids: vec![3, 4],
        };
        let owed = Owed::new(publish.clone(), target(false));
        assert_eq!((owed.qos, owed.retain), (1, false));
        let (back, number) = Owed::from_row(Owed::new(publish.clone(), target(true)).row()).unwrap();
        assert_eq!(
            (back.qos, back.retain, &*back.subscription_ids),
            (1, true, &[3, 4][..])
        );
        assert_eq!(
            (&*back.publish.topic, back.publish.expires_at),
            ("iot/a/b", Some(77))
        );
        assert_eq!(Some(number), publish.message_id.map(recent_number));
        assert!(Owed::from_row(Bytes::from_static(b"\xff\xff")).is_none());
    }

    #[test]
    fn user_properties_weigh_what_they_take_of_memory() {
        let user_property = UserProperty {
            name: "a".into(),
            value: String::new(),
        };
        let publish = Publish {
            topic: "iot/a/b".into(),
            payload: Bytes::new(),
            qos: 1,
            retain: false,
            expires_at: None,
            properties: Some(Box::new(PublishProperties {
                user_properties: vec![user_property; 50_000],
                ..PublishProperties::default()
            })),
            from: None,
            message_id: None,
        };
        let target = Target {
            session: SessionId::fresh(),
            qos: 1,
            retain_as_published: false,
            subscription_ids: Vec::new(),
        };
        assert!(Owed::new(Arc::new(publish), target).weight() > 50_000 * size_of::<UserProperty>());
    }
}
