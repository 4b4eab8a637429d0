//! Versions and their aliases.

use anyhow::Result;
use remora_proto::v1 as wire;
use serde_json::json;

use super::{client, show};
use crate::client::{ServerArgs, refused};
use crate::commands::{date, print, table};

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// The application's name.
    app: String,
    /// Versions to show.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=1000))]
    limit: i64,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub struct AliasArgs {
    /// The application's name.
    app: String,
    /// `champion`, `candidate` or `shadow`.
    alias: String,
    /// The version; nobody has the alias any more unless given.
    version: Option<i64>,
    /// Why; kept with it.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub struct RollBackArgs {
    /// The application's name.
    app: String,
    /// Why; kept with it.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub struct HistoryArgs {
    /// The application's name.
    app: String,
    /// Of one alias; of all unless given.
    #[arg(long, default_value = "")]
    alias: String,
    /// As it was at a time, such as 2026-03-01T12:00:00Z.
    #[arg(long, value_parser = crate::commands::time)]
    at: Option<i64>,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn list(args: ListArgs, as_json: bool) -> Result<()> {
    let request = wire::ListVersionsRequest { app: args.app, limit: Some(args.limit), number: None };
    let ask = |wire| {
        let request = request.clone();
        async move { client(wire).list_versions(request).await }
    };
    let versions = args.server.connect().await?.ask(ask).await?.versions;
    if as_json {
        return print(json!({ "rows": versions }));
    }
    let mut table = table(&["version", "aliases", "from", "at", "model", "verdict"]);
    for version in versions {
        let from =
            if version.run.is_empty() { format!("registered by {}", version.actor) } else { version.run };
        let verdict = version.verdict.map_or_else(
            || "not judged".to_owned(),
            |verdict| format!("{}: {}", if verdict.passed { "passed" } else { "not passed" }, verdict.reason),
        );
        let model = version.model.get(..12).unwrap_or("none").to_owned();
        let number = version.number.to_string();
        table.add_row([number, version.aliases.join(", "), from, date(version.at_ms), model, verdict]);
    }
    print(table)
}

fn told(app: &wire::App, as_json: bool) -> Result<()> {
    if as_json {
        return print(json!({ "rows": [app] }));
    }
    print(show::told(app, ""))
}

pub async fn alias(args: AliasArgs, as_json: bool) -> Result<()> {
    let AliasArgs { app, alias, version, reason, server } = args;
    let request = wire::SetVersionAliasRequest { app, alias, version, reason };
    let service = server.connect().await?;
    let app = client(service.wire()).set_version_alias(request).await.map_err(refused)?.into_inner();
    told(&app, as_json)
}

pub async fn roll_back(args: RollBackArgs, as_json: bool) -> Result<()> {
    let request = wire::RollBackVersionRequest { app: args.app, reason: args.reason };
    let service = args.server.connect().await?;
    let app = client(service.wire()).roll_back_version(request).await.map_err(refused)?.into_inner();
    told(&app, as_json)
}

pub async fn history(args: HistoryArgs, as_json: bool) -> Result<()> {
    let request =
        wire::VersionHistoryRequest { app: args.app, alias: args.alias, at_ms: args.at, limit: None };
    let ask = |wire| {
        let request = request.clone();
        async move { client(wire).version_history(request).await }
    };
    let changes = args.server.connect().await?.ask(ask).await?.changes;
    if as_json {
        return print(json!({ "rows": changes }));
    }
    let mut table = table(&["since", "alias", "version", "who", "why"]);
    for change in changes {
        let version = change.version.map_or_else(|| "nobody".to_owned(), |version| version.to_string());
        table.add_row([date(change.at_ms), change.alias, version, change.actor, change.reason]);
    }
    print(table)
}
