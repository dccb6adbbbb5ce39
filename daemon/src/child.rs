//! A program that this daemon looks after: started so that it dies with the daemon, signalled, and asked why it stopped.
//!
//! Must not know which program it is.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt as _;
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

/// A running program. Dropped = killed.
#[derive(Debug)]
pub(crate) struct Child {
    process: tokio::process::Child,
    pid: Pid,
    said: Said,
    reader: JoinHandle<()>,
}

/// The end of what the program has written to its standard output.
#[derive(Debug, Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Child {
    /// Starts it. Its standard error goes where the daemon's goes; `hear` gets its standard output, as it comes.
    ///
    /// Must be called on the main thread: the kernel ends the program when the thread that started it ends.
    pub(crate) fn start(mut command: Command, hear: impl FnMut(&[u8]) + Send + 'static) -> io::Result<Self> {
        // A group of its own: Ctrl-C on the terminal reaches the daemon alone, which then ends the program in order.
        command.stdout(Stdio::piped()).process_group(0).kill_on_drop(true);
        let daemon = Pid::this();
        let die_with_daemon = move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The daemon may have ended between the two: then nobody is left to wait for.
            if Pid::parent() == daemon { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
        };
        // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
        #[expect(unsafe_code, reason = "the only way to say something between fork and exec")]
        unsafe {
            command.pre_exec(die_with_daemon);
        }
        let mut process = command.spawn()?;
        let pid = process.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let (Some(pid), Some(stdout)) = (pid, process.stdout.take()) else {
            return Err(io::Error::other("the new process has no id or no output"));
        };
        let said = Said::default();
        let reader = tokio::spawn(said.clone().read(stdout, hear));
        Ok(Self { process, pid, said, reader })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// Its standard input, if the command said that it has one; once.
    pub(crate) fn take_input(&mut self) -> Option<ChildStdin> {
        self.process.stdin.take()
    }

    /// Waits until it has ended. May be dropped and called again.
    pub(crate) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        // Not reaped yet, so the number is still its own; that it has ended is fine.
        if self.process.id().is_some() {
            let _ = kill(self.pid, Signal::SIGTERM);
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        // That it has ended is fine.
        let _ = self.process.start_kill();
    }

    /// The last line it wrote to its standard output: why it stopped. To be called once it has ended.
    pub(crate) async fn last_line(self) -> Option<String> {
        // A grandchild may hold the pipe open: what is there by then will do.
        let _ = tokio::time::timeout(LAST_WORDS, self.reader).await;
        let bytes = self.said.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&bytes);
        text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned)
    }
}

impl Said {
    async fn read(self, mut stdout: ChildStdout, mut hear: impl FnMut(&[u8])) {
        let mut chunk = [0; 1024];
        while let Ok(n @ 1..) = stdout.read(&mut chunk).await {
            hear(&chunk[..n]);
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend_from_slice(&chunk[..n]);
            let excess = kept.len().saturating_sub(MAX_SAID_BYTES);
            kept.drain(..excess);
        }
    }
}

/// True if starting the program will fail again just the same: it is not there, or may not be run.
pub(crate) fn is_settled(error: &io::Error) -> bool {
    use io::ErrorKind::{NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | PermissionDenied) || error.raw_os_error() == Some(nix::libc::ENOEXEC)
}

/// Kept of the program's output: its reason is one line.
const MAX_SAID_BYTES: usize = 4096;
/// How long the output of an ended process may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(500);
