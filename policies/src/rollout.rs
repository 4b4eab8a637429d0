//! Playing an episode with a policy, and what it came to.

use std::sync::Arc;

use remora_env::observation::Reference;
use remora_env::outcome::{End, Outcome};
use remora_env::{Episode, Next, Scenario, World};

use crate::heuristics::KubeDefault;
use crate::{Policy, choose};

/// Figures of one episode; means are over the completed tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    pub tasks: usize,
    /// Tasks that no node can run.
    pub unplaceable: usize,
    /// Tasks that were turned away, given up or orphaned.
    pub failed: usize,
    /// How often tasks were lost and tried again.
    pub retries: usize,
    /// Price-weighted bytes, all tasks together, lost tries included.
    pub moved_bytes: f64,
    /// Bytes that left a site.
    pub wan_bytes: f64,
    pub response_mean_s: f64,
    pub response_p95_s: f64,
    pub response_p99_s: f64,
    pub deadline_missed: usize,
    /// What executions added to idle draw, joules.
    pub energy_j: f64,
    pub usd: f64,
}

impl Figures {
    /// Sums up the outcomes of an episode.
    pub fn of(episode: &Episode) -> Figures {
        Figures::of_outcomes(episode.outcomes())
    }

    /// Sums up outcomes, wherever they come from.
    pub fn of_outcomes(outcomes: &[Outcome]) -> Figures {
        let all = || outcomes.iter();
        let completed = || all().filter(|outcome| outcome.is_completed());
        let mut responses: Vec<f64> = completed().map(|outcome| outcome.response_s()).collect();
        responses.sort_unstable_by(f64::total_cmp);
        let percentile = |p: f64| {
            let rank = (p * responses.len() as f64).ceil() as usize;
            responses.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
        };
        let unplaceable = all().filter(|outcome| outcome.end == End::Unplaceable).count();
        Figures {
            tasks: all().count(),
            unplaceable,
            failed: all().count() - responses.len() - unplaceable,
            retries: all().map(|outcome| outcome.retries as usize).sum(),
            moved_bytes: all().map(|outcome| outcome.moved_bytes).sum(),
            wan_bytes: all().map(|outcome| outcome.wan_bytes as f64).sum(),
            response_mean_s: responses.iter().sum::<f64>() / responses.len().max(1) as f64,
            response_p95_s: percentile(0.95),
            response_p99_s: percentile(0.99),
            deadline_missed: completed().filter(|outcome| outcome.deadline_missed).count(),
            energy_j: all().map(|outcome| outcome.energy_j).sum(),
            usd: all().map(|outcome| outcome.usd).sum(),
        }
    }

    /// Tasks that came to their result.
    pub fn completed(&self) -> usize {
        self.tasks - self.unplaceable - self.failed
    }

    /// Price-weighted bytes per completed task.
    pub fn moved_bytes_per_task(&self) -> f64 {
        self.moved_bytes / self.completed().max(1) as f64
    }

    /// Cost per completed task, in the units of a reference.
    pub fn cost_per_task(&self, alpha: f64, reference: Reference) -> f64 {
        reference.cost(alpha, self.moved_bytes_per_task(), self.response_mean_s)
    }

    /// These figures as the two ends of the dial.
    pub fn reference(&self) -> Reference {
        Reference::new(self.response_mean_s, self.moved_bytes_per_task())
    }

    /// `α · data_moved / D₀ + (1 − α) · mean_response / R₀` against these baseline figures, so that
    /// the baseline itself costs 1 at every α, also where it moves no data at all.
    pub fn cost(&self, alpha: f64, baseline: &Figures) -> f64 {
        const BYTE: f64 = 1.0;
        const NANOSECOND: f64 = 1e-9;
        let moved = |figures: &Figures| figures.moved_bytes_per_task() + BYTE;
        let response = |figures: &Figures| figures.response_mean_s + NANOSECOND;
        alpha * moved(self) / moved(baseline) + (1.0 - alpha) * response(self) / response(baseline)
    }
}

/// Plays a world to its end.
pub fn play(world: &Arc<World>, policy: &mut dyn Policy, alpha: f64, reference: Reference) -> Episode {
    let mut episode = Episode::new(Arc::clone(world), alpha, reference);
    while let Next::Decide(observation) = episode.next() {
        let node = choose(policy, &observation).node;
        episode.step(node);
    }
    episode
}

/// Seeds on which a scenario's reference is measured; evaluation and training use others.
const REFERENCE_SEEDS: std::ops::Range<u64> = 0xCA11_B000..0xCA11_B002;

/// What the dial's ends are measured in on this scenario: the figures of `kube-default`.
pub fn reference(scenario: &Scenario) -> Reference {
    let neutral = Reference::new(1.0, 1e6);
    let figures: Vec<Reference> = REFERENCE_SEEDS
        .map(|seed| {
            let world = Arc::new(scenario.world(seed));
            Figures::of(&play(&world, &mut KubeDefault::new(seed), 0.5, neutral)).reference()
        })
        .collect();
    let mean = |of: fn(&Reference) -> f64| figures.iter().map(of).sum::<f64>() / figures.len() as f64;
    Reference::new(mean(|r| r.response_s), mean(|r| r.moved_bytes))
}
