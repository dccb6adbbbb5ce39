//! The stream that a request names, and whether the client may watch it.

use headwater_api::StreamName;

use crate::access::{AccessError, Credentials};
use crate::http::error::{Code, Problem};
use crate::http::state::AppState;

/// The name of a stream of an existing app.
pub(super) fn stream_name(state: &AppState, app: &str, id: &str) -> Result<StreamName, Problem> {
    state.access.check_app(app)?;
    StreamName::new(app, id).map_err(|e| Problem::new(Code::BadRequest, format!("The stream's name is wrong: {e}.")))
}

/// Checks that the client may watch the stream.
pub(super) fn check_play(state: &AppState, name: &StreamName, credentials: &Credentials<'_>) -> Result<(), Problem> {
    Ok(state.access.check_play(name, credentials)?)
}

impl From<AccessError> for Problem {
    fn from(e: AccessError) -> Self {
        match e {
            AccessError::UnknownApp => Self::fixed(Code::AppNotFound, "There is no such app."),
        }
    }
}
