//! The arguments of `headwaterd app`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use headwater_api::IpNetwork;
use headwater_api::documents::Policy;

use super::list_arguments::ListArguments;
use super::policy_argument::policy;

#[derive(Debug, Subcommand)]
pub(crate) enum AppCommand {
    /// Lists all apps with their policies
    List(ListArguments),
    /// Prints the settings of one app, including its publish key
    Show {
        /// Name of the app
        app: String,
        #[command(flatten)]
        output: ListArguments,
    },
    /// Creates an app. Publishing requires a new key, which is printed, and playing is open, unless
    /// arguments say otherwise
    Create(SetArguments),
    /// Changes settings of an app; those that are not named remain. In force on every node within
    /// five seconds
    Set(SetArguments),
    /// Removes an app; its streams end
    Remove {
        /// Name of the app
        app: String,
        /// Configuration file, as for `run`
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("publish key").args(["new_publish_key", "publish_key_file"]))]
#[command(group = ArgGroup::new("jwt key").args(["new_jwt_key", "jwt_key_file"]))]
#[command(group = ArgGroup::new("hash secret").args(["new_hash_secret", "hash_secret_file"]))]
pub(crate) struct SetArguments {
    /// Name of the app
    pub(crate) app: String,
    /// What a publisher must present. A key or secret that the policy needs is made and printed, if
    /// there is none
    #[arg(long, value_name = "POLICY", value_parser = policy())]
    pub(crate) publish: Option<Policy>,
    /// What a viewer must present, as for --publish. `key` is the key of publishers: who may watch
    /// can then also publish
    #[arg(long, value_name = "POLICY", value_parser = policy())]
    pub(crate) play: Option<Policy>,
    /// Sets the policies of this stream only, not those of the app
    #[arg(long, value_name = "ID")]
    pub(crate) stream: Option<String>,
    /// With --stream: removes the policies of the stream, so that those of the app apply
    #[arg(long, requires = "stream", conflicts_with_all = ["publish", "play"])]
    pub(crate) inherit: bool,
    /// Replaces the publish key by a new one, and prints it
    #[arg(long)]
    pub(crate) new_publish_key: bool,
    /// Takes the publish key from the first line of this file
    #[arg(long, value_name = "FILE")]
    pub(crate) publish_key_file: Option<PathBuf>,
    /// Replaces the HS256 key of JSON web tokens by a new one, and prints it
    #[arg(long)]
    pub(crate) new_jwt_key: bool,
    /// Takes the HS256 key of JSON web tokens from the first line of this file
    #[arg(long, value_name = "FILE")]
    pub(crate) jwt_key_file: Option<PathBuf>,
    /// Replaces the secret of the policy `hash` by a new one, and prints it
    #[arg(long)]
    pub(crate) new_hash_secret: bool,
    /// Takes the secret of the policy `hash` from the first line of this file
    #[arg(long, value_name = "FILE")]
    pub(crate) hash_secret_file: Option<PathBuf>,
    /// URL of the JWK set with the RS256 and ES256 keys of JSON web tokens; "" for none
    #[arg(long, value_name = "URL")]
    pub(crate) jwks_url: Option<String>,
    /// Whether the host of the JWK set may have a private address, and its URL may be http
    #[arg(long, value_name = "BOOL")]
    pub(crate) jwks_private: Option<bool>,
    /// Networks that may publish, separated by commas; "" for all
    #[arg(long, value_name = "NETWORKS", value_parser = networks)]
    pub(crate) publish_networks: Option<Networks>,
    /// Origins whose pages may embed the player, separated by commas; "" for all
    #[arg(long, value_name = "ORIGINS", value_parser = origins)]
    pub(crate) allowed_origins: Option<Origins>,
    /// Whether a session ends when the token that admitted it expires
    #[arg(long, value_name = "BOOL")]
    pub(crate) end_at_expiry: Option<bool>,
    /// Configuration file, as for `run`
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Prints the changed settings as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A list of networks in one argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Networks(pub(crate) Vec<IpNetwork>);

/// A list of origins in one argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origins(pub(crate) Vec<String>);

fn networks(text: &str) -> Result<Networks, String> {
    let parse = |part: &str| part.parse().map_err(|e: headwater_api::network::InvalidNetwork| e.to_string());
    parts(text).map(parse).collect::<Result<_, _>>().map(Networks)
}

fn origins(text: &str) -> Result<Origins, String> {
    Ok(Origins(parts(text).map(str::to_owned).collect()))
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}
