//! The numbers that a network reads of an observation: here and nowhere else facts become them.
//!
//! Seconds and bytes enter as the cost that they cause at the present α ([`Reference`](super::Reference)), in units of u, the
//! median cost of the candidates looked at: so a policy trained on one cluster reads another, and what the dial makes
//! irrelevant vanishes. `log` means ln(1 + x), `fine` ln(1 + 100 x) / 2. Bytes are those that a candidate comes to in the end
//! ([`Observation::net`]).
//!
//! | index | name | unit | range | why |
//! |---|---|---|---|---|
//! | 0 | cost | log of u | 0.. | expected cost of placing it here |
//! | 1 | time-cost | log of u | 0.. | the part of it that is response time |
//! | 2 | data-cost | log of u | 0.. | the part of it that is data moved |
//! | 3 | wait | log of u | 0.. | time in the node's queue |
//! | 4 | pull | log of u | 0.. | time to pull the missing image layers |
//! | 5 | fetch | log of u | 0.. | time to read the inputs |
//! | 6 | start | log of u | 0.. | time to start the container |
//! | 7 | execution | log of u | 0.. | time to execute, with today's CPU contention |
//! | 8 | store | log of u | 0.. | time to store the output at its home |
//! | 9 | image-data | log of u | 0.. | moving the image |
//! | 10 | other-data | log of u | 0.. | moving inputs and output |
//! | 11 | regret | u | 0..20 | cost above the best candidate: the greedy order |
//! | 12 | log-regret | fine of u | 0.. | the same, resolved near zero |
//! | 13 | time-regret | fine of u | 0.. | time above the soonest candidate |
//! | 14 | data-regret | fine of u | 0.. | data above the leanest candidate |
//! | 15 | warm-regret | fine of u | 0.. | cost above the best if the image were here already: what pulling invests in |
//! | 16 | image-here | flag | 0, 1 | nothing to pull |
//! | 17 | image-arriving | flag | 0, 1 | another task is pulling it |
//! | 18 | inputs-here | flag | 0, 1 | nothing to read |
//! | 19 | output-home | flag | 0, 1 | the output is stored where it is made |
//! | 20 | fits-now | flag | 0, 1 | its requests are free |
//! | 21 | cpu-free | share | 0..1 | room left for others |
//! | 22 | memory-free | share | 0..1 | room left for others |
//! | 23 | accelerators-free | share | 0..1 | accelerators that a heavier task may need; 0 where there are none |
//! | 24 | accelerator-wasted | flag | 0, 1 | the node has accelerators and the task asks for none |
//! | 25 | queued | log | 0.. | tasks waiting here |
//! | 26 | committed | log | 0.. | tasks placed here |
//! | 27 | backlog | log of u | 0.. | time that what is placed here still expects to take |
//! | 28 | overdue | share | 0..1 | of the tasks placed here those past their expected end: estimates are too low |
//! | 29 | contention | log | 0.. | slowdown of everybody here, this task included |
//! | 30 | crowding | log of u | 0.. | time that the others here lose while it executes |
//! | 31 | slowness | log | 0.. | execution against the fastest device: the node's aptitude |
//! | 32 | busy-path | log | 0.. | transfers on the busiest link from the registry |
//! | 33 | busy-data | log | 0.. | transfers on the busiest link that its data would cross |
//! | 34 | idle-transfer | log of u | 0.. | time of its transfers if nothing else crossed the links: what is above it, others lose too |
//! | 35 | image-demand | log of u | 0.. | what a minute's tasks of this image would pay to pull it: what having it here saves |
//! | 36 | alpha | 1 | 0..1 | the dial: weight of data moved |
//! | 37 | feasible | log/4 | 0.. | candidates in the cluster |
//! | 38 | image-spread | share | 0..1 | candidates that have the image |
//! | 39 | load | log of tasks | 0.. | arrivals during the soonest completion |
//! | 40 | mean-backlog | log of u | 0.. | backlog of the candidates looked at |
//! | 41 | congestion | share | 0..1 | candidates where it would have to wait |
//! | 42 | input-data | log of u | 0.. | moving all its inputs over a local link |
//! | 43 | output-data | log of u | 0.. | moving its output over a local link |
//! | 44 | shortest-execution | log of u | 0.. | how heavy it is at best |

