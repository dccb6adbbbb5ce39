//! `headwaterd token`: makes, lists and revokes tokens, through the engine of this machine.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use headwater_api::documents::{AppDocument, Grant, Policy, TokenKind};
use headwater_api::rest::{AppSettings, MadeToken, NewToken, TokenRevocation, TokenStatus};
use hyper::Method;
use serde::Serialize;

use crate::cli::app;
use crate::cli::engine_api::EngineApi;
use crate::cli::policy_argument::{kind_for, policy_of};
use crate::cli::table::{format_age, render_table};
use crate::cli::token_arguments::MakeArguments;

/// A new token, with what its user should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct NewTokenReport {
    #[serde(flatten)]
    pub(crate) made: MadeToken,
    /// Address of the player page with the token; `None` if the token is for publishers or for
    /// every stream, or if the node serves no pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) player_url: Option<String>,
    /// Why the token is of no use as long as the app has its current policy.
    #[serde(skip)]
    pub(crate) warning: Option<String>,
}

/// Makes a token of the kind that the app requires, unless the arguments name one.
///
/// # Errors
/// A message, if the engine does not answer or refuses.
pub(crate) async fn make(engine: &EngineApi, arguments: &MakeArguments) -> Result<NewTokenReport, String> {
    let grants = arguments.action.into();
    let policy = required_policy(app::show(engine, &arguments.app).await?, grants, arguments.stream.as_deref());
    let kind = arguments.kind.or_else(|| kind_for(policy)).unwrap_or(TokenKind::OneTime);
    let now_ms = now_ms();
    let later_ms = |duration: Duration| now_ms.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    let new = NewToken {
        stream: arguments.stream.clone(),
        grants,
        kind,
        not_before_ms: if arguments.not_before.is_zero() { 0 } else { later_ms(arguments.not_before) },
        expires_at_ms: later_ms(arguments.not_before.saturating_add(arguments.valid)),
    };
    let path = format!("{}/tokens", app::path(&arguments.app)?);
    let made: MadeToken = engine.send(Method::POST, &path, Some(&new)).await?.json()?;
    let player_url = match (engine.base_url(), &arguments.stream, grants) {
        (Some(base), Some(id), Grant::Play) => Some(player_url(base, &arguments.app, id, &made.token)),
        _ => None,
    };
    Ok(NewTokenReport { made, player_url, warning: mismatch(arguments, policy, kind) })
}

/// What a client must present for this action on this stream, or on most streams of the app.
fn required_policy(app: AppSettings, action: Grant, stream: Option<&str>) -> Policy {
    let document = AppDocument::open(&app.name);
    let (app, id) = (app.apply_to(&document), stream.unwrap_or_default());
    match action {
        Grant::Publish => app.publish_policy(id),
        Grant::Play => app.play_policy(id),
    }
}

/// A sentence for a token that the current policy does not ask for.
fn mismatch(arguments: &MakeArguments, policy: Policy, kind: TokenKind) -> Option<String> {
    let required_kind = kind_for(policy);
    if required_kind == Some(kind) {
        return None;
    }
    let app = &arguments.app;
    let name = arguments.stream.as_ref().map_or_else(|| app.clone(), |id| format!("{app}/{id}"));
    let (clients, option) = match Grant::from(arguments.action) {
        Grant::Publish => ("publishers", "--publish"),
        Grant::Play => ("viewers", "--play"),
    };
    let stream = arguments.stream.as_ref().map_or_else(String::new, |id| format!(" --stream {id}"));
    let remedy = format!("`app set {app}{stream} {option} {}` requires such a token", policy_of(kind).as_str());
    Some(match required_kind {
        _ if policy == Policy::Open => format!("{name} admits {clients} without a token; {remedy}"),
        Some(other) => format!(
            "{name} does not admit {clients} with this token, but with one of `--kind {}`; {remedy}",
            policy_of(other).as_str()
        ),
        None => format!(
            "{name} does not admit {clients} with this token, because its policy is `{}`; {remedy}",
            policy.as_str()
        ),
    })
}

