//! Data, metrics and triggers.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use remora_proto::v1 as wire;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::client;
use crate::client::{ServerArgs, refused};
use crate::commands::{date, print, table};
use crate::storage::hex;

#[derive(Debug, clap::Args)]
pub struct NotifyArgs {
    /// The application's name.
    app: String,
    /// Files with the data, at most 16 MiB together. Without any, only the notice counts.
    files: Vec<PathBuf>,
    /// Name of this notice: the same again counts once. The contents' hash unless given.
    #[arg(long)]
    key: Option<String>,
    /// Items that came; as many as files unless given.
    #[arg(long)]
    items: Option<i64>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub struct MetricArgs {
    /// The application's name.
    app: String,
    /// The metric's name.
    metric: String,
    #[arg(allow_hyphen_values = true)]
    value: f64,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Of one application; of all unless given.
    #[arg(default_value = "")]
    app: String,
    /// Past fires to show.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(i64).range(1..=1000))]
    limit: i64,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Act {
    /// Now.
    Fire,
    /// Until it is told to go on.
    Pause,
    /// After a pause.
    Resume,
    /// For its times between `--from` and `--until`.
    Backfill,
}

#[derive(Debug, clap::Args)]
pub struct TriggerArgs {
    /// The application's name.
    app: String,
    /// The trigger's name.
    trigger: String,
    act: Act,
    /// Beginning of a backfill, such as 2026-03-01T00:00:00Z.
    #[arg(long, value_parser = crate::commands::time)]
    from: Option<i64>,
    /// Its end, which is not part of it.
    #[arg(long, value_parser = crate::commands::time)]
    until: Option<i64>,
    /// Why; kept with it.
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn notify(args: NotifyArgs, as_json: bool) -> Result<()> {
    let (mut files, mut hash) = (Vec::new(), Sha256::new());
    for path in &args.files {
        let content = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let Some(name) = path.file_name() else { bail!("{} is no file", path.display()) };
        let name = name.to_string_lossy().into_owned();
        hash.update(format!("{name} {}\n", hex(&Sha256::digest(&content))));
        files.push(wire::DataFile { name, content });
    }
    let key = match args.key {
        Some(key) => key,
        None if files.is_empty() => bail!("--key: is missing, and there are no files to name the notice by"),
        None => hex(&hash.finalize()),
    };
    let told = match files.len() {
        0 => "taken".to_owned(),
        1 => "taken: 1 file".to_owned(),
        number => format!("taken: {number} files"),
    };
    let request = wire::NotifyRequest { app: args.app, key, items: args.items, bytes: None, files };
    let ask = |wire| {
        let request = request.clone();
        async move { client(wire).notify(request).await }
    };
    let answer = args.server.connect().await?.ask(ask).await?;
    if as_json {
        return print(json!({ "rows": [answer] }));
    }
    print(if answer.already_known { "known already, counted then" } else { &told })
}

pub async fn metric(args: MetricArgs) -> Result<()> {
    let request = wire::ReportMetricRequest { app: args.app, metric: args.metric, value: args.value };
    client(args.server.connect().await?.wire()).report_metric(request).await.map_err(refused)?;
    Ok(())
}

pub fn print_triggers(triggers: &[wire::Trigger]) -> Result<()> {
    let mut table = table(&["app", "trigger", "next", "fired", "waiting", "last skipped"]);
    for trigger in triggers {
        let next = match (trigger.paused, trigger.next_ms) {
            (true, _) => "paused".to_owned(),
            (false, next) => date(next.unwrap_or_default()),
        };
        let waiting = if trigger.items == 0 { String::new() } else { format!("{} items", trigger.items) };
        let skipped = match trigger.skipped_ms {
            Some(at) => format!("{}: {}", date(at), trigger.skipped),
            None => String::new(),
        };
        table.add_row([
            &trigger.app,
            &trigger.name,
            &next,
            &date(trigger.fired_ms.unwrap_or_default()),
            &waiting,
            &skipped,
        ]);
    }
    print(table)
}

pub async fn list(args: ListArgs, as_json: bool) -> Result<()> {
    let request = wire::ListTriggersRequest {
        app: args.app,
        limit: Some(args.limit),
        ..wire::ListTriggersRequest::default()
    };
    let ask = |wire| {
        let request = request.clone();
        async move { client(wire).list_triggers(request).await }
    };
    let answer = args.server.connect().await?.ask(ask).await?;
    if as_json {
        return print(json!({ "rows": answer.triggers, "fires": answer.fires }));
    }
    print_triggers(&answer.triggers)?;
    if answer.fires.is_empty() {
        return Ok(());
    }
    let mut table = table(&["at", "app", "trigger", "who", "what"]);
    for fire in answer.fires {
        let what = if fire.skipped.is_empty() { "fired".to_owned() } else { fire.skipped };
        table.add_row([date(fire.at_ms), fire.app, fire.trigger, fire.actor, what]);
    }
    print(format_args!("\n{table}"))
}

pub async fn command(args: TriggerArgs, as_json: bool) -> Result<()> {
    let command = match args.act {
        Act::Fire => wire::TriggerCommand::Fire,
        Act::Pause => wire::TriggerCommand::Pause,
        Act::Resume => wire::TriggerCommand::Resume,
        Act::Backfill => wire::TriggerCommand::Backfill,
    };
    let request = wire::CommandTriggerRequest {
        app: args.app,
        trigger: args.trigger,
        command: command.into(),
        from_ms: args.from,
        until_ms: args.until,
        reason: args.reason,
    };
    let service = args.server.connect().await?;
    let answer = client(service.wire()).command_trigger(request).await.map_err(refused)?.into_inner();
    if as_json {
        return print(json!({ "rows": answer.trigger, "skipped": answer.skipped }));
    }
    match (answer.skipped.as_str(), args.act) {
        ("", Act::Fire | Act::Backfill) => print("fired"),
        ("", Act::Pause) => print("paused"),
        ("", Act::Resume) => print("goes on"),
        (why, _) => print(format_args!("nothing was done: {why}")),
    }
}
