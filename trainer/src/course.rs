//! What to learn on: worlds of scenarios and members of families, each with the units that its figures
//! are measured in.

use std::sync::Arc;

use rand::{Rng, RngExt};
use remora_env::observation::Reference;
use remora_env::random::{Purpose, stream};
use remora_env::{Scenario, Scenarios, World};
use remora_policies::heuristics::GreedyCompletion;
use remora_policies::rollout::{self, Figures};

use crate::config::Config;

/// Training seeds start here. Evaluation uses small seeds, validation [`VALIDATION_SEEDS`],
/// references others still: the ranges cannot meet.
pub const TRAINING_SEEDS: u64 = 1 << 32;

/// First seed of the worlds on which checkpoints are compared.
pub const VALIDATION_SEEDS: u64 = 1 << 24;

/// What to learn on: worlds of a scenario, or members of a family, cut off after so many tasks.
#[derive(Clone, Debug)]
pub struct Course {
    scenarios: Scenarios,
    tasks: u32,
    /// Of a scenario; members of a family have each their own.
    units: Option<Units>,
}

/// What figures are measured in.
#[derive(Clone, Copy, Debug)]
pub struct Units {
    /// What the dial's ends are measured in: `kube-default`.
    pub reference: Reference,
    /// Figures of `greedy-completion`: the unit of costs in learning.
    pub greedy: Reference,
}

/// A world with its units.
#[derive(Clone, Debug)]
pub struct Lesson {
    pub world: Arc<World>,
    pub units: Units,
}

impl Units {
    fn of(scenario: &Scenario, tasks: u32) -> Units {
        let reference = rollout::reference(scenario);
        let mut short = scenario.clone();
        short.file.workload.tasks = Some(tasks);
        let world = Arc::new(short.world(VALIDATION_SEEDS - 1));
        let greedy =
            Figures::of(&rollout::play(&world, &mut GreedyCompletion::default(), 0.0, reference)).reference();
        Units { reference, greedy }
    }
}

impl Course {
    /// Measures a scenario with episodes of `tasks` tasks.
    pub fn new(scenarios: Scenarios, tasks: u32) -> Course {
        let units = match &scenarios {
            Scenarios::One(scenario) => Some(Units::of(scenario, tasks)),
            Scenarios::Family(_) => None,
        };
        Course { scenarios, tasks, units }
    }

    /// The course's world for a seed, `times` as long as usual.
    pub fn lesson(&self, seed: u64, times: u32) -> Lesson {
        let mut scenario = self.scenarios.at(seed).into_owned();
        let units = self.units.unwrap_or_else(|| Units::of(&scenario, self.tasks));
        scenario.file.workload.tasks = Some(self.tasks * times);
        Lesson { world: Arc::new(scenario.world(seed)), units }
    }

    /// Whether every seed is another scenario.
    pub fn is_family(&self) -> bool {
        matches!(self.scenarios, Scenarios::Family(_))
    }

    /// Where checkpoints are compared: other worlds of the same scenario, or the validation family.
    pub fn for_validation(&self) -> Course {
        Course { scenarios: self.scenarios.for_validation(), ..self.clone() }
    }
}

/// One world to learn from.
#[derive(Debug)]
pub struct Exercise {
    pub seed: u64,
    pub alpha: f64,
    pub lesson: Lesson,
}

/// Every so many worlds one is [`LONG`] times as long: that is where foresight pays.
const LONG_EVERY: u64 = 6;
const LONG: u32 = 5;

/// The `index`-th world of a training run.
pub fn exercise(config: &Config, courses: &[Course], index: u64) -> Exercise {
    let seed = TRAINING_SEEDS.wrapping_add(config.seed << 40).wrapping_add(index);
    let mut rng = stream(seed, Purpose::Policy, 0);
    let times = if index % LONG_EVERY == LONG_EVERY - 1 { LONG } else { 1 };
    let lesson = courses[index as usize % courses.len()].lesson(seed, times);
    Exercise { seed, alpha: config.alpha.unwrap_or_else(|| draw_alpha(&mut rng)), lesson }
}

/// Half of them at the ends and quarters of the dial, half anywhere on it.
fn draw_alpha(rng: &mut impl Rng) -> f64 {
    if rng.random() { f64::from(rng.random_range(0..5_u8)) / 4.0 } else { rng.random() }
}
