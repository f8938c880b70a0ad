//! Retained messages for a filter that may match topics of any key: the lists of keys are read page after page, and
//! each key that the filter can match is asked.

use std::sync::Arc;

use bytes::Bytes;
use godwit_cluster::{Cx, Reply};
use godwit_store::{Read, ReadAnswer};
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::{Answer, Command, Publish, TopicCommand};
use godwit_wire::ids::Key;

use super::retained::{KEY_BYTES, KEY_MESSAGES, RETAINED_KEYS, RETAINED_SLICES, weight};
use super::{Step, Topics};
use crate::copies::{Held, copied};

/// Most retained messages that one SUBSCRIBE collects over all keys; a filter that matches more is refused (quota).
pub(crate) const RETAINED_AT_ONCE: usize = 100_000;
/// And most bytes of them: what is collected is kept in memory until the client has taken it.
pub(crate) const RETAINED_BYTES: usize = 64 * 1024 * 1024;
/// Keys that are asked at a time: each may have to be loaded.
const KEYS_AT_ONCE: u32 = 128;

const _: () = assert!(KEY_MESSAGES <= RETAINED_AT_ONCE && KEY_BYTES <= RETAINED_BYTES);

/// Retained messages being collected.
#[derive(Debug)]
pub(super) struct Collecting {
    filter: Box<str>,
    found: Vec<Arc<Publish>>,
    bytes: usize,
    /// Room of what of it is a copy of another node's.
    held: Vec<Held>,
    /// Where the next page of keys begins; `None` after the last.
    next: Option<(u16, Option<Bytes>)>,
    /// Keys that have not answered.
    outstanding: usize,
    refusal: Option<Refusal>,
    reply: Reply,
}

impl Topics {
    pub(super) fn collect(&mut self, cx: &mut Cx<'_>, filter: Box<str>, reply: Reply) {
        let place = self.collecting.insert(Collecting {
            filter,
            found: Vec::new(),
            bytes: 0,
            held: Vec::new(),
            next: Some((0, None)),
            outstanding: 0,
            refusal: None,
            reply,
        });
        self.collect_more(cx, place);
    }

    /// Nothing is outstanding: the next page, or the answer.
    fn collect_more(&mut self, cx: &mut Cx<'_>, place: usize) {
        let Some(collecting) = self.collecting.get_mut(place) else {
            return;
        };
        let next = collecting.next.take().filter(|_| collecting.refusal.is_none());
        let Some((slice, after)) = next else {
            let done = self.collecting.remove(place);
            let answer = done.refusal.map_or(Answer::Retained(done.found), Answer::Refused);
            cx.answer(done.reply, answer);
            return;
        };
        let tag = self.step(Step::RetainedKeys(place, slice));
        cx.read(
            tag,
            vec![Read::Set {
                table: RETAINED_KEYS,
                partition: Bytes::copy_from_slice(&slice.to_be_bytes()),
                after,
                up_to: None,
                limit: KEYS_AT_ONCE,
            }],
        );
    }

    pub(super) fn retained_keys(
        &mut self,
        cx: &mut Cx<'_>,
        place: usize,
        slice: u16,
        answers: Option<Vec<ReadAnswer>>,
    ) {
        let page = answers.and_then(|answers| answers.into_iter().next());
        let Some(collecting) = self.collecting.get_mut(place) else {
            return;
        };
        let Some(ReadAnswer::Set { elements, more }) = page else {
            collecting.refusal.get_or_insert_with(Refusal::unavailable);
            self.collect_more(cx, place);
            return;
        };
        let last = elements
            .last()
            .filter(|_| more)
            .map(|(element, _)| element.clone());
        collecting.next = match last {
            Some(last) => Some((slice, Some(last))),
            None => Some((slice + 1, None)).filter(|_| slice + 1 < RETAINED_SLICES),
        };
        let filter = collecting.filter.clone();
        let levels = |element: &Bytes| Some(Box::<str>::from(std::str::from_utf8(element).ok()?));
        let keys = elements.iter().filter_map(|(element, _)| levels(element));
        let keys: Vec<Box<str>> = keys.filter(|key| may_match(&filter, key)).collect();
        collecting.outstanding = keys.len();
        if keys.is_empty() {
            self.collect_more(cx, place);
        }
        for levels in keys {
            let tag = self.step(Step::RetainedOf(place));
            let command = TopicCommand::Retained {
                filter: filter.clone(),
            };
            cx.ask(tag, Key::Topic(levels), Command::Topic(command));
        }
    }

    pub(super) fn retained_of_key(&mut self, cx: &mut Cx<'_>, place: usize, answer: Answer) {
        let Some(collecting) = self.collecting.get_mut(place) else {
            return;
        };
        let copies = &self.metrics.copies;
        match answer {
            Answer::Retained(found) if collecting.refusal.is_none() => {
                collecting.bytes += found.iter().map(|publish| weight(publish)).sum::<usize>();
                let room = match copied(&found) {
                    0 => Ok(()),
                    bytes => copies.hold(bytes).map(|held| collecting.held.push(held)),
                };
                collecting.found.extend(found);
                if collecting.found.len() > RETAINED_AT_ONCE || collecting.bytes > RETAINED_BYTES {
                    collecting.refuse(
                        "this filter matches more retained messages than one subscription may ask for",
                    );
                } else if room.is_err() {
                    self.metrics.count_limit("retained_copies");
                    collecting.refuse("too many retained messages of other nodes wait for clients");
                }
            }
            Answer::Refused(refusal) => {
                collecting.refusal.get_or_insert(refusal);
            }
            _ => {}
        }
        collecting.outstanding -= 1;
        if collecting.outstanding == 0 {
            self.collect_more(cx, place);
        }
    }
}

impl Collecting {
    /// It is more than may be kept.
    fn refuse(&mut self, detail: &'static str) {
        self.found = Vec::new();
        self.held = Vec::new();
        self.refusal
            .get_or_insert_with(|| Refusal::new(Code::Quota, detail));
    }
}

/// Whether a filter can match a topic of the key with these first levels.
fn may_match(filter: &str, levels: &str) -> bool {
    let mut wanted = filter.split('/');
    for level in levels.split('/') {
        match wanted.next() {
            Some("#") => return true,
            Some("+") => {}
            Some(literal) if literal == level => {}
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_that_a_filter_can_match_are_asked() {
        assert!(
            may_match("#", "a/b")
                && may_match("+/b/c", "a/b")
                && may_match("a/#", "a")
                && may_match("a/+", "a/b")
        );
        assert!(!may_match("+/b/c", "a/c") && !may_match("+", "a/b") && !may_match("a/#", "b"));
    }
}
