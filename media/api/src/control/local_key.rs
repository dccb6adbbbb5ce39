//! How a command on the same machine proves to the engine that it runs for the node's operator.

/// File inside `data_dir` with a random key that only its owner can read. The engine writes a new
/// one at each start; who presents it as a bearer token to the REST API is an administrator.
pub const LOCAL_KEY_FILE: &str = "local.key";
