//! The other direction: a cluster of this crate as a registration, with every fact that a policy
//! can see.

use std::collections::BTreeMap;

use remora_env::Cluster;
use remora_env::catalogue::{Catalogue, Dataset, DatasetId, Image, ImageId, Kind, LayerId, Task};
use remora_env::cluster::{Item, Lack, TaskId};
use remora_env::device::Arch;
use remora_env::observation::Reference;
use remora_env::topology::{ChannelId, Node, NodeId, Topology, VertexId};
use remora_proto::v1 as wire;

use super::{MAX_S, MAX_TOTAL_BYTES};
use crate::service::books::links::Estimates;

/// The request that registers this cluster as `id`; `decisions` are the ids of those of its tasks
/// whose outcome will be reported.
pub fn registration(
    id: &str,
    cluster: &Cluster,
    reference: Reference,
    decisions: &BTreeMap<TaskId, String>,
) -> wire::RegisterClusterRequest {
    let (topology, catalogue) = (&*cluster.topology, &*cluster.catalogue);
    let layers = catalogue.layer_names();
    wire::RegisterClusterRequest {
        cluster: Some(wire::Cluster {
            id: id.to_owned(),
            reference_response_s: reference.response_s,
            reference_moved_bytes: reference.moved_bytes,
            nodes: topology.nodes.iter().map(node).collect(),
            registries: topology.registries.clone(),
            switches: topology.switches.clone(),
            links: links(topology),
            images: catalogue.images.iter().map(|it| image(it, catalogue, &layers)).collect(),
            datasets: catalogue.datasets.iter().map(|it| dataset(it, topology)).collect(),
            task_kinds: catalogue.kinds.iter().map(kind).collect(),
            peers: topology.peers,
            queue_limit: topology.queue_limit.map(i64::from),
            stale_after_s: None,
        }),
        facts: Some(facts(cluster, &layers, decisions)),
    }
}

fn node(node: &Node) -> wire::Node {
    let accelerator = node.accelerator.as_ref();
    wire::Node {
        name: node.name.clone(),
        kind: node.kind.clone(),
        arch: node.arch.name().to_owned(),
        cpu_millis: node.cpu_millis.into(),
        memory_bytes: node.memory_bytes as i64,
        disk_bytes: Some(node.disk_bytes as i64),
        startup_s: Some(node.startup_s),
        accelerator: accelerator
            .map(|(model, count)| wire::Accelerator { model: model.clone(), count: (*count).into() }),
        labels: node.labels.iter().cloned().collect(),
    }
}

fn links(topology: &Topology) -> Vec<wire::Link> {
    let name = |vertex: VertexId| topology.vertex_name(vertex).to_owned();
    let links = topology.links.iter().map(|link| wire::Link {
        outer: name(link.from),
        inner: name(link.to),
        up_bytes_per_s: link.up_bytes_per_s,
        down_bytes_per_s: link.down_bytes_per_s,
        latency_s: Some(link.delay.mean_s()),
        price: Some(link.price),
        wan: link.wan,
        shared: link.shared,
    });
    links.collect()
}

fn image(image: &Image, catalogue: &Catalogue, names: &[String]) -> wire::Image {
    let layer = |&id: &LayerId| wire::Layer {
        name: names[id as usize].clone(),
        bytes: Some(catalogue.layers[id as usize].bytes as i64),
    };
    let variants = Arch::ALL.iter().filter(|&&arch| !image.layers(arch).is_empty());
    let variants = variants.map(|&arch| wire::ImageVariant {
        arch: arch.name().to_owned(),
        layers: image.layers(arch).iter().map(layer).collect(),
    });
    wire::Image { name: image.name.clone(), variants: variants.collect() }
}

fn dataset(dataset: &Dataset, topology: &Topology) -> wire::Dataset {
    wire::Dataset {
        name: dataset.name.clone(),
        bytes: Some(dataset.bytes as i64),
        homes: node_names(&dataset.homes, topology),
    }
}

