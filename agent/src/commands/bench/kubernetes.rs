//! `remora bench kubernetes`: pods per second and CPU per pod on a real control plane, with and without us.

mod way;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde::Serialize;
use serde_json::{Value, json};

use super::serve::cpu_s;
use crate::commands::{print, table, tables};
use crate::kubernetes::control_plane::{Binaries, ControlPlane};
use way::{Running, Way};

#[derive(ClapArgs, Debug)]
#[command(after_help = "Example:
  ETCD=bin/etcd KUBE_APISERVER=bin/kube-apiserver KUBE_SCHEDULER=bin/kube-scheduler remora bench kubernetes --json")]
pub struct Args {
    /// Who decides.
    #[arg(long, default_value = "pretrained")]
    policy: String,
    /// Sizes of the cluster, from small to large.
    #[arg(long, value_delimiter = ',', default_value = "100,1000")]
    nodes: Vec<usize>,
    /// Pods that wait for a scheduler when it starts.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    pods: u32,
    /// How often everything is measured; the medians are shown.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Another extender that knows all nodes, measured too: its filter and its prioritize.
    #[arg(long, value_name = "URL")]
    beside: Option<String>,
    /// Be the extender that answers at once, and say where.
    #[arg(long, hide = true)]
    at_once: bool,
}

/// CPU in milliseconds per pod.
#[derive(Clone, Debug, Serialize)]
struct Row {
    nodes: usize,
    way: &'static str,
    pods_per_s: f64,
    scheduler_cpu_ms: f64,
    extender_cpu_ms: f64,
    apiserver_cpu_ms: f64,
    /// Times that the extender was asked in vain.
    without_advice: u64,
}

/// Requests to the API server at a time.
const AT_ONCE: usize = 32;
/// Share of the pods after which measuring begins.
const WARM_UP: f64 = 0.1;
/// Longest that nothing may happen.
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn run(args: &Args, json: bool) -> Result<()> {
    if args.at_once {
        return way::answer_at_once().await;
    }
    if !args.nodes.is_sorted() || args.nodes.contains(&0) {
        bail!("--nodes wants sizes from small to large, from 1");
    }
    let plane = ControlPlane::start(&Binaries::find()?).await?;
    let (mut rows, mut there) = (Vec::new(), 0);
    for &nodes in &args.nodes {
        let new = stream::iter((there..nodes).map(Ok));
        new.try_for_each_concurrent(AT_ONCE, |number| enter(&plane, number)).await?;
        there = nodes;
        for way in Way::all(args.beside.as_deref()) {
            let mut measured = Vec::new();
            for round in 0..args.rounds {
                let name = way.name();
                tracing::info!(nodes, way = name, round, "measuring");
                measured.push(
                    measure(&plane, &way, args, nodes)
                        .await
                        .with_context(|| format!("{name}, {nodes} nodes"))?,
                );
            }
            rows.push(median_of(&measured));
        }
    }
    if json { tables::print_rows(&rows) } else { print(show(&rows)) }
}

fn median_of(measured: &[Row]) -> Row {
    let of = |value: fn(&Row) -> f64| {
        let mut values: Vec<_> = measured.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2])
    };
    Row {
        pods_per_s: of(|row| row.pods_per_s),
        scheduler_cpu_ms: of(|row| row.scheduler_cpu_ms),
        extender_cpu_ms: of(|row| row.extender_cpu_ms),
        apiserver_cpu_ms: of(|row| row.apiserver_cpu_ms),
        without_advice: measured.iter().map(|row| row.without_advice).sum(),
        ..measured[0].clone()
    }
}

fn show(rows: &[Row]) -> String {
    let header =
        ["nodes", "who", "pods/s", "CPU ms/pod: scheduler", "extender", "API server", "without advice"];
    let mut table = table(&header);
    for row in rows {
        table.add_row([
            row.nodes.to_string(),
            row.way.to_owned(),
            format!("{:.0}", row.pods_per_s),
            format!("{:.2}", row.scheduler_cpu_ms),
            format!("{:.2}", row.extender_cpu_ms),
            format!("{:.2}", row.apiserver_cpu_ms),
            row.without_advice.to_string(),
        ]);
    }
    format!("{table}\nA backlog of pods, from the first tenth of them on. Everything runs on this machine.")
}

fn name(number: usize) -> String {
    format!("node-{number:05}")
}

