//! What the driver says, in the registry's words: who must act, and whether the same call may succeed later.

use std::io;
use std::time::Duration;

use headwater_api::secret::Secret;
use mongodb::error::{Error, ErrorKind, WriteFailure};

use crate::RegistryError;

/// A call that gave an error.
pub(super) fn failed(attempted: &str, servers: &str, error: Error) -> RegistryError {
    let (attempted, servers) = (attempted.to_owned(), servers.to_owned());
    match &*error.kind {
        // The driver reports a certificate it does not trust as one more server that is not there.
        ErrorKind::ServerSelection { message, .. } if message.contains(BAD_CERTIFICATE) => {
            RegistryError::Refused { attempted, servers, retryable: false, source: error.into() }
        }
        ErrorKind::Io(_)
        | ErrorKind::ServerSelection { .. }
        | ErrorKind::ConnectionPoolCleared { .. }
        | ErrorKind::DnsResolve { .. }
        | ErrorKind::Shutdown => RegistryError::Unreachable { attempted, servers, source: error.into() },
        _ if code(&error).is_some_and(|code| ELECTION.contains(&code)) => {
            RegistryError::Unreachable { attempted, servers, source: error.into() }
        }
        _ => {
            let passing =
                error.contains_label("RetryableWriteError") || code(&error).is_some_and(|c| PASSING.contains(&c));
            RegistryError::Refused { attempted, servers, retryable: passing, source: error.into() }
        }
    }
}

/// A call that gave no answer in time.
pub(super) fn silent(attempted: &str, servers: &str, patience: Duration) -> RegistryError {
    let cause = io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} ms", patience.as_millis()));
    RegistryError::Unreachable { attempted: attempted.to_owned(), servers: servers.to_owned(), source: cause.into() }
}

/// A write that kept colliding with others of the same id.
pub(super) fn busy(attempted: &str, servers: &str) -> RegistryError {
    let cause = io::Error::new(io::ErrorKind::WouldBlock, "others write the same id all the time");
    RegistryError::Unreachable { attempted: attempted.to_owned(), servers: servers.to_owned(), source: cause.into() }
}

/// An answer without what was asked for.
pub(super) fn unreadable(attempted: &str, servers: &str) -> RegistryError {
    let cause = io::Error::new(io::ErrorKind::InvalidData, "the answer does not hold what was asked for");
    let (attempted, servers) = (attempted.to_owned(), servers.to_owned());
    RegistryError::Refused { attempted, servers, retryable: false, source: cause.into() }
}

/// A connection string that is no good, or whose SRV name does not resolve.
pub(super) fn bad_uri(uri: &Secret, error: Error) -> RegistryError {
    if matches!(*error.kind, ErrorKind::DnsResolve { .. } | ErrorKind::Io(_)) {
        return failed("resolve the servers of the connection string", "(SRV)", error);
    }
    // What the driver says may quote the string.
    let said = error.to_string();
    let secret = uri.reveal().split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')).map(|(user, _)| user);
    let quotes = secret.is_some_and(|user| user.split(':').any(|part| !part.is_empty() && said.contains(part)));
    let source = if quotes { None } else { Some(said.into()) };
    RegistryError::Setting { reason: "the MongoDB connection string is no good".to_owned(), source }
}

/// True if a document that had to be new was there.
pub(super) fn is_duplicate(error: &RegistryError) -> bool {
    let RegistryError::Refused { source, .. } = error else { return false };
    source.downcast_ref::<Error>().is_some_and(is_duplicate_key)
}

/// True if the user or its password was refused.
pub(super) fn is_login(error: &RegistryError) -> bool {
    driver(error)
        .is_some_and(|e| matches!(*e.kind, ErrorKind::Authentication { .. }) || code(e) == Some(AUTHENTICATION))
}

/// What a server refused with, if it did.
pub(super) fn code_of(error: &RegistryError) -> Option<i32> {
    driver(error).and_then(code)
}

/// The driver's own error inside.
fn driver(error: &RegistryError) -> Option<&Error> {
    let (RegistryError::Refused { source, .. } | RegistryError::Unreachable { source, .. }) = error else {
        return None;
    };
    source.downcast_ref::<Error>()
}

/// [`is_duplicate`], of the driver's error.
pub(super) fn is_duplicate_key(error: &Error) -> bool {
    match &*error.kind {
        // FerretDB passes on PostgreSQL's words for an upsert by findAndModify that collides.
        ErrorKind::Command(e) => {
            e.code == DUPLICATE_KEY || (e.code == INTERNAL && e.message.starts_with("duplicate key value"))
        }
        _ => code(error) == Some(DUPLICATE_KEY),
    }
}

fn code(error: &Error) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(e) => Some(e.code),
        ErrorKind::Write(WriteFailure::WriteError(e)) => Some(e.code),
        ErrorKind::Write(WriteFailure::WriteConcernError(e)) => Some(e.code),
        _ => None,
    }
}

const DUPLICATE_KEY: i32 = 11_000;
const AUTHENTICATION: i32 = 18;
const INTERNAL: i32 = 1;

/// No primary, or not this one any more: NotWritablePrimary and its kin, shutdown, network errors between servers.
const ELECTION: [i32; 12] = [6, 7, 89, 91, 189, 262, 9_001, 10_058, 10_107, 11_600, 11_602, 13_435];

/// Somebody must act, but on the database, and then the same call succeeds: write concern not reached in time or not to be
/// reached (64, 100), lock and time limits (24, 46, 50, 112), disk full (14031), too many connections (202).
const PASSING: [i32; 8] = [24, 46, 50, 64, 100, 112, 202, 14_031];

/// rustls's words.
const BAD_CERTIFICATE: &str = "invalid peer certificate";
