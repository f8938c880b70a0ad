//! OWED and GAP: every acknowledged message is in every drained session of every user who was a member at its
//! position. Messages that are stored without having been acknowledged are counted apart.

use std::collections::HashMap;

use super::deliveries::Seen;
use crate::run::{Conversation, Drained, Run, Session};
use crate::verdict::Verdict;
use crate::{BadInput, Limits};

pub(super) fn check(run: &Run, seen: &Seen, limits: &Limits, verdict: &mut Verdict) -> Result<(), BadInput> {
    let mut sessions: HashMap<u32, Vec<(u32, &Session, Drained)>> = HashMap::new();
    let mut undrained: HashMap<u32, u32> = HashMap::new();
    for (&number, session) in &run.sessions {
        match (session.user, session.drained) {
            (Some(user), Some(drained)) => sessions.entry(user).or_default().push((number, session, drained)),
            (Some(user), None) => _ = undrained.insert(user, number),
            (None, _) => {}
        }
    }
    undrained.retain(|user, _| !sessions.contains_key(user));
    let inboxes = inboxes(run, &sessions);
    let mut tally = Tally::default();
    for (&number, conversation) in &run.conversations {
        for interval in &conversation.members {
            let of_user = sessions.get(&interval.user).map_or(&[][..], |sessions| sessions);
            let acked = conversation
                .history
                .iter()
                .any(|entry| entry.acked && interval.covers(entry.seq));
            if of_user.is_empty() && acked {
                tally.unheard += 1;
                if let Some(session) = undrained.get(&interval.user) {
                    return Err(BadInput::Incomplete(vec![format!(
                        "session {} of {} was not drained, nor any other of that user",
                        run.names.text(*session),
                        run.names.text(interval.user)
                    )]));
                }
            }
            for &(session, about, drained) in of_user {
                let seen = seen.get(&(session, number)).map_or(&[][..], |seen| seen);
                let owed = Owed {
                    run,
                    number,
                    conversation,
                    session,
                    about,
                    drained,
                    seen,
                    inboxes: &inboxes,
                };
                owed.check(interval, limits, &mut tally, verdict);
            }
        }
    }
    verdict.count("owed deliveries checked", tally.checked);
    verdict.count("owed and missing under a gap marker", tally.under_gap);
    verdict.count("stored unacknowledged, missing at a recipient", tally.unacked);
    verdict.count("owed to nobody who listened", tally.unheard);
    verdict.count("owed or not: mailbox place unknown", tally.unknown);
    Ok(())
}

#[derive(Default)]
struct Tally {
    checked: u64,
    under_gap: u64,
    unacked: u64,
    unheard: u64,
    unknown: u64,
}

/// (user, conversation, position) → place in the mailbox, for users with a session that began in the middle.
type Inboxes = HashMap<(u32, u32, u32), u32>;

fn inboxes(run: &Run, sessions: &HashMap<u32, Vec<(u32, &Session, Drained)>>) -> Inboxes {
    let begins_later = |user: &u32| {
        sessions
            .get(user)
            .is_some_and(|all| all.iter().any(|(_, _, drained)| drained.from > 0))
    };
    let mut inboxes = Inboxes::new();
    for delivery in run.deliveries.iter().filter(|delivery| delivery.inbox != 0) {
        let user = run
            .sessions
            .get(&delivery.session)
            .and_then(|session| session.user);
        if let Some(user) = user.filter(begins_later) {
            inboxes.insert((user, delivery.conversation, delivery.seq), delivery.inbox);
        }
    }
    inboxes
}

/// What one session is owed of one conversation.
struct Owed<'a> {
    run: &'a Run,
    number: u32,
    conversation: &'a Conversation,
    session: u32,
    about: &'a Session,
    drained: Drained,
    seen: &'a [u32],
    inboxes: &'a Inboxes,
}

impl Owed<'_> {
    fn check(
        &self,
        interval: &crate::run::Interval,
        limits: &Limits,
        tally: &mut Tally,
        verdict: &mut Verdict,
    ) {
        let entries = self
            .conversation
            .history
            .iter()
            .filter(|e| e.is_message && interval.covers(e.seq));
        for entry in entries {
            if self.drained.no_local && entry.sender == interval.user {
                continue;
            }
            if self.drained.from > 0 {
                match self.inboxes.get(&(interval.user, self.number, entry.seq)) {
                    Some(inbox) if *inbox > self.drained.from => {}
                    Some(_) => continue,
                    None => {
                        tally.unknown += 1;
                        continue;
                    }
                }
            }
            tally.checked += u64::from(entry.acked);
            if self.seen.binary_search(&entry.seq).is_ok() {
                continue;
            }
            if !entry.acked {
                tally.unacked += 1;
                continue;
            }
            let gap = self
                .about
                .gaps
                .iter()
                .any(|gap| gap.is_none_or(|number| number == self.number));
            tally.under_gap += u64::from(gap);
            if gap && limits.gaps {
                continue;
            }
            verdict.broken(if gap { "GAP" } else { "OWED" }, &[entry.at], || {
                format!(
                    "{} of {} was acknowledged and never reached session {} of {}",
                    entry.seq,
                    self.run.names.text(self.number),
                    self.run.names.text(self.session),
                    self.run.names.text(interval.user)
                )
            });
        }
    }
}
