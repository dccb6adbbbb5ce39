//! A fake of Auto Scaling for any number of instances, with their real life cycle: a lifecycle hook
//! holds an instance until it is completed or times out, heartbeats restart the time-out up to a
//! limit, and protected instances are not scaled in.
//!
//! ```text
//!   Pending:Wait --CONTINUE--> InService --terminate, scale in--> Terminating:Wait --> Terminated
//!        '-- ABANDON or time-out -----------------------------------^
//! ```
//!
//! An instance of a warm pool enters the pool first and returns to it on scale-in ("reuse on
//! scale-in"). Both times it waits in `Warmed:Pending:Wait`, first for the launching hook, later
//! for the terminating one
//! (docs.aws.amazon.com/autoscaling/ec2/userguide/warm-pool-instance-lifecycle.html):
//!
//! ```text
//!   Warmed:Pending:Wait --CONTINUE--> Warmed:STATE --scale out--> Pending:Wait --> InService
//!        '-- ABANDON or time-out --> Warmed:Terminating:Wait <--terminate-- Warmed:STATE
//! ```
//!
//! A callback given at launch receives each target state of the instance. The protocol is in
//! `service.rs`.

mod service;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

/// Lifecycle state of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    /// Waits for the launching hook.
    PendingWait,
    /// In service.
    InService,
    /// Waits for the terminating hook.
    TerminatingWait,
    /// Terminated.
    Terminated,
    /// Waits for the launching hook before it enters the warm pool.
    WarmedPendingWait,
    /// In the warm pool.
    Warmed,
    /// Waits for the terminating hook before it returns to the warm pool.
    WarmedReturnWait,
    /// Waits for the terminating hook before it is terminated from the warm pool.
    WarmedTerminatingWait,
}

/// Receives the target lifecycle state in the form that instance metadata shows.
type TargetStateCallback = Box<dyn Fn(&str) + Send + Sync>;

/// One instance of a group.
pub struct Instance {
    group: String,
    /// `Running`, `Stopped` or `Hibernated` if the group has a warm pool.
    pool_state: Option<&'static str>,
    /// Current lifecycle state.
    pub lifecycle: Lifecycle,
    /// True if the instance is protected from scale-in.
    pub protected: bool,
    /// Heartbeats recorded for the current or most recent hook.
    pub heartbeats: u32,
    /// True if the most recent hook was completed and did not time out.
    pub completed: bool,
    hook_started: Instant,
    hook_deadline: Instant,
    launched_at: Instant,
    on_target_state: TargetStateCallback,
}

/// The running fake. Runs until the process ends.
#[derive(Debug)]
pub struct FakeAutoScaling {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    instances: BTreeMap<String, Instance>,
    /// Number of requests that still fail.
    remaining_failures: u32,
    /// Requested actions, including failed ones.
    actions: Vec<String>,
}

