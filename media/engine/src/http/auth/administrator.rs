//! Extracts the administrator of a request, for resources that nobody else may read.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::caller::Caller;
use crate::http::error::{Code, Problem};
use crate::http::state::AppState;

/// Proof that the caller of a request is an administrator.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct Administrator;

impl FromRequestParts<AppState> for Administrator {
    type Rejection = Problem;

    /// Refuses everybody else.
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, state).await?;
        match (caller.is_administrator(), caller.name()) {
            (true, _) => Ok(Self),
            (false, Some(_)) => Err(Problem::fixed(Code::Forbidden, "Only an administrator may do this.")),
            (false, None) => {
                Err(Problem::fixed(Code::Unauthorized, "Only the administrator may do this: log in first."))
            }
        }
    }
}
