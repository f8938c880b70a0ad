//! A store in memory whose commits the tests time: what is submitted is durable only when it is committed, and a crash
//! leaves exactly that.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use godwit_store::{
    Batch, Completion, CompletionPort, Head, Health, LogRow, Op, Outcome, PortId, Read, ReadAnswer, Stats,
    Store, StoreError, Submission, Ticket, View,
};
use uuid::Uuid;

type Partition = BTreeMap<Bytes, Bytes>;
type LogRows = (Head, BTreeMap<u64, (View, Bytes)>);

#[derive(Clone, Default)]
pub(crate) struct State {
    logs: BTreeMap<(u16, Uuid), LogRows>,
    rows: BTreeMap<(u16, Bytes), Partition>,
    facts: BTreeMap<(u16, Bytes), Bytes>,
}

#[derive(Default)]
pub(crate) struct MemStore {
    state: Arc<Mutex<State>>,
    pending: Mutex<VecDeque<Batch>>,
    sinks: Mutex<BTreeMap<PortId, Arc<dyn CompletionPort>>>,
    pub(crate) hold: AtomicBool,
    pub(crate) low_space: AtomicBool,
    /// It says that it fails.
    pub(crate) failing: AtomicBool,
    /// Heads do not land: whoever wrote them dies before, where the writes of one batch are apart.
    pub(crate) lose_heads: AtomicBool,
    /// What is submitted is given back.
    pub(crate) busy: AtomicBool,
    /// Reads of what is loaded are answered with an error.
    pub(crate) fail_reads: AtomicBool,
    view: View,
}

impl MemStore {
    /// A start on what an earlier one left.
    pub(crate) fn start(state: State, view: View) -> Arc<Self> {
        Arc::new(Self {
            state: Arc::new(Mutex::new(state)),
            view,
            ..Self::default()
        })
    }

    /// The same store as another node sees it.
    pub(crate) fn beside(&self) -> Arc<Self> {
        Arc::new(Self {
            state: self.state.clone(),
            view: self.view,
            ..Self::default()
        })
    }

    /// What is durable now.
    pub(crate) fn durable(&self) -> State {
        self.state.lock().unwrap().clone()
    }

    /// Commits up to `count` batches, in order.
    pub(crate) fn commit(&self, count: usize) {
        for _ in 0..count {
            let Some(batch) = self.pending.lock().unwrap().pop_front() else {
                return;
            };
            self.write(batch);
        }
    }

    pub(crate) fn put_log_row(&self, table: u16, id: Uuid, seq: u64, row: Bytes) {
        let mut state = self.state.lock().unwrap();
        state
            .logs
            .entry((table, id))
            .or_default()
            .1
            .insert(seq, (self.view, row));
    }

    /// How many writes are submitted and not committed.
    pub(crate) fn pending_ops(&self) -> usize {
        let pending = self.pending.lock().unwrap();
        pending.iter().map(|batch| batch.ops.len()).sum()
    }

    /// A small row as it is.
    pub(crate) fn row(&self, table: u16, partition: &Bytes, name: &[u8]) -> Option<Bytes> {
        let state = self.state.lock().unwrap();
        state.rows.get(&(table, partition.clone()))?.get(name).cloned()
    }

    /// As if it had been in the set before.
    pub(crate) fn put_element(&self, table: u16, partition: Bytes, element: Bytes, value: Bytes) {
        let mut state = self.state.lock().unwrap();
        let rows = state.rows.entry((table, partition)).or_default();
        rows.insert(element, value);
    }

    /// As if it had never been in any set of the table.
    pub(crate) fn take_element(&self, table: u16, element: &[u8]) {
        let mut state = self.state.lock().unwrap();
        let of_table = state.rows.iter_mut().filter(|((of, _), _)| *of == table);
        let taken = of_table.filter_map(|(_, rows)| rows.remove(element)).count();
        assert!(taken > 0, "it was not there");
    }

    /// Of what was submitted and not committed only these operations are stored: its writer dies.
    pub(crate) fn tear(&self, keeps: impl Fn(&Op) -> bool) {
        let torn = std::mem::take(&mut *self.pending.lock().unwrap());
        for mut batch in torn {
            batch.ops.retain(&keeps);
            self.write(batch);
        }
    }

    pub(crate) fn put_fact(&self, table: u16, key: &str, value: Bytes) {
        let key = Bytes::copy_from_slice(key.as_bytes());
        self.state.lock().unwrap().facts.insert((table, key), value);
    }

