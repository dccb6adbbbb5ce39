//! `headwaterd app`: shows and changes the settings of apps, through the engine of this machine.
//!
//! A change is made to the settings as they are. If somebody else changes them at the same moment,
//! it is made again to the new ones.

use std::fmt::Write as _;
use std::path::Path;

use headwater_api::documents::{AppDocument, Policy};
use headwater_api::rest::AppSettings;
use headwater_api::secret::Secret;
use headwater_program::token;
use hyper::{Method, StatusCode};

use crate::cli::app_arguments::SetArguments;
use crate::cli::engine_api::EngineApi;
use crate::cli::table::{or_dash, render_table};

/// Returns the settings of all apps.
///
/// # Errors
/// A message, if the engine does not answer or refuses.
pub(crate) async fn list(engine: &EngineApi) -> Result<Vec<AppSettings>, String> {
    engine.get("/rest/v2/apps").await
}

/// Returns the settings of one app.
///
/// # Errors
/// As [`list`], or if the app does not exist.
pub(crate) async fn show(engine: &EngineApi, app: &str) -> Result<AppSettings, String> {
    engine.get(&path(app)?).await
}

/// Creates an app whose publishers need a key, unless the arguments name another policy.
///
/// # Errors
/// As [`list`], or if the app exists, or a setting is wrong.
pub(crate) async fn create(engine: &EngineApi, arguments: &SetArguments) -> Result<Changed, String> {
    let path = path(&arguments.app)?;
    let found = engine.send(Method::GET, &path, None::<&()>).await?;
    if found.status() != StatusCode::NOT_FOUND {
        found.success()?;
        return Err(format!("the app {} exists already", arguments.app));
    }
    let closed = AppDocument { publish: Policy::Key, ..AppDocument::open(&arguments.app) };
    let mut settings = AppSettings::from(&closed);
    let new_secrets = apply(arguments, &mut settings)?;
    let settings = engine.send(Method::PUT, &path, Some(&settings)).await?.json()?;
    Ok(Changed { settings, new_secrets })
}

/// Changes the settings that the arguments name.
///
/// # Errors
/// As [`show`], or if a setting is wrong.
pub(crate) async fn set(engine: &EngineApi, arguments: &SetArguments) -> Result<Changed, String> {
    let path = path(&arguments.app)?;
    for _ in 0..MAX_ATTEMPTS {
        let mut settings = show(engine, &arguments.app).await?;
        let new_secrets = apply(arguments, &mut settings)?;
        let answer = engine.send(Method::PUT, &path, Some(&settings)).await?;
        if answer.status() != StatusCode::CONFLICT {
            return Ok(Changed { settings: answer.json()?, new_secrets });
        }
    }
    Err(format!("the app {} is being changed by somebody else; try again", arguments.app))
}

/// Removes an app.
///
/// # Errors
/// As [`show`].
pub(crate) async fn remove(engine: &EngineApi, app: &str) -> Result<(), String> {
    engine.send(Method::DELETE, &path(app)?, None::<&()>).await?.success()
}

/// Changed settings, and the secrets that were made.
#[derive(Debug)]
pub(crate) struct Changed {
    /// The settings after the change.
    pub(crate) settings: AppSettings,
    new_secrets: Vec<(&'static str, Secret)>,
}

impl Changed {
    /// The new secrets, which are shown only here, one per line; empty if there are none.
    pub(crate) fn new_secrets_text(&self) -> String {
        self.new_secrets.iter().fold(String::new(), |mut text, (name, secret)| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "new {name}: {}", secret.reveal());
            text
        })
    }
}

/// Changes what the arguments name. Returns the secrets that it made.
fn apply(arguments: &SetArguments, settings: &mut AppSettings) -> Result<Vec<(&'static str, Secret)>, String> {
    match &arguments.stream {
        Some(id) if arguments.inherit => drop(settings.streams.remove(id)),
        Some(id) if arguments.publish.is_some() || arguments.play.is_some() => {
            let stream = settings.streams.entry(id.clone()).or_default();
            stream.publish = arguments.publish.or(stream.publish);
            stream.play = arguments.play.or(stream.play);
        }
        Some(_) => return Err("--stream needs --publish, --play or --inherit".to_owned()),
        None => {
            settings.publish = arguments.publish.unwrap_or(settings.publish);
            settings.play = arguments.play.unwrap_or(settings.play);
        }
    }
    if let Some(url) = &arguments.jwks_url {
        settings.jwks_url = Some(url.clone()).filter(|url| !url.is_empty());
    }
    settings.jwks_private = arguments.jwks_private.unwrap_or(settings.jwks_private);
    if let Some(networks) = &arguments.publish_networks {
        settings.publish_networks.clone_from(&networks.0);
    }
    if let Some(origins) = &arguments.allowed_origins {
        settings.allowed_origins.clone_from(&origins.0);
    }
    settings.end_at_expiry = arguments.end_at_expiry.unwrap_or(settings.end_at_expiry);
    apply_secrets(arguments, settings)
}

