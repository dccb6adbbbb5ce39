//! The configuration file, with the checks of it that mongod makes.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

/// The settings that the stand-in uses.
#[derive(Debug)]
pub(crate) struct Conf {
    pub(crate) folder: PathBuf,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) port: u16,
    pub(crate) key: String,
    pub(crate) set: String,
}

impl Conf {
    /// Reads a file in the form that headwaterd writes.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let value = |key: &str| -> anyhow::Result<String> {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": "));
            let line = line.with_context(|| format!("no {key}"))?;
            Ok(serde_json::from_str::<String>(line).unwrap_or_else(|_| line.to_owned()))
        };
        ensure!(value("authorization")? == "enabled", "authorization is not enabled");
        let key_file = PathBuf::from(value("keyFile")?);
        let mode = std::fs::metadata(&key_file)?.permissions().mode();
        ensure!(mode & 0o077 == 0, "permissions on {} are too open", key_file.display());
        let key = std::fs::read_to_string(&key_file)?.trim().to_owned();
        ensure!((6..=1024).contains(&key.len()), "security key in {} has length {}", key_file.display(), key.len());
        let folder = PathBuf::from(value("dbPath")?);
        ensure!(folder.is_dir(), "data directory {} not found", folder.display());
        Ok(Self {
            addresses: value("bindIp")?.split(',').map(str::parse).collect::<Result<_, _>>()?,
            port: value("port")?.parse()?,
            set: value("replSetName")?,
            folder,
            key,
        })
    }
}
