//! Applications as they stand, and moving them on.

use std::time::Duration;

use anyhow::{Result, bail};
use remora_proto::v1 as wire;
use remora_proto::v1::app_event::Event;
use serde_json::json;
use tokio_stream::StreamExt;

use super::{client, runs, triggers};
use crate::client::{ServerArgs, refused};
use crate::commands::{date, print, table};

#[derive(Debug, clap::Args)]
pub struct AppArgs {
    /// Its name.
    app: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub struct CommandArgs {
    /// Its name.
    app: String,
    /// Why; kept with the move.
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub struct TransitionArgs {
    /// Of one application; of all unless given.
    #[arg(default_value = "")]
    app: String,
    /// Moves to show.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=1000))]
    limit: i64,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub struct WatchArgs {
    /// Of one application; of all unless given.
    #[arg(default_value = "")]
    app: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub struct WaitArgs {
    /// Its name.
    app: String,
    /// Until there is a champion, or this version is it; until it sleeps and has nothing to learn unless given.
    #[arg(long, value_name = "VERSION", num_args = 0..=1, default_missing_value = "0")]
    champion: Option<i64>,
    /// Seconds after which it is an error.
    #[arg(long, default_value_t = 120)]
    within: u64,
    #[command(flatten)]
    server: ServerArgs,
}

/// Versions by alias, for people.
fn aliases(app: &wire::App) -> String {
    let told: Vec<_> = app.aliases.iter().map(|(alias, version)| format!("{alias} {version}")).collect();
    if told.is_empty() { "none".to_owned() } else { told.join(", ") }
}

pub async fn list(server: ServerArgs, as_json: bool) -> Result<()> {
    let ask = |wire| async move { client(wire).list(wire::ListAppsRequest {}).await };
    let apps = server.connect().await?.ask(ask).await?.apps;
    if as_json {
        return print(json!({ "rows": apps }));
    }
    if apps.is_empty() {
        return print("no applications yet; next: remora app register FOLDER");
    }
    let mut table = table(&["app", "state", "since", "versions", "waiting", "next fire"]);
    for app in &apps {
        let next = app.triggers.iter().filter_map(|trigger| trigger.next_ms).min();
        let (waiting, next) = (app.waiting.to_string(), next.map_or_else(|| "—".to_owned(), date));
        table.add_row([&app.name, &app.state, &date(app.since_ms), &aliases(app), &waiting, &next]);
    }
    print(table)
}

pub async fn show(args: AppArgs, as_json: bool) -> Result<()> {
    let service = args.server.connect().await?;
    let name = &args.app;
    let app = service
        .ask(|wire| async move { client(wire).get(wire::GetAppRequest { name: name.clone() }).await })
        .await?;
    if as_json {
        return print(json!({ "rows": [app] }));
    }
    let about = if app.about.is_empty() { String::new() } else { format!(": {}", app.about) };
    print(format_args!("{}{about}\n{} since {}", app.name, app.state, date(app.since_ms)))?;
    print(format_args!("versions: {}", aliases(&app)))?;
    if app.failures > 0 {
        let again = app.retry_ms.map_or_else(String::new, |at| format!("; tried again at {}", date(at)));
        print(format_args!("failures in a row: {}{again}", app.failures))?;
    }
    if !app.triggers.is_empty() {
        print("")?;
        triggers::print_triggers(&app.triggers)?;
    }
    let request =
        wire::ListRunsRequest { app: name.clone(), limit: Some(5), ..wire::ListRunsRequest::default() };
    let recent = service
        .ask(|wire| {
            let request = request.clone();
            async move { client(wire).list_runs(request).await }
        })
        .await?;
    if recent.runs.is_empty() {
        return Ok(());
    }
    print("")?;
    runs::print_runs(&recent.runs)
}

pub async fn command(args: CommandArgs, command: wire::AppCommand, as_json: bool) -> Result<()> {
    let request = wire::CommandAppRequest { name: args.app, command: command.into(), reason: args.reason };
    let ask = |wire| {
        let request = request.clone();
        async move { client(wire).command(request).await }
    };
    let app = args.server.connect().await?.ask(ask).await?;
    if as_json {
        return print(json!({ "rows": [app] }));
    }
    let already = if app.unchanged { " already" } else { "" };
    print(format_args!("{} is {}{already}; versions: {}", app.name, app.state, aliases(&app)))
}

pub async fn transitions(args: TransitionArgs, as_json: bool) -> Result<()> {
    let request = wire::ListTransitionsRequest { app: args.app, limit: Some(args.limit) };
    let ask = |wire| {
        let request = request.clone();
        async move { client(wire).list_transitions(request).await }
    };
    let moves = args.server.connect().await?.ask(ask).await?.transitions;
    if as_json {
        return print(json!({ "rows": moves }));
    }
    let mut table = table(&["at", "app", "from", "to", "cause", "who", "why"]);
    for told in moves {
        let wire::Transition { app, at_ms, from, to, cause, actor, reason, .. } = told;
        table.add_row([date(at_ms), app, from, to, cause, actor, reason]);
    }
    print(table)
}

pub async fn watch(args: WatchArgs, as_json: bool) -> Result<()> {
    let service = args.server.connect().await?;
    let request = wire::WatchAppsRequest { app: args.app };
    let mut events = client(service.wire()).watch_apps(request).await.map_err(refused)?.into_inner();
    while let Some(event) = events.next().await {
        let event = event.map_err(refused)?;
        if as_json {
            print(serde_json::to_string(&event)?)?;
        } else if let Some(told) = &event.event {
            print(format_args!("{}  {}", event.app, told_as(told)))?;
        }
    }
    Ok(())
}

/// An event as a line.
fn told_as(event: &Event) -> String {
    match event {
        Event::Transition(told) => {
            format!("{} → {} ({}, {}: {})", told.from, told.to, told.cause, told.actor, told.reason)
        }
        Event::Run(run) => {
            let node = if run.node.is_empty() { String::new() } else { format!(" on {}", run.node) };
            let why = if run.reason.is_empty() { String::new() } else { format!(": {}", run.reason) };
            format!("run {} ({}) {}{node}{why}", run.id, run.kind, run.status)
        }
        Event::Version(version) => {
            let verdict = version.verdict.as_ref().map_or("not judged yet", |verdict| &verdict.reason);
            format!("version {}: {verdict}", version.number)
        }
        Event::Fire(fire) if fire.skipped.is_empty() => format!("trigger {} fired", fire.trigger),
        Event::Fire(fire) => format!("trigger {}: {}", fire.trigger, fire.skipped),
        Event::Alias(alias) => alias.change.as_ref().map_or_else(String::new, |change| {
            let version =
                change.version.map_or_else(|| "nobody".to_owned(), |version| format!("version {version}"));
            format!("{} is {version} ({}: {})", change.alias, change.actor, change.reason)
        }),
        Event::Missed(missed) => format!("{missed} events were left out"),
    }
}

/// How often an application that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(200);

pub async fn wait(args: WaitArgs) -> Result<()> {
    let service = args.server.connect().await?;
    let name = &args.app;
    let get = |wire| async move { client(wire).get(wire::GetAppRequest { name: name.clone() }).await };
    let waiting = async {
        loop {
            let app = service.ask(get).await?;
            let champion = app.aliases.get("champion").copied();
            let there = match args.champion {
                Some(0) => champion.is_some(),
                Some(version) => champion == Some(version),
                None => app.state == "asleep.idle" && app.calls_waiting == 0,
            };
            if there {
                return Ok::<_, anyhow::Error>(app);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    match tokio::time::timeout(Duration::from_secs(args.within), waiting).await {
        Ok(app) => {
            let app = app?;
            print(format_args!("{} is {}; versions: {}", app.name, app.state, aliases(&app)))
        }
        Err(_) => bail!("not within {} s; see: remora app show {name}, remora app runs {name}", args.within),
    }
}
