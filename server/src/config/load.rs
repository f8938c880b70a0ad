//! From flags, environment and file to the options, and back to the example file; what a mistake reads like.

use std::path::Path;
use std::time::Duration;

use confique::Config as _;
use confique::toml::FormatOptions;

use super::{Config, ConfigError, Flags};

impl Config {
    /// Flags before the environment before `file` before the defaults.
    ///
    /// # Errors
    /// One line that says which option is wrong, and where.
    pub fn load(flags: Flags, file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut builder = Self::builder().preloaded(flags).env();
        if let Some(file) = file {
            if !file.is_file() {
                return Err(ConfigError(format!(
                    "there is no configuration file {}",
                    file.display()
                )));
            }
            builder = builder.file(file);
        }
        builder
            .load()
            .map_err(|error| ConfigError(one_line(&format!("{error:#}"))))
    }

    /// The defaults on this data folder.
    ///
    /// # Errors
    /// None as long as the defaults are complete, which a test holds.
    pub fn on(data_dir: &Path) -> Result<Self, ConfigError> {
        let none = <Flags as confique::Layer>::empty();
        let builder = Self::builder().preloaded(Flags {
            data_dir: Some(data_dir.into()),
            ..none
        });
        builder
            .load()
            .map_err(|error| ConfigError(one_line(&format!("{error:#}"))))
    }

    /// `drain_seconds`.
    pub fn drain_time(&self) -> Duration {
        Duration::from_secs(u64::from(self.drain_seconds))
    }

    /// The text of godwit.example.toml.
    pub fn example() -> String {
        confique::toml::template::<Self>(FormatOptions::default())
    }
}

/// Names of variables that this program reads besides the options'.
const OTHER_VARIABLES: &[&str] = &[
    "GODWIT_CONFIG",
    #[cfg(feature = "planted-bugs")]
    crate::planted::VARIABLE,
];

/// Variables of the environment that look like options and are none: probably misspelt.
pub fn unknown_variables(names: impl Iterator<Item = String>) -> Vec<String> {
    let known: Vec<&str> = Config::META
        .fields
        .iter()
        .filter_map(|field| match field.kind {
            confique::meta::FieldKind::Leaf { env, .. } => env,
            confique::meta::FieldKind::Nested { .. } => None,
        })
        .chain(OTHER_VARIABLES.iter().copied())
        .collect();
    names
        .filter(|name| name.starts_with("GODWIT_") && !known.contains(&name.as_str()))
        .collect()
}

/// Errors of parsers point into the text over several lines. What is left is the sentence and the option's name; not
/// its value, which may be a secret.
fn one_line(text: &str) -> String {
    let (mut told, mut option) = (Vec::new(), None);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.split_once('|') {
            Some((number, source)) if number.trim().chars().all(|digit| digit.is_ascii_digit()) => {
                option = option.or(source.split_once('=').map(|(name, _)| name.trim().to_owned()));
            }
            _ => told.push(line),
        }
    }
    let sentence = told.join(": ").replace(":: ", ": ");
    option.map_or(sentence.clone(), |option| format!("{option}: {sentence}"))
}
