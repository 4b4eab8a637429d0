//! Where runs go: Remora's own placement service decides, over the nodes of one registered cluster, and hears how it
//! went. A node's label says which executor runs things there.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use remora_proto::v1 as wire;
use remora_proto::v1::change::Change;
use tonic::Code;

use super::core::Launch;
use super::run::{End, RunKind};
use crate::service::Door;

/// The label of nodes on which applications run; its value names the executor.
pub const EXECUTOR: &str = "remora.dev/executor";
/// Executors.
pub const PROCESS: &str = "process";
pub const KUBERNETES: &str = "kubernetes";
pub const SIMULATED: &str = "simulated";
/// The cluster of this machine alone, which there is where no other is named.
pub const LOCAL: &str = "apps";
/// How long the list of nodes is taken to be true.
const NODES_FOR: Duration = Duration::from_secs(2);
/// What a run that was never seen is expected to take, seconds.
const GUESS_S: f64 = 10.0;
/// Weight of the last run in what the next is expected to take.
const NEWEST: f64 = 0.3;
/// What time and data are measured in on this machine: nothing is moved here, so only their ratio counts.
const REFERENCE_S: f64 = 10.0;
const REFERENCE_BYTES: f64 = 1e8;

/// Where a run goes.
#[derive(Clone, Debug)]
pub struct Place {
    pub node: String,
    pub executor: String,
    pub decision: Option<String>,
    /// Where it is only simulated: how long it is expected to take.
    pub simulated_s: Option<f64>,
}

/// What is known of the cluster.
#[derive(Debug, Default)]
struct Known {
    /// Executor by node, and since when that is known.
    nodes: BTreeMap<String, String>,
    registries: bool,
    datasets: Vec<String>,
    since: Option<Instant>,
    /// What task kinds are expected to take, seconds, and what was told of them.
    kinds: BTreeMap<String, f64>,
    told: BTreeMap<String, wire::TaskKind>,
    images: Vec<String>,
}

/// Access to the placement service.
#[derive(Debug)]
pub struct Placing {
    door: Door,
    cluster: String,
    known: Mutex<Known>,
}

impl Placing {
    /// Decides over the nodes of a cluster.
    pub fn new(door: Door, cluster: String) -> Placing {
        Placing { door, cluster, known: Mutex::default() }
    }

