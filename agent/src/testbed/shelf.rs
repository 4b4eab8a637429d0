//! A node's disk: real files, and the books that say what must go to make room.
//!
//! The books are those of the simulator ([`Cluster`]), so that queues and caches follow the same rules; what takes
//! time, bytes and CPU is real.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use remora_env::cluster::Item;
use remora_env::topology::NodeId;
use remora_env::{Cluster, World};
use tokio::sync::watch;

use super::content::Content;

/// Bytes written at once.
const CHUNK: usize = 1 << 16;

#[derive(Debug)]
pub struct Shelf {
    folder: PathBuf,
    node: NodeId,
    pub cluster: Cluster,
    layers: Vec<String>,
    /// What is there, whole, in which version.
    held: BTreeMap<Item, u32>,
    /// What is on its way; closed when that has ended, well or not.
    pub fetching: BTreeMap<Item, watch::Receiver<()>>,
}

impl Shelf {
    /// The disk as it was left, or, the first time, as the world says it is at the start. Registries are no nodes: theirs
    /// stay empty.
    pub fn open(world: &World, node: Option<NodeId>, folder: &Path) -> io::Result<Shelf> {
        let folder = folder.join("items");
        let cluster = Cluster::new(Arc::clone(&world.topology), Arc::clone(&world.catalogue));
        let layers = world.catalogue.layer_names();
        let (held, fetching) = (BTreeMap::new(), BTreeMap::new());
        let mut shelf = Shelf { folder, node: node.unwrap_or_default(), cluster, layers, held, fetching };
        if shelf.folder.exists() {
            shelf.find()?;
        } else {
            fs::create_dir_all(&shelf.folder)?;
            let initial = world.initial_cluster();
            let layers = (0..world.catalogue.layers.len() as u32).map(Item::Layer);
            let datasets = (0..world.catalogue.datasets.len() as u32).map(Item::Dataset);
            for item in
                layers.chain(datasets).filter(|&item| node.is_some_and(|node| initial.has_item(item, node)))
            {
                shelf.make(item, 0)?;
            }
        }
        Ok(shelf)
    }

    fn find(&mut self) -> io::Result<()> {
        for file in fs::read_dir(&self.folder)? {
            let file = file?;
            match parse(&file.file_name().to_string_lossy()) {
                Some((item, version)) if self.held.get(&item).is_none_or(|&held| held < version) => {
                    self.put(item, version);
                }
                // Older, or cut short.
                _ => fs::remove_file(file.path())?,
            }
        }
        Ok(())
    }

    /// What an item consists of in a version.
    pub fn content(&self, item: Item, version: u32) -> Content {
        let catalogue = &self.cluster.catalogue;
        match item {
            Item::Layer(layer) => {
                Content::of(&self.layers[layer as usize], 0, catalogue.layers[layer as usize].bytes)
            }
            Item::Dataset(dataset) => {
                let dataset = &catalogue.datasets[dataset as usize];
                Content::of(&dataset.name, version, dataset.bytes)
            }
        }
    }

    /// Where an item is kept.
    pub fn path(&self, item: Item, version: u32) -> PathBuf {
        self.folder.join(file_name(item, version))
    }

    /// The version that is there, if it is this one or a later one.
    pub fn held(&self, item: Item, version: u32) -> Option<u32> {
        self.held.get(&item).copied().filter(|&held| held >= version)
    }

    /// Makes an item here: data that appears, a result.
    pub fn make(&mut self, item: Item, version: u32) -> io::Result<Vec<(Item, u64)>> {
        if self.held(item, version).is_some() {
            return Ok(Vec::new());
        }
        let content = self.content(item, version);
        let part = self.folder.join(format!("{}.made", file_name(item, version)));
        let mut file = fs::File::create(&part)?;
        let mut chunk = vec![0; CHUNK];
        let mut offset = 0;
        while offset < content.bytes {
            let length = (content.bytes - offset).min(CHUNK as u64) as usize;
            content.fill(offset, &mut chunk[..length]);
            file.write_all(&chunk[..length])?;
            offset += length as u64;
        }
        fs::rename(part, self.path(item, version))?;
        Ok(self.put(item, version))
    }

    /// Enters an item whose file is there. Returns what had to go for it, with its bytes.
    pub fn put(&mut self, item: Item, version: u32) -> Vec<(Item, u64)> {
        match self.held.insert(item, version) {
            Some(before) if before > version => {
                // A later one came first.
                self.held.insert(item, before);
                remove_file(&self.path(item, version));
                return Vec::new();
            }
            Some(before) if before < version => remove_file(&self.path(item, before)),
            _ => {}
        }
        self.cluster.store(self.node, item, true);
        self.sweep()
    }

    /// Sets room aside for an item that is fetched. An older version goes.
    pub fn reserve(&mut self, item: Item) -> Vec<(Item, u64)> {
        if let Some(version) = self.held.remove(&item) {
            remove_file(&self.path(item, version));
            self.cluster.remove(self.node, item);
        }
        self.cluster.store(self.node, item, false);
        self.sweep()
    }

    /// An item that was to be fetched does not come.
    pub fn forget(&mut self, item: Item) {
        self.cluster.remove(self.node, item);
    }

    /// Removes the files of what the books evicted.
    fn sweep(&mut self) -> Vec<(Item, u64)> {
        let gone: Vec<_> = self.held.iter().map(|(&item, &version)| (item, version)).collect();
        let gone = gone.into_iter().filter(|&(item, _)| !self.cluster.has_item(item, self.node));
        let mut evicted = Vec::new();
        for (item, version) in gone.collect::<Vec<_>>() {
            self.held.remove(&item);
            remove_file(&self.path(item, version));
            evicted.push((item, self.content(item, version).bytes));
        }
        evicted
    }
}

fn remove_file(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, "{} stays", path.display());
        }
        _ => {}
    }
}

fn file_name(item: Item, version: u32) -> String {
    match item {
        Item::Layer(layer) => format!("layer-{layer}@{version}"),
        Item::Dataset(dataset) => format!("dataset-{dataset}@{version}"),
    }
}

fn parse(name: &str) -> Option<(Item, u32)> {
    let (item, version) = name.split_once('@')?;
    let (kind, id) = item.split_once('-')?;
    let (id, version) = (id.parse().ok()?, version.parse().ok()?);
    match kind {
        "layer" => Some((Item::Layer(id), version)),
        "dataset" => Some((Item::Dataset(id), version)),
        _ => None,
    }
}
