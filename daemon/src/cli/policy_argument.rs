//! Policies and kinds of tokens as they are typed: one spelling for both, that of the policies in
//! documents and REST, with a line of help for each.
//!
//! Must not know which command takes them.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use headwater_api::documents::{Policy, TokenKind};

/// Parses a policy.
pub(super) fn policy() -> impl TypedValueParser<Value = Policy> {
    let named = |name: &str| Policy::ALL.into_iter().find(|policy| policy_value(*policy).matches(name, false));
    PossibleValuesParser::new(Policy::ALL.map(policy_value))
        .try_map(move |name: String| named(&name).ok_or("unknown policy"))
}

/// Parses a kind of tokens.
pub(super) fn token_kind() -> impl TypedValueParser<Value = TokenKind> {
    let named = |name: &str| TOKEN_KINDS.into_iter().find(|kind| kind_value(*kind).matches(name, false));
    PossibleValuesParser::new(TOKEN_KINDS.map(kind_value))
        .try_map(move |name: String| named(&name).ok_or("unknown kind"))
}

/// The policy that a kind of tokens satisfies. Its name is that of the kind.
pub(crate) fn policy_of(kind: TokenKind) -> Policy {
    match kind {
        TokenKind::OneTime => Policy::OneTimeToken,
        TokenKind::Jwt => Policy::Jwt,
    }
}

/// The kind of tokens that a policy requires; `None` if it requires no token that is made here.
pub(crate) fn kind_for(policy: Policy) -> Option<TokenKind> {
    TOKEN_KINDS.into_iter().find(|kind| policy_of(*kind) == policy)
}

fn policy_value(policy: Policy) -> PossibleValue {
    PossibleValue::new(policy.as_str()).aliases(aliases(policy)).help(match policy {
        Policy::Open => "Nothing",
        Policy::Key => "The publish key of the app",
        Policy::OneTimeToken => "A token that admits one client (`headwaterd token make`)",
        Policy::Jwt => "A JSON web token, signed with the JWT key of the app or a key of its JWKS URL",
        Policy::Hash => "Ant Media's hash of stream id, action and the hash secret of the app",
        Policy::Closed => "Nothing helps: nobody is admitted",
    })
}

fn kind_value(kind: TokenKind) -> PossibleValue {
    let policy = policy_of(kind);
    PossibleValue::new(policy.as_str()).aliases(aliases(policy)).help(match kind {
        TokenKind::OneTime => "Admits one client",
        TokenKind::Jwt => "Admits any number of clients; needs a JWT key of the app",
    })
}

/// Other spellings that are accepted: that of kinds in REST, and with hyphens.
fn aliases(policy: Policy) -> &'static [&'static str] {
    match policy {
        Policy::OneTimeToken => &["one_time", "one-time", "one-time-token"],
        _ => &[],
    }
}

const TOKEN_KINDS: [TokenKind; 2] = [TokenKind::OneTime, TokenKind::Jwt];

#[cfg(test)]
mod tests {
    use clap::{Arg, Command};

    use super::*;

    fn parse<T: Clone + Send + Sync + 'static>(
        parser: impl TypedValueParser<Value = T> + 'static,
        text: &str,
    ) -> Option<T> {
        let command = Command::new("x").arg(Arg::new("value").value_parser(parser));
        command.try_get_matches_from(["x", text]).ok()?.remove_one("value")
    }

    #[test]
    fn each_policy_has_the_name_that_documents_have() {
        for expected in Policy::ALL {
            assert_eq!(parse(policy(), expected.as_str()), Some(expected));
        }
        assert_eq!(parse(policy(), "ajar"), None);
    }

    #[test]
    fn every_spelling_of_one_time_tokens_is_accepted_as_policy_and_as_kind() {
        for text in ["one_time_token", "one_time", "one-time", "one-time-token"] {
            assert_eq!(parse(policy(), text), Some(Policy::OneTimeToken), "{text}");
            assert_eq!(parse(token_kind(), text), Some(TokenKind::OneTime), "{text}");
        }
        assert_eq!((parse(token_kind(), "jwt"), parse(token_kind(), "key")), (Some(TokenKind::Jwt), None));
    }

    #[test]
    fn kind_and_policy_lead_to_each_other() {
        for kind in TOKEN_KINDS {
            assert_eq!(kind_for(policy_of(kind)), Some(kind));
        }
        assert_eq!(kind_for(Policy::Key), None);
    }
}
