//! The configuration file as the operator wrote it: the values, and which of them were written at all.
//!
//! A value that is written wins over what the machine says; one that is not may be replaced by a fact.

use std::path::{Path, PathBuf};

use headwater_api::Config;
use headwater_api::config::ParseError;

/// Read if no other file is named, and only if it is there.
pub(crate) const DEFAULT_FILE: &str = "/etc/headwater/headwater.toml";

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// The file cannot be read.
    #[error("could not read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A line cannot be used.
    #[error("{}, {problem}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line and what is wrong with it.
        problem: ParseError,
    },
}

/// The settings of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// Every value, defaults included.
    pub config: Config,
    written: toml::Table,
}

impl Settings {
    /// Reads `file`, or the default file if there is one, or gives the defaults.
    pub(crate) fn read(file: Option<&Path>) -> Result<Self, SettingsError> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).map_err(|problem| SettingsError::Parse { path: path.to_owned(), problem }),
            Err(e) if file.is_none() && e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(SettingsError::Read { path: path.to_owned(), source }),
        }
    }

    /// Reads settings from TOML text.
    pub(crate) fn parse(text: &str) -> Result<Self, ParseError> {
        let config = Config::parse(text)?;
        // What makes a configuration is a table, so this cannot fail; and if it did, no value would count as written.
        Ok(Self { config, written: text.parse().unwrap_or_default() })
    }

    /// True if the file holds `key` in `[section]`.
    pub(crate) fn says(&self, section: &str, key: &str) -> bool {
        self.written.get(section).and_then(toml::Value::as_table).is_some_and(|table| table.contains_key(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_as_written_even_if_it_is_the_default() {
        let settings = Settings::parse("node.id = 'local'\n[http]\n").unwrap();
        assert_eq!(settings.config, Config::default());
        assert!(settings.says("node", "id"));
        assert!(!settings.says("node", "role") && !settings.says("http", "listen") && !settings.says("rtmp", "listen"));
    }

    #[test]
    fn a_file_that_is_named_must_be_there() {
        let error = Settings::read(Some(Path::new("/nonexistent/x.toml"))).unwrap_err();
        assert_eq!(error.to_string(), "could not read /nonexistent/x.toml");
    }

    /// docs/headwater.example.toml is the reference of all keys.
    #[test]
    fn the_example_file_names_every_key_with_its_default() {
        let text = include_str!("../../docs/headwater.example.toml");
        let settings = Settings::parse(text).unwrap();
        let all = toml::Table::try_from(Config::default()).unwrap();
        for (section, keys) in &all {
            for key in keys.as_table().unwrap().keys() {
                assert!(settings.says(section, key), "[{section}] {key} is missing in the example");
            }
        }
        let optional = Config { tls: settings.config.tls.clone(), ..Config::default() };
        assert_eq!(settings.config, optional, "the example differs from the defaults");
    }
}
