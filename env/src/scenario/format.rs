//! The types of the file format; `remora scenario schema` prints them as JSON Schema.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::device::{self, Arch};
use crate::world::member;

/// A whole scenario file.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScenarioFile {
    /// Name in tables and reports.
    pub name: String,
    /// One sentence for people.
    #[serde(default)]
    pub summary: String,
    /// The machines and the network.
    pub topology: TopologyFile,
    /// Images, data and sorts of tasks.
    #[serde(default)]
    pub catalogue: CatalogueFile,
    /// When tasks arrive.
    pub workload: WorkloadFile,
    /// What goes wrong; nothing if absent.
    #[serde(default, skip_serializing_if = "FaultsFile::is_none")]
    pub faults: FaultsFile,
}

/// Nodes and links. Sites are nested; the outermost hang on one backbone.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TopologyFile {
    /// Where images are pulled from; each node uses its cheapest.
    #[serde(default)]
    pub registries: Vec<RegistryFile>,
    /// Nodes attached to the backbone itself, under their own names.
    #[serde(default)]
    pub nodes: Vec<NodesFile>,
    /// Places with several nodes.
    #[serde(default)]
    pub sites: Vec<SiteFile>,
    /// Nodes of one site fetch image layers and datasets from each other where one has them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub peers: bool,
    /// How many tasks may wait on a node; any number if absent. Where all queues are full, a task is
    /// turned away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_limit: Option<u32>,
}

/// A registry that serves images.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistryFile {
    /// Unique among nodes, registries and sites.
    pub name: String,
    /// Site whose switch it is attached to (for example `region-0`); the backbone if absent.
    pub site: Option<String>,
    /// From the registry to its switch.
    pub link: LinkFile,
}

/// A place whose nodes share a switch and an uplink.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SiteFile {
    /// Unique among its siblings; nodes are called `site/node`.
    pub name: String,
    /// How many alike; more than one are called `name-0`, `name-1`, …
    #[serde(default = "one")]
    pub count: u32,
    /// From its switch to the switch around it.
    pub uplink: LinkFile,
    /// Nodes at its switch.
    #[serde(default)]
    pub nodes: Vec<NodesFile>,
    /// Sites within, at its switch.
    #[serde(default)]
    pub sites: Vec<SiteFile>,
}

/// Nodes alike. What is not given is that of the device kind.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodesFile {
    /// Unique within the site.
    pub name: String,
    /// How many alike; more than one are called `name-0`, `name-1`, …
    #[serde(default = "one")]
    pub count: u32,
    /// Built-in device kind, or a name of your own when all of the following are given.
    pub kind: String,
    /// From each node to the site's switch.
    pub link: LinkFile,
    /// Instruction set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<Arch>,
    /// CPU, thousandths of a core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
    /// Memory, MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<f64>,
    /// Disk for images and data, gigabytes (10⁹ bytes).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_gb: Option<f64>,
    /// Starting a container whose image is present, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup_s: Option<f64>,
    /// GPUs, TPUs or the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<AcceleratorFile>,
    /// Labels that tasks prefer or demand; added to those of the device kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What it draws.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<PowerFile>,
    /// Dollars for a gigabyte of requested memory, held for a second while executing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd_per_gb_s: Option<f64>,
    /// It comes and goes: a vehicle, a drone, a phone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mobile: Option<MobileFile>,
}

/// What a node draws: between idle and busy in proportion to the CPU in use.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PowerFile {
    /// Watts with nothing to do.
    pub idle_w: f64,
    /// Watts at full load.
    pub busy_w: f64,
}

/// How long a mobile node stays and how long it is away, exponentially distributed.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MobileFile {
    /// Mean time present, seconds.
    pub mean_present_s: f64,
    /// Mean time away, seconds.
    pub mean_away_s: f64,
}

/// Accelerators of one model.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceleratorFile {
    /// Name that tasks ask for.
    pub model: String,
    /// How many.
    pub count: u32,
}

