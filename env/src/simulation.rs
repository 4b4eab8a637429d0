//! The dynamics: discrete events that carry each task through queue, pull, fetch, start, execution
//! and store, and the faults that throw it back.

mod faults;
mod transfers;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use crate::cluster::{Cluster, Expected, Item, TaskId};
use crate::executor::Executor;
use crate::network::{End, Network};
use crate::outcome::{self, Elapsed, Outcome};
use crate::time::Time;
use crate::topology::{ChannelId, Direction, NodeId, VertexId};
use crate::transfers::{Cargo, Transfer, TransferId, Transfers};
use crate::world::{When, World};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// A task comes, or comes again after it was lost.
    Arrive(u32),
    /// A transfer's first byte arrives: it now takes its share of the links.
    FlowBegins(TransferId),
    FlowEnds(End),
    /// The container of a task's `attempt` runs.
    ContainerRuns {
        task: u32,
        attempt: u32,
    },
    ExecutionEnds {
        node: NodeId,
        epoch: u32,
    },
    /// A process of [`crate::faults::Faults`] makes its change number `step`.
    Change {
        process: u32,
        step: u32,
    },
    /// The state of the cluster is reported.
    Report,
}

/// An event in the total order (time, sequence).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scheduled {
    at: Time,
    sequence: u64,
    pub(crate) event: Event,
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

/// A task that arrived and has not ended.
#[derive(Clone, Debug)]
pub(crate) struct Active {
    /// Transfers that it waits for: of its items before it starts, of its outputs after.
    pub(crate) awaiting: u32,
    pub(crate) pinned: Vec<Item>,
    pub(crate) outcome: Outcome,
}

/// Shares of a link's capacity by cause; they multiply.
#[derive(Clone, Copy, Debug)]
struct LinkShares {
    degraded: f64,
    played: f64,
    /// How many of its ends are away.
    ends_away: u32,
}

/// What is known of the cluster where its state is reported late.
#[derive(Clone, Debug)]
pub(crate) struct Reported {
    /// As it was last reported, with the arrivals and decisions since.
    pub(crate) cluster: Cluster,
    /// Everything as it was then, to imagine what has become of it; in an imagined simulation there is none.
    pub(crate) then: Option<Arc<Simulation>>,
    /// Decisions since, in order.
    pub(crate) decisions: Vec<(u32, NodeId, Expected)>,
}

/// In place of how many tasks one waits for: it never comes.
pub(crate) const ORPHANED: u32 = u32::MAX;

/// One run of a world under somebody's decisions.
#[derive(Clone, Debug)]
pub(crate) struct Simulation {
    pub(crate) world: Arc<World>,
    pub(crate) cluster: Cluster,
    /// `None` if reports are immediate.
    pub(crate) reported: Option<Box<Reported>>,
    network: Network,
    pub(crate) events: BinaryHeap<Reverse<Scheduled>>,
    sequence: u64,
    pub(crate) processed: u64,
    /// Checks the books after every event.
    pub(crate) audited: bool,
    transfers: Transfers,
    pub(crate) active: BTreeMap<u32, Active>,
    waiting: BTreeMap<(NodeId, Item), Vec<u32>>,
    pub(crate) executors: Vec<Executor>,
    /// For each task how many of those that it waits for have not completed.
    pub(crate) awaits: Vec<u32>,
    shares: Vec<LinkShares>,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) ended: usize,
    elapsed: Elapsed,
    sent_bytes: u64,
    /// Bytes of transfers that were broken off.
    lost_bytes: u64,
    /// Scratch.
    ends: Vec<End>,
    channels: Vec<ChannelId>,
}

impl Simulation {
    pub(crate) fn new(world: Arc<World>) -> Simulation {
        let cluster = world.initial_cluster();
        let mut simulation = Simulation::of(world, cluster);
        simulation.schedule_first();
        if simulation.world.faults.telemetry.is_some() {
            simulation.remember();
        }
        simulation
    }

    /// Nothing is under way, and nothing comes.
    pub(crate) fn of(world: Arc<World>, cluster: Cluster) -> Simulation {
        let channels = 0..world.topology.channels().len() as ChannelId;
        let whole = LinkShares { degraded: 1.0, played: 1.0, ends_away: 0 };
        let varying = !world.faults.processes.is_empty();
        Simulation {
            network: Network::new(channels.map(|channel| cluster.channel_capacity(channel))),
            reported: None,
            cluster,
            events: BinaryHeap::new(),
            sequence: 0,
            processed: 0,
            audited: false,
            transfers: Transfers::default(),
            active: BTreeMap::new(),
            waiting: BTreeMap::new(),
            executors: world.topology.nodes.iter().map(Executor::new).collect(),
            awaits: world.tasks.iter().map(|planned| planned.awaits).collect(),
            shares: if varying { vec![whole; world.topology.links.len()] } else { Vec::new() },
            outcomes: Vec::new(),
            ended: 0,
            elapsed: Elapsed::default(),
            sent_bytes: 0,
            lost_bytes: 0,
            ends: Vec::new(),
            channels: Vec::new(),
            world,
        }
    }

