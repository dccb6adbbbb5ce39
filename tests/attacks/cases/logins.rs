//! Wrong passwords from one address: the administrator signs in from another one. Both use HTTPS,
//! as logging in requires.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use headwater_tests::http::{self, Response};

use crate::attacker::{attacker, newcomer};
use crate::node::Node;
use crate::target::{Setup, Target};

fn log_in(from: std::net::Ipv4Addr, node: &Node, password: &str) -> anyhow::Result<Response> {
    let body = serde_json::json!({ "name": "admin", "password": password }).to_string();
    let mut command = Command::new("curl");
    // The node made its certificate itself.
    command.args(["--silent", "--show-error", "--insecure", "--include", "--http1.1", "--max-time", "20"]);
    command.args(["--noproxy", "*", "--interface", &from.to_string(), "--data", &body]);
    command.args(["--header", "content-type: application/json"]);
    command.arg(format!("https://{}/rest/v2/session", node.https()?));
    let output = command.output().context("could not run curl")?;
    ensure!(output.status.success(), "curl: {}", String::from_utf8_lossy(&output.stderr).trim());
    http::parse(&output.stdout, false)
}

pub(super) fn wrong(setup: &Setup, target: &mut Target) -> anyhow::Result<String> {
    const ATTEMPTS: usize = 100;
    // One verification of a password, after those of the attacker that have begun; on a busy
    // machine in the usual form.
    let max_delay = setup.scale(Duration::from_secs(10), Duration::from_secs(3));
    target.withstand(|node| {
        let password = std::fs::read_to_string(node.data_dir().join("administrator.password"))?;
        let (statuses, delay) = std::thread::scope(|scope| {
            let guesses: Vec<_> = (0..ATTEMPTS)
                .map(|n| scope.spawn(move || log_in(attacker(0), node, &format!("guess-{n}")).map(|r| r.status)))
                .collect();
            // While the guesses are verified, delayed and refused.
            let started = Instant::now();
            let response = log_in(newcomer(4), node, password.trim())?;
            ensure!(response.status == 200, "the administrator: {} {}", response.status, response.text());
            let delay = started.elapsed();
            let statuses: Vec<u16> = guesses
                .into_iter()
                .map(|guess| guess.join().ok().context("a guess panicked")?)
                .collect::<anyhow::Result<_>>()?;
            anyhow::Ok((statuses, delay))
        })?;
        let count = |status: u16| statuses.iter().filter(|s| **s == status).count();
        let (verified, refused) = (count(401), count(429));
        ensure!(verified + refused == ATTEMPTS, "{statuses:?}");
        ensure!(verified <= 10, "{verified} of {ATTEMPTS} guesses of one address were verified");
        ensure!(delay < max_delay, "the administrator waited {delay:?}");
        Ok(format!(
            "{verified} of {ATTEMPTS} guesses verified, {refused} refused; the administrator waited {} ms",
            delay.as_millis()
        ))
    })
}