use super::{Candidate, Look, Observation};
use crate::topology::{Direction, NodeId, VertexId};

/// One number per candidate that the network reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    pub name: &'static str,
    pub unit: &'static str,
    pub range: &'static str,
}

const fn feature(name: &'static str, unit: &'static str, range: &'static str) -> Feature {
    Feature { name, unit, range }
}

/// The columns of [`Observation::features`], as in the table of this module.
pub const FEATURES: [Feature; 45] = [
    feature("cost", "log of u", "0.."),
    feature("time-cost", "log of u", "0.."),
    feature("data-cost", "log of u", "0.."),
    feature("wait", "log of u", "0.."),
    feature("pull", "log of u", "0.."),
    feature("fetch", "log of u", "0.."),
    feature("start", "log of u", "0.."),
    feature("execution", "log of u", "0.."),
    feature("store", "log of u", "0.."),
    feature("image-data", "log of u", "0.."),
    feature("other-data", "log of u", "0.."),
    feature("regret", "u", "0..20"),
    feature("log-regret", "fine of u", "0.."),
    feature("time-regret", "fine of u", "0.."),
    feature("data-regret", "fine of u", "0.."),
    feature("warm-regret", "fine of u", "0.."),
    feature("image-here", "flag", "0, 1"),
    feature("image-arriving", "flag", "0, 1"),
    feature("inputs-here", "flag", "0, 1"),
    feature("output-home", "flag", "0, 1"),
    feature("fits-now", "flag", "0, 1"),
    feature("cpu-free", "share", "0..1"),
    feature("memory-free", "share", "0..1"),
    feature("accelerators-free", "share", "0..1"),
    feature("accelerator-wasted", "flag", "0, 1"),
    feature("queued", "log", "0.."),
    feature("committed", "log", "0.."),
    feature("backlog", "log of u", "0.."),
    feature("overdue", "share", "0..1"),
    feature("contention", "log", "0.."),
    feature("crowding", "log of u", "0.."),
    feature("slowness", "log", "0.."),
    feature("busy-path", "log", "0.."),
    feature("busy-data", "log", "0.."),
    feature("idle-transfer", "log of u", "0.."),
    feature("image-demand", "log of u", "0.."),
    feature("alpha", "1", "0..1"),
    feature("feasible", "log/4", "0.."),
    feature("image-spread", "share", "0..1"),
    feature("load", "log of tasks", "0.."),
    feature("mean-backlog", "log of u", "0.."),
    feature("congestion", "share", "0..1"),
    feature("input-data", "log of u", "0.."),
    feature("output-data", "log of u", "0.."),
    feature("shortest-execution", "log of u", "0.."),
];

/// Number of features per candidate.
pub const FEATURE_COUNT: usize = FEATURES.len();

/// Text that changes whenever the meaning of a feature does; a checkpoint carries its hash.
pub fn feature_schema() -> String {
    FEATURES.iter().map(|f| format!("{}|{}|{}\n", f.name, f.unit, f.range)).collect()
}

