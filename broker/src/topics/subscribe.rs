//! Routes come and go: durable and in every worker's copy before the SUBACK; retained messages are collected for it.

use std::sync::Arc;

use bytes::Bytes;
use godwit_cluster::{Cx, Reply};
use godwit_store::{Read, ReadAnswer};
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::{Answer, Command, Publish, Route, TopicCommand};
use godwit_wire::ids::Key;
use godwit_wire::limits::WILDCARD_FILTERS;

use super::home::{RETAINED_SLICES, drop_route, put_route};
use super::{PAGE, RETAINED_KEYS, Step, Topics};

/// Most retained messages that one SUBSCRIBE collects over all keys; a filter that matches more is refused (quota).
const RETAINED_AT_ONCE: usize = 100_000;

/// A subscription whose parts are under way.
#[derive(Debug)]
pub(super) struct Subscribing {
    key: Key,
    route: Route,
    retained: bool,
    reply: Reply,
    outstanding: usize,
    refusal: Option<Refusal>,
}

/// Retained messages being collected for a filter with early wildcards.
#[derive(Debug)]
pub(super) struct Collecting {
    filter: Box<str>,
    found: Vec<Arc<Publish>>,
    outstanding: usize,
    refusal: Option<Refusal>,
    reply: Reply,
}

impl Topics {
    pub(super) fn subscribe(
        &mut self,
        cx: &mut Cx<'_>,
        key: &Key,
        route: Route,
        retained: bool,
        reply: Reply,
    ) {
        if let Key::WildcardCopy(_) = key {
            self.wildcards.insert(route);
            self.metrics.wildcards.set(self.wildcards.len() as i64);
            cx.answer(reply, Answer::Done);
            return;
        }
        if *key == Key::Wildcards && self.wildcards.len() >= WILDCARD_FILTERS {
            let detail = "no more filters with a wildcard in the first two levels";
            cx.answer(reply, Refusal::new(Code::Quota, detail).into());
            return;
        }
        let mut ops = Vec::new();
        if route.persistent {
            ops.push(put_route(key, &route));
        }
        if let Some(home) = self.home(key) {
            home.busy += 1;
            if let Some(old) = home.insert(route.clone())
                && old.persistent
                && old.route_id != route.route_id
            {
                ops.push(drop_route(key, &old));
            }
        } else if let Some(old) = self.old_wildcard(&route) {
            ops.push(drop_route(key, &old));
        }
        let copies = if *key == Key::Wildcards { cx.workers() } else { 0 };
        let outstanding = usize::from(copies) + usize::from(!ops.is_empty());
        let subscribing = Subscribing {
            key: key.clone(),
            route: route.clone(),
            retained,
            reply,
            outstanding,
            refusal: None,
        };
        let place = self.subscribing.insert(subscribing);
        for worker in 0..copies {
            let tag = self.step(Step::Subscribe(place));
            let copy = TopicCommand::Subscribe {
                route: route.clone(),
                retained: false,
            };
            cx.ask(tag, Key::WildcardCopy(worker), Command::Topic(copy));
        }
        if !ops.is_empty() {
            let tag = self.step(Step::Subscribe(place));
            cx.store(tag, ops);
        }
        if outstanding == 0 {
            self.subscribed(cx, place);
        }
    }

    fn old_wildcard(&self, route: &Route) -> Option<Route> {
        let old = self.wildcards.get(route.session, &route.filter)?;
        (old.persistent && old.route_id != route.route_id).then(|| old.clone())
    }

    pub(super) fn subscribe_part_done(&mut self, cx: &mut Cx<'_>, place: usize, answer: Option<Answer>) {
        let Some(subscribing) = self.subscribing.get_mut(place) else {
            return;
        };
        if let Some(Answer::Refused(refusal)) = answer {
            subscribing.refusal.get_or_insert(refusal);
        }
        subscribing.outstanding -= 1;
        if subscribing.outstanding == 0 {
            self.subscribed(cx, place);
        }
    }

    /// The route is live and durable.
    fn subscribed(&mut self, cx: &mut Cx<'_>, place: usize) {
        let Some(Subscribing {
            key,
            route,
            retained,
            reply,
            refusal,
            ..
        }) = self.subscribing.try_remove(place)
        else {
            return;
        };
        let now = cx.now().unix_ms;
        let mut found = Vec::new();
        if let Some(home) = self.home(&key) {
            home.busy = home.busy.saturating_sub(1);
            if retained {
                found = home.retained_matching(&route.filter, now);
            }
        }
        if let Some(refusal) = refusal {
            cx.answer(reply, refusal.into());
        } else if retained && key == Key::Wildcards {
            self.collect(cx, route.filter, reply);
        } else {
            cx.answer(reply, Answer::Retained(found));
        }
    }

