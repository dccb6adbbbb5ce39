//! The registry of a standalone node: one redb file in the data folder, JSON documents by key.
//!
//! Only one process may have the file open: the engine. Leases are kept in memory, because their
//! owner is this process or has ended with it. Registrations are written, so that the next
//! incarnation of a node gets a greater epoch. Calls that write take as long as the file's commit,
//! a few milliseconds.
//!
//! RULE: must not know what the documents mean.

mod accounts;
mod apps;
mod file;
mod leases;
mod nodes;
mod open;
mod streams;
#[cfg(test)]
mod tests;
mod tokens;

pub use file::Embedded;
pub use open::FILE_NAME;
