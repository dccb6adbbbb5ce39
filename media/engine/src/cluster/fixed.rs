//! Resolves streams to a fixed list of relays, for a few nodes without a shared registry.

use std::net::SocketAddr;

use headwater_api::StreamName;

use crate::gateway::relay::{Locate, Located, Locating};

/// Returns the same relays for every stream.
#[derive(Debug)]
pub struct Fixed(Vec<SocketAddr>);

impl Fixed {
    /// `relays` are tried in this order.
    pub fn new(relays: Vec<SocketAddr>) -> Self {
        Self(relays)
    }
}

impl Locate for Fixed {
    fn locate<'a>(&'a self, _: &'a StreamName) -> Locating<'a> {
        let located = (!self.0.is_empty()).then(|| Located::at(self.0.clone()));
        Box::pin(async move { located })
    }

    fn doubt(&self, _: &StreamName) {}

    fn flows(&self, _: &StreamName) {}
}
