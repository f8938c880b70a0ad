//! How much a user may publish a second, over all connections: token buckets, and what becomes of who empties one. Nothing
//! is refused: its clients are not read for a while. The clock is the engine's.

use super::env::{Env, What};
use super::home::Home;
use crate::packet::PublishIn;
use crate::wire_trait::ConnId;

/// What a full bucket holds: as much as may come in this time at the user's rate, milliseconds. A client that was away
/// gives what it gathered. Less than a home stays in memory without connections, so none begins anew.
pub(crate) const BURST_MS: u64 = 5_000;
/// Shortest time that clients are not read for, milliseconds: a timer for each message would cost more than the messages.
const HELD_MS: u64 = 50;
/// Who has been at the limit for as long, and never at less than half of it, does not catch up but floods: the connection
/// that is over it next is told so and closed, milliseconds. What it has not had acknowledged stays its own.
pub(crate) const PATIENCE_MS: u64 = 300_000;
/// Subscriptions that a publish matches for each that it counts as one more: giving it to one costs the node some 10 µs, so
/// that who publishes to thousands has its part, and not all there is.
pub(crate) const ROUTES: u32 = 8;
/// Message rate too high.
const TOO_FAST: u8 = 0x96;
/// Why a client is not read.
const PAUSED_RATE: u8 = 4;

const NS: u64 = 1_000_000;

/// The time at which it is full again, nanoseconds.
#[derive(Default)]
struct Bucket(u64);

impl Bucket {
    /// Takes `amount` out, of `a_second` that come. Gives what is missing, nanoseconds until it has come.
    fn take(&mut self, now: u64, amount: u64, a_second: u32) -> u64 {
        if a_second == 0 {
            return 0;
        }
        // At most a packet's bytes, so far below 64 bits.
        self.0 = self.0.max(now) + amount * 1_000 * NS / u64::from(a_second);
        self.missing(now)
    }

    fn missing(&self, now: u64) -> u64 {
        self.owed(now).saturating_sub(BURST_MS * NS)
    }

    fn owed(&self, now: u64) -> u64 {
        self.0.saturating_sub(now)
    }
}

/// A user's buckets; there from the first publish on until they are full again.
#[derive(Default)]
pub(crate) struct Rates {
    publishes: Bucket,
    bytes: Bucket,
    /// The user's clients are not read.
    held: bool,
    /// Since when one was never half full, milliseconds of the loop; 0: it is.
    over_since: u64,
}

impl Home {
    /// Counts a PUBLISH. It goes on if `true`; else its connection is gone.
    pub(crate) fn meter(&mut self, env: &mut Env<'_, '_>, conn: ConnId, packet: &PublishIn) -> bool {
        let config = &env.common.config;
        let (publishes, bytes) = (config.publishes_per_second, config.publish_bytes_per_second);
        if publishes == 0 && bytes == 0 {
            return true;
        }
        let ms = env.mono_ms();
        let now = ms * NS;
        let rates = self.rates.get_or_insert_default();
        // Looked at before this one is counted: a packet may be larger than half a burst, and come once a minute.
        if rates.publishes.owed(now).max(rates.bytes.owed(now)) < BURST_MS * NS / 2 {
            rates.over_since = 0;
        }
        let by_publishes = rates.publishes.take(now, 1, publishes);
        let by_bytes = rates.bytes.take(now, weight(packet), bytes);
        let missing = by_publishes.max(by_bytes);
        if missing == 0 || rates.held {
            return true;
        }
        if rates.over_since == 0 {
            rates.over_since = ms.max(1);
        } else if ms.saturating_sub(rates.over_since) >= PATIENCE_MS {
            rates.over_since = 0;
            env.metrics().count_limit("message_rate");
            tracing::debug!(user = %env.user.0, "a client publishes too much for too long");
            self.close_connection(env, conn, TOO_FAST);
            return false;
        }
        let limit = match by_publishes >= by_bytes {
            true => "publishes_per_second",
            false => "publish_bytes_per_second",
        };
        self.hold_until(env, limit, missing);
        true
    }

    /// Counts that a publish, or a will, was for so many: as more publishes, which have to be paid for before the next.
    pub(crate) fn meter_routes(&mut self, env: &mut Env<'_, '_>, routes: u32) {
        let a_second = env.common.config.publishes_per_second;
        if a_second == 0 {
            return;
        }
        let ms = env.mono_ms();
        let rates = self.rates.get_or_insert_default();
        let missing = rates
            .publishes
            .take(ms * NS, u64::from(routes / ROUTES), a_second);
        if missing > 0 && !rates.held {
            if rates.over_since == 0 {
                rates.over_since = ms.max(1);
            }
            self.hold_until(env, "publishes_per_second", missing);
        }
    }

    /// Its clients are not read until what is missing has come, nanoseconds.
    fn hold_until(&mut self, env: &mut Env<'_, '_>, limit: &'static str, missing: u64) {
        if let Some(rates) = self.rates.as_deref_mut() {
            rates.held = true;
        }
        env.metrics().count_limit(limit);
        self.hold_back(env, true);
        env.after(missing.div_ceil(NS).max(HELD_MS), What::RateOver);
    }

    /// The time for which its clients were not read is over, unless more was counted meanwhile.
    pub(crate) fn rate_over(&mut self, env: &mut Env<'_, '_>) {
        let now = env.mono_ms() * NS;
        if let Some(rates) = self.rates.as_deref_mut() {
            let missing = rates.publishes.missing(now).max(rates.bytes.missing(now));
            if missing > 0 {
                env.after(missing.div_ceil(NS).max(HELD_MS), What::RateOver);
                return;
            }
            rates.held = false;
        }
        self.hold_back(env, false);
    }

    fn hold_back(&mut self, env: &mut Env<'_, '_>, on: bool) {
        for session in &mut self.sessions {
            if let Some(live) = session.live.as_deref_mut() {
                live.pause(env, PAUSED_RATE, on);
            }
        }
    }

    /// A connection begins: it is not read either while the others are not.
    pub(crate) fn hold_back_too(&mut self, env: &mut Env<'_, '_>, conn: ConnId) {
        if self.rates.as_ref().is_some_and(|rates| rates.held)
            && let Some(live) = self
                .session_at(conn)
                .and_then(|session| session.live.as_deref_mut())
        {
            live.pause(env, PAUSED_RATE, true);
        }
    }

    /// Gives full buckets back.
    pub(crate) fn rest_rates(&mut self, env: &Env<'_, '_>) {
        let now = env.mono_ms() * NS;
        let full =
            |rates: &Rates| !rates.held && rates.publishes.owed(now) == 0 && rates.bytes.owed(now) == 0;
        if self.rates.as_deref().is_some_and(full) {
            self.rates = None;
        }
    }
}

/// What a PUBLISH counts in bytes: its topic, payload and properties.
pub(super) fn weight(packet: &PublishIn) -> u64 {
    let properties = packet
        .properties
        .as_deref()
        .map_or(0, prost::Message::encoded_len);
    (packet.topic.len() + packet.payload.len() + properties) as u64
}