impl Observation<'_> {
    /// Writes the features of the candidates looked at, of which there is one at least, into the first
    /// [`FEATURE_COUNT`] places of each of `rows`; returns u, the cost that they are measured in.
    pub fn features<'r>(&self, looks: &[Look], rows: impl Iterator<Item = &'r mut [f32]>) -> f64 {
        let scale = Scale::of(self, looks);
        let global = self.global_features(looks, &scale);
        for (look, row) in looks.iter().zip(rows) {
            let (own, shared) = row[..FEATURE_COUNT].split_at_mut(FEATURE_COUNT - global.len());
            own.copy_from_slice(&self.candidate_features(look, &scale));
            shared.copy_from_slice(&global);
        }
        scale.unit
    }

    fn candidate_features(&self, look: &Look, scale: &Scale) -> [f32; 36] {
        let c = &look.net;
        let flag = |value: bool| f32::from(u8::from(value));
        let time = |seconds: f64| log(scale.time(seconds));
        let data = |bytes: f64| log(scale.data(bytes));
        let spec = &self.cluster.topology.nodes[c.node as usize];
        let state = &self.cluster.nodes[c.node as usize];
        let requests = &self.cluster.catalogue.kind(self.task).requests;
        let accelerators = state.accelerator_free_millis.len() as f64 * 1000.0;
        let accelerators_free = f64::from(state.accelerator_free_millis.iter().sum::<u32>());
        let regret = (self.cost(c) - scale.least_cost) / scale.unit;
        let now = self.cluster.now;
        let overdue = state.commitments.iter().filter(|commitment| commitment.expected_end < now).count();
        [
            log(self.cost(c) / scale.unit),
            time(c.completion_s()),
            data(c.moved_bytes),
            time(c.wait_s),
            time(c.pull_s),
            time(c.fetch_s),
            time(c.start_s),
            time(c.execution_s),
            time(c.store_s),
            data(c.image_moved_bytes),
            data(c.moved_bytes - c.image_moved_bytes),
            regret.min(20.0) as f32,
            fine_log(regret),
            fine_log(scale.time(c.completion_s() - scale.least_completion_s)),
            fine_log(scale.data(c.moved_bytes - scale.least_moved_bytes)),
            fine_log((self.warm_cost(c) - scale.least_warm_cost) / scale.unit),
            flag(c.missing_image_bytes == 0),
            flag(c.arriving_image_bytes > 0),
            flag(c.missing_input_bytes == 0),
            flag(c.output_bytes == 0),
            flag(c.fits_now),
            share(f64::from(state.cpu_free_millis), f64::from(spec.cpu_millis)),
            share(state.memory_free_bytes as f64, spec.memory_bytes as f64),
            share(accelerators_free, accelerators),
            flag(accelerators > 0.0 && requests.accelerators == 0),
            log(f64::from(state.queued)),
            log(state.commitments.len() as f64),
            time(look.backlog_s),
            share(overdue as f64, state.commitments.len() as f64),
            log(c.contention - 1.0),
            time(self.crowding_s(c)),
            log(c.alone_s / scale.least_alone_s - 1.0),
            self.busy_path(c.node),
            self.busy_data(c),
            time(look.idle_transfer_s),
            self.image_demand(c.node, scale),
        ]
    }

    fn global_features(&self, looks: &[Look], scale: &Scale) -> [f32; 9] {
        let datasets = &self.cluster.catalogue.datasets;
        let bytes = |dataset: &u32| datasets[*dataset as usize].bytes as f64;
        let count = self.candidates().len() as f64;
        [
            self.alpha as f32,
            log(count) / 4.0,
            share(f64::from(self.estimates().with_image), count),
            log(self.cluster.total_rate_per_s() * scale.least_completion_s),
            log(scale.time(looks.iter().map(|look| look.backlog_s).sum::<f64>() / looks.len() as f64)),
            self.congestion() as f32,
            log(scale.data(self.task.inputs.iter().map(bytes).sum())),
            log(scale.data(self.task.outputs.iter().map(bytes).sum())),
            log(scale.time(scale.least_alone_s)),
        ]
    }

    /// Transfers on the busiest link between the registry and the node.
    fn busy_path(&self, node: NodeId) -> f32 {
        let registry = self.cluster.topology.registry_of(node);
        log(f64::from(registry.map_or(0, |registry| self.busiest(registry, node, Direction::From))))
    }

    /// Transfers on the busiest link that missing inputs and the output would cross.
    fn busy_data(&self, c: &Candidate) -> f32 {
        let cluster = self.cluster;
        let missing = self.task.inputs.iter().filter(|&&input| !cluster.has_dataset(input, c.node));
        let sources = missing.filter_map(|&input| cluster.dataset_source(input, c.node));
        let homes = self.task.outputs.iter().filter_map(|&output| {
            cluster.catalogue.datasets[output as usize].homes.first().filter(|home| **home != c.node)
        });
        let reads = sources.map(|source| self.busiest(source, c.node, Direction::From));
        let writes = homes.map(|&home| self.busiest(home, c.node, Direction::To));
        log(f64::from(reads.chain(writes).max().unwrap_or(0)))
    }

    /// Transfers on the busiest link of a way.
    fn busiest(&self, root: VertexId, node: NodeId, direction: Direction) -> u32 {
        let mut busiest = 0;
        self.cluster.topology.visit_route(root, node, direction, |channel, _| {
            busiest = busiest.max(self.cluster.channel_load(channel));
        });
        busiest
    }

    /// Seconds that the tasks executing on the node lose together while this one executes too.
    fn crowding_s(&self, c: &Candidate) -> f64 {
        let state = &self.cluster.nodes[c.node as usize];
        let capacity = f64::from(self.cluster.class(c.node).cpu_millis);
        let before = (state.cpu_use_millis as f64 / capacity).max(1.0);
        let others = state.admitted().count();
        others as f64 * c.execution_s * (1.0 - before / c.contention.max(before))
    }

    /// What the tasks of this image that arrive in a minute would pay, each on its own, to pull it
    /// to this node over idle links.
    fn image_demand(&self, node: NodeId, scale: &Scale) -> f32 {
        let Some(image) = self.task.image else { return 0.0 };
        let topology = &self.cluster.topology;
        let bytes =
            self.cluster.catalogue.image_bytes(image, topology.nodes[node as usize].arch).unwrap_or(0) as f64;
        let path = topology.registry_path(node);
        let pull =
            path.map_or(0.0, |path| scale.time(bytes / path.bytes_per_s) + scale.data(bytes * path.price));
        log(pull * self.cluster.image_rate_per_s(image) * 60.0)
    }
}

