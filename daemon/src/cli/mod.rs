//! The commands of `headwaterd` other than `run`: each reads the settings, queries what it needs,
//! and prints text or JSON.

pub(crate) mod app;
pub(crate) mod app_arguments;
pub(crate) mod arguments;
pub(crate) mod dispatch;
pub(crate) mod engine_api;
pub(crate) mod list;
pub(crate) mod list_arguments;
pub(crate) mod plan;
pub(crate) mod policy_argument;
pub(crate) mod table;
pub(crate) mod token;
pub(crate) mod token_arguments;