    /// Rows of a log above its floor.
    pub(crate) fn log_len(&self, table: u16, id: Uuid) -> usize {
        let state = self.state.lock().unwrap();
        state.logs.get(&(table, id)).map_or(0, |(head, rows)| {
            rows.range(head.floor.saturating_add(1)..).count()
        })
    }

    /// How many logs of a table have a durable row with these bytes in it.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn logs_with(&self, table: u16, bytes: &[u8]) -> usize {
        let state = self.state.lock().unwrap();
        let has = |row: &Bytes| row.windows(bytes.len()).any(|window| window == bytes);
        let of_table = state.logs.iter().filter(|((of, _), _)| *of == table);
        of_table
            .filter(|(_, (_, rows))| rows.values().any(|(_, row)| has(row)))
            .count()
    }

    /// How many durable rows a log has with these bytes in them.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn rows_with(&self, table: u16, id: Uuid, bytes: &[u8]) -> usize {
        let state = self.state.lock().unwrap();
        let has = |row: &Bytes| row.windows(bytes.len()).any(|window| window == bytes);
        let rows = state.logs.get(&(table, id)).map(|(_, rows)| rows.values());
        rows.map_or(0, |rows| rows.filter(|(_, row)| has(row)).count())
    }

    pub(crate) fn rows_of_table(&self, table: u16) -> usize {
        let state = self.state.lock().unwrap();
        state
            .rows
            .iter()
            .filter(|((of, _), _)| *of == table)
            .map(|(_, rows)| rows.len())
            .sum()
    }

    /// Route ids of a table of routes.
    pub(crate) fn durable_routes(&self, table: u16) -> Vec<u64> {
        let state = self.state.lock().unwrap();
        let of_table = state.rows.iter().filter(|((of, _), _)| *of == table);
        let elements = of_table.flat_map(|(_, rows)| rows.keys());
        let mut ids: Vec<u64> = elements
            .map(|element| u64::from_be_bytes(element[16..24].try_into().unwrap()))
            .collect();
        ids.sort_unstable();
        ids
    }

    fn write(&self, batch: Batch) {
        let mut state = self.state.lock().unwrap();
        for op in batch.ops {
            match op {
                Op::Append { log, view, seq, row } => {
                    let rows = &mut state.logs.entry((log.table.id, log.id)).or_default().1;
                    let before = rows.insert(seq, (view, row.clone()));
                    assert!(
                        before.is_none_or(|(_, old)| old == row),
                        "a number is given once (SEQ)"
                    );
                }
                Op::Head { .. } if self.lose_heads.load(Ordering::SeqCst) => {}
                Op::Head { log, head } => {
                    let old = &mut state.logs.entry((log.table.id, log.id)).or_default().0;
                    old.confirmed = old.confirmed.max(head.confirmed);
                    old.floor = old.floor.max(head.floor);
                }
                Op::Put {
                    table,
                    partition,
                    name,
                    value,
                    ..
                } => {
                    let rows = state.rows.entry((table.id, partition)).or_default();
                    match value {
                        Some(value) => rows.insert(name, value),
                        None => rows.remove(&name),
                    };
                }
                Op::Insert {
                    table,
                    partition,
                    element,
                    value,
                } => {
                    state
                        .rows
                        .entry((table.id, partition))
                        .or_default()
                        .insert(element, value);
                }
                Op::Remove {
                    table,
                    partition,
                    element,
                } => {
                    state
                        .rows
                        .entry((table.id, partition))
                        .or_default()
                        .remove(&element);
                }
                Op::Claim { table, key, value } => {
                    state.facts.insert((table.id, key), value);
                }
            }
        }
        drop(state);
        let stored = Completion::Written {
            ticket: batch.ticket,
            outcome: Outcome::Stored,
        };
        self.complete(batch.port, stored);
    }

    fn complete(&self, port: PortId, completion: Completion) {
        if let Some(sink) = self.sinks.lock().unwrap().get(&port) {
            sink.complete(&mut vec![completion]);
        }
    }

    fn answer(state: &State, read: &Read) -> ReadAnswer {
        let none = BTreeMap::new();
        match read {
            Read::TakeUpRows { .. } => ReadAnswer::TakenUp,
            Read::IfAny(read) => Self::answer(state, read),
            Read::TakeUp { log, .. } => {
                let (head, rows) = state
                    .logs
                    .get(&(log.table.id, log.id))
                    .cloned()
                    .unwrap_or_default();
                let from = head.confirmed.max(head.floor).saturating_add(1);
                let row = |(seq, (view, row)): (&u64, &(View, Bytes))| LogRow {
                    seq: *seq,
                    view: *view,
                    row: row.clone(),
                };
                ReadAnswer::TakeUp {
                    head,
                    rows: rows.range(from..).map(row).collect(),
                }
            }
            Read::Log {
                log,
                after,
                up_to,
                max_rows,
                ..
            } => {
                let empty = (Head::default(), BTreeMap::new());
                let (head, rows) = state.logs.get(&(log.table.id, log.id)).unwrap_or(&empty);
                let from = (*after).max(head.floor).saturating_add(1);
                let rows: Vec<LogRow> = if from > *up_to {
                    Vec::new()
                } else {
                    rows.range(from..=*up_to)
                        .take(*max_rows as usize)
                        .map(|(seq, (view, row))| LogRow {
                            seq: *seq,
                            view: *view,
                            row: row.clone(),
                        })
                        .collect()
                };
                ReadAnswer::Log {
                    more: rows.last().is_some_and(|row| row.seq < *up_to),
                    rows,
                }
            }
            Read::Row {
                table,
                partition,
                name,
            } => {
                let rows = state.rows.get(&(table.id, partition.clone())).unwrap_or(&none);
                ReadAnswer::Row(rows.get(name).cloned())
            }
            Read::Rows {
                table,
                partition,
                after,
                limit,
            } => {
                let rows = state.rows.get(&(table.id, partition.clone())).unwrap_or(&none);
                let (rows, more) = page(rows, after.as_ref(), None, *limit);
                ReadAnswer::Rows { rows, more }
            }
            Read::Set {
                table,
                partition,
                after,
                up_to,
                limit,
            } => {
                let rows = state.rows.get(&(table.id, partition.clone())).unwrap_or(&none);
                let (elements, more) = page(rows, after.as_ref(), up_to.as_ref(), *limit);
                ReadAnswer::Set { elements, more }
            }
            Read::Fact { table, key } => ReadAnswer::Fact(state.facts.get(&(table.id, key.clone())).cloned()),
        }
    }
}