/// Sets the secrets that the arguments name, and makes those that a policy lacks.
fn apply_secrets(arguments: &SetArguments, settings: &mut AppSettings) -> Result<Vec<(&'static str, Secret)>, String> {
    let lacks = |policy: Policy, has_secret: bool| {
        let of_streams = settings.streams.values().flat_map(|stream| [stream.publish, stream.play]).flatten();
        !has_secret && [settings.publish, settings.play].into_iter().chain(of_streams).any(|used| used == policy)
    };
    let has_publish_key = settings.publish_key.as_ref().is_some_and(Option::is_some);
    let new_publish_key = arguments.new_publish_key || lacks(Policy::Key, has_publish_key);
    let has_jwt_key = settings.has_jwt_key || settings.jwks_url.is_some();
    let new_jwt_key = arguments.new_jwt_key || lacks(Policy::Jwt, has_jwt_key);
    let new_hash_secret = arguments.new_hash_secret || lacks(Policy::Hash, settings.has_hash_secret);
    let mut made = Vec::new();
    let mut secret = |name, is_new: bool, file: Option<&Path>| match file {
        Some(file) => read_secret(file).map(|secret| Some(Some(secret))),
        None if is_new => {
            let secret = token::generate();
            made.push((name, secret.clone()));
            Ok(Some(Some(secret)))
        }
        None => Ok(None),
    };
    if let Some(key) = secret("publish key", new_publish_key, arguments.publish_key_file.as_deref())? {
        settings.publish_key = Some(key);
    }
    settings.jwt_key = secret("JWT key", new_jwt_key, arguments.jwt_key_file.as_deref())?;
    settings.hash_secret = secret("hash secret", new_hash_secret, arguments.hash_secret_file.as_deref())?;
    Ok(made)
}

fn read_secret(file: &Path) -> Result<Secret, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("could not read {}: {e}", file.display()))?;
    Ok(Secret::new(text.lines().next().unwrap_or_default().trim()))
}

/// The path of an app, whose name may be anything that was typed.
pub(super) fn path(app: &str) -> Result<String, String> {
    headwater_api::name::check_app(app).map_err(|e| format!("{app:?} is not the name of an app: {e}"))?;
    Ok(format!("/rest/v2/apps/{app}"))
}

/// Formats apps as a table.
pub(crate) fn table(apps: &[AppSettings]) -> String {
    let head = ["APP", "PUBLISH", "PLAY", "KEY", "STREAMS", "CHANGES"].map(str::to_owned).to_vec();
    let row = |app: &AppSettings| {
        let has_key = app.publish_key.as_ref().is_some_and(Option::is_some);
        vec![
            app.name.clone(),
            app.publish.as_str().to_owned(),
            app.play.as_str().to_owned(),
            if has_key { "yes" } else { "-" }.to_owned(),
            app.streams.len().to_string(),
            app.revision.to_string(),
        ]
    };
    render_table(head, apps.iter().map(row).collect(), &[4, 5])
}

/// Formats the settings of one app, one per line.
pub(crate) fn text(app: &AppSettings) -> String {
    let policy = |policy: Option<Policy>| policy.map_or("as the app", Policy::as_str).to_owned();
    let key = app.publish_key.as_ref().and_then(Option::as_ref).map_or("-", Secret::reveal);
    let yes_or_no = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let list = |items: Vec<String>| if items.is_empty() { "all".to_owned() } else { items.join(", ") };
    let mut rows = vec![
        ("app", app.name.clone()),
        ("publish", app.publish.as_str().to_owned()),
        ("play", app.play.as_str().to_owned()),
        ("publish key", key.to_owned()),
        ("JWT key", yes_or_no(app.has_jwt_key)),
        ("JWKS URL", or_dash(app.jwks_url.as_deref().unwrap_or_default())),
        ("JWKS in private networks", yes_or_no(app.jwks_private)),
        ("hash secret", yes_or_no(app.has_hash_secret)),
        ("networks that may publish", list(app.publish_networks.iter().map(ToString::to_string).collect())),
        ("allowed origins", list(app.allowed_origins.clone())),
        ("sessions end at expiry", yes_or_no(app.end_at_expiry)),
        ("changes", app.revision.to_string()),
    ];
    for (id, stream) in &app.streams {
        rows.push(("stream", format!("{id}: publish {}, play {}", policy(stream.publish), policy(stream.play))));
    }
    rows.iter().fold(String::new(), |mut text, (name, value)| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:<27}{value}", format!("{name}:"));
        text
    })
}

