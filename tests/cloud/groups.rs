//! A fake of Auto Scaling for many instances, with its real life cycle: hooks hold an instance until they are completed or
//! their time is over, heartbeats make that time begin anew up to a limit, and protected instances are not scaled in.
//!
//! ```text
//!   Pending:Wait --complete CONTINUE--> InService --terminate / scale in--> Terminating:Wait --complete, or time over--> Terminated
//!        '-- ABANDON, or time over ------------------------------------------^
//! ```
//!
//! Speaks the query protocol (form-encoded POST, XML answers). What becomes of an instance is told to whoever launched it.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

/// Where an instance stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifecycle {
    /// Held by the launching hook.
    PendingWait,
    /// Serving.
    InService,
    /// Held by the terminating hook.
    TerminatingWait,
    /// Gone.
    Terminated,
}

/// Told the target state, as metadata shows it.
type Tell = Box<dyn Fn(&str) + Send + Sync>;

/// One instance of a group.
pub(crate) struct Instance {
    group: String,
    /// Where it stands.
    pub(crate) lifecycle: Lifecycle,
    /// Kept from scale-in.
    pub(crate) protected: bool,
    /// Heartbeats of the hook that holds it or held it last.
    pub(crate) heartbeats: u32,
    /// The terminating hook was completed, and not left to its time-out.
    pub(crate) completed: bool,
    hook_began: Instant,
    hook_ends: Instant,
    launched: Instant,
    tell: Tell,
}

/// The running fake. Ends with the process.
pub(crate) struct Groups {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    instances: Mutex<BTreeMap<String, Instance>>,
    news: Condvar,
}

