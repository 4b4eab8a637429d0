//! A cluster and the pods that are sampled for it, from the lists of the openb trace.

use std::collections::BTreeMap;
use std::path::Path;

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use remora_env::import::{ImportError, openb};
use remora_env::random::{Purpose, stream};
use remora_env::scenario::NodesFile;
use remora_env::trace::Arrival;

use super::MOST_PERCENT;
use super::cluster::{MAX_GPUS, Models, Node, Pod};

/// A cluster with nothing on it and the order in which pods come to it.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Where scores are equal, the first of these is taken.
    pub nodes: Vec<Node>,
    /// First come, first served.
    pub arrivals: Vec<Pod>,
}

/// A cluster and the pods that are typical of it.
#[derive(Clone, Debug)]
pub struct Workload {
    /// In the order of the file, with nothing on them.
    pub nodes: Vec<Node>,
    /// In the order of their names.
    pub pods: Vec<Pod>,
}

impl Workload {
    /// Reads a node list (`openb_node_list_*.csv`) and a pod list (`openb_pod_list_*.csv`, one with times).
    ///
    /// # Errors
    /// As of [`openb`], with file, line and column; also for a node with more than [`MAX_GPUS`] GPUs, for more
    /// than [`Models::MOST`] models and for pods of which none asks for a GPU.
    pub fn read(nodes_csv: &Path, pods_csv: &Path) -> Result<Workload, ImportError> {
        let imported = openb(nodes_csv, pods_csv)?;
        let mut arrivals: Vec<_> = imported.trace.arrivals().collect();
        arrivals.sort_by(|a, b| a.name.cmp(&b.name));
        let mut names = ModelNames::default();
        let refuse = |path: &Path, reason| ImportError::File { path: path.to_owned(), reason };
        let nodes = imported.scenario.topology.nodes.iter().map(|node| read_node(node, &mut names));
        let nodes = nodes.collect::<Result<_, _>>().map_err(|reason| refuse(nodes_csv, reason))?;
        let pods = arrivals.iter().map(|arrival| read_pod(arrival, &mut names));
        let pods = pods.collect::<Result<_, _>>().map_err(|reason| refuse(pods_csv, reason))?;
        let workload = Workload { nodes, pods };
        match workload.wants_gpus() {
            true => Ok(workload),
            false => Err(refuse(pods_csv, "no pod asks for a gpu; want some that do".to_owned())),
        }
    }

    fn wants_gpus(&self) -> bool {
        self.pods.iter().any(|pod| pod.gpu_demand() > 0)
    }

    /// Thousandths of a GPU in the whole cluster.
    pub fn gpu_capacity(&self) -> u64 {
        self.nodes.iter().map(|node| u64::from(node.gpu_millis())).sum()
    }

    /// What a seed makes of it: the nodes in drawn order; the pods in drawn order, then more of them, drawn
    /// with replacement, until the demand for GPUs has reached 130 % of the cluster's.
    ///
    /// # Panics
    /// If no pod asks for a GPU.
    pub fn instance(&self, seed: u64) -> Instance {
        assert!(self.wants_gpus(), "no pod asks for a gpu, so demand cannot grow");
        let mut nodes = self.nodes.clone();
        nodes.shuffle(&mut luck(seed, Draw::Nodes));
        let mut luck = luck(seed, Draw::Pods);
        let mut arrivals = self.pods.clone();
        arrivals.shuffle(&mut luck);
        self.inflate(&mut arrivals, &mut luck);
        Instance { nodes, arrivals }
    }

    fn inflate(&self, arrivals: &mut Vec<Pod>, luck: &mut ChaCha8Rng) {
        let most = self.gpu_capacity() * MOST_PERCENT as u64 / 100;
        let mut demand: u64 = arrivals.iter().map(|pod| u64::from(pod.gpu_demand())).sum();
        loop {
            let pod = self.pods[luck.random_range(0..self.pods.len())];
            // The reference looks at one of the pod's GPUs here, not at all of them.
            if demand + u64::from(pod.gpu_millis) > most {
                return;
            }
            demand += u64::from(pod.gpu_demand());
            arrivals.push(pod);
        }
    }
}

/// What is drawn of a seed.
#[derive(Clone, Copy)]
enum Draw {
    Pods = 0,
    Nodes = 1,
}

fn luck(seed: u64, draw: Draw) -> ChaCha8Rng {
    stream(seed, Purpose::Arrivals, draw as u64)
}

/// Models met so far, each with its number.
#[derive(Default)]
struct ModelNames(BTreeMap<String, usize>);

impl ModelNames {
    fn take(&mut self, name: &str) -> Result<Models, String> {
        let next = self.0.len();
        let number = *self.0.entry(name.to_owned()).or_insert(next);
        match number {
            0..Models::MOST => Ok(Models::one(number)),
            _ => Err(format!("more than {} models of GPU, with {name}; want fewer", Models::MOST)),
        }
    }
}

fn read_node(node: &NodesFile, names: &mut ModelNames) -> Result<Node, String> {
    let (model, gpus) = match &node.accelerator {
        Some(gpu) => (names.take(&gpu.model)?, gpu.count as usize),
        None => (Models::NONE, 0),
    };
    if gpus > MAX_GPUS {
        return Err(format!("node {} has {gpus} gpus; want {MAX_GPUS} at most", node.name));
    }
    let cpu_millis = node.cpu_millis.expect("the importer states it");
    let memory_mib = node.memory_mib.expect("the importer states it, a whole number");
    Ok(Node::new(cpu_millis, memory_mib as u32, model, gpus))
}

fn read_pod(arrival: &Arrival, names: &mut ModelNames) -> Result<Pod, String> {
    let mut models = if arrival.accelerator_models.is_empty() { Models::ANY } else { Models::NONE };
    for name in &arrival.accelerator_models {
        models = models.and(names.take(name)?);
    }
    Ok(Pod {
        cpu_millis: arrival.cpu_millis,
        memory_mib: (arrival.memory_bytes >> 20) as u32,
        gpu_millis: arrival.accelerator_millis,
        gpus: arrival.accelerators,
        models,
    })
}
