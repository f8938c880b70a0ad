//! Which batch may be confirmed next: one whose writes are done, and of which every log has nothing older under way on its port. Plain
//! state without IO. Not here: confirming, and the writes.

use std::collections::{HashMap, VecDeque};

use uuid::Uuid;

use crate::types::{Batch, Op, PortId};

/// A log on a port.
type Line = (PortId, u16, Uuid);

/// The batches under way, each with what the caller wants back: `T` is given at [`Order::written`].
#[derive(Debug)]
pub(super) struct Order<T> {
    next: u64,
    open: HashMap<u64, Open<T>>,
    lines: HashMap<Line, VecDeque<u64>>,
}

#[derive(Debug)]
struct Open<T> {
    lines: Vec<Line>,
    done: Option<T>,
}

impl<T> Default for Order<T> {
    fn default() -> Self {
        Self {
            next: 0,
            open: HashMap::new(),
            lines: HashMap::new(),
        }
    }
}

impl<T> Order<T> {
    /// A batch was taken; in the order of submission.
    pub(super) fn taken(&mut self, batch: &Batch) -> u64 {
        let id = self.next;
        self.next += 1;
        let mut lines: Vec<Line> = Vec::new();
        for op in &batch.ops {
            if let Op::Append { log, .. } | Op::Head { log, .. } = op {
                let line = (batch.port, log.table.id, log.id);
                if !lines.contains(&line) {
                    lines.push(line);
                    self.lines.entry(line).or_default().push_back(id);
                }
            }
        }
        self.open.insert(id, Open { lines, done: None });
        id
    }

    /// All writes of a batch are done. Gives what may be confirmed now, in order.
    pub(super) fn written(&mut self, id: u64, done: T) -> Vec<T> {
        let Some(open) = self.open.get_mut(&id) else {
            return Vec::new();
        };
        open.done = Some(done);
        let (mut look, mut free) = (vec![id], Vec::new());
        while let Some(id) = look.pop() {
            let first = |line: &Line| self.lines.get(line).and_then(VecDeque::front) == Some(&id);
            let ready = |open: &Open<T>| open.done.is_some() && open.lines.iter().all(first);
            if !self.open.get(&id).is_some_and(ready) {
                continue;
            }
            let Some(open) = self.open.remove(&id) else {
                continue;
            };
            free.extend(open.done);
            for line in open.lines {
                if let Some(waiting) = self.lines.get_mut(&line) {
                    waiting.pop_front();
                    match waiting.front() {
                        Some(next) => look.push(*next),
                        None => drop(self.lines.remove(&line)),
                    }
                }
            }
        }
        free
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.open.is_empty() && self.lines.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::types::{Kind, LogId, Scope, Table};

    fn batch(port: PortId, logs: &[u128]) -> Batch {
        let log = |n: &u128| LogId {
            table: Table {
                id: 1,
                kind: Kind::Log,
                name: "t",
            },
            id: Uuid::from_u128(*n),
        };
        let ops = logs.iter().map(|n| Op::Append {
            log: log(n),
            view: 1,
            seq: 1,
            row: Bytes::new(),
        });
        Batch {
            port,
            ticket: 0,
            scope: Scope::default(),
            ops: ops.collect(),
        }
    }

    #[test]
    fn a_batch_waits_for_an_older_one_of_any_of_its_logs_on_its_port_only() {
        let mut order = Order::<i32>::default();
        let ids: Vec<u64> = [
            batch(1, &[1]),
            batch(1, &[2]),
            batch(1, &[1, 2, 1]),
            batch(2, &[1]),
            batch(1, &[]),
        ]
        .iter()
        .map(|b| order.taken(b))
        .collect();
        assert!(order.written(ids[2], 2).is_empty());
        assert_eq!(order.written(ids[3], 3), [3], "another port");
        assert_eq!(order.written(ids[4], 4), [4], "no log");
        assert_eq!(order.written(ids[1], 1), [1]);
        assert_eq!(order.written(ids[0], 0), [0, 2]);
        assert!(order.written(ids[0], 0).is_empty(), "once");
        assert!(order.is_empty());
    }

    proptest! {
        #[test]
        fn all_come_out_once_and_for_each_log_in_order(
            logs in proptest::collection::vec(proptest::collection::vec(0u128..4, 0..3), 1..30),
            seed in any::<u64>(),
        ) {
            let mut order = Order::default();
            let mut left: Vec<(usize, u64)> =
                logs.iter().enumerate().map(|(i, l)| (i, order.taken(&batch(1, l)))).collect();
            let (mut out, mut dice) = (Vec::new(), seed);
            while !left.is_empty() {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let (i, id) = left.swap_remove((dice >> 33) as usize % left.len());
                out.extend(order.written(id, i));
            }
            prop_assert!(order.is_empty());
            prop_assert_eq!(out.len(), logs.len());
            for log in 0..4 {
                let of: Vec<usize> = out.iter().copied().filter(|i| logs[*i].contains(&log)).collect();
                prop_assert!(of.is_sorted(), "{:?}", of);
            }
        }
    }
}
