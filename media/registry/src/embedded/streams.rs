//! Streams: in memory only.

use headwater_api::StreamName;
use headwater_api::documents::{Claim, NodeIncarnation, StreamOffer, StreamRecord};

use super::Embedded;
use crate::{RegistryError, Streams};

impl Streams for Embedded {
    async fn claim(
        &self,
        owner: &NodeIncarnation,
        name: &StreamName,
        offer: &StreamOffer,
        resumes: Option<u64>,
    ) -> Result<Claim, RegistryError> {
        self.leases().claim(self.now_ms(), owner, name, offer, resumes)
    }

    async fn renew(&self, owner: &NodeIncarnation, held: &[Claim]) -> Result<Vec<StreamName>, RegistryError> {
        Ok(self.leases().renew(self.now_ms(), owner, held))
    }

    async fn release(&self, claim: &Claim) -> Result<bool, RegistryError> {
        Ok(self.leases().release(self.now_ms(), claim))
    }

    async fn release_all(&self, owner: &NodeIncarnation) -> Result<u64, RegistryError> {
        Ok(self.leases().release_all(self.now_ms(), owner))
    }

    async fn stream(&self, name: &StreamName) -> Result<Option<StreamRecord>, RegistryError> {
        Ok(self.leases().stream(self.now_ms(), name))
    }

    async fn streams(&self) -> Result<Vec<StreamRecord>, RegistryError> {
        Ok(self.leases().streams(self.now_ms()))
    }
}
