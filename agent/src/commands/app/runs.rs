//! Runs: making them, reading them, repeating them.

use std::io::{Read, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use remora_proto::v1 as wire;
use serde_json::json;
use tokio_stream::StreamExt;

use super::client;
use super::compare::{self, ran_s};
use crate::client::{ServerArgs, Service, refused, whole};
use crate::commands::{bytes, date, print, seconds, table};

#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The application's name.
    app: String,
    /// File with the request; `-` reads it from stdin, and without it the request is empty.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Where the answer goes; to stdout unless given.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Name of this request: the same again is the same request.
    #[arg(long, default_value = "")]
    id: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Of one application; of all unless given.
    #[arg(default_value = "")]
    app: String,
    /// `execute`, `learn` or `evaluate`.
    #[arg(long, default_value = "")]
    kind: String,
    /// `queued`, `launching`, `running`, `paused`, `succeeded`, `failed` or `cancelled`.
    #[arg(long, default_value = "")]
    status: String,
    /// Only those that mention this: ids, nodes, reasons, names and hashes of what they read and wrote.
    #[arg(long, default_value = "", value_name = "TEXT")]
    matching: String,
    /// Runs to show.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=1000))]
    limit: i64,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub struct OneArgs {
    /// The run, as `remora app runs` names it.
    run: String,
    /// Why; kept with it.
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// A run, as `remora app runs` names it.
    old: String,
    /// The run that is compared with it.
    new: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub struct ArtifactArgs {
    /// The run.
    run: String,
    /// Name of what it read or wrote, as `remora app runs --json` lists it.
    name: String,
    /// File to write; stdout unless given.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// The run.
    run: String,
    /// File to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    server: ServerArgs,
}

/// Prints runs as a table, a line each.
pub fn print_runs(runs: &[wire::Run]) -> Result<()> {
    let mut table = table(&["run", "kind", "status", "version", "node", "queued", "took", "cause", "why"]);
    for run in runs {
        table.add_row([
            run.id.clone(),
            run.kind.clone(),
            run.status.clone(),
            run.version.to_string(),
            run.node.clone(),
            date(run.queued_ms),
            ran_s(run).map_or_else(|| "—".to_owned(), seconds),
            run.cause.clone(),
            run.reason.clone(),
        ]);
    }
    print(table)
}

/// Sends a request, waits for its run, and writes the answer.
///
/// # Errors
/// When the service cannot be reached or refuses, the run does not succeed, or a file cannot be read or written.
pub async fn execute(args: RunArgs, as_json: bool) -> Result<()> {
    let mut input = Vec::new();
    match &args.input {
        Some(path) if path.as_os_str() == "-" => {
            std::io::stdin().read_to_end(&mut input).context("cannot read stdin")?;
        }
        Some(path) => {
            input = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        }
        None => {}
    }
    let service = args.server.connect().await?;
    let request = wire::ExecuteRequest { app: args.app, request_id: args.id, input };
    let mut steps = client(service.wire()).execute(request).await.map_err(refused)?.into_inner();
    let (mut last, mut told) = (None, String::new());
    while let Some(step) = steps.next().await {
        let step = step.map_err(refused)?;
        let run = step.run.clone().unwrap_or_default();
        let now = format!("{}: {} {}", step.state, run.id, run.status);
        if now != told && run.ended_ms.is_none() {
            eprintln!("{now}");
            told = now;
        }
        last = Some(step);
    }
    let Some(wire::ExecuteProgress { run, response, .. }) = last else {
        bail!("the service ended before the run did; ask again with the same --id");
    };
    let run = run.unwrap_or_default();
    if run.status != "succeeded" {
        bail!("run {} {}: {}", run.id, run.status, run.reason);
    }
    let answer = response.unwrap_or_default();
    match &args.out {
        Some(path) => {
            write_file(path, &answer)?;
            eprintln!("{}: {} in {}", in_a_line(&run), bytes(answer.len() as f64), path.display());
        }
        None if as_json => {}
        None => std::io::stdout().write_all(&answer).context("cannot write the answer")?,
    }
    if as_json {
        print(json!({ "rows": [run], "response": String::from_utf8_lossy(&answer) }))
    } else {
        Ok(())
    }
}

/// How it went, in a line.
fn in_a_line(run: &wire::Run) -> String {
    let took = ran_s(run).map_or_else(String::new, |took| format!(", {}", seconds(took)));
    format!("{} {} on {}, version {}{took}", run.id, run.status, run.node, run.version)
}

fn write_file(path: &std::path::Path, content: &[u8]) -> Result<()> {
    std::fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

/// Prints the newest runs that fit.
///
/// # Errors
/// When the service cannot be reached or refuses.
pub async fn list(args: ListArgs, as_json: bool) -> Result<()> {
    let ListArgs { app, kind, status, matching, limit, server } = args;
    let request = wire::ListRunsRequest { app, kind, status, before_ms: None, limit: Some(limit), matching };
    let ask = |wire| {
        let request = request.clone();
        async move { client(wire).list_runs(request).await }
    };
    let runs = server.connect().await?.ask(ask).await?.runs;
    if as_json { print(json!({ "rows": runs })) } else { print_runs(&runs) }
}

/// Writes the log of a run to stdout, as long as it goes on.
///
/// # Errors
/// When the service cannot be reached or refuses, or stdout cannot be written.
pub async fn log(args: OneArgs) -> Result<()> {
    let service = args.server.connect().await?;
    let request = wire::GetRunRequest { id: args.run };
    let mut log = client(service.wire()).run_log(request).await.map_err(refused)?.into_inner();
    let mut out = std::io::stdout();
    while let Some(piece) = log.next().await {
        let text = piece.map_err(refused)?.text;
        out.write_all(&text).and_then(|()| out.flush()).context("cannot write the log")?;
    }
    Ok(())
}

/// Has a run stopped.
///
/// # Errors
/// When the service cannot be reached or refuses.
pub async fn cancel(args: OneArgs, as_json: bool) -> Result<()> {
    let request = wire::CancelRunRequest { id: args.run, reason: args.reason };
    let service = args.server.connect().await?;
    let run = client(service.wire()).cancel_run(request).await.map_err(refused)?.into_inner();
    if as_json {
        return print(json!({ "rows": [run] }));
    }
    print(format_args!("{} is told to stop; it is {}", run.id, run.status))
}

async fn get(service: &Service, id: &str) -> Result<wire::Run> {
    let ask = |wire| async move { client(wire).get_run(wire::GetRunRequest { id: id.to_owned() }).await };
    service.ask(ask).await
}

/// How often a run that is awaited is looked at.
const LOOK: std::time::Duration = std::time::Duration::from_millis(200);

/// Has a run done again, waits for its end, and prints what came out otherwise.
///
/// # Errors
/// When the service cannot be reached or refuses.
pub async fn repeat(args: OneArgs, as_json: bool) -> Result<()> {
    let service = args.server.connect().await?;
    let old = get(&service, &args.run).await?;
    let request = wire::RepeatRunRequest { id: args.run, reason: args.reason };
    let mut new = client(service.wire()).repeat_run(request).await.map_err(refused)?.into_inner();
    while new.ended_ms.is_none() {
        tokio::time::sleep(LOOK).await;
        new = get(&service, &new.id).await?;
    }
    let mut rows = compare::came_of(&old, &new);
    rows.retain(|line| !line.same());
    if as_json {
        return print(json!({ "old": old, "new": new, "rows": rows }));
    }
    print(format_args!("{} repeated as {}: {}", old.id, new.id, new.status))?;
    if rows.is_empty() {
        return print("all that it wrote is the same, byte for byte");
    }
    print_lines(&old, &new, rows)
}

/// The version that a run is of, where that is still known.
async fn version(service: &Service, run: &wire::Run) -> Result<Option<wire::Version>> {
    let ask = |wire| {
        let request = compare::of_version(run);
        async move { client(wire).list_versions(request).await }
    };
    // A service that does not know this filter lists others too.
    Ok(service.ask(ask).await?.versions.into_iter().find(|version| version.number == run.version))
}

/// Prints in what two runs differ.
///
/// # Errors
/// When the service cannot be reached or refuses.
pub async fn diff(args: DiffArgs, as_json: bool) -> Result<()> {
    let service = args.server.connect().await?;
    let (old, new) = (get(&service, &args.old).await?, get(&service, &args.new).await?);
    let (before, after) = (version(&service, &old).await?, version(&service, &new).await?);
    let one = |run, version| compare::One { run, version };
    let mut rows = compare::whole(one(&old, before.as_ref()), one(&new, after.as_ref()));
    rows.retain(|line| !line.same());
    if as_json {
        return print(json!({ "old": old, "new": new, "rows": rows }));
    }
    if rows.is_empty() {
        return print("nothing differs");
    }
    print_lines(&old, &new, rows)
}

fn print_lines(old: &wire::Run, new: &wire::Run, lines: Vec<compare::Line>) -> Result<()> {
    let mut table = table(&["what", &old.id, &new.id]);
    for line in lines {
        table.add_row([line.what, line.old, line.new]);
    }
    print(table)
}

/// Writes something that a run read or wrote, to a file or to stdout.
///
/// # Errors
/// When the service cannot be reached or refuses, or it cannot be written.
pub async fn artifact(args: ArtifactArgs) -> Result<()> {
    let service = args.server.connect().await?;
    let request = wire::GetArtifactRequest { run: args.run, name: args.name };
    let answer = client(service.wire()).get_artifact(request).await.map_err(refused)?.into_inner();
    let content = whole(answer).await?;
    match &args.out {
        Some(path) => write_file(path, &content),
        None => std::io::stdout().write_all(&content).context("cannot write it"),
    }
}

/// Writes a run with all that it takes to check and repeat it, as a tar archive.
///
/// # Errors
/// When the service cannot be reached or refuses, or the file cannot be written.
pub async fn export(args: ExportArgs) -> Result<()> {
    let service = args.server.connect().await?;
    let request = wire::GetRunRequest { id: args.run.clone() };
    let answer = client(service.wire()).export_run(request).await.map_err(refused)?.into_inner();
    let content = whole(answer).await?;
    write_file(&args.out, &content)?;
    let (size, path, run) = (bytes(content.len() as f64), args.out.display(), args.run);
    print(format_args!(
        "{path}: {size}; check it with: tar -xf {path} && cd {run} && sha256sum -c SHA256SUMS"
    ))
}

/// Prints what is kept of the runs of each application, in bytes.
///
/// # Errors
/// When the service cannot be reached or refuses.
pub async fn archive(args: ServerArgs, as_json: bool) -> Result<()> {
    let ask = |wire| async move { client(wire).archive(wire::ArchiveRequest {}).await };
    let archive = args.connect().await?.ask(ask).await?;
    let (files, size) = (archive.files, archive.bytes);
    if as_json {
        return print(json!({ "files": files, "bytes": size, "rows": archive.apps }));
    }
    let mut table = table(&["application", "runs", "files", "space, unshared", "kept"]);
    for app in archive.apps {
        let parts = [
            app.keep_runs.map(|runs| format!("{runs} runs")),
            app.keep_days.map(|days| format!("{days} days")),
        ];
        let kept = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let kept = if kept.is_empty() { "all of it".to_owned() } else { kept };
        let (runs, artifacts) = (app.runs.to_string(), app.artifacts.to_string());
        table.add_row([app.app, runs, artifacts, bytes(app.bytes as f64), kept]);
    }
    print(table)?;
    print(format_args!("{files} files, {}; the same contents are kept once", bytes(size as f64)))
}
