//! Why the connection of a pull to a source ended, and the error that viewers get for it.
//!
//! Plain values. Must not know connections.

use headwater_api::error::Chain;
use headwater_wire::relay::{EndReason, Refusal};

use crate::gateway::relay::ingest::IngestError;
use crate::gateway::relay::resolver::ResolveError;
use crate::hub::FindError;

/// Why a connection to a source ended.
#[derive(Debug)]
pub(super) enum Disconnect {
    /// The connection failed, or sent something that cannot be used.
    Lost(IngestError),
    EndedByOrigin(EndReason),
    Refused(Refusal),
    Unresolved(ResolveError),
    NoViewers,
    /// The stream is to be read from another node, such as after a takeover.
    Moved,
}

impl Disconnect {
    /// How likely it is that the stream is live, from 0; to compare the answers of several nodes.
    pub(super) fn likelihood(&self) -> u8 {
        match self.find_error() {
            FindError::AtCapacity => 2,
            FindError::Unreachable | FindError::RegistryUnreachable | FindError::TooManySearches => 1,
            FindError::NotPublished => 0,
        }
    }

    /// The error for a viewer that waits for the first source.
    pub(super) fn find_error(&self) -> FindError {
        match self {
            Self::Refused(Refusal::Full) => FindError::AtCapacity,
            Self::Unresolved(ResolveError::RegistryUnreachable) => FindError::RegistryUnreachable,
            Self::Unresolved(ResolveError::NotPublished) | Self::Refused(Refusal::NotFound) | Self::NoViewers => {
                FindError::NotPublished
            }
            Self::Lost(_) | Self::EndedByOrigin(_) | Self::Refused(Refusal::Draining) | Self::Moved => {
                FindError::Unreachable
            }
        }
    }

    /// The reason as a sentence, for the log.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Lost(e) => Chain(e).to_string(),
            Self::EndedByOrigin(EndReason::Draining) => "the origin is draining".to_owned(),
            Self::EndedByOrigin(EndReason::Moved) => "another node owns the stream".to_owned(),
            Self::EndedByOrigin(_) => "the origin ended the stream".to_owned(),
            Self::Refused(Refusal::Full) => "the node that has the stream is at its limit of edges".to_owned(),
            Self::Refused(reason) => format!("no node has the stream ({reason:?})"),
            Self::Unresolved(error) => error.to_string(),
            Self::NoViewers => "no viewers".to_owned(),
            Self::Moved => "the stream is to be read from another node".to_owned(),
        }
    }
}
