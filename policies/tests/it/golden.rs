//! Skippy against decisions of skippy-core itself: `../shared/data/skippy-golden`, and one more file of
//! that format where `REMORA_SKIPPY_GOLDEN` names it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use remora_env::catalogue::{
    Catalogue, Dataset, ExecutionTime, Image, Kind, Layer, Requests, Task, numbered,
};
use remora_env::cluster::{Expected, Item};
use remora_env::device::Arch;
use remora_env::observation::Reference;
use remora_env::power::Power;
use remora_env::topology::{Delay, Link, Node, Topology};
use remora_env::{Cluster, Observation, Time};
use remora_policies::choose;
use remora_policies::heuristics::Skippy;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    priorities: String,
    percentage_of_nodes_to_score: u32,
    nodes: Vec<GoldenNode>,
    bandwidth_rule: String,
    images: BTreeMap<String, BTreeMap<String, u64>>,
    storage: Vec<StoredItem>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct GoldenNode {
    name: String,
    cpu_millis: u32,
    memory: u64,
    zone: String,
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct StoredItem {
    bucket: String,
    name: String,
    size: u64,
    nodes: Vec<String>,
}

#[derive(Deserialize)]
struct Step {
    image: String,
    #[serde(default)]
    requests: BTreeMap<String, u64>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    start_index: usize,
    host: Option<String>,
    feasible: usize,
    needed_images: Option<Vec<String>>,
    feasible_nodes: Option<Vec<String>>,
    scores: Option<BTreeMap<String, PriorityScores>>,
}

#[derive(Deserialize)]
struct PriorityScores {
    mapped: Vec<f64>,
    reduced: Vec<f64>,
}

const RULE: &str = "bytes/s; same node 1.25e8; from registry: to zone cloud 1.25e9 else 1.25e7; same zone 1.25e8; else from cloud 1.25e7, from edge 3.125e6";

/// Links whose narrowest one on each way is what the rule says.
fn topology(golden: &Golden) -> Topology {
    assert_eq!(golden.bandwidth_rule, RULE, "the links of this test follow another rule");
    const WIDE: f64 = 1e15;
    let mut zones: Vec<&str> = golden.nodes.iter().map(|node| node.zone.as_str()).collect();
    zones.sort_unstable();
    zones.dedup();
    let nodes: Vec<Node> = golden.nodes.iter().map(node).collect();
    let first_switch = nodes.len() as u32 + 1;
    let backbone = first_switch + zones.len() as u32;
    let link = |from: u32, to: u32, up: f64, down: f64| Link {
        from,
        to,
        up_bytes_per_s: up,
        down_bytes_per_s: down,
        delay: Delay::constant(0.0),
        price: 1.0,
        usd_per_byte: 0.0,
        wan: false,
        shared: false,
    };
    let mut links = Vec::new();
    for (id, node) in golden.nodes.iter().enumerate() {
        let switch = zones.iter().position(|zone| *zone == node.zone).unwrap() as u32;
        let down = if node.zone == "cloud" { 1.25e9 } else { 1.25e8 };
        links.push(link(id as u32, first_switch + switch, 1.25e8, down));
    }
    for (index, zone) in zones.iter().enumerate() {
        let (up, down) = if *zone == "cloud" { (WIDE, WIDE) } else { (3.125e6, 1.25e7) };
        links.push(link(first_switch + index as u32, backbone, up, down));
    }
    links.push(link(nodes.len() as u32, backbone, WIDE, WIDE));
    let switches = zones.iter().copied().chain(["backbone"]).map(str::to_owned).collect();
    Topology::new(nodes, vec!["registry".to_owned()], switches, links)
}

fn arch(name: &str) -> Arch {
    match name {
        "arm" => Arch::Arm,
        "arm64" => Arch::Arm64,
        "amd64" => Arch::Amd64,
        other => panic!("no architecture is called {other}"),
    }
}

fn node(golden: &GoldenNode) -> Node {
    Node {
        name: golden.name.clone(),
        kind: "any".to_owned(),
        arch: arch(&golden.labels["beta.kubernetes.io/arch"]),
        cpu_millis: golden.cpu_millis,
        memory_bytes: golden.memory,
        disk_bytes: u64::MAX / 2,
        accelerator: None,
        startup_s: 0.0,
        labels: golden.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        power: Power::default(),
        usd_per_gb_s: 0.0,
    }
}

const CAPABILITY: &str = "capability.skippy.io";

/// A kind for each step: its requests and the capabilities that it would like.
fn kind(step: &Step) -> Kind {
    let wishes = step.labels.iter().filter(|(key, _)| key.contains(CAPABILITY));
    Kind {
        name: "pod".to_owned(),
        requests: Requests {
            cpu_millis: step.requests.get("cpu").map_or(100, |cpu| *cpu as u32),
            memory_bytes: step.requests.get("memory").copied().unwrap_or(200 << 20),
            ..Requests::default()
        },
        cpu_use_millis: 0,
        execution: Vec::new(),
        execution_elsewhere: Some(ExecutionTime::constant(1.0)),
        prefers: wishes.map(|(key, value)| (key.clone(), value.clone())).collect(),
        demands: Vec::new(),
        deadline_s: None,
        priority: 0,
    }
}

fn catalogue(golden: &Golden, topology: &Topology) -> Catalogue {
    let mut layers = Vec::new();
    let images = golden.images.iter().map(|(name, sizes)| {
        let mut image = Image { name: name.clone(), ..Image::default() };
        for (variant, &bytes) in sizes {
            image.layers[arch(variant) as usize] = vec![layers.len() as u32];
            layers.push(Layer { name: format!("{name}/{variant}"), bytes });
        }
        image
    });
    let images = images.collect();
    let home = |name: &String| topology.node_named(name).unwrap();
    let datasets = golden.storage.iter().map(|item| Dataset {
        name: format!("{}/{}", item.bucket, item.name),
        bytes: item.size,
        homes: item.nodes.iter().map(home).collect(),
    });
    let datasets = datasets.collect();
    Catalogue { images, layers, datasets, kinds: golden.steps.iter().map(kind).collect() }
}

fn scheduler(golden: &Golden) -> (Skippy, &'static [&'static str]) {
    let skippy = match golden.priorities.as_str() {
        "default" => Skippy::default(),
        "kube" => Skippy::kube_thin([1.0; 2]),
        other => panic!("no priorities are called {other}"),
    };
    let names: &[&str] = match golden.priorities.as_str() {
        "kube" => &["BalancedResourcePriority", "ImageLocalityPriority"],
        _ => &[
            "BalancedResourcePriority",
            "LatencyAwareImageLocalityPriority",
            "LocalityTypePriority",
            "DataLocalityPriority",
            "CapabilityPriority",
        ],
    };
    (skippy.scoring(golden.percentage_of_nodes_to_score), names)
}

