//! Topic keys whose shards go to another worker: everything about them is dropped, and what was under way finds nothing.

use std::collections::HashSet;

use godwit_wire::ids::Key;

use super::{Step, Topics};

impl Topics {
    /// The worker no longer owns these shards.
    pub(crate) fn given_up(&mut self, lost: &HashSet<u16>) {
        let is_lost = |key: &Key| lost.contains(&key.shard());
        self.homes
            .retain(|levels, _| !is_lost(&Key::Topic(levels.clone())));
        self.metrics.homes.set(self.homes.len() as i64);
        self.renewing = self.homes.values().map(|home| home.renewing).sum();
        self.earlier
            .retain(|levels, _| !is_lost(&Key::Topic(levels.clone())));
        self.parked.give_up(is_lost);
        self.nodes.give_up(lost);
        self.unloaded
            .retain(|levels, _| !is_lost(&Key::Topic(levels.clone())));
        if is_lost(&Key::Wildcards) {
            // The copy stays, as every node has one.
            self.rows_read = true;
        }
        self.spreads.give_up(is_lost);
        let publishing: HashSet<usize> = places(self.publishing.iter(), |one| is_lost(&one.key));
        let subscribing: HashSet<usize> = places(self.subscribing.iter(), |one| is_lost(&one.key));
        for (_, step) in &mut self.steps {
            let void = match step {
                Step::Publish(place) if publishing.contains(place) => {
                    *step = Step::VoidPublish;
                    continue;
                }
                Step::Publish(_) | Step::VoidPublish => false,
                Step::Share(sharing) => publishing.contains(&sharing.place),
                Step::Subscribe(place) => subscribing.contains(place),
                Step::Unsubscribe(levels, _) | Step::Renewed(levels) => is_lost(&Key::Topic(levels.clone())),
                // Filters with early wildcards are gathered over all keys, whosever they are.
                Step::RetainedKeys(..) | Step::RetainedOf(_) | Step::Lazy | Step::Void => false,
                Step::Wildcards => is_lost(&Key::Wildcards),
                // The node's, whatever it holds; and these find their hearing gone.
                Step::Relay(_) | Step::Announce(..) | Step::List(_) | Step::Listed | Step::Interest(..) => {
                    false
                }
            };
            if void {
                *step = Step::Void;
            }
        }
        // Nothing names these places any more.
        self.publishing.retain(|place, _| !publishing.contains(&place));
        self.subscribing.retain(|place, _| !subscribing.contains(&place));
    }
}

fn places<'a, T: 'a>(
    all: impl Iterator<Item = (usize, &'a T)>,
    is_lost: impl Fn(&T) -> bool,
) -> HashSet<usize> {
    all.filter(|(_, one)| is_lost(one))
        .map(|(place, _)| place)
        .collect()
}