impl Groups {
    /// Answers on `listener`; no instances yet.
    pub(crate) fn start(listener: TcpListener) -> anyhow::Result<Self> {
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { instances: Mutex::default(), news: Condvar::new() });
        let (server, clock) = (Arc::clone(&shared), Arc::clone(&shared));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let server = Arc::clone(&server);
                // A client that went away is its own affair.
                std::thread::spawn(move || server.serve(stream).ok());
            }
        });
        std::thread::spawn(move || clock.watch_hooks());
        Ok(Self { address, shared })
    }

    /// Where it answers.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A new instance, held by the launching hook. `tell` hears its target state, now and whenever it changes; it must not
    /// call back.
    pub(crate) fn launch(&self, id: &str, group: &str, tell: impl Fn(&str) + Send + Sync + 'static) {
        tell("InService");
        let now = Instant::now();
        let instance = Instance {
            group: group.to_owned(),
            lifecycle: Lifecycle::PendingWait,
            protected: false,
            heartbeats: 0,
            completed: false,
            hook_began: now,
            hook_ends: now + HEARTBEAT_TIMEOUT,
            launched: now,
            tell: Box::new(tell),
        };
        self.shared.lock().insert(id.to_owned(), instance);
        self.shared.news.notify_all();
    }

    /// `TerminateInstanceInAutoScalingGroup`: protection does not keep from it.
    pub(crate) fn terminate(&self, id: &str) -> anyhow::Result<()> {
        self.shared.lock().get_mut(id).with_context(|| format!("no instance {id}"))?.terminate();
        self.shared.news.notify_all();
        Ok(())
    }

    /// The desired size of a group goes down by one: ends its oldest instance that is not protected, if there is one, and
    /// says which.
    pub(crate) fn scale_in(&self, group: &str) -> Option<String> {
        let mut instances = self.shared.lock();
        let (id, instance) = instances
            .iter_mut()
            .filter(|(_, i)| i.group == group && i.lifecycle == Lifecycle::InService && !i.protected)
            .min_by_key(|(_, i)| i.launched)?;
        instance.terminate();
        let id = id.clone();
        drop(instances);
        self.shared.news.notify_all();
        Some(id)
    }

    /// Forgets an instance that was ended outside Auto Scaling.
    pub(crate) fn forget(&self, id: &str) {
        self.shared.lock().remove(id);
    }

    /// Waits until an instance is as wanted, and gives what `look` made of it. `what` completes "waiting for …".
    ///
    /// # Errors
    /// If that is not so in time.
    pub(crate) fn wait<T>(
        &self,
        id: &str,
        patience: Duration,
        what: &str,
        look: impl Fn(&Instance) -> Option<T>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + patience;
        let mut instances = self.shared.lock();
        loop {
            let instance = instances.get(id).with_context(|| format!("no instance {id}"))?;
            if let Some(found) = look(instance) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "timed out waiting for {what}: {id} is {:?}", instance.lifecycle);
            instances = self.shared.news.wait_timeout(instances, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Instance {
    fn terminate(&mut self) {
        if matches!(self.lifecycle, Lifecycle::TerminatingWait | Lifecycle::Terminated) {
            return;
        }
        let now = Instant::now();
        self.lifecycle = Lifecycle::TerminatingWait;
        (self.hook_began, self.hook_ends, self.heartbeats) = (now, now + HEARTBEAT_TIMEOUT, 0);
        (self.tell)("Terminated");
    }

    /// The hook that holds it is over; `go_on` is CONTINUE.
    fn over(&mut self, go_on: bool) {
        match self.lifecycle {
            Lifecycle::PendingWait if go_on => self.lifecycle = Lifecycle::InService,
            Lifecycle::PendingWait => self.terminate(),
            Lifecycle::TerminatingWait => self.lifecycle = Lifecycle::Terminated,
            Lifecycle::InService | Lifecycle::Terminated => {}
        }
    }

    fn is_held_by(&self, hook: &str) -> bool {
        matches!(
            (hook, self.lifecycle),
            ("launching", Lifecycle::PendingWait) | ("terminating", Lifecycle::TerminatingWait)
        )
    }

    fn name(&self) -> &'static str {
        match self.lifecycle {
            Lifecycle::PendingWait => "Pending:Wait",
            Lifecycle::InService => "InService",
            Lifecycle::TerminatingWait => "Terminating:Wait",
            Lifecycle::Terminated => "Terminated",
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Instance>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hooks' default result is ABANDON.
    fn watch_hooks(&self) {
        loop {
            std::thread::park_timeout(LOOK);
            let now = Instant::now();
            for instance in self.lock().values_mut() {
                let held = matches!(instance.lifecycle, Lifecycle::PendingWait | Lifecycle::TerminatingWait);
                if held && now >= instance.hook_ends {
                    instance.over(false);
                    self.news.notify_all();
                }
            }
        }
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
        let length: usize = length.trim().parse()?;
        ensure!(length <= 65_536, "a body of {length} bytes");
        let mut body = vec![0; length];
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
        if action == "DescribeLifecycleHooks" {
            return ok(action, &format!("<LifecycleHooks>{}</LifecycleHooks>", hooks(value("AutoScalingGroupName"))));
        }
        let id = match action {
            "SetInstanceProtection" | "DescribeAutoScalingInstances" => value("InstanceIds.member.1"),
            _ => value("InstanceId"),
        };
        let mut instances = self.lock();
        let Some(instance) = instances.get_mut(id) else {
            return error("ValidationError", &format!("The instance {id} is not part of an Auto Scaling group."));
        };
        let hook = value("LifecycleHookName");
        match action {
            "CompleteLifecycleAction" | "RecordLifecycleActionHeartbeat" if !instance.is_held_by(hook) => {
                error("ValidationError", &format!("No active Lifecycle Action found with instance ID {id}"))
            }
            "CompleteLifecycleAction" => {
                instance.completed = true;
                instance.over(value("LifecycleActionResult") == "CONTINUE");
                ok(action, "")
            }
            "RecordLifecycleActionHeartbeat" => {
                instance.heartbeats += 1;
                let latest = instance.hook_began + HEARTBEAT_TIMEOUT * GLOBAL_TIMEOUT_HEARTBEATS;
                instance.hook_ends = (Instant::now() + HEARTBEAT_TIMEOUT).min(latest);
                ok(action, "")
            }
            "SetInstanceProtection" => {
                instance.protected = value("ProtectedFromScaleIn") == "true";
                ok(action, "")
            }
            "DescribeAutoScalingInstances" => {
                let (group, name, protected) = (&instance.group, instance.name(), instance.protected);
                let inner = format!(
                    "<member><InstanceId>{id}</InstanceId><AutoScalingGroupName>{group}</AutoScalingGroupName>\
                     <AvailabilityZone>eu-central-1a</AvailabilityZone><LifecycleState>{name}</LifecycleState>\
                     <HealthStatus>HEALTHY</HealthStatus><ProtectedFromScaleIn>{protected}</ProtectedFromScaleIn></member>"
                );
                ok(action, &format!("<AutoScalingInstances>{inner}</AutoScalingInstances>"))
            }
            _ => error("InvalidAction", "the fake does not know this action"),
        }
    }
}

fn hooks(group: &str) -> String {
    let hook = |name: &str, transition: &str| {
        let (beat, all) =
            (HEARTBEAT_TIMEOUT.as_secs(), HEARTBEAT_TIMEOUT.as_secs() * u64::from(GLOBAL_TIMEOUT_HEARTBEATS));
        format!(
            "<member><LifecycleHookName>{name}</LifecycleHookName><AutoScalingGroupName>{group}</AutoScalingGroupName>\
             <LifecycleTransition>autoscaling:EC2_INSTANCE_{transition}</LifecycleTransition><DefaultResult>ABANDON</DefaultResult>\
             <HeartbeatTimeout>{beat}</HeartbeatTimeout><GlobalTimeout>{all}</GlobalTimeout></member>"
        )
    };
    hook("launching", "LAUNCHING") + &hook("terminating", "TERMINATING")
}

fn ok(action: &str, result: &str) -> (u16, String) {
    let name = "xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\"";
    let meta = "<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>";
    (200, format!("<{action}Response {name}><{action}Result>{result}</{action}Result>{meta}</{action}Response>"))
}

fn error(code: &str, message: &str) -> (u16, String) {
    let error = format!("<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>");
    (400, format!("<ErrorResponse>{error}<RequestId>1</RequestId></ErrorResponse>"))
}

/// The shortest that Auto Scaling allows.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(30);
/// A hook holds an instance for so many heartbeat time-outs at the longest.
const GLOBAL_TIMEOUT_HEARTBEATS: u32 = 100;
const LOOK: Duration = Duration::from_millis(100);
