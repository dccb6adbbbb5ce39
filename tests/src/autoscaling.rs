//! A fake of Auto Scaling for any number of instances, with their real life cycle: hooks hold an instance until they are
//! completed or their time is over, heartbeats make that time begin anew up to a limit, and protected instances are not
//! scaled in.
//!
//! ```text
//!   Pending:Wait --complete CONTINUE--> InService --terminate / scale in--> Terminating:Wait --complete, or time over--> Terminated
//!        '-- ABANDON, or time over ------------------------------------------^
//! ```
//!
//! An instance of a warm pool goes there first, and back on scale-in ("reuse on scale-in"). Both times it waits in `Warmed:Pending:Wait`,
//! for the launching hook and for the terminating one
//! (docs.aws.amazon.com/autoscaling/ec2/userguide/warm-pool-instance-lifecycle.html):
//!
//! ```text
//!   Warmed:Pending:Wait --CONTINUE--> Warmed:STATE --scale out--> Pending:Wait --CONTINUE--> InService --scale in--> Warmed:Pending:Wait
//!        '-- ABANDON, or time over --> Warmed:Terminating:Wait <--terminate-- Warmed:STATE
//! ```
//!
//! What becomes of an instance is told to whoever launched it. The protocol is in `service.rs`.

mod service;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

/// Where an instance stands.
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
    /// Held by the launching hook, on its way into the warm pool.
    WarmedPendingWait,
    /// In the warm pool.
    Warmed,
    /// Held by the terminating hook, on its way back into the warm pool.
    WarmedReturnWait,
    /// Held by the terminating hook, on its way from the warm pool to its end.
    WarmedTerminatingWait,
}

/// Told the target state, as metadata shows it.
type Tell = Box<dyn Fn(&str) + Send + Sync>;

/// One instance of a group.
pub struct Instance {
    group: String,
    /// `Running`, `Stopped` or `Hibernated`, if its group has a warm pool.
    pool: Option<&'static str>,
    /// Where it stands.
    pub lifecycle: Lifecycle,
    /// Kept from scale-in.
    pub protected: bool,
    /// Heartbeats of the hook that holds it or held it last.
    pub heartbeats: u32,
    /// The hook that held it last was completed, and not left to its time-out.
    pub completed: bool,
    hook_began: Instant,
    hook_ends: Instant,
    launched: Instant,
    tell: Tell,
}

/// The running fake. Ends with the process.
#[derive(Debug)]
pub struct Groups {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    instances: BTreeMap<String, Instance>,
    /// Requests to refuse before the next good answer.
    refusals: u32,
    /// Actions asked for, refused ones too.
    actions: Vec<String>,
}

