//! How a sequence of the target `sessions` ends: what was acknowledged arrives, then everybody goes and nothing stays.

use super::packets::{self, Hello};
use super::sessions::{Play, USERS};
use crate::packet::Version;

impl Play {
    /// Everything works again: what was acknowledged arrives; then everybody goes.
    pub(super) fn finish(&mut self) {
        self.world.fail_reads(false);
        self.world.low_space(false);
        (self.world.deaf, self.world.slow) = (false, false);
        self.world.hold(false);
        self.world.run();
        self.look();
        for at in 0..self.clients.len() {
            let client = &self.clients[at];
            let is_owed = !client.owed.is_empty() || !client.begun.is_empty();
            if !client.lied && is_owed && client.is_persistent() {
                self.arrives(at);
            }
        }
        assert_eq!(
            self.world.metrics.contradictions.get(),
            0,
            "no offer contradicts another"
        );
        assert_eq!(
            self.world.metrics.missing.get(),
            0,
            "nothing owed is missing in the store"
        );
        for at in 0..self.clients.len() {
            let hello = Hello {
                version: Version::V5,
                client: (at / USERS) as u8,
                clean: true,
                expiry: 0,
                window: 65_535,
                will: None,
            };
            self.come(at, hello);
            self.world.run();
            self.look();
            self.drop(at, 0);
            self.world.run();
            self.look();
        }
        // Longer than a home stays, a will may wait and a store is waited for.
        self.world.pass(15_000);
        assert!(self.world.is_quiet(), "nothing is under way any more");
        for who in &self.users {
            assert!(
                !self.world.users.is_loaded(who.user),
                "BOUND: who is gone costs no memory"
            );
        }
        assert_eq!(
            (self.world.metrics.live.get(), self.world.metrics.homes.get()),
            (0, 0)
        );
    }

    fn arrives(&mut self, at: usize) {
        let Some(hello) = self.clients[at].hello else {
            return;
        };
        let hello = Hello {
            clean: false,
            will: None,
            window: 65_535,
            ..hello
        };
        self.come(at, hello);
        self.world.run();
        self.look();
        for _ in 0..10_000 {
            let Some(held) = self.clients[at].held.first().copied() else {
                break;
            };
            let first = match (held.qos, held.received) {
                (1, _) => 0x40,
                (_, false) => 0x50,
                (_, true) => 0x70,
            };
            if held.qos == 2 && !held.received {
                // To its end, so that the next one moves up.
                self.say(at, packets::ack(hello.version, 0x50, held.id, 0), true);
                self.world.run();
                self.look();
                continue;
            }
            self.say(at, packets::ack(hello.version, first, held.id, 0), true);
            self.world.run();
            self.look();
        }
        let client = &self.clients[at];
        assert!(client.lied || client.conn.is_some());
        let lost: Vec<&u32> = client.owed.difference(&client.seen).collect();
        assert!(lost.is_empty(), "ACK: acknowledged and lost: {lost:?}");
        // MQTT 5, 4.4.0-1: all of it came again, and was settled above.
        let withheld = &client.begun;
        assert!(
            withheld.is_empty() || client.lied,
            "OWED: begun and not repeated: {withheld:?}"
        );
    }
}
