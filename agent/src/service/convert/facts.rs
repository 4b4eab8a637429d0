//! What is true of a cluster now, from the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use remora_env::catalogue::{Catalogue, DatasetId, ImageId, Task};
use remora_env::cluster::{Commitment, Item, Lack, TaskId};
use remora_env::topology::NodeId;
use remora_env::{Cluster, Time};
use remora_proto::v1 as wire;

use super::topology::BYTES_PER_S;
use super::{Field, Invalid, MAX_S, MAX_TOTAL_BYTES, Names, named_task, unique};
use crate::service::books::links::{Estimate, Estimates};
use crate::service::names::look_up;

/// Most tasks on one node that have not ended.
pub const MAX_PLACED: usize = 4000;
const MAX_TRANSFERS: i64 = 1_000_000;
const MAX_RATE_PER_S: f64 = 1e9;
const MAX_CONFIDENCE: f64 = 0.99;
/// Reported tasks have numbers of their own, above those of any decision.
pub const FIRST_REPORTED: TaskId = 1 << 63;

/// What becomes of a task that is said to run where there is no room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    Refused,
    Waits,
}

/// What facts say beside what a cluster holds.
pub(super) struct Applied {
    /// Tasks that have a decision id: it, their number, where they are.
    pub placed: Vec<(String, TaskId, NodeId)>,
    pub estimates: Estimates,
}

/// Enters what is reported.
pub(super) fn apply(
    at: Field<'_>,
    facts: &wire::Facts,
    cluster: &mut Cluster,
    names: &Names,
    beyond: Beyond,
) -> Result<Applied, Invalid> {
    let catalogue = Arc::clone(&cluster.catalogue);
    let (stored, ids, placed) = (Vec::new(), BTreeMap::new(), Vec::new());
    let mut reported =
        Reported { cluster, catalogue: &catalogue, names, beyond, stored, next: FIRST_REPORTED, ids, placed };
    reported.datasets(at, facts)?;
    reported.nodes(at, facts)?;
    reported.links(at, facts)?;
    let estimates = reported.estimates(at, facts)?;
    reported.arrivals(at, facts)?;
    Ok(Applied { placed: reported.finish(), estimates })
}

struct Reported<'a> {
    cluster: &'a mut Cluster,
    catalogue: &'a Catalogue,
    names: &'a Names,
    beyond: Beyond,
    /// What was stored is pinned until all is: a report is not cut down to the disk's size.
    stored: Vec<(NodeId, Item)>,
    next: TaskId,
    ids: BTreeMap<String, u32>,
    placed: Vec<(String, TaskId, NodeId)>,
}

