//! `headwaterd token`: makes, lists and revokes tokens, through the engine of this machine.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use headwater_api::rest::{MadeToken, NewToken, TokenRevocation, TokenStatus};
use hyper::Method;

use crate::cli::app;
use crate::cli::engine_api::EngineApi;
use crate::cli::table::{format_age, render_table};
use crate::cli::token_arguments::MakeArguments;

/// Makes a token.
///
/// # Errors
/// A message, if the engine does not answer or refuses.
pub(crate) async fn make(engine: &EngineApi, arguments: &MakeArguments) -> Result<MadeToken, String> {
    let now_ms = now_ms();
    let later_ms = |duration: Duration| now_ms.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    let new = NewToken {
        stream: arguments.stream.clone(),
        grants: arguments.action.into(),
        kind: arguments.kind.into(),
        not_before_ms: if arguments.not_before.is_zero() { 0 } else { later_ms(arguments.not_before) },
        expires_at_ms: later_ms(arguments.not_before.saturating_add(arguments.valid)),
    };
    let path = format!("{}/tokens", app::path(&arguments.app)?);
    engine.send(Method::POST, &path, Some(&new)).await?.json()
}

/// Returns the tokens of an app that have not expired, the latest first; at most 1,000.
///
/// # Errors
/// As [`make`].
pub(crate) async fn list(engine: &EngineApi, app: &str) -> Result<Vec<TokenStatus>, String> {
    engine.get(&format!("{}/tokens/0/1000", app::path(app)?)).await
}

/// Revokes a token, which may be its id.
///
/// # Errors
/// As [`make`], or if there is no such token.
pub(crate) async fn revoke(engine: &EngineApi, app: &str, token: &str) -> Result<(), String> {
    let path = format!("{}/tokens/revoke", app::path(app)?);
    engine.send(Method::POST, &path, Some(&TokenRevocation { token: token.to_owned() })).await?.success()
}

/// Formats tokens as a table, as of now.
pub(crate) fn table(tokens: &[TokenStatus]) -> String {
    table_at(tokens, now_ms())
}

fn table_at(tokens: &[TokenStatus], now_ms: u64) -> String {
    let head = ["STREAM", "FOR", "KIND", "STATE", "LEFT", "ID"].map(str::to_owned).to_vec();
    let row = |token: &TokenStatus| {
        let state = match (token.revoked_at_ms, token.used_at_ms) {
            (Some(_), _) => "revoked",
            (None, Some(_)) => "used",
            (None, None) if now_ms < token.not_before_ms => "not yet",
            (None, None) if token.expires_at_ms <= now_ms => "expired",
            (None, None) => "valid",
        };
        let kind = match token.kind {
            headwater_api::documents::TokenKind::OneTime => "one-time",
            headwater_api::documents::TokenKind::Jwt => "jwt",
        };
        vec![
            token.stream.clone().unwrap_or_else(|| "*".to_owned()),
            token.grants.as_str().to_owned(),
            kind.to_owned(),
            state.to_owned(),
            format_age(token.expires_at_ms.saturating_sub(now_ms)),
            token.id.clone(),
        ]
    };
    render_table(head, tokens.iter().map(row).collect(), &[4])
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use headwater_api::documents::{Grant, TokenKind};
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::arguments::{Arguments, Command};
    use crate::cli::engine_api::tests::ScriptedEngine;
    use crate::cli::token_arguments::TokenCommand;

    fn status() -> TokenStatus {
        TokenStatus {
            id: "0f".repeat(32),
            stream: Some("cam1".to_owned()),
            grants: Grant::Play,
            kind: TokenKind::OneTime,
            created_at_ms: 0,
            not_before_ms: 0,
            expires_at_ms: 3_600_000,
            used_at_ms: None,
            revoked_at_ms: None,
        }
    }

    #[tokio::test]
    async fn token_is_made_for_the_duration_and_stream_of_the_arguments() {
        let made = MadeToken { token: "secret".to_owned(), status: status() };
        let engine = ScriptedEngine::start(vec![(201, serde_json::to_value(&made).unwrap()), (204, Value::Null)]).await;
        let words = "headwaterd token make live publish --stream cam1 --kind jwt --valid 2h --not-before 1h";
        let Command::Token { command: TokenCommand::Make(arguments) } =
            Arguments::try_parse_from(words.split(' ')).unwrap().command
        else {
            panic!()
        };
        let before_ms = now_ms();
        assert_eq!(make(&engine.api(), &arguments).await.unwrap(), made);
        let (method, path, body) = engine.received().remove(0);
        assert_eq!((method.as_str(), path.as_str()), ("POST", "/rest/v2/apps/live/tokens"));
        assert_eq!((&body["type"], &body["kind"], &body["stream"]), (&json!("publish"), &json!("jwt"), &json!("cam1")));
        let not_before_ms = body["not_before_ms"].as_u64().unwrap();
        assert_eq!(body["expires_at_ms"].as_u64().unwrap() - not_before_ms, 2 * 3_600_000);
        assert!((before_ms..=now_ms()).contains(&(not_before_ms - 3_600_000)));
        revoke(&engine.api(), "live", "secret").await.unwrap();
        let (_, path, body) = engine.received().remove(0);
        assert_eq!((path.as_str(), body), ("/rest/v2/apps/live/tokens/revoke", json!({ "token": "secret" })));
        assert!(revoke(&engine.api(), "../x", "secret").await.unwrap_err().contains("is not the name of an app"));
    }

    #[test]
    fn table_shows_the_state_of_each_token() {
        let used = TokenStatus { used_at_ms: Some(1), stream: None, ..status() };
        let revoked = TokenStatus { revoked_at_ms: Some(1), kind: TokenKind::Jwt, ..status() };
        let early = TokenStatus { not_before_ms: 60_001, ..status() };
        let shown = table_at(&[status(), used, revoked, early], 60_000);
        let states: Vec<_> =
            shown.lines().map(|line| line.split("  ").filter(|s| !s.is_empty()).nth(3).unwrap().trim()).collect();
        assert_eq!(states, ["STATE", "valid", "used", "revoked", "not yet"], "{shown}");
        assert!(shown.lines().nth(2).unwrap().starts_with("*     play"), "{shown}");
    }
}
