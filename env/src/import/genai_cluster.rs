//! The cluster on which the GenAI requests are replayed: the trace has none.

use std::collections::{BTreeMap, BTreeSet};

use super::ImportError;
use super::edge::wrong_option;
use crate::device::{Arch, LOCALITY, STORAGE};
use crate::scenario::{
    AcceleratorFile, CatalogueFile, DatasetFile, HomeFile, ImageFile, LinkFile, NodesFile, RegistryFile,
    SiteFile, TopologyFile,
};

pub(super) const IMAGE: &str = "diffusion-pipeline";
const STORE: &str = "model-store";
/// What a request sets aside besides its GPU, and what a server has for each of its GPUs, so that
/// GPUs are what runs out. Our assumption.
pub(super) const CPU_MILLIS_PER_GPU: u32 = 8000;
pub(super) const MEMORY_MIB_PER_GPU: u32 = 32 * 1024;
/// Networks within a site and of the store, Mbit/s and ms. Our assumption.
const LAN_MBPS: f64 = 10_000.0;
const LAN_LATENCY_MS: f64 = 0.1;
/// Starting a container whose image is present, seconds: that of the built-in `server`.
const STARTUP_S: f64 = 2.1;

/// The cluster on which the requests are replayed. All of it is assumption; the defaults say why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GenaiOptions {
    /// Edge sites, each behind an uplink of its own.
    pub sites: u32,
    /// GPU servers on each site.
    pub nodes_per_site: u32,
    pub gpus_per_node: u32,
    /// Size of each base model, GB; the trace does not tell them apart.
    pub model_gb: f64,
    /// Size of the serving image, GB.
    pub image_gb: f64,
    /// Disk of each GPU server, GB.
    pub disk_gb: f64,
    /// Capacity of each site's uplink in both directions, Mbit/s.
    pub uplink_mbps: f64,
    /// One-way delay of the uplink, milliseconds.
    pub uplink_latency_ms: f64,
    /// What a byte over the uplink counts as in data moved.
    pub uplink_price: f64,
    /// Recorded gaps between requests are divided by this; execution times are not.
    pub speedup: f64,
}

impl Default for GenaiOptions {
    /// Sixteen GPUs: the recorded requests occupied more (up to 22) for moments only, and 0.4 on
    /// average, so raise `speedup` to study load instead of data. A model is as large as a Stable
    /// Diffusion XL checkpoint and takes 55 s over an uplink, twice a mean execution. Eight of the 86
    /// fit on a server beside the image; the ten most wanted serve 87 % of the requests.
    fn default() -> GenaiOptions {
        GenaiOptions {
            sites: 4,
            nodes_per_site: 4,
            gpus_per_node: 1,
            model_gb: 6.9,
            image_gb: 5.0,
            disk_gb: 64.0,
            uplink_mbps: 1000.0,
            uplink_latency_ms: 10.0,
            uplink_price: 4.0,
            speedup: 1.0,
        }
    }
}

impl GenaiOptions {
    /// Whether the cluster can be built and can run the requests.
    pub(super) fn check(&self) -> Result<(), ImportError> {
        let wrong = |name, value: f64, wanted: &str| Err(wrong_option(name, value, wanted));
        for (name, count) in [
            ("sites", self.sites),
            ("nodes_per_site", self.nodes_per_site),
            ("gpus_per_node", self.gpus_per_node),
        ] {
            if !(1..=1000).contains(&count) {
                return wrong(name, f64::from(count), "want 1 to 1000");
            }
        }
        for (name, value) in [
            ("model_gb", self.model_gb),
            ("image_gb", self.image_gb),
            ("disk_gb", self.disk_gb),
            ("uplink_mbps", self.uplink_mbps),
            ("speedup", self.speedup),
        ] {
            if !(1e-6..=1e6).contains(&value) {
                return wrong(name, value, "want a number from 0.000001 to 1000000");
            }
        }
        for (name, value) in
            [("uplink_latency_ms", self.uplink_latency_ms), ("uplink_price", self.uplink_price)]
        {
            if !(0.0..=1e6).contains(&value) {
                return wrong(name, value, "want a number from 0 to 1000000");
            }
        }
        // In whole GB, with some MB to spare for rounding.
        let needed_gb = (self.model_gb + self.image_gb + 0.01).ceil();
        if self.disk_gb < needed_gb {
            let wanted = format!("want at least {needed_gb}, so that a model and the image fit");
            return wrong("disk_gb", self.disk_gb, &wanted);
        }
        Ok(())
    }

