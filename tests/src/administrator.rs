//! The administrator of a running node, with the key that the node writes into its data folder.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use headwater_api::control::LOCAL_KEY_FILE;
use serde_json::{Value, json};

use crate::http::{self, Response};

/// Sends requests to the REST API of one node.
pub struct Administrator {
    http: SocketAddr,
    authorization: String,
}

impl std::fmt::Debug for Administrator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Administrator").field("http", &self.http).finish_non_exhaustive()
    }
}

impl Administrator {
    /// The administrator of the node with this web server and data folder.
    ///
    /// # Errors
    /// If the node has not written its key.
    pub fn of(http: SocketAddr, data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join(LOCAL_KEY_FILE);
        let key = std::fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
        Ok(Self { http, authorization: format!("Bearer {}", key.trim()) })
    }

    /// Reads the settings of an app, changes them, and writes them back.
    ///
    /// # Errors
    /// If the node refuses.
    pub fn change_app(&self, app: &str, change: impl FnOnce(&mut Value)) -> anyhow::Result<()> {
        let path = format!("/rest/v2/apps/{app}");
        let mut settings = self.send("GET", &path, None)?.json()?;
        change(&mut settings);
        self.send("PUT", &path, Some(&settings)).map(drop)
    }

    /// Makes a token for viewers of a stream, valid for some hours. `kind` is `one_time` or `jwt`.
    ///
    /// # Errors
    /// If the node refuses.
    pub fn make_play_token(&self, app: &str, stream: &str, kind: &str) -> anyhow::Result<String> {
        let expires_at = SystemTime::now().duration_since(UNIX_EPOCH)? + VALIDITY_DURATION;
        let expires_at_ms = u64::try_from(expires_at.as_millis())?;
        let body = json!({ "type": "play", "kind": kind, "stream": stream, "expires_at_ms": expires_at_ms });
        let made: Value = self.send("POST", &format!("/rest/v2/apps/{app}/tokens"), Some(&body))?.json()?;
        Ok(made["token"].as_str().context("no token")?.to_owned())
    }

    fn send(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Response> {
        let headers = [("authorization", self.authorization.as_str()), ("content-type", "application/json")];
        let body = body.map(Value::to_string).unwrap_or_default();
        let response = http::request(self.http, method, path, &headers, body.as_bytes())?;
        ensure!(response.status < 300, "{method} {path}: {} {}", response.status, response.text());
        Ok(response)
    }
}

/// Longer than any test.
const VALIDITY_DURATION: Duration = Duration::from_secs(6 * 3_600);