impl Groups {
    /// Answers on `listener`; no instances yet.
    ///
    /// # Errors
    /// If the listener has no address.
    pub fn start(listener: TcpListener) -> anyhow::Result<Self> {
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
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
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Environment that makes the SDK of AWS ask this fake and nobody else, with credentials that are good nowhere else.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_ACCESS_KEY_ID", "testing".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "testing".to_owned()),
        ]
    }

    /// A new instance, held by the launching hook. `tell` hears its target state, now and whenever it changes; it must not
    /// call back.
    pub fn launch(&self, id: &str, group: &str, tell: impl Fn(&str) + Send + Sync + 'static) {
        self.add(id, group, None, Box::new(tell));
    }

    /// The same, into the warm pool of its group, which keeps instances in the state `pool`: `Running`, `Stopped` or `Hibernated`.
    pub fn launch_warm(&self, id: &str, group: &str, pool: &'static str, tell: impl Fn(&str) + Send + Sync + 'static) {
        self.add(id, group, Some(pool), Box::new(tell));
    }

    fn add(&self, id: &str, group: &str, pool: Option<&'static str>, tell: Tell) {
        let now = Instant::now();
        let mut instance = Instance {
            group: group.to_owned(),
            pool,
            lifecycle: Lifecycle::Terminated,
            protected: false,
            heartbeats: 0,
            completed: false,
            hook_began: now,
            hook_ends: now + HEARTBEAT_TIMEOUT,
            launched: now,
            tell,
        };
        match pool {
            None => instance.hold(Lifecycle::PendingWait, "InService"),
            Some(pool) => instance.hold(Lifecycle::WarmedPendingWait, &format!("Warmed:{pool}")),
        }
        self.shared.lock().instances.insert(id.to_owned(), instance);
        self.shared.news.notify_all();
    }

    /// The hook that holds an instance does so for longer, as one with a longer time-out would.
    ///
    /// # Errors
    /// If there is no such instance.
    pub fn extend(&self, id: &str, by: Duration) -> anyhow::Result<()> {
        self.shared.lock().instances.get_mut(id).with_context(|| format!("no instance {id}"))?.hook_ends += by;
        Ok(())
    }

    /// `TerminateInstanceInAutoScalingGroup`: protection does not keep from it.
    ///
    /// # Errors
    /// If there is no such instance.
    pub fn terminate(&self, id: &str) -> anyhow::Result<()> {
        self.shared.lock().instances.get_mut(id).with_context(|| format!("no instance {id}"))?.terminate();
        self.shared.news.notify_all();
        Ok(())
    }

    /// The desired size of a group goes up by one: takes an instance out of its warm pool, if there is one, and says which.
    pub fn scale_out(&self, group: &str) -> Option<String> {
        let mut state = self.shared.lock();
        let (id, instance) =
            state.instances.iter_mut().find(|(_, i)| i.group == group && i.lifecycle == Lifecycle::Warmed)?;
        instance.hold(Lifecycle::PendingWait, "InService");
        let id = id.clone();
        drop(state);
        self.shared.news.notify_all();
        Some(id)
    }

    /// The desired size of a group goes down by one: ends its oldest instance that is not protected, if there is one, and
    /// says which. An instance of a warm pool goes back there.
    pub fn scale_in(&self, group: &str) -> Option<String> {
        let mut state = self.shared.lock();
        let (id, instance) = state
            .instances
            .iter_mut()
            .filter(|(_, i)| i.group == group && i.lifecycle == Lifecycle::InService && !i.protected)
            .min_by_key(|(_, i)| i.launched)?;
        match instance.pool {
            None => instance.terminate(),
            Some(pool) => instance.hold(Lifecycle::WarmedReturnWait, &format!("Warmed:{pool}")),
        }
        let id = id.clone();
        drop(state);
        self.shared.news.notify_all();
        Some(id)
    }

    /// Forgets an instance that was ended outside Auto Scaling.
    pub fn forget(&self, id: &str) {
        self.shared.lock().instances.remove(id);
    }

    /// Refuses so many requests with 500 before the next good answer.
    pub fn refuse(&self, requests: u32) {
        self.shared.lock().refusals = requests;
    }

    /// Actions asked for so far, refused ones too.
    pub fn actions(&self) -> Vec<String> {
        self.shared.lock().actions.clone()
    }

    /// Waits until an instance is as wanted, and gives what `look` made of it. `what` completes "waiting for …".
    ///
    /// # Errors
    /// If that is not so in time.
    pub fn wait<T>(
        &self,
        id: &str,
        patience: Duration,
        what: &str,
        look: impl Fn(&Instance) -> Option<T>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.lock();
        loop {
            let instance = state.instances.get(id).with_context(|| format!("no instance {id}"))?;
            if let Some(found) = look(instance) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let asked = &state.actions[state.actions.len().saturating_sub(10)..];
            ensure!(!left.is_zero(), "timed out waiting for {what}: {id} is {instance:?}; asked last: {asked:?}");
            state = self.shared.news.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Instance {
    fn terminate(&mut self) {
        match self.lifecycle {
            Lifecycle::TerminatingWait | Lifecycle::WarmedTerminatingWait | Lifecycle::Terminated => {}
            Lifecycle::WarmedPendingWait | Lifecycle::Warmed => {
                self.hold(Lifecycle::WarmedTerminatingWait, "Warmed:Terminated");
            }
            Lifecycle::PendingWait | Lifecycle::InService | Lifecycle::WarmedReturnWait => {
                self.hold(Lifecycle::TerminatingWait, "Terminated");
            }
        }
    }

    /// A hook holds it from now on, on its way to `target`.
    fn hold(&mut self, lifecycle: Lifecycle, target: &str) {
        let now = Instant::now();
        self.lifecycle = lifecycle;
        (self.hook_began, self.hook_ends) = (now, now + HEARTBEAT_TIMEOUT);
        (self.heartbeats, self.completed) = (0, false);
        (self.tell)(target);
    }

    /// The hook that holds it is over; `go_on` is CONTINUE.
    fn over(&mut self, go_on: bool) {
        match self.lifecycle {
            Lifecycle::PendingWait if go_on => self.lifecycle = Lifecycle::InService,
            Lifecycle::WarmedPendingWait | Lifecycle::WarmedReturnWait if go_on => self.lifecycle = Lifecycle::Warmed,
            Lifecycle::PendingWait | Lifecycle::WarmedPendingWait | Lifecycle::WarmedReturnWait => self.terminate(),
            Lifecycle::TerminatingWait | Lifecycle::WarmedTerminatingWait => self.lifecycle = Lifecycle::Terminated,
            Lifecycle::InService | Lifecycle::Warmed | Lifecycle::Terminated => {}
        }
    }

    fn beat(&mut self) {
        self.heartbeats += 1;
        let latest = self.hook_began + HEARTBEAT_TIMEOUT * GLOBAL_TIMEOUT_HEARTBEATS;
        self.hook_ends = (Instant::now() + HEARTBEAT_TIMEOUT).min(latest);
    }

    fn is_held(&self) -> bool {
        self.held_by().is_some()
    }

    fn held_by(&self) -> Option<&'static str> {
        match self.lifecycle {
            Lifecycle::PendingWait | Lifecycle::WarmedPendingWait => Some("launching"),
            Lifecycle::TerminatingWait | Lifecycle::WarmedReturnWait | Lifecycle::WarmedTerminatingWait => {
                Some("terminating")
            }
            Lifecycle::InService | Lifecycle::Warmed | Lifecycle::Terminated => None,
        }
    }
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { lifecycle, protected, heartbeats, completed, .. } = self;
        write!(f, "{lifecycle:?} (protected: {protected}, heartbeats: {heartbeats}, completed: {completed})")
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hooks' default result is ABANDON.
    fn watch_hooks(&self) {
        loop {
            std::thread::park_timeout(LOOK);
            let now = Instant::now();
            for instance in self.lock().instances.values_mut() {
                if instance.is_held() && now >= instance.hook_ends {
                    instance.over(false);
                    self.news.notify_all();
                }
            }
        }
    }
}

/// The shortest that Auto Scaling allows.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(30);
/// A hook holds an instance for so many heartbeat time-outs at the longest.
const GLOBAL_TIMEOUT_HEARTBEATS: u32 = 100;
const LOOK: Duration = Duration::from_millis(100);
