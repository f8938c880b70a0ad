//! How far one session got in one log: the prefix that is wholly acknowledged, what is in flight above it, and packet
//! identifiers computed from positions (decision 0004). Knows no entries and no packets.

use godwit_wire::ids::ConversationId;

use super::queue::Queue;
use crate::packet::PacketId;

/// Packet identifiers of one log: half of the 65,535, less one.
const IDENTIFIERS: u64 = 32_767;
/// Most positions between the acknowledged prefix and the newest one given: far below [`IDENTIFIERS`], so that an
/// identifier names one position, and bounds the state of a client that acknowledges out of order.
pub(crate) const SPAN: usize = 8_192;

const _: () = assert!((SPAN as u64) < IDENTIFIERS, "an identifier names one position");

/// Which log a packet identifier is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    /// The mailbox: odd.
    Mailbox,
    /// The session's own log: even.
    Session,
}

/// The identifier of a position.
pub(crate) fn packet_id(half: Half, position: u64) -> PacketId {
    // At most 2 * 32,766 + 2, which fits.
    let index = (position.saturating_sub(1) % IDENTIFIERS) as u16;
    match half {
        Half::Mailbox => index * 2 + 1,
        Half::Session => index * 2 + 2,
    }
}

/// Which log an identifier is of.
pub(crate) fn half_of(id: PacketId) -> Half {
    if id % 2 == 1 { Half::Mailbox } else { Half::Session }
}

/// What is known of a position above the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Given with QoS 1, its PUBACK awaited.
    Sent,
    /// Given with QoS 2, its PUBREC awaited.
    Sent2,
    /// PUBREC received, PUBCOMP awaited.
    Received,
    /// Not sent: it is on its way to another member of the group that it is of.
    Leaving,
    /// Acknowledged, or never to be given.
    Acked,
}

/// The message behind a position: its acknowledgement is the delivered receipt.
pub(crate) type About = Option<(ConversationId, u64)>;

#[derive(Clone, Copy, Debug)]
struct Slot {
    state: State,
    about: About,
}

/// A session's place in a log.
///
/// ```text
///        acked              sent                 acked + slots
///  ────────┼──────────────────┼────────────────────────┼──────▶ position
///   settled│ in flight        │ given on an earlier    │ new
///          │ (or out of order)│ connection, to repeat  │
/// ```
#[derive(Clone, Debug, Default)]
pub(crate) struct Cursor {
    acked: u64,
    sent: u64,
    /// Highest position that may have been given before: repeats carry DUP.
    repeated_to: u64,
    slots: Queue<Slot>,
    in_flight: u16,
}

impl Cursor {
    /// Everything up to `acked` is settled; up to `repeated_to` may have been given before.
    pub(crate) fn new(acked: u64, repeated_to: u64) -> Self {
        Self {
            acked,
            sent: acked,
            repeated_to,
            ..Self::default()
        }
    }

    /// The end of the settled prefix.
    pub(crate) fn acked(&self) -> u64 {
        self.acked
    }

    /// The last position given, or passed over, on this connection.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Given on this connection and not settled.
    pub(crate) fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// The highest position that may have been given on any connection.
    pub(crate) fn given_to(&self) -> u64 {
        self.repeated_to.max(self.sent)
    }

    /// Whether one more may be given.
    pub(crate) fn has_span(&self) -> bool {
        self.sent - self.acked < SPAN as u64
    }

    /// Whether this position was perhaps given before.
    pub(crate) fn is_repeat(&self, position: u64) -> bool {
        position <= self.repeated_to
    }

    /// What an earlier connection left at a position.
    pub(crate) fn state(&self, position: u64) -> Option<State> {
        Some(self.slots.get(self.index(position)?)?.state)
    }

    fn index(&self, position: u64) -> Option<usize> {
        usize::try_from(position.checked_sub(self.acked + 1)?).ok()
    }

