//! A session's place in the mailbox: its cursor, its subscription to me/inbox, and what is still given as an earlier
//! subscription asked. Pushing is in `feed_mail`.

use godwit_wire::topic::Encoding;

use super::cursor::Cursor;
use super::feed::Feed;
use super::mail::Mail;
use super::rows::{InboxRow, RemainderRow};

/// A session's place in the mailbox.
pub(crate) struct Inbox {
    /// `None` if it only ever had a live feed (QoS 0).
    pub(crate) feed: Option<Feed<Mail>>,
    /// The subscription, while there is one.
    pub(crate) form: Option<InboxForm>,
    /// `None` for most: what a subscription that was replaced or given back left to be given.
    remainder: Option<Box<Remainder>>,
    /// The cursor as stored, or on its way.
    pub(crate) stored: u64,
    /// Retention took what followed this number; the session has acknowledged nothing since.
    pub(crate) gap: Option<u64>,
    /// It was told on this connection.
    pub(crate) gap_told: bool,
}

/// A subscription to me/inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InboxForm {
    pub(crate) encoding: Encoding,
    /// 0: a live feed without cursor; 1.
    pub(crate) qos: u8,
    pub(crate) no_local: bool,
    pub(crate) subscription_id: Option<u32>,
}

/// What is given although the subscription does not ask for it, or no longer.
#[derive(Clone, Copy)]
struct Remainder {
    /// Up to here with QoS 1, as `form` asked.
    up_to: u64,
    form: InboxForm,
    /// Up to here also my own messages, although a later subscription has No Local.
    mine_to: u64,
}

impl Remainder {
    fn end(&self) -> u64 {
        self.up_to.max(self.mine_to)
    }
}

impl Inbox {
    /// A session's place before its first subscription.
    pub(crate) fn new() -> Self {
        Self {
            feed: None,
            form: None,
            remainder: None,
            stored: 0,
            gap: None,
            gap_told: false,
        }
    }

    /// A SUBSCRIBE takes the place of what there was. Nothing is lost by that (MQTT 5, 3.8.4-4): what is in the mailbox,
    /// up to `confirmed`, is given with QoS 1 before a live feed (QoS 0) begins, and my own messages before No Local.
    pub(crate) fn subscribe(&mut self, form: InboxForm, confirmed: u64) {
        let before = self.form.replace(form).filter(|before| before.qos > 0);
        let left = self.remainder.as_deref().map(|left| (left.form, left.up_to));
        let Some((asked, up_to)) = before.map(|before| (before, confirmed)).or(left) else {
            return;
        };
        let mine = form.no_local && !asked.no_local;
        if form.qos == 0 || mine {
            self.leave(asked, up_to, if mine { up_to } else { 0 });
        }
    }

    /// The subscription ends. What was begun is completed, on a later connection too (3.10.4-3, 4.4.0-1); what was not
    /// stays behind the cursor.
    pub(crate) fn unsubscribe(&mut self) {
        let given = self.feed.as_ref().map_or(0, |feed| feed.cursor.given_to());
        match (self.form.take().filter(|form| form.qos > 0), &mut self.remainder) {
            (Some(form), _) => self.leave(form, given, 0),
            (None, Some(remainder)) => remainder.up_to = remainder.up_to.min(given),
            (None, None) => {}
        }
    }

    fn leave(&mut self, form: InboxForm, up_to: u64, mine_to: u64) {
        let Some(feed) = &self.feed else { return };
        let before = self.remainder.as_deref().map_or(0, |left| left.mine_to);
        let remainder = Remainder {
            up_to,
            form,
            mine_to: before.max(mine_to),
        };
        let any = feed.cursor.acked() < remainder.end();
        self.remainder = any.then(|| Box::new(remainder));
    }

    /// How a position is given with QoS 1. `None`: it is not.
    pub(crate) fn form_of(&self, position: u64) -> Option<InboxForm> {
        let form = self.form.filter(|form| form.qos > 0);
        let Some(remainder) = self.remainder.as_deref() else {
            return form;
        };
        let form = form.or((position <= remainder.up_to).then_some(remainder.form))?;
        let no_local = form.no_local && position > remainder.mine_to;
        Some(InboxForm { no_local, ..form })
    }

    /// Whether entries are pushed with a cursor now.
    pub(crate) fn is_fed(&self) -> bool {
        let feed = self.feed.as_ref();
        feed.is_some_and(|feed| self.form_of(feed.cursor.sent() + 1).is_some())
    }

    /// Gives memory back that is not needed now.
    pub(crate) fn rest(&mut self) {
        let Some(feed) = self.feed.as_mut() else { return };
        feed.rest();
        let acked = feed.cursor.acked();
        self.remainder.take_if(|remainder| remainder.end() <= acked);
    }

    pub(crate) fn row(&self) -> InboxRow {
        let form = self.form;
        let acked = self.feed.as_ref().map_or(0, |feed| feed.cursor.acked());
        let remainder = self
            .remainder
            .as_deref()
            .filter(|remainder| acked < remainder.end());
        InboxRow {
            has_cursor: self.feed.is_some(),
            acked,
            encoding: form.map_or(0, |form| number(form.encoding)),
            qos: form.map_or(0, |form| u32::from(form.qos)),
            no_local: form.is_some_and(|form| form.no_local),
            subscription_id: form.and_then(|form| form.subscription_id),
            gap_after: self.gap,
            remainder: remainder.map(|remainder| RemainderRow {
                up_to: remainder.up_to,
                encoding: number(remainder.form.encoding),
                no_local: remainder.form.no_local,
                subscription_id: remainder.form.subscription_id,
                mine_to: remainder.mine_to,
            }),
        }
    }

    pub(crate) fn restored(row: &InboxRow, given: u64) -> Self {
        let form = encoding(row.encoding).map(|encoding| InboxForm {
            encoding,
            qos: row.qos.min(1) as u8,
            no_local: row.no_local,
            subscription_id: row.subscription_id,
        });
        let remainder = row.remainder.as_ref().and_then(|remainder| {
            let form = InboxForm {
                encoding: encoding(remainder.encoding)?,
                qos: 1,
                no_local: remainder.no_local,
                subscription_id: remainder.subscription_id,
            };
            let (up_to, mine_to) = (remainder.up_to, remainder.mine_to);
            Some(Box::new(Remainder { up_to, form, mine_to }))
        });
        Self {
            feed: row.has_cursor.then(|| Feed::new(Cursor::new(row.acked, given))),
            form,
            remainder,
            stored: row.acked,
            gap: row.gap_after,
            gap_told: false,
        }
    }
}

/// An encoding in a row; 0 is none.
fn number(encoding: Encoding) -> u32 {
    match encoding {
        Encoding::Proto => 1,
        Encoding::Json => 2,
        Encoding::Text => 3,
    }
}

fn encoding(number: u32) -> Option<Encoding> {
    match number {
        1 => Some(Encoding::Proto),
        2 => Some(Encoding::Json),
        3 => Some(Encoding::Text),
        _ => None,
    }
}
