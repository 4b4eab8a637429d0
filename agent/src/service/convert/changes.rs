//! What changes in a cluster, from the wire: what it is made of is changed in its registration, as
//! `structure.rs` says, and the rest becomes [`Delta`]s.

use std::collections::BTreeMap;

use remora_env::cluster::{Commitment, Item};
use remora_env::topology::{NodeId, Topology, VertexId};
use remora_env::{Cluster, Time};
use remora_proto::v1 as wire;
use wire::change::Change;

use super::{Field, Invalid, MAX_S, named_task};
use crate::service::books::links::Measured;
use crate::service::messages::Transfer;
use crate::service::names::{Names, look_up};

/// Most changes at a time.
pub const MAX_CHANGES: usize = 10_000;
/// Most transfers of one outcome.
const MAX_TRANSFERS: usize = 1000;
const MAX_OTHERS: i64 = 1_000_000;
/// There is always a next one.
const MAX_SEQUENCE: i64 = i64::MAX - 1;

/// A change of facts, by numbers; it cannot fail any more.
#[derive(Clone, Debug)]
pub enum Delta {
    /// A node came, or another one in its place, with this on its disk.
    Entered(NodeId, Vec<Item>),
    Available(NodeId, bool),
    Stored(NodeId, Vec<Item>),
    Gone(NodeId, Vec<Item>),
    /// Who has a dataset, ascending.
    Holders(u32, Vec<NodeId>),
    /// A task, with the id of its decision.
    Placed(NodeId, Box<Commitment>, Option<String>),
    Ended(String),
    Confirmed(String),
    /// Transfers on a link, up and down.
    Load(usize, [u32; 2]),
    Measured([VertexId; 2], Measured),
    Heard(NodeId),
}

impl Delta {
    /// The node that it tells of.
    pub fn node(&self) -> Option<NodeId> {
        match self {
            Delta::Entered(node, _)
            | Delta::Available(node, _)
            | Delta::Stored(node, _)
            | Delta::Gone(node, _)
            | Delta::Placed(node, ..)
            | Delta::Heard(node) => Some(*node),
            Delta::Holders(..)
            | Delta::Ended(_)
            | Delta::Confirmed(_)
            | Delta::Load(..)
            | Delta::Measured(..) => None,
        }
    }
}

/// An update that was checked as far as it can be without its cluster.
#[derive(Clone, Debug)]
pub struct Update {
    pub cluster_id: String,
    /// Who reports, and which of its updates this is.
    pub numbered: Option<(String, i64)>,
}

/// What an `UpdateClusterRequest` is about.
pub fn update(request: &wire::UpdateClusterRequest) -> Result<Update, Invalid> {
    let cluster_id = Field::root("cluster_id").name(&request.cluster_id)?;
    Field::root("changes").count(request.changes.len(), 0..=MAX_CHANGES)?;
    let numbered = match (request.source.as_str(), request.sequence) {
        ("", 0) => None,
        ("", _) => return Err(Field::root("source").refuse("is empty, want who counts with `sequence`")),
        (source, sequence) => {
            let source = Field::root("source").name(source)?;
            Some((source, Field::root("sequence").whole(sequence, 1..=MAX_SEQUENCE)? as i64))
        }
    };
    Ok(Update { cluster_id, numbered })
}

pub(super) fn kind(change: &wire::Change, at: Field<'_>) -> Result<Change, Invalid> {
    change.change.clone().ok_or_else(|| at.refuse("is empty, want one change"))
}

/// What changes of facts look up.
#[allow(missing_debug_implementations, reason = "it has a function in it")]
pub struct Known<'a> {
    pub cluster: &'a Cluster,
    pub names: &'a Names,
    pub now: Time,
    /// Whether a decision that is known has not ended.
    pub is_open: &'a dyn Fn(&str) -> Option<bool>,
}

/// Changes of facts, in order. What is said of a node before it leaves goes with it.
pub fn deltas(known: &Known<'_>, changes: &[wire::Change]) -> Result<Vec<Delta>, Invalid> {
    let mut left = BTreeMap::new();
    for (index, change) in changes.iter().enumerate() {
        if let Some(Change::NodeLeft(name)) = &change.change {
            left.insert(name.as_str(), index);
        }
    }
    let mut deltas = Vec::with_capacity(changes.len());
    for (index, change) in changes.iter().enumerate() {
        let at = Field::item_of_root("changes", index);
        let change = kind(change, at)?;
        if about(&change).and_then(|node| left.get(node)).is_some_and(|&left| index < left) {
            continue;
        }
        if let Some(delta) = known.delta(at, change)? {
            deltas.push(delta);
        }
    }
    Ok(deltas)
}

/// The node that facts are about.
fn about(change: &Change) -> Option<&str> {
    match change {
        Change::NodeEntered(entered) => entered.node.as_ref().map(|node| node.name.as_str()),
        Change::NodeAvailable(available) => Some(&available.node),
        Change::NodeStorage(storage) => Some(&storage.node),
        Change::Placed(placed) => Some(&placed.node),
        Change::Heartbeat(node) => Some(node),
        _ => None,
    }
}