fn node_names(nodes: &[NodeId], topology: &Topology) -> Vec<String> {
    nodes.iter().map(|&node| topology.nodes[node as usize].name.clone()).collect()
}

fn kind(kind: &Kind) -> wire::TaskKind {
    let requests = &kind.requests;
    let execution = kind
        .execution
        .iter()
        .map(|(device, time)| wire::ExecutionTime { device_kind: device.clone(), mean_s: Some(time.mean_s) });
    wire::TaskKind {
        name: kind.name.clone(),
        cpu_millis: Some(requests.cpu_millis.into()),
        cpu_use_millis: Some(kind.cpu_use_millis.into()),
        memory_bytes: Some(requests.memory_bytes as i64),
        accelerators: requests.accelerators.into(),
        accelerator_millis: requests.accelerator_millis.into(),
        accelerator_models: requests.accelerator_models.clone(),
        execution: execution.collect(),
        execution_elsewhere_s: kind.execution_elsewhere.map(|time| time.mean_s),
        prefers: kind.prefers.iter().cloned().collect(),
        demands: kind.demands.iter().cloned().collect(),
        priority: kind.priority,
        deadline_s: kind.deadline_s,
    }
}

/// A task in names.
pub fn task(task: &Task, catalogue: &Catalogue) -> wire::Task {
    let dataset = |&id: &DatasetId| catalogue.datasets[id as usize].name.clone();
    wire::Task {
        kind: catalogue.kind(task).name.clone(),
        image: task.image.map(|id| catalogue.images[id as usize].name.clone()).unwrap_or_default(),
        inputs: task.inputs.iter().map(dataset).collect(),
        outputs: task.outputs.iter().map(dataset).collect(),
    }
}

fn facts(cluster: &Cluster, layers: &[String], decisions: &BTreeMap<TaskId, String>) -> wire::Facts {
    let nodes = (0..cluster.nodes.len() as NodeId).map(|node| node_facts(cluster, node, layers, decisions));
    let idle = |facts: &wire::NodeFacts| {
        let holds = facts.layers.is_empty() && facts.arriving.is_empty() && facts.placed.is_empty();
        holds && !facts.unavailable
    };
    let images = cluster.catalogue.images.iter().enumerate().map(|(id, image)| {
        let Lack { waited_s, displaced_bytes } = cluster.image_lack(id as ImageId);
        wire::ImageFacts {
            image: image.name.clone(),
            arrivals_per_s: cluster.image_rate_per_s(id as ImageId),
            waited_s: lacked(waited_s, MAX_S),
            displaced_bytes: lacked(displaced_bytes, MAX_TOTAL_BYTES as f64),
        }
    });
    let known = |facts: &wire::ImageFacts| {
        facts.arrivals_per_s > 0.0 || facts.waited_s.is_some() || facts.displaced_bytes.is_some()
    };
    wire::Facts {
        nodes: nodes.filter(|facts| !idle(facts)).collect(),
        datasets: moved_datasets(cluster),
        links: busy_links(cluster),
        images: images.filter(known).collect(),
        arrivals_per_s: cluster.total_rate_per_s(),
        link_estimates: Vec::new(),
    }
}

/// What is known of links that transfers were measured on.
pub fn link_estimates(topology: &Topology, estimates: &Estimates) -> Vec<wire::LinkEstimate> {
    let known = |channel: ChannelId| {
        let registered = topology.channels()[channel as usize].capacity_bytes_per_s;
        let estimate = estimates.0.get(&channel).copied().unwrap_or_default();
        (estimate.bytes_per_s(registered), estimate.confidence())
    };
    let links = (0..topology.links.len()).map(|link| {
        let [up, down] = topology.link_channels(link);
        let ((up_bytes_per_s, up_confidence), (down_bytes_per_s, down_confidence)) = (known(up), known(down));
        let link = Some(link as i64);
        wire::LinkEstimate { link, up_bytes_per_s, down_bytes_per_s, up_confidence, down_confidence }
    });
    links.filter(|estimate| estimate.up_confidence.max(estimate.down_confidence) > 0.0).collect()
}

