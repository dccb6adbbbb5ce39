//! What a client asks for.

use std::net::IpAddr;

use headwater_api::StreamName;
use headwater_api::documents::Grant;

use super::credentials::Credentials;

/// A request to publish or to play a stream.
#[derive(Debug, Clone, Copy)]
pub struct AccessRequest<'a> {
    /// What the client wants to do.
    pub action: Grant,
    /// The stream; its app need not exist.
    pub stream: &'a StreamName,
    /// What the client presented.
    pub credentials: Credentials<'a>,
    /// Address of the client.
    pub client: IpAddr,
}
