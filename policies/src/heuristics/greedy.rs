//! Greedy choices from the estimates that the network sees too.

use remora_env::Observation;
use remora_env::observation::Candidate;

use crate::Policy;

/// How much each part of an estimate counts; 1 is as it is estimated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coefficients {
    /// Time in the node's queue.
    pub wait: f64,
    /// Time to pull the image.
    pub pull: f64,
    /// Time to read the inputs and to store the outputs.
    pub transfer: f64,
    /// Moving the image's bytes.
    pub image_data: f64,
    /// What the others on the node lose by sharing it with this task, for each second that it executes:
    /// not in the task's own time, so 0 leaves it out.
    pub crowding: f64,
    /// Executing on a node with accelerators without asking for one, for each second of execution.
    pub accelerator: f64,
}

impl Coefficients {
    /// Names in the order of [`Coefficients::to_array`].
    pub const NAMES: [&str; 6] = ["wait", "pull", "transfer", "image-data", "crowding", "accelerator"];

    /// The estimate as it is.
    pub const PLAIN: Coefficients = Coefficients {
        wait: 1.0,
        pull: 1.0,
        transfer: 1.0,
        image_data: 1.0,
        crowding: 0.0,
        accelerator: 0.0,
    };

    pub fn from_array([wait, pull, transfer, image_data, crowding, accelerator]: [f64; 6]) -> Coefficients {
        Coefficients { wait, pull, transfer, image_data, crowding, accelerator }
    }

    pub fn to_array(self) -> [f64; 6] {
        [self.wait, self.pull, self.transfer, self.image_data, self.crowding, self.accelerator]
    }

    /// Those for `alpha`, of sets found for α from 0 to 1, evenly spaced: between them they are interpolated.
    ///
    /// # Panics
    /// Without any.
    pub fn at(sets: &[Coefficients], alpha: f64) -> Coefficients {
        let position = alpha.clamp(0.0, 1.0) * (sets.len() - 1) as f64;
        let (below, above) = (position.floor() as usize, position.ceil() as usize);
        let share = position - below as f64;
        let (low, high) = (sets[below].to_array(), sets[above].to_array());
        Coefficients::from_array(std::array::from_fn(|i| low[i] + share * (high[i] - low[i])))
    }

    /// Expected cost of a candidate at the observation's α, each part as it counts.
    pub fn cost(&self, observation: &Observation<'_>, candidate: &Candidate) -> f64 {
        let (bytes, seconds) = (self.bytes(candidate), self.seconds(observation, candidate));
        observation.reference.cost(observation.alpha, bytes, seconds)
    }

    /// Expected seconds, each part as it counts.
    fn seconds(&self, observation: &Observation<'_>, c: &Candidate) -> f64 {
        let mut seconds = self.wait * c.wait_s
            + self.pull * c.pull_s
            + self.transfer * (c.fetch_s + c.store_s)
            + c.start_s
            + c.execution_s;
        if self.crowding != 0.0 || self.accelerator != 0.0 {
            let state = &observation.cluster.nodes[c.node as usize];
            let requests = &observation.cluster.catalogue.kind(observation.task).requests;
            let wasted = requests.accelerators == 0 && !state.accelerator_free_millis.is_empty();
            seconds += self.crowding * Coefficients::crowded_s(observation, c);
            seconds += self.accelerator * if wasted { c.execution_s } else { 0.0 };
        }
        seconds
    }

    /// Seconds that the others on a candidate's node lose by sharing it with this task.
    pub(crate) fn crowded_s(observation: &Observation<'_>, c: &Candidate) -> f64 {
        let others = observation.cluster.nodes[c.node as usize].admitted().count() as f64;
        // Sharing stretches everybody's time by the same factor.
        others * c.alone_s * (c.contention - 1.0)
    }

    fn bytes(&self, c: &Candidate) -> f64 {
        c.moved_bytes + (self.image_data - 1.0) * c.image_moved_bytes
    }
}

/// The candidate with the least expected completion time.
#[derive(Debug)]
pub struct GreedyCompletion {
    name: &'static str,
    coefficients: Coefficients,
}

impl Default for GreedyCompletion {
    fn default() -> GreedyCompletion {
        GreedyCompletion { name: "greedy-completion", coefficients: Coefficients::PLAIN }
    }
}

impl GreedyCompletion {
    pub fn with(name: &'static str, coefficients: Coefficients) -> GreedyCompletion {
        GreedyCompletion { name, coefficients }
    }
}

impl Policy for GreedyCompletion {
    fn name(&self) -> &str {
        self.name
    }

    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        let seconds = |candidate| self.coefficients.seconds(observation, candidate);
        scores.extend(observation.candidates().iter().map(|candidate| -seconds(candidate)));
    }
}

/// The candidate with the least expected cost at the present α, from the same estimates that the
/// network sees: tuned, it is the opponent that a learned policy has to beat.
#[derive(Debug)]
pub struct GreedyMarginal {
    name: &'static str,
    /// For α from 0 to 1, evenly spaced; between them they are interpolated.
    coefficients: Vec<Coefficients>,
}

impl Default for GreedyMarginal {
    fn default() -> GreedyMarginal {
        GreedyMarginal::with("greedy-marginal", vec![Coefficients::PLAIN])
    }
}

impl GreedyMarginal {
    /// With coefficients for α from 0 to 1, evenly spaced.
    ///
    /// # Panics
    /// Without any.
    pub fn with(name: &'static str, coefficients: Vec<Coefficients>) -> GreedyMarginal {
        assert!(!coefficients.is_empty(), "a greedy policy has coefficients");
        GreedyMarginal { name, coefficients }
    }
}

impl Policy for GreedyMarginal {
    fn name(&self) -> &str {
        self.name
    }

    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        let coefficients = Coefficients::at(&self.coefficients, observation.alpha);
        let cost = |candidate| coefficients.cost(observation, candidate);
        scores.extend(observation.candidates().iter().map(|candidate| -cost(candidate)));
    }
}
