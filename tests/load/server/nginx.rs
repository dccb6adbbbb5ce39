//! Starts Debian's nginx with its RTMP module: one worker, live RTMP, and HLS from files in memory.
//!
//! Logs are off and `sendfile` is on, so that nginx is measured at its best.

use std::fs::File;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::{Folder, KillOnDrop, LOG, Server, ServerKind, free_address};
use crate::process::Processes;

pub(super) fn is_installed() -> bool {
    Path::new(BINARY).exists() && Path::new(MODULE).exists()
}

pub(super) async fn start() -> Result<Server> {
    let folder = Folder::new(Path::new("/dev/shm"))?;
    let root = folder.0.display().to_string();
    let (rtmp, http) = (free_address()?, free_address()?);
    std::fs::create_dir_all(folder.0.join("hls"))?;
    // nginx started by root runs its workers as `nobody` by default; these
    // workers must write segments.
    let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
    let config = format!(
        "load_module {MODULE};\n{user} daemon off; worker_processes 1; worker_rlimit_nofile 65536;\n\
         pid {root}/nginx.pid; error_log {root}/{LOG} error;\n\
         events {{ worker_connections 8192; }}\n\
         rtmp {{ access_log off; server {{ listen {rtmp};\n\
           application live {{ live on; }}\n\
           application hls {{ live on; hls on; hls_path {root}/hls; hls_fragment 2s;\n\
             hls_playlist_length 12s; }} }} }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 1000000;\n\
           types {{ application/vnd.apple.mpegurl m3u8; video/mp2t ts; }}\n\
           client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;\n\
           uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;\n\
           server {{ listen {http}; root {root}/hls; }} }}\n"
    );
    let file = folder.0.join("nginx.conf");
    std::fs::write(&file, config)?;
    let log = File::create(folder.0.join(LOG))?;
    let child = Command::new(BINARY)
        .arg("-c")
        .arg(&file)
        .args(["-e", &format!("{root}/{LOG}")])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("could not start {BINARY}"))?;
    let mut child = KillOnDrop(child);
    for _ in 0..START_TIMEOUT.as_millis() / POLL_INTERVAL.as_millis() {
        if let Some(status) = child.0.try_wait()? {
            bail!("nginx exited at once ({status}):\n{}", std::fs::read_to_string(folder.0.join(LOG))?);
        }
        if TcpStream::connect(rtmp).is_ok() && TcpStream::connect(http).is_ok() {
            let processes = Processes::tree(child.0.id() as i32);
            return Ok(Server {
                kind: ServerKind::Nginx,
                processes,
                publish: rtmp,
                rtmp,
                http,
                token: None,
                _origin: None,
                _child: Some(child),
                _folder: Some(folder),
            });
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    bail!("nginx did not respond within {START_TIMEOUT:?}");
}

const BINARY: &str = "/usr/sbin/nginx";
const MODULE: &str = "/usr/lib/nginx/modules/ngx_rtmp_module.so";
const START_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
