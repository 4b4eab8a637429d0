//! Images and data: what is where, and what the core has to learn of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use remora_proto::v1 as wire;
use wire::change::Change;

use super::{Book, LEAST_CPU_MILLIS, short};
use crate::kubernetes::facts::annotation::{self, Named, SKIPPY_STORAGE};
use crate::kubernetes::facts::settings::Layer;
use crate::kubernetes::facts::{ARCHS, NodeFacts, image_name};

impl Book {
    /// What the settings declare is known from the start.
    pub(super) fn declare(&mut self) {
        let images = self.settings.images.iter();
        self.declared = images.map(|(name, image)| (image_name(name), image.clone())).collect();
        let declared: Vec<_> = self.settings.datasets.keys().cloned().collect();
        for name in declared {
            self.dataset(&Named { name, bytes: None });
        }
        let rest = wire::TaskKind {
            name: "pod".to_owned(),
            cpu_millis: Some(0),
            cpu_use_millis: Some(LEAST_CPU_MILLIS),
            memory_bytes: Some(0),
            execution_elsewhere_s: Some(self.settings.execution_s),
            ..wire::TaskKind::default()
        };
        self.kinds.insert(rest.name.clone(), rest);
    }

    /// Layers that pods need and the images on this node have.
    pub(super) fn layers_on(&self, node: &NodeFacts) -> Vec<String> {
        let Some(arch) = node.arch else { return Vec::new() };
        let told = node.images.iter();
        let useful = told.filter(|image| self.parts.contains(*image) || self.declared.contains_key(*image));
        let layers = useful.flat_map(|image| self.layers_of(image, arch)).map(|(name, _)| name);
        let held: BTreeSet<_> = layers.filter(|name| self.layers.contains_key(name)).collect();
        held.into_iter().collect()
    }

    /// Layers of one image and their bytes.
    fn layers_of(&self, image: &str, arch: &str) -> Vec<(String, i64)> {
        let declared = self.declared.get(image);
        let layers = declared.map(|declared| declared.layers.as_slice()).unwrap_or_default();
        if !layers.is_empty() {
            let known = |layer: &Layer| (format!("{}#{arch}", layer.name), quantity(&layer.size));
            return layers.iter().map(known).collect();
        }
        let size = declared.and_then(|declared| declared.size.as_deref()).map(quantity);
        let size = size.or_else(|| self.image_sizes.get(image).copied());
        vec![(format!("{image}#{arch}"), size.unwrap_or_else(|| quantity(&self.settings.image_size)))]
    }

    /// All images of a pod as one, and whether it is new.
    pub(super) fn image(&mut self, names: &[String]) -> (String, Vec<Change>) {
        let name = short(names.join(" + "));
        if names.is_empty() || self.images.contains_key(&name) {
            return (name, Vec::new());
        }
        let exists = |image: &String, arch: &str| {
            let archs =
                self.declared.get(image).map(|declared| declared.archs.as_slice()).unwrap_or_default();
            archs.is_empty() || archs.iter().any(|other| other == arch)
        };
        let archs = ARCHS.into_iter().filter(|arch| names.iter().all(|image| exists(image, arch)));
        let mut image = wire::Image { name: name.clone(), variants: Vec::new() };
        for arch in archs.collect::<Vec<_>>() {
            let layers: BTreeMap<_, _> = names.iter().flat_map(|image| self.layers_of(image, arch)).collect();
            // A layer keeps the size that was known of it first.
            let layers = layers.into_iter().take(200).map(|(name, bytes)| {
                let bytes = *self.layers.entry(name.clone()).or_insert(bytes);
                wire::Layer { name, bytes: Some(bytes) }
            });
            image.variants.push(wire::ImageVariant { arch: arch.to_owned(), layers: layers.collect() });
        }
        if image.variants.is_empty() {
            return (String::new(), Vec::new());
        }
        self.parts.extend(names.iter().cloned());
        self.images.insert(name.clone(), image.clone());
        let mut changes = vec![Change::Image(image)];
        for node in self.nodes.values().filter(|node| names.iter().any(|name| node.images.contains(name))) {
            let layers = self.layers_on(node);
            if !layers.is_empty() {
                changes.push(holds(node, layers));
            }
        }
        (name, changes)
    }

    /// A dataset, and the change if it is new.
    pub(super) fn dataset(&mut self, named: &Named) -> Option<Change> {
        if self.datasets.contains_key(&named.name) {
            return None;
        }
        let dataset = self.described(named);
        self.datasets.insert(dataset.name.clone(), dataset.clone());
        Some(Change::Dataset(dataset))
    }

    /// Size and homes: as the settings say, or the nodes, or at Skippy's storage nodes.
    pub(super) fn described(&self, named: &Named) -> wire::Dataset {
        let declared = self.settings.datasets.get(&named.name);
        let on = |node: &&Arc<NodeFacts>| node.datasets.iter().any(|other| other.name == named.name);
        let keepers: Vec<_> = self.nodes.values().filter(|node| node.arch.is_some()).filter(on).collect();
        let mut homes: Vec<_> = declared.map(|declared| declared.homes.clone()).unwrap_or_default();
        homes.extend(keepers.iter().map(|node| node.name.clone()));
        homes.retain(|home| self.nodes.get(home).is_some_and(|node| node.arch.is_some()));
        if homes.is_empty() {
            let stores = self.nodes.values().filter(|node| node.arch.is_some() && stores(node));
            homes.extend(stores.map(|node| node.name.clone()));
        }
        let mut once = BTreeSet::new();
        homes.retain(|home| once.insert(home.clone()));
        let size = declared.and_then(|declared| declared.size.as_deref()).map(quantity);
        let told = keepers.iter().flat_map(|node| &node.datasets).filter(|other| other.name == named.name);
        let bytes = size.or_else(|| told.filter_map(|other| other.bytes).next()).or(named.bytes);
        let bytes = bytes.unwrap_or_else(|| quantity(&self.settings.dataset_size));
        wire::Dataset { name: named.name.clone(), bytes: Some(bytes), homes }
    }

    /// Datasets that have other homes now that a node came, changed or left.
    pub(super) fn rehomed(&mut self, node: &NodeFacts) -> Vec<Change> {
        let declared = |name: &str| {
            self.settings.datasets.get(name).is_some_and(|declared| declared.homes.contains(&node.name))
        };
        let concerned = |dataset: &&wire::Dataset| {
            stores(node) || dataset.homes.contains(&node.name) || declared(&dataset.name)
        };
        let known = self.datasets.values().filter(concerned);
        let known = known.map(|dataset| Named { name: dataset.name.clone(), bytes: dataset.bytes });
        let named: Vec<_> = known.chain(node.datasets.iter().cloned()).collect();
        let described: Vec<_> = named.iter().map(|named| self.described(named)).collect();
        let changed = described.into_iter().filter_map(|dataset| {
            let before = self.datasets.insert(dataset.name.clone(), dataset.clone());
            (before.as_ref() != Some(&dataset)).then_some(Change::Dataset(dataset))
        });
        changed.collect()
    }
}

/// Layers that a node has.
pub(super) fn holds(node: &NodeFacts, layers: Vec<String>) -> Change {
    let node = node.name.clone();
    Change::NodeStorage(wire::NodeStorage { node, layers, ..wire::NodeStorage::default() })
}

/// It keeps what has no other home.
fn stores(node: &NodeFacts) -> bool {
    node.labels.contains_key(SKIPPY_STORAGE) || node.stores_only()
}

/// Settings were checked when they were read.
fn quantity(text: &str) -> i64 {
    annotation::size_bytes(text).unwrap_or(0)
}
