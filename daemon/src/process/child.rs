//! A child process: killed when the daemon dies, signalled, and its last output kept as the reason
//! for its exit.
//!
//! Must not know which program it is.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt as _;
use tokio::process::{ChildStdout, Command};
use tokio::task::JoinHandle;

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Child {
    process: tokio::process::Child,
    pid: Pid,
    output: OutputTail,
    reader: JoinHandle<()>,
}

/// The end of the process's standard output.
#[derive(Debug, Clone, Default)]
struct OutputTail(Arc<Mutex<Vec<u8>>>);

impl Child {
    /// Starts the process. Its standard error is the daemon's; `on_output` receives its standard
    /// output as it arrives.
    ///
    /// Must be called on the main thread: the kernel kills the process when the thread that started
    /// it ends.
    pub(crate) fn start(mut command: Command, on_output: impl FnMut(&[u8]) + Send + 'static) -> io::Result<Self> {
        // A process group of its own: Ctrl-C on the terminal reaches only the daemon, which then
        // stops the process in order.
        command.stdout(Stdio::piped()).process_group(0).kill_on_drop(true);
        let daemon = Pid::this();
        let die_with_daemon = move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The daemon may have died between the two calls: then the process must not start.
            if Pid::parent() == daemon { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
        };
        // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
        #[expect(unsafe_code, reason = "the only way to run code between fork and exec")]
        unsafe {
            command.pre_exec(die_with_daemon);
        }
        let mut process = command.spawn()?;
        let pid = process.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let (Some(pid), Some(stdout)) = (pid, process.stdout.take()) else {
            return Err(io::Error::other("the new process has no id or no output"));
        };
        let output = OutputTail::default();
        let reader = tokio::spawn(output.clone().read(stdout, on_output));
        Ok(Self { process, pid, output, reader })
    }

    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// Waits until the process has exited. Cancel safe.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        // The process is not reaped yet, so its id is still valid. It may already have exited.
        if self.process.id().is_some() {
            let _ = kill(self.pid, Signal::SIGTERM);
        }
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(&mut self) {
        // It may already have exited.
        let _ = self.process.start_kill();
    }

    /// Returns the last non-empty line of its standard output, usually the reason for the exit.
    /// Call it after the process has exited.
    pub(crate) async fn last_line(self) -> Option<String> {
        // A grandchild may hold the pipe open: use what has arrived by then.
        let _ = tokio::time::timeout(OUTPUT_TIMEOUT, self.reader).await;
        let bytes = self.output.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&bytes);
        text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned)
    }
}

impl OutputTail {
    async fn read(self, mut stdout: ChildStdout, mut on_output: impl FnMut(&[u8])) {
        let mut chunk = [0; 1024];
        while let Ok(n @ 1..) = stdout.read(&mut chunk).await {
            on_output(&chunk[..n]);
            let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            tail.extend_from_slice(&chunk[..n]);
            let excess = tail.len().saturating_sub(MAX_OUTPUT_BYTES);
            tail.drain(..excess);
        }
    }
}

/// True if starting the program will fail again: it does not exist or is not executable.
pub(crate) fn is_permanent(error: &io::Error) -> bool {
    use io::ErrorKind::{NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | PermissionDenied) || error.raw_os_error() == Some(nix::libc::ENOEXEC)
}

/// Length of the output that is kept: the reason for an exit is one line.
const MAX_OUTPUT_BYTES: usize = 4096;
/// How long to wait for the output of an exited process.
const OUTPUT_TIMEOUT: Duration = Duration::from_millis(500);
