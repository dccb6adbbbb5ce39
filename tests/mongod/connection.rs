//! One client: what the set answers itself, what only some users may ask, and what FerretDB answers.

use std::io;
use std::net::IpAddr;

use mongodb::bson::{Bson, Document, doc, spec::BinarySubtype};
use tokio::net::TcpStream;

use crate::set::{Set, failure};
use crate::wire::Message;

/// Answers until the client goes.
pub(crate) async fn serve(mut client: TcpStream, from: IpAddr, server: &str, set: &Set) -> io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    // Who logs in, and who has.
    let (mut asking, mut user) = (None, None::<String>);
    loop {
        let question = Message::read(&mut client).await?;
        let command = question.document()?;
        let name = command.keys().next().map_or("", String::as_str);
        let own = match name {
            "standIn" => Some(set.on_peer(&command).await),
            "hello" | "isMaster" | "ismaster" => {
                if let Some(said) = command.get_document("speculativeAuthenticate").ok().and_then(who) {
                    asking = Some(said);
                }
                None
            }
            "saslStart" => {
                asking = who(&command);
                None
            }
            "saslContinue" | "endSessions" => None,
            _ => match refusal(name, from, user.as_deref(), set) {
                None => own(name, &command, set).await,
                refused => refused,
            },
        };
        if let Some(own) = own {
            question.reply(&own)?.write(&mut client).await?;
            continue;
        }
        question.write(&mut server).await?;
        let mut answer = Message::read(&mut server).await?;
        if matches!(name, "hello" | "isMaster" | "ismaster") {
            let mut document = answer.document()?;
            set.describe(&mut document);
            answer = question.reply(&document)?;
        } else if answer.document()?.get_bool("done").unwrap_or_default() {
            user.clone_from(&asking);
        }
        answer.write(&mut client).await?;
    }
}

/// The commands that a stand-in answers itself.
async fn own(name: &str, command: &Document, set: &Set) -> Option<Document> {
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

/// Who may do what: as much of MongoDB's rights as is asked for here. Whoever has not logged in is nobody, but on this machine and
/// as long as there are no users it may begin a set and make one ("localhost exception").
fn refusal(name: &str, from: IpAddr, user: Option<&str>, set: &Set) -> Option<Document> {
    let wanted = match name {
        "replSetInitiate" | "replSetGetConfig" | "replSetGetStatus" | "replSetReconfig" | "replSetStepDown" => {
            "clusterManager"
        }
        "createUser" | "updateUser" => "userAdminAnyDatabase",
        "ping" => return None,
        _ => "readWrite",
    };
    let allowed = match user {
        Some(user) => set.has_role(user, wanted),
        None => from.is_loopback() && set.has_no_users() && matches!(name, "replSetInitiate" | "createUser"),
    };
    (!allowed).then(|| failure(13, &format!("not authorized on admin to execute command {name}")))
}

/// The user that a first message of SCRAM names (RFC 5802 §7).
fn who(command: &Document) -> Option<String> {
    let Some(Bson::Binary(payload)) = command.get("payload") else { return None };
    if payload.subtype != BinarySubtype::Generic {
        return None;
    }
    let text = String::from_utf8_lossy(&payload.bytes).into_owned();
    text.split(',').find_map(|part| part.strip_prefix("n=")).map(str::to_owned)
}

/// Asks another member, as one that knows the key of the set.
pub(crate) async fn ask(host: &str, mut command: Document, key: &str) -> io::Result<Document> {
    command.insert("key", key);
    let asking = async {
        let mut peer = TcpStream::connect(host).await?;
        Message::command(&command)?.write(&mut peer).await?;
        Message::read(&mut peer).await?.document()
    };
    let answer = tokio::time::timeout(std::time::Duration::from_secs(1), asking).await??;
    if answer.get_i32("ok").unwrap_or_default() == 1 {
        Ok(answer)
    } else {
        Err(io::Error::other(doc! { "refused": answer }.to_string()))
    }
}
