//! The dynamics: discrete events that carry each task through queue, pull, fetch, start,
//! execution and store.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use crate::cluster::{Cluster, Item, TaskId};
use crate::network::{End, Network};
use crate::outcome::{Elapsed, Outcome};
use crate::time::Time;
use crate::topology::{Direction, NodeId, VertexId};
use crate::world::{When, World};

#[derive(Clone, Debug)]
enum Event {
    Arrive(u32),
    /// A transfer's first byte arrives: it now takes its share of the links.
    FlowBegins(u32),
    FlowEnds(End),
    ContainerRuns(u32),
    ExecutionEnds {
        node: NodeId,
        epoch: u32,
    },
}

/// An event in the total order (time, sequence).
#[derive(Clone, Debug)]
struct Scheduled {
    at: Time,
    sequence: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Scheduled) -> bool {
        self.sequence == other.sequence
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Scheduled) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Scheduled) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// What a transfer is for.
#[derive(Clone, Copy, Debug)]
enum Cargo {
    /// An item on its way to a node, in the version it had when it left.
    Item { node: NodeId, item: Item, version: u32 },
    /// A task's output on its way to its dataset's home.
    Output { task: u32 },
}

#[derive(Clone, Debug)]
struct Transfer {
    cargo: Cargo,
    root: VertexId,
    vertex: VertexId,
    direction: Direction,
    bytes: u64,
}

/// A placed task that has not ended.
#[derive(Clone, Debug)]
struct Active {
    /// Items that still have to arrive.
    awaiting: u32,
    pinned: Vec<Item>,
    outcome: Outcome,
}

/// Tasks executing on one node share its CPU: when together they use more than there is, all slow
/// down by the same factor (processor sharing).
#[derive(Clone, Debug, Default)]
struct Executor {
    /// `(task, seconds of work left at full speed, CPU it uses)`
    running: Vec<(u32, f64, u32)>,
    speed: f64,
    settled: Time,
    epoch: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Simulation {
    world: Arc<World>,
    pub(crate) cluster: Cluster,
    network: Network,
    events: BinaryHeap<Reverse<Scheduled>>,
    sequence: u64,
    transfers: Vec<Option<Transfer>>,
    /// Transfer carried by each flow slot.
    carried: Vec<u32>,
    active: BTreeMap<u32, Active>,
    waiting: BTreeMap<(NodeId, Item), Vec<u32>>,
    executors: Vec<Executor>,
    pub(crate) outcomes: Vec<Outcome>,
    elapsed: Elapsed,
    in_system: u32,
    sent_bytes: u64,
}

impl Simulation {
    pub(crate) fn new(world: Arc<World>) -> Simulation {
        let cluster = world.initial_cluster();
        let network =
            Network::new(world.topology.channels().iter().map(|channel| channel.capacity_bytes_per_s));
        let executors = vec![Executor::default(); world.topology.nodes.len()];
        let mut simulation = Simulation {
            cluster,
            network,
            events: BinaryHeap::new(),
            sequence: 0,
            transfers: Vec::new(),
            carried: Vec::new(),
            active: BTreeMap::new(),
            waiting: BTreeMap::new(),
            executors,
            outcomes: Vec::new(),
            elapsed: Elapsed::default(),
            in_system: 0,
            sent_bytes: 0,
            world,
        };
        for (index, planned) in Arc::clone(&simulation.world).tasks.iter().enumerate() {
            if let When::At(at) = planned.when {
                simulation.schedule(at, Event::Arrive(index as u32));
            }
        }
        simulation
    }

    fn schedule(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse(Scheduled { at, sequence: self.sequence, event }));
    }

    /// Runs until a task arrives; `None` when nothing is left to happen.
    pub(crate) fn next_arrival(&mut self) -> Option<u32> {
        while let Some(Reverse(Scheduled { at, event, .. })) = self.events.pop() {
            self.pass_time(at);
            match event {
                Event::Arrive(task) => {
                    self.arrive(task);
                    return Some(task);
                }
                Event::FlowBegins(transfer) => self.flow_begins(transfer),
                Event::FlowEnds(end) => self.flow_ends(end),
                Event::ContainerRuns(task) => self.container_runs(task),
                Event::ExecutionEnds { node, epoch } => self.execution_ends(node, epoch),
            }
        }
        None
    }