    pub fn door(&self) -> &Door {
        &self.door
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Chooses a node.
    ///
    /// # Errors
    /// When there is none, with the reason.
    pub async fn place(&self, launch: &Launch) -> Result<Place> {
        self.look().await?;
        let among: Vec<String> = {
            let known = self.known();
            let fits = |executor: &str| executor != KUBERNETES || launch.image.is_some();
            known.nodes.iter().filter(|(_, executor)| fits(executor)).map(|(node, _)| node.clone()).collect()
        };
        if among.is_empty() {
            bail!("cluster {:?} has no node with the label {EXECUTOR} for it", self.cluster);
        }
        let (task, changes) = self.task(launch);
        if !changes.is_empty() {
            let update = wire::UpdateClusterRequest {
                cluster_id: self.cluster.clone(),
                changes,
                ..wire::UpdateClusterRequest::default()
            };
            self.door.update(update).await.map_err(|status| anyhow!("{}", status.message()))?;
        }
        let request = wire::PlaceRequest {
            cluster_id: self.cluster.clone(),
            task: Some(task),
            request_id: format!("{} {}", launch.run.id, launch.run.attempt),
            among,
            ..wire::PlaceRequest::default()
        };
        let placed = self.door.place(request).await.map_err(|status| anyhow!("{}", status.message()))?;
        let executor = self.known().nodes.get(&placed.node).cloned().unwrap_or_default();
        let decision = Some(placed.decision_id).filter(|id| !id.is_empty());
        let simulated_s = (executor == SIMULATED).then_some(placed.predicted_completion_s);
        Ok(Place { node: placed.node, executor, decision, simulated_s })
    }

    /// Tells how it went, and remembers how long it took.
    pub async fn report(&self, launch: &Launch, place: &Place, end: &End, took: Duration) {
        let Some(decision) = &place.decision else { return };
        // What was only played took as long as was predicted, and teaches nothing about the next.
        let seconds = place.simulated_s.unwrap_or(took.as_secs_f64());
        if matches!(end, End::Success { .. }) && place.simulated_s.is_none() {
            let mut known = self.known();
            let expected = known.kinds.entry(kind_name(launch)).or_insert(seconds);
            *expected += NEWEST * (seconds - *expected);
        }
        let (failed, reason) = match end {
            End::Success { .. } => (false, String::new()),
            End::Saved => (true, "it gave way to a request".to_owned()),
            End::Refused { reason } | End::Failure { reason, .. } | End::Cancelled { reason } => {
                (true, reason.chars().take(400).collect())
            }
        };
        let report = wire::ReportOutcomeRequest {
            cluster_id: self.cluster.clone(),
            decision_id: decision.clone(),
            failed,
            response_s: (!failed).then_some(seconds),
            phases: (!failed && place.simulated_s.is_none())
                .then(|| wire::Phases { execution_s: Some(seconds), ..wire::Phases::default() }),
            reason,
            ..wire::ReportOutcomeRequest::default()
        };
        if let Err(status) = self.door.report(report).await {
            tracing::warn!(decision, error = status.message(), "an outcome was not taken");
        }
    }

    /// Looks at the cluster, unless that was done just now.
    async fn look(&self) -> Result<()> {
        if self.known().since.is_some_and(|since| since.elapsed() < NODES_FOR) {
            return Ok(());
        }
        let mut got = self.door.get(self.cluster.clone()).await;
        if got.as_ref().is_err_and(|status| status.code() == Code::NotFound) && self.cluster == LOCAL {
            let registered = self.door.register(local_cluster()).await;
            registered.map_err(|status| anyhow!("this machine as a cluster: {}", status.message()))?;
            got = self.door.get(self.cluster.clone()).await;
        }
        let got = got.map_err(|status| anyhow!("cluster {:?}: {}", self.cluster, status.message()))?;
        let cluster = got.cluster.unwrap_or_default();
        let mut known = self.known();
        let label = |node: wire::Node| Some((node.name, node.labels.get(EXECUTOR)?.clone()));
        known.nodes = cluster.nodes.into_iter().filter_map(label).collect();
        known.registries = !cluster.registries.is_empty();
        known.datasets = cluster.datasets.into_iter().map(|dataset| dataset.name).collect();
        known.images = cluster.images.into_iter().map(|image| image.name).collect();
        known.told = cluster.task_kinds.into_iter().map(|kind| (kind.name.clone(), kind)).collect();
        known.since = Some(Instant::now());
        Ok(())
    }

    /// The run as a task, and what the cluster has to be told of it before.
    fn task(&self, launch: &Launch) -> (wire::Task, Vec<wire::Change>) {
        let mut known = self.known();
        let mut changes = Vec::new();
        let name = kind_name(launch);
        let expected_s = *known.kinds.entry(name.clone()).or_insert(GUESS_S);
        let cpu = i64::from(launch.limits.cpu_millis);
        let kind = wire::TaskKind {
            name: name.clone(),
            cpu_millis: Some(cpu),
            cpu_use_millis: Some(cpu),
            memory_bytes: Some(i64::from(launch.limits.memory_mib) << 20),
            execution_elsewhere_s: Some(expected_s),
            ..wire::TaskKind::default()
        };
        let same = |told: &wire::TaskKind| {
            // The cluster knows better than a guess what it takes on its devices.
            if !told.execution.is_empty() {
                return true;
            }
            let told_s = told.execution_elsewhere_s.unwrap_or_default();
            let near = (told_s / expected_s.max(1e-9)).ln().abs() < 0.1;
            near && wire::TaskKind { execution_elsewhere_s: kind.execution_elsewhere_s, ..told.clone() }
                == kind
        };
        if !known.told.get(&name).is_some_and(same) {
            changes.push(wire::Change { change: Some(Change::TaskKind(kind.clone())) });
            known.told.insert(name.clone(), kind);
        }
        let code = launch.definition.code.as_ref().filter(|_| known.registries);
        let image = code.map(|code| format!("{}@{}", launch.run.app, &code.hash[..12]));
        if let (Some(name), Some(code)) = (&image, code)
            && !known.images.contains(name)
        {
            let layer = wire::Layer { name: code.hash.clone(), bytes: Some(code.bytes as i64) };
            let variant =
                |arch: &str| wire::ImageVariant { arch: arch.to_owned(), layers: vec![layer.clone()] };
            let variants = ["amd64", "arm64", "arm"].map(variant).to_vec();
            let told = wire::Image { name: name.clone(), variants };
            changes.push(wire::Change { change: Some(Change::Image(told)) });
            known.images.push(name.clone());
        }
        let inputs = &launch.definition.manifest.datasets;
        let inputs = inputs.iter().filter(|dataset| known.datasets.contains(dataset)).cloned().collect();
        let task = wire::Task { kind: name, image: image.unwrap_or_default(), inputs, outputs: Vec::new() };
        (task, changes)
    }
}

fn kind_name(launch: &Launch) -> String {
    format!("{}/{}", launch.run.app, launch.run.kind)
}

/// This machine as a cluster of one node.
fn local_cluster() -> wire::RegisterClusterRequest {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let arch = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        "arm" => "arm",
        _ => "amd64",
    };
    let node = wire::Node {
        name: "localhost".to_owned(),
        kind: "host".to_owned(),
        arch: arch.to_owned(),
        cpu_millis: 1000 * cores as i64,
        memory_bytes: memory_bytes(),
        disk_bytes: Some(1 << 40),
        startup_s: Some(0.05),
        accelerator: None,
        labels: [(EXECUTOR.to_owned(), PROCESS.to_owned())].into(),
    };
    let link = wire::Link {
        outer: "localhost".to_owned(),
        inner: "store".to_owned(),
        up_bytes_per_s: 1e9,
        down_bytes_per_s: 1e9,
        latency_s: Some(0.0),
        price: Some(1.0),
        ..wire::Link::default()
    };
    let kind = wire::TaskKind {
        name: RunKind::Execute.name().to_owned(),
        cpu_millis: Some(100),
        cpu_use_millis: Some(100),
        memory_bytes: Some(1 << 20),
        execution_elsewhere_s: Some(GUESS_S),
        ..wire::TaskKind::default()
    };
    wire::RegisterClusterRequest {
        cluster: Some(wire::Cluster {
            id: LOCAL.to_owned(),
            reference_response_s: REFERENCE_S,
            reference_moved_bytes: REFERENCE_BYTES,
            nodes: vec![node],
            registries: vec!["store".to_owned()],
            links: vec![link],
            task_kinds: vec![kind],
            ..wire::Cluster::default()
        }),
        facts: None,
    }
}

/// Memory of this machine; a gigabyte where it does not say.
fn memory_bytes() -> i64 {
    let told = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib =
        told.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().split(' ').next()?.parse().ok());
    kib.unwrap_or(1i64 << 20) << 10
}
