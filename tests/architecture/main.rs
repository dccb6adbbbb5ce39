//! Architecture test: fails on every dependency, name and text in the repository that breaks a
//! rule.
//!
//! - `dependencies`: which crate and which room may name which (ARCHITECTURE.md)
//! - `cycles`: no import cycle between the files of a crate
//! - `naming`: type names, time constants and test names
//! - `text`: file headers, lengths of files and functions, widths of comments and Markdown
//! - `files`: finds the files that the rules read
//! - `lexer`: separates the code of a Rust file from its comments and literals
//!
//! Each rule has a test that reads the repository and a self-test that shows the rule can fail.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cycles;
mod dependencies;
mod files;
mod lexer;
mod naming;
mod text;
