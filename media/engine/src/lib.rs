//! The media engine: sockets, tasks and shared state around the protocol values of `wire`.
//!
//! Media enters through `gateway`, passes the `hub` as frames, and leaves through `gateway`.
//! Allowed dependencies: `engine -> every room`, `http -> cluster, gateway, hub`, `cluster ->
//! gateway (stream ownership), hub, registry`, `gateway, transcode -> hub`, and from all of these
//! to `wire, api, registry, program`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod access;
pub mod cluster;
pub mod engine;
pub mod events;
pub mod gateway;
pub mod http;
pub mod hub;
pub mod node;
pub mod runtime;
pub mod transcode;
