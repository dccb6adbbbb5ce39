//! The documents that outlive a process.
