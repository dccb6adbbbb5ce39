//! The media engine: sockets, tasks and shared state around the protocol values of `wire`.
//!
//! Media enters through `gateway`, passes the `hub` as frames, and leaves through `gateway`.
//!
//! | room | what it is for |
//! | --- | --- |
//! | [`engine`] | the assembly: opens listeners, mounts every room, drains in stages |
//! | [`gateway`] | RTMP, WebRTC, HLS and the relay: bytes to frames and back |
//! | [`hub`] | live streams by name: one producer, any number of consumers |
//! | [`cluster`] | which node owns a stream, and where it can be pulled from |
//! | [`transcode`] | AAC to Opus, once per stream |
//! | [`http`] | the web server: HLS, WHEP, REST, pages, health and metrics |
//! | [`access`] | may this client publish, watch, operate? |
//! | [`events`] | what happened to streams and viewers |
//! | [`node`] | load, health and admission of this node |
//! | [`runtime`] | threads, files, sockets, time |
//!
//! The allowed dependencies between them are in ARCHITECTURE.md; `tests/architecture` enforces
//! them.
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
