//! Scenario files: topology, catalogue, workload and objective in TOML.
//!
//! The types here are the file format; `remora scenario schema` prints them as JSON Schema. A file
//! is read strictly: unknown keys are refused, and everything that is wrong with the rest is
//! reported at once, each with the key it is about. [`Scenario::world`] turns an accepted scenario
//! and a seed into a [`World`], and from then on nothing can fail.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::device::{self, Arch};
use crate::trace::{Trace, TraceError};
use crate::world::World;

/// A whole scenario file.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScenarioFile {
    /// Name in tables and reports.
    pub name: String,
    /// One sentence for people.
    #[serde(default)]
    pub summary: String,
    pub topology: TopologyFile,
    #[serde(default)]
    pub catalogue: CatalogueFile,
    pub workload: WorkloadFile,
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
    #[serde(default)]
    pub sites: Vec<SiteFile>,
}

/// A registry that serves images.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistryFile {
    pub name: String,
    /// Site whose switch it is attached to (for example `region-0`); the backbone if absent.
    pub site: Option<String>,
    pub link: LinkFile,
}

/// A place whose nodes share a switch and an uplink.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SiteFile {
    pub name: String,
    /// How many alike; more than one are called `name-0`, `name-1`, …
    #[serde(default = "one")]
    pub count: u32,
    pub uplink: LinkFile,
    #[serde(default)]
    pub nodes: Vec<NodesFile>,
    #[serde(default)]
    pub sites: Vec<SiteFile>,
}

/// Nodes alike. What is not given is that of the device kind.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodesFile {
    pub name: String,
    /// How many alike; more than one are called `name-0`, `name-1`, …
    #[serde(default = "one")]
    pub count: u32,
    /// Built-in device kind, or a name of your own when all of the following are given.
    pub kind: String,
    pub link: LinkFile,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<Arch>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_gb: Option<f64>,
    /// Starting a container whose image is present, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup_s: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<AcceleratorFile>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceleratorFile {
    pub model: String,
    pub count: u32,
}

/// A link towards the inner end (a switch or the backbone).
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkFile {
    /// Capacity outwards to inwards, Mbit/s.
    pub up_mbps: f64,
    /// Capacity back, Mbit/s; as `up_mbps` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down_mbps: Option<f64>,
    /// One-way delay, milliseconds.
    #[serde(default)]
    pub latency_ms: f64,
    /// What a byte over it counts as in data moved.
    #[serde(default = "unit")]
    pub price: f64,
    /// It leaves the site.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wan: bool,
    /// Both directions share `up_mbps` (a wireless cell).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
}

/// What can run and what it reads.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CatalogueFile {
    #[serde(default)]
    pub images: Vec<ImageFile>,
    #[serde(default)]
    pub datasets: Vec<DatasetFile>,
    #[serde(default)]
    pub tasks: Vec<KindFile>,
}

/// A container image, or a family of variants with the same sizes.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageFile {
    pub name: String,
    /// Variants; each instance of a workload stream uses one, most use the first ones.
    #[serde(default = "one")]
    pub count: u32,
    /// Megabytes (10⁶ bytes) for each architecture it exists for.
    pub size_mb: BTreeMap<Arch, f64>,
    /// Share of the size that is a base layer common to all images with the same `base`.
    #[serde(default)]
    pub base_share: f64,
    /// Name of the base layer.
    #[serde(default)]
    pub base: String,
}

/// Data, or a family of alike datasets, one for each instance of a workload stream.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DatasetFile {
    pub name: String,
    #[serde(default = "one")]
    pub count: u32,
    pub size_mb: f64,
    /// Nodes that keep it.
    pub home: HomeFile,
    /// Families with the same bucket have their homes on the same node, instance by instance.
    #[serde(default)]
    pub bucket: String,
}

/// Where a dataset lives.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum HomeFile {
    /// On these nodes, by name.
    Nodes(Vec<String>),
    /// On one node drawn from those with this label.
    Label(String),
    /// On one node drawn from those of this kind.
    Kind(String),
    /// On one node drawn from all.
    Anywhere,
}

/// A sort of task.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KindFile {
    pub name: String,
    /// Image family.
    #[serde(default)]
    pub image: Option<String>,
    /// Dataset families it reads.
    #[serde(default)]
    pub inputs: Vec<String>,
    /// Dataset family it writes a new version of.
    #[serde(default)]
    pub output: Option<String>,
    /// Requested CPU, millicores.
    pub cpu_millis: u32,
    /// CPU it really uses while executing, millicores; as requested if absent.
    #[serde(default)]
    pub cpu_use_millis: Option<u32>,
    pub memory_mib: f64,
    #[serde(default)]
    pub accelerators: u32,
    /// Share of each accelerator, thousandths.
    #[serde(default = "thousand")]
    pub accelerator_millis: u32,
    #[serde(default)]
    pub accelerator_models: Vec<String>,
    /// Execution time per device kind; `any` for those not named. A kind without one cannot run it.
    pub execution: BTreeMap<String, ExecutionFile>,
    /// Node labels it would like.
    #[serde(default)]
    pub prefers: BTreeMap<String, String>,
    #[serde(default)]
    pub deadline_s: Option<f64>,
}

