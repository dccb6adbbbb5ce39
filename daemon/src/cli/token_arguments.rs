//! The arguments of `headwaterd token`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use headwater_api::documents::{Grant, TokenKind};

use super::list_arguments::ListArguments;
use super::policy_argument::token_kind;

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Makes a token and prints it; it is not shown again. For a viewer of one stream, standard
    /// error gets the URL of the player page with it
    Make(MakeArguments),
    /// Lists the tokens of an app that have not expired
    List {
        /// Name of the app
        app: String,
        #[command(flatten)]
        output: ListArguments,
    },
    /// Revokes a token; the sessions that it admitted end on every node within five seconds
    Revoke {
        /// Name of the app
        app: String,
        /// The token, or its id in the list
        // A token that was made elsewhere may begin with a hyphen.
        #[arg(allow_hyphen_values = true)]
        token: String,
        /// Configuration file, as for `run`
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct MakeArguments {
    /// Name of the app
    pub(crate) app: String,
    /// What the token permits
    #[arg(value_enum)]
    pub(crate) action: Action,
    /// The only stream that the token is for [default: all streams of the app]
    #[arg(long, value_name = "ID")]
    pub(crate) stream: Option<String>,
    /// How often the token admits [default: what the app requires, else one_time_token]
    #[arg(long, value_name = "KIND", value_parser = token_kind())]
    pub(crate) kind: Option<TokenKind>,
    /// How long the token is valid: 90s, 15m, 12h, 7d
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    pub(crate) valid: Duration,
    /// Time from now until the token becomes valid
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub(crate) not_before: Duration,
    /// Configuration file, as for `run`
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Prints JSON, with all fields
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a token permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Action {
    /// Publish
    Publish,
    /// Watch
    Play,
}

impl From<Action> for Grant {
    fn from(action: Action) -> Self {
        match action {
            Action::Publish => Self::Publish,
            Action::Play => Self::Play,
        }
    }
}

/// Parses a whole number with a unit.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration, such as 90s, 15m, 12h or 7d");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let unit_s: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(unit_s).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_is_a_whole_number_with_a_unit() {
        for (text, seconds) in [("0s", 0), ("90s", 90), ("15m", 900), ("12h", 43_200), ("7d", 604_800)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "1", "h", "1.5h", "-1h", "1w", "1 h", "99999999999999999999s", "9999999999999999d", "1hh"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }
}
