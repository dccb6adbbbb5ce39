//! The commands of `headwaterd` other than `run`: each reads the settings, queries what it needs,
//! and prints text or JSON.

pub(crate) mod arguments;
pub(crate) mod dispatch;
pub(crate) mod list;
pub(crate) mod plan;
