//! Images, datasets and task kinds from the wire.

use std::collections::{BTreeMap, BTreeSet};

use remora_env::catalogue::{Catalogue, Dataset, ExecutionTime, Image, Kind, Layer, Requests};
use remora_env::topology::{Topology, VertexId};
use remora_proto::v1 as wire;

use super::topology::arch;
use super::{Field, Invalid, MAX_BYTES, MAX_S, MAX_TOTAL_BYTES, unique};

const MAX_IMAGES: usize = 100_000;
const MAX_LAYERS: usize = 200;
const MAX_DATASETS: usize = 100_000;
const MAX_KINDS: usize = 10_000;
const MAX_DEVICE_KINDS: usize = 1000;
/// A thousand cores: more than any device has.
const MAX_TASK_CPU_MILLIS: i64 = 1_000_000;
const MAX_ACCELERATORS: i64 = 1000;
/// Routes are kept from every registry and every home to everything: about a gigabyte of them.
const MAX_ROUTES: usize = 50_000_000;

pub(super) fn build(
    at: Field<'_>,
    cluster: &wire::Cluster,
    topology: &Topology,
    vertices: &BTreeMap<String, VertexId>,
) -> Result<Catalogue, Invalid> {
    at.field("images").count(cluster.images.len(), 0..=MAX_IMAGES)?;
    at.field("datasets").count(cluster.datasets.len(), 0..=MAX_DATASETS)?;
    at.field("task_kinds").count(cluster.task_kinds.len(), 1..=MAX_KINDS)?;
    if !cluster.images.is_empty() {
        at.field("registries").count(topology.registries.len(), 1..=usize::MAX)?;
    }
    let mut catalogue = Catalogue::default();
    images(at, cluster, &mut catalogue)?;
    datasets(at, cluster, &mut catalogue, topology, vertices)?;
    let mut names = BTreeMap::new();
    for (index, wire) in cluster.task_kinds.iter().enumerate() {
        let at = at.item("task_kinds", index);
        let name = unique(at.field("name"), &wire.name, index as u32, &mut names)?;
        catalogue.kinds.push(kind(at, name, wire)?);
    }
    sizes(at, &catalogue, topology)?;
    Ok(catalogue)
}

fn images(at: Field<'_>, cluster: &wire::Cluster, catalogue: &mut Catalogue) -> Result<(), Invalid> {
    let (mut names, mut layers) = (BTreeMap::new(), BTreeMap::new());
    for (index, wire) in cluster.images.iter().enumerate() {
        let at = at.item("images", index);
        let name = unique(at.field("name"), &wire.name, index as u32, &mut names)?;
        let mut image = Image { name, ..Image::default() };
        at.field("variants").count(wire.variants.len(), 1..=image.layers.len())?;
        for (index, variant) in wire.variants.iter().enumerate() {
            let at = at.item("variants", index);
            let arch = arch(at.field("arch"), &variant.arch)?;
            if !image.layers[arch as usize].is_empty() {
                return Err(at.field("arch").refuse(format_args!("{:?} is used twice", arch.name())));
            }
            at.field("layers").count(variant.layers.len(), 1..=MAX_LAYERS)?;
            for (index, wire) in variant.layers.iter().enumerate() {
                let at = at.item("layers", index);
                let id = layer(at, wire, &mut layers, &mut catalogue.layers)?;
                if image.layers[arch as usize].contains(&id) {
                    return Err(at.field("name").refuse(format_args!("{:?} is used twice", wire.name)));
                }
                image.layers[arch as usize].push(id);
            }
        }
        catalogue.images.push(image);
    }
    Ok(())
}

/// The layer of that name: known from another image, or new.
fn layer(
    at: Field<'_>,
    wire: &wire::Layer,
    known: &mut BTreeMap<String, u32>,
    layers: &mut Vec<Layer>,
) -> Result<u32, Invalid> {
    let bytes = at.field("bytes").whole(wire.bytes, 0..=MAX_BYTES)?;
    if let Some(&id) = known.get(&wire.name) {
        let before = layers[id as usize].bytes;
        if before != bytes {
            let problem = format_args!("is {bytes}, but another image gives layer {:?} {before}", wire.name);
            return Err(at.field("bytes").refuse(problem));
        }
        return Ok(id);
    }
    let id = layers.len() as u32;
    let name = unique(at.field("name"), &wire.name, id, known)?;
    layers.push(Layer { name, bytes });
    Ok(id)
}

