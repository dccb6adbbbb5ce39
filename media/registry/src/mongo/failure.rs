//! The driver's errors as [`RegistryError`]: who must act, and whether the same call may succeed
//! later.

use std::time::Duration;
use std::{fmt, io};

use headwater_api::secret::Secret;
use mongodb::error::{Error, ErrorKind, WriteFailure};

use crate::RegistryError;

/// The error of a call for which the driver returned one.
pub(super) fn call_failed(attempted: &str, servers: &str, error: Error) -> RegistryError {
    let (attempted, servers) = (attempted.to_owned(), servers.to_owned());
    match &*error.kind {
        // The driver reports an untrusted certificate as an unavailable server.
        ErrorKind::ServerSelection { message, .. } if message.contains(BAD_CERTIFICATE_MESSAGE) => {
            RegistryError::Refused { attempted, servers, retryable: false, source: DriverError(error).into() }
        }
        ErrorKind::Io(_)
        | ErrorKind::ServerSelection { .. }
        | ErrorKind::ConnectionPoolCleared { .. }
        | ErrorKind::DnsResolve { .. }
        | ErrorKind::Shutdown => RegistryError::Unreachable { attempted, servers, source: DriverError(error).into() },
        _ if code(&error).is_some_and(|code| NO_PRIMARY_CODES.contains(&code)) => {
            RegistryError::Unreachable { attempted, servers, source: DriverError(error).into() }
        }
        _ => {
            let retryable = error.contains_label("RetryableWriteError")
                || code(&error).is_some_and(|c| RETRYABLE_CODES.contains(&c));
            RegistryError::Refused { attempted, servers, retryable, source: DriverError(error).into() }
        }
    }
}

/// The driver's error, in a sentence for an operator. The driver's own text includes labels,
/// answers and the complete state of every server.
#[derive(Debug)]
struct DriverError(Error);

impl std::error::Error for DriverError {}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0.kind {
            ErrorKind::ServerSelection { message, .. } => f.write_str(&describe_selection(message)),
            ErrorKind::DnsResolve { message, .. } => f.write_str(&describe_dns(message)),
            kind => write!(f, "{kind}"),
        }
    }
}

/// Why no server was selected. Each cause is listed once, even if several servers report it.
fn describe_selection(message: &str) -> String {
    let reported = message.split("Error: Kind: ").skip(1).filter_map(|rest| rest.split(", labels: ").next());
    let mut causes: Vec<&str> = reported.collect();
    causes.sort_unstable();
    causes.dedup();
    match (message.contains(NO_PRIMARY_MESSAGE), causes.is_empty()) {
        (true, true) => "none of its servers is the primary".to_owned(),
        (true, false) => format!("none of its servers is the primary: {}", causes.join("; ")),
        (false, true) => "no server has answered yet".to_owned(),
        (false, false) => causes.join("; "),
    }
}

/// Why DNS returned no servers. The resolver prints an unanswered query as a Rust structure.
fn describe_dns(message: &str) -> String {
    if message.contains("timed out") {
        return DNS_TIMEOUT_MESSAGE.to_owned();
    }
    match message.split_once("no records found for ").and_then(|(_, query)| query.split('"').nth(1)) {
        Some(name) => format!("DNS has no entry {name}"),
        None => format!("DNS: {}", message.trim_start_matches("DNS error: ")),
    }
}

/// The error of a call that was not answered in time.
pub(super) fn call_timed_out(attempted: &str, servers: &str, timeout: Duration) -> RegistryError {
    let cause = io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} ms", timeout.as_millis()));
    unreachable_error(attempted, servers, cause)
}

/// The error of a write that repeatedly conflicted with other writes of the same id.
pub(super) fn too_many_conflicts(attempted: &str, servers: &str) -> RegistryError {
    let cause = io::Error::new(io::ErrorKind::WouldBlock, "concurrent writes to the same id kept conflicting");
    unreachable_error(attempted, servers, cause)
}

/// The error of a call whose answer lacks the requested data.
pub(super) fn incomplete_answer(attempted: &str, servers: &str) -> RegistryError {
    let cause = io::Error::new(io::ErrorKind::InvalidData, "the answer lacks the requested data");
    let (attempted, servers) = (attempted.to_owned(), servers.to_owned());
    RegistryError::Refused { attempted, servers, retryable: false, source: cause.into() }
}

/// The error of a connection string whose servers are unknown: DNS failed, or its answer is
/// invalid.
pub(super) fn resolution_failed(attempted: &str, servers: &str, uri: &Secret, error: Error) -> RegistryError {
    if matches!(*error.kind, ErrorKind::DnsResolve { .. } | ErrorKind::Io(_)) {
        return call_failed(attempted, servers, error);
    }
    invalid_uri(uri, error)
}

/// The error of a DNS lookup that was not answered in time.
pub(super) fn dns_timed_out(attempted: &str, servers: &str) -> RegistryError {
    unreachable_error(attempted, servers, io::Error::new(io::ErrorKind::TimedOut, DNS_TIMEOUT_MESSAGE))
}

