//! Instance metadata for a daemon under test: the vendor's mock, and a fake that can change and
//! fail.
//!
//! Both serve IMDSv2 only. The fake serves one request per connection, one connection at a time.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;

use crate::process::Process;
use crate::temp::TempDir;
use crate::{tools, wait};

/// Values and behaviour of the fake; may be changed at any time.
#[derive(Debug, Clone)]
pub struct InstanceState {
    /// Instance id, such as `i-0fake`.
    pub id: String,
    /// Instance tags; `None` if metadata does not show them (404).
    pub tags: Option<BTreeMap<String, String>>,
    /// Value of `autoscaling/target-lifecycle-state`; `None` outside a group.
    pub target_lifecycle_state: Option<String>,
    /// Action in `spot/instance-action`, if there is a spot notice.
    pub spot_action: Option<String>,
    /// Private address.
    pub local_ipv4: String,
    /// Public address, if any.
    pub public_ipv4: Option<String>,
    /// IAM role with its credentials, if any.
    pub role: Option<InstanceRole>,
    /// How the service answers.
    pub behavior: ServiceBehavior,
    /// The valid session token; a new value invalidates all others.
    pub token: String,
}

/// IAM role of an instance, with its credentials.
#[derive(Debug, Clone)]
pub struct InstanceRole {
    /// Name of the role.
    pub name: String,
    /// Access key id.
    pub access_key_id: String,
    /// Secret access key.
    pub secret_access_key: String,
    /// Session token, sent with each signed request.
    pub token: String,
}

/// How a metadata service behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceBehavior {
    /// Answers normally.
    Normal,
    /// Answers every request with this status.
    Status(u16),
    /// Answers normally, each time after this delay.
    Slow(Duration),
    /// Accepts connections and does not answer.
    Unresponsive,
    /// Serves IMDSv1: has no tokens and answers requests without one.
    ImdsV1Only,
}

/// A metadata service of one instance in eu-central-1, at first `i-0fake`. Refuses connections once
/// dropped.
#[derive(Debug)]
pub struct FakeMetadata {
    address: SocketAddr,
    state: Arc<Mutex<InstanceState>>,
    requests: Arc<Mutex<Vec<RequestRecord>>>,
}

/// A request to the fake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    /// `/latest/meta-data/…`.
    pub path: String,
    /// Token of the request.
    pub token: Option<String>,
    /// Status of the response.
    pub status: u16,
}

impl FakeMetadata {
    /// Starts a service with these tags, outside any group, on a free port.
    ///
    /// # Errors
    /// If there is no free port.
    pub fn start(tags: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start_on(TcpListener::bind("127.0.0.1:0")?, tags)
    }

