//! The app and the stream that the path of a request names.

use headwater_api::StreamName;

use crate::http::error::{Code, Problem};
use crate::http::state::AppState;

/// Fails unless the app exists.
pub(super) fn require_app(state: &AppState, app: &str) -> Result<(), Problem> {
    Ok(state.access.check_app(app)?)
}

/// Parses the stream name in a path.
pub(super) fn parse_name(app: &str, id: &str) -> Result<StreamName, Problem> {
    StreamName::new(app, id).map_err(|e| Problem::new(Code::BadRequest, format!("The stream's name is wrong: {e}.")))
}
