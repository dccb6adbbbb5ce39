//! A stand-in for `mongod` on machines without one: started with mongod's configuration file, it
//! behaves as one member of a replica set, and forwards everything else to FerretDB.
//!
//! It implements `hello`, the replica set commands, authorization, and an election that makes one
//! of several stand-ins the primary. Authentication and documents are FerretDB's (at
//! `STAND_IN_DATABASE`), which all members share: nothing is replicated, and nothing is proved
//! about MongoDB's own elections, initial sync or authorization.
//!
//! `STAND_IN_USERS` is the file in which all members store the roles of users. While a file with
//! the same name and the extension `.full` exists, writing a user fails as on a full disk.

mod conf;
mod connection;
mod peer;
mod set;

use std::sync::Arc;

use anyhow::Context as _;
use mongodb::Client;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use conf::Conf;
use headwater_tests::mongo_wire as wire;
use set::Set;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    anyhow::ensure!(arguments.next().is_some_and(|option| option == "--config"), "expected --config FILE");
    let conf = Conf::read(arguments.next().context("--config without a file")?.as_ref())?;
    let (database, users) = (environment("STAND_IN_DATABASE")?, environment("STAND_IN_USERS")?);
    let server = database.rsplit_once('@').map_or(database.as_str(), |(_, rest)| rest);
    let server = server.split('/').next().unwrap_or_default().to_owned();
    let admin = Client::with_uri_str(&database).await?.database("admin");
    let set = Arc::new(Set::load(&conf, users.into(), admin)?);
    let mut listeners = Vec::new();
    for address in &conf.addresses {
        listeners.push(TcpListener::bind((*address, conf.port)).await.with_context(|| format!("{address}"))?);
    }
    log_line("I", "Waiting for connections");
    for listener in listeners {
        let (set, server) = (Arc::clone(&set), server.clone());
        tokio::spawn(async move {
            while let Ok((client, from)) = listener.accept().await {
                let (set, server) = (Arc::clone(&set), server.clone());
                // A broken connection ends with its client.
                tokio::spawn(async move { drop(connection::serve(client, from.ip(), &server, &set).await) });
            }
        });
    }
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminated.recv() => {}
        () = set.run_elections() => {}
    }
    log_line("I", "Shutting down");
    Ok(())
}

/// Prints a line in the format of mongod's log.
#[expect(clippy::print_stdout, reason = "mongod writes its log to standard output")]
fn log_line(severity: &str, message: &str) {
    println!("{}", serde_json::json!({ "s": severity, "c": "-", "msg": message }));
}

#[expect(clippy::disallowed_methods, reason = "mongod's configuration file has no settings for a stand-in")]
fn environment(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set"))
}
