//! Topic aliases of one connection (MQTT 5, 3.3.2.3.4): what the client's stand for, and which topics of ours have one. They
//! end with the connection. Nothing is encoded here.

use std::sync::Arc;

use godwit_wire::limits::{TOPIC_ALIASES, TOPIC_BYTES};
use xxhash_rust::xxh3::xxh3_64;

use crate::codec::{Alias, DecodeError, reason};
use crate::packet::PublishIn;

/// Most aliases that are given to topics towards one client, whatever it takes: each keeps its topic in memory, and all of
/// them are compared with at every PUBLISH.
const GIVEN: u16 = 16;
/// Topics remembered (as hashes) that had no alias when they were last sent: one that comes again among them repeats.
const SEEN: usize = 64;
/// An alias is given to another topic once its own was not sent for as many PUBLISHes: topics in turn, more than there are
/// aliases, would else take them from each other and save nothing.
const UNUSED: u32 = 128;
/// A topic with an alias costs 3 bytes more once and its length less from then on: shorter ones gain nothing.
const SHORTEST: usize = 4;
/// Bytes of a topic name that are kept for an alias: a name over the limit is refused, and is so when it is cut a little
/// above it.
const KEPT_BYTES: usize = TOPIC_BYTES + 1;

/// Aliases of one connection.
#[derive(Default)]
pub(super) struct Aliases {
    /// What the client's aliases stand for, from 1; empty: nothing yet.
    taken: Vec<Box<str>>,
    given: Option<Given>,
}

/// Aliases towards the client.
struct Given {
    /// As many at most.
    most: usize,
    /// From 1, with the PUBLISH that used it last.
    topics: Vec<(Arc<str>, u32)>,
    seen: Vec<u64>,
    /// Where the next one is remembered.
    next: usize,
    /// PUBLISHes so far.
    count: u32,
}

impl Aliases {
    /// For a client that takes so many (0: none).
    pub(super) fn towards(maximum: u16) -> Self {
        let given = || Given {
            most: usize::from(maximum.min(GIVEN)),
            topics: Vec::new(),
            seen: Vec::new(),
            next: 0,
            count: 0,
        };
        Self {
            taken: Vec::new(),
            given: (maximum > 0).then(given),
        }
    }

    /// Puts the topic in a PUBLISH with an alias, and takes the alias out. `Err`: the connection ends.
    pub(super) fn resolve(&mut self, publish: &mut PublishIn) -> Result<(), DecodeError> {
        let Some(alias) = publish.topic_alias.take() else {
            return Ok(());
        };
        if alias == 0 || alias > TOPIC_ALIASES {
            return Err(DecodeError {
                reason: reason::TOPIC_ALIAS,
                what: "a topic alias of 0 or above the maximum",
            });
        }
        let index = usize::from(alias) - 1;
        if publish.topic.is_empty() {
            let taken = self.taken.get(index);
            publish.topic = taken
                .filter(|topic| !topic.is_empty())
                .ok_or(DecodeError::protocol("a topic alias that stands for nothing"))?
                .clone();
            return Ok(());
        }
        let taken = &mut self.taken;
        if taken.len() <= index {
            taken.resize_with(index + 1, Box::default);
        }
        let kept = publish.topic.floor_char_boundary(KEPT_BYTES + 3);
        if let (Some(place), Some(topic)) = (taken.get_mut(index), publish.topic.get(..kept)) {
            *place = topic.into();
        }
        Ok(())
    }

    /// The alias that a PUBLISH on this topic may go with. If it does, [`Self::went`] follows.
    pub(super) fn choose(&mut self, topic: &str) -> Option<Alias> {
        let given = self.given.as_mut()?;
        if topic.len() < SHORTEST {
            return None;
        }
        given.count = given.count.wrapping_add(1);
        let number = |index: usize, with_topic| {
            // At most `GIVEN`.
            let number = index as u16 + 1;
            Some(Alias { number, with_topic })
        };
        if let Some(index) = given.topics.iter().position(|(known, _)| **known == *topic) {
            return number(index, false);
        }
        let hash = xxh3_64(topic.as_bytes());
        if !given.seen.contains(&hash) {
            given.remember(hash);
            return None;
        }
        if given.topics.len() < given.most {
            return number(given.topics.len(), true);
        }
        let age = |(_, used): &(Arc<str>, u32)| given.count.wrapping_sub(*used);
        let oldest = (0..given.topics.len()).max_by_key(|index| given.topics.get(*index).map(age))?;
        let unused = given.topics.get(oldest).is_some_and(|topic| age(topic) > UNUSED);
        if unused { number(oldest, true) } else { None }
    }

    /// A PUBLISH on this topic went with an alias that was chosen.
    pub(super) fn went(&mut self, topic: &Arc<str>, alias: Alias) {
        let Some(given) = self.given.as_mut() else { return };
        let (index, count) = (usize::from(alias.number).saturating_sub(1), given.count);
        match given.topics.get_mut(index) {
            Some(place) if alias.with_topic => *place = (topic.clone(), count),
            Some((_, used)) => *used = count,
            None => given.topics.push((topic.clone(), count)),
        }
    }
}

