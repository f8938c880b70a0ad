//! Delivered receipts: what a device acknowledged is told to the conversations' homes, at most once a second each.

use godwit_wire::command::{Command, ConversationCommand};
use godwit_wire::ids::{ConversationId, Key};

use super::env::{Env, What};
use super::home::Home;

/// At most one receipt a conversation in this time, milliseconds.
const EVERY_MS: u64 = 1_000;
/// How long the first one waits for company, milliseconds.
const GATHER_MS: u64 = 20;
/// Conversations with a receipt to tell; beyond it they are told at once.
const PENDING: usize = 1_024;

/// Receipts to tell.
#[derive(Default)]
pub(crate) struct Receipts {
    pending: Vec<(ConversationId, u64)>,
    told_ms: u64,
    timer: bool,
}

impl Home {
    /// A device has everything of this conversation up to here.
    pub(crate) fn note_delivered(&mut self, env: &mut Env<'_, '_>, conversation: ConversationId, up_to: u64) {
        let receipts = self.receipts.get_or_insert_with(Box::default);
        match receipts.pending.iter_mut().find(|(id, _)| *id == conversation) {
            Some(pending) => pending.1 = pending.1.max(up_to),
            None => receipts.pending.push((conversation, up_to)),
        }
        if receipts.pending.len() > PENDING {
            self.tell_receipts(env);
        } else if !receipts.timer {
            receipts.timer = true;
            let since = env.mono_ms().saturating_sub(receipts.told_ms);
            env.after(EVERY_MS.saturating_sub(since).max(GATHER_MS), What::Receipts);
        }
    }

    /// The timer of [`Self::note_delivered`].
    pub(crate) fn receipts_due(&mut self, env: &mut Env<'_, '_>) {
        if let Some(receipts) = self.receipts.as_deref_mut() {
            receipts.timer = false;
            if receipts.pending.is_empty() {
                self.receipts = None;
                return;
            }
        }
        self.tell_receipts(env);
        if let Some(receipts) = self.receipts.as_deref_mut() {
            // Comes back to keep the pace, and to give the memory back.
            receipts.timer = true;
            env.after(EVERY_MS, What::Receipts);
        }
    }

    /// Tells what there is.
    pub(crate) fn tell_receipts(&mut self, env: &mut Env<'_, '_>) {
        let Some(receipts) = self.receipts.as_deref_mut() else {
            return;
        };
        receipts.told_ms = env.mono_ms();
        for (conversation, up_to) in receipts.pending.drain(..) {
            let user = self.user;
            let delivered = ConversationCommand::Delivered { user, up_to };
            env.cx
                .tell(Key::Conversation(conversation), Command::Conversation(delivered));
        }
    }
}
