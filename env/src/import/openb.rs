//! The Alibaba GPU cluster of 2023 ("openb"): 1,523 heterogeneous nodes and the pods sent to them.
//!
//! Source: `cluster-trace-gpu-v2023` of alibaba/clusterdata, described in Weng et al., "Beware of
//! Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent", USENIX
//! ATC 2023.
//!
//! | column | becomes |
//! |---|---|
//! | nodes: `sn`, `cpu_milli`, `memory_mib` | a node on the backbone, under its own name |
//! | nodes: `gpu`, `model` | its accelerators; the kind is the model in lower case, or `cpu-server` |
//! | pods: `name`, `cpu_milli`, `memory_mib` | an arrival; its requests |
//! | pods: `num_gpu`, `gpu_milli` | accelerators, and the share of each; several are taken whole |
//! | pods: `gpu_spec` | accelerator models that will do; any if empty |
//! | pods: `creation_time` | arrival, seconds since the recording began |
//! | pods: `deletion_time` − `scheduled_time` | execution time |
//!
//! Pods that were never scheduled stay in, for the load that they are: their execution time runs
//! from creation to deletion. So do pods that failed, with the time that they held their node. The
//! trace knows no images, data, disks or network: nodes get a fast local network and a large disk.

use std::path::Path;

use super::table::{Names, Row, Table};
use super::{ImportError, Imported, stem};
use crate::device::Arch;
use crate::scenario::{AcceleratorFile, LinkFile, NodesFile, ScenarioFile, TopologyFile};
use crate::trace::{Arrival, Trace};

const NODE_COLUMNS: [&str; 5] = ["sn", "cpu_milli", "memory_mib", "gpu", "model"];
const POD_COLUMNS: [&str; 9] = [
    "name",
    "cpu_milli",
    "memory_mib",
    "num_gpu",
    "gpu_milli",
    "gpu_spec",
    "creation_time",
    "deletion_time",
    "scheduled_time",
];

/// Device kind of nodes without GPU.
const CPU_SERVER: &str = "cpu-server";
/// Largest machine that is believed: 100,000 cores, 1 PiB of memory, 1,000 GPUs.
const MAX_CPU_MILLIS: u32 = 100_000_000;
const MAX_MEMORY_MIB: u32 = 1_000_000_000;
const MAX_GPUS: u32 = 1000;
/// Disk of each node, GB: more than anything that a scenario could put there. Our assumption.
const DISK_GB: f64 = 1000.0;
/// Network of each node, Mbit/s and ms: that of a data centre. Our assumption.
const LINK_MBPS: f64 = 10_000.0;
const LATENCY_MS: f64 = 0.1;

/// Imports a node list (`openb_node_list_*.csv`) and a pod list with times
/// (`openb_pod_list_*.csv`). Every row of both comes through, or the import fails.
pub fn openb(nodes_csv: &Path, pods_csv: &Path) -> Result<Imported, ImportError> {
    let nodes = read_nodes(nodes_csv)?;
    let pods = read_pods(pods_csv)?;
    let notes = notes(&nodes, &pods);
    let mut arrivals: Vec<_> = pods.into_iter().map(|pod| pod.arrival).collect();
    // Stable: pods of the same second stay in the order of the file.
    arrivals.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
    let source = format!(
        "alibaba/clusterdata cluster-trace-gpu-v2023 (for research and study), {} and {}",
        stem(nodes_csv),
        stem(pods_csv)
    );
    let scenario = ScenarioFile {
        name: stem(pods_csv),
        summary: format!("{} pods on the {} nodes of a GPU cluster", arrivals.len(), nodes.len()),
        topology: TopologyFile { nodes, ..TopologyFile::default() },
        ..ScenarioFile::default()
    };
    let trace = Trace::of_arrivals(source, arrivals);
    Ok(Imported { scenario, trace, notes })
}

// Nodes.

fn read_nodes(path: &Path) -> Result<Vec<NodesFile>, ImportError> {
    let table = Table::read(path, &NODE_COLUMNS, "an openb node list such as openb_node_list_all_node.csv")?;
    let mut names = Names::default();
    table.rows().map(|row| read_node(&row, &mut names)).collect()
}

fn read_node(row: &Row<'_>, names: &mut Names) -> Result<NodesFile, ImportError> {
    let accelerator = read_accelerator(row)?;
    let kind = accelerator.as_ref().map_or(CPU_SERVER.to_owned(), |gpu| gpu.model.to_lowercase());
    Ok(NodesFile {
        name: names.take(row, "sn")?,
        count: 1,
        kind,
        link: LinkFile { up_mbps: LINK_MBPS, latency_ms: LATENCY_MS, ..LinkFile::default() },
        arch: Some(Arch::Amd64),
        cpu_millis: Some(row.whole("cpu_milli", "millicores", 1..=MAX_CPU_MILLIS)?),
        memory_mib: Some(f64::from(row.whole("memory_mib", "MiB", 1..=MAX_MEMORY_MIB)?)),
        disk_gb: Some(DISK_GB),
        startup_s: Some(0.0),
        accelerator,
        ..NodesFile::default()
    })
}

