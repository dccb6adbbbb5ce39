//! REST: one file per resource, and the OpenAPI document of them all. Bodies are types of
//! `headwater_api`.
//!
//! A resource is added to `resources` with `routes!`, so that its routes and its documentation come
//! from the same annotation.

mod app;
mod apps;
mod broadcast_tokens;
mod broadcasts;
mod cluster;
pub(super) mod json;
mod json_body;
mod made_token;
mod nodes;
mod openapi;
mod registry_call;
mod resources;
mod streams;
mod tokens;

pub(super) use resources::routes;

#[cfg(test)]
mod apps_test;
#[cfg(test)]
#[path = "rest_test.rs"]
mod tests;
