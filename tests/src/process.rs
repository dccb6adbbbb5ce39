//! A child process whose output lines can be awaited and which never outlives its handle.
//!
//! One thread per pipe collects lines and one reaps the child. All three notify one condition
//! variable.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::wait::WAIT_TIMEOUT;

/// A running child process. Killed on drop.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Standard output and standard error, in the order they were read.
    lines: Vec<String>,
    /// Number of pipes that have not reached end of file.
    open_pipes: usize,
    exit: Option<ExitStatus>,
}

/// Lines kept of one process; later ones are discarded. No test needs more.
const MAX_LINES: usize = 200_000;

impl Process {
    /// Starts `command` and collects its output; standard input is empty.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        Self::spawn(command, None)
    }

    fn spawn(command: &mut Command, log: Option<File>) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("could not start {name}"))?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        let shared = Arc::new(Shared::default());
        shared.lock().open_pipes = 2;
        let (out, err) = (child.stdout.take().context("no stdout")?, child.stderr.take().context("no stderr")?);
        let err_log = log.as_ref().map(File::try_clone).transpose()?;
        collect_lines(out, log, Arc::clone(&shared));
        collect_lines(err, err_log, Arc::clone(&shared));
        let reaper = Arc::clone(&shared);
        std::thread::spawn(move || {
            // Wait without reaping first: the pid remains valid for signals until the lock is
            // taken.
            let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
            let mut state = reaper.lock();
            state.exit = Some(child.wait().unwrap_or_else(|_| ExitStatus::from_raw(0xff00)));
            drop(state);
            reaper.changed.notify_all();
        });
        Ok(Self { name, pid, shared })
    }

    /// Starts `command` so that it is killed when the calling thread ends, even by SIGKILL.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_tied_to_thread(command: &Command) -> anyhow::Result<Self> {
        let mut tied = Command::new("setpriv");
        tied.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => tied.env(name, value),
                None => tied.env_remove(name),
            };
        }
        Self::start(&mut tied)
    }

    /// Starts `command` and also appends its output lines to a file.
    ///
    /// # Errors
    /// If it cannot be started, or the file cannot be written.
    pub fn start_logged(command: &mut Command, file: &Path) -> anyhow::Result<Self> {
        let file = File::options().create(true).append(true).open(file);
        Self::spawn(command, Some(file.context("could not write a log")?))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// Number of output lines so far.
    pub fn line_count(&self) -> usize {
        self.shared.lock().lines.len()
    }

    /// Output lines from index `start` on.
    pub fn lines_from(&self, start: usize) -> Vec<String> {
        self.shared.lock().lines.iter().skip(start).cloned().collect()
    }

    /// All output lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.shared.lock().lines.clone()
    }

    /// Waits for the first line, past or future, that contains `needle`.
    ///
    /// # Errors
    /// If the process ends without such a line, or after [`WAIT_TIMEOUT`].
    pub fn wait_line(&self, needle: &str) -> anyhow::Result<String> {
        self.wait_line_from(0, needle)
    }

    /// Waits for the first line from index `start` on (see [`Process::line_count`]) that contains
    /// `needle`.
    ///
    /// # Errors
    /// If the process ends without such a line, or after [`WAIT_TIMEOUT`].
    pub fn wait_line_from(&self, start: usize, needle: &str) -> anyhow::Result<String> {
        let mut seen = start;
        self.wait_for(WAIT_TIMEOUT, &format!("a line with {needle:?}"), |state| {
            let found = state.lines.iter().skip(seen).find(|l| l.contains(needle)).cloned();
            seen = seen.max(state.lines.len());
            found
        })
    }

    /// Waits for the exit status.
    ///
    /// # Errors
    /// If the process still runs after `timeout`.
    pub fn wait_exit(&self, timeout: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.lock();
        // Grandchildren may keep the pipes open: wait for the last lines only for half of the
        // time-out.
        while state.exit.is_none() || (state.open_pipes > 0 && deadline > Instant::now() + timeout / 2) {
            let left = deadline.saturating_duration_since(Instant::now());
            anyhow::ensure!(
                !left.is_zero(),
                "{} still runs after {timeout:?}: {}",
                self.name,
                last_lines(&state.lines)
            );
            let half = if state.exit.is_some() { left.saturating_sub(timeout / 2) } else { left };
            state = self.shared.changed.wait_timeout(state, half).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.exit.context("left the loop without an exit status")
    }

    /// True until it has ended.
    pub fn is_running(&self) -> bool {
        self.shared.lock().exit.is_none()
    }

    /// Sends a signal; has no effect if the process has ended.
    pub fn signal(&self, signal: Signal) {
        let state = self.shared.lock();
        if state.exit.is_none() {
            // A process that has just ended and is not reaped yet ignores the signal.
            let _ = kill(self.pid, signal);
        }
    }

    fn wait_for<T>(
        &self,
        timeout: Duration,
        what: &str,
        mut check: impl FnMut(&State) -> Option<T>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.lock();
        loop {
            if let Some(found) = check(&state) {
                return Ok(found);
            }
            if let (Some(exit), 0) = (state.exit, state.open_pipes) {
                anyhow::bail!("{} ended ({exit}) without {what}: {}", self.name, last_lines(&state.lines));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            anyhow::ensure!(
                !left.is_zero(),
                "{}: no {what} within {timeout:?}: {}",
                self.name,
                last_lines(&state.lines)
            );
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn collect_lines(pipe: impl Read + Send + 'static, mut log: Option<File>, shared: Arc<Shared>) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            if let Some(log) = &mut log {
                // A full disk loses the copy but does not fail the test.
                let _ = log.write_all(&[&line[..], b"\n"].concat());
            }
            let mut state = shared.lock();
            if state.lines.len() < MAX_LINES {
                state.lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            drop(state);
            shared.changed.notify_all();
        }
        shared.lock().open_pipes -= 1;
        shared.changed.notify_all();
    });
}

/// Formats the last lines for the message of a failed test.
fn last_lines(lines: &[String]) -> String {
    let last = &lines[lines.len().saturating_sub(40)..];
    if last.is_empty() { "it printed nothing".to_owned() } else { format!("its last lines:\n{}", last.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        Process::start(Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn lines_and_exit_code_can_be_awaited() {
        let p = shell("echo one; echo two >&2; exit 3");
        assert_eq!(p.wait_line("two").unwrap(), "two");
        assert_eq!(p.wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(3));
        assert!(p.wait_line("three").unwrap_err().to_string().contains("without a line"));
    }

    #[test]
    fn dropped_process_is_killed() {
        let p = shell("echo up; exec sleep 1000");
        p.wait_line("up").unwrap();
        let shared = Arc::clone(&p.shared);
        drop(p);
        let state = shared.lock();
        let (state, timeout) = shared
            .changed
            .wait_timeout_while(state, WAIT_TIMEOUT, |s| s.exit.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out());
        assert_eq!(state.exit.and_then(|e| e.signal()), Some(Signal::SIGKILL as i32));
    }
}
