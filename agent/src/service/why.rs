//! Why a task has nowhere to run.

use std::collections::BTreeMap;

use remora_env::Cluster;
use remora_env::catalogue::Task;
use remora_env::device::STORAGE;
use remora_env::topology::NodeId;

/// Counts the nodes by the first thing that keeps the task from them.
pub(super) fn nowhere(cluster: &Cluster, task: &Task) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for node in 0..cluster.nodes.len() as NodeId {
        *counts.entry(obstacle(cluster, task, node)).or_default() += 1;
    }
    let reasons: Vec<_> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    let kind = &cluster.catalogue.kind(task).name;
    format!("no node can run a task of kind {kind:?}: of {} nodes, {}", cluster.nodes.len(), reasons.join("; "))
}

/// Mirrors [`Cluster::can_run`], one condition after the other.
fn obstacle(cluster: &Cluster, task: &Task, node: NodeId) -> String {
    let spec = &cluster.topology.nodes[node as usize];
    let kind = cluster.catalogue.kind(task);
    let requests = &kind.requests;
    let image = task.image.map(|id| (&cluster.catalogue.images[id as usize].name, id));
    let accelerators = spec.accelerator.as_ref().map_or(0, |(_, count)| *count);
    if spec.label(STORAGE).is_some() {
        format!("hold data only (label {STORAGE})")
    } else if kind.execution_on(&spec.kind).is_none() {
        format!("are of kind {:?}, for which it has no execution time", spec.kind)
    } else if let Some((name, _)) = image.filter(|(_, id)| cluster.catalogue.image_bytes(*id, spec.arch).is_none()) {
        format!("are {}, for which image {name:?} does not exist", spec.arch.name())
    } else if requests.cpu_millis > spec.cpu_millis {
        format!("have less CPU than the {} thousandths of a core it requests", requests.cpu_millis)
    } else if requests.memory_bytes > spec.memory_bytes {
        format!("have less memory than the {} bytes it requests", requests.memory_bytes)
    } else if requests.accelerators > accelerators {
        format!("have fewer accelerators than the {} it requests", requests.accelerators)
    } else if requests.accelerators > 0 && !cluster.can_run(task, node) && !fits_disk(cluster, task, node) {
        disk_reason()
    } else if requests.accelerators > 0 {
        format!("have no accelerator of model {}", requests.accelerator_models.join(" or "))
    } else {
        disk_reason()
    }
}
