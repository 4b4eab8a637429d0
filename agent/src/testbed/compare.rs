//! From simulation to reality: what the simulator says of the same world, the same policies, the same seed.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use remora_env::Scenario;
use remora_env::calibrate::{Calibration, calibrate, replay};
use remora_env::import::Imported;
use remora_env::outcome::Outcome;
use remora_policies::by_name;
use remora_policies::rollout::{self, Figures};
use serde::Serialize;

use super::run::{Plan, Played};

/// A policy here and there. Seconds and bytes are those of the testbed.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub policy: String,
    pub tasks: usize,
    pub completed: usize,
    pub simulated_response_s: f64,
    pub measured_response_s: f64,
    pub simulated_moved_bytes: f64,
    pub measured_moved_bytes: f64,
    pub simulated_cost: f64,
    pub measured_cost: f64,
    /// Of tasks that completed in both, those that went to the same node.
    pub same_node: f64,
    /// Per task, the policy deciding for itself in both.
    pub decided: Errors,
    /// Per task, the simulator under the decisions that were made on the testbed.
    pub replayed: Errors,
    /// The same in the simulator that was calibrated with the first policy's run.
    pub calibrated: Errors,
    /// Response times and costs of the calibrated simulator, the policy deciding for itself.
    pub calibrated_response_s: f64,
    pub calibrated_moved_bytes: f64,
    pub calibrated_cost: f64,
}

/// How far simulated tasks are from measured ones: medians over the tasks, and the 90th percentile.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Errors {
    /// |simulated − measured| response time, seconds.
    pub response_s: f64,
    pub response_p90_s: f64,
    /// The same over the measured one.
    pub response_share: f64,
    /// simulated − measured, seconds: what is left out on one side.
    pub bias_s: f64,
    /// |simulated − measured| bytes moved, at prices.
    pub moved_bytes: f64,
    /// Sum of these over the sum of measured ones.
    pub moved_share: f64,
    pub tasks: usize,
}

/// Whether both put policies in the same order: Kendall's τ-b of each figure, 1 for the same, −1 for the reverse.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ranking {
    pub response: f64,
    pub moved: f64,
    pub cost: f64,
}

/// All that a comparison comes to.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    pub rows: Vec<Row>,
    pub ranking: Ranking,
    /// After calibration with the first policy's run.
    pub calibrated_ranking: Ranking,
    pub calibration: Option<Calibration>,
}

/// Compares runs of the same world under several policies with the simulator.
pub fn compare(runs: &[(Plan, Played)]) -> Result<Comparison> {
    let (first, first_played) = runs.first().context("a comparison wants a run")?;
    let recording = replayable(&first.scenario, &first_played.recording);
    let calibrated = calibrate(&recording, first.seed);
    let learnt = calibrated.as_ref().map(|(scenario, _)| {
        // The same links and devices under the arrivals of the world itself.
        let mut learnt = first.scenario.clone();
        learnt.file.topology = scenario.file.topology.clone();
        learnt.file.catalogue = scenario.file.catalogue.clone();
        learnt
    });
    let rows: Result<Vec<Row>> = runs
        .iter()
        .map(|(plan, played)| row(plan, played, learnt.as_ref().unwrap_or(&plan.scenario)))
        .collect();
    let rows = rows?;
    let ranking = |response: fn(&Row) -> f64, moved: fn(&Row) -> f64, cost: fn(&Row) -> f64| {
        let tau = |simulated: fn(&Row) -> f64, measured: fn(&Row) -> f64| {
            kendall(rows.iter().map(|row| (simulated(row), measured(row))).collect())
        };
        Ranking {
            response: tau(response, |row| row.measured_response_s),
            moved: tau(moved, |row| row.measured_moved_bytes),
            cost: tau(cost, |row| row.measured_cost),
        }
    };
    Ok(Comparison {
        ranking: ranking(
            |row| row.simulated_response_s,
            |row| row.simulated_moved_bytes,
            |row| row.simulated_cost,
        ),
        calibrated_ranking: ranking(
            |row| row.calibrated_response_s,
            |row| row.calibrated_moved_bytes,
            |row| row.calibrated_cost,
        ),
        calibration: calibrated.map(|(_, calibration)| calibration),
        rows,
    })
}

/// A scenario that replays a recording.
fn replayable(scenario: &Scenario, recording: &Imported) -> Scenario {
    let mut replayable = scenario.clone();
    replayable.file = recording.scenario.clone();
    replayable.trace = Some(recording.trace.clone());
    replayable
}