/// What the features of one decision are measured in and against.
struct Scale {
    /// u: the median cost of the candidates looked at.
    unit: f64,
    /// Cost, in u, of a second and of a byte at the present α.
    per_s: f64,
    per_byte: f64,
    least_cost: f64,
    least_warm_cost: f64,
    least_completion_s: f64,
    least_moved_bytes: f64,
    least_alone_s: f64,
}

/// Below this the unit says nothing (all candidates are free): a thousandth of the reference cost.
const LEAST_UNIT: f64 = 1e-3;

impl Scale {
    fn of(observation: &Observation<'_>, looks: &[Look]) -> Scale {
        let candidates = || looks.iter().map(|look| &look.net);
        let least = |key: &dyn Fn(&Candidate) -> f64| candidates().map(key).fold(f64::INFINITY, f64::min);
        let mut costs: Vec<f64> = candidates().map(|c| observation.cost(c)).collect();
        costs.sort_unstable_by(f64::total_cmp);
        let unit = costs[costs.len() / 2].max(LEAST_UNIT);
        let (second, byte) = observation.rates();
        Scale {
            unit,
            per_s: second / unit,
            per_byte: byte / unit,
            least_cost: costs[0],
            least_warm_cost: least(&|c| observation.warm_cost(c)),
            least_completion_s: least(&Candidate::completion_s),
            least_moved_bytes: least(&|c| c.moved_bytes),
            least_alone_s: least(&|c| c.alone_s).max(1e-3),
        }
    }

    fn time(&self, seconds: f64) -> f64 {
        seconds * self.per_s
    }

    fn data(&self, bytes: f64) -> f64 {
        bytes * self.per_byte
    }
}

fn log(x: f64) -> f32 {
    // Rounded to 32 bits this is as good as `ln_1p`, and faster; many are zero.
    if x > 0.0 { (1.0 + x).ln() as f32 } else { 0.0 }
}

/// Resolves differences of a hundredth as well as of a hundred.
pub fn fine_log(x: f64) -> f32 {
    log(100.0 * x) / 2.0
}

fn share(part: f64, whole: f64) -> f32 {
    if whole > 0.0 { (part / whole) as f32 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::FEATURES;

    /// The table at the top of this file is the specification; the code must agree with it.
    #[test]
    fn table_and_code_agree() {
        let rows: Vec<Vec<&str>> = include_str!("features.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//! | "))
            .filter(|line| line.starts_with(|c: char| c.is_ascii_digit()))
            .map(|line| line.trim_end_matches(" |").split(" | ").collect())
            .collect();
        assert_eq!(rows.len(), FEATURES.len());
        for (index, (row, feature)) in rows.iter().zip(FEATURES).enumerate() {
            assert_eq!(row[..4], [index.to_string().as_str(), feature.name, feature.unit, feature.range]);
        }
    }
}
