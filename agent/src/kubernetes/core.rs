//! What is needed of the core, and nothing more: whoever implements [`Core`] can decide for Kubernetes.

use std::collections::BTreeMap;

use remora_proto::v1 as wire;
use tonic::Status;

/// A part of a cluster that is not any more what was registered. Changes are carried out in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Entered or replaced, with all of its links and what it has on its disk.
    Node {
        node: wire::Node,
        links: Vec<wire::Link>,
        layers: Vec<String>,
    },
    /// Left, with everything placed on it.
    NodeGone(String),
    /// Entered or replaced.
    Switch {
        name: String,
        link: wire::Link,
    },
    Image(wire::Image),
    Dataset(wire::Dataset),
    TaskKind(wire::TaskKind),
    /// What a node has on its disk besides what it is known to have.
    Holds {
        node: String,
        layers: Vec<String>,
    },
    /// A task that somebody else placed.
    Placed {
        node: String,
        task: wire::PlacedTask,
    },
}

/// Who decides, and knows the clusters.
#[tonic::async_trait]
pub trait Core: Send + Sync + 'static {
    async fn register(&self, request: wire::RegisterClusterRequest) -> Result<(), Status>;

    /// The cluster as it could be registered again.
    async fn get(&self, cluster_id: &str) -> Result<wire::RegisterClusterRequest, Status>;

    async fn update(&self, cluster_id: &str, changes: Vec<Change>) -> Result<(), Status>;

    /// Chooses among these nodes only; among all where none is named.
    async fn place(
        &self,
        request: wire::PlaceRequest,
        among: Vec<String>,
    ) -> Result<wire::PlaceResponse, Status>;

    async fn report(&self, request: wire::ReportOutcomeRequest) -> Result<(), Status>;
}

/// Carries out changes on a cluster as it would be registered.
pub fn apply(request: &mut wire::RegisterClusterRequest, changes: Vec<Change>) {
    let cluster = request.cluster.get_or_insert_default();
    let facts = request.facts.get_or_insert_default();
    for change in changes {
        match change {
            Change::Node { node, links, layers } => {
                cluster.links.retain(|link| link.outer != node.name);
                cluster.links.extend(links);
                facts_of(facts, &node.name).layers = layers;
                replace(&mut cluster.nodes, node, |node| &node.name);
            }
            Change::NodeGone(name) => {
                cluster.nodes.retain(|node| node.name != name);
                cluster.links.retain(|link| link.outer != name);
                facts.nodes.retain(|node| node.node != name);
                cluster.datasets.iter_mut().for_each(|dataset| dataset.homes.retain(|home| *home != name));
                facts
                    .datasets
                    .iter_mut()
                    .for_each(|dataset| dataset.holders.retain(|holder| *holder != name));
            }
            Change::Switch { name, link } => {
                if !cluster.switches.contains(&name) {
                    cluster.switches.push(name.clone());
                }
                cluster.links.retain(|link| link.outer != name);
                cluster.links.push(link);
            }
            Change::Image(image) => replace(&mut cluster.images, image, |image| &image.name),
            Change::Dataset(dataset) => {
                // It is at its homes, which may be others than those that had it.
                facts.datasets.retain(|facts| facts.dataset != dataset.name);
                replace(&mut cluster.datasets, dataset, |dataset| &dataset.name);
            }
            Change::TaskKind(kind) => replace(&mut cluster.task_kinds, kind, |kind| &kind.name),
            Change::Holds { node, layers } => {
                let node = facts_of(facts, &node);
                node.layers.extend(layers);
                node.layers.sort_unstable();
                node.layers.dedup();
            }
            Change::Placed { node, task } => facts_of(facts, &node).placed.push(task),
        }
    }
    tidy(cluster, facts);
}

fn facts_of<'a>(facts: &'a mut wire::Facts, node: &str) -> &'a mut wire::NodeFacts {
    let index = facts.nodes.iter().position(|facts| facts.node == node).unwrap_or_else(|| {
        facts.nodes.push(wire::NodeFacts { node: node.to_owned(), ..wire::NodeFacts::default() });
        facts.nodes.len() - 1
    });
    &mut facts.nodes[index]
}

fn replace<T>(all: &mut Vec<T>, new: T, name: impl Fn(&T) -> &String) {
    match all.iter_mut().find(|old| name(old) == name(&new)) {
        Some(old) => *old = new,
        None => all.push(new),
    }
}

/// What refers to nothing is left out, and what does not fit beside what came before it waits.
fn tidy(cluster: &wire::Cluster, facts: &mut wire::Facts) {
    let nodes: BTreeMap<_, _> = cluster.nodes.iter().map(|node| (node.name.as_str(), node)).collect();
    let kinds: BTreeMap<_, _> = cluster.task_kinds.iter().map(|kind| (kind.name.as_str(), kind)).collect();
    facts.nodes.retain(|facts| nodes.contains_key(facts.node.as_str()));
    // Links are numbered anew, and what they carry is measured elsewhere.
    facts.links.clear();
    facts.link_estimates.clear();
    facts.datasets.retain(|dataset| !dataset.holders.is_empty());
    for facts in &mut facts.nodes {
        let Some(node) = nodes.get(facts.node.as_str()) else { continue };
        let (mut cpu, mut memory) = (node.cpu_millis, node.memory_bytes);
        let mut accelerators = node.accelerator.as_ref().map_or(0, |accelerator| accelerator.count);
        for placed in &mut facts.placed {
            let kind = placed.task.as_ref().and_then(|task| kinds.get(task.kind.as_str()));
            let Some(kind) = kind else { continue };
            cpu -= kind.cpu_millis.unwrap_or(0);
            memory -= kind.memory_bytes.unwrap_or(0);
            accelerators -= kind.accelerators;
            placed.queued = cpu < 0 || memory < 0 || accelerators < 0;
            placed.accelerators.clear();
        }
    }
}
