//! Prices by an evolution strategy: the prices of a generation differ a little at random, all of them play
//! the same worlds to the end, and the mean moves towards those that did well. What it minimises is the cost
//! of whole episodes, with no credit to assign to single decisions.
//!
//! Source: natural evolution strategies with rank-based utilities (Wierstra et al., JMLR 15, 2014), mirrored
//! samples (Brockhoff et al. 2010) and common random numbers. The positions of the dial that have prices are
//! judged each by itself.

use std::time::Instant;

use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::{IntoParallelIterator, ParallelIterator};
use remora_env::random::{Purpose, stream};
use remora_policies::prices::{ANCHORS, PARTS, Priced, Prices, SITUATIONS, Sheet};
use remora_policies::rollout::{Figures, play};
use remora_policies::search;
use serde::{Deserialize, Serialize};

use crate::course::{Lesson, Units};
use crate::learner::{Learner, Metrics};

/// How prices are found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvolutionConfig {
    /// Share of the run after which the prices are kept as they are.
    pub until: f64,
    /// Prices per iteration.
    pub population: usize,
    /// Worlds that each of them plays, at each position of the dial that has prices.
    pub worlds: usize,
    /// Standard deviation of the prices of the first iteration; falls linearly to a fifth, with which a run begins
    /// that goes on from a checkpoint.
    pub deviation: f64,
}

impl Default for EvolutionConfig {
    fn default() -> EvolutionConfig {
        EvolutionConfig { until: 0.4, population: 16, worlds: 128, deviation: 0.3 }
    }
}

/// Share of the way that is gone at once towards those that did well.
const RATE: f64 = 0.7;

/// Beyond this a world's cost, as a logarithm over the median of the generation, counts no more: a few worlds
/// would decide otherwise.
const MOST: f64 = 0.25;

impl Learner {
    /// One generation.
    pub(crate) fn evolve(&mut self, progress: f64) -> Metrics {
        let started = Instant::now();
        let config = self.config.evolution;
        // The same in every iteration: what differs between generations is then not luck.
        if self.lessons.is_empty() {
            self.lessons = self.first_lessons(config.worlds);
        }
        let left = if self.config.from.is_some() { 0.2 } else { 1.0 - 0.8 * progress / config.until };
        let deviation = config.deviation * left;
        let mut rng = stream(self.config.seed, Purpose::Evolution, self.iteration);
        let steps = steps(config.population, deviation as f32, &mut rng);
        let mean = self.network.prices.clone();
        let shortlist = self.config.network.shortlist;
        let mut metrics = Metrics::default();
        let mut relative_costs = Vec::new();
        for (anchor, alpha) in ANCHORS.into_iter().enumerate() {
            let lessons = &self.lessons[..judges(self.lessons.len(), alpha)];
            let costs: Vec<f64> = (0..lessons.len() * steps.len())
                .into_par_iter()
                .map(|job| {
                    let (world, who) = (job / steps.len(), job % steps.len());
                    let prices = add(&mean, &steps[who], 1.0);
                    relative_cost(&lessons[world], alpha, Priced { prices, shortlist }).ln()
                })
                .collect();
            for (Prices(step), utility) in steps.iter().zip(utilities(&judge(&costs, steps.len()))) {
                add_sheet(&mut self.network.prices.0[anchor], &step[anchor], (RATE * utility) as f32);
            }
            let tasks: usize = lessons.iter().map(|lesson| lesson.world.tasks.len()).sum();
            metrics.decisions += tasks * steps.len();
            relative_costs.extend(costs);
        }
        metrics.relative_cost = (relative_costs.iter().sum::<f64>() / relative_costs.len() as f64).exp();
        metrics.collect_s = started.elapsed().as_secs_f64();
        metrics
    }
}

/// How many of the worlds are played at a position of the dial: where only data counts, few prices do.
fn judges(worlds: usize, alpha: f64) -> usize {
    if alpha < 1.0 { worlds } else { worlds.div_ceil(4) }
}

/// Steps to try, each with its mirror image.
fn steps(count: usize, deviation: f32, rng: &mut impl Rng) -> Vec<Prices> {
    let mut steps = Vec::with_capacity(count);
    for _ in 0..count / 2 {
        let draw = |_| -> f32 { StandardNormal.sample(rng) };
        let step: Vec<f32> = (0..ANCHORS.len() * SITUATIONS.len() * PARTS.len()).map(draw).collect();
        let step = Prices::from_flat(&step).expect("as many as there are prices");
        let nothing = Prices(Default::default());
        steps.push(add(&nothing, &step, deviation));
        steps.push(add(&nothing, &step, -deviation));
    }
    steps
}

fn add(prices: &Prices, step: &Prices, times: f32) -> Prices {
    let mut sum = prices.clone();
    sum.0.iter_mut().zip(&step.0).for_each(|(sheet, step)| add_sheet(sheet, step, times));
    sum
}

fn add_sheet(sheet: &mut Sheet, step: &Sheet, times: f32) {
    let prices = sheet.iter_mut().flatten().zip(step.iter().flatten());
    prices.for_each(|(price, step)| *price += times * step);
}

/// Cost per task over greedy's.
fn relative_cost(lesson: &Lesson, alpha: f64, mut policy: Priced) -> f64 {
    let Units { reference, greedy } = lesson.units;
    let ours =
        Figures::of(&play(&lesson.world, &mut policy, alpha, reference)).cost_per_task(alpha, reference);
    // What moves no data at all still has a logarithm.
    (ours / reference.cost(alpha, greedy.moved_bytes, greedy.response_s)).max(1e-6)
}

/// What each of `count` members cost in all worlds together: per world, the logarithm over the generation's
/// median. `costs` is `[worlds, count]`.
fn judge(costs: &[f64], count: usize) -> Vec<f64> {
    let mut totals = vec![0.0; count];
    for costs in costs.chunks(count) {
        let mut sorted = costs.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let median = sorted[count / 2];
        totals.iter_mut().zip(costs).for_each(|(total, cost)| *total += (cost - median).clamp(-MOST, MOST));
    }
    totals
}

/// What each member of a generation counts, by the rank of its cost; they sum to zero.
fn utilities(costs: &[f64]) -> Vec<f64> {
    let count = costs.len();
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|&a, &b| costs[a].total_cmp(&costs[b]));
    let mut utilities = vec![0.0; count];
    order.iter().zip(search::utilities(count)).for_each(|(&who, utility)| utilities[who] = utility);
    utilities
}

#[cfg(test)]
mod tests {
    use super::{judge, utilities};

    #[test]
    fn the_cheapest_count_most_and_all_together_nothing() {
        let utilities = utilities(&[3.0, 1.0, 2.0, 4.0]);
        assert!(utilities[1] > utilities[2] && utilities[2] > utilities[0]);
        assert!(utilities.iter().sum::<f64>().abs() < 1e-12, "{utilities:?}");
    }

    #[test]
    fn one_world_does_not_decide() {
        // Two worlds in which the first does a little better, and one in which it does much worse.
        let totals = judge(&[-0.2, 0.0, -0.2, 0.0, 9.0, 0.0], 2);
        assert!(totals[0] < totals[1], "{totals:?}");
    }
}
