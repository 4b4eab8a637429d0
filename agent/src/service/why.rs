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
    format!(
        "no node can run a task of kind {kind:?}: of {} nodes, {}",
        cluster.nodes.len(),
        reasons.join("; ")
    )
}

/// The conditions of [`Cluster::can_run`], one after the other; the last one is what is left.
fn obstacle(cluster: &Cluster, task: &Task, node: NodeId) -> String {
    let spec = &cluster.topology.nodes[node as usize];
    let kind = cluster.catalogue.kind(task);
    let requests = &kind.requests;
    let (model, accelerators) = spec.accelerator.as_ref().map_or(("", 0), |(model, count)| (model, *count));
    let models = &requests.accelerator_models;
    let missing = task.image.filter(|&image| cluster.catalogue.image_bytes(image, spec.arch).is_none());
    if spec.label(STORAGE).is_some() {
        format!("hold data only (label {STORAGE})")
    } else if kind.execution_on(&spec.kind).is_none() {
        format!("of kind {:?} have no execution time for it", spec.kind)
    } else if let Some(image) = missing {
        let name = &cluster.catalogue.images[image as usize].name;
        format!("are {}, for which image {name:?} does not exist", spec.arch.name())
    } else if requests.cpu_millis > spec.cpu_millis {
        format!("have less CPU than the {} thousandths of a core it requests", requests.cpu_millis)
    } else if requests.memory_bytes > spec.memory_bytes {
        format!("have less memory than the {} bytes it requests", requests.memory_bytes)
    } else if requests.accelerators > accelerators {
        format!("have fewer accelerators than the {} it requests", requests.accelerators)
    } else if requests.accelerators > 0 && !models.is_empty() && !models.iter().any(|other| other == model) {
        format!("have no accelerator of model {}", models.join(" or "))
    } else {
        "have too small a disk for its image and data".to_owned()
    }
}
