//! INBOX: a mailbox's numbers. One number is one thing in every session and on every repeat, and a drained session
//! saw them without a hole.

use crate::run::{At, Key, Run};
use crate::verdict::Verdict;

/// A mailbox number as a session saw it.
struct Place {
    user: u32,
    inbox: u32,
    identity: Key,
    session: u32,
    at: At,
}

pub(super) fn check(run: &Run, verdict: &mut Verdict) {
    let mut places = places(run);
    places.sort_unstable_by_key(|place| (place.user, place.inbox, place.at));
    for pair in places.windows(2) {
        let [first, second] = pair else { continue };
        if (first.user, first.inbox) == (second.user, second.inbox) && first.identity != second.identity {
            verdict.broken("INBOX", &[first.at, second.at], || {
                format!(
                    "number {} of {}'s mailbox carried two things",
                    first.inbox,
                    run.names.text(first.user)
                )
            });
        }
    }
    places.sort_unstable_by_key(|place| (place.session, place.inbox));
    let mut under_gap = 0;
    for group in places.chunk_by(|a, b| a.session == b.session) {
        let Some(session) = run.sessions.get(&group[0].session) else {
            continue;
        };
        let Some(drained) = session.drained else { continue };
        let mut last = drained.from;
        for place in group.iter().filter(|place| place.inbox > drained.from) {
            if place.inbox > last.saturating_add(1) {
                if session.gaps.is_empty() {
                    verdict.broken("INBOX", &[place.at], || {
                        format!(
                            "session {} of {} saw {} of its mailbox after {last}",
                            run.names.text(place.session),
                            run.names.text(place.user),
                            place.inbox
                        )
                    });
                } else {
                    under_gap += 1;
                }
            }
            last = place.inbox;
        }
    }
    verdict.count("holes in mailboxes under a gap marker", under_gap);
}

fn places(run: &Run) -> Vec<Place> {
    let user = |session: u32| {
        run.sessions
            .get(&session)
            .and_then(|session| session.user)
            .unwrap_or(u32::MAX)
    };
    let messages = run
        .deliveries
        .iter()
        .filter(|delivery| delivery.inbox != 0)
        .map(|delivery| Place {
            user: user(delivery.session),
            inbox: delivery.inbox,
            // Without an id its content tells it apart well enough.
            identity: if delivery.message != 0 {
                delivery.message
            } else {
                delivery.hash
            },
            session: delivery.session,
            at: delivery.at,
        });
    let others = run.others.iter().map(|other| Place {
        user: user(other.session),
        inbox: other.inbox,
        identity: other.identity,
        session: other.session,
        at: other.at,
    });
    messages.chain(others).collect()
}