impl Known<'_> {
    fn node(&self, at: Field<'_>, name: &str) -> Result<NodeId, Invalid> {
        look_up(at, "node", name, &self.names.nodes)
    }

    fn delta(&self, at: Field<'_>, change: Change) -> Result<Option<Delta>, Invalid> {
        Ok(Some(match change {
            Change::NodeLeft(_)
            | Change::SwitchEntered(_)
            | Change::Image(_)
            | Change::Dataset(_)
            | Change::TaskKind(_) => return Ok(None),
            Change::NodeEntered(entered) => self.entered(at.field("node_entered"), &entered)?,
            Change::NodeAvailable(wire::NodeAvailable { node, available }) => {
                let at = at.field("node_available");
                Delta::Available(self.node(at.field("node"), &node)?, available)
            }
            Change::NodeStorage(storage) => {
                return self.storage(at.field("node_storage"), &storage).map(Some);
            }
            Change::DatasetFacts(facts) => self.holders(at.field("dataset_facts"), &facts)?,
            Change::Placed(placed) => self.placed(at.field("placed"), &placed)?,
            Change::EndedDecisionId(id) => Delta::Ended(self.open(at.field("ended_decision_id"), id)?),
            Change::ConfirmedDecisionId(id) => {
                Delta::Confirmed(self.open(at.field("confirmed_decision_id"), id)?)
            }
            Change::LinkFacts(facts) => self.load(at.field("link_facts"), &facts)?,
            Change::Transfer(wire) => {
                let at = at.field("transfer");
                let transfer = transfer(at, &wire)?;
                self.measured(at, &transfer)?
            }
            Change::Heartbeat(node) => Delta::Heard(self.node(at.field("heartbeat"), &node)?),
        }))
    }

    /// The id of a decision that has not ended.
    fn open(&self, at: Field<'_>, id: String) -> Result<String, Invalid> {
        match (self.is_open)(&at.name(&id)?) {
            Some(true) => Ok(id),
            _ => Err(at.refuse(format_args!("no decision {id:?} is open"))),
        }
    }

    fn entered(&self, at: Field<'_>, entered: &wire::NodeEntered) -> Result<Delta, Invalid> {
        let at_node = at.field("node");
        let node = self.node(at_node.field("name"), &at_node.given(&entered.node)?.name)?;
        let layers = self.items(at, node, [("images", &Vec::new()), ("layers", &entered.layers)])?;
        Ok(Delta::Entered(node, layers))
    }

    fn storage(&self, at: Field<'_>, storage: &wire::NodeStorage) -> Result<Delta, Invalid> {
        let node = self.node(at.field("node"), &storage.node)?;
        let came = self.items(at, node, [("images", &storage.images), ("layers", &storage.layers)])?;
        let gone = self.items(
            at,
            node,
            [("images_gone", &storage.images_gone), ("layers_gone", &storage.layers_gone)],
        )?;
        match (came.is_empty(), gone.is_empty()) {
            (false, false) => Err(at.refuse("something came and something went, want a change for each")),
            (true, false) => Ok(Delta::Gone(node, self.unshared(node, gone))),
            _ => Ok(Delta::Stored(node, came)),
        }
    }

    fn items(
        &self,
        at: Field<'_>,
        node: NodeId,
        [(images, image_names), (layers, layer_names)]: [(&'static str, &Vec<String>); 2],
    ) -> Result<Vec<Item>, Invalid> {
        let arch = self.cluster.topology.nodes[node as usize].arch;
        let mut items = Vec::new();
        for (index, name) in image_names.iter().enumerate() {
            let at = at.item(images, index);
            let image = look_up(at, "image", name, &self.names.images)?;
            let layers = self.cluster.catalogue.images[image as usize].layers(arch);
            if layers.is_empty() {
                return Err(at.refuse(format_args!("{name:?} does not exist for {}", arch.name())));
            }
            items.extend(layers.iter().map(|&layer| Item::Layer(layer)));
        }
        for (index, name) in layer_names.iter().enumerate() {
            items.push(Item::Layer(look_up(at.item(layers, index), "layer", name, &self.names.layers)?));
        }
        items.sort_unstable();
        items.dedup();
        Ok(items)
    }

    /// Of layers that go with their images those that no image which stays there shares.
    fn unshared(&self, node: NodeId, gone: Vec<Item>) -> Vec<Item> {
        let arch = self.cluster.topology.nodes[node as usize].arch;
        let has = |layer: &u32| self.cluster.has_item(Item::Layer(*layer), node);
        let gone_layer = |layer: &u32| gone.binary_search(&Item::Layer(*layer)).is_ok();
        let images = self.cluster.catalogue.images.iter().map(|image| image.layers(arch));
        // An image stays if it is there whole and not all of it goes.
        let stays = images.filter(|layers| layers.iter().all(has) && !layers.iter().all(gone_layer));
        let kept: Vec<u32> = stays.flatten().copied().collect();
        gone.iter().copied().filter(|item| !kept.iter().any(|&layer| Item::Layer(layer) == *item)).collect()
    }

    fn holders(&self, at: Field<'_>, facts: &wire::DatasetFacts) -> Result<Delta, Invalid> {
        let dataset = look_up(at.field("dataset"), "dataset", &facts.dataset, &self.names.datasets)?;
        let names = facts.holders.iter().enumerate();
        let mut holders = names
            .map(|(index, name)| self.node(at.item("holders", index), name))
            .collect::<Result<Vec<_>, _>>()?;
        holders.sort_unstable();
        holders.dedup();
        let homes = &self.cluster.catalogue.datasets[dataset as usize].homes;
        if !homes.is_empty() && !homes.iter().any(|home| holders.contains(home)) {
            return Err(at.field("holders").refuse("names none of the dataset's homes, want at least one"));
        }
        Ok(Delta::Holders(dataset, holders))
    }

    fn placed(&self, at: Field<'_>, placed: &wire::Placed) -> Result<Delta, Invalid> {
        let node = self.node(at.field("node"), &placed.node)?;
        let at = at.field("task");
        let wire = at.given(&placed.task)?;
        let id = if wire.decision_id.is_empty() {
            None
        } else {
            Some(at.field("decision_id").name(&wire.decision_id)?)
        };
        if id.as_deref().and_then(self.is_open).is_some() {
            return Err(at.field("decision_id").refuse(format_args!("{:?} is used twice", wire.decision_id)));
        }
        Ok(Delta::Placed(node, Box::new(self.commitment(at, node, wire)?), id))
    }

    /// A reported task; its number is given when it is entered.
    fn commitment(
        &self,
        at: Field<'_>,
        node: NodeId,
        placed: &wire::PlacedTask,
    ) -> Result<Commitment, Invalid> {
        let at_task = at.field("task");
        let task = self.names.task(at_task, &named_task(at_task, at_task.given(&placed.task)?)?)?;
        super::facts::commitment(at, placed, task, node, self.cluster, self.now)
    }

    fn load(&self, at: Field<'_>, facts: &wire::LinkFacts) -> Result<Delta, Invalid> {
        let links = self.cluster.topology.links.len();
        let link = at.field("link").whole(facts.link, 0..=i64::MAX)?;
        if link >= links as u64 {
            return Err(at
                .field("link")
                .refuse(format_args!("is {link}, but the cluster has {links} links")));
        }
        let count = |name, count| at.field(name).whole32(count, 0..=MAX_OTHERS);
        let loads =
            [count("up_transfers", facts.up_transfers)?, count("down_transfers", facts.down_transfers)?];
        Ok(Delta::Load(link as usize, loads))
    }

    /// A transfer between two ends of this cluster.
    pub fn measured(&self, at: Field<'_>, transfer: &Transfer) -> Result<Delta, Invalid> {
        let topology = &self.cluster.topology;
        let end = |at: Field<'_>, name: &str| vertex(at, name, topology, self.names);
        let ends = [end(at.field("from"), &transfer.from)?, end(at.field("to"), &transfer.to)?];
        let homes = self.cluster.catalogue.datasets.iter().flat_map(|dataset| &dataset.homes).copied();
        let registries = (0..topology.registries.len()).map(|index| topology.registry_vertex(index));
        let [from, to] = ends;
        let root = homes.chain(registries).find(|root| *root == from || *root == to);
        if !topology.is_forest() && root.is_none() {
            let problem = "is between two ends of which neither is a registry or a dataset's home";
            return Err(at.refuse(problem));
        }
        let Transfer { bytes, seconds, others, .. } = *transfer;
        Ok(Delta::Measured(ends, Measured { bytes, seconds, others }))
    }
}

/// A node, registry or switch of that name.
fn vertex(at: Field<'_>, name: &str, topology: &Topology, names: &Names) -> Result<VertexId, Invalid> {
    if let Some(&node) = names.nodes.get(name) {
        return Ok(node);
    }
    let others = topology.registries.iter().chain(&topology.switches);
    let place = others.clone().position(|other| other == name);
    let known = || names.nodes.keys().chain(others).map(String::as_str);
    place
        .map(|place| (topology.nodes.len() + place) as VertexId)
        .ok_or_else(|| at.unknown("node, registry or switch", name, known()))
}

fn transfer(at: Field<'_>, transfer: &wire::Transfer) -> Result<Transfer, Invalid> {
    Ok(Transfer {
        from: at.field("from").name(&transfer.from)?,
        to: at.field("to").name(&transfer.to)?,
        bytes: at.field("bytes").whole(transfer.bytes, 1..=super::MAX_BYTES)? as f64,
        seconds: at.field("seconds").positive(transfer.seconds, MAX_S)?,
        others: at.field("others").whole(transfer.others, 0..=MAX_OTHERS)? as f64,
    })
}

/// The transfers of an outcome.
pub fn transfers(wire: &[wire::Transfer]) -> Result<Vec<Transfer>, Invalid> {
    Field::root("transfers").count(wire.len(), 0..=MAX_TRANSFERS)?;
    wire.iter()
        .enumerate()
        .map(|(index, wire)| transfer(Field::item_of_root("transfers", index), wire))
        .collect()
}
