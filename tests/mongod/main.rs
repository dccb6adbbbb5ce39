//! A stand-in for `mongod` where there is none: started with its configuration file, it is one member of a replica set to whoever
//! looks, and lets FerretDB do the rest.
//!
//! What it does itself: hello, the replica-set commands, who may do what, and enough of an election that one of several of these
//! is the primary. Logging in and documents are FerretDB's (at `STAND_IN_DATABASE`), the same for all members: so nothing is
//! replicated, and nothing is proved about MongoDB's own elections, initial sync or rights. `STAND_IN_USERS` is a file in
//! which all members keep who has which roles; while there is one beside it that ends in `.full`, no user can be written.

mod conf;
mod connection;
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
    anyhow::ensure!(arguments.next().is_some_and(|word| word == "--config"), "--config FILE is wanted");
    let conf = Conf::read(arguments.next().context("--config without a file")?.as_ref())?;
    let (database, users) = (variable("STAND_IN_DATABASE")?, variable("STAND_IN_USERS")?);
    let server = database.rsplit_once('@').map_or(database.as_str(), |(_, rest)| rest);
    let server = server.split('/').next().unwrap_or_default().to_owned();
    let admin = Client::with_uri_str(&database).await?.database("admin");
    let set = Arc::new(Set::load(&conf, users.into(), admin)?);
    let mut listeners = Vec::new();
    for address in &conf.addresses {
        listeners.push(TcpListener::bind((*address, conf.port)).await.with_context(|| format!("{address}"))?);
    }
    say("I", "Waiting for connections");
    for listener in listeners {
        let (set, server) = (Arc::clone(&set), server.clone());
        tokio::spawn(async move {
            while let Ok((client, from)) = listener.accept().await {
                let (set, server) = (Arc::clone(&set), server.clone());
                // A client that went away is its own affair.
                tokio::spawn(async move { drop(connection::serve(client, from.ip(), &server, &set).await) });
            }
        });
    }
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminated.recv() => {}
        () = set.vote() => {}
    }
    say("I", "Shutting down");
    Ok(())
}

/// A line as mongod writes it.
#[expect(clippy::print_stdout, reason = "that is where mongod writes its log")]
fn say(severity: &str, message: &str) {
    println!("{}", serde_json::json!({ "s": severity, "c": "-", "msg": message }));
}

#[expect(clippy::disallowed_methods, reason = "mongod's own file has no place for what only a stand-in needs")]
fn variable(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set"))
}
