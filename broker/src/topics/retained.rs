//! The retained messages of one topic key: in memory with their bounds and ends, and as rows. Who gets them is decided
//! elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use godwit_store::{Kind, Op, Table, View};
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::Publish;
use godwit_wire::ids::{Key, UserId};
use godwit_wire::proto::stored::{PublishProperties, StoredPublish};
use godwit_wire::topic::matches;
use prost::Message;
use xxhash_rust::xxh3::xxh3_128;

use super::home::partition;

/// Retained messages: `(topic key; topic) → StoredPublish`; a clearing is a row.
pub(crate) const RETAINED: Table = Table {
    id: 221,
    kind: Kind::Rows,
    name: "retained",
};
/// Topic keys that may have retained messages: `(slice; key)`, for filters whose first levels are wildcards.
pub(crate) const RETAINED_KEYS: Table = Table {
    id: 222,
    kind: Kind::Set,
    name: "retained_keys",
};

/// Whose they are: `(user; hash of the topic) → bytes`, written with the row of the message.
pub(crate) const RETAINED_OF: Table = Table {
    id: 223,
    kind: Kind::Set,
    name: "retained_of",
};

/// Slices of [`RETAINED_KEYS`]: part of the on-disk format.
pub(crate) const RETAINED_SLICES: u16 = 16;

/// Most retained messages of one topic key: all of them are in memory while the key is used.
pub(crate) const KEY_MESSAGES: usize = 50_000;
/// And most bytes of them, as [`weight`] counts: what a worker can read at once without a pause that others feel.
pub(crate) const KEY_BYTES: usize = 16 * 1024 * 1024;
/// What an entry takes in memory besides its topic (twice: also as its name) and content, about.
const ENTRY_BYTES: usize = 256;

pub(crate) fn retained_slice(levels: &str) -> Bytes {
    let slice = Key::Topic(levels.into()).shard() % RETAINED_SLICES;
    Bytes::copy_from_slice(&slice.to_be_bytes())
}

/// The key is among those that have retained messages.
pub(crate) fn list_key(levels: &str) -> Op {
    Op::Insert {
        table: RETAINED_KEYS,
        partition: retained_slice(levels),
        element: Bytes::copy_from_slice(levels.as_bytes()),
        value: Bytes::new(),
    }
}

pub(crate) fn put_retained(key: &Key, view: View, kept: &Kept, ops: &mut Vec<Op>) {
    let publish = &*kept.publish;
    let value = (!publish.payload.is_empty()).then(|| {
        let stored = StoredPublish {
            topic: String::new(),
            payload: publish.payload.clone(),
            qos: publish.qos.into(),
            retain: true,
            properties: publish.properties.as_deref().cloned(),
            expires_at: publish.expires_at.unwrap_or_default(),
            owner: kept.owner.map(UserId::to_bytes).unwrap_or_default(),
            view,
            ..StoredPublish::default()
        };
        stored.encode_to_vec().into()
    });
    let name = Bytes::copy_from_slice(publish.topic.as_bytes());
    ops.push(Op::Put {
        table: RETAINED,
        partition: partition(key),
        name,
        view,
        value,
    });
}

/// A retained message from its row, and the view of who wrote that.
pub(crate) fn read_retained(name: &[u8], value: Bytes) -> Option<(Kept, View)> {
    let stored = StoredPublish::decode(value).ok()?;
    let owner = UserId::from_slice(&stored.owner);
    let publish = Publish {
        topic: std::str::from_utf8(name).ok()?.into(),
        payload: stored.payload,
        qos: u8::try_from(stored.qos).ok()?.min(2),
        retain: true,
        expires_at: (stored.expires_at != 0).then_some(stored.expires_at),
        properties: stored.properties.map(Box::new),
        from: None,
        message_id: None,
    };
    let kept = Kept {
        publish: Arc::new(publish),
        owner,
    };
    Some((kept, stored.view))
}

/// About how many bytes a retained message takes in memory.
pub(crate) fn weight(publish: &Publish) -> usize {
    weight_of(
        &publish.topic,
        publish.payload.len(),
        publish.properties.as_deref(),
    )
}

/// As [`weight`], of one that may become a retained message.
pub(crate) fn weight_of(topic: &str, payload: usize, properties: Option<&PublishProperties>) -> usize {
    ENTRY_BYTES + 2 * topic.len() + payload + properties.map_or(0, Message::encoded_len)
}

/// A topic in [`RETAINED_OF`].
pub(crate) fn owned_element(topic: &str) -> Bytes {
    Bytes::copy_from_slice(&xxh3_128(topic.as_bytes()).to_be_bytes())
}

/// A retained message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Kept {
    pub(crate) publish: Arc<Publish>,
    /// As whose it counts.
    pub(crate) owner: Option<UserId>,
}

