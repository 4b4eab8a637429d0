//! What of a node is allocated, to whom, and who waits for it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::{Cluster, Commitment, Expected, NodeState, TaskId};
use crate::catalogue::{ExecutionTime, Requests, Task};
use crate::device::Arch;
use crate::fit::Class;
use crate::time::Time;
use crate::topology::NodeId;

impl Cluster {
    /// Whether the node could ever run the task: architecture, device kind, labels, whole capacity.
    pub fn can_run(&self, task: &Task, node: NodeId) -> bool {
        self.execution(task, node).is_some() && self.has_disk_for(task, node)
    }

    /// Execution time of the task on the nodes of each class.
    pub(crate) fn executions(&self, task: &Task) -> &[Option<ExecutionTime>] {
        self.fits.row(task.kind, &self.topology, &self.catalogue)
    }

    /// Execution time of the task on the node, if its requests and labels allow it there.
    #[inline]
    pub fn execution(&self, task: &Task, node: NodeId) -> Option<&ExecutionTime> {
        self.fits.execution(task.kind, node, &self.topology, &self.catalogue)
    }

    fn has_disk_for(&self, task: &Task, node: NodeId) -> bool {
        let class = self.class(node);
        self.disk_needed(task)[class.arch as usize].is_some_and(|bytes| bytes <= class.disk_bytes)
    }

    /// What the node has in common with others alike.
    #[inline]
    pub(crate) fn class(&self, node: NodeId) -> &Class {
        self.fits.class(node)
    }

    /// Nodes of a class differ in nothing but name and place.
    pub fn classes(&self) -> &[Class] {
        self.fits.classes()
    }

    /// Index of the node's class in [`Cluster::classes`].
    #[inline]
    pub fn class_of(&self, node: NodeId) -> u32 {
        self.fits.class_of(node)
    }

    /// Bytes of disk that the task takes on a node of each of [`Arch::ALL`]; `None` where its image
    /// does not exist.
    pub fn disk_needed(&self, task: &Task) -> [Option<u64>; 3] {
        let datasets = task.inputs.iter().chain(&task.outputs);
        let data: u64 = datasets.map(|&d| self.catalogue.datasets[d as usize].bytes).sum();
        Arch::ALL.map(|arch| {
            let image = task.image.map_or(Some(0), |image| self.catalogue.image_bytes(image, arch));
            image.map(|image| image + data)
        })
    }

    /// Whether the node, which could run the task, takes it now: it is up and accepting, and has room or a
    /// place in its queue.
    #[inline]
    pub fn takes(&self, task: &Task, node: NodeId) -> bool {
        let state = &self.nodes[node as usize];
        let limit = self.topology.queue_limit.unwrap_or(u32::MAX);
        state.up && state.accepting && (state.queued < limit || self.fits_now(task, node))
    }

    /// Whether the task's requests are free on the node and nobody waits before it.
    #[inline]
    pub fn fits_now(&self, task: &Task, node: NodeId) -> bool {
        self.nodes[node as usize].queued == 0 && self.has_room(task, node)
    }

    #[inline]
    fn has_room(&self, task: &Task, node: NodeId) -> bool {
        self.has_room_for(&self.catalogue.kind(task).requests, node)
    }

    /// [`Cluster::fits_now`] for a task with these requests.
    #[inline]
    pub fn fit_now(&self, requests: &Requests, node: NodeId) -> bool {
        self.nodes[node as usize].queued == 0 && self.has_room_for(requests, node)
    }

    #[inline]
    fn has_room_for(&self, requests: &Requests, node: NodeId) -> bool {
        let state = &self.nodes[node as usize];
        state.up
            && requests.cpu_millis <= state.cpu_free_millis
            && requests.memory_bytes <= state.memory_free_bytes
            && (requests.accelerators == 0 || free_accelerators(state, requests) >= requests.accelerators)
    }

