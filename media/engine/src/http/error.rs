//! Error responses: one table of codes and statuses, and one JSON format.

use std::borrow::Cow;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use headwater_api::error::ErrorBody;

use crate::hub::FindError;
use crate::node::admission::AdmissionError;

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $code:literal => $status:ident,)*) => {
        /// Error codes of the HTTP API, each with its status.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code { $($(#[doc = $doc])* $name,)* }

        impl Code {
            /// All codes, in the order of the table.
            #[cfg(test)]
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The stable code for programs.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The HTTP status, 4xx or 5xx.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }
        }
    };
}

codes! {
    /// A name, a number or a parameter is invalid.
    BadRequest = "bad_request" => BAD_REQUEST,
    /// The SDP offer is invalid.
    BadSdp = "bad_sdp" => BAD_REQUEST,
    /// The request requires a login.
    Unauthorized = "unauthorized" => UNAUTHORIZED,
    /// Unknown user or wrong password.
    WrongPassword = "wrong_password" => UNAUTHORIZED,
    /// The user lacks the rights for this request.
    Forbidden = "forbidden" => FORBIDDEN,
    /// A login over a connection that anybody on the network can read.
    HttpsRequired = "https_required" => FORBIDDEN,
    /// A page of another origin sent the request.
    CrossOrigin = "cross_origin" => FORBIDDEN,
    /// The policy of the app or the stream requires a publish key.
    KeyMissing = "key_missing" => UNAUTHORIZED,
    /// The policy of the app or the stream requires a token.
    TokenMissing = "token_missing" => UNAUTHORIZED,
    /// Nobody may use the app or the stream.
    AppClosed = "app_closed" => FORBIDDEN,
    /// The client's address is in another network than those that may publish.
    NetworkNotAllowed = "network_not_allowed" => FORBIDDEN,
    /// The publish key is wrong.
    KeyInvalid = "key_invalid" => FORBIDDEN,
    /// The hash is wrong.
    HashInvalid = "hash_invalid" => FORBIDDEN,
    /// The token is unknown, damaged or not signed with the app's key.
    TokenInvalid = "token_invalid" => FORBIDDEN,
    /// The token is too long.
    TokenTooLong = "token_too_long" => FORBIDDEN,
    /// The token has expired.
    TokenExpired = "token_expired" => FORBIDDEN,
    /// The JSON web token has no `exp`.
    TokenWithoutExpiry = "token_without_expiry" => FORBIDDEN,
    /// The token is not valid yet.
    TokenNotYetValid = "token_not_yet_valid" => FORBIDDEN,
    /// The token is for another app.
    TokenWrongApp = "token_wrong_app" => FORBIDDEN,
    /// The token is for another stream.
    TokenWrongStream = "token_wrong_stream" => FORBIDDEN,
    /// The token permits the other action.
    TokenWrongType = "token_wrong_type" => FORBIDDEN,
    /// The token was revoked.
    TokenRevoked = "token_revoked" => FORBIDDEN,
    /// The one-time token was used before.
    TokenUsed = "token_used" => FORBIDDEN,
    /// The rules of the app have changed since the client was admitted.
    PolicyChanged = "policy_changed" => FORBIDDEN,
    /// The play session is invalid or has expired.
    SessionInvalid = "session_invalid" => FORBIDDEN,
    /// The signature of a media URL is missing or wrong.
    SignatureInvalid = "signature_invalid" => FORBIDDEN,
    /// The signature of a media URL has expired.
    SignatureExpired = "signature_expired" => FORBIDDEN,
    /// No such path.
    NotFound = "not_found" => NOT_FOUND,
    /// No such app.
    AppNotFound = "app_not_found" => NOT_FOUND,
    /// The stream is not live.
    StreamNotFound = "stream_not_found" => NOT_FOUND,
    /// The segment has expired, or was never listed.
    SegmentNotFound = "segment_not_found" => NOT_FOUND,
    /// The WHEP session has ended or never existed.
    SessionNotFound = "session_not_found" => NOT_FOUND,
    /// No such node.
    NodeNotFound = "node_not_found" => NOT_FOUND,
    /// No such token.
    TokenNotFound = "token_not_found" => NOT_FOUND,
    /// Someone else has changed the app.
    AppChanged = "app_changed" => CONFLICT,
    /// The settings of the app contradict each other or exceed a limit.
    InvalidApp = "invalid_app" => BAD_REQUEST,
    /// The app has no key for this kind of token.
    NoTokenKey = "no_token_key" => CONFLICT,
    /// The node is alive and therefore cannot be removed.
    NodeAlive = "node_alive" => CONFLICT,
    /// The node is dead, or its role does not drain.
    NotDrainable = "not_drainable" => CONFLICT,
    /// The path exists, the method does not.
    MethodNotAllowed = "method_not_allowed" => METHOD_NOT_ALLOWED,
    /// The stream has B-frames, which WebRTC cannot carry.
    BFrames = "b_frames" => NOT_ACCEPTABLE,
    /// The protocol does not support the stream's codec.
    CodecUnsupported = "codec_unsupported" => NOT_ACCEPTABLE,
    /// The client does not support the stream's codec.
    NoCommonCodec = "no_common_codec" => NOT_ACCEPTABLE,
    /// The body was not received in time.
    TooSlow = "too_slow" => REQUEST_TIMEOUT,
    /// The body exceeds the limit.
    BodyTooLarge = "body_too_large" => PAYLOAD_TOO_LARGE,
    /// The path does not accept this content type.
    WrongContentType = "wrong_content_type" => UNSUPPORTED_MEDIA_TYPE,
    /// Too many login attempts, or too many wrong keys and tokens.
    TooManyAttempts = "too_many_attempts" => TOO_MANY_REQUESTS,
    /// A bug in the engine.
    Internal = "internal" => INTERNAL_SERVER_ERROR,
    /// The node has reached its maximum number of viewers.
    TooManyViewers = "too_many_viewers" => SERVICE_UNAVAILABLE,
    /// The stream is live, but the requested media does not exist yet.
    NotYet = "not_yet" => SERVICE_UNAVAILABLE,
    /// The node has not read the rules of its apps yet.
    PoliciesUnavailable = "policies_unavailable" => SERVICE_UNAVAILABLE,
    /// The keys of the app's JWKS URL could not be fetched.
    JwksUnavailable = "jwks_unavailable" => SERVICE_UNAVAILABLE,
    /// The registry is unreachable.
    RegistryUnreachable = "registry_unreachable" => SERVICE_UNAVAILABLE,
    /// The node that has the stream is unreachable.
    OriginUnreachable = "origin_unreachable" => SERVICE_UNAVAILABLE,
    /// The node has no capacity for new clients.
    Full = "full" => SERVICE_UNAVAILABLE,
    /// The node is draining.
    Draining = "draining" => SERVICE_UNAVAILABLE,
}

