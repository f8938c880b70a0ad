//! Conversations whose shards go to another worker: everything about them is dropped, and what was under way finds nothing.

use std::collections::HashSet;

use godwit_wire::ids::{ConversationId, Key};

use crate::role::{Ingest, Step};

impl Ingest {
    /// The worker no longer owns these shards.
    pub(crate) fn give_up(&mut self, lost: &HashSet<u16>) {
        let is_lost = |id: &ConversationId| lost.contains(&Key::Conversation(*id).shard());
        let mut told = HashSet::new();
        for (_, step) in &mut self.steps {
            if let Step::Noted(id, number) = step
                && is_lost(id)
            {
                told.insert(*number);
            }
            let void = match step {
                Step::Check(id, _)
                | Step::Stored(id, _)
                | Step::Offer(id, ..)
                | Step::Membership(id, ..)
                | Step::Write(id, ..)
                | Step::Lazy(id)
                | Step::Restored(id)
                | Step::Making(id)
                | Step::Ask(id, ..)
                | Step::Changed(id, _)
                | Step::Noted(id, _)
                | Step::Join(id, ..) => is_lost(id),
                Step::Reading(reading) => is_lost(&reading.id()),
                Step::Tails(shards) => {
                    // All of a page are read together: the others' are read once more.
                    let touched = shards.iter().any(|shard| lost.contains(shard));
                    if touched {
                        shards.retain(|shard| !lost.contains(shard));
                        self.unread_shards.extend(shards.drain(..));
                        self.reading_tails -= 1;
                    }
                    touched
                }
                Step::Void => false,
            };
            if void {
                *step = Step::Void;
            }
        }
        self.conversations.retain(|id, _| !is_lost(id));
        self.creations.retain(|id, _| !is_lost(id));
        self.announcements.retain(|number, _| !told.contains(number));
        self.tails.retain(|id| !is_lost(id));
        self.loading_tails.retain(|id| !is_lost(id));
        self.failed_tails.retain(|id| !is_lost(id));
        self.unread_shards.retain(|shard| !lost.contains(shard));
        self.refused.retain(|id| !is_lost(id));
        self.refused_words.retain(|(id, ..)| !is_lost(id));
        self.untold.retain(|id| !is_lost(id));
        self.metrics.loaded.set(self.conversations.len() as i64);
    }
}
