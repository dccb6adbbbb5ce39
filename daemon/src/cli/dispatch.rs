//! Runs one command, and maps its outcome to an exit code and an error message.

use std::io::Write as _;
use std::path::Path;

use headwater_api::error::{Chain, exit};

use crate::boot::error::BootError;
use crate::boot::node;
use crate::boot::settings::Settings;
use crate::boot::{plan, planner};
use crate::cli::app_arguments::AppCommand;
use crate::cli::arguments::Command;
use crate::cli::engine_api::EngineApi;
use crate::cli::list_arguments::ListArguments;
use crate::cli::plan as show_plan;
use crate::cli::token_arguments::TokenCommand;
use crate::cli::{app, list, token};
use crate::cluster::administrator;
use crate::doctor;
use crate::operator_command::OperatorCommand;

pub(crate) fn dispatch(command: Command) -> Result<(), (u8, String)> {
    let exit_with = |e: BootError| (e.exit_code(), Chain(&e).to_string());
    // One thread: there is little to do, and the kernel kills the engine when the thread that
    // started it ends.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| (exit::UNAVAILABLE, format!("could not start: {e}")))?;
    match command {
        Command::Run { config, engine, command_template } => {
            let command = OperatorCommand::new(command_template, config.as_deref());
            runtime.block_on(node::run(config, engine, command)).map_err(exit_with)
        }
        Command::Password { config, reset } => {
            let plan = runtime.block_on(make_plan(config.as_deref()))?;
            let outcome = runtime.block_on(async {
                if reset { administrator::reset(&plan).await } else { administrator::check(&plan).await }
            });
            print(&outcome.map_err(|e| exit_with(e.into()))?.text());
            Ok(())
        }
        Command::Doctor { config, stream, json } => {
            let settings = Settings::read(config.as_deref()).map_err(|e| exit_with(e.into()))?;
            let findings = runtime.block_on(doctor::run_checks(&settings, stream.as_ref()));
            print(&if json { to_json(&findings)? } else { doctor::to_text(&findings) });
            match doctor::has_no_failure(&findings) {
                true => Ok(()),
                false => Err((exit::UNAVAILABLE, "a check failed".to_owned())),
            }
        }
        Command::Nodes(ListArguments { config, json }) => {
            let plan = runtime.block_on(make_plan(config.as_deref()))?;
            let nodes = runtime.block_on(list::nodes(&plan)).map_err(|e| (exit::UNAVAILABLE, e))?;
            print(&if json { to_json(&nodes)? } else { list::nodes_table(&nodes) });
            Ok(())
        }
        Command::Streams(ListArguments { config, json }) => {
            let plan = runtime.block_on(make_plan(config.as_deref()))?;
            let streams = runtime.block_on(list::streams(&plan)).map_err(|e| (exit::UNAVAILABLE, e))?;
            print(&if json { to_json(&streams)? } else { list::streams_table(&streams) });
            Ok(())
        }
        Command::App { command } => runtime.block_on(dispatch_app(command)),
        Command::Token { command } => runtime.block_on(dispatch_token(command)),
        Command::Plan { config, json } => {
            let settings = Settings::read(config.as_deref()).map_err(|e| exit_with(e.into()))?;
            let (facts, _) = runtime.block_on(planner::fetch_facts(&settings)).map_err(exit_with)?;
            let plan = plan::plan(&facts, &settings).map_err(|e| exit_with(e.into()))?;
            let registry = runtime.block_on(planner::find_cluster_registry(&facts, &plan));
            let text = if json {
                show_plan::to_json(&facts, &plan, registry.as_ref())
                    .map_err(|e| (exit::SOFTWARE, format!("could not print the plan: {e}")))?
            } else {
                show_plan::to_text(&facts, &plan, registry.as_ref())
            };
            print(&text);
            Ok(())
        }
    }
}

