//! What changes in the cluster without a decision of ours.

use remora_env::catalogue::DatasetId;
use remora_env::cluster::{Commitment, Item};
use remora_env::topology::{ChannelId, NodeId};
use remora_proto::v1 as wire;

use super::Books;
use crate::service::convert::{self, Delta, Field, Known, MAX_PLACED, Update};
use crate::service::messages::Transfer;
use crate::service::refusal::Refusal;

/// Most sources that number their updates.
const MAX_SOURCES: usize = 1000;

impl Books {
    /// Enters an update, all of it or nothing; false if it was entered before.
    pub fn update(&mut self, update: &Update, changes: &[wire::Change]) -> Result<bool, Refusal> {
        if !self.is_next(update)? {
            return Ok(false);
        }
        let rebuilt = if convert::restructures(changes) { Some(self.rebuilt(changes)?) } else { None };
        let (cluster, names, lost) = match &rebuilt {
            Some((registration, lost)) => (&registration.cluster, &registration.names, lost.as_slice()),
            None => (&self.cluster, &self.names, &[][..]),
        };
        let is_open = |id: &str| {
            let decision = self.decisions.get(id)?;
            Some(!decision.ended && !lost.iter().any(|lost| lost == id))
        };
        let known = Known { cluster, names, now: self.cluster.now, is_open: &is_open };
        let deltas = convert::deltas(&known, changes)?;
        if let Some((registration, lost)) = rebuilt {
            self.adopt(registration, &lost);
        }
        for delta in deltas {
            self.enter(delta);
        }
        if let Some((source, sequence)) = &update.numbered {
            self.sources.insert(source.clone(), *sequence);
        }
        Ok(true)
    }

    /// Whether an update is the next of its source; one that is not yet is refused.
    fn is_next(&self, update: &Update) -> Result<bool, Refusal> {
        let Some((source, sequence)) = &update.numbered else { return Ok(true) };
        let next = match self.sources.get(source) {
            Some(last) => last + 1,
            // One that begins anywhere is believed: the service may have forgotten it.
            None if self.sources.len() < MAX_SOURCES => *sequence,
            None => {
                return Err(Refusal::Full(format!(
                    "there are {MAX_SOURCES} sources already; register the cluster anew"
                )));
            }
        };
        match sequence {
            sequence if *sequence > next => {
                let problem = format_args!("is {sequence}, but {next} is next from source {source:?}");
                Err(Refusal::OutOfOrder(Field::root("sequence").refuse(problem)))
            }
            sequence => Ok(*sequence == next),
        }
    }

    fn end_if_open(&mut self, id: &str) {
        if self.decisions.get(id).is_some_and(|decision| !decision.ended) {
            self.end(id, true);
        }
    }

    /// However long it takes, it has not ended.
    fn confirm(&mut self, id: &str) {
        let decision = self.decisions.get_mut(id);
        if let Some(expires) = decision.and_then(|decision| decision.expires.take()) {
            self.expiring.remove(&(expires, id.to_owned()));
        }
    }

    fn enter(&mut self, delta: Delta) {
        if let Some(node) = delta.node() {
            self.hear(node);
        }
        match delta {
            Delta::Heard(_) => {}
            Delta::Entered(node, items) => {
                self.stored(node, &items);
                // It may have more room than the one before it.
                let admitted = self.cluster.admit_queued(node);
                self.begin_all(node, admitted);
            }
            Delta::Available(node, true) => {
                self.unavailable.remove(&node);
                self.cluster.set_accepting(node, true);
            }
            Delta::Available(node, false) => {
                self.unavailable.insert(node);
                self.cluster.set_accepting(node, false);
            }
            Delta::Stored(node, items) => self.stored(node, &items),
            Delta::Gone(node, items) => {
                for item in items {
                    self.cluster.remove(node, item);
                }
            }
            Delta::Holders(dataset, holders) => self.hold(dataset, &holders),
            Delta::Placed(node, commitment, id) => self.placed(node, *commitment, id),
            Delta::Ended(id) => self.end_if_open(&id),
            Delta::Confirmed(id) => self.confirm(&id),
            Delta::Load(link, loads) => self.load(link, loads),
            Delta::Measured([from, to], measured) => {
                self.estimates.learn(&mut self.cluster, from, to, measured);
            }
        }
    }

    /// Something was heard of a node.
    fn hear(&mut self, node: NodeId) {
        self.heard[node as usize] = self.cluster.now;
        if self.stale_after_s.is_some() && !self.unavailable.contains(&node) {
            self.cluster.set_accepting(node, true);
        }
    }

    /// A report is not cut down to the disk's size: what it says is pinned until all of it is entered.
    fn stored(&mut self, node: NodeId, items: &[Item]) {
        for &item in items {
            self.cluster.store(node, item, true);
            self.cluster.pin(node, item, true);
        }
        for &item in items {
            self.cluster.pin(node, item, false);
        }
    }

    fn hold(&mut self, dataset: DatasetId, holders: &[NodeId]) {
        let item = Item::Dataset(dataset);
        let before = self.cluster.holders(dataset).to_vec();
        for node in before.into_iter().filter(|node| !holders.contains(node)) {
            self.cluster.remove(node, item);
        }
        for &node in holders {
            self.stored(node, &[item]);
        }
    }

    /// A task that is said to run where it does not fit beside the others waits, as far as the books go.
    fn placed(&mut self, node: NodeId, commitment: Commitment, decision_id: Option<String>) {
        if self.cluster.nodes[node as usize].commitments.len() >= MAX_PLACED {
            tracing::warn!(cluster = self.id, node, "more tasks than the books hold; one is left out");
            return;
        }
        let id = self.next_reported;
        self.next_reported += 1;
        let admitted = convert::settle(&mut self.cluster, node, Commitment { id, ..commitment });
        let decision = self.reported(id, node);
        if admitted {
            self.pin(node, &decision.task.clone(), true);
        }
        if let Some(decision_id) = decision_id {
            self.decisions.entry(decision_id).or_insert(decision);
        }
    }

    fn load(&mut self, link: usize, [up, down]: [u32; 2]) {
        let channels = self.cluster.topology.link_channels(link);
        let loads: Vec<(ChannelId, u32)> = match channels {
            [both, other] if both == other => vec![(both, up + down)],
            [out, back] => vec![(out, up), (back, down)],
        };
        // What is measured replaces what was thought to be under way.
        self.flows.forget(&loads);
        for (channel, load) in loads {
            let change = i64::from(load) - i64::from(self.cluster.channel_load(channel));
            self.cluster.add_channel_load(channel, change as i32);
        }
    }

    /// Learns from the transfers of an outcome.
    pub(super) fn learn(&mut self, transfers: &[Transfer]) -> Result<(), Refusal> {
        let is_open = |_: &str| None;
        let (cluster, names, now) = (&self.cluster, &self.names, self.cluster.now);
        let known = Known { cluster, names, now, is_open: &is_open };
        let transfers = transfers.iter().enumerate();
        let measured = transfers
            .map(|(index, transfer)| known.measured(Field::item_of_root("transfers", index), transfer));
        let measured = measured.collect::<Result<Vec<_>, _>>()?;
        measured.into_iter().for_each(|delta| self.enter(delta));
        Ok(())
    }
}