fn node_facts(
    cluster: &Cluster,
    node: NodeId,
    layers: &[String],
    decisions: &BTreeMap<TaskId, String>,
) -> wire::NodeFacts {
    let with = |wanted: &dyn Fn(Item) -> bool| {
        let layers = layers.iter().enumerate().filter(|(id, _)| wanted(Item::Layer(*id as LayerId)));
        layers.map(|(_, name)| name.clone()).collect()
    };
    let arriving = |(item, remaining_s, span_s): (Item, f64, f64)| {
        let (layer, dataset) = match item {
            Item::Layer(layer) => (layers[layer as usize].clone(), String::new()),
            Item::Dataset(dataset) => {
                (String::new(), cluster.catalogue.datasets[dataset as usize].name.clone())
            }
        };
        let expected_remaining_s = Some(remaining_s.clamp(-MAX_S, MAX_S));
        wire::Arriving { layer, dataset, expected_remaining_s, expected_span_s: Some(span_s.min(MAX_S)) }
    };
    let placed = cluster.nodes[node as usize].commitments.iter().map(|commitment| wire::PlacedTask {
        task: Some(task(&commitment.task, &cluster.catalogue)),
        expected_remaining_s: Some(commitment.expected_end.signed_s_since(cluster.now).clamp(-MAX_S, MAX_S)),
        queued: !commitment.admitted,
        accelerators: commitment.accelerators.iter().map(|&index| index.into()).collect(),
        decision_id: decisions.get(&commitment.id).cloned().unwrap_or_default(),
        expected_span_s: Some(commitment.span.as_s().min(MAX_S)),
    });
    wire::NodeFacts {
        node: cluster.topology.nodes[node as usize].name.clone(),
        images: Vec::new(),
        layers: with(&|item| cluster.has_item(item, node)),
        arriving_layers: Vec::new(),
        placed: placed.collect(),
        arriving: cluster.arriving_at(node).map(arriving).collect(),
        unavailable: !cluster.nodes[node as usize].accepting,
    }
}

/// Datasets that are elsewhere than at their homes.
fn moved_datasets(cluster: &Cluster) -> Vec<wire::DatasetFacts> {
    let datasets = cluster.catalogue.datasets.iter().enumerate().filter_map(|(id, dataset)| {
        let holders = cluster.holders(id as DatasetId);
        let mut homes = dataset.homes.clone();
        homes.sort_unstable();
        let waited_s = lacked(cluster.waited_for_copy_s(id as DatasetId), MAX_S);
        (holders != homes || waited_s.is_some()).then(|| wire::DatasetFacts {
            dataset: dataset.name.clone(),
            holders: node_names(holders, &cluster.topology),
            waited_s,
        })
    });
    datasets.collect()
}

/// What a lack has cost, where it has.
fn lacked(cost: f64, most: f64) -> Option<f64> {
    (cost > 0.0).then_some(cost.min(most))
}

fn busy_links(cluster: &Cluster) -> Vec<wire::LinkFacts> {
    let links = (0..cluster.topology.links.len()).filter_map(|link| {
        let [up, down] =
            cluster.topology.link_channels(link).map(|channel| i64::from(cluster.channel_load(channel)));
        // Both directions of a shared link are one channel; only their sum is known of it.
        let (up_transfers, down_transfers) =
            if cluster.topology.links[link].shared { (up - up / 2, up / 2) } else { (up, down) };
        (up_transfers + down_transfers > 0).then_some(wire::LinkFacts {
            link: Some(link as i64),
            up_transfers,
            down_transfers,
        })
    });
    links.collect()
}
