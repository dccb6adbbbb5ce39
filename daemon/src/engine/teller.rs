//! Tells a running engine how the node stands, one line of JSON at a time on its standard input.

use std::time::Duration;

use headwater_api::standing::{EVERY_SECS, Standing};
use tokio::io::AsyncWriteExt as _;
use tokio::process::ChildStdin;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Talks for as long as it is kept, and the engine listens.
#[derive(Debug)]
pub(crate) struct Teller(JoinHandle<()>);

impl Teller {
    /// Begins with what `standing` holds now.
    pub(crate) fn start(to: ChildStdin, standing: watch::Receiver<Standing>) -> Self {
        Self(tokio::spawn(tell(to, standing)))
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// When it changes, and every now and then.
async fn tell(mut to: ChildStdin, mut standing: watch::Receiver<Standing>) {
    loop {
        let line = serde_json::to_vec(&*standing.borrow_and_update()).unwrap_or_default();
        if to.write_all(&[&line[..], b"\n"].concat()).await.is_err() {
            return;
        }
        let _ = tokio::time::timeout(Duration::from_secs(EVERY_SECS), standing.changed()).await;
    }
}
