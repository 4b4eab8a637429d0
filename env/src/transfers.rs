//! Transfers under way, and the flows that carry them.

use crate::cluster::Item;
use crate::network::FlowId;
use crate::topology::{Direction, NodeId, VertexId};

/// What a transfer is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cargo {
    /// An item on its way to a node, in the version it had when it left.
    Item { node: NodeId, item: Item, version: u32 },
    /// A task's output on its way to its dataset's home.
    Output { task: u32 },
}

impl Cargo {
    /// Tells the cargoes of one task apart.
    pub(crate) fn key(self) -> u64 {
        match self {
            Cargo::Item { item: Item::Layer(layer), .. } => u64::from(layer) << 2,
            Cargo::Item { item: Item::Dataset(dataset), .. } => u64::from(dataset) << 2 | 1,
            Cargo::Output { .. } => 2,
        }
    }
}

/// Bytes between two vertices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    pub cargo: Cargo,
    pub root: VertexId,
    pub vertex: VertexId,
    pub direction: Direction,
    pub bytes: u64,
    /// What carries it, once its first byte has arrived.
    flow: Option<FlowId>,
}

impl Transfer {
    pub(crate) fn new(
        cargo: Cargo,
        root: VertexId,
        vertex: VertexId,
        direction: Direction,
        bytes: u64,
    ) -> Transfer {
        Transfer { cargo, root, vertex, direction, bytes, flow: None }
    }
}

/// Index of a transfer; reused after its end, told apart by its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TransferId {
    slot: u32,
    generation: u32,
}

/// All transfers under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transfers {
    slots: Vec<(u32, Option<Transfer>)>,
    free: Vec<u32>,
    /// Transfer carried by each flow slot.
    carried: Vec<u32>,
}

impl Transfers {
    pub(crate) fn add(&mut self, transfer: Transfer) -> TransferId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            self.slots.len() as u32 - 1
        });
        let (generation, place) = &mut self.slots[slot as usize];
        *place = Some(transfer);
        TransferId { slot, generation: *generation }
    }

    pub(crate) fn get(&self, id: TransferId) -> Option<&Transfer> {
        let (generation, transfer) = &self.slots[id.slot as usize];
        transfer.as_ref().filter(|_| *generation == id.generation)
    }

    /// Notes that a flow carries a transfer from now on.
    pub(crate) fn carry(&mut self, id: TransferId, flow: FlowId) {
        if let (_, Some(transfer)) = &mut self.slots[id.slot as usize] {
            transfer.flow = Some(flow);
        }
        if self.carried.len() <= flow.slot as usize {
            self.carried.resize(flow.slot as usize + 1, 0);
        }
        self.carried[flow.slot as usize] = id.slot;
    }

    /// The transfer that a flow carries.
    pub(crate) fn carried_by(&self, flow: FlowId) -> Option<TransferId> {
        let slot = *self.carried.get(flow.slot as usize)?;
        let (generation, transfer) = &self.slots[slot as usize];
        let carried = transfer.as_ref().is_some_and(|transfer| transfer.flow == Some(flow));
        carried.then_some(TransferId { slot, generation: *generation })
    }

    /// Takes out a transfer, with the flow that carried it.
    pub(crate) fn take(&mut self, id: TransferId) -> Option<(Transfer, Option<FlowId>)> {
        let (generation, place) = &mut self.slots[id.slot as usize];
        if *generation != id.generation {
            return None;
        }
        let transfer = place.take()?;
        *generation += 1;
        self.free.push(id.slot);
        Some((transfer, transfer.flow))
    }

    /// Takes out the transfer whose flow just ended.
    ///
    /// # Panics
    /// When the flow carried none.
    pub(crate) fn take_carried(&mut self, flow: FlowId) -> Transfer {
        let id = self.carried_by(flow).expect("a flow carries a transfer");
        self.take(id).expect("a carried transfer is under way").0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Transfer> {
        self.slots.iter().filter_map(|(_, transfer)| transfer.as_ref())
    }

    /// Transfers of items to a node.
    pub(crate) fn towards(&self, node: NodeId) -> Vec<TransferId> {
        self.with(|cargo| matches!(cargo, Cargo::Item { node: at, .. } if *at == node))
    }

    /// Transfers of a task's outputs.
    pub(crate) fn outputs_of(&self, task: u32) -> Vec<TransferId> {
        self.with(|cargo| matches!(cargo, Cargo::Output { task: of } if *of == task))
    }

    fn with(&self, wanted: impl Fn(&Cargo) -> bool) -> Vec<TransferId> {
        let slots = self.slots.iter().enumerate();
        let wanted = slots.filter(|(_, (_, transfer))| transfer.as_ref().is_some_and(|t| wanted(&t.cargo)));
        wanted
            .map(|(slot, (generation, _))| TransferId { slot: slot as u32, generation: *generation })
            .collect()
    }
}
