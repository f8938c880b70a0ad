//! A process is stopped where it hurts, as SIGSTOP would: between reading and writing, while an answer is under way, before it changes the view.

use crate::engine::Engine;
use crate::exec::{Micros, lock};

impl Engine {
    /// Stopped where it hurts: what was read is old when it is acted upon.
    pub(crate) async fn nap(&self) {
        let (naps, nap) = {
            let weather = lock(&self.replicas.weather);
            (weather.naps, weather.nap)
        };
        if !self.sim.chance(naps) {
            return;
        }
        self.oracle.say(self.proc, || "is stopped in a take-up".into());
        self.sim.pause(self.proc);
        let (sim, proc) = (self.sim.clone(), self.proc);
        let most = nap[self.sim.below(2) as usize];
        self.sim
            .at(self.sim.now() + self.sim.between(most / 2, most), move || {
                sim.resume(proc)
            });
        // Nothing more before it goes on.
        self.sim.sleep(1).await;
    }

    /// In a world of stops: the process is stopped here, some time.
    pub(crate) async fn stop_now(&self) {
        if self.stop_within(0) {
            // Nothing more before it goes on.
            self.sim.sleep(1).await;
        }
    }

    /// Whoever is to fall asleep does so here.
    pub(crate) async fn sleep_now(&self) {
        if lock(&self.replicas.weather)
            .sleepy
            .take_if(|proc| *proc == self.proc)
            .is_some()
        {
            self.stop(0, (62_000_000, 80_000_000));
            self.sim.sleep(1).await;
        }
    }

    /// Stops the process `after` some time, for between so long and so long.
    fn stop(&self, after: Micros, lasts: (Micros, Micros)) {
        let (sim, oracle, proc) = (self.sim.clone(), self.oracle.clone(), self.proc);
        let (from, lasts) = (sim.now() + after, sim.between(lasts.0, lasts.1));
        let stop = move || {
            oracle.say(proc, || format!("is stopped for {} ms", lasts / 1_000));
            sim.pause(proc);
            let there = sim.clone();
            sim.at(from + lasts, move || {
                oracle.say(proc, || "goes on".into());
                there.resume(proc);
            });
        };
        if after == 0 {
            stop();
        } else {
            self.sim.at(from, stop);
        }
    }

    /// Whether the process is stopped for three leases within this time.
    pub(crate) fn stop_within(&self, most: Micros) -> bool {
        {
            let mut weather = lock(&self.replicas.weather);
            if weather.stops == 0 || self.sim.now() < weather.next_stop || !self.sim.chance(weather.stops) {
                return false;
            }
            weather.next_stop = self.sim.now() + 16_000_000;
        }
        self.stop(self.sim.between(0, most), (9_000_000, 12_000_000));
        true
    }
}