impl Reported<'_> {
    fn store(&mut self, node: NodeId, item: Item, present: bool) {
        self.cluster.store(node, item, present);
        self.cluster.pin(node, item, true);
        self.stored.push((node, item));
    }

    fn finish(self) -> Vec<(String, TaskId, NodeId)> {
        for &(node, item) in &self.stored {
            self.cluster.pin(node, item, false);
        }
        self.placed
    }

    fn datasets(&mut self, at: Field<'_>, facts: &wire::Facts) -> Result<(), Invalid> {
        let mut listed = BTreeSet::new();
        for (index, wire) in facts.datasets.iter().enumerate() {
            let at = at.item("datasets", index);
            let dataset = look_up(at.field("dataset"), "dataset", &wire.dataset, &self.names.datasets)?;
            first(at.field("dataset"), &mut listed, dataset, &wire.dataset)?;
            let holders = wire.holders.iter().enumerate();
            let holders = holders
                .map(|(index, name)| look_up(at.item("holders", index), "node", name, &self.names.nodes));
            self.held(at.field("holders"), dataset, holders.collect::<Result<_, _>>()?)?;
            self.cluster.set_waited_for_copy_s(dataset, waited_s(at, wire.waited_s)?);
        }
        Ok(())
    }

    fn held(&mut self, at: Field<'_>, dataset: DatasetId, holders: BTreeSet<NodeId>) -> Result<(), Invalid> {
        let homes = &self.catalogue.datasets[dataset as usize].homes;
        if !homes.is_empty() && !homes.iter().any(|home| holders.contains(home)) {
            return Err(at.refuse("names none of the dataset's homes, want at least one"));
        }
        for &home in homes.iter().filter(|home| !holders.contains(home)) {
            self.cluster.remove(home, Item::Dataset(dataset));
        }
        for node in holders {
            self.store(node, Item::Dataset(dataset), true);
        }
        Ok(())
    }

    fn nodes(&mut self, at: Field<'_>, facts: &wire::Facts) -> Result<(), Invalid> {
        let mut listed = BTreeSet::new();
        for (index, wire) in facts.nodes.iter().enumerate() {
            let at = at.item("nodes", index);
            let node = look_up(at.field("node"), "node", &wire.node, &self.names.nodes)?;
            first(at.field("node"), &mut listed, node, &wire.node)?;
            self.cluster.set_accepting(node, !wire.unavailable);
            self.disk(at, node, wire)?;
            at.field("placed").count(wire.placed.len(), 0..=MAX_PLACED)?;
            for (index, task) in wire.placed.iter().enumerate() {
                self.task(at.item("placed", index), node, task)?;
            }
        }
        Ok(())
    }

    fn disk(&mut self, at: Field<'_>, node: NodeId, facts: &wire::NodeFacts) -> Result<(), Invalid> {
        let arch = self.cluster.topology.nodes[node as usize].arch;
        let catalogue = self.catalogue;
        for (index, name) in facts.images.iter().enumerate() {
            let at = at.item("images", index);
            let image: ImageId = look_up(at, "image", name, &self.names.images)?;
            let layers = catalogue.images[image as usize].layers(arch);
            if layers.is_empty() {
                return Err(at.refuse(format_args!("{name:?} does not exist for {}", arch.name())));
            }
            for &layer in layers {
                self.store(node, Item::Layer(layer), true);
            }
        }
        let lists = [("layers", &facts.layers, true), ("arriving_layers", &facts.arriving_layers, false)];
        for (field, layers, present) in lists {
            for (index, name) in layers.iter().enumerate() {
                let layer = look_up(at.item(field, index), "layer", name, &self.names.layers)?;
                self.store(node, Item::Layer(layer), present);
            }
        }
        for (index, arriving) in facts.arriving.iter().enumerate() {
            self.arriving(at.item("arriving", index), node, arriving)?;
        }
        Ok(())
    }

    fn arriving(&mut self, at: Field<'_>, node: NodeId, arriving: &wire::Arriving) -> Result<(), Invalid> {
        let item = match (arriving.layer.as_str(), arriving.dataset.as_str()) {
            (layer, "") => Item::Layer(look_up(at.field("layer"), "layer", layer, &self.names.layers)?),
            ("", dataset) => {
                Item::Dataset(look_up(at.field("dataset"), "dataset", dataset, &self.names.datasets)?)
            }
            _ => return Err(at.refuse("names a layer and a dataset, want one of them")),
        };
        if self.cluster.has_or_awaits(item, node) {
            return Err(at.refuse("is there or on its way already"));
        }
        let remaining_s =
            at.field("expected_remaining_s").number(arriving.expected_remaining_s, -MAX_S..=MAX_S)?;
        let span_s = at.field("expected_span_s").number(arriving.expected_span_s, 0.0..=MAX_S)?;
        self.store(node, item, false);
        self.cluster.expect(node, item, remaining_s, span_s);
        Ok(())
    }

    fn task(&mut self, at: Field<'_>, node: NodeId, placed: &wire::PlacedTask) -> Result<(), Invalid> {
        let at_task = at.field("task");
        let task = self.names.task(at_task, &named_task(at_task, at_task.given(&placed.task)?)?)?;
        let id = self.next;
        self.next += 1;
        let commitment =
            Commitment { id, ..commitment(at, placed, task, node, self.cluster, self.cluster.now)? };
        if self.beyond == Beyond::Waits {
            settle(self.cluster, node, commitment);
        } else if !self.cluster.restore(node, commitment) {
            return Err(at.refuse("what it requests is not free beside the tasks before it; is it queued?"));
        }
        if !placed.decision_id.is_empty() {
            let decision_id = unique(at.field("decision_id"), &placed.decision_id, 0, &mut self.ids)?;
            self.placed.push((decision_id, id, node));
        }
        Ok(())
    }

    fn links(&mut self, at: Field<'_>, facts: &wire::Facts) -> Result<(), Invalid> {
        let mut listed = BTreeSet::new();
        for (index, wire) in facts.links.iter().enumerate() {
            let at = at.item("links", index);
            let link = self.link(at, wire.link, &mut listed)?;
            let [up, down] = self.cluster.topology.link_channels(link);
            let transfers = |field, count| at.field(field).whole32(count, 0..=MAX_TRANSFERS);
            let up_transfers = transfers("up_transfers", wire.up_transfers)?;
            let down_transfers = transfers("down_transfers", wire.down_transfers)?;
            self.cluster.add_channel_load(up, up_transfers as i32);
            self.cluster.add_channel_load(down, down_transfers as i32);
        }
        Ok(())
    }

    fn estimates(&mut self, at: Field<'_>, facts: &wire::Facts) -> Result<Estimates, Invalid> {
        let topology = Arc::clone(&self.cluster.topology);
        let mut estimates = Estimates::default();
        let mut listed = BTreeSet::new();
        for (index, wire) in facts.link_estimates.iter().enumerate() {
            let at = at.item("link_estimates", index);
            let link = self.link(at, wire.link, &mut listed)?;
            let [up, down] = topology.link_channels(link);
            let mut set = |channel, (field, bytes_per_s), (of, confidence)| -> Result<(), Invalid> {
                let bytes_per_s = at.field(field).number(bytes_per_s, BYTES_PER_S)?;
                let confidence = at.field(of).number(confidence, 0.0..=MAX_CONFIDENCE)?;
                let registered = topology.channels()[channel as usize].capacity_bytes_per_s;
                if confidence > 0.0 {
                    let estimate = Estimate::known(bytes_per_s, confidence, registered);
                    estimates.set(self.cluster, channel, estimate);
                }
                Ok(())
            };
            set(up, ("up_bytes_per_s", wire.up_bytes_per_s), ("up_confidence", wire.up_confidence))?;
            if down != up {
                set(
                    down,
                    ("down_bytes_per_s", wire.down_bytes_per_s),
                    ("down_confidence", wire.down_confidence),
                )?;
            }
        }
        Ok(estimates)
    }

    /// The link of that place, which is listed once.
    fn link(&self, at: Field<'_>, link: Option<i64>, listed: &mut BTreeSet<u32>) -> Result<usize, Invalid> {
        let links = self.cluster.topology.links.len() as u64;
        let link = at.field("link").whole(link, 0..=i64::MAX)?;
        if link >= links {
            return Err(at
                .field("link")
                .refuse(format_args!("is {link}, but the cluster has {links} links")));
        }
        first(at.field("link"), listed, link as u32, &link.to_string())?;
        Ok(link as usize)
    }

    fn arrivals(&mut self, at: Field<'_>, facts: &wire::Facts) -> Result<(), Invalid> {
        let rate = |at: Field<'_>, per_s| at.field("arrivals_per_s").number(per_s, 0.0..=MAX_RATE_PER_S);
        self.cluster.set_total_rate_per_s(rate(at, facts.arrivals_per_s)?);
        for (index, wire) in facts.images.iter().enumerate() {
            let at = at.item("images", index);
            let image = look_up(at.field("image"), "image", &wire.image, &self.names.images)?;
            self.cluster.set_image_rate_per_s(image, rate(at, wire.arrivals_per_s)?);
            let displaced_bytes = wire.displaced_bytes.unwrap_or_default();
            let lack = Lack {
                waited_s: waited_s(at, wire.waited_s)?,
                displaced_bytes: at
                    .field("displaced_bytes")
                    .number(displaced_bytes, 0.0..=MAX_TOTAL_BYTES as f64)?,
            };
            self.cluster.set_image_lack(image, lack);
        }
        Ok(())
    }
}

