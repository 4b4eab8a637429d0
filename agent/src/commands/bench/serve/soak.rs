//! Long load on one service, and what memory it takes meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use remora_proto::v1 as wire;
use remora_proto::v1::cluster_service_client::ClusterServiceClient;
use serde::Serialize;
use tokio::time::interval;

use super::{Args, Load, Process, register};
use crate::client::connect;
use crate::commands::table;

/// Times at which memory is looked at.
const LOOKS: u32 = 60;

/// The service at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Look {
    pub minutes: f64,
    /// Placed so far; each with its outcome.
    pub decisions: i64,
    /// Resident memory of the server.
    pub rss_mb: f64,
}

/// What a soak came to.
#[derive(Clone, Debug, Serialize)]
pub struct Soaked {
    pub nodes: u32,
    pub concurrency: usize,
    pub looks: Vec<Look>,
    /// Resident memory at the end over that after a tenth of the time.
    pub growth: f64,
    pub journal_mb: f64,
}

/// Places tasks and reports their outcomes for so many minutes, on the first of the sizes at the first concurrency,
/// with a journal.
///
/// # Errors
/// When the server does not start, does not answer, or its memory cannot be read.
pub async fn run(args: &Args, minutes: f64) -> Result<Soaked> {
    let (&nodes, &concurrency) =
        args.nodes.first().zip(args.concurrency.first()).context("a soak wants --nodes and --concurrency")?;
    let data = tempfile::tempdir().context("the journal wants a folder")?;
    let folder = data.path().to_str().context("the temporary folder has no name")?;
    let arguments =
        ["serve", "--policy", &args.policy, "--listen", "127.0.0.1:0", "--json", "--data", folder];
    let server = Process::start(&arguments).await?;
    let tasks = Arc::new(register(&server, nodes).await?);
    let load = Load { tasks, concurrency, seconds: 60.0 * minutes, dry_run: false };
    let connections = load.connections(&server).await?;
    let mut cluster = ClusterServiceClient::new(connect(&server.address).await?);
    let mut looks = Vec::new();
    let (began, mut round) = (Instant::now(), std::pin::pin!(load.round(&connections, load.seconds)));
    let mut tick = interval(Duration::from_secs_f64(load.seconds / f64::from(LOOKS)));
    loop {
        tokio::select! {
            ended = &mut round => {
                ended?;
                break;
            }
            _ = tick.tick() => {
                let listed = cluster.list(wire::ListClustersRequest::default()).await?.into_inner();
                let decisions = listed.clusters.first().map_or(0, |cluster| cluster.decisions);
                let minutes = began.elapsed().as_secs_f64() / 60.0;
                looks.push(Look { minutes, decisions, rss_mb: server.rss_mb()? });
            }
        }
    }
    let journal = std::fs::read_dir(data.path())?.filter_map(|entry| entry.ok()?.metadata().ok());
    let journal_mb = journal.map(|file| file.len() as f64 / 1e6).sum();
    let growth = looks[looks.len() - 1].rss_mb / looks[looks.len() / 10].rss_mb;
    Ok(Soaked { nodes, concurrency, looks, growth, journal_mb })
}

/// A line for each tenth of the time, and what it came to.
pub fn show(soaked: &Soaked) -> String {
    let mut shown = table(&["minutes", "decisions", "RSS MB"]);
    let count = soaked.looks.len();
    for look in (0..=10).filter_map(|tenth| soaked.looks.get((tenth * count / 10).min(count - 1))) {
        shown.add_row([
            format!("{:.1}", look.minutes),
            look.decisions.to_string(),
            format!("{:.1}", look.rss_mb),
        ]);
    }
    let Soaked { nodes, concurrency, growth, journal_mb, .. } = soaked;
    format!(
        "{shown}\n{nodes} nodes, {concurrency} at a time, every task placed and its outcome reported. Memory at the \
         end: {growth:.3} of what it\nwas after a tenth of the time. The journal came to {journal_mb:.0} MB."
    )
}
