//! HTTP client of the daemon: one small request per connection, bounded in time and size.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_program::own_tls;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Body;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Why no complete response was received.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The connection failed.
    #[error("could not connect to {0}")]
    Connect(SocketAddr, #[source] std::io::Error),
    /// Connected, but the response is not valid HTTP.
    #[error("{0} gave no valid HTTP answer")]
    Exchange(SocketAddr, #[source] hyper::Error),
    /// The body is incomplete or too long.
    #[error("the answer of {0} could not be read")]
    Body(SocketAddr, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// The timeout expired.
    #[error("{0} did not answer within {1:?}")]
    Timeout(SocketAddr, Duration),
}

/// Maximum body length: enough for 500 streams with their viewers.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Sends `GET path`; `timeout` covers the whole exchange.
pub(crate) async fn get(address: SocketAddr, path: &str, timeout: Duration) -> Result<Response<Bytes>, FetchError> {
    fetch(address, get_request(path), timeout).await
}

/// Sends a request; `timeout` covers the whole exchange.
pub(crate) async fn fetch<B>(
    address: SocketAddr,
    request: Request<B>,
    timeout: Duration,
) -> Result<Response<Bytes>, FetchError>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let response = async {
        let stream = TcpStream::connect(address).await.map_err(|e| FetchError::Connect(address, e))?;
        exchange(address, stream, request).await
    };
    within(timeout, address, response).await
}

/// Like [`fetch`], over TLS, from a listener of this node: any certificate is accepted.
pub(crate) async fn fetch_from_own_tls<B>(
    address: SocketAddr,
    request: Request<B>,
    timeout: Duration,
) -> Result<Response<Bytes>, FetchError>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let connect_error = |e| FetchError::Connect(address, e);
    let response = async {
        let config = own_tls::client_config().map_err(io::Error::other).map_err(connect_error)?;
        let stream = TcpStream::connect(address).await.map_err(connect_error)?;
        let name = ServerName::IpAddress(address.ip().into());
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(connect_error)?;
        exchange(address, stream, request).await
    };
    within(timeout, address, response).await
}

/// The request `GET path`.
pub(crate) fn get_request(path: &str) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    // An invalid path becomes `/`, which is answered with 404.
    *request.uri_mut() = path.parse().unwrap_or_default();
    request
}

async fn within(
    timeout: Duration,
    address: SocketAddr,
    response: impl Future<Output = Result<Response<Bytes>, FetchError>>,
) -> Result<Response<Bytes>, FetchError> {
    tokio::time::timeout(timeout, response).await.unwrap_or(Err(FetchError::Timeout(address, timeout)))
}

/// Sends a request on a new connection to `address`, and reads the response.
async fn exchange<B>(
    address: SocketAddr,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    mut request: Request<B>,
) -> Result<Response<Bytes>, FetchError>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    if let Ok(host) = address.to_string().parse() {
        request.headers_mut().insert(hyper::header::HOST, host);
    }
    let exchange_error = |e| FetchError::Exchange(address, e);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(exchange_error)?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await.map_err(exchange_error)?.into_parts();
        let body = Limited::new(body, MAX_BODY_BYTES).collect().await.map_err(|e| FetchError::Body(address, e))?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // The connection may close before the response has been read; the exchange reports what
        // failed.
        _ = connection => exchange.await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const TEST_TIMEOUT: Duration = Duration::from_secs(5);

    async fn server(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer).await;
        });
        address
    }

    #[tokio::test]
    async fn response_has_status_and_body() {
        let address = server(b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nlate").await;
        let answer = get(address, "/readyz", TEST_TIMEOUT).await.unwrap();
        assert_eq!((answer.status().as_u16(), &answer.body()[..]), (503, &b"late"[..]));
    }

    #[tokio::test]
    async fn broken_response_is_an_error_that_names_the_server() {
        for answer in [&b"SSH-2.0-nothing\r\n"[..], b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort"] {
            let address = server(answer).await;
            let error = get(address, "/", TEST_TIMEOUT).await.unwrap_err();
            assert!(error.to_string().contains(&address.to_string()), "{error:?}");
        }
    }

    #[tokio::test]
    async fn endless_body_is_an_error() {
        static LONG: [u8; 200_000] = [b'x'; 200_000];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            // A response before the request would be another kind of fault.
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while stream.write_all(&LONG).await.is_ok() {}
        });
        assert!(matches!(get(address, "/", TEST_TIMEOUT).await, Err(FetchError::Body(..))));
    }

    #[tokio::test(start_paused = true)]
    async fn silent_server_is_an_error_after_the_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert!(matches!(get(address, "/", TEST_TIMEOUT).await, Err(FetchError::Timeout(..))));
    }
}