    fn pass_time(&mut self, at: Time) {
        let seconds = at.since_s(self.cluster.now);
        self.elapsed.seconds += seconds;
        self.elapsed.task_seconds += seconds * f64::from(self.in_system);
        self.cluster.now = at;
    }

    /// What happened since this was last asked.
    pub(crate) fn take_elapsed(&mut self) -> Elapsed {
        std::mem::take(&mut self.elapsed)
    }

    fn arrive(&mut self, task: u32) {
        let world = Arc::clone(&self.world);
        let planned = &world.tasks[task as usize];
        self.cluster.note_arrival(&planned.task);
        if let Some(dataset) = planned.renews {
            let home = world.catalogue.datasets[dataset as usize].homes[0];
            self.cluster.renew_dataset(dataset, home);
        }
    }

    /// Puts the task that just arrived on a node.
    pub(crate) fn place(&mut self, task: u32, node: NodeId, expected_end: Time) {
        let mut outcome = Outcome::arrived(TaskId::from(task), self.cluster.now);
        outcome.node = Some(node);
        self.in_system += 1;
        self.active.insert(task, Active { awaiting: 0, pinned: Vec::new(), outcome });
        let placed = self.world.tasks[task as usize].task.clone();
        if self.cluster.place(TaskId::from(task), placed, node, expected_end) {
            self.admitted(task, node);
        }
    }

    /// Records that no node can run the task; tasks that follow it never come.
    pub(crate) fn reject(&mut self, task: u32) {
        self.outcomes.push(Outcome::arrived(TaskId::from(task), self.cluster.now));
        for follower in self.world.tasks[task as usize].followers.clone() {
            self.reject(follower);
        }
    }

    fn admitted(&mut self, task: u32, node: NodeId) {
        let items = self.cluster.needs(&self.world.tasks[task as usize].task, node);
        self.active_mut(task).outcome.admitted = self.cluster.now;
        for item in items {
            if !self.cluster.has_item(item, node) {
                if !self.cluster.is_arriving(item, node) {
                    self.fetch(task, node, item);
                }
                self.waiting.entry((node, item)).or_default().push(task);
                self.active_mut(task).awaiting += 1;
            }
            self.cluster.pin(node, item, true);
            self.active_mut(task).pinned.push(item);
        }
        if self.active_mut(task).awaiting == 0 {
            self.fetched(task);
        }
    }

    fn active_mut(&mut self, task: u32) -> &mut Active {
        self.active.get_mut(&task).expect("an event of a task comes while the task is active")
    }

    fn fetch(&mut self, task: u32, node: NodeId, item: Item) {
        let (root, bytes, version) = match item {
            Item::Layer(layer) => {
                let registry = self.world.topology.registry_of(node);
                (registry, self.world.catalogue.layers[layer as usize].bytes, 0)
            }
            Item::Dataset(dataset) => {
                let source = self.cluster.dataset_source(dataset, node);
                let bytes = self.world.catalogue.datasets[dataset as usize].bytes;
                (source, bytes, self.cluster.dataset_version(dataset))
            }
        };
        let root = root.expect("an accepted scenario connects every node with its registry and data");
        self.cluster.store(node, item, false);
        let cargo = Cargo::Item { node, item, version };
        self.send(task, Transfer { cargo, root, vertex: node, direction: Direction::From, bytes });
    }

