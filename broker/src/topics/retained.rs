//! The retained messages of one topic key: in memory with their bounds and ends, and as rows. Who gets them is decided
//! elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use godwit_store::{Kind, Op, Table, View};
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::Publish;
use godwit_wire::ids::Key;
use godwit_wire::proto::stored::StoredPublish;
use godwit_wire::topic::matches;
use prost::Message;

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

pub(crate) fn put_retained(key: &Key, view: View, publish: &Publish) -> Op {
    let value = (!publish.payload.is_empty()).then(|| {
        let stored = StoredPublish {
            topic: String::new(),
            payload: publish.payload.clone(),
            qos: publish.qos.into(),
            retain: true,
            properties: publish.properties.as_deref().cloned(),
            expires_at: publish.expires_at.unwrap_or_default(),
            ..StoredPublish::default()
        };
        stored.encode_to_vec().into()
    });
    let name = Bytes::copy_from_slice(publish.topic.as_bytes());
    Op::Put {
        table: RETAINED,
        partition: partition(key),
        name,
        view,
        value,
    }
}

/// A retained message from its row.
pub(crate) fn read_retained(name: &[u8], value: Bytes) -> Option<Publish> {
    let stored = StoredPublish::decode(value).ok()?;
    Some(Publish {
        topic: std::str::from_utf8(name).ok()?.into(),
        payload: stored.payload,
        qos: u8::try_from(stored.qos).ok()?.min(2),
        retain: true,
        expires_at: (stored.expires_at != 0).then_some(stored.expires_at),
        properties: stored.properties.map(Box::new),
        from: None,
        message_id: None,
    })
}

/// About how many bytes a retained message takes in memory.
pub(crate) fn weight(publish: &Publish) -> usize {
    let properties = publish.properties.as_deref().map_or(0, Message::encoded_len);
    ENTRY_BYTES + 2 * publish.topic.len() + publish.payload.len() + properties
}

/// Retained messages of one key.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    by_topic: BTreeMap<Box<str>, Arc<Publish>>,
    bytes: usize,
    /// No message ends before this time, milliseconds since 1970; 0: none ends.
    first_end: u64,
}

impl Retained {
    /// Sets a message, whatever there is already.
    pub(crate) fn put(&mut self, publish: Arc<Publish>) {
        if let Some(end) = publish.expires_at
            && (self.first_end == 0 || end < self.first_end)
        {
            self.first_end = end;
        }
        self.bytes += weight(&publish);
        if let Some(old) = self.by_topic.insert(publish.topic.clone(), publish) {
            self.bytes -= weight(&old);
        }
    }

    /// Whether a message may be set: `quota` beyond the bounds of the key, unless it takes the place of one that is not
    /// smaller.
    pub(crate) fn check(&self, publish: &Publish) -> Result<(), Refusal> {
        let old = self.by_topic.get(&publish.topic).map_or(0, |old| weight(old));
        let new = weight(publish);
        let more = old == 0 && self.by_topic.len() >= KEY_MESSAGES;
        let larger = new > old && self.bytes - old + new > KEY_BYTES;
        if more || larger {
            let detail = "no more retained messages under these first two levels";
            return Err(Refusal::new(Code::Quota, detail));
        }
        Ok(())
    }

    /// Takes a message out. `false`: there was none.
    pub(crate) fn clear(&mut self, topic: &str) -> bool {
        let old = self.by_topic.remove(topic);
        self.bytes -= old.as_deref().map_or(0, weight);
        old.is_some()
    }

    /// Takes out at most `limit` messages whose time is over, by topic.
    pub(crate) fn expire(&mut self, now_ms: u64, limit: usize) -> Vec<Box<str>> {
        if self.first_end == 0 || self.first_end > now_ms {
            return Vec::new();
        }
        let over = |publish: &Publish| publish.expires_at.is_some_and(|end| end <= now_ms);
        let all = self.by_topic.values().filter(|publish| over(publish));
        let gone: Vec<Box<str>> = all.take(limit).map(|publish| publish.topic.clone()).collect();
        for topic in &gone {
            self.clear(topic);
        }
        // At the limit some of those that are left are over too: the old time stands.
        if gone.len() < limit {
            let ends = self.by_topic.values().filter_map(|publish| publish.expires_at);
            self.first_end = ends.min().unwrap_or(0);
        }
        gone
    }

    /// Those that match a filter and are not over, by topic name.
    pub(crate) fn matching(&self, filter: &str, now_ms: u64) -> Vec<Arc<Publish>> {
        let alive = |publish: &&Arc<Publish>| publish.expires_at.is_none_or(|end| end > now_ms);
        if !filter.contains(['+', '#']) {
            let one = self.by_topic.get(filter).into_iter();
            return one.filter(alive).cloned().collect();
        }
        let all = self.by_topic.values();
        all.filter(|publish| matches(filter, &publish.topic))
            .filter(alive)
            .cloned()
            .collect()
    }
}

/// The row that says that a topic has no retained message.
pub(crate) fn clear_retained(key: &Key, view: View, topic: &str) -> Op {
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

    fn publish(topic: &str, bytes: usize, expires_at: Option<u64>) -> Arc<Publish> {
        Arc::new(Publish {
            topic: topic.into(),
            payload: vec![b'x'; bytes].into(),
            qos: 1,
            retain: true,
            expires_at,
            properties: None,
            from: None,
            message_id: None,
        })
    }

    #[test]
    fn a_retained_message_reads_back_from_its_row() {
        let original = publish("a/b/c", 1, Some(99));
        let Op::Put {
            name,
            value: Some(value),
            ..
        } = put_retained(&Key::Topic("a/b".into()), 1, &original)
        else {
            panic!("a put")
        };
        assert_eq!(read_retained(&name, value).as_ref(), Some(&*original));
    }

    #[test]
    fn a_key_takes_no_more_messages_or_bytes_than_its_quota_but_may_always_shrink() {
        let mut retained = Retained::default();
        for n in 0..KEY_MESSAGES {
            let one = publish(&n.to_string(), 1, None);
            assert!(retained.check(&one).is_ok(), "message {n}");
            retained.put(one);
        }
        let code = |result: Result<(), Refusal>| result.map_err(|refusal| refusal.code);
        assert_eq!(code(retained.check(&publish("more", 1, None))), Err(Code::Quota));
        assert!(retained.check(&publish("7", 1, None)).is_ok());
        assert!(retained.clear("8") && !retained.clear("8"));
        assert!(retained.check(&publish("more", 1, None)).is_ok());

        let mut retained = Retained::default();
        let quarter = KEY_BYTES / 4;
        for topic in ["a", "b", "c"] {
            retained.put(publish(topic, quarter, None));
        }
        assert_eq!(
            code(retained.check(&publish("d", quarter, None))),
            Err(Code::Quota)
        );
        assert_eq!(
            code(retained.check(&publish("a", quarter * 3, None))),
            Err(Code::Quota)
        );
        assert!(retained.check(&publish("a", quarter, None)).is_ok());
        for topic in ["a", "b", "c"] {
            assert!(retained.clear(topic));
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
