//! From the catalogue of a scenario file to images, datasets and task kinds, and what is where at
//! the start.

use std::collections::BTreeMap;

use rand::{Rng, RngExt};

use super::topology::{member, mib};
use crate::catalogue::{Catalogue, Dataset, ExecutionTime, Image, Kind, Layer, Requests};
use crate::cluster::Item;
use crate::device::Arch;
use crate::measured::{self, Function};
use crate::random::{Purpose, stream};
use crate::scenario::{DatasetFile, ExecutionFile, HomeFile, KindFile, LayerFile, Scenario};
use crate::topology::{NodeId, Topology};

pub(super) fn build_catalogue(scenario: &Scenario, topology: &Topology, seed: u64) -> Catalogue {
    let mut catalogue = Catalogue::default();
    build_images(scenario, &mut catalogue);
    build_datasets(scenario, topology, &mut catalogue, seed);
    catalogue.kinds = scenario.file.catalogue.tasks.iter().map(build_kind).collect();
    catalogue
}

fn build_images(scenario: &Scenario, catalogue: &mut Catalogue) {
    let mut bases: BTreeMap<(String, Arch), u32> = BTreeMap::new();
    let mut named: BTreeMap<String, u32> = BTreeMap::new();
    for family in &scenario.file.catalogue.images {
        for index in 0..family.count {
            let name = member("", &family.name, index, family.count);
            let mut image = Image { name: name.clone(), ..Image::default() };
            for (&arch, layers) in &family.layers {
                let layer = |layer: &LayerFile| {
                    *named.entry(layer.name.clone()).or_insert_with(|| {
                        catalogue
                            .layers
                            .push(Layer { name: layer.name.clone(), bytes: (layer.mb * 1e6) as u64 });
                        catalogue.layers.len() as u32 - 1
                    })
                };
                image.layers[arch as usize] = layers.iter().map(layer).collect();
            }
            for (&arch, &size_mb) in &family.size_mb {
                let layers = &mut catalogue.layers;
                let mut layer = |name: String, share: f64| {
                    layers.push(Layer { name, bytes: (size_mb * share * 1e6) as u64 });
                    layers.len() as u32 - 1
                };
                if family.base_share > 0.0 {
                    let base = (family.base.clone(), arch);
                    let id = *bases.entry(base).or_insert_with(|| {
                        layer(format!("{}:{}", family.base, arch.name()), family.base_share)
                    });
                    image.layers[arch as usize].push(id);
                }
                let own = layer(format!("{name}:{}", arch.name()), 1.0 - family.base_share);
                image.layers[arch as usize].push(own);
            }
            catalogue.images.push(image);
        }
    }
}

fn build_datasets(scenario: &Scenario, topology: &Topology, catalogue: &mut Catalogue, seed: u64) {
    let mut rng = stream(seed, Purpose::Placement, 0);
    let mut buckets: BTreeMap<(String, u32), Vec<NodeId>> = BTreeMap::new();
    for family in &scenario.file.catalogue.datasets {
        for index in 0..family.count {
            let homes = match buckets.get(&(family.bucket.clone(), index)) {
                Some(homes) if !family.bucket.is_empty() => homes.clone(),
                _ => draw_homes(family, topology, &mut rng),
            };
            buckets.insert((family.bucket.clone(), index), homes.clone());
            let name = member("", &family.name, index, family.count);
            catalogue.datasets.push(Dataset { name, bytes: (family.size_mb * 1e6) as u64, homes });
        }
    }
}

pub(crate) fn homes_among(home: &HomeFile, topology: &Topology) -> Vec<NodeId> {
    let nodes = 0..topology.nodes.len() as NodeId;
    let node = |&id: &NodeId| &topology.nodes[id as usize];
    match home {
        HomeFile::Nodes(names) => names.iter().filter_map(|name| topology.node_named(name)).collect(),
        HomeFile::Label(label) => nodes.filter(|id| node(id).label(label).is_some()).collect(),
        HomeFile::Kind(kind) => nodes.filter(|id| node(id).kind == *kind).collect(),
        HomeFile::Anywhere => nodes.collect(),
        HomeFile::Producer => Vec::new(),
    }
}

/// The nodes that keep one dataset of a family, each once.
fn draw_homes(family: &DatasetFile, topology: &Topology, rng: &mut impl Rng) -> Vec<NodeId> {
    let mut candidates = homes_among(&family.home, topology);
    match family.home {
        HomeFile::Nodes(_) | HomeFile::Producer => candidates,
        _ => {
            let replicas = candidates.len().min(family.replicas as usize);
            (0..replicas).map(|_| candidates.swap_remove(rng.random_range(0..candidates.len()))).collect()
        }
    }
}

fn build_kind(file: &KindFile) -> Kind {
    let time = |time: &ExecutionFile| match *time {
        ExecutionFile::Constant { seconds } => ExecutionTime::constant(seconds),
        ExecutionFile::Exponential { mean_s } => ExecutionTime::exponential(mean_s),
        ExecutionFile::LogNormal { shape, loc_s, scale_s, min_s, max_s } => {
            ExecutionTime::log_normal(shape, loc_s, scale_s, min_s, max_s)
        }
    };
    let mut execution: Vec<(String, ExecutionTime)> = Vec::new();
    let named = file.execution.iter().filter(|(device, _)| *device != "any");
    execution.extend(named.map(|(device, file)| (device.clone(), time(file))));
    let measured = file.measured.as_deref().and_then(measured::named);
    for (device, time) in measured.into_iter().flat_map(Function::execution) {
        if !file.execution.contains_key(device) {
            execution.push((device.to_owned(), time));
        }
    }
    Kind {
        name: file.name.clone(),
        requests: Requests {
            cpu_millis: file.cpu_millis,
            memory_bytes: mib(file.memory_mib),
            accelerators: file.accelerators,
            accelerator_millis: file.accelerator_millis,
            accelerator_models: file.accelerator_models.clone(),
        },
        cpu_use_millis: (file.cpu_use_millis)
            .or(measured.map(|function| function.cpu_use_millis))
            .unwrap_or(file.cpu_millis),
        execution,
        execution_elsewhere: file.execution.get("any").map(time),
        prefers: file.prefers.clone().into_iter().collect(),
        demands: file.demands.clone().into_iter().collect(),
        deadline_s: file.deadline_s,
        priority: file.priority,
    }
}

pub(super) fn draw_warm(
    scenario: &Scenario,
    topology: &Topology,
    catalogue: &Catalogue,
    seed: u64,
) -> Vec<(NodeId, Item)> {
    let mut rng = stream(seed, Purpose::Warmth, 0);
    let mut warm = Vec::new();
    for (node, spec) in topology.nodes.iter().enumerate() {
        for image in &catalogue.images {
            // One draw per pair, whatever the share, so that shares can be compared.
            if rng.random::<f64>() < scenario.file.workload.warm_share {
                let layers = image.layers(spec.arch);
                warm.extend(layers.iter().map(|&layer| (node as NodeId, Item::Layer(layer))));
            }
        }
    }
    warm
}
