//! Scenario files: topology, catalogue, workload and objective in TOML.
//!
//! The types are the file format; `remora scenario schema` prints them as JSON Schema. A file is
//! read strictly: unknown keys are refused, and everything that is wrong with the rest is
//! reported at once, each with the key it is about. [`Scenario::world`] turns an accepted scenario
//! and a seed into a [`World`], and from then on nothing can fail.

mod describe;
mod faster;
mod format;
mod larger;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use describe::{Described, describe};
pub use format::{
    AcceleratorFile, BandwidthFile, BurstsFile, CatalogueFile, CrashesFile, DatasetFile, DiurnalFile,
    ExecutionFile, FaultsFile, HomeFile, ImageFile, InterruptedFile, JitterFile, KindFile, LayerFile,
    LinkFaultsFile, LinkFile, MobileFile, NodesFile, PowerFile, RegistryFile, ScenarioFile, SiteFile,
    StragglersFile, StreamFile, TopologyFile, WorkloadFile,
};

use crate::bandwidth::Recording;
use crate::family::Family;
use crate::import::ImportError;
use crate::locate::line_of;
use crate::trace::{Trace, TraceError};
use crate::world::World;

/// Something that keeps a scenario from being accepted.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{origin}: {}{source}", if field.is_empty() { String::new() } else { format!("{field}: ") })]
    Syntax { origin: String, field: String, source: Box<toml::de::Error> },
    #[error("{origin} has {} problem{}:\n  {}", problems.len(), if problems.len() == 1 { "" } else { "s" }, problems.join("\n  "))]
    Invalid { origin: String, problems: Vec<String> },
    #[error("no scenario is called {name:?}; {hint}")]
    Unknown { name: String, hint: String },
    #[error("{0} is a family: name a member, for example {0}/0")]
    Family(&'static str),
    #[error(transparent)]
    Trace(#[from] TraceError),
    #[error(transparent)]
    Bandwidth(#[from] ImportError),
}

/// Names and texts of the scenarios that ship with Remora.
pub const BUILT_IN: [(&str, &str); 3] = [
    ("urban-sensing", include_str!("../scenarios/urban-sensing.toml")),
    ("industrial-iot", include_str!("../scenarios/industrial-iot.toml")),
    ("cloud-regions", include_str!("../scenarios/cloud-regions.toml")),
];

/// The scenario that is small enough to be run for real: it ships too, and is not evaluated on by default.
pub const TESTBED: (&str, &str) = ("testbed", include_str!("../scenarios/testbed.toml"));

/// Names of the scenarios that ship with Remora.
pub fn built_in() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, _)| *name)
}

/// The text of a scenario that ships with Remora.
pub fn shipped(name: &str) -> Option<&'static str> {
    BUILT_IN.iter().chain([&TESTBED]).find(|(shipped, _)| *shipped == name).map(|(_, text)| *text)
}

/// An accepted scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub file: ScenarioFile,
    pub trace: Option<Trace>,
    /// What links follow, by file and trace.
    pub(crate) recordings: BTreeMap<(String, String), Arc<Recording>>,
}

impl Scenario {
    /// A built-in scenario by name, a member of a family (`train-family/17`), or a file by path.
    pub fn load(name: &str) -> Result<Scenario, ScenarioError> {
        match Scenarios::load(name)? {
            Scenarios::One(scenario) => Ok(*scenario),
            Scenarios::Family(family) => Err(ScenarioError::Family(family.name())),
        }
    }

