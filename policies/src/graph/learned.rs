//! A learned list scheduler: of all tasks whose data exist and all machines, the pair that scores best is next.
//!
//! A pair's score is a sum of the features below, each times a weight that depends on how long transfers take beside
//! tasks. Times are in units of the job's mean processing time.
//!
//! | feature | why |
//! |---|---|
//! | start | when it would begin, its transfers booked behind all others |
//! | gap | how long the machine would stand idle before it |
//! | channel | how much longer the channel would be booked |
//! | rank | the longest chain from it to the end, transfers included |
//! | bare rank | the same without them |
//! | work | its own processing time |
//! | sends | what those after it would have to be sent |
//! | kept | what need not be sent to it, being on the machine |
//! | meets | what other tasks on the machine will hand to those after it |
//! | fresh | 1 where nothing ran on the machine |
//! | busy | until when the machine is in use |

use super::{Builder, Job, Schedule, min_list_one_node};

/// The features by name.
pub const FEATURES: [&str; 11] =
    ["start", "gap", "channel", "rank", "bare rank", "work", "sends", "kept", "meets", "fresh", "busy"];
/// How many weights there are: of each feature one where transfers take no time, and what is added as they take longer.
pub const WEIGHTS: usize = 2 * FEATURES.len();
pub type Weights = [f64; WEIGHTS];

/// By falling rank with transfers, each where it begins first: nearly the network-aware list.
pub const AS_LIST: Weights = {
    let mut weights = [0.0; WEIGHTS];
    weights[0] = -1.0;
    weights[3] = 4.0;
    weights
};

/// What `policies/examples/learn-list.rs` finds with seed 1.
#[rustfmt::skip]
pub const LEARNED: Weights = [
    -1.657, // start
    -0.124, // gap
    -0.063, // channel
    3.691, // rank
    -0.183, // bare rank
    -1.181, // work
    1.527, // sends
    2.318, // kept
    1.373, // meets
    0.328, // fresh
    0.091, // busy
    // As transfers take longer.
    -1.149, // start
    -0.600, // gap
    0.476, // channel
    0.326, // rank
    -0.264, // bare rank
    -0.194, // work
    -0.764, // sends
    -0.826, // kept
    -0.746, // meets
    -0.006, // fresh
    -1.674, // busy
];

/// The schedule that weights make, or [`min_list_one_node`] where that is shorter.
pub fn learned(job: &Job, machines: usize, weights: &Weights) -> Schedule {
    let (ours, theirs) = (learned_list(job, machines, weights), min_list_one_node(job, machines));
    if theirs.makespan(job) < ours.makespan(job) { theirs } else { ours }
}

/// The schedule that weights make.
pub fn learned_list(job: &Job, machines: usize, weights: &Weights) -> Schedule {
    let facts = Facts::of(job, weights);
    let mut builder = Builder::new(job, machines);
    for _ in 0..job.tasks.len() {
        let ready = (0..job.tasks.len()).filter(|&task| {
            !builder.added[task] && job.into(task).all(|edge| builder.added[job.edges[edge].from])
        });
        // Machines on which nothing ran are alike: the first of them stands for all.
        let fresh = (0..machines).find(|&machine| builder.machine_free[machine] == 0);
        let tried: Vec<usize> = (0..machines)
            .filter(|&machine| builder.machine_free[machine] > 0 || Some(machine) == fresh)
            .collect();
        let pairs = ready.flat_map(|task| tried.iter().map(move |&machine| (task, machine)));
        let scored = pairs.map(|(task, machine)| (facts.score(&builder, task, machine), task, machine));
        // Of equals the first.
        let best = scored.reduce(|best, next| if next.0 > best.0 { next } else { best });
        let Some((_, task, machine)) = best else { break };
        builder.add(task, machine);
    }
    builder.schedule
}

/// What is known of a job before anything is scheduled.
struct Facts<'a> {
    job: &'a Job,
    weights: [f64; FEATURES.len()],
    ranks: Vec<u32>,
    bare_ranks: Vec<u32>,
    /// Mean processing time.
    unit: f64,
}

impl<'a> Facts<'a> {
    fn of(job: &'a Job, weights: &Weights) -> Facts<'a> {
        let mean = |sum: u32, count: usize| f64::from(sum) / count.max(1) as f64;
        let unit = mean(job.tasks.iter().sum(), job.tasks.len()).max(1e-9);
        let transfer = mean(job.edges.iter().map(|edge| edge.transfer).sum(), job.edges.len()) / unit;
        // 0 where transfers take no time, 1 where they take all of it.
        let share = transfer / (1.0 + transfer);
        let weight = |feature: usize| weights[feature] + share * weights[FEATURES.len() + feature];
        Facts {
            job,
            weights: std::array::from_fn(weight),
            ranks: job.ranks(|edge| edge.transfer),
            bare_ranks: job.ranks(|_| 0),
            unit,
        }
    }

    fn score(&self, builder: &Builder<'_>, task: usize, machine: usize) -> f64 {
        let features = self.features(builder, task, machine);
        features.iter().zip(self.weights).map(|(feature, weight)| weight * feature / self.unit).sum()
    }

    fn features(&self, builder: &Builder<'_>, task: usize, machine: usize) -> [f64; FEATURES.len()] {
        let (job, schedule) = (self.job, &builder.schedule);
        let mut tried = builder.clone();
        let start = tried.add(task, machine);
        let free = builder.machine_free[machine];
        let here = |other: usize| builder.added[other] && schedule.machines[other] == machine;
        let transfers = |of: &dyn Fn(usize, usize) -> bool| -> u32 {
            job.edges.iter().filter(|edge| of(edge.from, edge.to)).map(|edge| edge.transfer).sum()
        };
        let after = |other: usize| job.edges.iter().any(|edge| edge.from == task && edge.to == other);
        [
            f64::from(start),
            f64::from(start - free),
            f64::from(tried.channel_free - builder.channel_free),
            f64::from(self.ranks[task]),
            f64::from(self.bare_ranks[task]),
            f64::from(job.tasks[task]),
            f64::from(transfers(&|from, _| from == task)),
            f64::from(transfers(&|from, to| to == task && here(from))),
            f64::from(transfers(&|from, to| here(from) && after(to))),
            if free == 0 { self.unit } else { 0.0 },
            f64::from(free),
        ]
    }
}
