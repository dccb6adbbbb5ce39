//! The commands of `headwaterd` beside `run`: each reads the settings, asks what it needs, and prints a table or JSON.

pub(crate) mod arguments;
pub(crate) mod dispatch;
pub(crate) mod list;
pub(crate) mod plan;
