//! A cluster that changed in what it is made of: it is built anew, and what is known of it stays.

use std::collections::BTreeMap;
use std::mem;

use remora_env::catalogue::DatasetId;
use remora_env::cluster::TaskId;
use remora_env::{Arrivals, Cluster, Time};
use remora_proto::v1 as wire;

use super::links::same_channels;
use super::{Books, Decision};
use crate::service::convert::{self, Registration};
use crate::service::names::Names;
use crate::service::refusal::Refusal;

impl Books {
    /// The cluster as changed in what it is made of, with the decisions that are lost.
    pub(super) fn rebuilt(&self, changes: &[wire::Change]) -> Result<(Registration, Vec<String>), Refusal> {
        let mut request = self.portrait().registration();
        let lost = convert::restructure(&mut request, changes)?;
        Ok((convert::changed(&request, self.cluster.now)?, lost))
    }

    /// Goes on with a rebuilt cluster: what is remembered by number is found again by name.
    pub(super) fn adopt(&mut self, registration: Registration, lost: &[String]) {
        let new = Books::new(registration);
        let mut old = mem::replace(&mut self.cluster, new.cluster);
        let old_names = mem::replace(&mut self.names, new.names);
        self.unavailable = new.unavailable;
        // They go by numbers that are not the same any more.
        self.arrivals = Arrivals::default();
        let heard = mem::replace(&mut self.heard, new.heard);
        for (before, node) in nodes_of_both(&old_names, &self.names) {
            self.heard[node as usize] = heard[before as usize];
        }
        // Silence is no fact that the rebuilt cluster knows of.
        self.looked_at = Time::ZERO;
        self.adopt_links(&mut old, &old_names);
        for id in lost {
            self.forget(id);
        }
        for (id, Decision { commitment, node, task, .. }) in new.decisions {
            let Some(decision) = self.decisions.get_mut(&id) else { continue };
            // Versions are counted anew: an input is as it was read, or it is not.
            let current = |(&input, &version): (&DatasetId, &u32)| {
                if old.dataset_version(input) == version { 0 } else { u32::MAX }
            };
            decision.versions = decision.task.inputs.iter().zip(&decision.versions).map(current).collect();
            (decision.commitment, decision.node, decision.task) = (commitment, node, task);
        }
    }

    /// What is known of links that are still there, and what crosses them.
    fn adopt_links(&mut self, old: &mut Cluster, old_names: &Names) {
        let channels = same_channels(&old.topology, &self.cluster.topology);
        let mut tasks: BTreeMap<TaskId, TaskId> = BTreeMap::new();
        for (before, node) in nodes_of_both(old_names, &self.names) {
            // What is placed on a node that stays is listed in the same order.
            let (before, after) = (&old.nodes[before as usize], &self.cluster.nodes[node as usize]);
            let placed = before.commitments.iter().zip(&after.commitments);
            tasks.extend(placed.map(|(before, after)| (before.id, after.id)));
        }
        self.flows = mem::take(&mut self.flows).renumbered(old, &tasks, &channels);
        for (&before, &channel) in &channels {
            self.cluster.add_channel_load(channel, old.channel_load(before) as i32);
        }
        self.estimates = mem::take(&mut self.estimates).renumbered(&mut self.cluster, &channels);
    }

    /// A decision whose node left, with its task, has ended.
    fn forget(&mut self, id: &str) {
        if let Some(decision) = self.decisions.get_mut(id) {
            decision.ended = true;
            if let Some(expires) = decision.expires {
                self.expiring.remove(&(expires, id.to_owned()));
            }
            self.remember_ended(id.to_owned());
        }
    }
}

/// Numbers of the nodes that both have.
fn nodes_of_both<'a>(before: &'a Names, after: &'a Names) -> impl Iterator<Item = (u32, u32)> + 'a {
    after.nodes.iter().filter_map(|(name, &node)| Some((*before.nodes.get(name)?, node)))
}
