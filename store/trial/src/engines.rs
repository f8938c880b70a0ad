//! The candidates behind one small trait: put the rows of a batch, commit it durably, count what is there after a re-open.

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use crate::journal::{Journal, Overlay, scan};
use crate::load::Row;

pub trait Engine {
    fn put(&mut self, row: &Row<'_>);
    /// Durable when it returns.
    fn commit(&mut self);
    /// Rows found (for the check after a re-open).
    fn count(&self) -> u64;
    /// Waits for background work, so that its CPU is counted.
    fn settle(&mut self) {}
}

fn key(row: &Row<'_>) -> Vec<u8> {
    [row.part, row.rest].concat()
}

pub fn open(name: &str, dir: &Path) -> Result<Box<dyn Engine>, String> {
    Ok(match name {
        "fjall" => Box::new(Fjall::open(dir)?),
        "godwit" => Box::new(Godwit::open(&dir.join("godwit"))?),
        "redb" => Box::new(Redb::open(&dir.join("db.redb"))?),
        "journal" => Box::new(Journaled::open(dir, || Box::new(|_| {}), Box::new(|| 0))?),
        "journal+fjall" => {
            let f = Fjall::open(dir)?;
            let (ks, db, ks2) = (f.ks.clone(), f.db.clone(), f.ks.clone());
            let mut j = Journaled::open(
                dir,
                move || {
                    let ks = ks.clone();
                    Box::new(move |o: Overlay| {
                        let mut i = ks.start_ingestion().unwrap();
                        o.each(|k, v| i.write(k, v).unwrap());
                        i.finish().unwrap();
                    })
                },
                Box::new(move || ks2.iter().count() as u64),
            )?;
            j.quiet = Some(Box::new(move || while db.active_compactions() > 0 {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }));
            Box::new(j)
        }
        "journal+lsm" => {
            use lsm_tree::AbstractTree as _;
            let path = dir.join("lsm");
            std::fs::create_dir_all(&path).unwrap();
            let table = if std::env::var_os("TRIAL_RAW").is_some() {
                lsm_tree::CompressionType::None
            } else {
                lsm_tree::CompressionType::Lz4
            };
            let ratio = std::env::var("TRIAL_RATIO").ok().and_then(|r| r.parse().ok()).unwrap_or(10.0f32);
            let l0 = std::env::var("TRIAL_L0").ok().and_then(|r| r.parse().ok()).unwrap_or(8u8);
            let tree = lsm_tree::Config::new(&path, Default::default(), Default::default())
                .data_block_compression_policy(lsm_tree::config::CompressionPolicy::all(table))
                .data_block_size_policy(lsm_tree::config::BlockSizePolicy::all(
                    std::env::var("TRIAL_BLOCK").ok().and_then(|r| r.parse().ok()).unwrap_or(16384),
                ))
                .open()
                .map_err(|e| format!("{e:?}"))?;
            let t2 = tree.clone();
            Box::new(Journaled::open(
                dir,
                move || {
                    let tree = tree.clone();
                    Box::new(move |o: Overlay| {
                        let mut i = tree.ingestion().unwrap();
                        o.each(|k, v| i.write(k, v).unwrap());
                        i.finish().unwrap();
                        for _ in 0..4 {
                            tree.compact(
                                Arc::new(
                                    lsm_tree::compaction::Leveled::default()
                                        .with_l0_threshold(l0)
                                        .with_level_ratio_policy(vec![ratio]),
                                ),
                                lsm_tree::SeqNo::MAX >> 1,
                            )
                            .unwrap();
                        }
                    })
                },
                Box::new(move || t2.iter(lsm_tree::SeqNo::MAX >> 1, None).count() as u64),
            )?)
        }
        "journal+redb" => {
            let r = Arc::new(Redb::open_soft(&dir.join("db.redb"))?);
            let (r1, r2) = (r.clone(), r);
            Box::new(Journaled::open(
                dir,
                move || {
                    let r = r1.clone();
                    Box::new(move |o: Overlay| {
                        let mut rows = Vec::new();
                        o.each(|k, v| rows.push((k.to_vec(), v.into())));
                        r.write_all(&mut rows.into_iter());
                    })
                },
                Box::new(move || r2.rows()),
            )?)
        }
        other => return Err(format!("no engine {other}")),
    })
}

struct Fjall {
    db: fjall::Database,
    ks: fjall::Keyspace,
    batch: Option<fjall::OwnedWriteBatch>,
}

impl Fjall {
    fn open(dir: &Path) -> Result<Self, String> {
        let db = fjall::Database::builder(dir.join("fjall")).open().map_err(|e| format!("{e:?}"))?;
        let ks = db.keyspace("rows", fjall::KeyspaceCreateOptions::default).map_err(|e| format!("{e:?}"))?;
        Ok(Self { db, ks, batch: None })
    }
}

impl Engine for Fjall {
    fn put(&mut self, row: &Row<'_>) {
        let db = &self.db;
        self.batch.get_or_insert_with(|| db.batch()).insert(&self.ks, key(row), row.value);
    }
    fn commit(&mut self) {
        if let Some(b) = self.batch.take() {
            b.durability(Some(fjall::PersistMode::SyncData)).commit().unwrap();
        }
    }
    fn count(&self) -> u64 {
        self.ks.iter().count() as u64
    }
    fn settle(&mut self) {
        while self.db.active_compactions() > 0 || self.db.outstanding_flushes() > 0 {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

const ROWS: redb::TableDefinition<'static, &[u8], &[u8]> = redb::TableDefinition::new("rows");

struct Redb {
    db: redb::Database,
    rows: Vec<(Vec<u8>, Box<[u8]>)>,
}

impl Redb {
    fn open(path: &Path) -> Result<Self, String> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).unwrap();
        }
        let db = redb::Database::builder().set_cache_size(256 << 20).create(path).map_err(|e| format!("{e:?}"))?;
        Ok(Self { db, rows: Vec::new() })
    }
    fn open_soft(path: &Path) -> Result<Self, String> {
        Self::open(path)
    }
    fn write_all(&self, rows: &mut dyn Iterator<Item = (Vec<u8>, Box<[u8]>)>) {
        let mut tx = self.db.begin_write().unwrap();
        if std::env::var_os("TRIAL_QUICK_REPAIR").is_some() {
            tx.set_quick_repair(true);
        }
        {
            let mut t = tx.open_table(ROWS).unwrap();
            for (k, v) in rows {
                t.insert(&k[..], &v[..]).unwrap();
            }
        }
        tx.commit().unwrap();
    }
    fn rows(&self) -> u64 {
        use redb::{ReadableDatabase as _, ReadableTableMetadata as _};
        let tx = self.db.begin_read().unwrap();
        tx.open_table(ROWS).map(|t| t.len().unwrap()).unwrap_or(0)
    }
}

impl Engine for Redb {
    fn put(&mut self, row: &Row<'_>) {
        self.rows.push((key(row), row.value.into()));
    }
    fn commit(&mut self) {
        let mut rows = std::mem::take(&mut self.rows);
        rows.sort_unstable();
        self.write_all(&mut rows.into_iter());
    }
    fn count(&self) -> u64 {
        self.rows()
    }
}

type Ingest = Box<dyn FnMut(Overlay) + Send>;

/// The journal and its overlay before an engine that is filled in bulk by a thread of its own.
struct Journaled {
    journal: Journal,
    overlay: Overlay,
    full: mpsc::SyncSender<(u64, Overlay)>,
    back: mpsc::Receiver<u64>,
    outstanding: u64,
    count: Box<dyn Fn() -> u64>,
    replayed: u64,
    pub quiet: Option<Box<dyn Fn()>>,
}

impl Journaled {
    fn open(dir: &Path, ingest: impl Fn() -> Ingest, count: Box<dyn Fn() -> u64>) -> Result<Self, String> {
        let jdir: PathBuf = dir.join("journal");
        std::fs::create_dir_all(&jdir).unwrap();
        let mut segments: Vec<u64> = std::fs::read_dir(&jdir)
            .unwrap()
            .filter_map(|e| e.unwrap().file_name().to_str()?.strip_suffix(".jnl")?.parse().ok())
            .collect();
        segments.sort_unstable();
        let mut overlay = Overlay::default();
        let (mut last, mut replayed) = (0, 0);
        for &s in &segments {
            let found = scan(&jdir, s, |batch| {
                replayed += overlay.take(std::sync::Arc::new(batch.to_vec()));
            });
            if found.damaged {
                return Err(format!("segment {s}: batch after {} is damaged and valid batches follow", found.last_batch));
            }
            last = last.max(found.last_batch);
        }
        let journal = Journal::create(&jdir, segments.last().map_or(1, |s| s + 1), last);
        let (full, rx) = mpsc::sync_channel::<(u64, Overlay)>(1);
        let (done, back) = mpsc::channel();
        let mut ingest = ingest();
        let jd = jdir;
        std::thread::spawn(move || {
            while let Ok((upto, o)) = rx.recv() {
                ingest(o);
                for s in 1..=upto {
                    std::fs::remove_file(crate::journal::seg_path(&jd, s)).ok();
                }
                done.send(upto).ok();
            }
        });
        Ok(Self { journal, overlay, full, back, outstanding: 0, count, replayed, quiet: None })
    }
}

impl Engine for Journaled {
    fn put(&mut self, row: &Row<'_>) {
        self.journal.put(row);
    }
    fn commit(&mut self) {
        let sealed = self.journal.segment;
        let (batch, full) = self.journal.commit();
        self.overlay.take(batch);
        if full {
            self.full.send((sealed, std::mem::take(&mut self.overlay))).unwrap();
            self.outstanding += 1;
        }
    }
    fn count(&self) -> u64 {
        println!("  of these replayed from the journal: {}", self.replayed);
        (self.count)() + self.replayed
    }
    fn settle(&mut self) {
        while self.outstanding > 0 {
            self.back.recv().unwrap();
            self.outstanding -= 1;
        }
        if let Some(q) = &self.quiet {
            q();
        }
    }
}

/// The product's engine, through its own trait: a batch a message, two commits' worth under way.
struct Godwit {
    store: std::sync::Arc<godwit_store::embedded::Embedded>,
    done: mpsc::Receiver<usize>,
    ops: Vec<godwit_store::Op>,
    under_way: usize,
    gathered: usize,
    ticket: u64,
}

struct Count(std::sync::Mutex<mpsc::Sender<usize>>);

impl godwit_store::CompletionPort for Count {
    fn complete(&self, batch: &mut Vec<godwit_store::Completion>) {
        use godwit_store::{Completion, Outcome};
        assert!(batch.iter().all(|c| matches!(c, Completion::Written { outcome: Outcome::Stored, .. })));
        self.0.lock().unwrap().send(batch.len()).ok();
        batch.clear();
    }
}

impl Godwit {
    fn open(dir: &Path) -> Result<Self, String> {
        use godwit_store::Store as _;
        let store = godwit_store::embedded::Embedded::open(dir, Default::default()).map_err(|e| e.to_string())?;
        let (sender, done) = mpsc::channel();
        store.register(0, Arc::new(Count(std::sync::Mutex::new(sender))));
        Ok(Self { store: Arc::new(store), done, ops: Vec::new(), under_way: 0, gathered: 0, ticket: 0 })
    }
}

impl Engine for Godwit {
    fn put(&mut self, row: &Row<'_>) {
        use godwit_store::{Kind, LogId, Op, Store as _, Table};
        let name = "trial";
        let id = u16::from(row.part[0]);
        let value = bytes::Bytes::copy_from_slice(row.value);
        let u64_of = |b: &[u8]| u64::from_be_bytes(b.try_into().unwrap());
        self.ops.push(if row.part[0] == 2 {
            Op::Put {
                table: Table { id, kind: Kind::Rows, name },
                partition: bytes::Bytes::copy_from_slice(&row.part[1..]),
                name: bytes::Bytes::copy_from_slice(row.rest),
                view: self.store.start_view(),
                value: Some(value),
            }
        } else {
            let table = Table { id, kind: Kind::Log, name };
            let log = LogId { table, id: uuid::Uuid::from_slice(&row.part[1..]).unwrap() };
            Op::Append { log, view: u64_of(&row.rest[..8]), seq: u64_of(&row.rest[8..]), row: value }
        });
        if self.ops.len() == 4 {
            self.ticket += 1;
            let ops = std::mem::take(&mut self.ops);
            let mut batch = godwit_store::Batch { port: 0, ticket: self.ticket, scope: godwit_store::Scope::default(), ops };
            while let godwit_store::Submission::Busy(back) = self.store.submit(batch) {
                batch = back;
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            self.under_way += 1;
            self.gathered += 1;
        }
    }
    fn commit(&mut self) {
        while self.under_way > self.gathered {
            self.under_way -= self.done.recv().unwrap();
        }
        self.gathered = 0;
    }
    fn count(&self) -> u64 {
        use godwit_store::Store as _;
        println!("  stats {:?}", self.store.stats());
        0
    }
    fn settle(&mut self) {
        use godwit_store::Store as _;
        while self.under_way > 0 {
            self.under_way -= self.done.recv().unwrap();
        }
        println!("  stats {:?}", self.store.stats());
        if std::env::var_os("TRIAL_CLOSE").is_some() {
            self.store.close().unwrap();
        } else {
            std::thread::sleep(std::time::Duration::from_millis(1500));
            if std::env::var_os("TRIAL_IDLE").is_some() {
                println!("  resident {} MiB", crate::load::resident_kib() >> 10);
                std::thread::sleep(std::time::Duration::from_millis(5000));
                println!("  resident {} MiB after idling, {:?}", crate::load::resident_kib() >> 10, self.store.stats());
                unsafe { libc::malloc_trim(0) };
                println!("  resident {} MiB after malloc_trim", crate::load::resident_kib() >> 10);
            }
        }
    }
}
