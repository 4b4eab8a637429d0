//! Scheduling a whole task graph in advance: the problem of data-volume-aware scheduling.
//!
//! A job is a directed acyclic graph of tasks with known processing times, and of data volumes between
//! them. Machines are alike and run one task at a time. Data between tasks on different machines crosses
//! one shared channel, one transfer after the other, for `q = volume / bandwidth`; on the same machine
//! it takes a local delay `r` and no channel. Wanted is the least makespan.
//!
//! Source: Guo, Li, Yan, Zhang, Wang, *Data Volume-aware Computation Task Scheduling for Smart Grid Data
//! Analytic Applications*, arXiv 2301.11831 (ICC 2023), constraints (1) to (5). Its own cuts are not
//! public.

#[cfg(feature = "exact")]
mod exact;
pub mod learned;

use rand::{Rng, RngExt};

#[cfg(feature = "exact")]
pub use exact::{Optimum, optimum};

/// Data that one task hands to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    pub from: usize,
    pub to: usize,
    /// q: time on the channel, if they are on different machines.
    pub transfer: u32,
    /// r: time on the same machine.
    pub local: u32,
}

/// Tasks with data between them; times are in slots of any length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Job {
    /// p: processing time of each task.
    pub tasks: Vec<u32>,
    /// From tasks to those of higher index.
    pub edges: Vec<Edge>,
}

/// Who runs where and when, and when what is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Machine of each task.
    pub machines: Vec<usize>,
    /// When each task begins.
    pub starts: Vec<u32>,
    /// When each edge's transfer begins; `None` on one machine.
    pub transfers: Vec<Option<u32>>,
}

impl Job {
    /// A job as the sister paper draws them (arXiv 2209.11485): a third each of simple map-reduce, one-stage map-reduce
    /// and random graphs, processing times from 1 to 100, transfers `rho` times as long on average. How wide its graphs
    /// are is not published; these are connected. At least 3 tasks.
    pub fn random(rng: &mut impl Rng, tasks: usize, rho: f64) -> Job {
        let times: Vec<u32> = (0..tasks).map(|_| rng.random_range(1..=100)).collect();
        let mut pairs = Vec::new();
        match rng.random_range(0..3) {
            // One task hands parts to all maps, and they all hand theirs to one.
            0 => pairs.extend((1..tasks - 1).flat_map(|map| [(0, map), (map, tasks - 1)])),
            // Maps to reduces, all to all.
            1 => {
                let maps = tasks.div_ceil(2);
                pairs.extend((0..maps).flat_map(|map| (maps..tasks).map(move |reduce| (map, reduce))));
            }
            _ => {
                for to in 1..tasks {
                    let before = pairs.len();
                    pairs.extend((0..to).filter(|_| rng.random_bool(0.3)).map(|from| (from, to)));
                    if pairs.len() == before {
                        pairs.push((rng.random_range(0..to), to));
                    }
                }
            }
        }
        let mut transfer = || (f64::from(rng.random_range(1..=100)) * rho).round() as u32;
        let edges = pairs.into_iter().map(|(from, to)| Edge { from, to, transfer: transfer(), local: 0 });
        Job { edges: edges.collect(), tasks: times }
    }

    /// Edges into a task, as indices.
    fn into(&self, task: usize) -> impl Iterator<Item = usize> {
        (0..self.edges.len()).filter(move |&edge| self.edges[edge].to == task)
    }

    /// For each task the longest chain from it to the end, itself included, where an edge counts as
    /// `weight` says: its upward rank.
    fn ranks(&self, weight: impl Fn(&Edge) -> u32) -> Vec<u32> {
        let mut ranks = self.tasks.clone();
        for task in (0..self.tasks.len()).rev() {
            let after = self.edges.iter().filter(|edge| edge.from == task);
            let longest = after.map(|edge| weight(edge) + ranks[edge.to]).max();
            ranks[task] += longest.unwrap_or(0);
        }
        ranks
    }

