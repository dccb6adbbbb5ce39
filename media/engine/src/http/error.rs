//! What a client is told when something goes wrong: one table of codes, always the same JSON.

use std::borrow::Cow;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use headwater_api::error::ErrorBody;

use crate::admission::Refusal;
use crate::hub::Missing;

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $code:literal => $status:ident,)*) => {
        /// Every error of the HTTP side: its stable code and its status.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code { $($(#[doc = $doc])* $name,)* }

        impl Code {
            /// All of them, in the order of the table.
            #[cfg(test)]
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What programs look at.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// Its status, always an error.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }
        }
    };
}

codes! {
    /// A name, a number or a parameter breaks its rule.
    BadRequest = "bad_request" => BAD_REQUEST,
    /// The SDP offer cannot be read.
    BadSdp = "bad_sdp" => BAD_REQUEST,
    /// Only somebody who has logged in may do this.
    Unauthorized = "unauthorized" => UNAUTHORIZED,
    /// No such user, or another password.
    WrongPassword = "wrong_password" => UNAUTHORIZED,
    /// Logged in, but as somebody who may not do this.
    Forbidden = "forbidden" => FORBIDDEN,
    /// A page of another origin sends this.
    CrossOrigin = "cross_origin" => FORBIDDEN,
    /// No such path.
    NotFound = "not_found" => NOT_FOUND,
    /// No such app.
    AppNotFound = "app_not_found" => NOT_FOUND,
    /// Nobody publishes under this name now.
    StreamNotFound = "stream_not_found" => NOT_FOUND,
    /// The segment is too old, or was never announced.
    SegmentNotFound = "segment_not_found" => NOT_FOUND,
    /// The WHEP session is over, or never was.
    SessionNotFound = "session_not_found" => NOT_FOUND,
    /// No such node.
    NodeNotFound = "node_not_found" => NOT_FOUND,
    /// The node lives, and so cannot be removed.
    NodeAlive = "node_alive" => CONFLICT,
    /// The node is dead, or of a role that does not drain.
    NotDrainable = "not_drainable" => CONFLICT,
    /// The path exists, the method does not.
    MethodNotAllowed = "method_not_allowed" => METHOD_NOT_ALLOWED,
    /// The stream has B-frames, which WebRTC cannot carry.
    BFrames = "b_frames" => NOT_ACCEPTABLE,
    /// The stream's codec cannot be watched this way.
    CodecUnsupported = "codec_unsupported" => NOT_ACCEPTABLE,
    /// No codec that both the stream and the client have.
    NoCommonCodec = "no_common_codec" => NOT_ACCEPTABLE,
    /// The body did not come in time.
    TooSlow = "too_slow" => REQUEST_TIMEOUT,
    /// The body is too long.
    BodyTooLarge = "body_too_large" => PAYLOAD_TOO_LARGE,
    /// The body has another type than this path wants.
    WrongContentType = "wrong_content_type" => UNSUPPORTED_MEDIA_TYPE,
    /// Too many passwords were tried.
    TooManyAttempts = "too_many_attempts" => TOO_MANY_REQUESTS,
    /// A bug here.
    Internal = "internal" => INTERNAL_SERVER_ERROR,
    /// As many viewers as this node may have.
    TooManyViewers = "too_many_viewers" => SERVICE_UNAVAILABLE,
    /// The stream is live, but what was asked for does not exist yet.
    NotYet = "not_yet" => SERVICE_UNAVAILABLE,
    /// The registry does not answer.
    RegistryAway = "registry_away" => SERVICE_UNAVAILABLE,
    /// The node has no room for newcomers.
    Full = "full" => SERVICE_UNAVAILABLE,
    /// This node is on its way out.
    Draining = "draining" => SERVICE_UNAVAILABLE,
}

/// An error on its way to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    code: Code,
    message: Cow<'static, str>,
    elsewhere: Option<String>,
}

impl Problem {
    /// `message` is one sentence for people; it must hold nothing secret.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), elsewhere: None }
    }

    /// One that can be a constant.
    pub const fn fixed(code: Code, message: &'static str) -> Self {
        Self { code, message: Cow::Borrowed(message), elsewhere: None }
    }

    /// Where the same thing may be had instead.
    pub fn elsewhere(self, url: Option<String>) -> Self {
        Self { elsewhere: url, ..self }
    }

    /// What programs look at.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The sentence for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Why the stream `name` cannot be had here.
    pub fn missing(missing: Missing, name: &headwater_api::StreamName) -> Self {
        match missing {
            Missing::Unknown => Self::stream_not_found(name),
            Missing::Full => Self::new(
                Code::Full,
                format!("{name} is live, and the node that has it serves as many others as it may; try again."),
            ),
        }
    }

    /// Nobody publishes `name`.
    pub fn stream_not_found(name: &headwater_api::StreamName) -> Self {
        Self::new(Code::StreamNotFound, format!("Nobody is publishing {name} right now."))
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::Draining => Code::Draining,
            Refusal::Viewers { .. } => Code::TooManyViewers,
            Refusal::Egress | Refusal::Processors => Code::Full,
        };
        Self::new(code, refusal.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let link = self.elsewhere.as_ref().and_then(|url| format!("<{url}>; rel=\"alternate\"").try_into().ok());
        let body = ErrorBody {
            error: self.code.as_str().to_owned(),
            message: self.message.into_owned(),
            elsewhere: self.elsewhere,
        };
        let mut response = (self.code.status(), Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self.code.status() {
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
            }
            StatusCode::UNAUTHORIZED => {
                // RFC 9110 §15.5.2 wants one. Not Basic, which is taken too: browsers would ask for the password in a window
                // of their own, and send it with the requests of other pages ever after.
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Headwater realm=\"Headwater\""));
            }
            _ => {}
        }
        if let Some(link) = link {
            headers.insert(header::LINK, link);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_unique_snake_case_and_an_error() {
        let mut seen = std::collections::HashSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.as_str()), "{} stands twice", code.as_str());
            assert!(code.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", code.as_str());
            assert!(code.status().is_client_error() || code.status().is_server_error());
        }
    }
}
