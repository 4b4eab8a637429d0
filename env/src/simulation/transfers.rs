//! What becomes of a transfer: sent, carried by a flow, arrived or broken off.

use std::sync::Arc;

use super::{Event, Simulation};
use crate::catalogue::normal_quantile;
use crate::cluster::Item;
use crate::network::End;
use crate::random::{Purpose, unit};
use crate::topology::NodeId;
use crate::transfers::{Cargo, Transfer, TransferId};

impl Simulation {
    /// Begins a transfer and books it on the task that caused it.
    pub(super) fn send(&mut self, task: u32, transfer: Transfer) {
        let world = Arc::clone(&self.world);
        let path = world.topology.path(transfer.root, transfer.vertex, transfer.direction);
        let path = path.expect("an accepted scenario is connected");
        let bytes = transfer.bytes;
        let moved = bytes as f64 * path.price;
        self.elapsed.moved_bytes += moved;
        let outcome = &mut self.active_mut(task).outcome;
        outcome.moved_bytes += moved;
        outcome.wan_bytes += if path.wan { bytes } else { 0 };
        outcome.usd += bytes as f64 * path.usd_per_byte;
        match transfer.cargo {
            Cargo::Item { item: Item::Layer(_), .. } => outcome.image_bytes += bytes,
            Cargo::Item { item: Item::Dataset(_), .. } => outcome.input_bytes += bytes,
            Cargo::Output { .. } => outcome.output_bytes += bytes,
        }
        let delay_s = self.delay_s(task, &transfer);
        self.carry(transfer, delay_s);
    }

    /// A transfer whose first byte arrives in so many seconds.
    pub(crate) fn carry(&mut self, transfer: Transfer, delay_s: f64) {
        self.sent_bytes += transfer.bytes;
        self.add_load(&transfer, 1);
        let id = self.transfers.add(transfer);
        self.schedule(self.cluster.now.after_s(delay_s), Event::FlowBegins(id));
    }

    /// Time under way of the first byte: as lucky for a task's cargo on whatever path.
    fn delay_s(&self, task: u32, transfer: &Transfer) -> f64 {
        let topology = &self.world.topology;
        let mut delay_s = 0.0;
        let mut z = None;
        topology.visit_route(transfer.root, transfer.vertex, transfer.direction, |channel, mean_s| {
            let delay = topology.channels()[channel as usize].delay;
            delay_s += if delay.sigma == 0.0 {
                mean_s
            } else {
                let luck = || unit(self.world.seed, Purpose::Delay, u64::from(task), transfer.cargo.key());
                delay.draw_s(*z.get_or_insert_with(|| normal_quantile(luck())))
            };
        });
        delay_s
    }

    fn add_load(&mut self, transfer: &Transfer, change: i32) {
        let cluster = &mut self.cluster;
        self.world.topology.visit_route(transfer.root, transfer.vertex, transfer.direction, |channel, _| {
            cluster.add_channel_load(channel, change);
        });
    }

    pub(super) fn flow_begins(&mut self, id: TransferId) {
        let Some(&transfer) = self.transfers.get(id) else { return };
        let mut channels = std::mem::take(&mut self.channels);
        channels.clear();
        self.world.topology.visit_route(transfer.root, transfer.vertex, transfer.direction, |channel, _| {
            // A shared link that a path enters and leaves carries it once.
            if !channels.contains(&channel) {
                channels.push(channel);
            }
        });
        let down = channels.iter().any(|&channel| self.cluster.channel_capacity(channel) == 0.0);
        if down && self.world.faults.transfers_fail {
            self.channels = channels;
            return self.break_off(id);
        }
        let mut ends = std::mem::take(&mut self.ends);
        let flow = self.network.start(self.cluster.now, transfer.bytes, &channels, &mut ends);
        self.channels = channels;
        self.transfers.carry(id, flow);
        self.announce(ends);
    }

    pub(super) fn announce(&mut self, mut ends: Vec<End>) {
        for end in ends.drain(..) {
            self.schedule(end.at, Event::FlowEnds(end));
        }
        self.ends = ends;
    }

    pub(super) fn flow_ends(&mut self, end: End) {
        let mut ends = std::mem::take(&mut self.ends);
        let finished = self.network.finish(end, &mut ends);
        self.announce(ends);
        if finished.is_some() {
            let transfer = self.transfers.take_carried(end.flow);
            self.add_load(&transfer, -1);
            match transfer.cargo {
                Cargo::Item { node, item, version } => self.item_arrived(node, item, version),
                Cargo::Output { task } => self.output_stored(task),
            }
        }
    }

    fn item_arrived(&mut self, node: NodeId, item: Item, version: u32) {
        let current = match item {
            Item::Layer(_) => true,
            Item::Dataset(dataset) => self.cluster.dataset_version(dataset) == version,
        };
        if current {
            self.cluster.store(node, item, true);
        } else {
            self.forget_arriving(node, item);
        }
        for task in self.waiting.remove(&(node, item)).unwrap_or_default() {
            let active = self.active_mut(task);
            active.awaiting -= 1;
            if active.awaiting == 0 {
                self.fetched(task);
            }
        }
    }

    fn output_stored(&mut self, task: u32) {
        let active = self.active_mut(task);
        active.awaiting -= 1;
        if active.awaiting == 0 {
            self.completed(task);
        }
    }

    /// Ends a transfer before its time; nobody is told.
    pub(super) fn cancel(&mut self, id: TransferId) -> Option<Transfer> {
        let (transfer, flow) = self.transfers.take(id)?;
        if let Some(flow) = flow {
            let mut ends = std::mem::take(&mut self.ends);
            self.network.cancel(self.cluster.now, flow, &mut ends);
            self.announce(ends);
        }
        self.lost_bytes += transfer.bytes;
        self.add_load(&transfer, -1);
        if let Cargo::Item { node, item, .. } = transfer.cargo {
            self.forget_arriving(node, item);
        }
        Some(transfer)
    }

    /// Takes an item off a disk where it was to arrive; a newer version may have been made there.
    fn forget_arriving(&mut self, node: NodeId, item: Item) {
        if self.cluster.is_arriving(item, node) {
            self.cluster.remove(node, item);
        }
    }

    /// Ends a transfer before its time; the tasks that need it are lost.
    pub(super) fn break_off(&mut self, id: TransferId) {
        let Some(transfer) = self.cancel(id) else { return };
        match transfer.cargo {
            Cargo::Item { node, item, .. } => {
                for task in self.waiting.remove(&(node, item)).unwrap_or_default() {
                    self.abort(task);
                }
            }
            Cargo::Output { task } => self.abort(task),
        }
    }
}