    fn schedule_first(&mut self) {
        let world = Arc::clone(&self.world);
        for (index, planned) in world.tasks.iter().enumerate() {
            if let When::At(at) = planned.when {
                self.schedule(at, Event::Arrive(index as u32));
            }
        }
        for process in 0..world.faults.processes.len() as u32 {
            self.schedule_change(process, 0);
        }
        if let Some(period) = world.faults.telemetry {
            self.schedule(period, Event::Report);
        }
    }

    /// A copy that forgets the outcomes so far: for looking ahead.
    pub(crate) fn branch(&mut self) -> Simulation {
        let outcomes = std::mem::take(&mut self.outcomes);
        let branch = self.clone();
        self.outcomes = outcomes;
        branch
    }

    pub(crate) fn schedule(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse(Scheduled { at, sequence: self.sequence, event }));
    }

    /// Runs until a task asks for a node; `None` when every task has ended.
    pub(crate) fn next_arrival(&mut self) -> Option<u32> {
        while self.ended < self.world.tasks.len() {
            let next = self.events.pop();
            let Reverse(Scheduled { at, event, .. }) = next.expect("a task that has not ended has an event");
            self.pass_time(at);
            self.processed += 1;
            match event {
                Event::Arrive(task) => {
                    self.arrive(task);
                    return Some(task);
                }
                Event::FlowBegins(transfer) => self.flow_begins(transfer),
                Event::FlowEnds(end) => self.flow_ends(end),
                Event::ContainerRuns { task, attempt } => self.container_runs(task, attempt),
                Event::ExecutionEnds { node, epoch } => self.execution_ends(node, epoch),
                Event::Change { process, step } => self.change(process, step),
                Event::Report => self.report(),
            }
            if self.audited {
                self.check();
            }
        }
        None
    }

    fn pass_time(&mut self, at: Time) {
        let seconds = at.since_s(self.cluster.now);
        self.elapsed.seconds += seconds;
        self.elapsed.task_seconds += seconds * self.active.len() as f64;
        self.cluster.now = at;
    }

    /// What happened since this was last asked.
    pub(crate) fn take_elapsed(&mut self) -> Elapsed {
        std::mem::take(&mut self.elapsed)
    }

    /// The cluster as policies see it.
    pub(crate) fn observed(&self) -> &Cluster {
        self.reported.as_ref().map_or(&self.cluster, |reported| &reported.cluster)
    }

    /// Takes the present for what was last reported.
    fn remember(&mut self) {
        let cluster = self.cluster.clone();
        // What is imagined is not imagined from.
        let imagined = self.reported.take().is_some_and(|reported| reported.then.is_none());
        let then = (!imagined).then(|| Arc::new(self.branch()));
        self.reported = Some(Box::new(Reported { cluster, then, decisions: Vec::new() }));
    }

    fn report(&mut self) {
        if let Some(period) = self.world.faults.telemetry {
            self.schedule(self.cluster.now + period, Event::Report);
        }
        self.remember();
    }

    fn arrive(&mut self, task: u32) {
        let now = self.cluster.now;
        if let Some(reported) = &mut self.reported {
            reported.cluster.now = now;
        }
        if self.active.contains_key(&task) {
            return;
        }
        let world = Arc::clone(&self.world);
        let planned = &world.tasks[task as usize];
        let outcome = Outcome::arrived(TaskId::from(task), now);
        self.active.insert(task, Active { awaiting: 0, pinned: Vec::new(), outcome });
        let reported = self.reported.as_mut().map(|reported| &mut reported.cluster);
        for cluster in [Some(&mut self.cluster), reported].into_iter().flatten() {
            cluster.note_arrival(&planned.task);
            if let Some(dataset) = planned.renews {
                let home = world.catalogue.datasets[dataset as usize].homes[0];
                cluster.renew_dataset(dataset, home);
            }
        }
    }

    /// Puts the task that just arrived on a node.
    pub(crate) fn place(&mut self, task: u32, node: NodeId, expected: Expected) {
        let placed = Arc::clone(&self.world.tasks[task as usize].task);
        let id = TaskId::from(task);
        if let Some(reported) = &mut self.reported {
            reported.cluster.place(id, Arc::clone(&placed), node, expected);
            reported.decisions.push((task, node, expected));
        }
        if !self.cluster.takes(&placed, node) {
            // The decision was made on an old report.
            return self.lose(task);
        }
        self.active_mut(task).outcome.node = Some(node);
        if self.cluster.place(id, placed, node, expected) {
            self.admitted(task, node);
        }
    }

    /// Asks for a node for the task that just arrived once more later, since none takes it now.
    pub(crate) fn postpone(&mut self, task: u32) {
        self.schedule(self.cluster.now + self.world.faults.backoff, Event::Arrive(task));
    }

    fn active_mut(&mut self, task: u32) -> &mut Active {
        self.active.get_mut(&task).expect("an event of a task comes while the task is active")
    }

    pub(crate) fn admitted(&mut self, task: u32, node: NodeId) {
        let items = self.cluster.needs(&self.world.tasks[task as usize].task, node);
        let mut awaiting = 0;
        for &item in &items {
            if !self.cluster.has_or_awaits(item, node) {
                self.fetch(task, node, item);
            }
            if !self.cluster.has_item(item, node) {
                self.waiting.entry((node, item)).or_default().push(task);
                awaiting += 1;
            }
            self.cluster.pin(node, item, true);
        }
        let now = self.cluster.now;
        let active = self.active_mut(task);
        active.outcome.admitted = now;
        active.awaiting = awaiting;
        active.pinned = items;
        if awaiting == 0 {
            self.fetched(task);
        }
    }

    fn fetch(&mut self, task: u32, node: NodeId, item: Item) {
        let (root, bytes, version) = self.source(node, item);
        // An accepted scenario has somebody who has it; of what nobody has, as in facts with gaps, nothing is moved.
        self.cluster.store(node, item, root.is_none());
        if let Some(root) = root {
            let cargo = Cargo::Item { node, item, version };
            self.send(task, Transfer::new(cargo, root, node, Direction::From, bytes));
        }
    }

    /// Where a node has an item from, if anybody else has it; how many bytes it has, and its version.
    pub(crate) fn source(&self, node: NodeId, item: Item) -> (Option<VertexId>, u64, u32) {
        let (root, bytes, version) = match item {
            Item::Layer(layer) => {
                let bytes = self.world.catalogue.layers[layer as usize].bytes;
                (self.cluster.layer_source(layer, node), bytes, 0)
            }
            Item::Dataset(dataset) => {
                let bytes = self.world.catalogue.datasets[dataset as usize].bytes;
                (self.cluster.dataset_source(dataset, node), bytes, self.cluster.dataset_version(dataset))
            }
        };
        (root.filter(|&root| root != node), bytes, version)
    }

    fn fetched(&mut self, task: u32) {
        let now = self.cluster.now;
        let outcome = &mut self.active_mut(task).outcome;
        outcome.fetched = now;
        let (node, attempt) =
            (outcome.node.expect("a task is fetched for where it is placed"), outcome.retries);
        let startup_s = self.world.topology.nodes[node as usize].startup_s;
        self.schedule(now.after_s(startup_s), Event::ContainerRuns { task, attempt });
    }

    fn container_runs(&mut self, task: u32, attempt: u32) {
        let now = self.cluster.now;
        let Some(active) = self.active.get_mut(&task).filter(|active| active.outcome.retries == attempt)
        else {
            return;
        };
        active.outcome.started = now;
        let node = active.outcome.node.expect("a container runs where its task is placed");
        let planned = &self.world.tasks[task as usize];
        let kind = self.world.catalogue.kind(&planned.task);
        let time =
            self.cluster.execution(&planned.task, node).expect("a task is placed where its kind can run");
        let slowdown =
            self.world.faults.stragglers.map_or(1.0, |s| s.slowdown(self.world.seed, task, attempt));
        let work_s = time.quantile(planned.luck) * slowdown;
        let executor = &mut self.executors[node as usize];
        executor.begin(now, task, work_s, kind.cpu_use_millis);
        self.announce_execution(node);
    }

    pub(crate) fn announce_execution(&mut self, node: NodeId) {
        let executor = &self.executors[node as usize];
        if let Some((at, epoch)) = executor.first_end() {
            self.schedule(at, Event::ExecutionEnds { node, epoch });
        }
    }

    fn execution_ends(&mut self, node: NodeId, epoch: u32) {
        let now = self.cluster.now;
        let Some((task, energy_j)) = self.executors[node as usize].end_first(now, epoch) else { return };
        self.announce_execution(node);
        self.executed(task, node, energy_j);
    }

    fn executed(&mut self, task: u32, node: NodeId, energy_j: f64) {
        let world = Arc::clone(&self.world);
        let now = self.cluster.now;
        let planned = &world.tasks[task as usize];
        let memory_gb = world.catalogue.kind(&planned.task).requests.memory_bytes as f64 / 1e9;
        let usd_per_gb_s = world.topology.nodes[node as usize].usd_per_gb_s;
        let outcome = &mut self.active_mut(task).outcome;
        outcome.executed = now;
        outcome.energy_j += energy_j;
        outcome.usd += usd_per_gb_s * memory_gb * now.since_s(outcome.started);
        let mut awaiting = 0;
        for &dataset in &planned.task.outputs {
            let dataset = &world.catalogue.datasets[dataset as usize];
            if let Some(&home) = dataset.homes.first().filter(|&&home| home != node) {
                awaiting += 1;
                let cargo = Cargo::Output { task };
                self.send(task, Transfer::new(cargo, home, node, Direction::To, dataset.bytes));
            }
        }
        self.active_mut(task).awaiting = awaiting;
        if awaiting == 0 {
            self.completed(task);
        }
    }

    /// The outputs, if any, are at their homes.
    pub(crate) fn completed(&mut self, task: u32) {
        let world = Arc::clone(&self.world);
        let planned = &world.tasks[task as usize];
        let node = self.active_mut(task).outcome.node.expect("a task completes where it is placed");
        self.unpin(task, node);
        for &dataset in &planned.task.outputs {
            self.cluster.publish(dataset, node);
        }
        let admitted = self.cluster.release(TaskId::from(task), node).expect("a placed task is committed");
        for next in admitted {
            self.admitted(next as u32, node);
        }
        self.end(task, outcome::End::Completed);
        for &follower in &planned.followers {
            let awaits = &mut self.awaits[follower as usize];
            if *awaits == ORPHANED {
                continue;
            }
            *awaits -= 1;
            if *awaits == 0 {
                self.schedule(self.cluster.now, Event::Arrive(follower));
            }
        }
    }

    fn unpin(&mut self, task: u32, node: NodeId) {
        for item in std::mem::take(&mut self.active_mut(task).pinned) {
            self.cluster.pin(node, item, false);
        }
    }

    /// Enters the outcome of an active task. If it did not complete, those that follow it never come.
    pub(crate) fn end(&mut self, task: u32, end: outcome::End) {
        let mut outcome = self.active.remove(&task).expect("a task ends once").outcome;
        let kind = self.world.catalogue.kind(&self.world.tasks[task as usize].task);
        outcome.end = end;
        outcome.completed = self.cluster.now;
        outcome.deadline_missed = outcome.is_completed()
            && kind.deadline_s.is_some_and(|deadline_s| outcome.response_s() > deadline_s);
        self.ended += 1;
        self.outcomes.push(outcome);
        if end != outcome::End::Completed {
            self.orphan_followers(task);
        }
    }

    fn orphan_followers(&mut self, task: u32) {
        let world = Arc::clone(&self.world);
        let mut lost = vec![task];
        while let Some(task) = lost.pop() {
            for &follower in &world.tasks[task as usize].followers {
                // One that waits for several is orphaned by the first of them.
                if std::mem::replace(&mut self.awaits[follower as usize], ORPHANED) != ORPHANED {
                    let outcome = Outcome::arrived(TaskId::from(follower), self.cluster.now);
                    self.outcomes.push(Outcome { end: outcome::End::Orphaned, ..outcome });
                    self.ended += 1;
                    lost.push(follower);
                }
            }
        }
    }

    /// Checks the books of cluster and network against each other.
    ///
    /// # Panics
    /// When they do not balance: a bug of this crate.
    pub(crate) fn check(&self) {
        self.cluster.check();
        self.network.check();
        let under_way: u64 = self.transfers.iter().map(|transfer| transfer.bytes).sum();
        let accounted = self.network.delivered_bytes + self.lost_bytes + under_way;
        assert_eq!(self.sent_bytes, accounted, "bytes sent, and received, lost or under way");
        let committed: usize = self.cluster.nodes.iter().map(|node| node.commitments.len()).sum();
        assert!(committed <= self.active.len(), "{committed} committed of {} tasks", self.active.len());
        let mut loads = vec![0; self.world.topology.channels().len()];
        for transfer in self.transfers.iter() {
            let Transfer { root, vertex, direction, .. } = *transfer;
            self.world
                .topology
                .visit_route(root, vertex, direction, |channel, _| loads[channel as usize] += 1);
        }
        for (channel, load) in loads.into_iter().enumerate() {
            assert_eq!(self.cluster.channel_load(channel as ChannelId), load, "load of channel {channel}");
        }
        let executing: usize = self.executors.iter().map(Executor::len).sum();
        assert!(executing <= committed, "{executing} tasks execute, {committed} are committed");
    }
}