async fn dispatch_app(command: AppCommand) -> Result<(), (u8, String)> {
    let unavailable = |e| (exit::UNAVAILABLE, e);
    match command {
        AppCommand::List(ListArguments { config, json }) => {
            let apps = app::list(&find_engine(config.as_deref()).await?).await.map_err(unavailable)?;
            print(&if json { to_json(&apps)? } else { app::table(&apps) });
        }
        AppCommand::Show { app, output: ListArguments { config, json } } => {
            let settings = app::show(&find_engine(config.as_deref()).await?, &app).await.map_err(unavailable)?;
            print(&if json { to_json(&settings)? } else { app::text(&settings) });
        }
        AppCommand::Create(arguments) => {
            let engine = find_engine(arguments.config.as_deref()).await?;
            print_changed(&app::create(&engine, &arguments).await.map_err(unavailable)?, arguments.json)?;
        }
        AppCommand::Set(arguments) => {
            let engine = find_engine(arguments.config.as_deref()).await?;
            print_changed(&app::set(&engine, &arguments).await.map_err(unavailable)?, arguments.json)?;
        }
        AppCommand::Remove { app, config } => {
            app::remove(&find_engine(config.as_deref()).await?, &app).await.map_err(unavailable)?;
        }
    }
    Ok(())
}

/// With JSON, new secrets go to standard error, because the settings do not contain all of them.
fn print_changed(changed: &app::Changed, json: bool) -> Result<(), (u8, String)> {
    if json {
        print_note(&changed.new_secrets_text());
        print(&to_json(&changed.settings)?);
    } else {
        print(&format!("{}{}", changed.new_secrets_text(), app::text(&changed.settings)));
    }
    Ok(())
}

async fn dispatch_token(command: TokenCommand) -> Result<(), (u8, String)> {
    let unavailable = |e| (exit::UNAVAILABLE, e);
    match command {
        TokenCommand::Make(arguments) => {
            let engine = find_engine(arguments.config.as_deref()).await?;
            let made = token::make(&engine, &arguments).await.map_err(unavailable)?;
            print_new_token(&made, arguments.json)?;
        }
        TokenCommand::List { app, output: ListArguments { config, json } } => {
            let tokens = token::list(&find_engine(config.as_deref()).await?, &app).await.map_err(unavailable)?;
            print(&if json { to_json(&tokens)? } else { token::table(&tokens) });
        }
        TokenCommand::Revoke { app, token, config } => {
            token::revoke(&find_engine(config.as_deref()).await?, &app, &token).await.map_err(unavailable)?;
        }
    }
    Ok(())
}

/// Standard output gets the token alone, or JSON, so that a script can take it from there.
fn print_new_token(token: &token::NewTokenReport, json: bool) -> Result<(), (u8, String)> {
    if let Some(warning) = &token.warning {
        print_note(&format!("warning: {warning}"));
    }
    if json {
        print(&to_json(token)?);
        return Ok(());
    }
    print(&token.made.token);
    if let Some(url) = &token.player_url {
        print_note(&format!("player page: {url}"));
    }
    Ok(())
}

/// Finds the engine of this machine.
async fn find_engine(config: Option<&Path>) -> Result<EngineApi, (u8, String)> {
    EngineApi::find(&make_plan(config).await?).map_err(|e| (exit::UNAVAILABLE, e))
}

/// Makes the plan of this machine, for commands that may run while a node runs.
async fn make_plan(file: Option<&Path>) -> Result<plan::Plan, (u8, String)> {
    let exit_with = |e: BootError| (e.exit_code(), Chain(&e).to_string());
    let settings = Settings::read(file).map_err(|e| exit_with(e.into()))?;
    let (facts, _) = planner::fetch_facts(&settings).await.map_err(exit_with)?;
    plan::plan(&facts, &settings).map_err(|e| exit_with(e.into()))
}

fn to_json(value: &impl serde::Serialize) -> Result<String, (u8, String)> {
    serde_json::to_string_pretty(value).map_err(|e| (exit::SOFTWARE, format!("could not print it: {e}")))
}

/// Writes to standard error what a person should know, if it is not empty.
fn print_note(text: &str) {
    if !text.is_empty() {
        let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
    }
}

/// Writes to standard output. Ignores a closed pipe (`| head`).
fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}