    /// Commits a task to a node; it is admitted at once where it fits and nobody waits, else it
    /// joins the node's queue, and is expected to wait and then to take so long. Returns whether it was
    /// admitted.
    pub fn place(&mut self, id: TaskId, task: Arc<Task>, node: NodeId, expected: Expected) -> bool {
        let admitted = self.fits_now(&task, node);
        let Expected { wait, span, .. } = expected;
        self.note_lack(&task, node, expected);
        let expected_end = self.now + wait + span;
        let accelerators = Vec::new();
        let mut commitment = Commitment { id, task, expected_end, span, admitted: false, accelerators };
        if admitted {
            let before = self.nodes[node as usize].cpu_use_millis;
            self.admit(node, &mut commitment);
            self.stretch(node, before);
        } else {
            self.node_mut(node).queued += 1;
        }
        self.node_mut(node).commitments.push(commitment);
        admitted
    }

    fn admit(&mut self, node: NodeId, commitment: &mut Commitment) {
        let catalogue = Arc::clone(&self.catalogue);
        let kind = catalogue.kind(&commitment.task);
        let state = self.node_mut(node);
        state.cpu_free_millis -= kind.requests.cpu_millis;
        state.memory_free_bytes -= kind.requests.memory_bytes;
        state.cpu_use_millis += u64::from(kind.cpu_use_millis);
        if commitment.accelerators.is_empty() {
            commitment.accelerators = choose_accelerators(state, &kind.requests);
        }
        for &index in &commitment.accelerators {
            state.accelerator_free_millis[index as usize] -= kind.requests.accelerator_millis;
        }
        commitment.admitted = true;
    }

    /// After the CPU in use on a node has changed from `before` thousandths: where that is or was more than
    /// there is, what is left of those executing is stretched or shrinks with it.
    fn stretch(&mut self, node: NodeId, before: u64) {
        let (now, capacity) = (self.now, u64::from(self.class(node).cpu_millis));
        let state = self.node_mut(node);
        let (before, after) = (before.max(capacity), state.cpu_use_millis.max(capacity));
        if before != after {
            let executing = state.commitments.iter_mut().filter(|commitment| commitment.admitted);
            for commitment in executing.filter(|commitment| commitment.expected_end > now) {
                let left_s = commitment.expected_end.since_s(now) * after as f64 / before as f64;
                commitment.expected_end = now.after_s(left_s);
            }
        }
    }

    /// When the room for one more task on a node is expected, if nothing is placed there in between: first
    /// come, first served, each that ends makes room for one.
    pub fn expected_room(&self, node: NodeId) -> Time {
        let state = &self.nodes[node as usize];
        let mut ends: BinaryHeap<Reverse<Time>> =
            state.admitted().map(|running| Reverse(running.expected_end_from(self.now))).collect();
        for waiting in state.commitments.iter().filter(|waiting| !waiting.admitted) {
            let room = ends.pop().map_or(self.now, |Reverse(end)| end);
            ends.push(Reverse(room + waiting.span));
        }
        ends.pop().map_or(self.now, |Reverse(end)| end)
    }

    /// Enters a task that runs or waits on the node already, as an orchestrator reports it. An
    /// admitted one that names no accelerators gets those that fit most tightly. Returns false, with
    /// nothing changed, when it is said to be admitted but what it requests or holds is not free.
    pub fn restore(&mut self, node: NodeId, mut commitment: Commitment) -> bool {
        if !commitment.admitted {
            commitment.accelerators.clear();
            self.node_mut(node).queued += 1;
        } else if self.has_room(&commitment.task, node) && self.can_hold(node, &commitment) {
            self.admit(node, &mut commitment);
        } else {
            return false;
        }
        self.node_mut(node).commitments.push(commitment);
        true
    }

    /// Whether the accelerators that a commitment names are as many as requested, distinct and free.
    fn can_hold(&self, node: NodeId, commitment: &Commitment) -> bool {
        let requests = &self.catalogue.kind(&commitment.task).requests;
        let free = &self.nodes[node as usize].accelerator_free_millis;
        let named = &commitment.accelerators;
        let distinct = named.iter().enumerate().all(|(at, index)| !named[..at].contains(index));
        let share =
            |index: &u32| free.get(*index as usize).is_some_and(|&free| free >= requests.accelerator_millis);
        named.is_empty()
            || named.len() == requests.accelerators as usize && distinct && named.iter().all(share)
    }

