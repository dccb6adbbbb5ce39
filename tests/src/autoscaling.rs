//! A fake of Auto Scaling for one instance: lifecycle hooks as AWS documents them, scale-in protection, and refusals.
//!
//! Speaks the query protocol (form-encoded POST, XML answers), one request per connection, served in turn.
//!
//! ```text
//! Pending:Wait --complete launching--> InService --terminate()--> Terminating:Wait --complete terminating--> Terminated
//! ```

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::wait::PATIENCE;

/// Where the instance stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    /// Held by the launching hook.
    PendingWait,
    /// Serving.
    InService,
    /// Held by the terminating hook.
    TerminatingWait,
    /// Gone.
    Terminated,
}

/// What the fake knows.
#[derive(Debug, Clone)]
pub struct State {
    /// Where the instance stands.
    pub lifecycle: Lifecycle,
    /// Protected from scale-in.
    pub protected: bool,
    /// Heartbeats that a hook has taken.
    pub heartbeats: u32,
    /// Requests to refuse with 500 before the next good answer.
    pub refusals: u32,
    /// Actions asked for, refused ones too.
    pub actions: Vec<String>,
}

/// A running fake, with hooks `launching` and `terminating`. Ends with the test process.
#[derive(Debug)]
pub struct Fake {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    news: Condvar,
}

impl Fake {
    /// Starts it on a free port, with the instance in `Pending:Wait`.
    ///
    /// # Errors
    /// If no port can be had.
    pub fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let state = State {
            lifecycle: Lifecycle::PendingWait,
            protected: false,
            heartbeats: 0,
            refusals: 0,
            actions: Vec::new(),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), news: Condvar::new() });
        let server = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // A client that went away is its own affair.
                let _ = server.serve(stream);
            }
        });
        Ok(Self { address, shared })
    }

    /// Environment that makes the SDK of AWS ask this fake, with credentials that are good nowhere else.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_ACCESS_KEY_ID", "testing".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "testing".to_owned()),
        ]
    }

    /// Changes its state.
    pub fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.lock());
        self.shared.news.notify_all();
    }

    /// What it knows now.
    pub fn state(&self) -> State {
        self.shared.lock().clone()
    }

    /// Waits until the state is as wanted. `what` completes "waiting for …".
    ///
    /// # Errors
    /// If that is not so within [`PATIENCE`].
    pub fn wait(&self, what: &str, wanted: impl Fn(&State) -> bool) -> anyhow::Result<State> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.shared.lock();
        while !wanted(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "timed out waiting for {what}: {state:?}");
            state = self.shared.news.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(state.clone())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut stream: TcpStream) -> anyhow::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") && request.len() < 16_384 {
            stream.read_exact(&mut byte)?;
            request.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&request).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).context("no length")?;
        let mut body = vec![0; length.trim().parse()?];
        stream.read_exact(&mut body)?;
        let (status, xml) = self.answer(&String::from_utf8_lossy(&body));
        self.news.notify_all();
        write!(
            stream,
            "HTTP/1.1 {status} x\r\ncontent-type: text/xml\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{xml}",
            xml.len()
        )?;
        Ok(())
    }

    fn answer(&self, form: &str) -> (u16, String) {
        let value =
            |key: &str| form.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default();
        let action = value("Action");
        if action == "DescribeInstanceTypes" {
            // Another service's, at the same address only here.
            return error(400, "InvalidAction", "the fake is no EC2");
        }
        let hook = value("LifecycleHookName");
        let mut state = self.lock();
        state.actions.push(action.to_owned());
        if state.refusals > 0 {
            state.refusals -= 1;
            return error(500, "InternalFailure", "an error of the fake");
        }
        let held = matches!(
            (hook, state.lifecycle),
            ("launching", Lifecycle::PendingWait) | ("terminating", Lifecycle::TerminatingWait)
        );
        match action {
            "DescribeLifecycleHooks" => {
                let hook = |name: &str, transition: &str| {
                    format!(
                        "<member><LifecycleHookName>{name}</LifecycleHookName><LifecycleTransition>autoscaling:\
                         EC2_INSTANCE_{transition}</LifecycleTransition></member>"
                    )
                };
                let hooks = hook("launching", "LAUNCHING") + &hook("terminating", "TERMINATING");
                ok(action, &format!("<LifecycleHooks>{hooks}</LifecycleHooks>"))
            }
            "CompleteLifecycleAction" | "RecordLifecycleActionHeartbeat" if !held => {
                error(400, "ValidationError", "No active Lifecycle Action found with instance ID i-0fake")
            }
            "CompleteLifecycleAction" => {
                state.lifecycle = if state.lifecycle == Lifecycle::PendingWait {
                    Lifecycle::InService
                } else {
                    Lifecycle::Terminated
                };
                ok(action, "")
            }
            "RecordLifecycleActionHeartbeat" => {
                state.heartbeats += 1;
                ok(action, "")
            }
            "SetInstanceProtection" => {
                state.protected = value("ProtectedFromScaleIn") == "true";
                ok(action, "")
            }
            _ => error(400, "InvalidAction", "the fake does not know this action"),
        }
    }
}

fn ok(action: &str, result: &str) -> (u16, String) {
    let name = "xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\"";
    let meta = "<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>";
    (200, format!("<{action}Response {name}><{action}Result>{result}</{action}Result>{meta}</{action}Response>"))
}

fn error(status: u16, code: &str, message: &str) -> (u16, String) {
    let error = format!("<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>");
    (status, format!("<ErrorResponse>{error}<RequestId>1</RequestId></ErrorResponse>"))
}
