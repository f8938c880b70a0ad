//! A store of one's own within a keyspace that many tests use: every partition, log and fact gets a prefix that nobody else has.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use godwit_store::{
    Batch, CompletionPort, Health, LogId, Op, PortId, Read, ReadAnswer, Stats, Store, StoreError, Submission,
    Ticket,
};
use uuid::Uuid;

pub(crate) struct Apart {
    store: Arc<dyn Store>,
    prefix: u128,
}

impl Apart {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        let prefix = Uuid::new_v4().as_u128();
        Self { store, prefix }
    }

    fn log(&self, log: &mut LogId) {
        log.id = Uuid::from_u128(log.id.as_u128() ^ self.prefix);
    }

    fn key(&self, key: &mut Bytes) {
        *key = [&self.prefix.to_be_bytes()[..], key].concat().into();
    }

    fn op(&self, mut op: Op) -> Op {
        match &mut op {
            Op::Append { log, .. } | Op::Head { log, .. } => self.log(log),
            Op::Put { partition, .. } | Op::Insert { partition, .. } | Op::Remove { partition, .. } => {
                self.key(partition)
            }
            Op::Claim { key, .. } => self.key(key),
        }
        op
    }

    fn one(&self, mut read: Read) -> Read {
        match &mut read {
            Read::IfAny(inner) => **inner = self.one((**inner).clone()),
            Read::TakeUp { log, .. } | Read::Log { log, .. } => self.log(log),
            Read::TakeUpRows { partition, .. }
            | Read::Row { partition, .. }
            | Read::Rows { partition, .. }
            | Read::Set { partition, .. } => self.key(partition),
            Read::Fact { key, .. } => self.key(key),
        }
        read
    }
}

impl Store for Apart {
    fn register(&self, port: PortId, sink: Arc<dyn CompletionPort>) {
        self.store.register(port, sink);
    }
    fn submit(&self, batch: Batch) -> Submission {
        let ops = batch.ops.iter().cloned().map(|op| self.op(op)).collect();
        match self.store.submit(Batch { ops, ..batch.clone() }) {
            Submission::Taken => Submission::Taken,
            Submission::Busy(_) => Submission::Busy(batch),
        }
    }
    fn read(&self, port: PortId, ticket: Ticket, reads: Vec<Read>) {
        self.store
            .read(port, ticket, reads.into_iter().map(|r| self.one(r)).collect());
    }
    fn read_now(&self, reads: &[Read]) -> Result<Vec<ReadAnswer>, StoreError> {
        let reads: Vec<Read> = reads.iter().cloned().map(|r| self.one(r)).collect();
        self.store.read_now(&reads)
    }
    fn totally_ordered(&self) -> bool {
        self.store.totally_ordered()
    }
    fn start_view(&self) -> u64 {
        self.store.start_view()
    }
    fn health(&self) -> Health {
        self.store.health()
    }
    fn stats(&self) -> Stats {
        self.store.stats()
    }
    fn backup(&self, dir: &Path) -> Result<(), StoreError> {
        self.store.backup(dir)
    }
    fn close(&self) -> Result<(), StoreError> {
        self.store.close()
    }
}
