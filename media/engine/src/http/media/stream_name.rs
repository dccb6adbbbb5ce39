//! The stream that a request names.

use headwater_api::StreamName;

use crate::http::error::{Code, Problem};
use crate::http::state::AppState;

/// The name of a stream of an existing app.
pub(super) fn stream_name(state: &AppState, app: &str, id: &str) -> Result<StreamName, Problem> {
    state.access.check_app(app)?;
    StreamName::new(app, id).map_err(|e| Problem::new(Code::BadRequest, format!("The stream's name is wrong: {e}.")))
}
