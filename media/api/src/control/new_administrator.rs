//! How the daemon passes a new administrator account to the engine.

/// File inside `data_dir` with a new administrator account, a
/// [`UserDocument`](crate::documents::UserDocument) as JSON. The daemon writes it; the engine, the
/// only process that may open an embedded registry, stores the account there and removes the file.
pub const NEW_ADMINISTRATOR_FILE: &str = "administrator.new";