/// Every decision of a file; returns how many.
fn replay(path: &Path) -> usize {
    let golden: Golden = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let topology = Arc::new(topology(&golden));
    let catalogue = Arc::new(catalogue(&golden, &topology));
    let images = numbered(catalogue.images.iter().map(|image| &image.name));
    let datasets = numbered(catalogue.datasets.iter().map(|dataset| &dataset.name));
    let mut cluster = Cluster::new(Arc::clone(&topology), Arc::clone(&catalogue));
    let (mut skippy, priorities) = scheduler(&golden);
    let mut first_of_walk = 0;
    for (number, step) in golden.steps.iter().enumerate() {
        let at = format!("{} step {number}", path.display());
        assert_eq!(step.start_index, first_of_walk, "{at}: start of the walk");
        let label = |key: &str| step.labels.get(key).and_then(|path| datasets.get(path)).copied();
        let task = Task {
            kind: number as u32,
            image: Some(images[&step.image]),
            inputs: label("data.skippy.io/receives-from-storage/path").into_iter().collect(),
            outputs: label("data.skippy.io/sends-to-storage/path").into_iter().collect(),
        };
        let reference = Reference::new(1.0, 1e6);
        let observation = Observation::new(&cluster, &task, number as u64, 0.5, reference).unwrap();
        let fits = observation.nodes().any(|node| cluster.fits_now(&task, node));
        let Some(host) = step.host.as_ref() else {
            assert!(!fits, "{at}: fits on no node upstream");
            continue;
        };
        let chosen = choose(&mut skippy, &observation).node;
        let scored = skippy.scored();
        assert_eq!(topology.nodes[chosen as usize].name, *host, "{at}");
        assert_eq!(scored.nodes.len(), step.feasible, "{at}: feasible nodes");
        if let Some(nodes) = &step.feasible_nodes {
            let ours: Vec<&String> =
                scored.nodes.iter().map(|&node| &topology.nodes[node as usize].name).collect();
            assert_eq!(ours, nodes.iter().collect::<Vec<_>>(), "{at}: the walk");
        }
        for (name, scores) in step.scores.iter().flatten() {
            let index = priorities.iter().position(|priority| priority == name).unwrap();
            assert_eq!(scored.mapped[index], scores.mapped, "{at}: {name}");
            assert_eq!(scored.reduced[index], scores.reduced, "{at}: {name} on the scale");
        }
        first_of_walk = (*scored.nodes.last().unwrap() as usize + 1) % topology.nodes.len();
        let needed = !cluster.has_image(images[&step.image], chosen);
        if let Some(needed_images) = &step.needed_images {
            assert_eq!(needed, !needed_images.is_empty(), "{at}: needed images");
        }
        for item in cluster.needs(&task, chosen).into_iter().filter(|item| matches!(item, Item::Layer(_))) {
            cluster.store(chosen, item, true);
        }
        cluster.place(
            number as u64,
            Arc::new(task),
            chosen,
            Expected { span: Time(u64::MAX), ..Expected::default() },
        );
    }
    golden.steps.len()
}

#[test]
fn skippy_golden() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/skippy-golden");
    let shared =
        ["golden_skippy_default_100.json", "golden_skippy_kube_100.json"].map(|name| folder.join(name));
    let named = std::env::var_os("REMORA_SKIPPY_GOLDEN").map(PathBuf::from);
    if let Some(path) = &named {
        eprintln!("{} decisions of {} are the same", replay(path), path.display());
    }
    if !folder.exists() {
        eprintln!("skipped: {} is not here", folder.display());
        return;
    }
    let decisions: usize = shared.iter().map(|path| replay(path)).sum();
    assert_eq!(decisions, 360);
}