/// What tasks have waited for something, none where that was left out.
fn waited_s(at: Field<'_>, waited_s: Option<f64>) -> Result<f64, Invalid> {
    at.field("waited_s").number(waited_s.unwrap_or_default(), 0.0..=MAX_S)
}

/// A reported task, without the number that it gets.
pub(super) fn commitment(
    at: Field<'_>,
    placed: &wire::PlacedTask,
    task: Task,
    node: NodeId,
    cluster: &Cluster,
    now: Time,
) -> Result<Commitment, Invalid> {
    let remaining_s = at.field("expected_remaining_s").number(placed.expected_remaining_s, -MAX_S..=MAX_S)?;
    let accelerators = placed.accelerators.iter().enumerate();
    let accelerators =
        accelerators.map(|(index, &which)| at.item("accelerators", index).whole32(which, 0..=999));
    let span_s = match placed.expected_span_s {
        Some(_) => at.field("expected_span_s").number(placed.expected_span_s, 0.0..=MAX_S)?,
        None => cluster
            .execution(&task, node)
            .map_or(0.0, |time| time.mean_s + cluster.topology.nodes[node as usize].startup_s),
    };
    Ok(Commitment {
        id: 0,
        task: Arc::new(task),
        expected_end: now.shifted_s(remaining_s),
        span: Time::recorded(span_s),
        admitted: !placed.queued,
        accelerators: accelerators.collect::<Result<_, _>>()?,
    })
}

/// Enters a task. One that is said to run holds other accelerators where those that it names are not free, and
/// waits where there is no room for it at all. Returns whether it runs.
pub fn settle(cluster: &mut Cluster, node: NodeId, commitment: Commitment) -> bool {
    let anywhere = Commitment { accelerators: Vec::new(), ..commitment.clone() };
    let runs =
        commitment.admitted && (cluster.restore(node, commitment) || cluster.restore(node, anywhere.clone()));
    if !runs {
        cluster.restore(node, Commitment { admitted: false, ..anywhere });
    }
    runs
}

/// Demands that something is listed once.
fn first(at: Field<'_>, listed: &mut BTreeSet<u32>, number: u32, name: &str) -> Result<(), Invalid> {
    if listed.insert(number) { Ok(()) } else { Err(at.refuse(format_args!("{name:?} is listed twice"))) }
}
