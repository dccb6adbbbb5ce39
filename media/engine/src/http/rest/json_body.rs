//! Reads the body of a request as JSON, with the limits of every body.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::header;
use serde::de::DeserializeOwned;

use crate::http::error::{Code, Problem};
use crate::http::serve::body::read_at_most;

/// A body of `application/json`. A refusal names the field, and no value: it may be a secret.
#[derive(Debug)]
pub(super) struct JsonBody<T>(pub(super) T);

/// Maximum size of a body: the settings of an app with 1,000 policies of streams have 220 KB.
const MAX_BODY_BYTES: usize = 256 << 10;

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        // Pages of other origins can send other content types without a CORS preflight.
        if !request.headers().get(header::CONTENT_TYPE).is_some_and(is_json) {
            return Err(Problem::fixed(Code::WrongContentType, "The body must be application/json."));
        }
        parse(&read_at_most(MAX_BODY_BYTES, request.into_body()).await?).map(Self)
    }
}

fn is_json(content_type: &header::HeaderValue) -> bool {
    let kind = content_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|e| {
        let text = e.to_string();
        // The parser quotes what it found, except where a field is missing or unknown.
        let is_harmless = text.starts_with("missing field") || text.starts_with("unknown field");
        let what = match text.split(" at line ").next().filter(|_| is_harmless) {
            Some(what) => format!("The body is wrong: {what:.200}."),
            None => format!("The body is wrong at line {}, column {}.", e.line(), e.column()),
        };
        Problem::new(Code::BadRequest, what)
    })
}
