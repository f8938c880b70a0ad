//! The search index at work: its feed, fed by what conversations confirm, and what it reports back to them. What is different
//! among several nodes is in `nodes`.

mod nodes;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use godwit_cluster::Router;
use godwit_history_api::{Clock, SearchIndex};
use godwit_ingest::Confirmed;
use godwit_search::{Feed, FeedConfig, Indexed, Notifier};
use godwit_wire::command::{Command, ConversationCommand};
use godwit_wire::ids::{ConversationId, Key};
use prometheus_client::metrics::counter::Counter;

use crate::StartError;
use crate::metrics::OfSearch;
use crate::node::Node;
use crate::source::{Ends, Homes, StoreSource};
use nodes::Elsewhere;
pub(crate) use nodes::IndexShards;

/// A report of the search feed that finds a worker's inbox full is tried again this often, so long apart. One that is
/// lost costs a look at that conversation at the next start.
const REPORTS: u32 = 20;
const REPORT_PAUSE: Duration = Duration::from_millis(5);

/// The search index's feed, and where it reports to once the workers run.
pub(crate) struct Search {
    feed: Arc<Mutex<Option<Feed>>>,
    notifier: Notifier,
    homes: Homes,
    /// What the API asks.
    api: SearchIndex,
    /// What is confirmed here and indexed by other nodes; unused on a node that is alone.
    elsewhere: Elsewhere,
    clock: Clock,
}

impl Search {
    /// Starts the feed; it reports nothing before [`Self::report_to`].
    pub(crate) fn start(node: &Node, unreadable: Counter) -> Result<Self, StartError> {
        let (homes, now_ms) = (Homes::default(), node.clock());
        let mut config = FeedConfig::new(move || i64::try_from(now_ms()).unwrap_or(i64::MAX));
        let reports_to = homes.clone();
        config.on_indexed = Box::new(move |indexed| {
            if let Some((router, _)) = reports_to.reached() {
                report(router, indexed);
            }
        });
        let ends = node.cluster.as_ref().map(|_| -> Box<dyn Ends> {
            node.index.divide(u32::from(Key::SHARDS));
            Box::new(homes.clone())
        });
        let source = StoreSource::new(node.store.clone(), unreadable, ends);
        let feed = Feed::start(node.index.clone(), source, config)?;
        let notifier = feed.notifier();
        Ok(Self {
            feed: Arc::new(Mutex::new(Some(feed))),
            notifier,
            homes,
            api: SearchIndex::new(node.index.clone()),
            elsewhere: Elsewhere::default(),
            clock: node.clock(),
        })
    }

    /// Where the feed reports to and asks, from now on.
    pub(crate) fn report_to(&self, router: &Router, runtime: &tokio::runtime::Handle) {
        self.homes.are_reached(router, runtime);
    }

    /// What the API asks.
    pub(crate) fn api(&self) -> SearchIndex {
        self.api.clone()
    }

    /// What ingest calls when more of a conversation is confirmed.
    pub(crate) fn confirmed(&self, node: &Node) -> Confirmed {
        if node.settings.cluster.is_some() {
            return self.confirmed_anywhere(node.index.clone());
        }
        let notifier = self.notifier.clone();
        Arc::new(move |conversation, shard, up_to| notifier.notify(conversation.0, u32::from(shard), up_to))
    }

    /// What it shows at `/metrics`.
    pub(crate) fn collector(&self, node: &Node) -> Box<OfSearch> {
        Box::new(OfSearch {
            index: node.index.clone(),
            feed: self.feed.clone(),
            now_ms: self.clock.clone(),
        })
    }

    /// Commits what was read and ends the feed.
    pub(crate) fn stop(self) {
        let feed = self.feed.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(feed) = feed {
            feed.stop();
        }
    }
}

/// Tells conversations how far they are indexed, so that their tails can be closed.
fn report(router: &Router, indexed: &[Indexed]) {
    let mut tries = REPORTS;
    for one in indexed {
        let key = Key::Conversation(ConversationId(one.conversation));
        let told = || Command::Conversation(ConversationCommand::Indexed { up_to: one.up_to });
        while !router.tell(key.clone(), told()) {
            if tries == 0 {
                tracing::warn!("workers are too busy to hear of the search index");
                return;
            }
            tries -= 1;
            std::thread::sleep(REPORT_PAUSE);
        }
    }
}
