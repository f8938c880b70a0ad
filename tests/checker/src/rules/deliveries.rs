//! What sessions got against what is stored: ORDER, PHANTOM, SCOPE, DUP, and of SEQ and CONTENT what concerns the
//! recipient's side. Leaves what each session saw for the rule of what it was owed.

use std::collections::{HashMap, HashSet};

use super::Repeats;
use super::stored::Index;
use crate::Limits;
use crate::run::{Conversation, Delivery, Key, NOBODY, Run, Stored};
use crate::verdict::Verdict;

/// (session, conversation) → positions seen, rising.
pub(super) type Seen = HashMap<(u32, u32), Vec<u32>>;

pub(super) fn check(run: &mut Run, index: &Index, limits: &Limits, verdict: &mut Verdict) -> Seen {
    // By time within a session and conversation; two of one instant as they were written down.
    let mut deliveries = std::mem::take(&mut run.deliveries);
    deliveries.sort_unstable_by_key(|d| (d.session, d.conversation, d.t, d.at));
    let mut seen = Seen::new();
    let mut repeats = Repeats::default();
    for group in deliveries.chunk_by_mut(|a, b| (a.session, a.conversation) == (b.session, b.conversation)) {
        let key = (group[0].session, group[0].conversation);
        seen.insert(
            key,
            Group::new(run, index, key).check(group, &mut repeats, verdict),
        );
    }
    repeats.judge("deliveries", deliveries.len(), limits, verdict);
    run.deliveries = deliveries;
    seen
}

/// One session's view of one conversation.
struct Group<'a> {
    run: &'a Run,
    index: &'a Index,
    session: u32,
    number: u32,
    conversation: Option<&'a Conversation>,
    /// Positions in the order of their first deliveries while that is the order of numbers, with the time of the
    /// last delivery; an inverted one is put where it belongs.
    seen: Vec<(u32, u64)>,
    /// Contents that stand twice and came as bare text: which of the two came is anybody's guess.
    bare_doubles: HashSet<Key>,
}

impl<'a> Group<'a> {
    fn new(run: &'a Run, index: &'a Index, (session, number): (u32, u32)) -> Self {
        Self {
            run,
            index,
            session,
            number,
            conversation: run.conversations.get(&number),
            seen: Vec::new(),
            bare_doubles: HashSet::new(),
        }
    }

    fn check(mut self, group: &mut [Delivery], repeats: &mut Repeats, verdict: &mut Verdict) -> Vec<u32> {
        for delivery in group {
            let Some(entry) = self.stored(delivery, verdict) else {
                continue;
            };
            delivery.seq = entry.seq;
            self.compare(delivery, entry, verdict);
            self.in_scope(delivery, verdict);
            self.in_order(delivery, entry, repeats, verdict);
        }
        let mut seen: Vec<u32> = self.seen.iter().map(|(seq, _)| *seq).collect();
        // Who had one of two equal bare texts cannot be said to lack the other.
        let history = self
            .conversation
            .map_or(&[][..], |conversation| &conversation.history);
        let other = |hash: &Key| self.index.text(self.number, *hash).iter();
        seen.extend(
            self.bare_doubles
                .iter()
                .flat_map(other)
                .map(|place| history[*place as usize].seq),
        );
        seen.sort_unstable();
        seen.dedup();
        seen
    }

    /// Whether nothing tells this delivery from that of an equal text.
    fn is_bare_double(&self, delivery: &Delivery, entry: &Stored) -> bool {
        delivery.message == 0 && delivery.inbox == 0 && self.index.text(self.number, entry.hash).len() > 1
    }