impl Kept {
    /// It counts from now on.
    pub(crate) fn listed(&self) -> Option<Op> {
        let bytes = u32::try_from(weight(&self.publish)).unwrap_or(u32::MAX);
        self.owner.map(|owner| Op::Insert {
            table: RETAINED_OF,
            partition: owner.to_bytes(),
            element: owned_element(&self.publish.topic),
            value: Bytes::copy_from_slice(&bytes.to_be_bytes()),
        })
    }

    fn unlisted(&self) -> Option<Op> {
        self.owner.map(|owner| Op::Remove {
            table: RETAINED_OF,
            partition: owner.to_bytes(),
            element: owned_element(&self.publish.topic),
        })
    }

    /// Another takes its place.
    pub(crate) fn leave_to(&self, next: &Self, ops: &mut Vec<Op>) {
        if self.owner != next.owner {
            ops.extend(self.unlisted());
        }
        if self.owner != next.owner || weight(&self.publish) != weight(&next.publish) {
            ops.extend(next.listed());
        }
    }
}

/// Retained messages of one key.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    by_topic: BTreeMap<Box<str>, Kept>,
    bytes: usize,
    /// No message ends before this time, milliseconds since 1970; 0: none ends.
    first_end: u64,
}

impl Retained {
    /// Sets a message, whatever there is already; that comes back.
    pub(crate) fn put(&mut self, kept: Kept) -> Option<Kept> {
        let publish = &*kept.publish;
        if let Some(end) = publish.expires_at
            && (self.first_end == 0 || end < self.first_end)
        {
            self.first_end = end;
        }
        self.bytes += weight(publish);
        let old = self.by_topic.insert(publish.topic.clone(), kept);
        self.bytes -= old.as_ref().map_or(0, |old| weight(&old.publish));
        old
    }

    /// Whether a message may be set: `quota` beyond the bounds of the key, unless it takes the place of one that is not
    /// smaller.
    pub(crate) fn check(&self, publish: &Publish) -> Result<(), Refusal> {
        let old = self.by_topic.get(&publish.topic);
        let old = old.map_or(0, |old| weight(&old.publish));
        let new = weight(publish);
        let more = old == 0 && self.by_topic.len() >= KEY_MESSAGES;
        let larger = new > old && self.bytes - old + new > KEY_BYTES;
        if more || larger {
            let detail = "no more retained messages under these first two levels";
            return Err(Refusal::new(Code::Quota, detail));
        }
        Ok(())
    }

    /// Takes a message out, if there is one.
    pub(crate) fn clear(&mut self, topic: &str) -> Option<Kept> {
        let old = self.by_topic.remove(topic)?;
        self.bytes -= weight(&old.publish);
        Some(old)
    }

    /// Takes out at most `limit` messages whose time is over.
    pub(crate) fn expire(&mut self, now_ms: u64, limit: usize) -> Vec<Kept> {
        if self.first_end == 0 || self.first_end > now_ms {
            return Vec::new();
        }
        let over = |kept: &&Kept| kept.publish.expires_at.is_some_and(|end| end <= now_ms);
        let all = self.by_topic.values().filter(over);
        let gone: Vec<Kept> = all.take(limit).cloned().collect();
        for kept in &gone {
            self.clear(&kept.publish.topic);
        }
        // At the limit some of those that are left are over too: the old time stands.
        if gone.len() < limit {
            let ends = self.by_topic.values().filter_map(|kept| kept.publish.expires_at);
            self.first_end = ends.min().unwrap_or(0);
        }
        gone
    }

    /// Those that match a filter and are not over, by topic name.
    pub(crate) fn matching(&self, filter: &str, now_ms: u64) -> Vec<Arc<Publish>> {
        let alive = |publish: &&Arc<Publish>| publish.expires_at.is_none_or(|end| end > now_ms);
        if !filter.contains(['+', '#']) {
            let one = self.by_topic.get(filter).map(|kept| &kept.publish).into_iter();
            return one.filter(alive).cloned().collect();
        }
        let all = self.by_topic.values().map(|kept| &kept.publish);
        all.filter(|publish| matches(filter, &publish.topic))
            .filter(alive)
            .cloned()
            .collect()
    }
}

/// The row that says that a topic has its retained message no longer; it counts as nobody's. Two writes at most.
pub(crate) fn clear_retained(key: &Key, view: View, kept: &Kept, ops: &mut Vec<Op>) {
    ops.push(ended(key, view, &kept.publish.topic));
    ops.extend(kept.unlisted());
}

