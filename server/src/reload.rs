//! SIGHUP: what of a configuration that was read again counts at once, and what is said of the rest. The files of TLS are
//! read in `tls`.

use crate::config::{Config, ConfigError, Settings, Tls};
use crate::serve::Running;
use crate::{mqtt, tls};

impl Running {
    /// Takes what can be taken while the node runs, and says in the log what was and what was not:
    ///
    /// * TLS, where there is TLS since the start: the files that are named now. Connections stay, but those whose client's
    ///   certificate counts no longer. Where they cannot be used, everything of TLS stays.
    /// * The rules of ordinary topics. They count for what is subscribed and owed already, too: what is not allowed any
    ///   more is dropped at delivery, and counted.
    ///
    /// Of a configuration that cannot be taken nothing counts, but the files of TLS that were named before are read.
    pub fn reload(&self, read: Result<Settings, ConfigError>) {
        let settings = match read {
            Ok(settings) => settings,
            Err(error) => {
                tracing::error!(%error, "the configuration and the acl rules stay the old ones");
                return self.reload_tls(None);
            }
        };
        mqtt::change_rules(&self.router, &settings.acl);
        tracing::info!("acl rules read again");
        let options = needing_restart(&self.options, &settings);
        if !options.is_empty() {
            let options = options.join(", ");
            tracing::warn!(
                options,
                "these options have changed, which counts only after a restart"
            );
        }
        self.reload_tls(settings.tls);
    }

    fn reload_tls(&self, tls: Option<Tls>) {
        let Some(certificates) = &self.certificates else {
            return;
        };
        match certificates.reload(tls) {
            Ok(verifier) => {
                // Where certificates count no more, none of those that were shown before does.
                mqtt::verify_again(&self.router, &verifier.unwrap_or_else(tls::no_client));
                tracing::info!("certificates read again");
            }
            Err(error) => tracing::error!(%error, "the certificates stay the old ones"),
        }
    }
}

/// The options that are others than at the start and count only at the next one.
fn needing_restart(started: &Config, now: &Settings) -> Vec<&'static str> {
    let mut changed = started.differing(&now.options);
    // Without TLS at the start there are no listeners for it; and they are not closed.
    let has_tls = Settings::of(started.clone()).is_ok_and(|settings| settings.tls.is_some());
    let tls_counts = has_tls && now.tls.is_some();
    changed.retain(|option| *option != "acl" && !(tls_counts && option.starts_with("tls")));
    changed
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn changed(started: &Config, change: impl FnOnce(&mut Config)) -> Vec<&'static str> {
        let mut now = started.clone();
        change(&mut now);
        needing_restart(started, &Settings::of(now).unwrap())
    }

    #[test]
    fn rules_and_files_of_tls_count_at_once_and_everything_else_at_the_next_start() {
        let plain = Config::on(Path::new("/tmp/x")).unwrap();
        assert!(changed(&plain, |_| {}).is_empty());
        assert!(changed(&plain, |now| now.acl = Some(Vec::new())).is_empty());
        let with_tls = |now: &mut Config| {
            now.tls_cert = Some("one.pem".into());
            now.tls_key = Some("one.key".into());
        };
        assert_eq!(changed(&plain, with_tls), ["tls_cert", "tls_key"]);
        let mut secured = plain.clone();
        with_tls(&mut secured);
        let others = |now: &mut Config| {
            now.tls_cert = Some("two.pem".into());
            now.log = "debug".into();
            now.connects_per_address = 5;
        };
        assert_eq!(changed(&secured, others), ["connects_per_address", "log"]);
        let without = |now: &mut Config| (now.tls_cert, now.tls_key) = (None, None);
        assert_eq!(changed(&secured, without), ["tls_cert", "tls_key"]);
    }
}