    /// Begins a transfer and books it on the task that caused it.
    fn send(&mut self, task: u32, transfer: Transfer) {
        let topology = Arc::clone(&self.world.topology);
        let path = topology
            .path(transfer.root, transfer.vertex, transfer.direction)
            .expect("an accepted scenario is connected");
        let moved = transfer.bytes as f64 * path.price;
        self.elapsed.moved_bytes += moved;
        let bytes = transfer.bytes;
        self.sent_bytes += bytes;
        let outcome = &mut self.active_mut(task).outcome;
        outcome.moved_bytes += moved;
        outcome.wan_bytes += if path.wan { bytes } else { 0 };
        match transfer.cargo {
            Cargo::Item { item: Item::Layer(_), .. } => outcome.image_bytes += bytes,
            Cargo::Item { item: Item::Dataset(_), .. } => outcome.input_bytes += bytes,
            Cargo::Output { .. } => outcome.output_bytes += bytes,
        }
        topology.visit_route(transfer.root, transfer.vertex, transfer.direction, |channel, _| {
            self.cluster.add_channel_load(channel, 1);
        });
        let index = self.transfers.iter().position(Option::is_none).unwrap_or_else(|| {
            self.transfers.push(None);
            self.transfers.len() - 1
        });
        self.transfers[index] = Some(transfer);
        self.schedule(self.cluster.now.after_s(path.latency_s), Event::FlowBegins(index as u32));
    }

    fn flow_begins(&mut self, index: u32) {
        let transfer =
            self.transfers[index as usize].clone().expect("a transfer begins once, before it ends");
        let mut channels = Vec::with_capacity(4);
        self.world.topology.visit_route(transfer.root, transfer.vertex, transfer.direction, |channel, _| {
            // A shared link that a path enters and leaves carries it once.
            if !channels.contains(&channel) {
                channels.push(channel);
            }
        });
        let mut ends = Vec::new();
        let flow = self.network.start(self.cluster.now, transfer.bytes, channels, &mut ends);
        if self.carried.len() <= flow.slot as usize {
            self.carried.resize(flow.slot as usize + 1, 0);
        }
        self.carried[flow.slot as usize] = index;
        self.announce(ends);
    }

    fn announce(&mut self, ends: Vec<End>) {
        for end in ends {
            self.schedule(end.at, Event::FlowEnds(end));
        }
    }

    fn flow_ends(&mut self, end: End) {
        let mut ends = Vec::new();
        if self.network.finish(end, &mut ends).is_none() {
            return;
        }
        let index = self.carried[end.flow.slot as usize];
        let transfer = self.transfers[index as usize].take().expect("a flow carries a transfer");
        let topology = Arc::clone(&self.world.topology);
        topology.visit_route(transfer.root, transfer.vertex, transfer.direction, |channel, _| {
            self.cluster.add_channel_load(channel, -1);
        });
        self.announce(ends);
        match transfer.cargo {
            Cargo::Item { node, item, version } => self.item_arrived(node, item, version),
            Cargo::Output { task } => self.stored(task),
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
            self.cluster.remove(node, item);
        }
        for task in self.waiting.remove(&(node, item)).unwrap_or_default() {
            let active = self.active_mut(task);
            active.awaiting -= 1;
            if active.awaiting == 0 {
                self.fetched(task);
            }
        }
    }

    fn fetched(&mut self, task: u32) {
        let now = self.cluster.now;
        let active = self.active_mut(task);
        active.outcome.fetched = now;
        let node = active.outcome.node.expect("an active task is placed");
        let startup_s = self.world.topology.nodes[node as usize].startup_s;
        self.schedule(now.after_s(startup_s), Event::ContainerRuns(task));
    }

    fn container_runs(&mut self, task: u32) {
        let now = self.cluster.now;
        let active = self.active_mut(task);
        active.outcome.started = now;
        let node = active.outcome.node.expect("an active task is placed");
        let planned = &self.world.tasks[task as usize];
        let kind = self.world.catalogue.kind(&planned.task);
        let device = &self.world.topology.nodes[node as usize].kind;
        let time = kind.execution_on(device).expect("a task is placed where its kind can run");
        let work = (task, time.quantile(planned.luck), kind.cpu_use_millis);
        self.settle(node);
        self.executors[node as usize].running.push(work);
        self.share_cpu(node);
    }

