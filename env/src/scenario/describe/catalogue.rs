//! Images, datasets and task kinds as a scenario file says them.

use std::collections::BTreeMap;

use super::{Notes, folded};
use crate::catalogue::{Catalogue, Dataset, Image, Kind, LayerId};
use crate::device::Arch;
use crate::scenario::{CatalogueFile, DatasetFile, ExecutionFile, HomeFile, ImageFile, KindFile, LayerFile};
use crate::time::MOST_S;
use crate::topology::Topology;

const LONG: &str = "execution times above 1e8 s, lowered to it";
const NOWHERE: &str = "images that exist for no architecture, left out";

/// `names` has the file's name of each node.
pub(super) fn describe(
    topology: &Topology,
    catalogue: &Catalogue,
    names: &BTreeMap<String, String>,
    notes: &mut Notes,
) -> CatalogueFile {
    let layers = catalogue.layer_names();
    let images: Vec<_> = catalogue.images.iter().map(|it| image(it, catalogue, &layers)).collect();
    let exists = |image: &ImageFile| !image.layers.is_empty();
    notes.insert(NOWHERE, images.iter().filter(|image| !exists(image)).count());
    let datasets = catalogue.datasets.iter().map(|it| dataset(it, topology, names)).collect();
    CatalogueFile {
        images: images.into_iter().filter(exists).collect(),
        datasets: folded(datasets, |dataset| (&mut dataset.name, &mut dataset.count)),
        tasks: catalogue.kinds.iter().map(|it| kind(it, notes)).collect(),
    }
}

fn image(image: &Image, catalogue: &Catalogue, names: &[String]) -> ImageFile {
    let layer = |&id: &LayerId| LayerFile {
        name: names[id as usize].clone(),
        mb: in_units(catalogue.layers[id as usize].bytes, 1e6),
    };
    let variants = Arch::ALL.into_iter().filter(|&arch| !image.layers(arch).is_empty());
    let layers = variants.map(|arch| (arch, image.layers(arch).iter().map(layer).collect()));
    ImageFile { name: image.name.clone(), count: 1, layers: layers.collect(), ..ImageFile::default() }
}

fn dataset(dataset: &Dataset, topology: &Topology, names: &BTreeMap<String, String>) -> DatasetFile {
    let home = |&node: &u32| names[&topology.nodes[node as usize].name].clone();
    DatasetFile {
        name: dataset.name.clone(),
        count: 1,
        size_mb: in_units(dataset.bytes, 1e6),
        home: match dataset.homes.as_slice() {
            [] => HomeFile::Producer,
            homes => HomeFile::Nodes(homes.iter().map(home).collect()),
        },
        replicas: 1,
        bucket: String::new(),
    }
}

fn kind(kind: &Kind, notes: &mut Notes) -> KindFile {
    let named = kind.execution.iter().map(|(device, time)| (device_kind(device), time));
    let elsewhere = kind.execution_elsewhere.iter().map(|time| (ELSEWHERE.to_owned(), time));
    let execution: BTreeMap<String, ExecutionFile> = named
        .chain(elsewhere)
        .map(|(device, time)| {
            let longest = time.quantile(1.0 - 1e-6);
            *notes.entry(LONG).or_default() += usize::from(longest > MOST_S);
            (device, time.to_file(if longest > MOST_S { MOST_S / longest } else { 1.0 }))
        })
        .collect();
    let requests = &kind.requests;
    KindFile {
        name: kind.name.clone(),
        cpu_millis: requests.cpu_millis,
        cpu_use_millis: Some(kind.cpu_use_millis),
        memory_mib: in_units(requests.memory_bytes, 1024.0 * 1024.0),
        accelerators: requests.accelerators,
        // Of a kind that needs none, any share is as good, but a file wants one.
        accelerator_millis: requests.accelerator_millis.max(1),
        accelerator_models: requests.accelerator_models.clone(),
        execution,
        prefers: kind.prefers.iter().cloned().collect(),
        demands: kind.demands.iter().cloned().collect(),
        deadline_s: kind.deadline_s,
        priority: kind.priority,
        ..KindFile::default()
    }
}

/// What a file calls device kinds that are not listed.
const ELSEWHERE: &str = "any";

/// A device kind's name, which cannot be that of all others.
pub(super) fn device_kind(name: &str) -> String {
    if name == ELSEWHERE { format!("{ELSEWHERE}+") } else { name.to_owned() }
}

/// So many bytes in units, such that reading the file comes to the same bytes.
pub(super) fn in_units(bytes: u64, unit: f64) -> f64 {
    let units = bytes as f64 / unit;
    if ((units * unit) as u64) < bytes { units.next_up() } else { units }
}