/// Attempts of a change that others keep overtaking.
const MAX_ATTEMPTS: usize = 5;

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::app_arguments::AppCommand;
    use crate::cli::arguments::{Arguments, Command};
    use crate::cli::engine_api::tests::ScriptedEngine;

    fn arguments(line: &str) -> SetArguments {
        arguments_of("set live", line)
    }

    fn arguments_of(command: &str, line: &str) -> SetArguments {
        let words = ["headwaterd", "app"].into_iter().chain(command.split(' ')).chain(line.split_whitespace());
        match Arguments::try_parse_from(words).unwrap().command {
            Command::App { command: AppCommand::Set(arguments) | AppCommand::Create(arguments) } => arguments,
            other => panic!("{other:?}"),
        }
    }

    fn settings(change: impl FnOnce(&mut AppDocument)) -> Value {
        let mut app = AppDocument::open("live");
        change(&mut app);
        serde_json::to_value(AppSettings::from(&app)).unwrap()
    }

    #[tokio::test]
    async fn change_that_somebody_else_overtakes_is_made_to_the_new_settings() {
        let conflict = json!({ "error": "app_changed", "message": "x", "current": {} });
        let engine = ScriptedEngine::start(vec![
            (200, settings(|_| ())),
            (409, conflict),
            (200, settings(|app| (app.revision, app.play) = (1, Policy::Closed))),
            (200, settings(|app| app.revision = 2)),
        ])
        .await;
        let changed = set(&engine.api(), &arguments("--publish closed")).await.unwrap();
        assert_eq!((changed.settings.revision, changed.new_secrets_text().as_str()), (2, ""));
        let received = engine.received();
        let methods: Vec<_> = received.iter().map(|(method, path, _)| format!("{method} {path}")).collect();
        let (get, put) = ("GET /rest/v2/apps/live", "PUT /rest/v2/apps/live");
        assert_eq!(methods, [get, put, get, put]);
        let last = &received[3].2;
        assert_eq!(
            (&last["publish"], &last["play"], &last["revision"]),
            (&json!("closed"), &json!("closed"), &json!(1))
        );
    }

    #[tokio::test]
    async fn policy_key_makes_a_key_only_if_there_is_none() {
        let with_key = |app: &mut AppDocument| app.publish_key = Some(Secret::new("existing"));
        let engine = ScriptedEngine::start(vec![
            (200, settings(|_| ())),
            (200, settings(with_key)),
            (200, settings(with_key)),
            (200, settings(with_key)),
        ])
        .await;
        let first = set(&engine.api(), &arguments("--publish key")).await.unwrap().new_secrets_text();
        let sent = engine.received()[1].2["publish_key"].as_str().unwrap().to_owned();
        assert_eq!(first, format!("new publish key: {sent}\n"));
        let second = set(&engine.api(), &arguments("--publish key")).await.unwrap().new_secrets_text();
        assert_eq!((second.as_str(), &engine.received()[1].2["publish_key"]), ("", &json!("existing")));
    }

    #[tokio::test]
    async fn new_app_needs_a_key_for_publishing_unless_arguments_say_otherwise() {
        let check = async |line: &str, publish: &str, has_key: bool| {
            let missing = json!({ "error": "app_not_found", "message": "There is no such app." });
            let engine = ScriptedEngine::start(vec![(404, missing), (200, settings(|_| ()))]).await;
            let made = create(&engine.api(), &arguments_of("create live", line)).await.unwrap().new_secrets_text();
            let sent = engine.received().remove(1).2;
            assert_eq!((&sent["publish"], &sent["play"]), (&json!(publish), &json!("open")), "{line}");
            let key = sent["publish_key"].as_str();
            assert_eq!(made, key.map(|key| format!("new publish key: {key}\n")).unwrap_or_default(), "{line}");
            assert_eq!(key.is_some(), has_key, "{line}");
        };
        check("", "key", true).await;
        check("--stream cam1 --publish open", "key", true).await;
        check("--publish open", "open", false).await;
        check("--publish closed", "closed", false).await;
    }

    #[test]
    fn policy_gets_the_secret_that_it_lacks() {
        let check = |line: &str, existing: &str, expected: &[&str]| {
            let mut app = AppDocument::open("live");
            app.jwt_key = existing.contains("jwt").then(|| Secret::new("existing"));
            app.hash_secret = existing.contains("hash").then(|| Secret::new("existing"));
            app.jwks_url = existing.contains("jwks").then(|| "https://id.example.com/keys".to_owned());
            let made = apply(&arguments(line), &mut AppSettings::from(&app)).unwrap();
            assert_eq!(made.into_iter().map(|(name, _)| name).collect::<Vec<_>>(), expected, "{line}, {existing}");
        };
        check("--play jwt", "", &["JWT key"]);
        check("--stream cam1 --play jwt", "", &["JWT key"]);
        check("--play jwt", "jwt", &[]);
        check("--play jwt", "jwks", &[]);
        check("--play jwt --jwks-url https://id.example.com/keys", "", &[]);
        check("--play jwt --new-jwt-key", "jwt", &["JWT key"]);
        check("--publish hash --play key", "", &["publish key", "hash secret"]);
        check("--publish hash", "hash", &[]);
        check("--publish open --play one_time_token", "", &[]);
    }

    #[test]
    fn secret_of_a_file_is_used_instead_of_a_new_one() {
        let file = std::env::temp_dir().join(format!("headwaterd-app-key-{:016x}", rand::random::<u64>()));
        std::fs::write(&file, "from-the-file\nsecond line\n").unwrap();
        let mut app = AppSettings::from(&AppDocument::open("live"));
        let line = format!("--publish key --publish-key-file {}", file.display());
        let made = apply(&arguments(&line), &mut app).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(made.is_empty());
        assert_eq!(app.publish_key.unwrap().unwrap().reveal(), "from-the-file");
    }

    #[test]
    fn only_named_settings_change() {
        let mut app = AppSettings::from(&AppDocument::open("live"));
        let line = "--play jwt --jwks-url https://id.example.com/keys --publish-networks 10.0.0.0/8,192.0.2.1 \
                    --allowed-origins https://example.com --end-at-expiry true";
        apply(&arguments(line), &mut app).unwrap();
        assert_eq!((app.publish, app.play, app.end_at_expiry), (Policy::Open, Policy::Jwt, true));
        assert_eq!(app.publish_networks.len(), 2);
        apply(&arguments("--stream cam.1 --publish closed"), &mut app).unwrap();
        assert_eq!((app.publish, app.streams["cam.1"].publish), (Policy::Open, Some(Policy::Closed)));
        let shown = text(&app);
        assert!(shown.contains("stream:                    cam.1: publish closed, play as the app\n"), "{shown}");
        apply(&arguments("--stream cam.1 --inherit"), &mut app).unwrap();
        assert!(app.streams.is_empty() && app.jwks_url.is_some());
        assert!(apply(&arguments("--stream cam.1"), &mut app).is_err());
    }

    #[test]
    fn table_shows_policies_but_no_key() {
        let mut app = AppDocument::open("live");
        (app.publish, app.publish_key, app.revision) = (Policy::Key, Some(Secret::new("hunter22")), 12);
        let shown = table(&[AppSettings::from(&app)]);
        let expected = "APP   PUBLISH  PLAY  KEY  STREAMS  CHANGES\nlive  key      open  yes        0       12\n";
        assert_eq!(shown, expected);
    }

    #[test]
    fn unknown_policies_and_networks_are_refused_with_the_known_ones() {
        let error = |line: &str| {
            let words = ["headwaterd", "app", "set", "live"].into_iter().chain(line.split_whitespace());
            Arguments::try_parse_from(words).unwrap_err().to_string()
        };
        assert!(error("--publish ajar").contains("one_time_token"));
        assert!(error("--publish-networks 10.0.0.0/33").contains("is not a network"));
        assert!(error("--inherit").contains("--stream"));
    }

    #[test]
    fn help_explains_every_policy() {
        let help = Arguments::try_parse_from(["headwaterd", "app", "set", "--help"]).unwrap_err().to_string();
        for policy in Policy::ALL {
            let lines = help.lines().filter(|line| line.trim_start().starts_with(&format!("- {}:", policy.as_str())));
            assert_eq!(lines.count(), 2, "for --publish and --play: {help}");
        }
    }
}