fn page(
    rows: &Partition,
    after: Option<&Bytes>,
    up_to: Option<&Bytes>,
    limit: u32,
) -> (Vec<(Bytes, Bytes)>, bool) {
    let in_range =
        |name: &Bytes| after.is_none_or(|after| name > after) && up_to.is_none_or(|up_to| name <= up_to);
    let mut matching = rows.iter().filter(|(name, _)| in_range(name));
    let page = matching
        .by_ref()
        .take(limit as usize)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    (page, matching.next().is_some())
}

impl Store for MemStore {
    fn register(&self, port: PortId, sink: Arc<dyn CompletionPort>) {
        self.sinks.lock().unwrap().insert(port, sink);
    }

    fn submit(&self, batch: Batch) -> Submission {
        if self.busy.load(Ordering::Relaxed) {
            return Submission::Busy(batch);
        }
        self.pending.lock().unwrap().push_back(batch);
        if !self.hold.load(Ordering::Relaxed) {
            self.commit(usize::MAX);
        }
        Submission::Taken
    }

    fn read(&self, port: PortId, ticket: Ticket, reads: Vec<Read>) {
        let answers = match self.fail_reads.load(Ordering::Relaxed) {
            true => Err(StoreError::Unavailable("as the test wants".into())),
            false => self.read_now(&reads),
        };
        self.complete(port, Completion::Read { ticket, answers });
    }

    fn read_now(&self, reads: &[Read]) -> Result<Vec<ReadAnswer>, StoreError> {
        let state = self.state.lock().unwrap();
        Ok(reads.iter().map(|read| Self::answer(&state, read)).collect())
    }

    fn totally_ordered(&self) -> bool {
        true
    }

    fn start_view(&self) -> u64 {
        self.view
    }

    fn health(&self) -> Health {
        let is = |what: &AtomicBool| what.load(Ordering::Relaxed);
        match (is(&self.failing), is(&self.low_space)) {
            (true, _) => Health::Failing,
            (false, true) => Health::LowSpace,
            (false, false) => Health::Serving,
        }
    }

    fn stats(&self) -> Stats {
        Stats::default()
    }

    fn backup(&self, _dir: &std::path::Path) -> Result<(), StoreError> {
        Err(StoreError::Misuse("a store of tests"))
    }

    fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