fn datasets(
    at: Field<'_>,
    cluster: &wire::Cluster,
    catalogue: &mut Catalogue,
    topology: &Topology,
    vertices: &BTreeMap<String, VertexId>,
) -> Result<(), Invalid> {
    let mut names = BTreeMap::new();
    for (index, wire) in cluster.datasets.iter().enumerate() {
        let at = at.item("datasets", index);
        let name = unique(at.field("name"), &wire.name, index as u32, &mut names)?;
        at.field("homes").count(wire.homes.len(), 0..=topology.nodes.len())?;
        let mut homes = Vec::with_capacity(wire.homes.len());
        for (index, home) in wire.homes.iter().enumerate() {
            let at = at.item("homes", index);
            let node = node_named(at, home, topology, vertices)?;
            if homes.contains(&node) {
                return Err(at.refuse(format_args!("{home:?} is listed twice")));
            }
            homes.push(node);
        }
        let bytes = at.field("bytes").whole(wire.bytes, 0..=MAX_BYTES)?;
        catalogue.datasets.push(Dataset { name, bytes, homes });
    }
    Ok(())
}

/// The node of that name; nodes are the first vertices.
pub(super) fn node_named(
    at: Field<'_>,
    name: &str,
    topology: &Topology,
    vertices: &BTreeMap<String, VertexId>,
) -> Result<VertexId, Invalid> {
    let node = vertices.get(name).copied().filter(|&vertex| (vertex as usize) < topology.nodes.len());
    node.ok_or_else(|| at.unknown("node", name, topology.nodes.iter().map(|node| node.name.as_str())))
}

fn kind(at: Field<'_>, name: String, kind: &wire::TaskKind) -> Result<Kind, Invalid> {
    let accelerators = at.field("accelerators").whole32(kind.accelerators, 0..=MAX_ACCELERATORS)?;
    let least_share = if accelerators > 0 { 1 } else { 0 };
    let models = kind.accelerator_models.iter().enumerate();
    let models = models.map(|(index, model)| at.item("accelerator_models", index).name(model));
    let cpu = |name, millis| at.field(name).whole32(millis, 0..=MAX_TASK_CPU_MILLIS);
    let elsewhere = kind.execution_elsewhere_s;
    let elsewhere = elsewhere.map(|mean_s| at.field("execution_elsewhere_s").number(mean_s, 0.0..=MAX_S));
    let execution = execution(at, kind)?;
    if execution.is_empty() && elsewhere.is_none() {
        return Err(at
            .field("execution")
            .refuse("has none, and execution_elsewhere_s is missing: where can it run?"));
    }
    Ok(Kind {
        name,
        requests: Requests {
            cpu_millis: cpu("cpu_millis", kind.cpu_millis)?,
            memory_bytes: at.field("memory_bytes").whole(kind.memory_bytes, 0..=MAX_BYTES)?,
            accelerators,
            accelerator_millis: at
                .field("accelerator_millis")
                .whole32(kind.accelerator_millis, least_share..=1000)?,
            accelerator_models: models.collect::<Result<_, _>>()?,
        },
        cpu_use_millis: cpu("cpu_use_millis", kind.cpu_use_millis)?,
        execution,
        execution_elsewhere: elsewhere.transpose()?.map(ExecutionTime::constant),
        prefers: kind.prefers.clone().into_iter().collect(),
        demands: kind.demands.clone().into_iter().collect(),
        deadline_s: kind.deadline_s.map(|s| at.field("deadline_s").positive(s, MAX_S)).transpose()?,
        priority: kind.priority,
    })
}

fn execution(at: Field<'_>, kind: &wire::TaskKind) -> Result<Vec<(String, ExecutionTime)>, Invalid> {
    at.field("execution").count(kind.execution.len(), 0..=MAX_DEVICE_KINDS)?;
    let mut names = BTreeMap::new();
    let times = kind.execution.iter().enumerate().map(|(index, time)| {
        let at = at.item("execution", index);
        let device = unique(at.field("device_kind"), &time.device_kind, index as u32, &mut names)?;
        let mean_s = at.field("mean_s").number(time.mean_s, 0.0..=MAX_S)?;
        Ok((device, ExecutionTime::constant(mean_s)))
    });
    times.collect()
}

/// Sums stay within their types, and routes within memory.
fn sizes(at: Field<'_>, catalogue: &Catalogue, topology: &Topology) -> Result<(), Invalid> {
    let layers = catalogue.layers.iter().map(|layer| u128::from(layer.bytes));
    let total =
        layers.chain(catalogue.datasets.iter().map(|dataset| u128::from(dataset.bytes))).sum::<u128>();
    if total > u128::from(MAX_TOTAL_BYTES) {
        let problem = format_args!("with the layers have {total} bytes, want at most {MAX_TOTAL_BYTES}");
        return Err(at.field("datasets").refuse(problem));
    }
    let homes: BTreeSet<_> = catalogue.datasets.iter().flat_map(|dataset| &dataset.homes).collect();
    let most = MAX_ROUTES / topology.vertex_count();
    if homes.len() + topology.registries.len() > most {
        let problem = format_args!(
            "have homes on {} nodes, want at most {most} in a network of this size",
            homes.len()
        );
        return Err(at.field("datasets").refuse(problem));
    }
    Ok(())
}