    /// Like [`FakeMetadata::start`], on an open listener, such as one in another network namespace.
    ///
    /// # Errors
    /// If the listener has no address.
    pub fn start_on(listener: TcpListener, tags: &[(&str, &str)]) -> anyhow::Result<Self> {
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(InstanceState {
            id: "i-0fake".to_owned(),
            tags: Some(tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()),
            target_lifecycle_state: None,
            spot_action: None,
            local_ipv4: "127.0.0.1".to_owned(),
            public_ipv4: None,
            role: None,
            behavior: ServiceBehavior::Normal,
            token: "token-1".to_owned(),
        }));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (shared, recorded) = (Arc::downgrade(&state), Arc::clone(&requests));
        std::thread::spawn(move || {
            let mut open_streams = Vec::new();
            for stream in listener.incoming().map_while(Result::ok) {
                let Some(state) = shared.upgrade() else { return };
                let now = lock(&state).clone();
                match now.behavior {
                    ServiceBehavior::Unresponsive => open_streams.push(stream),
                    behavior => {
                        if let ServiceBehavior::Slow(pause) = behavior {
                            std::thread::park_timeout(pause);
                        }
                        // A client that disconnects is not an error.
                        let _ = serve(stream, &now, &recorded);
                    }
                }
            }
        });
        Ok(Self { address, state, requests })
    }

    /// Address of the service.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes values or behaviour, effective with the next connection.
    pub fn change(&self, change: impl FnOnce(&mut InstanceState)) {
        change(&mut lock(&self.state));
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for FakeMetadata {
    fn drop(&mut self) {
        // Wakes the thread, which ends because the state is dropped.
        let last = lock(&self.state).clone();
        drop(std::mem::replace(&mut self.state, Arc::new(Mutex::new(last))));
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

fn lock(state: &Mutex<InstanceState>) -> MutexGuard<'_, InstanceState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(mut stream: TcpStream, state: &InstanceState, requests: &Mutex<Vec<RequestRecord>>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && request.len() < 8192 {
        stream.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&request).into_owned();
    let mut words = text.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let token = text.lines().find_map(|line| line.strip_prefix("x-aws-ec2-metadata-token: "));
    let (status, body) = match (state.behavior, method, path) {
        (ServiceBehavior::Status(status), ..) => (status, String::new()),
        (ServiceBehavior::Normal | ServiceBehavior::Slow(_), "PUT", "/latest/api/token") => (200, state.token.clone()),
        (_, "PUT", _) => (405, String::new()),
        (ServiceBehavior::Normal | ServiceBehavior::Slow(_), ..) if token != Some(state.token.as_str()) => {
            (401, String::new())
        }
        _ => {
            metadata_value(path.trim_start_matches("/latest/"), state).map_or((404, String::new()), |body| (200, body))
        }
    };
    let request = RequestRecord { path: path.to_owned(), token: token.map(str::to_owned), status };
    requests.lock().unwrap_or_else(PoisonError::into_inner).push(request);
    write!(
        stream,
        "HTTP/1.1 {status} x\r\nx-aws-ec2-metadata-token-ttl-seconds: 21600\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn metadata_value(path: &str, state: &InstanceState) -> Option<String> {
    match path {
        "dynamic/instance-identity/document" => Some(
            serde_json::json!({
                "instanceId": state.id, "instanceType": "c7g.large", "imageId": "ami-1", "region": "eu-central-1",
                "availabilityZone": "eu-central-1a", "accountId": "123456789012",
            })
            .to_string(),
        ),
        "meta-data/instance-id" => Some(state.id.clone()),
        "meta-data/local-ipv4" => Some(state.local_ipv4.clone()),
        "meta-data/public-ipv4" => state.public_ipv4.clone(),
        "meta-data/tags/instance" => Some(state.tags.as_ref()?.keys().cloned().collect::<Vec<_>>().join("\n")),
        "meta-data/autoscaling/target-lifecycle-state" => state.target_lifecycle_state.clone(),
        "meta-data/spot/instance-action" => state
            .spot_action
            .as_ref()
            .map(|action| serde_json::json!({ "action": action, "time": "2030-01-01T00:00:00Z" }).to_string()),
        "meta-data/iam/info" => {
            let name = &state.role.as_ref()?.name;
            let profile = format!("arn:aws:iam::123456789012:instance-profile/{name}");
            Some(serde_json::json!({ "Code": "Success", "InstanceProfileArn": profile }).to_string())
        }
        "meta-data/iam/security-credentials/" => Some(state.role.as_ref()?.name.clone()),
        _ if path.starts_with("meta-data/iam/security-credentials/") => {
            let role = state.role.as_ref().filter(|role| path.ends_with(&format!("/{}", role.name)))?;
            let credentials = serde_json::json!({
                "Code": "Success", "LastUpdated": "2026-01-01T00:00:00Z", "Type": "AWS-HMAC", "AccessKeyId": role.access_key_id,
                "SecretAccessKey": role.secret_access_key, "Token": role.token, "Expiration": "2099-01-01T00:00:00Z",
            });
            Some(credentials.to_string())
        }
        _ => state.tags.as_ref()?.get(path.strip_prefix("meta-data/tags/instance/")?).cloned(),
    }
}

/// Starts the vendor's mock (`ec2-metadata-mock`, IMDSv2 only) with the tags `headwater:role` and
/// `headwater:cluster` of instance `i-0aa`. `options` are command-line options of the mock. Returns
/// `None` if it is not installed; the skip is printed.
///
/// # Errors
/// If it does not answer in time.
pub fn start_vendor_mock(
    role: &str,
    cluster: &str,
    options: &[&str],
) -> anyhow::Result<Option<(Process, SocketAddr, TempDir)>> {
    let Some(program) = tools::find_program("ec2-metadata-mock") else { return Ok(None) };
    let folder = TempDir::new()?;
    let tag = "/latest/meta-data/tags/instance/headwater:";
    let config = serde_json::json!({ "metadata": {
        "paths": { "tags-instance-name": format!("{tag}cluster"), "tags-instance-test": format!("{tag}role") },
        "values": { "tags-instance-name": cluster, "tags-instance-test": role, "instance-id": "i-0aa" },
    }});
    let file = folder.write("mock.json", config.to_string())?;
    // The mock needs a port number. This one was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let port = address.port().to_string();
    let mut command = Command::new(program);
    command.args(["-I", "-n", "127.0.0.1", "-p", &port, "-c"]).arg(file).args(options);
    let process = Process::start(command.env("HOME", folder.path()))?;
    wait::until("the vendor's mock to listen", || TcpStream::connect(address).ok()).context("ec2-metadata-mock")?;
    Ok(Some((process, address, folder)))
}