fn read_accelerator(row: &Row<'_>) -> Result<Option<AcceleratorFile>, ImportError> {
    let count = row.whole("gpu", "gpus", 0..=MAX_GPUS)?;
    match (count, row.text("model")) {
        (0, "") => Ok(None),
        (0, _) => Err(row.not("model", "right for a node without gpu; leave it empty")),
        (_, "") => Err(row.not("model", "a gpu model, which a node with gpus has")),
        (_, model) => Ok(Some(AcceleratorFile { model: model.to_owned(), count })),
    }
}

// Pods.

/// An arrival with what the notes count.
struct Pod {
    arrival: Arrival,
    was_scheduled: bool,
    /// Seconds since the recording began.
    deleted_s: f64,
}

fn read_pods(path: &Path) -> Result<Vec<Pod>, ImportError> {
    let table =
        Table::read(path, &POD_COLUMNS, "an openb pod list with times such as openb_pod_list_default.csv")?;
    let mut names = Names::default();
    table.rows().map(|row| read_pod(&row, &mut names)).collect()
}

fn read_pod(row: &Row<'_>, names: &mut Names) -> Result<Pod, ImportError> {
    let (accelerators, accelerator_millis) = read_gpus(row)?;
    let created_s = row.seconds("creation_time")?;
    let was_scheduled = !row.text("scheduled_time").is_empty();
    let (began, began_s) = match was_scheduled {
        true => ("scheduled_time", not_before(row, "scheduled_time", ("creation_time", created_s))?),
        false => ("creation_time", created_s),
    };
    let deleted_s = not_before(row, "deletion_time", (began, began_s))?;
    let memory_mib = row.whole("memory_mib", "MiB", 0..=MAX_MEMORY_MIB)?;
    let arrival = Arrival {
        at_s: created_s,
        name: names.take(row, "name")?,
        cpu_millis: row.whole("cpu_milli", "millicores", 0..=MAX_CPU_MILLIS)?,
        memory_bytes: u64::from(memory_mib) * 1024 * 1024,
        accelerators,
        accelerator_millis,
        accelerator_models: read_models(row)?,
        duration_s: Some(deleted_s - began_s),
        ..Arrival::default()
    };
    Ok(Pod { arrival, was_scheduled, deleted_s })
}

/// Number of GPUs and the share of each.
fn read_gpus(row: &Row<'_>) -> Result<(u32, u32), ImportError> {
    let count = row.whole("num_gpu", "gpus", 0..=MAX_GPUS)?;
    let millis = row.whole("gpu_milli", "thousandths of a gpu", 0..=1000)?;
    let fits = match count {
        0 => millis == 0,
        1 => millis > 0,
        _ => millis == 1000,
    };
    if fits {
        return Ok((count, millis));
    }
    let wanted = "want 0 without gpu, 1 to 1000 with one, 1000 with several";
    Err(row.wrong("gpu_milli", format!("{millis} does not go with num_gpu {count}; {wanted}")))
}

fn read_models(row: &Row<'_>) -> Result<Vec<String>, ImportError> {
    match row.text("gpu_spec") {
        "" => Ok(Vec::new()),
        spec if spec.split('|').any(str::is_empty) => {
            Err(row.not("gpu_spec", "a list of gpu models separated by |, such as V100M16|V100M32"))
        }
        spec => Ok(spec.split('|').map(str::to_owned).collect()),
    }
}

/// A time that comes at or after that of another column.
fn not_before(row: &Row<'_>, column: &str, (other, other_s): (&str, f64)) -> Result<f64, ImportError> {
    let value = row.seconds(column)?;
    if value < other_s {
        return Err(row.wrong(column, format!("{value} is before {other}, {other_s}; want a later time")));
    }
    Ok(value)
}

// Notes.

fn notes(nodes: &[NodesFile], pods: &[Pod]) -> Vec<String> {
    let gpus: Vec<_> = nodes.iter().filter_map(|node| Some(node.accelerator.as_ref()?.count)).collect();
    let count = |holds: &dyn Fn(&Pod) -> bool| pods.iter().filter(|pod| holds(pod)).count();
    let end_s = pods.iter().fold(0.0, |end: f64, pod| end.max(pod.deleted_s));
    let disordered = pods.windows(2).filter(|pair| pair[1].arrival.at_s < pair[0].arrival.at_s).count();
    vec![
        format!("nodes: {}; with gpus: {}; gpus: {}", nodes.len(), gpus.len(), gpus.iter().sum::<u32>()),
        format!("pods: {}, none left out", pods.len()),
        format!(
            "assumed, as the trace has no network or disks: {LINK_MBPS} Mbit/s and {LATENCY_MS} ms for each node, \
             {DISK_GB} GB of disk, no time to start a container"
        ),
        format!(
            "pods never scheduled, for which the duration is deletion_time - creation_time: {}",
            count(&|pod| !pod.was_scheduled)
        ),
        format!("pods with a duration of 0 s, kept: {}", count(&|pod| pod.arrival.duration_s == Some(0.0))),
        format!(
            "pods deleted in the last second of the list, {end_s}, whose duration the end of the recording may have \
             cut off, kept: {}",
            count(&|pod| pod.deleted_s == end_s)
        ),
        format!("pods earlier than the one above, sorted by creation_time: {disordered}"),
    ]
}