    /// The next position was given (`state`), or is passed over ([`State::Acked`]). Gives what that settled.
    pub(crate) fn gave(&mut self, state: State, about: About) -> Settled<'_> {
        self.sent += 1;
        if state != State::Acked {
            self.in_flight += 1;
        }
        match self.index(self.sent).and_then(|index| self.slots.get_mut(index)) {
            Some(slot) => *slot = Slot { state, about },
            None => self.slots.push_back(Slot { state, about }),
        }
        Settled(self)
    }

    /// The next position is repeated as it was left: its state stays.
    pub(crate) fn passed(&mut self) -> Settled<'_> {
        self.sent += 1;
        let left = self.state(self.sent);
        debug_assert!(left.is_some(), "only what has a state is passed");
        if left.is_some_and(|state| state != State::Acked) {
            self.in_flight += 1;
        }
        Settled(self)
    }

    /// The position in flight that has this identifier.
    pub(crate) fn position_of(&self, id: PacketId) -> Option<u64> {
        let index = u64::from((id - 1) / 2);
        let first = self.acked + 1;
        let ahead = (index + IDENTIFIERS - (first - 1) % IDENTIFIERS) % IDENTIFIERS;
        let position = first + ahead;
        (position <= self.sent).then_some(position)
    }

    /// Sets the state of a position that was given on this connection.
    pub(crate) fn set(&mut self, position: u64, state: State) {
        if let Some(slot) = self.index(position).and_then(|index| self.slots.get_mut(index)) {
            slot.state = state;
        }
    }

    /// A position is settled. `receipt`: whether it counts as delivered. Gives what that settled; nothing if it was.
    pub(crate) fn ack(&mut self, position: u64, receipt: bool) -> Settled<'_> {
        let slot = self.index(position).and_then(|index| self.slots.get_mut(index));
        if let Some(slot) = slot.filter(|slot| slot.state != State::Acked) {
            slot.state = State::Acked;
            if !receipt {
                slot.about = None;
            }
            if position <= self.sent {
                self.in_flight = self.in_flight.saturating_sub(1);
            }
        }
        Settled(self)
    }

    /// What was stored of a position before a restart: [`State::Received`] is repeated as PUBREL, [`State::Acked`] not
    /// at all. Only before anything is given.
    pub(crate) fn restore(&mut self, position: u64, state: State) {
        let Some(index) = self.index(position).filter(|index| *index < SPAN) else {
            return;
        };
        while self.slots.len() <= index {
            // Given before or not is not known: it is given (again).
            self.slots.push_back(Slot {
                state: State::Sent2,
                about: None,
            });
        }
        self.set(position, state);
    }

    /// The connection is gone: everything unsettled is to be repeated.
    pub(crate) fn detach(&mut self) {
        self.repeated_to = self.given_to();
        self.sent = self.acked;
        self.in_flight = 0;
    }

    /// Retention took everything up to `floor`.
    pub(crate) fn lift(&mut self, floor: u64) {
        while self.acked < floor {
            let slot = self.slots.pop_front();
            self.acked += 1;
            if self.sent < self.acked {
                self.sent = self.acked;
            } else if slot.is_some_and(|slot| slot.state != State::Acked) {
                self.in_flight = self.in_flight.saturating_sub(1);
            }
            if self.slots.is_empty() && self.acked < floor {
                self.acked = floor;
                self.sent = self.sent.max(floor);
            }
        }
    }

    /// The positions whose PUBREC is known.
    pub(crate) fn received(&self) -> impl Iterator<Item = u64> + '_ {
        self.positions(State::Received)
    }

    /// The positions above the prefix that are settled.
    pub(crate) fn settled(&self) -> impl Iterator<Item = u64> + '_ {
        self.positions(State::Acked)
    }

    /// The positions that are on their way to others.
    pub(crate) fn leaving(&self) -> impl Iterator<Item = u64> + '_ {
        self.positions(State::Leaving)
    }

    fn positions(&self, state: State) -> impl Iterator<Item = u64> + '_ {
        (self.acked + 1..)
            .zip(self.slots.iter())
            .filter(move |(_, slot)| slot.state == state)
            .map(|(position, _)| position)
    }

    /// Gives memory back while nothing is in flight.
    pub(crate) fn rest(&mut self) {
        self.slots.rest();
    }
}

/// What a change settled: the messages of the positions that joined the prefix. The prefix moves as it is iterated, and
/// wholly when it is dropped.
pub(crate) struct Settled<'a>(&'a mut Cursor);

impl Iterator for Settled<'_> {
    type Item = About;

    fn next(&mut self) -> Option<About> {
        let cursor = &mut *self.0;
        if cursor.acked >= cursor.sent || cursor.slots.front()?.state != State::Acked {
            return None;
        }
        cursor.acked += 1;
        cursor.slots.pop_front().map(|slot| slot.about)
    }
}

