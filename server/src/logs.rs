//! Logs: tracing to standard error, text on a terminal, a JSON object a line otherwise. Set up once, by the binary.

use std::io::IsTerminal as _;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use crate::config::{Config, ConfigError, LogFormat};

/// Levels of libraries that are too talkative at the level people ask for.
const QUIET: &str = "tantivy=warn,hyper=warn,rustls=warn,lsm_tree=warn,scylla=warn";

/// Reads the option `log`.
///
/// # Errors
/// It is not a list of levels.
pub fn filter(levels: &str) -> Result<EnvFilter, ConfigError> {
    // A word alone would be taken for a module's name.
    let is_form = |part: &str| part.contains('=') || part.trim().parse::<LevelFilter>().is_ok();
    let filter = levels
        .split(',')
        .all(is_form)
        .then(|| EnvFilter::try_new(format!("{QUIET},{levels}")));
    filter.and_then(Result::ok).ok_or_else(|| {
        ConfigError(format!(
            "log: \"{levels}\" is no level (info), nor levels by module (info,godwit_broker=debug)"
        ))
    })
}

/// Starts logging. A second call changes nothing.
///
/// # Errors
/// As [`filter`].
pub fn start(config: &Config) -> Result<(), ConfigError> {
    let text = match config.log_format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter(&config.log)?)
        .with_writer(std::io::stderr);
    // Only fails if a subscriber is there already, as in tests: then that one stays.
    let _ = match text {
        true => logs.with_ansi(std::io::stderr().is_terminal()).try_init(),
        false => logs.json().flatten_event(true).try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn levels_are_read_or_refused() {
        assert!(super::filter("info").is_ok() && super::filter("debug,godwit_broker=trace").is_ok());
        assert!(super::filter("a=b=c").is_err() && super::filter("loud").is_err());
    }
}
