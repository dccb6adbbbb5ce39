//! Starts `headwater-engine` with a configuration of free loopback ports.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use headwater_api::control::{ENDPOINTS_FILE, Endpoints};
use headwater_tests::administrator::Administrator;
use serde_json::json;

use super::{Folder, KillOnDrop, LOG, Server, ServerKind};
use crate::cases::fanout::STREAM_NAME;
use crate::process::Processes;

pub(super) async fn start(engine: &Path, merge_audio: bool) -> Result<Server> {
    Ok(start_with(engine, ServerKind::Engine, merge_audio, "").await?.0)
}

/// Starts an origin, and an edge that relays from it.
pub(super) async fn start_edge(engine: &Path, merge_audio: bool) -> Result<Server> {
    let secrets = Folder::new(&std::env::temp_dir())?;
    let secret = secrets.0.join("secret");
    std::fs::write(&secret, "the relay secret of the load test")?;
    let relay = format!("[relay]\nlisten = \"127.0.0.1:0\"\nsecret_file = {:?}\n", secret.display().to_string());
    let (origin, origin_endpoints) = start_with(engine, ServerKind::Engine, merge_audio, &relay).await?;
    let address = origin_endpoints.relay.context("the origin has no relay listener")?;
    let relay = format!("{relay}origins = [\"{address}\"]\n");
    let (edge, _) = start_with(engine, ServerKind::Edge, merge_audio, &relay).await?;
    Ok(Server { publish: origin.rtmp, _origin: Some(Box::new(origin)), ..edge })
}

/// Starts an engine whose viewers of the app `live` need a JSON web token.
pub(super) async fn start_protected(engine: &Path) -> Result<Server> {
    let (mut server, _) = start_with(engine, ServerKind::Protected, true, "").await?;
    let folder = server._folder.as_ref().context("the engine has no folder")?;
    let administrator = Administrator::of(server.http, &folder.0.join(DATA))?;
    administrator.change_app("live", |app| {
        app["play"] = json!("jwt");
        app["jwt_key"] = json!("the HS256 key of this load test.");
    })?;
    server.token = Some(administrator.make_play_token("live", STREAM_NAME, "jwt")?);
    Ok(server)
}

async fn start_with(
    engine: &Path,
    kind: ServerKind,
    merge_audio: bool,
    extra_config: &str,
) -> Result<(Server, Endpoints)> {
    let folder = Folder::new(&std::env::temp_dir())?;
    let config = folder.0.join("engine.toml");
    let data = folder.0.join(DATA);
    std::fs::create_dir_all(&data)?;
    let text = format!(
        "[node]\ndata_dir = {:?}\naddresses = [\"127.0.0.1\"]\n[http]\nlisten = \"127.0.0.1:0\"\ntls_listen = \"off\"\n\
         [rtmp]\nlisten = \"127.0.0.1:0\"\nmerge_audio = {merge_audio}\n[webrtc]\nport = 0\n\
         [health]\nlisten = \"127.0.0.1:0\"\n{extra_config}",
        data.display().to_string()
    );
    std::fs::write(&config, text)?;
    let log = File::create(folder.0.join(LOG))?;
    let child = Command::new(engine)
        .arg("--config")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("could not start {} (build it, or name it with --engine)", engine.display()))?;
    let mut child = KillOnDrop(child);
    let endpoints = wait_ready(&mut child, &data, &folder).await?;
    let http = endpoints.http.context("plain HTTP is off")?;
    let rtmp = endpoints.rtmp.context("plain RTMP is off")?;
    let server = Server {
        kind,
        processes: Processes::tree(child.0.id() as i32),
        publish: rtmp,
        rtmp,
        http,
        token: None,
        _origin: None,
        _child: Some(child),
        _folder: Some(folder),
    };
    Ok((server, endpoints))
}

/// Waits for the file in which the engine publishes its listen addresses.
async fn wait_ready(child: &mut KillOnDrop, data: &Path, folder: &Folder) -> Result<Endpoints> {
    let log = || std::fs::read_to_string(folder.0.join(LOG)).unwrap_or_default();
    for _ in 0..START_TIMEOUT.as_millis() / POLL_INTERVAL.as_millis() {
        if let Some(status) = child.0.try_wait()? {
            bail!("the engine exited at once ({status}):\n{}", log());
        }
        if let Ok(text) = std::fs::read_to_string(data.join(ENDPOINTS_FILE)) {
            return serde_json::from_str(&text).context("engine.json is malformed");
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    bail!("the engine was not ready within {START_TIMEOUT:?}:\n{}", log());
}

/// Name of the data folder in the engine's folder.
const DATA: &str = "data";
const START_TIMEOUT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