    fn load_one(name: &str) -> Result<Scenario, ScenarioError> {
        if let Some(text) = shipped(name) {
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
        let file = read_file(text).map_err(|(field, source)| ScenarioError::Syntax {
            origin: origin.to_owned(),
            field,
            source: Box::new(source),
        })?;
        let folder = folder.unwrap_or(Path::new("."));
        let trace = match &file.workload.trace {
            Some(name) => Some(Trace::read(&folder.join(name))?),
            None => None,
        };
        let recordings = read_recordings(&file.topology, folder)?;
        let scenario = Scenario { file, trace, recordings };
        let mut problems = crate::accept::problems(&scenario);
        if problems.is_empty() {
            return Ok(scenario);
        }
        for problem in &mut problems {
            if let Some(line) = line_of(text, problem) {
                problem.insert_str(0, &format!("line {line}: "));
            }
        }
        Err(ScenarioError::Invalid { origin: origin.to_owned(), problems })
    }

    /// A member of a family.
    pub fn member(family: Family, index: u64) -> Scenario {
        let scenario = Scenario { file: family.member(index), trace: None, recordings: BTreeMap::new() };
        debug_assert_eq!(crate::accept::problems(&scenario), Vec::<String>::new(), "{}", scenario.name());
        scenario
    }

    pub fn name(&self) -> &str {
        &self.file.name
    }

    /// The scenario file.
    pub fn to_toml(&self) -> String {
        toml::to_string(&self.file).expect("plain data becomes TOML")
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

/// Reads the types of the file, or says which field is wrong and how.
fn read_file(text: &str) -> Result<ScenarioFile, (String, toml::de::Error)> {
    let document = toml::Deserializer::parse(text).map_err(|error| (String::new(), error))?;
    serde_path_to_error::deserialize(document).map_err(|error| {
        let field = error.path().to_string();
        (if field == "." { String::new() } else { field }, error.into_inner())
    })
}

/// What a name stands for: one scenario, or a family of which every seed plays another member.
#[derive(Clone, Debug)]
pub enum Scenarios {
    One(Box<Scenario>),
    Family(Family),
}

impl Scenarios {
    /// Where what was learned on these is judged before it is final: the validation family for the
    /// training family, else other worlds of the same.
    pub fn for_validation(&self) -> Scenarios {
        match self {
            Scenarios::Family(Family::Train) => Scenarios::Family(Family::Validation),
            same => same.clone(),
        }
    }

    /// As [`Scenario::load`], or a family by its name.
    pub fn load(name: &str) -> Result<Scenarios, ScenarioError> {
        if let Some(family) = Family::named(name) {
            return Ok(Scenarios::Family(family));
        }
        let scenario = match Family::of(name) {
            Some((family, index)) => match index.parse() {
                Ok(index) => Scenario::member(family, index),
                Err(_) => {
                    let hint = format!("members of {} are numbered from 0", family.name());
                    return Err(ScenarioError::Unknown { name: name.to_owned(), hint });
                }
            },
            None => Scenario::load_one(name)?,
        };
        Ok(Scenarios::One(Box::new(scenario)))
    }

    pub fn name(&self) -> &str {
        match self {
            Scenarios::One(scenario) => scenario.name(),
            Scenarios::Family(family) => family.name(),
        }
    }

    /// The scenario whose world of this seed is to be played.
    pub fn at(&self, seed: u64) -> Cow<'_, Scenario> {
        match self {
            Scenarios::One(scenario) => Cow::Borrowed(scenario),
            Scenarios::Family(family) => Cow::Owned(Scenario::member(*family, seed)),
        }
    }
}

/// Reads what links follow; a trace that its file does not have stays out.
fn read_recordings(
    topology: &TopologyFile,
    folder: &Path,
) -> Result<BTreeMap<(String, String), Arc<Recording>>, ImportError> {
    let mut wanted: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for bandwidth in topology.links().into_iter().filter_map(|link| link.bandwidth.as_ref()) {
        wanted.entry(&bandwidth.file).or_default().insert(&bandwidth.trace);
    }
    let mut recordings = BTreeMap::new();
    for (file, traces) in wanted {
        let read = Recording::read(&folder.join(file), &traces)?;
        let named = |(trace, recording)| ((file.to_owned(), trace), Arc::new(recording));
        recordings.extend(read.into_iter().map(named));
    }
    Ok(recordings)
}

fn unknown(name: &str) -> ScenarioError {
    let names: Vec<_> = built_in().chain([TESTBED.0]).chain(Family::ALL.map(Family::name)).collect();
    let nearest =
        names.iter().max_by(|a, b| strsim::jaro_winkler(name, a).total_cmp(&strsim::jaro_winkler(name, b)));
    let hint = match nearest {
        Some(near) if strsim::jaro_winkler(name, near) > 0.8 => format!("did you mean {near:?}?"),
        _ => format!("built in are {}; a file ends in .toml", names.join(", ")),
    };
    ScenarioError::Unknown { name: name.to_owned(), hint }
}
