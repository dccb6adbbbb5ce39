//! What handlers learn about the connection of a request, as extensions of the request.

use std::net::SocketAddr;

/// The remote address of the connection; an extension of every request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// An extension of requests received over TLS.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encrypted;
