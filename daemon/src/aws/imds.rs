//! Client for EC2 instance metadata, version 2 only: first a token, then values by path.
//!
//! Knows paths, tokens and retries, but not the meaning of the values. Nothing is requested without
//! a token, so a service that supports only version 1 counts as absent.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use headwater_api::error::Chain;
use http_body_util::Empty;
use hyper::header::HeaderValue;
use hyper::{Method, Request, StatusCode};
use tokio::time::Instant;

use crate::http_client;
use crate::http_client::FetchError;

/// Why a value could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImdsError {
    /// The service did not answer.
    #[error("instance metadata {path} could not be fetched")]
    Fetch {
        /// The requested path.
        path: String,
        /// Error of the last attempt.
        source: FetchError,
    },
    /// The service answered with an error status.
    #[error("instance metadata {path} answers {status}")]
    Status {
        /// The requested path.
        path: String,
        /// The status.
        status: StatusCode,
    },
    /// The value is invalid.
    #[error("instance metadata {path} is {value:?}, which is invalid")]
    InvalidValue {
        /// The requested path.
        path: String,
        /// The start of the value.
        value: String,
    },
}

/// A client that holds a session token.
#[derive(Debug)]
pub(crate) struct Imds {
    endpoint: SocketAddr,
    token: Token,
}

/// A session token. Its `Debug` output hides the value.
#[derive(Clone)]
struct Token {
    value: HeaderValue,
    renew_at: Instant,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Imds {
    /// Requests the first token once, with a short timeout: where there is no service, a start must
    /// not wait for it.
    pub(crate) async fn connect_once(endpoint: SocketAddr) -> Result<Self, ImdsError> {
        Ok(Self { endpoint, token: fetch_token(endpoint, DETECT_TIMEOUT).await? })
    }

    /// Requests the first token where the service must exist, retrying until `timeout` has passed.
    pub(crate) async fn connect(endpoint: SocketAddr, timeout: Duration) -> Result<Self, ImdsError> {
        let deadline = Instant::now() + timeout;
        let mut backoff = MIN_BACKOFF;
        loop {
            match fetch_token(endpoint, REQUEST_TIMEOUT).await {
                Ok(token) => return Ok(Self { endpoint, token }),
                Err(e) if Instant::now() + backoff >= deadline => return Err(e),
                Err(e) => log::debug!(err:% = Chain(&e); "no metadata yet"),
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    /// Address of the service.
    pub(crate) fn endpoint(&self) -> SocketAddr {
        self.endpoint
    }

    /// Fetches the value at `/latest/PATH`; `None` if it does not exist (404).
    ///
    /// # Errors
    /// The error of the last of [`MAX_ATTEMPTS`] attempts.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Option<String>, ImdsError> {
        let mut backoff = MIN_BACKOFF;
        for _ in 1..MAX_ATTEMPTS {
            match self.try_get(path).await {
                Err(e) if e.is_retryable() => log::debug!(err:% = Chain(&e); "metadata did not answer"),
                settled => return settled,
            }
            tokio::time::sleep(backoff).await;
            backoff *= 2;
        }
        self.try_get(path).await
    }

    /// Makes one attempt with a valid token; a revoked token is replaced once.
    async fn try_get(&mut self, path: &str) -> Result<Option<String>, ImdsError> {
        if self.token.renew_at <= Instant::now() {
            self.token = fetch_token(self.endpoint, REQUEST_TIMEOUT).await?;
        }
        match self.send_get(path).await {
            Err(ImdsError::Status { status: StatusCode::UNAUTHORIZED, .. }) => {
                self.token = fetch_token(self.endpoint, REQUEST_TIMEOUT).await?;
                self.send_get(path).await
            }
            result => result,
        }
    }

    async fn send_get(&self, path: &str) -> Result<Option<String>, ImdsError> {
        let status = |status| ImdsError::Status { path: path.to_owned(), status };
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = format!("/latest/{path}").parse().map_err(|_| status(StatusCode::BAD_REQUEST))?;
        request.headers_mut().insert(TOKEN_HEADER, self.token.value.clone());
        let answer = http_client::fetch(self.endpoint, request, REQUEST_TIMEOUT).await;
        let answer = answer.map_err(|source| ImdsError::Fetch { path: path.to_owned(), source })?;
        match answer.status() {
            StatusCode::OK => match std::str::from_utf8(answer.body()) {
                Ok(text) => Ok(Some(text.trim().to_owned())),
                Err(_) => Err(ImdsError::invalid_value(path, &String::from_utf8_lossy(answer.body()))),
            },
            StatusCode::NOT_FOUND => Ok(None),
            other => Err(status(other)),
        }
    }
}

impl ImdsError {
    /// An error for a value that cannot be parsed.
    pub(crate) fn invalid_value(path: &str, value: &str) -> Self {
        Self::InvalidValue { path: path.to_owned(), value: value.chars().take(MAX_SHOWN_CHARS).collect() }
    }

    /// True if another attempt may succeed.
    fn is_retryable(&self) -> bool {
        match self {
            Self::Fetch { .. } => true,
            Self::Status { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            Self::InvalidValue { .. } => false,
        }
    }
}

/// Requests a token (`PUT /latest/api/token`).
async fn fetch_token(endpoint: SocketAddr, timeout: Duration) -> Result<Token, ImdsError> {
    let requested_at = Instant::now();
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::PUT;
    *request.uri_mut() = hyper::Uri::from_static("/latest/api/token");
    request.headers_mut().insert(TTL_HEADER, HeaderValue::from(MAX_TTL_SECS));
    let path = || "api/token".to_owned();
    let answer = http_client::fetch(endpoint, request, timeout).await;
    let answer = answer.map_err(|source| ImdsError::Fetch { path: path(), source })?;
    if answer.status() != StatusCode::OK {
        return Err(ImdsError::Status { path: path(), status: answer.status() });
    }
    // The value is a secret: an error shows only its length.
    let mut value = HeaderValue::from_bytes(answer.body().trim_ascii())
        .ok()
        .filter(|value| !value.is_empty())
        .ok_or_else(|| ImdsError::invalid_value("api/token", &format!("{} bytes", answer.body().len())))?;
    value.set_sensitive(true);
    let ttl_secs = answer.headers().get(TTL_HEADER).and_then(|v| v.to_str().ok()?.parse().ok()).unwrap_or(MAX_TTL_SECS);
    // Renew after at most half of the lifetime, so that a suspended clock does no harm.
    let deadline = requested_at + Duration::from_secs(u64::from(ttl_secs.min(MAX_TTL_SECS))) / 2;
    Ok(Token { value, renew_at: deadline })
}

const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
/// The maximum that EC2 allows: six hours.
const MAX_TTL_SECS: u32 = 21_600;
/// For the single request on a machine without metadata.
const DETECT_TIMEOUT: Duration = Duration::from_millis(700);
/// For one request to an existing service.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
const MAX_ATTEMPTS: u32 = 5;
const MIN_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(5);
const MAX_SHOWN_CHARS: usize = 80;

#[cfg(test)]
#[path = "imds_test.rs"]
mod tests;