    /// Tasks by falling rank; a task comes after those before it in the graph.
    fn by_rank(&self, ranks: &[u32]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.tasks.len()).collect();
        order.sort_by_key(|&task| (std::cmp::Reverse(ranks[task]), task));
        order
    }

    /// No schedule is shorter: the longest chain without transfers, and all the work on all machines.
    pub fn lower_bound(&self, machines: usize) -> u32 {
        let chain = self.ranks(|edge| edge.local.min(edge.transfer)).into_iter().max().unwrap_or(0);
        chain.max(self.tasks.iter().sum::<u32>().div_ceil(machines.max(1) as u32))
    }
}

impl Schedule {
    /// When the last task ends.
    pub fn makespan(&self, job: &Job) -> u32 {
        self.starts.iter().zip(&job.tasks).map(|(start, time)| start + time).max().unwrap_or(0)
    }

    /// Says which constraint is broken, if one is.
    pub fn check(&self, job: &Job, machines: usize) -> Result<(), String> {
        let end = |task: usize| self.starts[task] + job.tasks[task];
        if let Some(task) = self.machines.iter().position(|&machine| machine >= machines) {
            return Err(format!("task {task} is on machine {} of {machines}", self.machines[task]));
        }
        for (a, b) in pairs(job.tasks.len()) {
            let apart = self.machines[a] != self.machines[b];
            if !(apart || end(a) <= self.starts[b] || end(b) <= self.starts[a]) {
                return Err(format!("tasks {a} and {b} overlap on one machine"));
            }
        }
        for (index, edge) in job.edges.iter().enumerate() {
            let ready = match self.transfers[index] {
                None if self.machines[edge.from] != self.machines[edge.to] => {
                    return Err(format!("edge {index} has no transfer between its machines"));
                }
                None => end(edge.from) + edge.local,
                Some(begin) if begin < end(edge.from) => {
                    return Err(format!("edge {index} is sent before task {} ends", edge.from));
                }
                Some(begin) => begin + edge.transfer,
            };
            if self.starts[edge.to] < ready {
                return Err(format!("task {} begins before edge {index} is through", edge.to));
            }
        }
        for (a, b) in pairs(job.edges.len()) {
            let (Some(of_a), Some(of_b)) = (self.transfers[a], self.transfers[b]) else { continue };
            if of_a + job.edges[a].transfer > of_b && of_b + job.edges[b].transfer > of_a {
                return Err(format!("edges {a} and {b} overlap on the channel"));
            }
        }
        Ok(())
    }
}

fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).flat_map(move |a| (a + 1..count).map(move |b| (a, b)))
}

/// A schedule in the making: tasks are added in an order in which each comes after those before it.
#[derive(Clone, Debug)]
struct Builder<'a> {
    job: &'a Job,
    schedule: Schedule,
    /// When each machine, and the channel, is free for good.
    machine_free: Vec<u32>,
    channel_free: u32,
    added: Vec<bool>,
}

