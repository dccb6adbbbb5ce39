//! Streams: which node owns which name.

use std::future::Future;

use headwater_api::StreamName;
use headwater_api::documents::{Claim, NodeIncarnation, StreamOffer, StreamRecord};

use crate::RegistryError;

/// The streams of a registry.
pub trait Streams: Send + Sync {
    /// Makes `owner` the only owner of a stream.
    ///
    /// Granted if the name has no owner: it was never claimed, its owner has released it, its
    /// owner's lease has expired, or its owner is the claimant, in this incarnation or an earlier
    /// one. The claim's epoch is then greater than any before it.
    ///
    /// With `resumes`, the epoch of an earlier claim by this owner: the claim continues under the
    /// same epoch if no other node has owned the name since.
    ///
    /// # Errors
    /// [`RegistryError::Taken`] while another owner's lease lasts.
    fn claim(
        &self,
        owner: &NodeIncarnation,
        name: &StreamName,
        offer: &StreamOffer,
        resumes: Option<u64>,
    ) -> impl Future<Output = Result<Claim, RegistryError>> + Send;

    /// Renews the leases of all streams that an owner holds, in one operation; called with each
    /// heartbeat. Returns the names that it no longer owns: claim them again with `resumes`, or end
    /// them.
    fn renew(
        &self,
        owner: &NodeIncarnation,
        held: &[Claim],
    ) -> impl Future<Output = Result<Vec<StreamName>, RegistryError>> + Send;

    /// Releases a stream, so that others can claim it at once. Returns false if the claim was no
    /// longer valid.
    fn release(&self, claim: &Claim) -> impl Future<Output = Result<bool, RegistryError>> + Send;

    /// Releases all streams of an incarnation whose engine has ended. Returns their number.
    fn release_all(&self, owner: &NodeIncarnation) -> impl Future<Output = Result<u64, RegistryError>> + Send;

    /// The live stream of this name.
    fn stream(&self, name: &StreamName) -> impl Future<Output = Result<Option<StreamRecord>, RegistryError>> + Send;

    /// All live streams, sorted by name.
    fn streams(&self) -> impl Future<Output = Result<Vec<StreamRecord>, RegistryError>> + Send;
}
