//! The configuration file as the operator wrote it: the values, and which of them are set
//! explicitly.
//!
//! An explicit value wins over a fact of the machine; a default may be replaced by one.

use std::path::{Path, PathBuf};

use headwater_api::Config;
use headwater_api::config::ParseError;

/// Path read if no other file is given, and only if it exists.
pub(crate) const DEFAULT_FILE: &str = "/etc/headwater/headwater.toml";

/// Why the settings could not be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// The file could not be read.
    #[error("could not read {}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// The cause of the failure.
        source: std::io::Error,
    },
    /// A line is invalid.
    #[error("{}, {problem}", path.display())]
    Parse {
        /// Its path.
        path: PathBuf,
        /// The line number and what is wrong with it.
        problem: ParseError,
    },
}

/// The settings of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// Every value, defaults included.
    pub config: Config,
    file_table: toml::Table,
}

impl Settings {
    /// Reads `file`, or the default file if it exists, or returns the defaults.
    pub(crate) fn read(file: Option<&Path>) -> Result<Self, SettingsError> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).map_err(|problem| SettingsError::Parse { path: path.to_owned(), problem }),
            Err(e) if file.is_none() && e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(SettingsError::Read { path: path.to_owned(), source }),
        }
    }

    /// Parses settings from TOML text.
    pub(crate) fn parse(text: &str) -> Result<Self, ParseError> {
        let config = Config::parse(text)?;
        // A valid configuration is a table, so this cannot fail; if it did, no value would count as
        // set.
        Ok(Self { config, file_table: text.parse().unwrap_or_default() })
    }

    /// True if the file sets `key` in `[section]`.
    pub(crate) fn is_set(&self, section: &str, key: &str) -> bool {
        self.file_table.get(section).and_then(toml::Value::as_table).is_some_and(|table| table.contains_key(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explicit_default_value_counts_as_set() {
        let settings = Settings::parse("node.id = 'local'\n[http]\n").unwrap();
        assert_eq!(settings.config, Config::default());
        assert!(settings.is_set("node", "id"));
        assert!(
            !settings.is_set("node", "role")
                && !settings.is_set("http", "listen")
                && !settings.is_set("rtmp", "listen")
        );
    }

    #[test]
    fn named_file_must_exist() {
        let error = Settings::read(Some(Path::new("/nonexistent/x.toml"))).unwrap_err();
        assert_eq!(error.to_string(), "could not read /nonexistent/x.toml");
    }

    /// docs/headwater.example.toml is the reference of all keys.
    #[test]
    fn example_file_lists_every_key_with_its_default() {
        let text = include_str!("../../../docs/headwater.example.toml");
        let settings = Settings::parse(text).unwrap();
        let all = toml::Table::try_from(Config::default()).unwrap();
        for (section, keys) in &all {
            for key in keys.as_table().unwrap().keys() {
                assert!(settings.is_set(section, key), "[{section}] {key} is missing in the example");
            }
        }
        let optional = Config { tls: settings.config.tls.clone(), ..Config::default() };
        assert_eq!(settings.config, optional, "the example differs from the defaults");
    }
}