/// A link towards the inner end (a switch or the backbone).
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkFile {
    /// Capacity outwards to inwards, Mbit/s.
    pub up_mbps: f64,
    /// Capacity back, Mbit/s; as `up_mbps` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down_mbps: Option<f64>,
    /// One-way delay, milliseconds; the least of it where there is jitter.
    #[serde(default)]
    pub latency_ms: f64,
    /// Log-normal delay on top of `latency_ms`, drawn for every transfer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<JitterFile>,
    /// Its capacity follows a recording.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<BandwidthFile>,
    /// What a byte over it counts as in data moved.
    #[serde(default = "unit")]
    pub price: f64,
    /// Dollars for a gigabyte (10⁹ bytes) over it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub usd_per_gb: f64,
    /// It leaves the site.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wan: bool,
    /// Both directions share `up_mbps` (a wireless cell).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
}

impl Default for LinkFile {
    /// A link of which only `up_mbps` is still to be said.
    fn default() -> LinkFile {
        LinkFile {
            up_mbps: 0.0,
            down_mbps: None,
            latency_ms: 0.0,
            jitter: None,
            bandwidth: None,
            price: 1.0,
            usd_per_gb: 0.0,
            wan: false,
            shared: false,
        }
    }
}

/// A log-normal delay, `median_ms · e^(sigma · z)` with z standard normal.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JitterFile {
    /// Median, milliseconds.
    pub median_ms: f64,
    /// Standard deviation of its logarithm, 0 to 3.
    pub sigma: f64,
}

/// Measured bandwidth over time, played in a circle. Capacities follow its shape, and their mean
/// stays as the link says; where there are several links alike, each begins at a point of its own.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BandwidthFile {
    /// CSV file with the columns `trace`, `t_s` and `mbit_s`, relative to the scenario file.
    pub file: String,
    /// Which of the file's recordings.
    pub trace: String,
}

/// What can run and what it reads.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CatalogueFile {
    /// Container images.
    #[serde(default)]
    pub images: Vec<ImageFile>,
    /// What tasks read and write.
    #[serde(default)]
    pub datasets: Vec<DatasetFile>,
    /// Sorts of tasks.
    #[serde(default)]
    pub tasks: Vec<KindFile>,
}

/// A container image, or a family of variants with the same sizes.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageFile {
    /// Unique among images.
    pub name: String,
    /// Variants; each instance of a workload stream uses one, most use the first ones.
    #[serde(default = "one")]
    pub count: u32,
    /// Megabytes (10⁶ bytes) for each architecture it exists for; or `layers`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub size_mb: BTreeMap<Arch, f64>,
    /// Share of the size that is a base layer common to all images with the same `base`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub base_share: f64,
    /// Name of the base layer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub base: String,
    /// In place of the size, what it is made of for each architecture.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub layers: BTreeMap<Arch, Vec<LayerFile>>,
}

/// A part of images that is pulled and stored once: layers of one name are one.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LayerFile {
    /// In whatever image it is.
    pub name: String,
    /// Megabytes (10⁶ bytes), the same wherever it is named.
    pub mb: f64,
}

/// Data, or a family of alike datasets, one for each instance of a workload stream.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DatasetFile {
    /// Unique among datasets.
    pub name: String,
    /// Datasets alike; more than one are called `name-0`, `name-1`, …
    #[serde(default = "one")]
    pub count: u32,
    /// Size of each, megabytes (10⁶ bytes).
    pub size_mb: f64,
    /// Nodes that keep it.
    pub home: HomeFile,
    /// On how many nodes it is kept, where they are drawn; on fewer if there are not so many.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub replicas: u32,
    /// Families with the same bucket have their homes on the same node, instance by instance.
    #[serde(default)]
    pub bucket: String,
}

/// Where a dataset lives.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum HomeFile {
    /// On these nodes, by name.
    Nodes(Vec<String>),
    /// Drawn from those with this label.
    Label(String),
    /// Drawn from those of this kind.
    Kind(String),
    /// Drawn from all.
    Anywhere,
    /// It does not exist at the start and stays where the task that writes it ran: what passes
    /// between the stages of a job.
    Producer,
}

