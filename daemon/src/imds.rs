//! Instance metadata of EC2, version 2 only: a token first, then values by path.
//!
//! Knows paths, tokens and retries; must not know what the values mean. Nothing is ever asked without a token, so a
//! service that speaks version 1 alone counts as absent.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use headwater_api::error::Chain;
use http_body_util::Empty;
use hyper::header::HeaderValue;
use hyper::{Method, Request, StatusCode};
use tokio::time::Instant;

use crate::http::{self, FetchError};

/// Why a value could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImdsError {
    /// No answer at all.
    #[error("instance metadata {path} could not be fetched")]
    Fetch {
        /// What was asked for.
        path: String,
        /// The last of the attempts.
        source: FetchError,
    },
    /// An answer that is no value.
    #[error("instance metadata {path} answers {status}")]
    Status {
        /// What was asked for.
        path: String,
        /// The answer.
        status: StatusCode,
    },
    /// A value that is none.
    #[error("instance metadata {path} is {value:?}, which cannot be understood")]
    Value {
        /// What was asked for.
        path: String,
        /// The beginning of the answer.
        value: String,
    },
}

/// A metadata service that has given a token.
#[derive(Debug)]
pub(crate) struct Imds {
    endpoint: SocketAddr,
    token: Token,
}

/// Permission to ask, for a while. Cannot be printed.
#[derive(Clone)]
struct Token {
    value: HeaderValue,
    until: Instant,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Imds {
    /// Asks for the first token, once and briefly: where there is no service, a start must not wait for it.
    pub(crate) async fn connect_once(endpoint: SocketAddr) -> Result<Self, ImdsError> {
        Ok(Self { endpoint, token: fetch_token(endpoint, FIRST_PATIENCE).await? })
    }

    /// Asks for the first token where there must be a service, again and again until `patience` is over.
    pub(crate) async fn connect(endpoint: SocketAddr, patience: Duration) -> Result<Self, ImdsError> {
        let until = Instant::now() + patience;
        let mut wait = FIRST_WAIT;
        loop {
            match fetch_token(endpoint, PATIENCE).await {
                Ok(token) => return Ok(Self { endpoint, token }),
                Err(e) if Instant::now() + wait >= until => return Err(e),
                Err(e) => log::debug!(err:% = Chain(&e); "no metadata yet"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Where it is asked.
    pub(crate) fn endpoint(&self) -> SocketAddr {
        self.endpoint
    }

    /// The value at `/latest/PATH`; `None` if there is none (404).
    ///
    /// # Errors
    /// The last error, after [`ATTEMPTS`].
    pub(crate) async fn get(&mut self, path: &str) -> Result<Option<String>, ImdsError> {
        let mut wait = FIRST_WAIT;
        for _ in 1..ATTEMPTS {
            match self.try_get(path).await {
                Err(e) if e.may_pass() => log::debug!(err:% = Chain(&e); "metadata did not answer"),
                settled => return settled,
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        self.try_get(path).await
    }

    /// One attempt, with a token that is good; one that has been revoked is replaced once.
    async fn try_get(&mut self, path: &str) -> Result<Option<String>, ImdsError> {
        if self.token.until <= Instant::now() {
            self.token = fetch_token(self.endpoint, PATIENCE).await?;
        }
        match self.ask(path).await {
            Err(ImdsError::Status { status: StatusCode::UNAUTHORIZED, .. }) => {
                self.token = fetch_token(self.endpoint, PATIENCE).await?;
                self.ask(path).await
            }
            result => result,
        }
    }

    async fn ask(&self, path: &str) -> Result<Option<String>, ImdsError> {
        let status = |status| ImdsError::Status { path: path.to_owned(), status };
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = format!("/latest/{path}").parse().map_err(|_| status(StatusCode::BAD_REQUEST))?;
        request.headers_mut().insert(TOKEN, self.token.value.clone());
        let answer = http::fetch(self.endpoint, request, PATIENCE).await;
        let answer = answer.map_err(|source| ImdsError::Fetch { path: path.to_owned(), source })?;
        match answer.status() {
            StatusCode::OK => match std::str::from_utf8(answer.body()) {
                Ok(text) => Ok(Some(text.trim().to_owned())),
                Err(_) => Err(ImdsError::value(path, &String::from_utf8_lossy(answer.body()))),
            },
            StatusCode::NOT_FOUND => Ok(None),
            other => Err(status(other)),
        }
    }
}

impl ImdsError {
    /// A value that cannot be understood.
    pub(crate) fn value(path: &str, value: &str) -> Self {
        Self::Value { path: path.to_owned(), value: value.chars().take(MAX_SHOWN_CHARS).collect() }
    }

    /// True if another attempt may go better.
    fn may_pass(&self) -> bool {
        match self {
            Self::Fetch { .. } => true,
            Self::Status { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            Self::Value { .. } => false,
        }
    }
}

/// `PUT /latest/api/token`.
async fn fetch_token(endpoint: SocketAddr, patience: Duration) -> Result<Token, ImdsError> {
    let asked = Instant::now();
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::PUT;
    *request.uri_mut() = hyper::Uri::from_static("/latest/api/token");
    request.headers_mut().insert(TTL, HeaderValue::from(TTL_SECONDS));
    let path = || "api/token".to_owned();
    let answer = http::fetch(endpoint, request, patience).await;
    let answer = answer.map_err(|source| ImdsError::Fetch { path: path(), source })?;
    if answer.status() != StatusCode::OK {
        return Err(ImdsError::Status { path: path(), status: answer.status() });
    }
    // The value is a secret: an error shows its length alone.
    let mut value = HeaderValue::from_bytes(answer.body().trim_ascii())
        .ok()
        .filter(|value| !value.is_empty())
        .ok_or_else(|| ImdsError::value("api/token", &format!("{} bytes", answer.body().len())))?;
    value.set_sensitive(true);
    let given = answer.headers().get(TTL).and_then(|v| v.to_str().ok()?.parse().ok()).unwrap_or(TTL_SECONDS);
    // Half of its life at the longest, so that a clock that stood still for a while does no harm.
    let until = asked + Duration::from_secs(u64::from(given.min(TTL_SECONDS))) / 2;
    Ok(Token { value, until })
}

const TOKEN: &str = "x-aws-ec2-metadata-token";
const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
/// The longest that EC2 allows: six hours.
const TTL_SECONDS: u32 = 21_600;
/// For the one question that a machine without metadata asks in vain.
const FIRST_PATIENCE: Duration = Duration::from_millis(700);
/// For one answer of a service that is there.
const PATIENCE: Duration = Duration::from_secs(3);
const ATTEMPTS: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
const MAX_SHOWN_CHARS: usize = 80;

#[cfg(test)]
#[path = "imds_test.rs"]
mod tests;
