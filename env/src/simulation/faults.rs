//! What faults do: nodes go and return, links change, tasks start anew or are lost.

use std::sync::Arc;

use super::{Event, LinkShares, Simulation};
use crate::cluster::TaskId;
use crate::faults::Change;
use crate::network::FlowId;
use crate::outcome;
use crate::topology::NodeId;

impl Simulation {
    pub(crate) fn schedule_change(&mut self, process: u32, step: u32) {
        let index = process as usize;
        let (wait_s, _) = self.world.faults.processes[index].change(self.world.seed, index, step);
        self.schedule(self.cluster.now.after_s(wait_s), Event::Change { process, step });
    }

    pub(super) fn change(&mut self, process: u32, step: u32) {
        let index = process as usize;
        let (_, change) = self.world.faults.processes[index].change(self.world.seed, index, step);
        match change {
            Change::Goes(node) => self.node_goes(node),
            Change::Returns(node) => self.node_returns(node),
            Change::Degraded(link, share) => self.change_link(link, |shares| shares.degraded = share),
            Change::Played(link, share) => self.change_link(link, |shares| shares.played = share),
        }
        self.schedule_change(process, step + 1);
    }

    fn node_goes(&mut self, node: NodeId) {
        self.executors[node as usize].away += 1;
        if self.executors[node as usize].away > 1 {
            return;
        }
        for id in self.transfers.towards(node) {
            self.cancel(id);
        }
        // None of what it had begun goes on; nothing is admitted in its place.
        for task in self.cluster.set_up(node, false) {
            self.leave(task as u32);
            self.lose(task as u32);
        }
        self.change_access(node, 1);
    }

    fn node_returns(&mut self, node: NodeId) {
        self.executors[node as usize].away -= 1;
        if self.executors[node as usize].away == 0 {
            self.cluster.set_up(node, true);
            self.change_access(node, -1);
        }
    }

    fn change_access(&mut self, node: NodeId, away: i32) {
        let world = Arc::clone(&self.world);
        for link in world.topology.links_of(node) {
            self.change_link(link, |shares| shares.ends_away = shares.ends_away.saturating_add_signed(away));
        }
    }

    fn change_link(&mut self, link: u32, change: impl FnOnce(&mut LinkShares)) {
        let shares = &mut self.shares[link as usize];
        change(shares);
        let share = if shares.ends_away > 0 { 0.0 } else { shares.degraded * shares.played };
        let [up, down] = self.world.topology.link_channels(link as usize);
        for channel in [up, down] {
            let capacity = self.world.topology.channels()[channel as usize].capacity_bytes_per_s * share;
            self.cluster.set_channel_capacity(channel, capacity);
            if capacity == 0.0 && self.world.faults.transfers_fail {
                let flows: Vec<FlowId> = self.network.flows_over(channel).collect();
                for flow in flows {
                    if let Some(id) = self.transfers.carried_by(flow) {
                        self.break_off(id);
                    }
                }
            }
            let mut ends = std::mem::take(&mut self.ends);
            self.network.set_capacity(self.cluster.now, channel, capacity, &mut ends);
            self.announce(ends);
        }
    }

    /// Takes an active task off its node, where it has got to whatever stage, and loses it.
    pub(super) fn abort(&mut self, task: u32) {
        let Some(node) = self.active.get(&task).and_then(|active| active.outcome.node) else { return };
        self.leave(task);
        let admitted = self.cluster.release(TaskId::from(task), node).unwrap_or_default();
        self.lose(task);
        for next in admitted {
            self.admitted(next as u32, node);
        }
    }

    /// Undoes what a task has begun on its node, up to its commitment there.
    pub(crate) fn leave(&mut self, task: u32) {
        let node = self.active_mut(task).outcome.node.expect("only a placed task leaves");
        self.unpin(task, node);
        let now = self.cluster.now;
        let energy_j = self.executors[node as usize].stop(now, task);
        if let Some(energy_j) = energy_j {
            self.active_mut(task).outcome.energy_j += energy_j;
            self.announce_execution(node);
        }
        self.waiting.retain(|(at, _), tasks| {
            if *at == node {
                tasks.retain(|waiting| *waiting != task);
            }
            !tasks.is_empty()
        });
        for id in self.transfers.outputs_of(task) {
            self.cancel(id);
        }
    }

    /// A try of a task came to nothing: it is tried again later, or given up.
    pub(super) fn lose(&mut self, task: u32) {
        let now = self.cluster.now;
        let (retries, backoff) = (self.world.faults.retries, self.world.faults.backoff);
        let outcome = &mut self.active_mut(task).outcome;
        if outcome.retries == retries {
            return self.end(task, outcome::End::GivenUp);
        }
        outcome.try_again(now);
        self.schedule(now + backoff, Event::Arrive(task));
    }
}