impl Drop for Settled<'_> {
    fn drop(&mut self) {
        while self.next().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_odd_for_the_mailbox_even_for_the_session_and_come_back_to_their_position() {
        for start in [0u64, 1, 32_700, 32_766, 32_767, 70_000] {
            let mut cursor = Cursor::new(start, 0);
            for _ in 0..500 {
                drop(cursor.gave(State::Sent, None));
            }
            for position in start + 1..=start + 500 {
                for half in [Half::Mailbox, Half::Session] {
                    let id = packet_id(half, position);
                    assert_ne!(id, 0);
                    assert_eq!(half_of(id), half);
                    assert_eq!(cursor.position_of(id), Some(position));
                }
            }
            assert_eq!(cursor.position_of(packet_id(Half::Mailbox, start + 501)), None);
        }
    }

    #[test]
    fn the_prefix_moves_only_over_what_is_wholly_acknowledged() {
        let about = |n| Some((ConversationId(uuid::Uuid::from_u128(1)), n));
        let mut cursor = Cursor::new(0, 0);
        for n in 1..=3 {
            assert_eq!(cursor.gave(State::Sent, about(n)).count(), 0);
        }
        assert_eq!(cursor.ack(2, true).count(), 0);
        assert_eq!((cursor.acked(), cursor.in_flight()), (0, 2));
        assert_eq!(cursor.ack(1, true).collect::<Vec<_>>(), [about(1), about(2)]);
        assert_eq!((cursor.acked(), cursor.in_flight()), (2, 1));
        assert_eq!(
            cursor.ack(3, false).collect::<Vec<_>>(),
            [None],
            "an error is no receipt"
        );
        assert_eq!(cursor.ack(3, true).count(), 0, "a second one settles nothing");
    }

    #[test]
    fn after_a_lost_connection_what_is_unsettled_is_given_again_and_nothing_else() {
        let mut cursor = Cursor::new(10, 0);
        for _ in 0..4 {
            drop(cursor.gave(State::Sent, None));
        }
        drop(cursor.ack(12, true));
        cursor.set(13, State::Received);
        cursor.detach();
        assert_eq!((cursor.acked(), cursor.sent(), cursor.in_flight()), (10, 10, 0));
        assert!(cursor.is_repeat(14) && !cursor.is_repeat(15));
        assert_eq!(cursor.state(11), Some(State::Sent));
        drop(cursor.gave(State::Sent, None));
        assert_eq!(cursor.state(12), Some(State::Acked));
        drop(cursor.passed());
        assert_eq!(cursor.state(13), Some(State::Received));
        drop(cursor.passed());
        assert_eq!(cursor.in_flight(), 2, "11 and the PUBREL of 13");
        drop(cursor.ack(11, true));
        drop(cursor.ack(13, true));
        assert_eq!((cursor.acked(), cursor.in_flight()), (13, 0));
    }

    #[test]
    fn an_acknowledgement_of_an_earlier_connection_does_not_pass_over_what_was_not_repeated() {
        let mut cursor = Cursor::new(0, 0);
        drop(cursor.gave(State::Sent, None));
        drop(cursor.ack(1, true));
        drop(cursor.gave(State::Sent, None));
        cursor.detach();
        assert_eq!(
            cursor.position_of(packet_id(Half::Mailbox, 2)),
            None,
            "not given yet on this one"
        );
        assert_eq!((cursor.acked(), cursor.sent()), (1, 1));
    }

    #[test]
    fn retention_lifts_the_cursor_over_what_it_took() {
        let mut cursor = Cursor::new(0, 0);
        for _ in 0..5 {
            drop(cursor.gave(State::Sent, None));
        }
        cursor.lift(3);
        assert_eq!((cursor.acked(), cursor.sent(), cursor.in_flight()), (3, 5, 2));
        cursor.lift(100);
        assert_eq!((cursor.acked(), cursor.sent(), cursor.in_flight()), (100, 100, 0));
    }

    #[test]
    fn a_stored_pubrec_is_found_again() {
        let mut cursor = Cursor::new(4, 9);
        cursor.restore(7, State::Received);
        assert_eq!(cursor.received().collect::<Vec<_>>(), [7]);
        assert_eq!(cursor.state(5), Some(State::Sent2));
        assert_eq!(cursor.state(8), None);
    }
}
