//! One client connection: which commands the stand-in answers, which it forwards to FerretDB, and
//! which it refuses.

use std::io;
use std::net::IpAddr;

use mongodb::bson::{Bson, Document, spec::BinarySubtype};
use tokio::net::TcpStream;

use crate::set::{Set, failure};
use crate::wire::Message;

/// Answers commands until the client closes the connection.
pub(crate) async fn serve(mut client: TcpStream, from: IpAddr, server: &str, set: &Set) -> io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    // The user of the login in progress, and the user that has logged in.
    let (mut login, mut user) = (None, None::<String>);
    loop {
        let request = Message::read(&mut client).await?;
        let command = request.document()?;
        let name = command.keys().next().map_or("", String::as_str);
        let own = match name {
            "standIn" => Some(set.on_peer(&command).await),
            "hello" | "isMaster" | "ismaster" => {
                if let Some(name) = command.get_document("speculativeAuthenticate").ok().and_then(user_of_login) {
                    login = Some(name);
                }
                None
            }
            "saslStart" => {
                login = user_of_login(&command);
                None
            }
            "saslContinue" | "endSessions" => None,
            _ => match refusal(name, from, user.as_deref(), set) {
                None => answer(name, &command, set).await,
                refusal => refusal,
            },
        };
        if let Some(own) = own {
            request.reply(&own)?.write(&mut client).await?;
            continue;
        }
        request.write(&mut server).await?;
        let mut answer = Message::read(&mut server).await?;
        if matches!(name, "hello" | "isMaster" | "ismaster") {
            let mut document = answer.document()?;
            set.describe(&mut document);
            answer = request.reply(&document)?;
        } else if answer.document()?.get_bool("done").unwrap_or_default() {
            user.clone_from(&login);
        }
        answer.write(&mut client).await?;
    }
}

/// The answer to a command that the stand-in implements; `None` for commands of FerretDB.
async fn answer(name: &str, command: &Document, set: &Set) -> Option<Document> {
    match name {
        "replSetInitiate" => Some(set.initiate(command).await),
        "replSetGetConfig" => Some(set.config()),
        "replSetGetStatus" => Some(set.status().await),
        "replSetReconfig" => Some(set.reconfigure(command).await),
        "replSetStepDown" => Some(set.step_down().await),
        "createUser" | "updateUser" => Some(set.put_user(name, command).await),
        "ping" => None,
        _ if set.is_primary() => None,
        _ => Some(failure(10_107, "not primary")),
    }
}

/// MongoDB's authorization, for the roles that the daemon uses. A client that has not logged in may
/// only initiate a set and create the first user, from the same machine and while there are no
/// users (MongoDB's localhost exception).
fn refusal(name: &str, from: IpAddr, user: Option<&str>, set: &Set) -> Option<Document> {
    let required_role = match name {
        "replSetInitiate" | "replSetGetConfig" | "replSetGetStatus" | "replSetReconfig" | "replSetStepDown" => {
            "clusterManager"
        }
        "createUser" | "updateUser" => "userAdminAnyDatabase",
        "ping" => return None,
        _ => "readWrite",
    };
    let allowed = match user {
        Some(user) => set.has_role(user, required_role),
        None => from.is_loopback() && set.has_no_users() && matches!(name, "replSetInitiate" | "createUser"),
    };
    (!allowed).then(|| failure(13, &format!("not authorized on admin to execute command {name}")))
}

/// The user named by a client's first SCRAM message (RFC 5802 §7).
fn user_of_login(command: &Document) -> Option<String> {
    let Some(Bson::Binary(payload)) = command.get("payload") else { return None };
    if payload.subtype != BinarySubtype::Generic {
        return None;
    }
    let text = String::from_utf8_lossy(&payload.bytes).into_owned();
    text.split(',').find_map(|part| part.strip_prefix("n=")).map(str::to_owned)
}
