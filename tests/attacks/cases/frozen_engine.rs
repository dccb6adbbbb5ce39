//! An engine that does not run for three seconds, as on an overloaded host: `headwaterd` waits, and
//! viewers continue.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use headwater_tests::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::target::{Setup, Target};

pub(super) fn three_seconds(_: &Setup, target: &mut Target) -> anyhow::Result<String> {
    const FROZEN_DURATION: Duration = Duration::from_secs(3);
    target.withstand_with(FROZEN_DURATION, |node| {
        let pid = Pid::from_raw(i32::try_from(node.engine_pid())?);
        kill(pid, Signal::SIGSTOP)?;
        let started = Instant::now();
        let passed = wait::until("three seconds", || (started.elapsed() >= FROZEN_DURATION).then_some(()));
        kill(pid, Signal::SIGCONT)?;
        passed?;
        let resumed = Instant::now();
        node.wait_ready().context("after the freeze")?;
        Ok(format!("ready {} ms after it", resumed.elapsed().as_millis()))
    })
}
