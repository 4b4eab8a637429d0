//! `remora serve`: the service.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::error::ErrorKind;
use remora_env::Scenario;
use remora_proto::v1 as wire;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::{cluster, print};
use crate::service::{self, Config};
use crate::storage::{Options, Storage};

/// Serve placements over gRPC until Ctrl-C or SIGTERM.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  remora serve --policy greedy-completion --scenario urban-sensing")]
pub struct Args {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:50051")]
    listen: SocketAddr,
    /// Who decides: a heuristic's name, `pretrained`, or a checkpoint's path.
    #[arg(long, default_value = "pretrained")]
    policy: String,
    /// The dial of requests that do not set it: weight of data moved against response time, 0 to 1.
    #[arg(long, default_value_t = 0.5, value_parser = super::alpha)]
    alpha: f64,
    /// Scenario, built in or a file, whose cluster is registered from the start.
    #[arg(long)]
    scenario: Option<String>,
    /// Seed of policies that draw and of what the scenario leaves to chance.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder in which everything that happens is kept, to go on from after a restart; else nothing is.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Keep it in this PostgreSQL database instead of the folder; `postgres://user:password@host/database`.
    #[arg(long, requires = "data", env = "REMORA_DATABASE", hide_env_values = true)]
    database: Option<String>,
    /// Listen where other machines can reach it, without encryption or passwords.
    #[arg(long)]
    insecure: bool,
}

pub async fn run(args: Args, json: bool) -> anyhow::Result<()> {
    if !args.listen.ip().is_loopback() && !args.insecure {
        let problem = format!(
            "--listen {} can be reached by other machines, and there is no encryption yet: \
             listen on 127.0.0.1, or add --insecure in a network you trust\n",
            args.listen
        );
        return Err(clap::Error::raw(ErrorKind::ValueValidation, problem).into());
    }
    let policy = remora_policies::by_name(&args.policy, args.seed)?;
    let storage = match args.data {
        Some(folder) => {
            let options = Options { database_url: args.database, ..Options::new(folder) };
            Some(Arc::new(Storage::open(options).await?))
        }
        None => None,
    };
    let clusters: Vec<_> = match &args.scenario {
        Some(name) => vec![cluster::of_scenario(&Scenario::load(name)?, None, args.seed)],
        None => Vec::new(),
    };
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}; choose another address with --listen", args.listen))?;
    let address = listener.local_addr()?;
    let stop = stop_signal()?;
    if json {
        print(json!({ "listen": address.to_string(), "policy": policy.name(), "alpha": args.alpha }))?;
    } else {
        print(welcome(address, policy.name(), clusters.first()))?;
    }
    service::run(
        listener,
        stop,
        Config { alpha: args.alpha, seed: args.seed, clusters, storage, ..Config::new(policy) },
    )
    .await
}

/// Where it listens, and what to try next.
fn welcome(address: SocketAddr, policy: &str, cluster: Option<&wire::RegisterClusterRequest>) -> String {
    let next = match cluster.and_then(|request| request.cluster.as_ref()) {
        Some(cluster) => {
            let kind = cluster.task_kinds.first().map_or("KIND", |kind| &kind.name);
            format!("remora place --cluster {} --task {kind} --dry-run --server http://{address}", cluster.id)
        }
        None => format!("remora cluster register urban-sensing --server http://{address}"),
    };
    format!("{policy} places tasks at http://{address} (gRPC; Ctrl-C stops)\ntry: {next}")
}

/// Resolves at Ctrl-C or SIGTERM.
pub(crate) fn stop_signal() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping: requests under way are answered first");
    })
}
