//! The dashboard, the publish page, the player, and their files.

pub(super) mod assets;
pub(super) mod routes;
