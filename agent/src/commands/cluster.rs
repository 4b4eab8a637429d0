//! `remora cluster`: what the service knows of clusters.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use remora_env::Scenario;
use remora_policies::rollout;
use remora_proto::v1 as wire;
use remora_proto::v1::cluster_service_client::ClusterServiceClient;
use serde_json::{Value, json};

use super::{bytes, print, table};
use crate::client::{ServerArgs, Wire, refused};
use crate::service::{MAX_CLUSTER_BYTES, convert};

/// Register, list, show and remove clusters of a running service.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLE)]
pub enum Command {
    /// Register the cluster of a scenario as it is before the first task arrives.
    #[command(after_help = "Example:\n  remora cluster register urban-sensing --id city")]
    Register(RegisterArgs),
    /// List the registered clusters.
    #[command(after_help = "Example:\n  remora cluster list")]
    List(ServerArgs),
    /// Show the nodes of a cluster with what is free on them.
    #[command(after_help = "Example:\n  remora cluster show city")]
    Show(IdArgs),
    /// Make the service forget a cluster.
    #[command(after_help = "Example:\n  remora cluster remove city")]
    Remove(IdArgs),
}

const EXAMPLE: &str = "Example:
  remora cluster register urban-sensing --id city
  remora cluster list";

#[derive(Debug, Args)]
pub struct RegisterArgs {
    /// Built-in scenario, or the path of a scenario file.
    scenario: String,
    /// Name to register it under; the scenario's own unless given.
    #[arg(long)]
    id: Option<String>,
    /// Seed of what the scenario leaves to chance: where data lives, which images are there.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub struct IdArgs {
    /// The cluster.
    id: String,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(command: Command, json: bool) -> anyhow::Result<()> {
    match command {
        Command::Register(args) => register(args, json).await,
        Command::List(args) => list(args, json).await,
        Command::Show(args) => show(args, json).await,
        Command::Remove(args) => remove(args, json).await,
    }
}

fn client(wire: Wire) -> ClusterServiceClient<Wire> {
    ClusterServiceClient::new(wire).max_decoding_message_size(MAX_CLUSTER_BYTES)
}

/// The request that registers a scenario's cluster before its first task, measured in what
/// `kube-default` does on it.
pub fn of_scenario(scenario: &Scenario, id: Option<String>, seed: u64) -> wire::RegisterClusterRequest {
    let id = id.unwrap_or_else(|| scenario.name().to_owned());
    let cluster = scenario.world(seed).initial_cluster();
    convert::export(&id, &cluster, rollout::reference(scenario), &BTreeMap::new())
}

async fn register(args: RegisterArgs, json: bool) -> anyhow::Result<()> {
    let request = of_scenario(&Scenario::load(&args.scenario)?, args.id, args.seed);
    let ask = |wire| {
        let request = request.clone();
        async move { client(wire).register(request).await }
    };
    let answer = args.server.connect().await?.ask(ask).await?;
    let summary = answer.summary.unwrap_or_default();
    if json {
        return print(json!({ "replaced": answer.replaced, "rows": [summary] }));
    }
    let verb = if answer.replaced { "replaced" } else { "registered" };
    print(format_args!("{verb} {} with {} nodes", summary.id, summary.nodes))
}

async fn list(args: ServerArgs, json: bool) -> anyhow::Result<()> {
    let ask = |wire| async move { client(wire).list(wire::ListClustersRequest {}).await };
    let clusters = args.connect().await?.ask(ask).await?.clusters;
    if json {
        return print(json!({ "rows": clusters }));
    }
    let mut table =
        table(&["cluster", "nodes", "images", "datasets", "task kinds", "running", "queued", "decisions"]);
    for c in &clusters {
        let counts = [c.nodes, c.images, c.datasets, c.task_kinds, c.running, c.queued, c.decisions];
        table.add_row([c.id.clone()].into_iter().chain(counts.map(|count| count.to_string())));
    }
    print(table)
}

async fn show(args: IdArgs, json: bool) -> anyhow::Result<()> {
    let ask = |wire| {
        let request = wire::GetClusterRequest { id: args.id.clone(), live: false };
        async move { client(wire).get(request).await }
    };
    let answer = args.server.connect().await?.ask(ask).await?;
    let cluster = answer.cluster.unwrap_or_default();
    let facts = answer.facts.unwrap_or_default();
    let rows: Vec<Value> = cluster.nodes.iter().map(|node| node_row(&cluster, &facts, node)).collect();
    if json {
        return print(json!({ "id": cluster.id, "rows": rows }));
    }
    let mut table =
        table(&["node", "kind", "arch", "cpu free", "memory free", "running", "queued", "layers"]);
    for row in &rows {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let number = |key: &str| row[key].as_f64().unwrap_or_default();
        table.add_row([
            text("node"),
            text("kind"),
            text("arch"),
            format!("{:.1} of {:.1}", number("cpu_free_millis") / 1e3, number("cpu_millis") / 1e3),
            format!("{} of {}", bytes(number("memory_free_bytes")), bytes(number("memory_bytes"))),
            number("running").to_string(),
            number("queued").to_string(),
            number("layers").to_string(),
        ]);
    }
    print(table)
}

/// A node with what the tasks on it leave free.
fn node_row(cluster: &wire::Cluster, facts: &wire::Facts, node: &wire::Node) -> Value {
    let idle = wire::NodeFacts::default();
    let facts = facts.nodes.iter().find(|facts| facts.node == node.name).unwrap_or(&idle);
    let running: Vec<_> = facts.placed.iter().filter(|placed| !placed.queued).collect();
    let taken = |of: fn(&wire::TaskKind) -> Option<i64>| -> i64 {
        let kinds = running.iter().filter_map(|placed| placed.task.as_ref());
        let kinds = kinds.filter_map(|task| cluster.task_kinds.iter().find(|kind| kind.name == task.kind));
        kinds.filter_map(of).sum()
    };
    json!({
        "node": node.name,
        "kind": node.kind,
        "arch": node.arch,
        "cpu_millis": node.cpu_millis,
        "cpu_free_millis": node.cpu_millis - taken(|kind| kind.cpu_millis),
        "memory_bytes": node.memory_bytes,
        "memory_free_bytes": node.memory_bytes - taken(|kind| kind.memory_bytes),
        "running": running.len(),
        "queued": facts.placed.len() - running.len(),
        "layers": facts.layers.len(),
    })
}

async fn remove(args: IdArgs, json: bool) -> anyhow::Result<()> {
    let request = wire::RemoveClusterRequest { id: args.id.clone() };
    // Sent once: a second time the cluster would be unknown.
    client(args.server.connect().await?.wire()).remove(request).await.map_err(refused)?;
    if json { print(json!({ "removed": args.id })) } else { print(format_args!("removed {}", args.id)) }
}
