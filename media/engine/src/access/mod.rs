//! Who may publish, watch and operate: one question for every protocol.
//!
//! RULE: knows the hub and the registry, and no protocol. Policies are pure functions; a gateway
//! passes what the client presented and gets a decision.

pub mod apps;