/// The error of an invalid connection string.
pub(super) fn invalid_uri(uri: &Secret, error: Error) -> RegistryError {
    // The driver's message may quote the string.
    let message = error.to_string();
    let login = uri.reveal().split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')).map(|(login, _)| login);
    let quotes_login =
        login.is_some_and(|login| login.split(':').any(|part| !part.is_empty() && message.contains(part)));
    let source = if quotes_login { None } else { Some(message.into()) };
    RegistryError::Setting { reason: "the MongoDB connection string is invalid".to_owned(), source }
}

fn unreachable_error(attempted: &str, servers: &str, cause: io::Error) -> RegistryError {
    RegistryError::Unreachable { attempted: attempted.to_owned(), servers: servers.to_owned(), source: cause.into() }
}

/// True if a document that had to be new existed.
pub(super) fn is_duplicate(error: &RegistryError) -> bool {
    let RegistryError::Refused { source, .. } = error else { return false };
    source.downcast_ref::<DriverError>().is_some_and(|driver| is_duplicate_key(&driver.0))
}

/// True if the user or its password was rejected.
pub(super) fn is_authentication_failure(error: &RegistryError) -> bool {
    driver_error(error)
        .is_some_and(|e| matches!(*e.kind, ErrorKind::Authentication { .. }) || code(e) == Some(AUTHENTICATION_FAILED))
}

/// True if another server may execute the call at once: this one is no longer the primary, or has
/// closed the connection.
pub(super) fn is_failover(error: &RegistryError) -> bool {
    driver_error(error).is_some_and(|e| match &*e.kind {
        ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. } => true,
        _ => code(e).is_some_and(|code| NO_PRIMARY_CODES.contains(&code)),
    })
}

/// The server's error code, if a server refused the call.
pub(super) fn code_of(error: &RegistryError) -> Option<i32> {
    driver_error(error).and_then(code)
}

fn driver_error(error: &RegistryError) -> Option<&Error> {
    let (RegistryError::Refused { source, .. } | RegistryError::Unreachable { source, .. }) = error else {
        return None;
    };
    source.downcast_ref::<DriverError>().map(|driver| &driver.0)
}

/// [`is_duplicate`] for a driver error.
pub(super) fn is_duplicate_key(error: &Error) -> bool {
    match &*error.kind {
        // FerretDB returns PostgreSQL's message for a conflicting upsert by findAndModify.
        ErrorKind::Command(e) => {
            e.code == DUPLICATE_KEY || (e.code == INTERNAL_ERROR && e.message.starts_with("duplicate key value"))
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
const AUTHENTICATION_FAILED: i32 = 18;
const INTERNAL_ERROR: i32 = 1;

/// There is no primary, or this server is no longer it: NotWritablePrimary and related codes,
/// shutdown, network errors between servers.
const NO_PRIMARY_CODES: [i32; 12] = [6, 7, 89, 91, 189, 262, 9_001, 10_058, 10_107, 11_600, 11_602, 13_435];

/// An operator must act on the database, after which the same call succeeds: write concern not
/// reached in time or not satisfiable (64, 100), lock and time limits (24, 46, 50, 112), disk full
/// (14031), too many connections (202).
const RETRYABLE_CODES: [i32; 8] = [24, 46, 50, 64, 100, 112, 202, 14_031];

const DNS_TIMEOUT_MESSAGE: &str = "DNS gave no answer";
/// Part of rustls's message.
const BAD_CERTIFICATE_MESSAGE: &str = "invalid peer certificate";
/// Part of the driver's message. Only the primary is ever asked for.
const NO_PRIMARY_MESSAGE: &str = "None of the available servers suitable";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_failure_is_described_in_one_short_sentence() {
        let check = |message: &str, expected: &str| assert_eq!(describe_dns(message), expected);
        let query = "Query { name: Name(\"_mongodb._tcp.db.example.\"), query_type: SRV, query_class: IN }";
        check(&format!("DNS error: no records found for {query}"), "DNS has no entry _mongodb._tcp.db.example.");
        check("request timed out", "DNS gave no answer");
        check("TXT record option 'tls' was returned", "DNS: TXT record option 'tls' was returned");
    }

    #[test]
    fn selection_failure_lists_each_cause_once() {
        let healthy = "{ Address: a:1, Type: RsSecondary, Average RTT: 1.2ms, Replica Set Name: rs }";
        let failed = |at: &str, why: &str| {
            format!(
                "{{ Address: {at}, Type: Unknown, Error: Kind: {why}, labels: {{\"Retryable\"}}, source: None, server \
                 response: None }}"
            )
        };
        let refused = "I/O error: Connection refused (os error 111)";
        let check = |reason: &str, servers: &[&str], expected: &str| {
            let servers = servers.join(", ");
            let message =
                format!("Server selection timeout: {reason}. Topology: {{ Type: X, Servers: [ {servers} ] }}");
            assert_eq!(describe_selection(&message), expected);
        };
        let (none, unsuitable) =
            ("No available servers", "None of the available servers suitable for criteria Primary");
        check(none, &[&failed("a:1", refused), &failed("b:1", refused)], refused);
        check(none, &[&failed("a:1", "x"), &failed("b:1", refused)], &format!("{refused}; x"));
        check(none, &["{ Address: a:1, Type: Unknown }"], "no server has answered yet");
        check(unsuitable, &[healthy], "none of its servers is the primary");
        check(
            unsuitable,
            &[healthy, &failed("b:1", refused)],
            &format!("none of its servers is the primary: {refused}"),
        );
    }
}
