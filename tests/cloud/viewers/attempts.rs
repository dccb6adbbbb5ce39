//! Requests that survive the death of a node, with the policy of the player page
//! (`media/web/assets/player/attempts.js`). Must not know HLS.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::hls::http;

/// A client of one server, which is a load balancer.
#[derive(Debug)]
pub(super) struct PersistentClient {
    server: SocketAddr,
    client: http::Client,
}

impl PersistentClient {
    pub(super) fn new(server: SocketAddr) -> Self {
        Self { server, client: http::Client::new(server) }
    }

    /// Sends one request, on the connection of before. `None` if it fails, is refused, or is not
    /// answered within `timeout`.
    pub(super) async fn get_once(&mut self, path: &str, timeout: Duration) -> Option<Vec<u8>> {
        match attempt(&mut self.client, path, timeout).await {
            Some(response) if response.status / 100 == 2 => Some(response.body),
            _ => {
                // The connection may lead to a dead node, or a late answer may still arrive.
                self.client = http::Client::new(self.server);
                None
            }
        }
    }

    /// Repeats a request until a node answers it. `None` if the answer is final, or if there is
    /// none within [`TOTAL_TIMEOUT`]. After a loss, no attempt uses the connection of before.
    pub(super) async fn get(&mut self, path: &str, is_after_loss: bool) -> Option<Vec<u8>> {
        let end = Instant::now() + TOTAL_TIMEOUT;
        let (mut next_attempt, mut start_at) = (NEXT_ATTEMPT_DELAY, Instant::now());
        if is_after_loss {
            next_attempt = NEXT_ATTEMPT_AFTER_LOSS_DELAY;
            start_at += MAX_DELAY_AFTER_LOSS.mul_f64(rand::random());
            self.client = http::Client::new(self.server);
        }
        let mut running = JoinSet::new();
        let (mut count, mut failures) = (0, 0);
        while Instant::now() < end {
            if Instant::now() >= start_at && running.len() < MAX_PARALLEL_ATTEMPTS {
                let mut client = std::mem::replace(&mut self.client, http::Client::new(self.server));
                let timeout = ATTEMPT_TIMEOUTS[count.min(ATTEMPT_TIMEOUTS.len() - 1)];
                let path = path.to_owned();
                running.spawn(async move {
                    let response = attempt(&mut client, &path, timeout).await;
                    (client, response)
                });
                count += 1;
                start_at = Instant::now() + next_attempt;
            }
            let wake_at = if running.len() < MAX_PARALLEL_ATTEMPTS { start_at } else { end };
            tokio::select! {
                Some(ended) = running.join_next() => match ended {
                    Ok((client, Some(response))) if response.status / 100 == 2 => {
                        self.client = client;
                        return Some(response.body);
                    }
                    // Refused at once: by the load balancer, or by a node that is full.
                    Ok((_, Some(response))) if response.status >= 502 => {
                        let delay = MAX_RETRY_DELAY.min(FIRST_RETRY_DELAY * 2u32.pow(failures));
                        start_at = Instant::now() + delay.mul_f64(0.5 + rand::random::<f64>());
                        failures = (failures + 1).min(8);
                    }
                    Ok((_, Some(_))) => return None,
                    // Abandoned, or the connection was closed: the next attempt follows soon.
                    Ok((_, None)) | Err(_) => {}
                },
                () = tokio::time::sleep_until(wake_at.into()) => {}
            }
        }
        None
    }
}

async fn attempt(client: &mut http::Client, path: &str, timeout: Duration) -> Option<http::Response> {
    tokio::time::timeout(timeout, client.get(path, true)).await.ok()?.ok()
}

/// An attempt without an answer is abandoned after this time. Later ones get longer.
const ATTEMPT_TIMEOUTS: [Duration; 7] = [
    Duration::from_millis(1_000),
    Duration::from_millis(1_000),
    Duration::from_millis(1_000),
    Duration::from_millis(1_500),
    Duration::from_millis(2_000),
    Duration::from_millis(3_000),
    Duration::from_millis(5_000),
];
/// The next attempt begins this long after one that is not answered yet.
const NEXT_ATTEMPT_DELAY: Duration = Duration::from_millis(700);
const NEXT_ATTEMPT_AFTER_LOSS_DELAY: Duration = Duration::from_millis(300);
const MAX_PARALLEL_ATTEMPTS: usize = 4;
const MAX_DELAY_AFTER_LOSS: Duration = Duration::from_millis(200);
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(100);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(1);
const TOTAL_TIMEOUT: Duration = Duration::from_secs(10);
