//! What the driver says, in the registry's words: who must act, and whether the same call may succeed later.

use std::time::Duration;
use std::{fmt, io};

use headwater_api::secret::Secret;
use mongodb::error::{Error, ErrorKind, WriteFailure};

use crate::RegistryError;

/// A call that gave an error.
pub(super) fn failed(attempted: &str, servers: &str, error: Error) -> RegistryError {
    let (attempted, servers) = (attempted.to_owned(), servers.to_owned());
    match &*error.kind {
        // The driver reports a certificate it does not trust as one more server that is not there.
        ErrorKind::ServerSelection { message, .. } if message.contains(BAD_CERTIFICATE) => {
            RegistryError::Refused { attempted, servers, retryable: false, source: Driver(error).into() }
        }
        ErrorKind::Io(_)
        | ErrorKind::ServerSelection { .. }
        | ErrorKind::ConnectionPoolCleared { .. }
        | ErrorKind::DnsResolve { .. }
        | ErrorKind::Shutdown => RegistryError::Unreachable { attempted, servers, source: Driver(error).into() },
        _ if code(&error).is_some_and(|code| ELECTION.contains(&code)) => {
            RegistryError::Unreachable { attempted, servers, source: Driver(error).into() }
        }
        _ => {
            let passing =
                error.contains_label("RetryableWriteError") || code(&error).is_some_and(|c| PASSING.contains(&c));
            RegistryError::Refused { attempted, servers, retryable: passing, source: Driver(error).into() }
        }
    }
}

/// The driver's error, in a sentence for whoever has to act. Its own words list labels and answers, and of every server it knows
/// what has nothing to do with it.
#[derive(Debug)]
struct Driver(Error);

impl std::error::Error for Driver {}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0.kind {
            ErrorKind::ServerSelection { message, .. } => f.write_str(&selection(message)),
            ErrorKind::DnsResolve { message, .. } => f.write_str(&dns(message)),
            kind => write!(f, "{kind}"),
        }
    }
}

/// Why no server could be chosen, once however many of them say so.
fn selection(message: &str) -> String {
    let told = message.split("Error: Kind: ").skip(1).filter_map(|rest| rest.split(", labels: ").next());
    let mut causes: Vec<&str> = told.collect();
    causes.sort_unstable();
    causes.dedup();
    match (message.contains(NO_PRIMARY), causes.is_empty()) {
        (true, true) => "none of its servers is the primary".to_owned(),
        (true, false) => format!("none of its servers is the primary: {}", causes.join("; ")),
        (false, true) => "no server has answered yet".to_owned(),
        (false, false) => causes.join("; "),
    }
}

/// Why DNS has not led to a server. The resolver shows a question that has no answer as a structure.
fn dns(message: &str) -> String {
    if message.contains("timed out") {
        return DNS_SILENT.to_owned();
    }
    match message.split_once("no records found for ").and_then(|(_, query)| query.split('"').nth(1)) {
        Some(name) => format!("DNS has no entry {name}"),
        None => format!("DNS: {}", message.trim_start_matches("DNS error: ")),
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

/// The servers of a connection string that cannot be had: DNS does not say, or what it says makes no client.
pub(super) fn unresolved(attempted: &str, servers: &str, uri: &Secret, error: Error) -> RegistryError {
    if matches!(*error.kind, ErrorKind::DnsResolve { .. } | ErrorKind::Io(_)) {
        return failed(attempted, servers, error);
    }
    bad_uri(uri, error)
}

/// DNS that gave no answer in time.
pub(super) fn dns_silent(attempted: &str, servers: &str) -> RegistryError {
    let cause = io::Error::new(io::ErrorKind::TimedOut, DNS_SILENT);
    RegistryError::Unreachable { attempted: attempted.to_owned(), servers: servers.to_owned(), source: cause.into() }
}

/// A connection string that is no good.
pub(super) fn bad_uri(uri: &Secret, error: Error) -> RegistryError {
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
    source.downcast_ref::<Driver>().is_some_and(|driver| is_duplicate_key(&driver.0))
}

/// True if the user or its password was refused.
pub(super) fn is_login(error: &RegistryError) -> bool {
    driver(error)
        .is_some_and(|e| matches!(*e.kind, ErrorKind::Authentication { .. }) || code(e) == Some(AUTHENTICATION))
}

/// True if another server may do at once what this one did not: it is not the primary any more, or went away.
pub(super) fn is_fail_over(error: &RegistryError) -> bool {
    driver(error).is_some_and(|e| match &*e.kind {
        ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. } => true,
        _ => code(e).is_some_and(|code| ELECTION.contains(&code)),
    })
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
    source.downcast_ref::<Driver>().map(|driver| &driver.0)
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

/// Whoever has waited for it.
const DNS_SILENT: &str = "DNS gave no answer";
/// rustls's words.
const BAD_CERTIFICATE: &str = "invalid peer certificate";
/// The driver's, since all that is asked for is the primary.
const NO_PRIMARY: &str = "None of the available servers suitable";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_dns_led_nowhere_is_said_in_short() {
        let check = |message: &str, expected: &str| assert_eq!(dns(message), expected);
        let query = "Query { name: Name(\"_mongodb._tcp.db.example.\"), query_type: SRV, query_class: IN }";
        check(&format!("DNS error: no records found for {query}"), "DNS has no entry _mongodb._tcp.db.example.");
        check("request timed out", "DNS gave no answer");
        check("TXT record option 'tls' was returned", "DNS: TXT record option 'tls' was returned");
    }

    #[test]
    fn why_no_server_could_be_chosen_is_said_in_short_and_once() {
        let well = "{ Address: a:1, Type: RsSecondary, Average RTT: 1.2ms, Replica Set Name: rs }";
        let dead = |at: &str, why: &str| {
            format!(
                "{{ Address: {at}, Type: Unknown, Error: Kind: {why}, labels: {{\"Retryable\"}}, source: None, server \
                 response: None }}"
            )
        };
        let refused = "I/O error: Connection refused (os error 111)";
        let check = |what: &str, servers: &[&str], expected: &str| {
            let servers = servers.join(", ");
            let message = format!("Server selection timeout: {what}. Topology: {{ Type: X, Servers: [ {servers} ] }}");
            assert_eq!(selection(&message), expected);
        };
        let (none, unfit) = ("No available servers", "None of the available servers suitable for criteria Primary");
        check(none, &[&dead("a:1", refused), &dead("b:1", refused)], refused);
        check(none, &[&dead("a:1", "x"), &dead("b:1", refused)], &format!("{refused}; x"));
        check(none, &["{ Address: a:1, Type: Unknown }"], "no server has answered yet");
        check(unfit, &[well], "none of its servers is the primary");
        check(unfit, &[well, &dead("b:1", refused)], &format!("none of its servers is the primary: {refused}"));
    }
}