    /// Ends a task wherever it stands and admits those of the queue that now fit: the highest
    /// priority first, then first come, first served. Returns the admitted ones; `None` when the node
    /// has no such task.
    pub fn release(&mut self, id: TaskId, node: NodeId) -> Option<Vec<TaskId>> {
        let catalogue = Arc::clone(&self.catalogue);
        let state = self.node_mut(node);
        let index = state.commitments.iter().position(|commitment| commitment.id == id)?;
        let ended = state.commitments.remove(index);
        if ended.admitted {
            let kind = catalogue.kind(&ended.task);
            state.cpu_free_millis += kind.requests.cpu_millis;
            state.memory_free_bytes += kind.requests.memory_bytes;
            state.cpu_use_millis -= u64::from(kind.cpu_use_millis);
            for &index in &ended.accelerators {
                state.accelerator_free_millis[index as usize] += kind.requests.accelerator_millis;
            }
            let before = state.cpu_use_millis + u64::from(kind.cpu_use_millis);
            self.stretch(node, before);
        } else {
            state.queued -= 1;
        }
        Some(self.admit_queued(node))
    }

    /// Admits those of the node's queue that fit now, in the order of [`Cluster::release`].
    pub fn admit_queued(&mut self, node: NodeId) -> Vec<TaskId> {
        let mut admitted = Vec::new();
        while self.nodes[node as usize].queued > 0 {
            let index = self.head_of_queue(node);
            if !self.has_room(&self.nodes[node as usize].commitments[index].task, node) {
                break;
            }
            let mut commitment = self.node_mut(node).commitments.remove(index);
            let before = self.nodes[node as usize].cpu_use_millis;
            self.admit(node, &mut commitment);
            self.stretch(node, before);
            commitment.expected_end = self.now + commitment.span;
            admitted.push(commitment.id);
            let state = self.node_mut(node);
            state.commitments.insert(index, commitment);
            state.queued -= 1;
        }
        admitted
    }

    /// Index of the commitment that is admitted next, where some wait.
    fn head_of_queue(&self, node: NodeId) -> usize {
        let commitments = self.nodes[node as usize].commitments.iter().enumerate();
        let waiting = commitments.filter(|(_, commitment)| !commitment.admitted);
        // Of equals the first.
        let head = waiting.rev().max_by_key(|(_, waiting)| self.catalogue.kind(&waiting.task).priority);
        head.expect("the queue counts the commitments that are not admitted").0
    }

    /// A node goes, with everything placed on it, or comes back idle. Its disk stays as it is. Returns
    /// what was placed there, oldest first.
    pub fn set_up(&mut self, node: NodeId, up: bool) -> Vec<TaskId> {
        self.node_mut(node).up = up;
        let lost: Vec<_> = self.nodes[node as usize].commitments.iter().map(|lost| lost.id).collect();
        for &id in &lost {
            // Nothing is admitted to a node that is down.
            self.release(id, node);
        }
        lost
    }

    /// From now on a node takes new tasks, or does not; what is placed there stays.
    pub fn set_accepting(&mut self, node: NodeId, accepting: bool) {
        self.node_mut(node).accepting = accepting;
    }

    /// What is placed on a node, to be numbered anew.
    pub(crate) fn commitments_mut(&mut self, node: NodeId) -> &mut [Commitment] {
        &mut self.node_mut(node).commitments
    }
}

/// How many accelerators have the requested share free.
fn free_accelerators(state: &NodeState, requests: &Requests) -> u32 {
    state.accelerator_free_millis.iter().filter(|&&free| free >= requests.accelerator_millis).count() as u32
}

/// The accelerators that fit most tightly, so that whole ones stay whole.
fn choose_accelerators(state: &NodeState, requests: &Requests) -> Vec<u32> {
    let mut fitting: Vec<u32> = (0..state.accelerator_free_millis.len() as u32)
        .filter(|&i| state.accelerator_free_millis[i as usize] >= requests.accelerator_millis)
        .collect();
    fitting.sort_by_key(|&i| state.accelerator_free_millis[i as usize]);
    fitting.truncate(requests.accelerators as usize);
    fitting
}