/// The address of the player page for the bearer of a token. Neither a stream id nor a token has a
/// character that must be encoded.
fn player_url(base: &str, app: &str, id: &str, token: &str) -> String {
    format!("{}/{app}/play.html?id={id}&token={token}", base.trim_end_matches('/'))
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
        vec![
            token.stream.clone().unwrap_or_else(|| "*".to_owned()),
            token.grants.as_str().to_owned(),
            policy_of(token.kind).as_str().to_owned(),
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
    use headwater_api::documents::StreamPolicy;
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

    fn make_arguments(line: &str) -> MakeArguments {
        let words = ["headwaterd", "token", "make"].into_iter().chain(line.split(' '));
        match Arguments::try_parse_from(words).unwrap().command {
            Command::Token { command: TokenCommand::Make(arguments) } => arguments,
            other => panic!("{other:?}"),
        }
    }

    fn settings(app: &AppDocument) -> Value {
        serde_json::to_value(AppSettings::from(app)).unwrap()
    }

    #[tokio::test]
    async fn token_is_made_for_the_duration_and_stream_of_the_arguments() {
        let made = MadeToken { token: "secret".to_owned(), status: status() };
        let app = AppDocument { publish: Policy::Jwt, ..AppDocument::open("live") };
        let answers = vec![(200, settings(&app)), (201, serde_json::to_value(&made).unwrap()), (204, Value::Null)];
        let engine = ScriptedEngine::start(answers).await;
        let arguments = make_arguments("live publish --stream cam1 --kind jwt --valid 2h --not-before 1h");
        let before_ms = now_ms();
        let report = make(&engine.api(), &arguments).await.unwrap();
        assert_eq!(report, NewTokenReport { made, player_url: None, warning: None });
        let (method, path, body) = engine.received().remove(1);
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

    #[tokio::test]
    async fn kind_of_a_token_is_what_the_stream_requires_unless_it_is_named() {
        let mut app = AppDocument { play: Policy::Jwt, ..AppDocument::open("live") };
        let own = StreamPolicy { play: Some(Policy::OneTimeToken), publish: Some(Policy::Closed) };
        app.streams.insert("cam1".to_owned(), own);
        let made = serde_json::to_value(MadeToken { token: "secret".to_owned(), status: status() }).unwrap();
        let check = async |line: &str, kind: &str, warning: &str| {
            let engine = ScriptedEngine::start(vec![(200, settings(&app)), (201, made.clone())]).await;
            let report = make(&engine.api(), &make_arguments(line)).await.unwrap();
            assert_eq!(engine.received()[1].2["kind"], json!(kind), "{line}");
            assert_eq!(report.warning.as_deref().unwrap_or_default(), warning, "{line}");
        };
        check("live play", "jwt", "").await;
        check("live play --stream cam1", "one_time", "").await;
        check("live play --stream cam2 --kind jwt", "jwt", "").await;
        check(
            "live play --kind one-time",
            "one_time",
            "live does not admit viewers with this token, but with one of `--kind jwt`; \
             `app set live --play one_time_token` requires such a token",
        )
        .await;
        check(
            "live publish",
            "one_time",
            "live admits publishers without a token; `app set live --publish one_time_token` requires such a token",
        )
        .await;
        check(
            "live publish --stream cam1 --kind jwt",
            "jwt",
            "live/cam1 does not admit publishers with this token, because its policy is `closed`; \
             `app set live --stream cam1 --publish jwt` requires such a token",
        )
        .await;
    }

    #[test]
    fn url_of_the_player_page_contains_the_token() {
        let expected = "https://media.example.com/live/play.html?id=cam.1&token=a.b-c";
        assert_eq!(player_url("https://media.example.com/", "live", "cam.1", "a.b-c"), expected);
    }

    #[test]
    fn token_that_begins_with_a_hyphen_can_be_revoked() {
        for token in ["-abc", "-habc", "--abc"] {
            for line in [
                format!("revoke live {token}"),
                format!("revoke live --config FILE {token}"),
                format!("revoke live {token} --config FILE"),
            ] {
                let words = ["headwaterd", "token"].into_iter().chain(line.split(' '));
                match Arguments::try_parse_from(words).unwrap().command {
                    Command::Token { command: TokenCommand::Revoke { token: parsed, config, .. } } => {
                        assert_eq!((parsed.as_str(), config.is_some()), (token, line.contains("--config")), "{line}");
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
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
        assert_eq!(shown.lines().nth(2).and_then(|line| line.split_whitespace().next()), Some("*"), "{shown}");
    }
}