impl FakeAutoScaling {
    /// Starts the fake on `listener`, without instances.
    ///
    /// # Errors
    /// If the listener has no address.
    pub fn start(listener: TcpListener) -> anyhow::Result<Self> {
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let (server, hooks) = (Arc::clone(&shared), Arc::clone(&shared));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let server = Arc::clone(&server);
                // A client that went away is its own affair.
                std::thread::spawn(move || server.serve(stream).ok());
            }
        });
        std::thread::spawn(move || hooks.expire_hooks());
        Ok(Self { address, shared })
    }

    /// Address of the fake.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Environment that makes the AWS SDK use only this fake, with credentials that are valid
    /// nowhere else.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_ACCESS_KEY_ID", "testing".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "testing".to_owned()),
        ]
    }

    /// Launches an instance that waits for the launching hook. The callback receives its target
    /// state now and on each change. It must not call methods of the fake.
    pub fn launch(&self, id: &str, group: &str, on_target_state: impl Fn(&str) + Send + Sync + 'static) {
        self.add_instance(id, group, None, Box::new(on_target_state));
    }

    /// Launches an instance into the warm pool of its group, which keeps instances in the state
    /// `pool_state`: `Running`, `Stopped` or `Hibernated`.
    pub fn launch_warm(
        &self,
        id: &str,
        group: &str,
        pool_state: &'static str,
        on_target_state: impl Fn(&str) + Send + Sync + 'static,
    ) {
        self.add_instance(id, group, Some(pool_state), Box::new(on_target_state));
    }

    fn add_instance(
        &self,
        id: &str,
        group: &str,
        pool_state: Option<&'static str>,
        on_target_state: TargetStateCallback,
    ) {
        let now = Instant::now();
        let mut instance = Instance {
            group: group.to_owned(),
            pool_state,
            lifecycle: Lifecycle::Terminated,
            protected: false,
            heartbeats: 0,
            completed: false,
            hook_started: now,
            hook_deadline: now + HEARTBEAT_TIMEOUT,
            launched_at: now,
            on_target_state,
        };
        match pool_state {
            None => instance.enter_hook(Lifecycle::PendingWait, "InService"),
            Some(pool_state) => instance.enter_hook(Lifecycle::WarmedPendingWait, &format!("Warmed:{pool_state}")),
        }
        self.shared.lock().instances.insert(id.to_owned(), instance);
        self.shared.changed.notify_all();
    }

    /// Extends the time-out of the hook that holds an instance.
    ///
    /// # Errors
    /// If there is no such instance.
    pub fn extend_hook(&self, id: &str, by: Duration) -> anyhow::Result<()> {
        self.shared.lock().instances.get_mut(id).with_context(|| format!("no instance {id}"))?.hook_deadline += by;
        Ok(())
    }

    /// Terminates an instance like `TerminateInstanceInAutoScalingGroup`, even if it is protected.
    ///
    /// # Errors
    /// If there is no such instance.
    pub fn terminate(&self, id: &str) -> anyhow::Result<()> {
        self.shared.lock().instances.get_mut(id).with_context(|| format!("no instance {id}"))?.terminate();
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Increases the desired capacity of a group by one: takes an instance out of its warm pool, if
    /// there is one, and returns its id.
    pub fn scale_out(&self, group: &str) -> Option<String> {
        let mut state = self.shared.lock();
        let (id, instance) =
            state.instances.iter_mut().find(|(_, i)| i.group == group && i.lifecycle == Lifecycle::Warmed)?;
        instance.enter_hook(Lifecycle::PendingWait, "InService");
        let id = id.clone();
        drop(state);
        self.shared.changed.notify_all();
        Some(id)
    }

    /// Decreases the desired capacity of a group by one: terminates its oldest unprotected
    /// instance, if there is one, and returns its id. An instance of a warm pool returns to the
    /// pool.
    pub fn scale_in(&self, group: &str) -> Option<String> {
        let mut state = self.shared.lock();
        let (id, instance) = state
            .instances
            .iter_mut()
            .filter(|(_, i)| i.group == group && i.lifecycle == Lifecycle::InService && !i.protected)
            .min_by_key(|(_, i)| i.launched_at)?;
        match instance.pool_state {
            None => instance.terminate(),
            Some(pool_state) => instance.enter_hook(Lifecycle::WarmedReturnWait, &format!("Warmed:{pool_state}")),
        }
        let id = id.clone();
        drop(state);
        self.shared.changed.notify_all();
        Some(id)
    }

    /// Removes an instance that was terminated outside Auto Scaling.
    pub fn forget(&self, id: &str) {
        self.shared.lock().instances.remove(id);
    }

    /// Answers the next `requests` requests with status 500.
    pub fn fail_requests(&self, requests: u32) {
        self.shared.lock().remaining_failures = requests;
    }

    /// Actions requested so far, including failed ones.
    pub fn actions(&self) -> Vec<String> {
        self.shared.lock().actions.clone()
    }

    /// Waits until `check` returns a value for an instance, and returns it. `what` completes
    /// "waiting for …".
    ///
    /// # Errors
    /// If the instance does not exist or the time-out expires.
    pub fn wait<T>(
        &self,
        id: &str,
        timeout: Duration,
        what: &str,
        check: impl Fn(&Instance) -> Option<T>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.lock();
        loop {
            let instance = state.instances.get(id).with_context(|| format!("no instance {id}"))?;
            if let Some(found) = check(instance) {
                return Ok(found);
            }
            let remaining = deadline.saturating_duration_since(Instant::now());
            let last_actions = &state.actions[state.actions.len().saturating_sub(10)..];
            ensure!(
                !remaining.is_zero(),
                "timed out waiting for {what}: {id} is {instance:?}; last actions: {last_actions:?}"
            );
            state = self.shared.changed.wait_timeout(state, remaining).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Instance {
    fn terminate(&mut self) {
        match self.lifecycle {
            Lifecycle::TerminatingWait | Lifecycle::WarmedTerminatingWait | Lifecycle::Terminated => {}
            Lifecycle::WarmedPendingWait | Lifecycle::Warmed => {
                self.enter_hook(Lifecycle::WarmedTerminatingWait, "Warmed:Terminated");
            }
            Lifecycle::PendingWait | Lifecycle::InService | Lifecycle::WarmedReturnWait => {
                self.enter_hook(Lifecycle::TerminatingWait, "Terminated");
            }
        }
    }

    /// Starts the hook that precedes the target state `target`.
    fn enter_hook(&mut self, lifecycle: Lifecycle, target: &str) {
        let now = Instant::now();
        self.lifecycle = lifecycle;
        (self.hook_started, self.hook_deadline) = (now, now + HEARTBEAT_TIMEOUT);
        (self.heartbeats, self.completed) = (0, false);
        (self.on_target_state)(target);
    }

    /// Ends the active hook. `continues` is true for the result CONTINUE, false for ABANDON.
    fn finish_hook(&mut self, continues: bool) {
        match self.lifecycle {
            Lifecycle::PendingWait if continues => self.lifecycle = Lifecycle::InService,
            Lifecycle::WarmedPendingWait | Lifecycle::WarmedReturnWait if continues => {
                self.lifecycle = Lifecycle::Warmed
            }
            Lifecycle::PendingWait | Lifecycle::WarmedPendingWait | Lifecycle::WarmedReturnWait => self.terminate(),
            Lifecycle::TerminatingWait | Lifecycle::WarmedTerminatingWait => self.lifecycle = Lifecycle::Terminated,
            Lifecycle::InService | Lifecycle::Warmed | Lifecycle::Terminated => {}
        }
    }

    fn record_heartbeat(&mut self) {
        self.heartbeats += 1;
        let latest = self.hook_started + HEARTBEAT_TIMEOUT * GLOBAL_TIMEOUT_HEARTBEATS;
        self.hook_deadline = (Instant::now() + HEARTBEAT_TIMEOUT).min(latest);
    }

    fn is_waiting(&self) -> bool {
        self.active_hook().is_some()
    }

    fn active_hook(&self) -> Option<&'static str> {
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

    /// Ends hooks whose time-out has expired, with the default result ABANDON.
    fn expire_hooks(&self) {
        loop {
            std::thread::park_timeout(HOOK_CHECK_INTERVAL);
            let now = Instant::now();
            for instance in self.lock().instances.values_mut() {
                if instance.is_waiting() && now >= instance.hook_deadline {
                    instance.finish_hook(false);
                    self.changed.notify_all();
                }
            }
        }
    }
}

/// The shortest heartbeat time-out that Auto Scaling allows.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(30);
/// A hook holds an instance for at most this many heartbeat time-outs.
const GLOBAL_TIMEOUT_HEARTBEATS: u32 = 100;
const HOOK_CHECK_INTERVAL: Duration = Duration::from_millis(100);