    /// Accounts for the work done on a node since its speed last changed.
    fn settle(&mut self, node: NodeId) {
        let executor = &mut self.executors[node as usize];
        let done = executor.speed * self.cluster.now.since_s(executor.settled);
        for (_, left, _) in &mut executor.running {
            *left = (*left - done).max(0.0);
        }
        executor.settled = self.cluster.now;
    }

    /// Sets the node's speed for its present tasks and announces who ends first.
    fn share_cpu(&mut self, node: NodeId) {
        let capacity = f64::from(self.world.topology.nodes[node as usize].cpu_millis);
        let executor = &mut self.executors[node as usize];
        let used: u64 = executor.running.iter().map(|(_, _, cpu)| u64::from(*cpu)).sum();
        executor.speed = if used as f64 > capacity { capacity / used as f64 } else { 1.0 };
        executor.epoch += 1;
        let shortest = executor.running.iter().map(|(_, left, _)| *left).min_by(f64::total_cmp);
        if let Some(left) = shortest {
            let (speed, epoch) = (executor.speed, executor.epoch);
            self.schedule(self.cluster.now.after_s(left / speed), Event::ExecutionEnds { node, epoch });
        }
    }

    fn execution_ends(&mut self, node: NodeId, epoch: u32) {
        if self.executors[node as usize].epoch != epoch {
            return;
        }
        self.settle(node);
        let running = &mut self.executors[node as usize].running;
        let shortest = running.iter().enumerate().min_by(|(_, a), (_, b)| a.1.total_cmp(&b.1));
        let (index, _) = shortest.expect("an end was announced for a running task");
        let (task, _, _) = running.remove(index);
        self.share_cpu(node);
        self.executed(task, node);
    }

    fn executed(&mut self, task: u32, node: NodeId) {
        self.active_mut(task).outcome.executed = self.cluster.now;
        let output = self.world.tasks[task as usize].task.output;
        let home = output.map(|dataset| self.world.catalogue.datasets[dataset as usize].homes[0]);
        match (output, home) {
            (Some(dataset), Some(home)) if home != node => {
                let bytes = self.world.catalogue.datasets[dataset as usize].bytes;
                let cargo = Cargo::Output { task };
                self.send(
                    task,
                    Transfer { cargo, root: home, vertex: node, direction: Direction::To, bytes },
                );
            }
            _ => self.stored(task),
        }
    }

    /// The output, if any, is at its home: the task is complete.
    fn stored(&mut self, task: u32) {
        let world = Arc::clone(&self.world);
        let planned = &world.tasks[task as usize];
        let Active { mut outcome, pinned, .. } = self.active.remove(&task).expect("a task completes once");
        let node = outcome.node.expect("an active task is placed");
        outcome.completed = self.cluster.now;
        let deadline_s = world.catalogue.kind(&planned.task).deadline_s;
        outcome.deadline_missed = deadline_s.is_some_and(|deadline_s| outcome.response_s() > deadline_s);
        self.outcomes.push(outcome);
        self.in_system -= 1;
        for item in pinned {
            self.cluster.pin(node, item, false);
        }
        if let Some(dataset) = planned.task.output {
            self.cluster.publish(dataset, node);
        }
        let admitted = self.cluster.release(TaskId::from(task), node).expect("a placed task is committed");
        for next in admitted {
            self.admitted(next as u32, node);
        }
        for &follower in &planned.followers {
            self.schedule(self.cluster.now, Event::Arrive(follower));
        }
    }

    /// Checks the books of cluster and network against each other.
    ///
    /// # Panics
    /// When they do not balance: a bug of this crate.
    pub(crate) fn check(&self) {
        self.cluster.check();
        self.network.check();
        let under_way: u64 = self.transfers.iter().flatten().map(|transfer| transfer.bytes).sum();
        assert_eq!(self.sent_bytes, self.network.delivered_bytes + under_way, "bytes sent and received");
        assert_eq!(self.in_system as usize, self.active.len(), "tasks in the system");
        let committed: usize = self.cluster.nodes.iter().map(|node| node.commitments.len()).sum();
        assert_eq!(committed, self.active.len(), "tasks committed");
    }
}
