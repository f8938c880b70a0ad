//! The wish to end, which anybody may have and many wait for; and how the node then ends, in which order.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// How long the whole shutdown may take, beside `drain_seconds` on a node of a cluster; then the process ends as it is, which loses
/// nothing acknowledged.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// How long HTTP requests under way may take.
pub(crate) const HTTP_GRACE: Duration = Duration::from_millis(1_500);

/// Says that the node shall end. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Shutdown(Arc<watch::Sender<bool>>);

impl Default for Shutdown {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Shutdown {
    /// The node shall end. Saying it again changes nothing.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Whether it was said.
    pub fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is said.
    pub async fn begun(&self) {
        // Cannot fail: the sender is here.
        let _ = self.0.subscribe().wait_for(|begun| *begun).await;
    }
}
