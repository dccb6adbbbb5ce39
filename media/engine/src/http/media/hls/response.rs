//! Responses of HLS requests as hyper sends them.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use crate::http::media::hls::find::{HlsBody, HlsContent, find};
use crate::http::media::hls::request::HlsRequest;
use crate::http::state::AppState;

/// Responds to a request, also without the router, whose cost matters: players send several
/// requests per second.
pub(in crate::http) async fn respond(state: &AppState, request: HlsRequest<'_>) -> Response {
    match find(state, request).await {
        Ok(found) => response(found),
        Err(problem) => problem.into_response(),
    }
}

fn response(found: HlsContent) -> Response {
    let (content_type, cache_control) = (found.content_type(), found.cache_control());
    let body = match found.into_body() {
        HlsBody::Playlist(text) => Body::from(text),
        HlsBody::Resource(pieces) => Body::new(PiecesBody::new(pieces)),
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(cache_control) = HeaderValue::try_from(cache_control.to_string()) {
        headers.insert(header::CACHE_CONTROL, cache_control);
    }
    response
}

/// A response body of known length, in shared pieces that are not copied together.
#[derive(Debug)]
struct PiecesBody {
    remaining: std::vec::IntoIter<Bytes>,
    remaining_bytes: u64,
}

impl PiecesBody {
    fn new(pieces: Vec<Bytes>) -> Self {
        let remaining_bytes = pieces.iter().map(|p| p.len() as u64).sum();
        Self { remaining: pieces.into_iter(), remaining_bytes }
    }
}

impl hyper::body::Body for PiecesBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        Poll::Ready(this.remaining.next().map(|piece| {
            this.remaining_bytes -= piece.len() as u64;
            Ok(Frame::data(piece))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining_bytes == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining_bytes)
    }
}