/// A sort of task.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KindFile {
    /// Unique among tasks.
    pub name: String,
    /// Function of the built-in measurements whose execution times per device kind and CPU use it
    /// has, where `execution` and `cpu_use_millis` do not say otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<String>,
    /// Image family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Dataset families it reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<String>,
    /// Dataset families it writes new versions of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
    /// Requested CPU, millicores.
    pub cpu_millis: u32,
    /// CPU it really uses while executing, millicores; as requested if absent.
    #[serde(default)]
    pub cpu_use_millis: Option<u32>,
    /// Requested memory, MiB.
    pub memory_mib: f64,
    /// Requested accelerators.
    #[serde(default)]
    pub accelerators: u32,
    /// Share of each accelerator, thousandths.
    #[serde(default = "thousand")]
    pub accelerator_millis: u32,
    /// Models that will do; any if empty.
    #[serde(default)]
    pub accelerator_models: Vec<String>,
    /// Execution time per device kind; `any` for those not named. A kind without one cannot run it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub execution: BTreeMap<String, ExecutionFile>,
    /// Node labels it would like.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub prefers: BTreeMap<String, String>,
    /// Node labels without which it cannot run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub demands: BTreeMap<String, String>,
    /// Seconds from arrival after which its result is late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_s: Option<f64>,
    /// Of the tasks that wait on a node, those with the highest go first.
    #[serde(default, skip_serializing_if = "is_zero_priority")]
    pub priority: i32,
}

/// An execution time: constant, exponential, or log-normal, shifted by `loc_s` and truncated.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(
    deny_unknown_fields,
    untagged,
    expecting = "want { seconds }, { mean_s } or { shape, loc_s, scale_s, min_s, max_s }"
)]
pub enum ExecutionFile {
    /// Always the same.
    Constant {
        /// Seconds.
        seconds: f64,
    },
    /// Exponentially distributed.
    Exponential {
        /// Mean, seconds.
        mean_s: f64,
    },
    /// `loc_s + scale_s · e^(shape · z)` with z standard normal, cut off below and above.
    LogNormal {
        /// Standard deviation of the logarithm.
        shape: f64,
        /// Shift, seconds.
        #[serde(default)]
        loc_s: f64,
        /// Median without the shift, seconds.
        scale_s: f64,
        /// Least, seconds.
        min_s: f64,
        /// Most, seconds.
        max_s: f64,
    },
}

/// What arrives.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkloadFile {
    /// Number of tasks of an episode; all of the trace if absent and a trace is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u32>,
    /// Share of (node, image) pairs that are present at the start, 0..1.
    #[serde(default)]
    pub warm_share: f64,
    /// Arrivals by rule; ignored where a trace is given.
    #[serde(default)]
    pub streams: Vec<StreamFile>,
    /// Trace file with the arrivals, relative to the scenario file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// Arrivals of one task kind.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamFile {
    /// Which sort of task.
    pub task: String,
    /// Independent instances, each with its own datasets and image variant.
    #[serde(default = "one")]
    pub instances: u32,
    /// Mean gap is `fixed_s + exponential_s`; both zero or absent with `after`.
    #[serde(default)]
    pub fixed_s: f64,
    /// Mean of the exponential part of a gap, seconds.
    #[serde(default)]
    pub exponential_s: f64,
    /// It arrives whenever these other tasks of the same instance have completed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// Its rate rises and falls in the course of a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diurnal: Option<DiurnalFile>,
    /// It has calm times and bursts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bursts: Option<BurstsFile>,
    /// New data at the home of the first input comes with each arrival: copies elsewhere are out of
    /// date.
    #[serde(default)]
    pub renews_input: bool,
}

/// The rate is multiplied by `1 + amplitude · sin(2π t / period_s)`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiurnalFile {
    /// Length of a day, seconds.
    #[serde(default = "day")]
    pub period_s: f64,
    /// 0 to 1.
    pub amplitude: f64,
}

