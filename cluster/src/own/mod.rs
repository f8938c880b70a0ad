//! Who owns what in a cluster: one start of a node as a state machine without IO and clock ([`Member`]), what it holds
//! ([`Holdings`]) and the task that runs it on a store ([`drive()`]). The rule is docs/decisions/0010-ownership.md.

mod body;
mod calendar;
mod changes;
mod drive;
mod events;
mod holdings;
mod lease;
mod map;
mod member;
mod moves;
#[cfg(feature = "planted-bugs")]
mod planted;
mod sightings;
#[cfg(test)]
mod tests;

pub use body::{About, Body, Earlier, MAX_MEMBERS, MAX_NAME, MAX_UNSETTLED, Seat, clock_of, with_clock};
pub use calendar::Calendar;
pub use drive::{Clock, Homes, Settings, drive};
pub use events::{Action, Event, Me, Standing, Why};
pub use holdings::Holdings;
pub use map::{Group, Layout, Map, Roles};
pub use member::Member;
#[cfg(feature = "planted-bugs")]
pub use planted::Bugs;

use godwit_store::View;

/// Milliseconds of CLOCK_BOOTTIME, or of any clock that goes on while the process is stopped. Of two things in one millisecond nobody
/// knows which came first: *after* is strictly larger.
pub type Millis = u64;

/// How often a start rewrites its row and looks at the others'.
pub const BEAT_MS: Millis = 500;
/// How often it looks while something moves.
pub const HURRY_MS: Millis = 200;
/// How long after its last confirmed heartbeat a start should act, counted from before the heartbeat was sent.
pub const LEASE_MS: Millis = 3_000;
/// What clocks and schedulers may differ by.
pub const MARGIN_MS: Millis = 1_000;
/// How long a heartbeat stands still before the others call its start dead.
pub const DEAD_AFTER_MS: Millis = LEASE_MS + MARGIN_MS;
/// How long a row stays that is in no view, before it is deleted.
pub const LEFT_BEHIND_MS: Millis = 60_000;
/// What a start that has let go of everything for ever says that it has confirmed: later than every view. What a signed column
/// gives back for its largest number, as which it is stored.
pub const ENDED: View = u64::MAX;

// A call that hangs leaves room for another within the lease.
const _: () = assert!(godwit_store::coordination::TIMEOUT_MS * 2 <= LEASE_MS);