async fn enter(plane: &ControlPlane, number: usize) -> Result<()> {
    let amounts = json!({ "cpu": "32", "memory": "64Gi", "ephemeral-storage": "100Gi", "pods": "110" });
    let node: Node = serde_json::from_value(json!({
        "metadata": { "name": name(number), "labels": {
            "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux", "kubernetes.io/hostname": name(number),
            "topology.kubernetes.io/zone": format!("zone-{}", number % 5),
        } },
        "status": {
            "capacity": amounts, "allocatable": amounts, "conditions": [{ "type": "Ready", "status": "True" }],
        },
    }))?;
    plane.enter(&node).await
}

fn pod(number: u32, scheduler: &str) -> Value {
    json!({
        "metadata": { "name": format!("pod-{number}"), "labels": { "app": "bench" } },
        "spec": { "schedulerName": scheduler, "restartPolicy": "Never", "containers": [{
            "name": "c", "image": "busybox", "resources": { "requests": { "cpu": "100m", "memory": "64Mi" } },
        }] },
    })
}

async fn measure(plane: &ControlPlane, way: &Way, args: &Args, nodes: usize) -> Result<Row> {
    let pods = Api::<Pod>::namespaced(plane.client.clone(), "default");
    empty(&pods).await?;
    let extender = way.extender(plane, &args.policy, &name(0)).await?;
    create(&pods, args.pods, way.scheduler_name()).await?;
    let in_vain_before = in_vain(extender.as_ref()).await?;
    let scheduler = way.scheduler(plane, extender.as_ref(), &args.policy)?;
    let cpu = || -> Result<[f64; 3]> {
        let advising = extender.as_ref().map_or(Ok(0.0), Running::cpu_s)?;
        Ok([cpu_s(&scheduler)?, advising, cpu_s(&plane.apiserver)?])
    };
    // A watch that is cut begins again.
    let mut seen =
        std::pin::pin!(watcher(pods.clone(), watcher::Config::default()).default_backoff().applied_objects());
    let (mut placed, mut begun) = (BTreeSet::new(), None);
    while placed.len() < args.pods as usize {
        let next = tokio::time::timeout(PATIENCE, seen.next()).await;
        let pod =
            next.ok().flatten().with_context(|| format!("{} pods were placed, then none", placed.len()))?;
        if let Ok(Pod { metadata, spec: Some(spec), .. }) = pod {
            placed.extend(spec.node_name.and(metadata.name));
        }
        if begun.is_none() && placed.len() as f64 >= WARM_UP * f64::from(args.pods) {
            begun = Some((placed.len(), Instant::now(), cpu()?));
        }
    }
    let (first, since, before) = begun.context("no pod was placed")?;
    let (count, elapsed_s) = ((placed.len() - first).max(1) as f64, since.elapsed().as_secs_f64());
    let after = cpu()?;
    let [scheduler_cpu_ms, extender_cpu_ms, apiserver_cpu_ms] =
        [0, 1, 2].map(|part| (after[part] - before[part]) * 1000.0 / count);
    let without_advice = in_vain(extender.as_ref()).await? - in_vain_before;
    let (way, pods_per_s) = (way.name(), count / elapsed_s);
    Ok(Row { nodes, way, pods_per_s, scheduler_cpu_ms, extender_cpu_ms, apiserver_cpu_ms, without_advice })
}

/// Enters pods that wait for this scheduler.
async fn create(pods: &Api<Pod>, count: u32, scheduler: &str) -> Result<()> {
    let new = stream::iter((0..count).map(Ok));
    let create = async |number| -> Result<()> {
        let pod = serde_json::from_value(pod(number, scheduler))?;
        pods.create(&PostParams::default(), &pod).await?;
        Ok(())
    };
    new.try_for_each_concurrent(AT_ONCE, create).await
}

/// How often an extender had no advice.
async fn in_vain(extender: Option<&Running>) -> Result<u64> {
    match extender {
        Some(running) => running.without_advice().await,
        None => Ok(0),
    }
}

/// Deletes all pods.
async fn empty(pods: &Api<Pod>) -> Result<()> {
    let now = DeleteParams::default().grace_period(0);
    while !pods.list_metadata(&ListParams::default().limit(1)).await?.items.is_empty() {
        pods.delete_collection(&now, &ListParams::default()).await?;
    }
    Ok(())
}