fn row(plan: &Plan, played: &Played, learnt: &Scenario) -> Result<Row> {
    let scenario = &plan.scenario;
    let measured = played.outcomes();
    // What the dial is measured in is what the service was told, whatever was calibrated.
    let reference = rollout::reference(scenario);
    let simulate = |scenario: &Scenario| -> Result<Vec<Outcome>> {
        let mut policy = by_name(&plan.policy, plan.seed)?;
        let world = Arc::new(scenario.world(plan.seed));
        Ok(rollout::play(&world, &mut *policy, plan.alpha, reference).outcomes().to_vec())
    };
    let (simulated, calibrated) = (simulate(scenario)?, simulate(learnt)?);
    let replayed = |links: &Scenario| {
        let mut recording = replayable(scenario, &played.recording);
        recording.file.topology = links.file.topology.clone();
        recording.file.catalogue = links.file.catalogue.clone();
        replay(&Arc::new(recording.world(plan.seed)), &played.recording.trace)
    };
    let figures = [&simulated, &measured, &calibrated].map(|outcomes| Figures::of_outcomes(outcomes));
    let [of_simulated, of_measured, of_calibrated] = figures;
    let cost = |figures: &Figures| figures.cost_per_task(plan.alpha, reference);
    let pairs = pairs(&simulated, &measured);
    let same = pairs.iter().filter(|(simulated, measured)| simulated.node == measured.node).count();
    Ok(Row {
        policy: plan.policy.clone(),
        tasks: measured.len(),
        completed: of_measured.completed(),
        simulated_response_s: of_simulated.response_mean_s,
        measured_response_s: of_measured.response_mean_s,
        simulated_moved_bytes: of_simulated.moved_bytes,
        measured_moved_bytes: of_measured.moved_bytes,
        simulated_cost: cost(&of_simulated),
        measured_cost: cost(&of_measured),
        same_node: same as f64 / pairs.len().max(1) as f64,
        decided: errors(&simulated, &measured),
        replayed: errors(&replayed(scenario), &measured),
        calibrated: errors(&replayed(learnt), &measured),
        calibrated_response_s: of_calibrated.response_mean_s,
        calibrated_moved_bytes: of_calibrated.moved_bytes,
        calibrated_cost: cost(&of_calibrated),
    })
}

/// Tasks that completed in both.
fn pairs<'a>(simulated: &'a [Outcome], measured: &'a [Outcome]) -> Vec<(&'a Outcome, &'a Outcome)> {
    let known: BTreeMap<_, _> = simulated.iter().map(|outcome| (outcome.task, outcome)).collect();
    let pair = |measured: &'a Outcome| Some((*known.get(&measured.task)?, measured));
    let both = measured.iter().filter_map(pair);
    both.filter(|(simulated, measured)| simulated.is_completed() && measured.is_completed()).collect()
}

fn errors(simulated: &[Outcome], measured: &[Outcome]) -> Errors {
    let pairs = pairs(simulated, measured);
    let of = |figure: &dyn Fn(&Outcome, &Outcome) -> f64| -> Vec<f64> {
        pairs.iter().map(|(simulated, measured)| figure(simulated, measured)).collect()
    };
    let response = |simulated: &Outcome, measured: &Outcome| simulated.response_s() - measured.response_s();
    let absolute = of(&|s, m| response(s, m).abs());
    let moved = of(&|s, m| (s.moved_bytes - m.moved_bytes).abs());
    let all: f64 = pairs.iter().map(|(_, measured)| measured.moved_bytes).sum();
    Errors {
        response_s: quantile(absolute.clone(), 0.5),
        response_p90_s: quantile(absolute, 0.9),
        response_share: quantile(of(&|s, m| response(s, m).abs() / m.response_s().max(1e-9)), 0.5),
        bias_s: quantile(of(&response), 0.5),
        moved_bytes: quantile(moved.clone(), 0.5),
        moved_share: moved.iter().sum::<f64>() / all.max(1.0),
        tasks: pairs.len(),
    }
}

fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get((values.len() as f64 * share) as usize).copied().unwrap_or(0.0)
}

/// Kendall's τ-b (Kendall, *Rank Correlation Methods*): ties on either side count on neither. 0 where one side does
/// not tell them apart at all.
fn kendall(pairs: Vec<(f64, f64)>) -> f64 {
    let sign = |a: f64, b: f64| f64::from(a > b) - f64::from(a < b);
    let (mut agree, mut left, mut right) = (0.0, 0.0, 0.0);
    for (index, a) in pairs.iter().enumerate() {
        for b in &pairs[..index] {
            let (x, y) = (sign(a.0, b.0), sign(a.1, b.1));
            agree += x * y;
            left += x * x;
            right += y * y;
        }
    }
    if left * right == 0.0 { 0.0 } else { agree / f64::sqrt(left * right) }
}

#[cfg(test)]
mod tests {
    use super::kendall;

    #[test]
    fn orders_are_compared() {
        assert_eq!(kendall(vec![(1.0, 10.0), (2.0, 20.0), (3.0, 30.0)]), 1.0);
        assert_eq!(kendall(vec![(1.0, 30.0), (2.0, 20.0), (3.0, 10.0)]), -1.0);
        // Five of six pairs agree, one does not.
        let one_swapped = vec![(1.0, 1.0), (2.0, 3.0), (3.0, 2.0), (4.0, 4.0)];
        assert!((kendall(one_swapped) - 4.0 / 6.0).abs() < 1e-12);
        assert_eq!(kendall(vec![(1.0, 1.0), (1.0, 2.0)]), 0.0);
        // One pair is tied on the left: 2 / √(2 · 3).
        let tied = vec![(1.0, 1.0), (1.0, 2.0), (2.0, 3.0)];
        assert!((kendall(tied) - 2.0 / 6f64.sqrt()).abs() < 1e-12);
    }
}