    fn name(&self) -> &'a str {
        self.run.names.text(self.number)
    }

    /// The entry that was delivered, by message id, else by position, else by content.
    fn stored(&self, delivery: &Delivery, verdict: &mut Verdict) -> Option<&'a Stored> {
        let conversation = self.conversation?;
        let by_position = conversation.at(delivery.seq);
        let found = if delivery.message != 0 {
            self.index
                .message(delivery.message)
                .filter(|(number, _)| *number == self.number)
                .map(|(_, place)| &conversation.history[place])
        } else if delivery.seq != 0 {
            by_position
        } else {
            self.by_content(conversation, delivery)
        };
        let name = self.name();
        match (found, by_position) {
            (Some(entry), Some(other)) if entry.seq != delivery.seq => {
                verdict.broken("SEQ", &[delivery.at, other.at], || {
                    format!(
                        "delivered as {} of {name}, in history it is {}",
                        delivery.seq, entry.seq
                    )
                });
            }
            (None, Some(other)) => verdict.broken("SEQ", &[delivery.at, other.at], || {
                format!(
                    "{} of {name} was delivered as another message than history has",
                    delivery.seq
                )
            }),
            (None, None) => verdict.broken("PHANTOM", &[delivery.at], || {
                format!("delivered in {name} and not in its history")
            }),
            _ => {}
        }
        found
    }

    /// Without any id: the entry of that content; of two equal ones, which only an excused double makes, the first.
    fn by_content(&self, conversation: &'a Conversation, delivery: &Delivery) -> Option<&'a Stored> {
        let place = self.index.text(self.number, delivery.hash).first()?;
        Some(&conversation.history[*place as usize])
    }

    fn highest(&self) -> u32 {
        self.seen.last().map_or(0, |(seq, _)| *seq)
    }

    fn compare(&self, delivery: &Delivery, entry: &Stored, verdict: &mut Verdict) {
        let differs = if delivery.hash != entry.hash {
            "content"
        } else if ![entry.sender, NOBODY].contains(&delivery.sender) && entry.sender != NOBODY {
            "sender"
        } else if delivery.client_id != 0 && delivery.client_id != entry.client_id {
            "client id"
        } else {
            return;
        };
        verdict.broken("CONTENT", &[delivery.at, entry.at], || {
            format!(
                "{} of {} was delivered with another {differs}",
                entry.seq,
                self.name()
            )
        });
    }

    fn in_scope(&self, delivery: &Delivery, verdict: &mut Verdict) {
        let user = self
            .run
            .sessions
            .get(&self.session)
            .and_then(|session| session.user);
        let members = self
            .conversation
            .map_or(&[][..], |conversation| &conversation.members);
        if !members
            .iter()
            .any(|interval| Some(interval.user) == user && interval.covers(delivery.seq))
        {
            verdict.broken("SCOPE", &[delivery.at], || {
                let user = user.map_or("?", |user| self.run.names.text(user));
                format!(
                    "{user} got {} of {} and was no member there",
                    delivery.seq,
                    self.name()
                )
            });
        }
    }

    fn in_order(
        &mut self,
        delivery: &Delivery,
        entry: &Stored,
        repeats: &mut Repeats,
        verdict: &mut Verdict,
    ) {
        let seq = delivery.seq;
        if self.is_bare_double(delivery, entry) && !self.bare_doubles.insert(entry.hash) {
            repeats.explained += 1;
            return;
        }
        if seq > self.highest() {
            self.seen.push((seq, delivery.t));
            return;
        }
        match self.seen.binary_search_by_key(&seq, |(seq, _)| *seq) {
            Ok(place) => {
                let before = std::mem::replace(&mut self.seen[place].1, delivery.t);
                if let Some(session) = self.run.sessions.get(&self.session) {
                    repeats.add(&self.run.kills, session, before, delivery.t);
                }
            }
            Err(place) => {
                let highest = self.highest();
                self.seen.insert(place, (seq, delivery.t));
                verdict.broken("ORDER", &[delivery.at], || {
                    let session = self.run.names.text(self.session);
                    format!(
                        "{session} got {seq} of {} for the first time after {highest}",
                        self.name()
                    )
                });
            }
        }
    }
}