    /// What is assumed, as the trace has no cluster.
    pub(super) fn notes(&self) -> Vec<String> {
        vec![
            format!(
                "assumed, as the trace has no cluster: {} sites, servers on each: {}, gpus in each: {}, GB of disk: {}",
                self.sites, self.nodes_per_site, self.gpus_per_node, self.disk_gb
            ),
            format!(
                "assumed, as the trace has no network: {} Mbit/s, {} ms and price {} to each site, {LAN_MBPS} Mbit/s \
                 and {LAN_LATENCY_MS} ms within",
                self.uplink_mbps, self.uplink_latency_ms, self.uplink_price
            ),
            format!(
                "assumed, as the trace has no sizes: {} GB for each base model, {} GB for the image; \
                 {CPU_MILLIS_PER_GPU} millicores and {MEMORY_MIB_PER_GPU} MiB for each request",
                self.model_gb, self.image_gb
            ),
            format!("recorded gaps between requests are divided by {}", self.speedup),
        ]
    }
}

/// Edge sites with GPU servers; the store of all models and the registry are on the backbone.
pub(super) fn topology(options: &GenaiOptions, models: usize) -> TopologyFile {
    let server = NodesFile {
        accelerator: Some(AcceleratorFile { model: "gpu".to_owned(), count: options.gpus_per_node }),
        ..node("gpu", "gpu-server", options.gpus_per_node, options.disk_gb, (LOCALITY, "edge"))
    };
    // Room for one more, so that no rounding pushes a model out of its home.
    let store_gb = (options.model_gb * (models + 1) as f64).ceil();
    let uplink = LinkFile {
        latency_ms: options.uplink_latency_ms,
        price: options.uplink_price,
        wan: true,
        ..link(options.uplink_mbps)
    };
    TopologyFile {
        registries: vec![RegistryFile { name: "registry".to_owned(), site: None, link: link(LAN_MBPS) }],
        nodes: vec![node(STORE, STORE, 1, store_gb, (STORAGE, ""))],
        sites: vec![SiteFile {
            name: "site".to_owned(),
            count: options.sites,
            uplink,
            nodes: vec![NodesFile { count: options.nodes_per_site, ..server }],
            sites: Vec::new(),
        }],
        ..TopologyFile::default()
    }
}

fn node(name: &str, kind: &str, gpus: u32, disk_gb: f64, (key, value): (&str, &str)) -> NodesFile {
    NodesFile {
        name: name.to_owned(),
        count: 1,
        kind: kind.to_owned(),
        link: link(LAN_MBPS),
        arch: Some(Arch::Amd64),
        cpu_millis: Some(CPU_MILLIS_PER_GPU * gpus),
        memory_mib: Some(f64::from(MEMORY_MIB_PER_GPU) * f64::from(gpus)),
        disk_gb: Some(disk_gb),
        startup_s: Some(STARTUP_S),
        labels: BTreeMap::from([(key.to_owned(), value.to_owned())]),
        ..NodesFile::default()
    }
}

fn link(mbps: f64) -> LinkFile {
    LinkFile { up_mbps: mbps, latency_ms: LAN_LATENCY_MS, ..LinkFile::default() }
}

/// The serving image, and each base model as a dataset at home in the store.
pub(super) fn catalogue(options: &GenaiOptions, models: BTreeSet<String>) -> CatalogueFile {
    let dataset = |name| DatasetFile {
        name,
        count: 1,
        size_mb: (options.model_gb * 1000.0).ceil(),
        home: HomeFile::Nodes(vec![STORE.to_owned()]),
        replicas: 1,
        bucket: String::new(),
    };
    let image = ImageFile {
        name: IMAGE.to_owned(),
        count: 1,
        size_mb: BTreeMap::from([(Arch::Amd64, (options.image_gb * 1000.0).ceil())]),
        ..ImageFile::default()
    };
    CatalogueFile {
        images: vec![image],
        datasets: models.into_iter().map(dataset).collect(),
        tasks: Vec::new(),
    }
}
