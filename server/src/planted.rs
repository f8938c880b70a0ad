//! Bugs planted on purpose, for the kill tests to find; compiled in only with the feature `planted-bugs`.

use std::sync::Arc;

use godwit_store::embedded::{Faults, Planted};

use crate::ConfigError;

/// Names the bug that is to be awake.
pub(crate) const VARIABLE: &str = "GODWIT_PLANTED";

/// The store's part of the bug that `GODWIT_PLANTED` names.
pub(crate) fn of_store() -> Result<Option<Arc<dyn Faults>>, ConfigError> {
    match std::env::var(VARIABLE).as_deref() {
        Err(_) => Ok(None),
        Ok("no-sync") => Ok(Some(Arc::new(Planted::NoSync))),
        Ok("early-ack") => Ok(Some(Arc::new(Planted::EarlyAck))),
        Ok(other) => Err(ConfigError(format!(
            "{VARIABLE}: there is no planted bug \"{other}\""
        ))),
    }
}