/// A Markov-modulated stream: calm times and bursts, exponentially distributed, in turn. The rate
/// within a burst is `factor` times that of calm times; the mean rate stays as the stream says.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BurstsFile {
    /// 1 to 1000.
    pub factor: f64,
    /// Mean length of calm times, seconds.
    pub mean_calm_s: f64,
    /// Mean length of bursts, seconds.
    pub mean_burst_s: f64,
}

/// What goes wrong, and what is done about it. Nothing goes wrong that is not said.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FaultsFile {
    /// Nodes crash and come back, their disks intact; what ran there is lost and tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crashes: Option<CrashesFile>,
    /// Links that leave a site lose capacity for a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub links: Option<LinkFaultsFile>,
    /// Some executions take much longer than others of their kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stragglers: Option<StragglersFile>,
    /// What becomes of transfers when a link on their way goes down.
    pub transfers: InterruptedFile,
    /// Seconds between two reports of the cluster's state: in between, policies decide on what was
    /// last reported, besides their own decisions. Zero: they see the present.
    pub telemetry_s: f64,
    /// How often a task is tried again before it is given up.
    pub retries: u32,
    /// Seconds before it is tried again.
    pub backoff_s: f64,
}

impl Default for FaultsFile {
    /// No faults; a task would be tried again three times, after ten seconds each.
    fn default() -> FaultsFile {
        FaultsFile {
            crashes: None,
            links: None,
            stragglers: None,
            transfers: InterruptedFile::default(),
            telemetry_s: 0.0,
            retries: 3,
            backoff_s: 10.0,
        }
    }
}

impl FaultsFile {
    fn is_none(&self) -> bool {
        *self == FaultsFile::default()
    }
}

/// Times between crashes and until return, exponentially distributed.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CrashesFile {
    /// Mean time until a crash, seconds.
    pub mean_up_s: f64,
    /// Mean time until it is back, seconds.
    pub mean_down_s: f64,
    /// Device kinds that crash; all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
}

/// Times between degradations and until recovery, exponentially distributed.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkFaultsFile {
    /// Mean time until a link degrades, seconds.
    pub mean_up_s: f64,
    /// Mean time until it recovers, seconds.
    pub mean_down_s: f64,
    /// Share of its capacity that a degraded link has left; 0 is down.
    #[serde(default)]
    pub capacity: f64,
}

/// How many executions straggle, and how much longer those take.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StragglersFile {
    /// 0 to 1.
    pub share: f64,
    /// At least 1.
    pub slowdown: f64,
}

/// What becomes of transfers when a link on their way goes down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InterruptedFile {
    /// They wait and go on where they were.
    #[default]
    Resume,
    /// They are lost, and the tasks that need them are tried again.
    Fail,
}

fn one() -> u32 {
    1
}

fn is_one(count: &u32) -> bool {
    *count == 1
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

fn is_zero_priority(priority: &i32) -> bool {
    *priority == 0
}

fn day() -> f64 {
    86_400.0
}

fn unit() -> f64 {
    1.0
}

fn thousand() -> u32 {
    1000
}

impl TopologyFile {
    /// All links, once for all that are alike.
    pub(crate) fn links(&self) -> Vec<&LinkFile> {
        let mut links: Vec<_> = self.registries.iter().map(|registry| &registry.link).collect();
        links.extend(self.nodes.iter().map(|group| &group.link));
        let mut sites: Vec<&SiteFile> = self.sites.iter().collect();
        while let Some(site) = sites.pop() {
            links.push(&site.uplink);
            links.extend(site.nodes.iter().map(|group| &group.link));
            sites.extend(&site.sites);
        }
        links
    }
}

impl CatalogueFile {
    /// Datasets that stay where the task that writes them ran, by name.
    pub fn homeless(&self) -> BTreeSet<String> {
        let homeless = self.datasets.iter().filter(|family| matches!(family.home, HomeFile::Producer));
        let members = |family: &DatasetFile| {
            (0..family.count).map(|index| member("", &family.name, index, family.count)).collect::<Vec<_>>()
        };
        homeless.flat_map(members).collect()
    }
}

impl NodesFile {
    /// The device kind's value unless the file gives one.
    pub(crate) fn device(&self) -> Option<&'static device::Device> {
        device::device(&self.kind)
    }
}