/// The row alone.
pub(crate) fn ended(key: &Key, view: View, topic: &str) -> Op {
    Op::Put {
        table: RETAINED,
        partition: partition(key),
        name: Bytes::copy_from_slice(topic.as_bytes()),
        view,
        value: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(topic: &str, bytes: usize, expires_at: Option<u64>) -> Kept {
        let publish = Arc::new(Publish {
            topic: topic.into(),
            payload: vec![b'x'; bytes].into(),
            qos: 1,
            retain: true,
            expires_at,
            properties: None,
            from: None,
            message_id: None,
        });
        Kept { publish, owner: None }
    }

    #[test]
    fn a_retained_message_reads_back_from_its_row() {
        for owner in [None, Some(UserId::fresh())] {
            let original = Kept {
                owner,
                ..publish("a/b/c", 1, Some(99))
            };
            let mut ops = Vec::new();
            put_retained(&Key::Topic("a/b".into()), 1, &original, &mut ops);
            let Some(Op::Put {
                name,
                value: Some(value),
                ..
            }) = ops.pop()
            else {
                panic!("a put")
            };
            assert_eq!(read_retained(&name, value), Some((original, 1)));
        }
    }

    /// As whose it counts, and what is written besides its row.
    #[test]
    fn a_message_counts_as_its_last_publishers_until_it_is_gone() {
        let (alice, bob) = (UserId::fresh(), UserId::fresh());
        let of = |owner, bytes| Kept {
            owner: Some(owner),
            ..publish("t", bytes, None)
        };
        let writes = |ops: &[Op]| {
            let mut writes = Vec::new();
            for op in ops {
                match op {
                    Op::Insert { partition, .. } => writes.push((true, partition.clone())),
                    Op::Remove { partition, .. } => writes.push((false, partition.clone())),
                    _ => {}
                }
            }
            writes
        };
        let replaced = |old: Kept, new: Kept| {
            let mut ops = Vec::new();
            old.leave_to(&new, &mut ops);
            writes(&ops)
        };
        let (a, b) = (alice.to_bytes(), bob.to_bytes());
        assert_eq!(writes(&[of(alice, 1).listed().unwrap()]), [(true, a.clone())]);
        assert_eq!(replaced(of(alice, 1), of(alice, 1)), []);
        assert_eq!(replaced(of(alice, 1), of(alice, 2)), [(true, a.clone())]);
        assert_eq!(
            replaced(of(alice, 1), of(bob, 1)),
            [(false, a.clone()), (true, b)]
        );
        assert_eq!(
            replaced(of(alice, 1), publish("t", 1, None)),
            [(false, a.clone())]
        );
        let mut ops = Vec::new();
        clear_retained(&Key::Topic("t".into()), 1, &of(alice, 1), &mut ops);
        assert_eq!(writes(&ops), [(false, a)]);
    }

    #[test]
    fn a_key_takes_no_more_messages_or_bytes_than_its_quota_but_may_always_shrink() {
        let mut retained = Retained::default();
        for n in 0..KEY_MESSAGES {
            let one = publish(&n.to_string(), 1, None);
            assert!(retained.check(&one.publish).is_ok(), "message {n}");
            retained.put(one);
        }
        let code = |result: Result<(), Refusal>| result.map_err(|refusal| refusal.code);
        assert_eq!(
            code(retained.check(&publish("more", 1, None).publish)),
            Err(Code::Quota)
        );
        assert!(retained.check(&publish("7", 1, None).publish).is_ok());
        assert!(retained.clear("8").is_some() && retained.clear("8").is_none());
        assert!(retained.check(&publish("more", 1, None).publish).is_ok());

        let mut retained = Retained::default();
        let quarter = KEY_BYTES / 4;
        for topic in ["a", "b", "c"] {
            retained.put(publish(topic, quarter, None));
        }
        assert_eq!(
            code(retained.check(&publish("d", quarter, None).publish)),
            Err(Code::Quota)
        );
        assert_eq!(
            code(retained.check(&publish("a", quarter * 3, None).publish)),
            Err(Code::Quota)
        );
        assert!(retained.check(&publish("a", quarter, None).publish).is_ok());
        for topic in ["a", "b", "c"] {
            assert!(retained.clear(topic).is_some());
        }
        assert_eq!(retained.bytes, 0);
    }

    #[test]
    fn what_is_over_is_taken_out_in_portions_and_only_then() {
        let mut retained = Retained::default();
        for n in 0..10 {
            retained.put(publish(&n.to_string(), 1, Some(100 + n)));
        }
        retained.put(publish("stays", 1, None));
        assert!(retained.expire(99, 100).is_empty());
        assert_eq!(retained.expire(104, 3).len(), 3);
        assert_eq!(retained.expire(104, 3).len(), 2);
        assert!(retained.expire(104, 3).is_empty() && retained.first_end == 105);
        assert_eq!(
            retained.matching("#", 108).len(),
            2,
            "alive are 109 and what has no end"
        );
        assert_eq!(retained.expire(1_000, 100).len(), 5);
        assert_eq!((retained.by_topic.len(), retained.first_end), (1, 0));
        assert_eq!(retained.matching("stays", 0).len(), 1);
    }
}