impl<'a> Builder<'a> {
    fn new(job: &'a Job, machines: usize) -> Builder<'a> {
        let (tasks, edges) = (job.tasks.len(), job.edges.len());
        Builder {
            job,
            schedule: Schedule {
                machines: vec![0; tasks],
                starts: vec![0; tasks],
                transfers: vec![None; edges],
            },
            machine_free: vec![0; machines],
            channel_free: 0,
            added: vec![false; tasks],
        }
    }

    /// Adds a task on a machine, its transfers one after the other behind all booked so far. Returns
    /// when it begins.
    fn add(&mut self, task: usize, machine: usize) -> u32 {
        let mut start = self.machine_free[machine];
        let mut incoming: Vec<usize> = self.job.into(task).collect();
        let ended = |schedule: &Schedule, edge: &Edge| schedule.starts[edge.from] + self.job.tasks[edge.from];
        incoming.sort_by_key(|&edge| ended(&self.schedule, &self.job.edges[edge]));
        for index in incoming {
            let edge = &self.job.edges[index];
            let end = ended(&self.schedule, edge);
            let there = if self.schedule.machines[edge.from] == machine {
                end + edge.local
            } else {
                let begin = end.max(self.channel_free);
                self.schedule.transfers[index] = Some(begin);
                self.channel_free = begin + edge.transfer;
                self.channel_free
            };
            start = start.max(there);
        }
        self.schedule.machines[task] = machine;
        self.schedule.starts[task] = start;
        self.machine_free[machine] = start + self.job.tasks[task];
        self.added[task] = true;
        start
    }

    /// Adds a task where `add` would begin it first.
    fn add_soonest(&mut self, task: usize) {
        let start = |machine: usize| self.clone().add(task, machine);
        let soonest = (0..self.machine_free.len()).min_by_key(|&machine| (start(machine), machine));
        self.add(task, soonest.unwrap_or(0));
    }
}

/// Critical-path list scheduling that does not see the network: by falling rank without transfers,
/// each task on the machine that has least to do.
pub fn list(job: &Job, machines: usize) -> Schedule {
    let mut builder = Builder::new(job, machines);
    let mut busy = vec![0; machines];
    for task in job.by_rank(&job.ranks(|_| 0)) {
        let machine = (0..machines).min_by_key(|&machine| (busy[machine], machine)).unwrap_or(0);
        busy[machine] += job.tasks[task];
        builder.add(task, machine);
    }
    builder.schedule
}

/// Network-aware list scheduling: by falling rank with transfers, each task on the machine where it
/// begins first once its transfers are booked. Alike G-List of Giroire et al., *When Network Matters*,
/// INFOCOM 2019.
pub fn network_aware_list(job: &Job, machines: usize) -> Schedule {
    let mut builder = Builder::new(job, machines);
    for task in job.by_rank(&job.ranks(|edge| edge.transfer)) {
        builder.add_soonest(task);
    }
    builder.schedule
}

/// All tasks on one machine.
pub fn one_node(job: &Job, machines: usize) -> Schedule {
    let mut builder = Builder::new(job, machines);
    for task in job.by_rank(&job.ranks(|edge| edge.local)) {
        builder.add(task, 0);
    }
    builder.schedule
}

/// The shorter of [`network_aware_list`] and [`one_node`].
pub fn min_list_one_node(job: &Job, machines: usize) -> Schedule {
    let (list, one) = (network_aware_list(job, machines), one_node(job, machines));
    if one.makespan(job) < list.makespan(job) { one } else { list }
}

/// HEFT: by falling rank with mean transfers, each task where it ends first, in a gap between others if
/// it fits one. Transfers are booked on the channel behind all others, which HEFT itself does not know.
///
/// Source: Topcuoglu, Hariri, Wu, IEEE TPDS 13(3), 2002.
pub fn heft(job: &Job, machines: usize) -> Schedule {
    // A transfer happens between different machines, which is (m − 1)/m of the pairs.
    let m = machines.max(1) as u32;
    let mut builder = Builder::new(job, machines);
    for task in job.by_rank(&job.ranks(|edge| edge.transfer * (m - 1) / m)) {
        let tried = (0..machines).map(|machine| {
            let mut tried = builder.clone();
            let start = tried.add(task, machine);
            let start = tried.fill_gap(task, machine, start);
            (start, machine, tried)
        });
        let Some((_, _, best)) = tried.min_by_key(|(start, machine, _)| (*start, *machine)) else { break };
        builder = best;
    }
    builder.schedule
}

impl Builder<'_> {
    /// Moves a task that was added last into the first gap of its machine that is long enough after its
    /// data are there. Returns when it begins then.
    fn fill_gap(&mut self, task: usize, machine: usize, start: u32) -> u32 {
        let (job, schedule) = (self.job, &self.schedule);
        let ready = job
            .into(task)
            .map(|index| {
                let edge = &job.edges[index];
                let end = schedule.starts[edge.from] + job.tasks[edge.from];
                schedule.transfers[index].map_or(end + edge.local, |begin| begin + edge.transfer)
            })
            .max()
            .unwrap_or(0);
        let mut others: Vec<(u32, u32)> = (0..job.tasks.len())
            .filter(|&other| other != task && self.added[other] && schedule.machines[other] == machine)
            .map(|other| (schedule.starts[other], schedule.starts[other] + job.tasks[other]))
            .collect();
        others.sort_unstable();
        let mut begin = ready;
        for &(from, to) in &others {
            if begin + job.tasks[task] <= from {
                break;
            }
            begin = begin.max(to);
        }
        let begin = begin.min(start);
        self.schedule.starts[task] = begin;
        // What was behind the gap stays behind it.
        self.machine_free[machine] = begin + job.tasks[task];
        for (_, to) in others {
            self.machine_free[machine] = self.machine_free[machine].max(to);
        }
        begin
    }
}
