//! Episodes side by side, stepped together over threads.

use std::fmt;

use rayon::prelude::{
    IndexedParallelIterator, IntoParallelRefIterator, IntoParallelRefMutIterator, ParallelIterator,
};

use crate::episode::{Episode, Next};
use crate::observation::Observation;
use crate::outcome::Elapsed;
use crate::topology::NodeId;

/// A fixed number of slots, each with an episode that has a decision to make. Whatever the number of
/// threads, results come in the order of the slots and are the same.
///
/// Reset is automatic and explicit: when a step ends an episode, the step says so and hands the ended
/// episode over, and the slot holds the next one already (Gymnasium's `AutoresetMode.SAME_STEP`).
pub struct Batch {
    slots: Vec<Slot>,
    make: Box<Make>,
}

/// Makes the episode number `round`, from 0, of a slot.
type Make = dyn Fn(usize, u64) -> Episode + Send + Sync;

struct Slot {
    episode: Episode,
    round: u64,
}

/// What a step did in one slot.
#[derive(Debug)]
pub struct Stepped {
    /// What happened up to the next decision, or the end.
    pub elapsed: Elapsed,
    /// The episode, if it ended with this step.
    pub ended: Option<Ended>,
}

/// How an episode ended, and what it was.
#[derive(Debug)]
pub enum Ended {
    /// Every task has its outcome.
    Terminated(Box<Episode>),
    /// It was cut off: [`Episode::next`] tells where it stood.
    Truncated(Box<Episode>),
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("slots", &self.slots.len()).finish_non_exhaustive()
    }
}

impl Batch {
    /// `slots` episodes as `make(slot, round)` makes them, which must have a task to place.
    pub fn new(slots: usize, make: impl Fn(usize, u64) -> Episode + Send + Sync + 'static) -> Batch {
        let make: Box<Make> = Box::new(make);
        let slots = (0..slots).map(|slot| Slot { episode: make(slot, 0), round: 0 }).collect();
        Batch { slots, make }
    }

    /// How many slots there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The episode of a slot.
    pub fn episode(&self, slot: usize) -> &Episode {
        &self.slots[slot].episode
    }

    /// Calls `see` with every slot's number and observation; the results in the order of the slots.
    pub fn observe<T: Send>(&self, see: impl Fn(usize, &Observation<'_>) -> T + Sync) -> Vec<T> {
        let seen = self.slots.par_iter().enumerate().map(|(index, slot)| match slot.episode.next() {
            Next::Decide(observation) => see(index, &observation),
            Next::Truncated(_) | Next::Terminated => unreachable!("a slot holds an episode that goes on"),
        });
        seen.collect()
    }

    /// Places the waiting task of every slot on a node, which must be a candidate there.
    ///
    /// # Panics
    /// When there are not as many nodes as slots, or one is no candidate: see [`Episode::step`].
    pub fn step(&mut self, nodes: &[NodeId]) -> Vec<Stepped> {
        assert_eq!(nodes.len(), self.slots.len(), "one node for each slot");
        let make = &self.make;
        let slots = self.slots.par_iter_mut().zip(nodes).enumerate();
        slots.map(|(index, (slot, &node))| slot.step(index, node, make)).collect()
    }
}

impl Slot {
    fn step(&mut self, index: usize, node: NodeId, make: &Make) -> Stepped {
        let elapsed = self.episode.step(node);
        if self.episode.goes_on() {
            return Stepped { elapsed, ended: None };
        }
        self.round += 1;
        let episode = Box::new(std::mem::replace(&mut self.episode, make(index, self.round)));
        let cut_off = episode.pending().is_some();
        let ended = if cut_off { Ended::Truncated(episode) } else { Ended::Terminated(episode) };
        Stepped { elapsed, ended: Some(ended) }
    }
}