/// An error response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    code: Code,
    message: Cow<'static, str>,
    alternative_url: Option<String>,
}

impl Problem {
    /// `message` is one sentence for users; it must not contain secrets.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), alternative_url: None }
    }

    /// Like [`Self::new`], for constants.
    pub const fn fixed(code: Code, message: &'static str) -> Self {
        Self { code, message: Cow::Borrowed(message), alternative_url: None }
    }

    /// Adds the URL of the same resource on another node.
    pub fn with_alternative(self, url: Option<String>) -> Self {
        Self { alternative_url: url, ..self }
    }

    /// The stable code for programs.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The sentence for users.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The URL of the same resource on another node, if one is known.
    #[cfg(test)]
    pub(super) fn alternative_url(&self) -> Option<&str> {
        self.alternative_url.as_deref()
    }

    /// The error for a stream that could not be found or fetched.
    pub fn stream_unavailable(error: FindError, name: &headwater_api::StreamName) -> Self {
        match error {
            FindError::NotPublished => Self::stream_not_found(name),
            FindError::AtCapacity => Self::new(
                Code::Full,
                format!("{name} is live, but its origin node has reached its limit of relay connections; try again."),
            ),
            FindError::Unreachable => {
                Self::new(Code::OriginUnreachable, format!("The node that may have {name} is unreachable; try again."))
            }
            FindError::RegistryUnreachable => Self::new(
                Code::RegistryUnreachable,
                format!("The registry does not answer, so this node cannot look for {name}; try again."),
            ),
            FindError::TooManySearches => {
                Self::new(Code::Full, "This node searches for as many streams as it may; try again.")
            }
        }
    }

    /// The error for a stream that is not live.
    pub fn stream_not_found(name: &headwater_api::StreamName) -> Self {
        Self::new(Code::StreamNotFound, format!("Nobody is publishing {name} right now."))
    }
}

impl From<AdmissionError> for Problem {
    fn from(error: AdmissionError) -> Self {
        let code = match error {
            AdmissionError::Draining => Code::Draining,
            AdmissionError::Viewers { .. } => Code::TooManyViewers,
            AdmissionError::Egress | AdmissionError::Processors => Code::Full,
        };
        Self::new(code, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let link = self.alternative_url.as_ref().and_then(|url| format!("<{url}>; rel=\"alternate\"").try_into().ok());
        let body = ErrorBody {
            error: self.code.as_str().to_owned(),
            message: self.message.into_owned(),
            alternative_url: self.alternative_url,
        };
        let mut response = (self.code.status(), Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        match self.code.status() {
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
            }
            StatusCode::UNAUTHORIZED => {
                // Required by RFC 9110 §15.5.2. Not "Basic", although it is accepted: browsers
                // would show their own password dialog, and then send the password with requests of
                // other pages.
                let scheme = match self.code {
                    Code::KeyMissing | Code::TokenMissing => "Bearer realm=\"Headwater\"",
                    _ => "Headwater realm=\"Headwater\"",
                };
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
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
    fn every_code_is_unique_snake_case_with_an_error_status() {
        let mut seen = std::collections::HashSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.as_str()), "{} is used twice", code.as_str());
            assert!(code.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", code.as_str());
            assert!(code.status().is_client_error() || code.status().is_server_error());
        }
    }
}
