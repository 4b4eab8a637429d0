//! Names of what a cluster has, and tasks that are told in such names.

use std::collections::BTreeMap;

use remora_env::catalogue::{Catalogue, Task, numbered};
use remora_env::topology::Topology;

use super::convert::{Field, Invalid};

/// A task as told from outside.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTask {
    pub kind: String,
    pub image: Option<String>,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
}

/// Number of each thing of a cluster by its name.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub nodes: BTreeMap<String, u32>,
    pub layers: BTreeMap<String, u32>,
    pub kinds: BTreeMap<String, u32>,
    pub images: BTreeMap<String, u32>,
    pub datasets: BTreeMap<String, u32>,
}

impl Names {
    /// Names of a cluster in which each is unique.
    pub fn of(topology: &Topology, catalogue: &Catalogue) -> Names {
        Names {
            nodes: numbered(topology.nodes.iter().map(|node| &node.name)),
            layers: numbered(catalogue.layers.iter().map(|layer| &layer.name)),
            kinds: numbered(catalogue.kinds.iter().map(|kind| &kind.name)),
            images: numbered(catalogue.images.iter().map(|image| &image.name)),
            datasets: numbered(catalogue.datasets.iter().map(|dataset| &dataset.name)),
        }
    }

    /// The task that is meant; refuses names that the catalogue does not have.
    pub fn task(&self, at: Field<'_>, task: &NamedTask) -> Result<Task, Invalid> {
        let image = task.image.as_ref().map(|name| look_up(at.field("image"), "image", name, &self.images));
        let dataset = |at: Field<'_>, name: &String| look_up(at, "dataset", name, &self.datasets);
        let datasets = |list, names: &[String]| -> Result<Vec<u32>, Invalid> {
            names.iter().enumerate().map(|(index, name)| dataset(at.item(list, index), name)).collect()
        };
        Ok(Task {
            kind: look_up(at.field("kind"), "task kind", &task.kind, &self.kinds)?,
            image: image.transpose()?,
            inputs: datasets("inputs", &task.inputs)?,
            outputs: datasets("outputs", &task.outputs)?,
        })
    }
}

/// The number behind a name; `what` says what it should be the name of.
pub fn look_up(at: Field<'_>, what: &str, name: &str, known: &BTreeMap<String, u32>) -> Result<u32, Invalid> {
    known.get(name).copied().ok_or_else(|| at.unknown(what, name, known.keys().map(String::as_str)))
}
