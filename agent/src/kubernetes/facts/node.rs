//! What a Node object says.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, Taint};
use remora_env::device::STORAGE;
use remora_proto::v1 as wire;

use super::annotation::{self, Map, Named};
use super::{ARCHS, Resources, image_name};

/// Labels of Kubernetes that are read here.
pub const ZONE: &str = "topology.kubernetes.io/zone";
pub const REGION: &str = "topology.kubernetes.io/region";
const INSTANCE_TYPE: &str = "node.kubernetes.io/instance-type";
const ARCH: &str = "kubernetes.io/arch";
/// Of a node that does not tell its disk, bytes.
const DISK_BYTES: i64 = 100_000_000_000;
/// Endings of the names of resources that are accelerators.
const ACCELERATORS: [&str; 4] = ["gpu", "tpu", "npu", "gaudi"];

/// A node, as far as anybody here needs it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    pub name: String,
    /// The object's version; it has not changed where this has not.
    pub version: String,
    pub labels: Map,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub ready: bool,
    pub allocatable: Resources,
    pub max_pods: i64,
    /// None where it is one that the core does not know.
    pub arch: Option<&'static str>,
    pub device_kind: String,
    /// Empty where it is in none.
    pub zone: String,
    pub region: String,
    pub startup_s: Option<f64>,
    pub accelerator: Option<wire::Accelerator>,
    /// Full names of images that it has.
    pub images: BTreeSet<String>,
    /// Their sizes, bytes.
    pub image_sizes: Vec<(String, i64)>,
    pub datasets: Vec<Named>,
    pub warnings: Vec<String>,
}

impl NodeFacts {
    /// Everything that is read of a node.
    pub fn of(node: &Node) -> NodeFacts {
        let mut warnings = Vec::new();
        let labels = node.metadata.labels.clone().unwrap_or_default();
        let annotations = node.metadata.annotations.clone().unwrap_or_default();
        let (spec, status) = (node.spec.clone().unwrap_or_default(), node.status.clone().unwrap_or_default());
        let arch = labels.get(ARCH).or(status.node_info.as_ref().map(|info| &info.architecture));
        let arch = arch.filter(|arch| !arch.is_empty()).map_or("amd64", String::as_str);
        let mut allocatable = Resources::read(status.allocatable.as_ref(), &mut warnings);
        let max_pods = allocatable.extended.remove("pods").unwrap_or(110);
        let noted = annotation::read(&annotations, annotation::DEVICE_KIND, &mut warnings, annotation::name);
        let labelled = [annotation::DEVICE_KIND, INSTANCE_TYPE].into_iter().find_map(|key| labels.get(key));
        let labelled = labelled.filter(|kind| annotation::name(kind).is_ok()).cloned();
        let known = ARCHS.into_iter().find(|known| *known == arch);
        if known.is_none() {
            warnings.push(format!("architecture {arch:?} is unknown to the policies; no pod is placed here"));
        }
        let images = status.images.unwrap_or_default();
        let (images, image_sizes) = images_of(&images);
        let conditions = status.conditions.unwrap_or_default();
        NodeFacts {
            name: node.metadata.name.clone().unwrap_or_default(),
            version: node.metadata.resource_version.clone().unwrap_or_default(),
            taints: spec.taints.unwrap_or_default(),
            unschedulable: spec.unschedulable.unwrap_or(false),
            ready: conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"),
            accelerator: accelerator(&allocatable, &labels),
            allocatable,
            max_pods,
            arch: known,
            device_kind: noted.or(labelled).unwrap_or_else(|| known.unwrap_or_default().to_owned()),
            zone: labels.get(ZONE).cloned().unwrap_or_default(),
            region: labels.get(REGION).cloned().unwrap_or_default(),
            startup_s: annotation::read(&annotations, annotation::STARTUP, &mut warnings, |text| {
                annotation::number(text, 0.0, 1e6)
            }),
            images,
            image_sizes,
            datasets: annotation::read(
                &annotations,
                annotation::DATASETS,
                &mut warnings,
                annotation::datasets,
            )
            .unwrap_or_default(),
            labels,
            warnings,
        }
    }

    /// It holds data and runs no tasks.
    pub fn stores_only(&self) -> bool {
        self.labels.contains_key(STORAGE)
    }

    /// On the wire; None where the core cannot have it.
    pub fn wire(&self, startup_s: f64) -> Option<wire::Node> {
        let skippy = self.labels.iter().filter(|(key, _)| key.contains("skippy.io"));
        Some(wire::Node {
            name: self.name.clone(),
            kind: self.device_kind.clone(),
            arch: self.arch?.to_owned(),
            cpu_millis: self.allocatable.cpu_millis.clamp(1, 1_000_000_000),
            memory_bytes: self.allocatable.memory_bytes.clamp(1, 1_000_000_000_000_000),
            disk_bytes: Some(match self.allocatable.storage_bytes {
                0 => DISK_BYTES,
                bytes => bytes.min(1_000_000_000_000_000),
            }),
            startup_s: Some(self.startup_s.unwrap_or(startup_s)),
            accelerator: self.accelerator.clone(),
            labels: skippy.map(|(key, value)| (key.clone(), value.clone())).collect(),
        })
    }
}

/// Is this resource an accelerator?
pub fn is_accelerator(resource: &str) -> bool {
    let (owner, own) = resource.split_once('/').unwrap_or(("", resource));
    !owner.is_empty() && (ACCELERATORS.iter().any(|ending| own.ends_with(ending)) || own.starts_with("mig-"))
}

/// The accelerators of which there are most; the core knows one model per node.
fn accelerator(allocatable: &Resources, labels: &Map) -> Option<wire::Accelerator> {
    let offered = allocatable.extended.iter().filter(|(name, count)| is_accelerator(name) && **count > 0);
    let (resource, &count) = offered.max_by_key(|(_, count)| **count)?;
    let product =
        labels.get(&format!("{resource}.product")).filter(|product| annotation::name(product).is_ok());
    let model = product.unwrap_or(resource).clone();
    Some(wire::Accelerator { model, count: count.min(1000) })
}

fn images_of(
    images: &[k8s_openapi::api::core::v1::ContainerImage],
) -> (BTreeSet<String>, Vec<(String, i64)>) {
    let (mut names, mut sizes) = (BTreeSet::new(), Vec::new());
    for image in images {
        for name in image.names.iter().flatten().filter(|name| name.len() < 400) {
            let name = image_name(name);
            if let Some(bytes) = image.size_bytes {
                sizes.push((name.clone(), bytes.clamp(0, 1_000_000_000_000_000)));
            }
            names.insert(name);
        }
    }
    (names, sizes)
}
