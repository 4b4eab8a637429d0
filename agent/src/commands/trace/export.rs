//! `remora trace export`: what the service recorded, as a scenario and its trace.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use remora_env::Scenario;
use remora_env::import::Imported;
use remora_env::trace::Record;

use remora_proto::v1 as wire;
use remora_proto::v1::cluster_service_client::ClusterServiceClient;

use crate::client::{ServerArgs, refused};
use crate::commands::{print, tables};
use crate::service::recording::{Pieces, Span, recording};
use crate::storage::{Error, Options, Storage};

/// Write what the service recorded of a cluster as a scenario and its trace: of a running service, or out of a
/// data folder that no service uses.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Example:\n  remora trace export --cluster city --out recorded.toml\n  remora trace export --data /var/lib/remora --cluster city --from 2026-03-01T00:00:00Z --out recorded.toml"
)]
pub(super) struct Args {
    /// Name of the cluster.
    #[arg(long)]
    cluster: String,
    /// Scenario file to write; the trace goes beside it.
    #[arg(long)]
    out: PathBuf,
    /// Tasks placed at this time or later, as 2026-03-01T10:00:00Z; from the beginning unless given.
    #[arg(long, value_parser = crate::commands::time)]
    from: Option<i64>,
    /// Tasks placed before this time; to the end unless given.
    #[arg(long, value_parser = crate::commands::time)]
    until: Option<i64>,
    /// Data folder of a service that is not running; a running one is asked unless given.
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// PostgreSQL, as postgres://user:password@host/database, where the service keeps its data there.
    #[arg(long, requires = "data")]
    database: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn run(args: &Args, json: bool) -> Result<()> {
    if let (Some(from), Some(until)) = (args.from, args.until)
        && from >= until
    {
        bail!("--until is not after --from: no time is between them");
    }
    let span = Span { from_ms: args.from, until_ms: args.until };
    let recorded = match &args.data {
        Some(folder) => kept(args, folder, span).await?,
        None => asked(args, span).await?,
    };
    finish(&recorded, &args.out, json)
}

/// Reads a data folder.
async fn kept(args: &Args, folder: &Path, span: Span) -> Result<Imported> {
    // Opening would make one.
    if !folder.join("lock").is_file() {
        bail!("--data {} is no data folder of a service", folder.display());
    }
    let options = Options { database_url: args.database.clone(), ..Options::new(folder) };
    let storage = Storage::open(options).await.map_err(|error| match error {
        Error::FolderInUse { .. } | Error::DatabaseInUse => {
            anyhow!("{error}; a running service is asked with --server in place of --data")
        }
        error => error.into(),
    })?;
    let recorded = recording(&storage, &args.cluster, span).await;
    storage.close().await;
    recorded.map_err(|refusal| anyhow!("{refusal}"))
}

/// Asks a running service.
async fn asked(args: &Args, span: Span) -> Result<Imported> {
    let request = wire::ExportTraceRequest {
        cluster_id: args.cluster.clone(),
        from_ms: span.from_ms,
        until_ms: span.until_ms,
    };
    let ask = |wire| {
        let request = request.clone();
        async move { ClusterServiceClient::new(wire).export_trace(request).await }
    };
    let mut answers = args.server.connect().await?.ask(ask).await?;
    let mut pieces = Pieces::default();
    while let Some(piece) = answers.message().await.map_err(refused)? {
        pieces.add(piece);
    }
    pieces.whole().context("the service's answer is not understood: it may be of another version")
}

/// Writes the files and reads them back: what is reported is what a run will see.
fn finish(recorded: &Imported, out: &Path, json: bool) -> Result<()> {
    let trace = recorded.write(out)?;
    Scenario::load(&out.to_string_lossy())?;
    let counted = |kind: fn(&Record) -> bool| recorded.trace.records.iter().filter(|it| kind(it)).count();
    let arrivals = counted(|record| matches!(record, Record::Arrival(_)));
    let decisions = counted(|record| matches!(record, Record::Decision(_)));
    let outcomes = counted(|record| matches!(record, Record::Outcome(_)));
    if json {
        return tables::print_rows(&[serde_json::json!({
            "scenario": out,
            "trace": trace,
            "arrivals": arrivals,
            "decisions": decisions,
            "outcomes": outcomes,
            "notes": recorded.notes,
        })]);
    }
    for note in &recorded.notes {
        print(format_args!("- {note}"))?;
    }
    print(format_args!(
        "\n{} and {}: {arrivals} arrivals, {decisions} decisions, {outcomes} outcomes",
        out.display(),
        trace.display(),
    ))?;
    print(format_args!(
        "next: remora trace calibrate {} --out calibrated.toml\n      remora learn {} --out runs/learnt",
        out.display(),
        out.display()
    ))
}
