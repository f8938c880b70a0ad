//! Commands that wait until a home knows all that it must know for them; in order for each key.

use std::collections::{HashMap, VecDeque};

use godwit_cluster::{Cx, Flow, Reply};
use godwit_store::Read;
use godwit_wire::code::Refusal;
use godwit_wire::command::TopicCommand;
use godwit_wire::ids::Key;

use super::{BATCH_OPS, Step, Topics, load_reads};
use crate::part::Part;

/// Commands that wait for the wildcard filters, or for others' interest, after a start or a take-up; beyond it they are
/// refused as unavailable.
const PARKED: usize = 4_096;
/// How long they wait on a node of several, milliseconds, and until the next sweep; then they are refused as unavailable.
const PARKED_MS: u64 = 5_000;

#[derive(Debug)]
struct One {
    since_ms: u64,
    command: TopicCommand,
    reply: Reply,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Parked {
    keys: HashMap<Key, VecDeque<One>>,
    all: usize,
}

impl Parked {
    fn holds(&self, key: &Key) -> bool {
        !self.keys.is_empty() && self.keys.contains_key(key)
    }

    /// Takes out those of a key; to be dropped, or to go on.
    pub(super) fn take(&mut self, key: &Key) -> usize {
        self.take_all(key).len()
    }

    fn take_all(&mut self, key: &Key) -> VecDeque<One> {
        if self.keys.is_empty() {
            return VecDeque::new();
        }
        let taken = self.keys.remove(key).unwrap_or_default();
        self.all -= taken.len();
        taken
    }

    /// Drops those of keys that are another's: their askers are told by that.
    pub(super) fn give_up(&mut self, is_lost: impl Fn(&Key) -> bool) {
        let all = &mut self.all;
        self.keys.retain(|key, waiting| {
            let stays = !is_lost(key);
            *all -= if stays { 0 } else { waiting.len() };
            stays
        });
    }
}

impl Topics {
    /// Whether a command must wait for what is not known yet, or for others of its key that do.
    pub(super) fn must_wait(&self, cx: &Cx<'_>, key: &Key, command: &TopicCommand) -> bool {
        let knows_all = self.wildcards_loaded && self.rows_read && self.nodes.has_heard_all();
        if knows_all && self.renewing == 0 && self.parked.keys.is_empty() {
            return false;
        }
        !matches!(command, TopicCommand::Announce { .. })
            && (self.parked.holds(key) || !self.knows_enough(cx, key, command))
    }

    /// Whether what is known is enough for a command.
    fn knows_enough(&self, cx: &Cx<'_>, key: &Key, command: &TopicCommand) -> bool {
        if !cx.is_clustered() {
            // No publish is answered before every route that may match it is known.
            return self.wildcards_loaded;
        }
        let gives = matches!(command, TopicCommand::Publish(..) | TopicCommand::Share { .. });
        let has_heard = self.nodes.has_heard(key.shard());
        match key {
            Key::Topic(levels) if shows_retained(command) => {
                self.homes.get(levels).is_none_or(|home| home.renewing == 0)
            }
            Key::Topic(_) => !gives || (self.wildcards_loaded && has_heard),
            Key::Wildcards => {
                let for_all = gives || matches!(command, TopicCommand::List { .. });
                self.rows_read && (!for_all || has_heard)
            }
            _ => true,
        }
    }

    pub(super) fn park(&mut self, cx: &mut Cx<'_>, key: &Key, command: TopicCommand, reply: Reply) {
        if self.parked.all >= PARKED {
            cx.answer(reply, Refusal::unavailable().into());
            return;
        }
        self.parked.all += 1;
        let since_ms = cx.now().mono_ms;
        let one = One {
            since_ms,
            command,
            reply,
        };
        self.parked.keys.entry(key.clone()).or_default().push_back(one);
    }

    /// More is known: those that have enough go on, by the loop, which loads the keys that need it.
    pub(super) fn unpark(&mut self, cx: &mut Cx<'_>) {
        let ready = |(key, waiting): (&Key, &VecDeque<One>)| {
            let first = waiting.front()?;
            self.knows_enough(cx, key, &first.command).then(|| key.clone())
        };
        let ready: Vec<Key> = self.parked.keys.iter().filter_map(ready).collect();
        for key in ready {
            cx.enter(key, Part::Topics.tag(0));
        }
    }

    /// What waited for a key goes on. `Some`: these must be read first, then again.
    pub(crate) fn enter(&mut self, cx: &mut Cx<'_>, key: &Key) -> Option<Vec<Read>> {
        if let Key::Topic(levels) = key
            && self.parked.holds(key)
            && !self.homes.contains_key(levels)
        {
            return Some(load_reads(key));
        }
        let mut waiting = self.parked.take_all(key);
        while let Some(one) = waiting.pop_front() {
            if !self.knows_enough(cx, key, &one.command) {
                waiting.push_front(one);
                self.parked.all += waiting.len();
                self.parked.keys.insert(key.clone(), waiting);
                break;
            }
            let flow = self.apply_now(cx, key, one.command, one.reply);
            // Its key is loaded.
            if let Flow::Load { reply, .. } = flow {
                cx.answer(reply, Refusal::unavailable().into());
            }
        }
        None
    }

    /// What was retained under earlier views is written once more under this one, and shown when that is stored.
    pub(super) fn renew(&mut self, cx: &mut Cx<'_>, key: &Key, levels: &str) {
        let mut ops = self.earlier.remove(levels).unwrap_or_default();
        while !ops.is_empty() {
            let rest = ops.split_off(ops.len().min(BATCH_OPS));
            let tag = self.step(Step::Renewed(levels.into()));
            cx.store(key, tag, std::mem::replace(&mut ops, rest));
            self.renewing += 1;
            if let Some(home) = self.homes.get_mut(levels) {
                (home.renewing, home.busy) = (home.renewing + 1, home.busy + 1);
            }
        }
    }

    pub(super) fn renewed(&mut self, cx: &mut Cx<'_>, levels: &str) {
        self.renewing = self.renewing.saturating_sub(1);
        if let Some(home) = self.homes.get_mut(levels) {
            (home.renewing, home.busy) = (home.renewing.saturating_sub(1), home.busy.saturating_sub(1));
        }
        self.unpark(cx);
    }

    /// Those that have waited for too long.
    pub(super) fn refuse_parked(&mut self, cx: &mut Cx<'_>) {
        if self.parked.keys.is_empty() || !cx.is_clustered() {
            return;
        }
        let now = cx.now().mono_ms;
        let mut late = Vec::new();
        for waiting in self.parked.keys.values_mut() {
            while let Some(one) = waiting.pop_front_if(|one| now.saturating_sub(one.since_ms) >= PARKED_MS) {
                late.push(one.reply);
            }
        }
        self.parked.keys.retain(|_, waiting| !waiting.is_empty());
        self.parked.all -= late.len();
        for reply in late {
            cx.answer(reply, Refusal::unavailable().into());
        }
    }
}

fn shows_retained(command: &TopicCommand) -> bool {
    matches!(
        command,
        TopicCommand::Retained { .. } | TopicCommand::Subscribe { retained: true, .. }
    )
}
