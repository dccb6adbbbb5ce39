//! Queries the REST API of this node's engine: over plain HTTP, or over HTTPS if that is off.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use headwater_api::control::Endpoints;
use hyper::body::Body;
use hyper::{Request, Response};

use crate::http_client::{self, FetchError};
use crate::process::engine::dial_address;

/// Why the engine's REST API gave no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    /// The engine has no web server.
    #[error("HTTP and HTTPS are both off on this node")]
    Off,
    /// The request failed.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

/// Sends `GET path`; `timeout` covers the whole exchange.
pub(crate) async fn get(engine: &Endpoints, path: &str, timeout: Duration) -> Result<Response<Bytes>, QueryError> {
    send(engine, http_client::get_request(path), timeout).await
}

/// Sends a request; `timeout` covers the whole exchange.
pub(crate) async fn send<B>(
    engine: &Endpoints,
    request: Request<B>,
    timeout: Duration,
) -> Result<Response<Bytes>, QueryError>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    Ok(match (engine.http, engine.https) {
        (Some(http), _) => http_client::fetch(dial_address(http), request, timeout).await?,
        (None, Some(https)) => http_client::fetch_from_own_tls(dial_address(https), request, timeout).await?,
        (None, None) => return Err(QueryError::Off),
    })
}