impl Given {
    fn remember(&mut self, hash: u64) {
        if self.seen.len() < SEEN {
            self.seen.push(hash);
        } else if let Some(place) = self.seen.get_mut(self.next) {
            *place = hash;
            self.next = (self.next + 1) % SEEN;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(topic: &str, alias: Option<u16>) -> PublishIn {
        PublishIn {
            topic: topic.into(),
            topic_alias: alias,
            payload: bytes::Bytes::new(),
            qos: 0,
            retain: false,
            dup: false,
            packet_id: 0,
            message_expiry: None,
            properties: None,
        }
    }

    /// The topic that it has in the end, or the reason code.
    fn resolve(of: &mut Aliases, topic: &str, alias: u16) -> Result<Box<str>, u8> {
        let mut given = publish(topic, Some(alias));
        of.resolve(&mut given).map_err(|error| error.reason)?;
        assert_eq!(given.topic_alias, None);
        Ok(given.topic)
    }

    /// Whether a PUBLISH goes with an alias, and with its topic.
    fn send(aliases: &mut Aliases, topic: &str) -> Option<(u16, bool)> {
        let alias = aliases.choose(topic)?;
        aliases.went(&topic.into(), alias);
        Some((alias.number, alias.with_topic))
    }

    #[test]
    fn an_alias_stands_for_the_topic_that_was_last_sent_with_it() {
        let mut of = Aliases::default();
        assert_eq!(resolve(&mut of, "", 1), Err(0x82));
        assert_eq!(of.taken.capacity(), 0, "nothing is kept for nothing");
        for (topic, alias, expected) in [
            ("a/b", 16, "a/b"),
            ("", 16, "a/b"),
            ("c", 2, "c"),
            ("", 16, "a/b"),
            ("d", 16, "d"),
            ("", 16, "d"),
            ("", 2, "c"),
        ] {
            assert_eq!(resolve(&mut of, topic, alias).as_deref(), Ok(expected));
        }
        assert_eq!(resolve(&mut of, "", 3), Err(0x82), "a hole in the table");
        assert_eq!(resolve(&mut of, "x", 0), Err(0x94));
        assert_eq!(resolve(&mut of, "x", TOPIC_ALIASES + 1), Err(0x94));
        assert_eq!(resolve(&mut of, "", u16::MAX), Err(0x94));
        let mut without = publish("x", None);
        assert!(of.resolve(&mut without).is_ok());
        assert_eq!(&*without.topic, "x");
    }

    #[test]
    fn a_table_is_bounded_and_a_name_over_the_limit_stays_over_it() {
        let (mut of, long) = (Aliases::default(), "\u{e9}".repeat(32_000));
        for alias in 1..=TOPIC_ALIASES {
            assert_eq!(resolve(&mut of, &long, alias).as_deref(), Ok(&*long));
            let kept = resolve(&mut of, "", alias).unwrap();
            assert!(
                (TOPIC_BYTES + 1..TOPIC_BYTES + 8).contains(&kept.len()),
                "{}",
                kept.len()
            );
        }
        assert_eq!(of.taken.len(), usize::from(TOPIC_ALIASES));
    }

    #[test]
    fn a_topic_gets_an_alias_when_it_repeats_and_keeps_it_while_it_is_used() {
        let mut aliases = Aliases::towards(2);
        assert_eq!(send(&mut aliases, "first"), None);
        assert_eq!(send(&mut aliases, "first"), Some((1, true)));
        assert_eq!(send(&mut aliases, "first"), Some((1, false)));
        for n in 0..10 {
            assert_eq!(send(&mut aliases, &format!("once {n}")), None);
        }
        assert_eq!(send(&mut aliases, "t/t"), None, "too short to gain");
        assert_eq!(send(&mut aliases, "t/t"), None);
        assert_eq!(send(&mut aliases, "second"), None);
        assert_eq!(send(&mut aliases, "second"), Some((2, true)));
        for _ in 0..UNUSED {
            assert_eq!(send(&mut aliases, "third"), None, "both are in use");
            assert_eq!(send(&mut aliases, "first"), Some((1, false)));
            assert_eq!(send(&mut aliases, "second"), Some((2, false)));
        }
        for _ in 0..=UNUSED {
            assert_eq!(send(&mut aliases, "second"), Some((2, false)));
        }
        assert_eq!(send(&mut aliases, "third"), Some((1, true)), "the idle one goes");
        assert_eq!(send(&mut aliases, "third"), Some((1, false)));
        assert_eq!(send(&mut aliases, "first"), None);
    }

    #[test]
    fn a_client_is_given_no_more_aliases_than_it_takes_or_than_the_bound() {
        for (takes, most) in [(0, 0), (1, 1), (5, 5), (16, 16), (u16::MAX, GIVEN)] {
            let (mut highest, mut aliases) = (0, Aliases::towards(takes));
            for n in 0..4 * SEEN {
                let topic = format!("topic {n}");
                send(&mut aliases, &topic);
                highest = highest.max(send(&mut aliases, &topic).map_or(0, |(number, _)| number));
            }
            let bounded = |given: Given| given.seen.len() <= SEEN && given.topics.len() == usize::from(most);
            assert!(aliases.given.is_none_or(bounded));
            assert_eq!(highest, most, "a client that takes {takes}");
        }
    }

    #[test]
    fn what_was_chosen_and_did_not_go_is_not_taken_for_known() {
        let mut aliases = Aliases::towards(1);
        send(&mut aliases, "topic");
        for _ in 0..3 {
            let chosen = aliases.choose("topic").unwrap();
            assert!(chosen.with_topic);
        }
    }
}
