//! Bounds a call to the registry in time, and reports its failure as REST does.

use std::future::Future;
use std::time::Duration;

use headwater_api::error::Chain;
use headwater_registry::RegistryError;

use crate::http::error::{Code, Problem};

/// The outcome of a call; an error for the caller if the registry does not answer.
pub(super) async fn within_timeout<T>(
    call: impl Future<Output = Result<T, RegistryError>>,
) -> Result<Result<T, RegistryError>, Problem> {
    tokio::time::timeout(CALL_TIMEOUT, call).await.map_err(|_| {
        log::warn!("the registry did not answer a request of the administrator");
        UNREACHABLE
    })
}

/// [`within_timeout`] for calls whose every error means that the registry is unreachable.
pub(super) async fn ask<T>(call: impl Future<Output = Result<T, RegistryError>>) -> Result<T, Problem> {
    within_timeout(call).await?.map_err(unreachable)
}

/// Logs an error of the registry, which may name servers, and reports it without them.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn unreachable(error: RegistryError) -> Problem {
    log::warn!(err:% = Chain(&error); "a request of the administrator has failed");
    UNREACHABLE
}

/// Longer than MongoDB's own timeout would keep an administrator waiting without an answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const UNREACHABLE: Problem = Problem::fixed(Code::RegistryUnreachable, "The registry does not answer; try again.");