    pub(super) fn unsubscribe(&mut self, cx: &mut Cx<'_>, key: &Key, route: &Route, reply: Reply) {
        let id = Some(route.route_id);
        match key {
            Key::WildcardCopy(_) => {
                self.wildcards.remove(route.session, &route.filter, id);
                self.metrics.wildcards.set(self.wildcards.len() as i64);
                cx.answer(reply, Answer::Done);
                return;
            }
            Key::Wildcards => {
                for worker in 0..cx.workers() {
                    let copy = TopicCommand::Unsubscribe { route: route.clone() };
                    cx.tell(Key::WildcardCopy(worker), Command::Topic(copy));
                }
            }
            _ => {
                if let Some(home) = self.home(key) {
                    home.remove(route.session, &route.filter, id);
                }
            }
        }
        if !route.persistent {
            cx.answer(reply, Answer::Done);
            return;
        }
        let levels = match key {
            Key::Topic(levels) => levels.clone(),
            _ => "".into(),
        };
        if let Some(home) = self.home(key) {
            home.busy += 1;
        }
        let tag = self.step(Step::Unsubscribe(levels, reply));
        cx.store(tag, vec![drop_route(key, route)]);
    }

    /// Retained messages for a filter that may match topics of any key: the lists of keys are read, then each key that
    /// the filter can match is asked.
    fn collect(&mut self, cx: &mut Cx<'_>, filter: Box<str>, reply: Reply) {
        let outstanding = usize::from(RETAINED_SLICES);
        let place = self.collecting.insert(Collecting {
            filter,
            found: Vec::new(),
            outstanding,
            refusal: None,
            reply,
        });
        for slice in 0..RETAINED_SLICES {
            self.read_slice(cx, place, slice, None);
        }
    }

    fn read_slice(&mut self, cx: &mut Cx<'_>, place: usize, slice: u16, after: Option<Bytes>) {
        let tag = self.step(Step::RetainedKeys(place, slice));
        let partition = Bytes::copy_from_slice(&slice.to_be_bytes());
        cx.read(
            tag,
            vec![Read::Set {
                table: RETAINED_KEYS,
                partition,
                after,
                up_to: None,
                limit: PAGE,
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
            self.collected(cx, place);
            return;
        };
        let filter = collecting.filter.clone();
        let last = elements.last().map(|(element, _)| element.clone());
        for (element, _) in elements {
            let Ok(levels) = std::str::from_utf8(&element) else {
                continue;
            };
            if !may_match(&filter, levels) {
                continue;
            }
            if let Some(collecting) = self.collecting.get_mut(place) {
                collecting.outstanding += 1;
            }
            let tag = self.step(Step::RetainedOf(place));
            let command = TopicCommand::Retained {
                filter: filter.clone(),
            };
            cx.ask(tag, Key::Topic(levels.into()), Command::Topic(command));
        }
        if let (true, Some(last)) = (more, last) {
            self.read_slice(cx, place, slice, Some(last));
        } else {
            self.collected(cx, place);
        }
    }

    pub(super) fn retained_of_key(&mut self, cx: &mut Cx<'_>, place: usize, answer: Answer) {
        let Some(collecting) = self.collecting.get_mut(place) else {
            return;
        };
        match answer {
            Answer::Retained(found) if collecting.found.len() + found.len() <= RETAINED_AT_ONCE => {
                collecting.found.extend(found);
            }
            Answer::Retained(_) => {
                let detail = "this filter matches more retained messages than one subscription may ask for";
                collecting
                    .refusal
                    .get_or_insert_with(|| Refusal::new(Code::Quota, detail));
            }
            Answer::Refused(refusal) => {
                collecting.refusal.get_or_insert(refusal);
            }
            _ => {}
        }
        self.collected(cx, place);
    }

    fn collected(&mut self, cx: &mut Cx<'_>, place: usize) {
        let Some(collecting) = self.collecting.get_mut(place) else {
            return;
        };
        collecting.outstanding -= 1;
        if collecting.outstanding == 0 {
            let Collecting {
                found,
                refusal,
                reply,
                ..
            } = self.collecting.remove(place);
            cx.answer(reply, refusal.map_or(Answer::Retained(found), Answer::Refused));
        }
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