/// An execution time: constant, or log-normal, shifted by `loc_s` and truncated.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, untagged)]
pub enum ExecutionFile {
    Constant {
        seconds: f64,
    },
    LogNormal {
        shape: f64,
        #[serde(default)]
        loc_s: f64,
        scale_s: f64,
        min_s: f64,
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
    #[serde(default)]
    pub streams: Vec<StreamFile>,
    /// Trace file with the arrivals, relative to the scenario file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// Arrivals of one task kind.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamFile {
    pub task: String,
    /// Independent instances, each with its own datasets and image variant.
    #[serde(default = "one")]
    pub instances: u32,
    /// Mean gap is `fixed_s + exponential_s`; both zero or absent with `after`.
    #[serde(default)]
    pub fixed_s: f64,
    #[serde(default)]
    pub exponential_s: f64,
    /// It arrives whenever this other task of the same instance completes.
    #[serde(default)]
    pub after: Option<String>,
    /// New data at the home of the first input comes with each arrival: copies elsewhere are out of
    /// date.
    #[serde(default)]
    pub renews_input: bool,
}

fn one() -> u32 {
    1
}

fn unit() -> f64 {
    1.0
}

fn thousand() -> u32 {
    1000
}

/// Something that keeps a scenario from being accepted.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{origin}: {source}")]
    Syntax { origin: String, source: Box<toml::de::Error> },
    #[error("{origin} has {} problem{}:\n  {}", problems.len(), if problems.len() == 1 { "" } else { "s" }, problems.join("\n  "))]
    Invalid { origin: String, problems: Vec<String> },
    #[error("no scenario is called {name:?}; {hint}")]
    Unknown { name: String, hint: String },
    #[error(transparent)]
    Trace(#[from] TraceError),
}

/// Names and texts of the scenarios that ship with Remora.
pub const BUILT_IN: [(&str, &str); 3] = [
    ("urban-sensing", include_str!("../scenarios/urban-sensing.toml")),
    ("industrial-iot", include_str!("../scenarios/industrial-iot.toml")),
    ("cloud-regions", include_str!("../scenarios/cloud-regions.toml")),
];

/// Names of the scenarios that ship with Remora.
pub fn built_in() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, _)| *name)
}

/// An accepted scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub file: ScenarioFile,
    pub trace: Option<Trace>,
}

impl Scenario {
    /// A built-in scenario by name, or a file by path.
    pub fn load(name: &str) -> Result<Scenario, ScenarioError> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            return Scenario::parse(text, name, None);
        }
        let path = Path::new(name);
        if !name.ends_with(".toml") && !path.exists() {
            return Err(unknown(name));
        }
        let text = std::fs::read_to_string(path)
            .map_err(|source| ScenarioError::Read { path: path.to_owned(), source })?;
        Scenario::parse(&text, name, path.parent())
    }

    /// Reads a scenario from text; `origin` names it in errors, `folder` is where a trace is looked for.
    pub fn parse(text: &str, origin: &str, folder: Option<&Path>) -> Result<Scenario, ScenarioError> {
        let file: ScenarioFile = toml::from_str(text).map_err(|source| ScenarioError::Syntax {
            origin: origin.to_owned(),
            source: Box::new(source),
        })?;
        let trace = match &file.workload.trace {
            Some(name) => Some(Trace::read(&folder.unwrap_or(Path::new(".")).join(name))?),
            None => None,
        };
        let scenario = Scenario { file, trace };
        let problems = crate::accept::problems(&scenario);
        if problems.is_empty() {
            Ok(scenario)
        } else {
            Err(ScenarioError::Invalid { origin: origin.to_owned(), problems })
        }
    }

    pub fn name(&self) -> &str {
        &self.file.name
    }

    /// The instance of this scenario that belongs to `seed`.
    pub fn world(&self, seed: u64) -> World {
        World::new(self, seed)
    }

    /// JSON Schema of the file format.
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(ScenarioFile).to_value()
    }
}

fn unknown(name: &str) -> ScenarioError {
    let names: Vec<_> = built_in().collect();
    let nearest =
        names.iter().max_by(|a, b| strsim::jaro_winkler(name, a).total_cmp(&strsim::jaro_winkler(name, b)));
    let hint = match nearest {
        Some(near) if strsim::jaro_winkler(name, near) > 0.8 => format!("did you mean {near:?}?"),
        _ => format!("built in are {}; a file ends in .toml", names.join(", ")),
    };
    ScenarioError::Unknown { name: name.to_owned(), hint }
}

impl NodesFile {
    /// The device kind's value unless the file gives one.
    pub(crate) fn device(&self) -> Option<&'static device::Device> {
        device::device(&self.kind)
    }
}
