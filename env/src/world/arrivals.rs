//! The tasks of a world: drawn from the streams of a scenario, or replayed from a trace.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Range;
use std::sync::Arc;

use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1};

use super::modulation::Modulation;
use super::{Planned, When};
use crate::catalogue::{
    Catalogue, DatasetId, ExecutionTime, ImageId, Kind, KindId, Requests, Task, numbered,
};
use crate::random::{Purpose, stream};
use crate::scenario::{Scenario, StreamFile};
use crate::time::Time;
use crate::trace::Arrival;

/// The streams whose tasks come of one arrival of the stream `root`, in order: those after it, and
/// after those, once all that they wait for are among them.
pub(crate) fn job(streams: &[StreamFile], root: usize) -> Vec<usize> {
    let mut job = vec![root];
    while let Some(next) = (0..streams.len()).find(|next| {
        let among = |task: &String| job.iter().any(|&other| streams[other].task == *task);
        let after = &streams[*next].after;
        !job.contains(next) && !after.is_empty() && after.iter().all(among)
    }) {
        job.push(next);
    }
    job
}

/// Draws the tasks of a scenario's streams.
pub(super) fn draw(scenario: &Scenario, seed: u64) -> Vec<Planned> {
    Arriving::new(scenario, seed).draw()
}

/// Draws the arrivals of all stream instances in time order.
struct Arriving<'a> {
    scenario: &'a Scenario,
    /// `(next arrival, stream, instance)`
    due: BinaryHeap<Reverse<(Time, u32, u32)>>,
    generators: BTreeMap<(u32, u32), (ChaCha8Rng, Modulation)>,
    /// For each stream with a time of its own, the streams of its jobs.
    jobs: Vec<Vec<usize>>,
    /// Drawn per instance and image family.
    variants: BTreeMap<(u32, String), ImageId>,
    variant_rng: ChaCha8Rng,
    luck: ChaCha8Rng,
    tasks: Vec<Planned>,
}

