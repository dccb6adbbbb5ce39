//! REST: one file per resource, and the OpenAPI document of them all. Bodies are types of
//! `headwater_api`.
//!
//! A resource is added to `resources` with `routes!`, so that its routes and its documentation come
//! from the same annotation.

mod app;
mod broadcasts;
mod cluster;
pub(super) mod json;
mod nodes;
mod openapi;
mod resources;
mod streams;

pub(super) use resources::routes;

#[cfg(test)]
#[path = "rest_test.rs"]
mod tests;
