//! What comes of a filter's route and its retained messages: with one answer, or, of another node's messages while a worker holds as many as it
//! may, one after the other (see `copies`).

use std::sync::Arc;

use godwit_cluster::Cx;
use godwit_wire::code::Code;
use godwit_wire::command::{Answer, Command, Publish, TopicCommand};
use godwit_wire::ids::{SessionId, UserId};
use godwit_wire::topic::filter_key;

use super::Users;
use super::copies::{Fetch, Held, Place, Waits};
use super::env::{Env, What};
use super::home::Home;
use super::request::{For, Found, Request};
use super::subscribe::{QUOTA, UNSPECIFIED};
use crate::topics::weight;
use crate::wire_trait::Wire;

impl Users {
    /// Those whose turn has come ask for their retained messages.
    pub(super) fn ask_for_copies(&mut self, cx: &mut Cx<'_>, wire: &mut dyn Wire) {
        while let Some((waits, held)) = self.common.copies.next() {
            self.with(cx, wire, waits.user, |home, env| {
                home.fetch_retained(env, &waits, held);
            });
        }
    }
}

impl Home {
    /// A route is live, or refused; or its retained messages came.
    pub(crate) fn routed(
        &mut self,
        env: &mut Env<'_, '_>,
        (session, request): (SessionId, u64),
        (index, route_id): (usize, u64),
        fetch: Fetch,
        answer: Answer,
    ) {
        let mut found = Vec::new();
        let mut code = None;
        match answer {
            Answer::Retained(messages) => found = messages,
            Answer::Refused(refusal) if refusal.code == Code::Quota => code = Some(QUOTA),
            Answer::Refused(_) => code = Some(UNSPECIFIED),
            _ => {}
        }
        let user = env.user;
        let Some(open) = self.session(session) else { return };
        let persistent = open.is_persistent();
        let mut subscriptions = open.subscriptions.iter_mut();
        if code.is_none()
            && let Some(found) = subscriptions.find(|found| found.route_id == route_id)
        {
            found.replaced = Vec::new();
        }
        let may_wait = open.live.as_deref().is_some_and(|live| live.may_wait(&found));
        let open = self.request(session, request);
        let waits = |open: &&mut Request| open.filters.get(index).is_some_and(|asked| asked.waits);
        let Some(open) = open.filter(waits) else {
            if code.is_some() {
                self.drop_subscriptions(env, session, &[route_id]);
            }
            return;
        };
        let one = For {
            route_id,
            qos: open.filters[index].code,
            subscription_id: open.subscription_id,
        };
        if code.is_none() && !may_wait {
            code = Some(QUOTA);
        }
        let of = Some((request, index));
        let found = match fetch {
            Fetch::Later if code.is_none() => {
                env.common.copies.wait((user, session), route_id, of);
                return;
            }
            Fetch::Now(held) if code.is_none() => match keep(env, (user, session), found, held) {
                Ok(found) => found,
                Err(place) => {
                    env.common.copies.wait_at(place, (user, session), route_id, of);
                    return;
                }
            },
            _ => found.into_iter().map(|publish| (publish, None)).collect(),
        };
        open.filters[index].waits = false;
        if code.is_none() && !open.take(found, &one, persistent) {
            code = Some(UNSPECIFIED);
        }
        if let Some(code) = code {
            open.filters[index].code = code;
            self.drop_subscriptions(env, session, &[route_id]);
        }
        self.answer_subscribe(env, session, request);
    }

    /// A filter's turn to ask for its retained messages has come.
    pub(crate) fn fetch_retained(&mut self, env: &mut Env<'_, '_>, waits: &Waits, held: Held) {
        let (id, route_id) = (waits.session, waits.route_id);
        let Some(session) = self.session(id) else { return };
        let filter = session.subscriptions.iter().find(|one| one.route_id == route_id);
        let filter = filter.map(|one| one.filter.clone());
        let Some(live) = session.live.as_deref_mut() else {
            return;
        };
        let what = match waits.of {
            Some((request, index)) => {
                let mut open = live.requests.iter_mut();
                let Some(open) = open.find(|one| one.id == request) else {
                    return;
                };
                let Some(asked) = open.filters.get_mut(index).filter(|asked| asked.waits) else {
                    return;
                };
                if filter.is_none() {
                    // It was unsubscribed, or another SUBSCRIBE took its place: nothing is owed by this one.
                    asked.waits = false;
                    self.answer_subscribe(env, id, request);
                    return;
                }
                What::Routed {
                    session: id,
                    request,
                    index,
                    route_id,
                    fetch: Box::new(Fetch::Now(held)),
                }
            }
            None => {
                if filter.is_none() {
                    for request in &mut live.requests {
                        request.again.retain(|again| again.one.route_id != route_id);
                    }
                    return;
                }
                What::Again {
                    session: id,
                    route_id,
                    held: Box::new(held),
                }
            }
        };
        if let Some(filter) = filter {
            let key = filter_key(&filter);
            env.ask(what, key, Command::Topic(TopicCommand::Retained { filter }));
        }
    }

    /// Retained messages that were given back came again.
    pub(crate) fn fetched_again(
        &mut self,
        env: &mut Env<'_, '_>,
        id: SessionId,
        route_id: u64,
        held: Held,
        answer: Answer,
    ) {
        let user = env.user;
        let Some(live) = self.session(id).and_then(|session| session.live.as_deref_mut()) else {
            return;
        };
        let has = |request: &&mut Request| request.again.iter().any(|again| again.one.route_id == route_id);
        let Some(request) = live.requests.iter_mut().find(has) else {
            return;
        };
        let found = match answer {
            Answer::Retained(found) => keep(env, (user, id), found, held),
            // Its SUBACK was given: it is asked until it is answered.
            _ => {
                drop(held);
                env.common.copies.wait((user, id), route_id, None);
                return;
            }
        };
        match found {
            Err(place) => env.common.copies.wait_at(place, (user, id), route_id, None),
            Ok(found) => {
                if request.take_again(route_id, found) {
                    self.push_all(env, id);
                } else {
                    env.common.copies.wait((user, id), route_id, None);
                }
            }
        }
    }

    /// Whether a session holds retained messages of other nodes that wait for its connection. It `gives_back` what it holds.
    pub(crate) fn look_at_copies(&mut self, id: SessionId, gives_back: bool) -> bool {
        let Some(live) = self.session(id).and_then(|session| session.live.as_deref_mut()) else {
            return false;
        };
        let mut holds = false;
        for request in live
            .requests
            .iter_mut()
            .filter(|request| request.giving.has_copies())
        {
            match gives_back {
                true => request.give_back(),
                false => holds = true,
            }
        }
        holds
    }
}

/// Keeps what came, if it has room; else says where it waits for more. What was `held` for it is not any more.
fn keep(
    env: &mut Env<'_, '_>,
    (user, session): (UserId, SessionId),
    found: Vec<Arc<Publish>>,
    mut held: Held,
) -> Result<Vec<Found>, Place> {
    held.release();
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let now = env.mono_ms();
    let copies = &mut env.common.copies;
    let bytes = found.iter().map(|publish| weight(publish)).sum();
    if !copies.has_room(bytes) {
        return Err(held.again(bytes));
    }
    copies.holds(user, session, now);
    let hold = |publish: Arc<Publish>| {
        let held = copies.hold_message(weight(&publish));
        (publish, Some(held))
    };
    Ok(found.into_iter().map(hold).collect())
}