impl<'a> Arriving<'a> {
    fn new(scenario: &'a Scenario, seed: u64) -> Arriving<'a> {
        let mut arriving = Arriving {
            scenario,
            due: BinaryHeap::new(),
            generators: BTreeMap::new(),
            jobs: Vec::new(),
            variants: BTreeMap::new(),
            variant_rng: stream(seed, Purpose::Placement, 1),
            luck: stream(seed, Purpose::Execution, 0),
            tasks: Vec::new(),
        };
        let streams = &scenario.file.workload.streams;
        for (index, file) in streams.iter().enumerate() {
            arriving.jobs.push(if file.after.is_empty() { job(streams, index) } else { Vec::new() });
            if !file.after.is_empty() {
                continue;
            }
            for instance in 0..file.instances {
                let mut rng = stream(seed, Purpose::Arrivals, (index as u64) << 32 | u64::from(instance));
                // A stream that has always been running: its phase is anywhere within a mean gap.
                let phase = rng.random::<f64>() * (file.fixed_s + file.exponential_s);
                let modulation = Modulation::new(file, seed, index as u64);
                arriving.generators.insert((index as u32, instance), (rng, modulation));
                let first = arriving.after(index as u32, instance, Time::ZERO, phase);
                arriving.due.push(Reverse((first, index as u32, instance)));
            }
        }
        arriving
    }

    fn draw(mut self) -> Vec<Planned> {
        let wanted = self.scenario.file.workload.tasks.unwrap_or(0) as usize;
        while self.tasks.len() < wanted {
            let Reverse((at, stream, instance)) = self.due.pop().expect("an accepted workload has a stream");
            self.plan(stream, instance, at);
            let file = &self.scenario.file.workload.streams[stream as usize];
            let (rng, _) =
                self.generators.get_mut(&(stream, instance)).expect("a due stream has a generator");
            let random: f64 = Exp1.sample(rng);
            let next = self.after(stream, instance, at, file.fixed_s + file.exponential_s * random);
            self.due.push(Reverse((next, stream, instance)));
        }
        self.tasks
    }

    /// The moment when, after `at`, a gap of a stream has passed that is so long at its mean rate.
    fn after(&mut self, stream: u32, instance: u32, at: Time, gap_s: f64) -> Time {
        let file = &self.scenario.file.workload.streams[stream as usize];
        if file.diurnal.is_none() && file.bursts.is_none() {
            return at.after_s(gap_s);
        }
        let (_, modulation) =
            self.generators.get_mut(&(stream, instance)).expect("a due stream has a generator");
        Time::from_s(modulation.after(at.as_s(), gap_s))
    }

    /// Plans the tasks of a job: the one that arrives, and those that wait for it and each other.
    fn plan(&mut self, root: u32, instance: u32, at: Time) {
        let streams = &self.scenario.file.workload.streams;
        let first = self.tasks.len() as u32;
        let members: Vec<_> = self.jobs[root as usize]
            .iter()
            .copied()
            .filter(|&stream| instance < streams[stream].instances)
            .collect();
        for &stream in &members {
            let file = &streams[stream];
            let when = if stream == root as usize { When::At(at) } else { When::Later };
            let index = self.plan_task(file, instance, when);
            for (before, _) in
                members.iter().enumerate().filter(|(_, other)| file.after.contains(&streams[**other].task))
            {
                self.tasks[first as usize + before].followers.push(index);
                self.tasks[index as usize].awaits += 1;
            }
        }
    }

    /// Plans one task; returns its index.
    fn plan_task(&mut self, file: &StreamFile, instance: u32, when: When) -> u32 {
        let kind = self.scenario.file.catalogue.tasks.iter().position(|kind| kind.name == file.task);
        let kind_id = kind.expect("an accepted stream names a task") as KindId;
        let kind = &self.scenario.file.catalogue.tasks[kind_id as usize];
        let image = kind.image.as_ref().map(|family| self.variant(family, instance));
        let inputs: Vec<_> = kind.inputs.iter().map(|family| self.dataset(family, instance)).collect();
        let outputs = kind.outputs.iter().map(|family| self.dataset(family, instance)).collect();
        let renews = inputs.first().copied().filter(|_| file.renews_input);
        let index = self.tasks.len() as u32;
        self.tasks.push(Planned {
            name: format!("{}-{index}", file.task).into(),
            task: Arc::new(Task { kind: kind_id, image, inputs, outputs }),
            when,
            renews,
            followers: Vec::new(),
            awaits: 0,
            luck: self.luck.random_range(LUCK),
        });
        index
    }

    fn dataset(&self, family: &str, instance: u32) -> DatasetId {
        let mut first = 0;
        for file in &self.scenario.file.catalogue.datasets {
            if file.name == family {
                return first + instance % file.count;
            }
            first += file.count;
        }
        unreachable!("an accepted task names datasets of the catalogue")
    }

    /// The image variant that an instance runs: Pareto, so that most instances share a few.
    fn variant(&mut self, family: &str, instance: u32) -> ImageId {
        let mut first = 0;
        for file in &self.scenario.file.catalogue.images {
            if file.name == family {
                let rng = &mut self.variant_rng;
                let id = self.variants.entry((instance, family.to_owned()));
                return *id.or_insert_with(|| first + pareto_index(file.count, rng));
            }
            first += file.count;
        }
        unreachable!("an accepted task names an image of the catalogue")
    }
}

/// Quantiles of execution times that occur.
const LUCK: Range<f64> = 1e-6..1.0 - 1e-6;

/// Shape of the Pareto distribution in which a fifth of the values holds four fifths of the weight.
const PARETO_80_20: f64 = 1.161;

/// An index below `count`, small ones more often.
fn pareto_index(count: u32, rng: &mut impl Rng) -> u32 {
    let u: f64 = rng.random();
    let x = (1.0 - u).powf(-1.0 / PARETO_80_20) - 1.0;
    (x as u32).min(count - 1)
}

/// Arrivals as recorded. Those that do not name a task kind get one of their own, unless they equal
/// one before.
pub(super) fn replay<'a>(
    arrivals: impl Iterator<Item = &'a Arrival>,
    catalogue: &mut Catalogue,
    seed: u64,
) -> Vec<Planned> {
    let mut luck = stream(seed, Purpose::Execution, 0);
    let images = numbered(catalogue.images.iter().map(|image| &image.name));
    let datasets = numbered(catalogue.datasets.iter().map(|dataset| &dataset.name));
    let named = numbered(catalogue.kinds.iter().map(|kind| &kind.name));
    let mut recorded: BTreeMap<String, KindId> = BTreeMap::new();
    let mut indices: BTreeMap<&str, u32> = BTreeMap::new();
    let mut tasks: Vec<Planned> = Vec::new();
    for arrival in arrivals {
        let index = tasks.len() as u32;
        let kind = match &arrival.kind {
            Some(name) => named[name],
            None => {
                let kind = recorded_kind(arrival);
                let signature = format!("{:?} {:?} {}", kind.requests, arrival.duration_s, kind.priority);
                *recorded.entry(format!("{signature} {:?}", kind.deadline_s)).or_insert_with(|| {
                    catalogue.kinds.push(kind);
                    catalogue.kinds.len() as KindId - 1
                })
            }
        };
        let ids = |names: &[String]| names.iter().map(|name| datasets[name]).collect();
        let drawn = luck.random_range(LUCK);
        tasks.push(Planned {
            name: arrival.name.as_str().into(),
            task: Arc::new(Task {
                kind,
                image: arrival.image.as_ref().map(|name| images[name]),
                inputs: ids(&arrival.inputs),
                outputs: ids(&arrival.outputs),
            }),
            when: if arrival.after.is_empty() { When::At(Time::recorded(arrival.at_s)) } else { When::Later },
            renews: arrival.renews.as_ref().map(|name| datasets[name]),
            followers: Vec::new(),
            awaits: arrival.after.len() as u32,
            luck: arrival.luck.unwrap_or(drawn).clamp(LUCK.start, LUCK.end),
        });
        for before in &arrival.after {
            tasks[indices[before.as_str()] as usize].followers.push(index);
        }
        indices.insert(&arrival.name, index);
    }
    tasks
}

fn recorded_kind(arrival: &Arrival) -> Kind {
    Kind {
        name: arrival.name.clone(),
        requests: Requests {
            cpu_millis: arrival.cpu_millis,
            memory_bytes: arrival.memory_bytes,
            accelerators: arrival.accelerators,
            accelerator_millis: arrival.accelerator_millis,
            accelerator_models: arrival.accelerator_models.clone(),
        },
        cpu_use_millis: arrival.cpu_millis,
        execution: Vec::new(),
        execution_elsewhere: arrival.duration_s.map(ExecutionTime::constant),
        prefers: Vec::new(),
        demands: Vec::new(),
        deadline_s: arrival.deadline_s,
        priority: arrival.priority,
    }
}
