//! Who says that it took up which shard in which view: nobody may ever say so of one that another has said it of. What a shard is does not matter here.

use std::collections::HashMap;

use serde::Deserialize;

/// What a node's `GET /shards` says, as far as it is looked at.
#[derive(Debug, Deserialize)]
pub struct Said {
    /// All shards.
    pub shards: Vec<Shard>,
}

/// A shard.
#[derive(Debug, Deserialize)]
pub struct Shard {
    /// What kind.
    pub group: String,
    /// Its number.
    pub shard: u16,
    /// The view in which the node that answers took it up; `None`: it has not.
    pub since: Option<u64>,
}

/// All that was said in a run.
#[derive(Debug, Default)]
pub struct Owners {
    /// (kind, shard, view of take-up) → who.
    taken: HashMap<(String, u16, u64), String>,
    /// Double ones.
    problems: Vec<String>,
    looks: usize,
}

impl Owners {
    /// A node has answered.
    pub fn heard(&mut self, node: &str, said: Said) {
        self.looks += 1;
        for shard in said.shards {
            let Some(since) = shard.since else {
                continue;
            };
            let key = (shard.group, shard.shard, since);
            match self.taken.get(&key) {
                None => {
                    self.taken.insert(key, node.to_owned());
                }
                Some(other) if other != node => self.problems.push(format!(
                    "shard {} of {} was taken up in view {since} by {other} and by {node}",
                    key.1, key.0
                )),
                Some(_) => {}
            }
        }
    }

    /// Answers looked at, and shards of which two nodes said that they took them up in one view, the first few.
    pub fn verdict(&self) -> (usize, Vec<String>) {
        let mut first: Vec<String> = self.problems.iter().take(3).cloned().collect();
        if self.problems.len() > 3 {
            first.push(format!("and {} more", self.problems.len() - 3));
        }
        (self.looks, first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(shard: u16, since: Option<u64>) -> Said {
        let group = "users".to_owned();
        Said {
            shards: vec![Shard { group, shard, since }],
        }
    }

    #[test]
    fn two_owners_of_a_shard_in_one_view_are_a_problem_and_in_two_views_are_none() {
        let mut owners = Owners::default();
        owners.heard("n0", said(7, Some(3)));
        owners.heard("n1", said(7, None));
        owners.heard("n1", said(7, Some(5)));
        owners.heard("n0", said(7, Some(3)));
        assert_eq!(owners.verdict(), (4, Vec::new()));
        owners.heard("n1", said(8, Some(3)));
        owners.heard("n1", said(7, Some(3)));
        let (_, problems) = owners.verdict();
        assert_eq!(problems.len(), 1, "{problems:?}");
    }
}
