//! The workers of a node together: started, reached through one router, stopped. What one of them does is in `worker`.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use godwit_store::Store;

use crate::peers::Clustered;
use crate::role::{Role, RoleId};
use crate::router::{Inbox, Router};
use crate::worker::{WAKER, Worker};

/// Most workers of a node.
pub const MAX_WORKERS: u16 = 256;

/// Makes the roles of one worker, on its thread.
pub type MakeRoles = dyn Fn(u16) -> [Box<dyn Role>; RoleId::COUNT] + Send + Sync;

/// The running workers of this node.
pub struct Workers {
    router: Router,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` workers (1 to [`MAX_WORKERS`]) on `store`, each with the roles that `make` gives it.
    pub fn start(count: u16, store: &Arc<dyn Store>, make: Arc<MakeRoles>) -> io::Result<Self> {
        Self::start_with(count, store, make, &|_| None)
    }

    /// As [`Self::start`], for a node of a cluster: they hold what they are told to by [`WorkersHomes`](crate::WorkersHomes).
    pub fn start_in(
        count: u16,
        store: &Arc<dyn Store>,
        make: Arc<MakeRoles>,
        clustered: &dyn Fn(&Router) -> Clustered,
    ) -> io::Result<Self> {
        Self::start_with(count, store, make, &|router| Some(clustered(router)))
    }

    fn start_with(
        count: u16,
        store: &Arc<dyn Store>,
        make: Arc<MakeRoles>,
        clustered: &dyn Fn(&Router) -> Option<Clustered>,
    ) -> io::Result<Self> {
        let count = count.clamp(1, MAX_WORKERS);
        let polls = (0..count)
            .map(|_| mio::Poll::new())
            .collect::<io::Result<Vec<_>>>()?;
        let inboxes = polls
            .iter()
            .map(|poll| Ok(Arc::new(Inbox::new(mio::Waker::new(poll.registry(), WAKER)?))))
            .collect::<io::Result<Vec<_>>>()?;
        let router = Router::new(inboxes);
        let clustered = clustered(&router);
        let mut threads = Vec::new();
        for (worker, poll) in (0..count).zip(polls) {
            store.register(worker, router.inboxes[usize::from(worker)].clone());
            let (router, store, make) = (router.clone(), store.clone(), make.clone());
            let clustered = clustered.clone();
            let registry = poll.registry().try_clone()?;
            threads.push(
                std::thread::Builder::new()
                    .name(format!("godwit-worker-{worker}"))
                    .spawn(move || {
                        let work = || {
                            let roles = make(worker);
                            Worker::new(worker, router.clone(), registry, store, roles, clustered).run(poll);
                        };
                        let failed = catch_unwind(AssertUnwindSafe(work)).is_err();
                        if failed {
                            tracing::error!(worker, "a worker has failed; its keys are not served any more");
                        }
                        router.close(worker, failed);
                    })?,
            );
        }
        Ok(Self { router, threads })
    }

    /// The handle to them.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// Tells the roles to shut down and waits until those of all workers are quiet (one may still be asked by another)
    /// or their deadline (8 s) has passed.
    pub fn stop(self) {
        for inbox in self.router.inboxes.iter() {
            inbox.lock().stop = true;
            inbox.wake();
        }
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker ended by a panic");
            }
        }
    }
}
