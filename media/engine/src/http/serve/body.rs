//! Reads a request body with a limit on its size and a timeout.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::http::error::{Code, Problem};

/// Maximum size of a body. An SDP offer has 5 to 10 KB.
const MAX_BODY_BYTES: usize = 64 << 10;
/// Time for the whole body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Extracts the whole request body: at most `MAX_BODY_BYTES`, received within `BODY_TIMEOUT`.
#[derive(Debug, Clone)]
pub struct SmallBody(pub Bytes);

impl<S: Sync> FromRequest<S> for SmallBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        read_at_most(MAX_BODY_BYTES, request.into_body()).await.map(Self)
    }
}

/// Reads a whole request body of at most this number of bytes, within `BODY_TIMEOUT`.
pub(in crate::http) async fn read_at_most(max_bytes: usize, body: Body) -> Result<Bytes, Problem> {
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, max_bytes).collect());
    match collected.await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => {
            Err(Problem::new(Code::BodyTooLarge, format!("The body may have {max_bytes} bytes at most.")))
        }
        Ok(Err(_)) => Err(Problem::new(Code::BadRequest, "The body could not be read.")),
        Err(_) => Err(Problem::new(Code::TooSlow, "The request body was not received in time.")),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use hyper::body::Frame;

    use super::*;

    /// A peer that announces a body and sends none.
    struct SilentBody;

    impl hyper::body::Body for SilentBody {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn body_one_byte_above_the_limit_is_refused() {
        assert_eq!(
            read_at_most(MAX_BODY_BYTES, Body::from(vec![0; MAX_BODY_BYTES])).await.unwrap().len(),
            MAX_BODY_BYTES
        );
        let refused = read_at_most(MAX_BODY_BYTES, Body::from(vec![0; MAX_BODY_BYTES + 1])).await.unwrap_err();
        assert_eq!(refused.code(), Code::BodyTooLarge);
    }

    #[tokio::test(start_paused = true)]
    async fn body_that_never_arrives_times_out() {
        assert_eq!(read_at_most(MAX_BODY_BYTES, Body::new(SilentBody)).await.unwrap_err().code(), Code::TooSlow);
    }
}
