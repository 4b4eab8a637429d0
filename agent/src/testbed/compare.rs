//! From simulation to reality: what the simulator says of the same worlds, the same policies, the same seeds.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use remora_env::Scenario;
use remora_env::calibrate::{Calibration, calibrate, replay};
use remora_env::import::Imported;
use remora_env::observation::Reference;
use remora_env::outcome::Outcome;
use remora_policies::by_name;
use remora_policies::rollout::{self, Figures};
use remora_trainer::statistics::{Ratio, mean, paired_ratio};
use serde::Serialize;

use super::run::{Plan, Played};

/// A policy here and there: means over worlds. Seconds and bytes are those of the testbed.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub policy: String,
    pub worlds: usize,
    pub tasks: usize,
    pub completed: usize,
    pub response_s: Figure,
    pub moved_bytes: Figure,
    pub cost: Figure,
    /// Cost over the first policy's on the same worlds, here and simulated.
    pub measured_over_first: Ratio,
    pub simulated_over_first: Ratio,
    /// Of tasks that completed in both, those that went to the same node.
    pub same_node: f64,
    /// Per task, the policy deciding for itself in both.
    pub decided: Errors,
    /// Per task, the simulator under the decisions that were made on the testbed.
    pub replayed: Errors,
    /// The same in the simulator that was calibrated with the first run.
    pub calibrated: Errors,
    pub bytes: Bytes,
}

/// A mean over worlds, three times.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figure {
    pub measured: f64,
    pub simulated: f64,
    /// In the calibrated simulator.
    pub calibrated: f64,
    /// Simulated over measured, the geometric mean of the worlds, with an interval over them.
    pub ratio: Ratio,
}

/// How far simulated tasks are from measured ones: medians over the tasks of all worlds, and the 90th percentile.
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

/// Why the simulator moves other bytes than the testbed did, as shares of what was measured, at prices. All but `excess`
/// and `for_another_task` add up to `excess`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Bytes {
    /// simulated − measured, the policy deciding for itself in both.
    pub excess: f64,
    /// What the simulator moves more since the policy decided otherwise there.
    pub other_decisions: f64,
    /// Under the same decisions: bytes that were moved in one and not in the other.
    pub images: f64,
    pub inputs: f64,
    pub outputs: f64,
    /// Under the same decisions: the same bytes from another source, which has another price.
    pub other_source: f64,
    /// Tasks that did not complete in both.
    pub not_in_both: f64,
    /// Moved in both to the same node, for another of its tasks: an error of tasks, and none of sums.
    pub for_another_task: f64,
}

/// Whether both put policies in the same order: Kendall's τ-b of means over worlds, 1 for the same, −1 for the reverse;
/// and the least and greatest of single worlds.
#[derive(Clone, Debug, Serialize)]
pub struct Ranking {
    pub simulator: &'static str,
    pub figure: &'static str,
    pub tau: f64,
    pub low: f64,
    pub high: f64,
}

/// All that a comparison comes to.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    pub rows: Vec<Row>,
    pub ranking: Vec<Ranking>,
    pub calibration: Option<Calibration>,
}

/// Compares runs of the same worlds under several policies with the simulator: for each policy, the same worlds in the
/// same order.
pub fn compare(runs: &[(Plan, Played)]) -> Result<Comparison> {
    let (first, first_played) = runs.first().context("a comparison wants a run")?;
    let calibrated = calibrate(&replayable(&first.scenario, &first_played.recording), first.seed);
    let learnt = calibrated.as_ref().map_or_else(
        || first.scenario.clone(),
        // The same links and devices under the arrivals of the world itself.
        |(scenario, _)| with_cluster_of(&first.scenario, scenario),
    );
    // What the dial is measured in is what the service was told, whatever was calibrated.
    let reference = rollout::reference(&first.scenario);
    let mut policies: Vec<(&str, Vec<World>)> = Vec::new();
    for (plan, played) in runs {
        let world = World::of((plan, played), &learnt, reference)?;
        match policies.iter_mut().find(|(policy, _)| *policy == plan.policy) {
            Some((_, worlds)) => worlds.push(world),
            None => policies.push((&plan.policy, vec![world])),
        }
    }
    let rows = policies.iter().map(|(policy, worlds)| row(policy, worlds, &policies[0].1)).collect();
    let worlds: Vec<&[World]> = policies.iter().map(|(_, worlds)| worlds.as_slice()).collect();
    Ok(Comparison {
        rows,
        ranking: ranking(&worlds),
        calibration: calibrated.map(|(_, calibration)| calibration),
    })
}

/// A scenario that replays a recording.
fn replayable(scenario: &Scenario, recording: &Imported) -> Scenario {
    let mut replayable = scenario.clone();
    replayable.file = recording.scenario.clone();
    replayable.trace = Some(recording.trace.clone());
    replayable
}

fn with_cluster_of(scenario: &Scenario, other: &Scenario) -> Scenario {
    let mut scenario = scenario.clone();
    scenario.file.topology = other.file.topology.clone();
    scenario.file.catalogue = other.file.catalogue.clone();
    scenario
}

/// A run of one world: what became of its tasks, here and simulated.
struct World {
    measured: Told,
    /// The policy deciding for itself.
    simulated: Told,
    calibrated: Told,
    /// Under the decisions that were made here.
    replayed: Vec<Outcome>,
    replayed_calibrated: Vec<Outcome>,
}

/// One of those of a world.
type Side = fn(&World) -> &Told;

/// Outcomes and what they come to: mean response, data moved and cost.
struct Told {
    outcomes: Vec<Outcome>,
    figures: [f64; 3],
}

const FIGURES: [&str; 3] = ["response", "data moved", "cost"];

impl World {
    fn of((plan, played): (&Plan, &Played), learnt: &Scenario, reference: Reference) -> Result<World> {
        let scenario = &plan.scenario;
        let told = |outcomes: Vec<Outcome>| {
            let figures = Figures::of_outcomes(&outcomes);
            let cost = figures.cost_per_task(plan.alpha, reference);
            Told { outcomes, figures: [figures.response_mean_s, figures.moved_bytes, cost] }
        };
        let simulate = |scenario: &Scenario| -> Result<Told> {
            let mut policy = by_name(&plan.policy, plan.seed)?;
            let world = Arc::new(scenario.world(plan.seed));
            Ok(told(rollout::play(&world, &mut *policy, plan.alpha, reference).outcomes().to_vec()))
        };
        let replayed = |cluster: &Scenario| {
            let recording = with_cluster_of(&replayable(scenario, &played.recording), cluster);
            replay(&Arc::new(recording.world(plan.seed)), &played.recording.trace)
        };
        Ok(World {
            measured: told(played.outcomes()),
            simulated: simulate(scenario)?,
            calibrated: simulate(learnt)?,
            replayed: replayed(scenario),
            replayed_calibrated: replayed(learnt),
        })
    }
}

fn row(policy: &str, worlds: &[World], first: &[World]) -> Row {
    let figure = |index: usize| {
        let of = |told: Side| worlds.iter().map(|world| told(world).figures[index]).collect::<Vec<_>>();
        let (measured, simulated) = (of(|world| &world.measured), of(|world| &world.simulated));
        Figure {
            ratio: paired_ratio(&simulated, &measured),
            measured: mean(measured),
            simulated: mean(simulated),
            calibrated: mean(of(|world| &world.calibrated)),
        }
    };
    let over_first = |told: Side| {
        let [ours, theirs] = [worlds, first]
            .map(|worlds| worlds.iter().map(|world| told(world).figures[2]).collect::<Vec<_>>());
        paired_ratio(&ours, &theirs)
    };
    let pairs = |simulated: fn(&World) -> &[Outcome]| -> Vec<Pair<'_>> {
        worlds.iter().flat_map(|world| pairs(simulated(world), &world.measured.outcomes)).collect()
    };
    let decided = pairs(|world| &world.simulated.outcomes);
    let same = decided.iter().filter(|(simulated, measured)| simulated.node == measured.node).count();
    let outcomes = || worlds.iter().flat_map(|world| &world.measured.outcomes);
    Row {
        policy: policy.to_owned(),
        worlds: worlds.len(),
        tasks: outcomes().count(),
        completed: outcomes().filter(|outcome| outcome.is_completed()).count(),
        response_s: figure(0),
        moved_bytes: figure(1),
        cost: figure(2),
        measured_over_first: over_first(|world| &world.measured),
        simulated_over_first: over_first(|world| &world.simulated),
        same_node: same as f64 / decided.len().max(1) as f64,
        decided: errors(&decided),
        replayed: errors(&pairs(|world| &world.replayed)),
        calibrated: errors(&pairs(|world| &world.replayed_calibrated)),
        bytes: bytes(worlds),
    }
}

/// A task, simulated and measured.
type Pair<'a> = (&'a Outcome, &'a Outcome);

/// Tasks that completed in both.
fn pairs<'a>(simulated: &'a [Outcome], measured: &'a [Outcome]) -> Vec<Pair<'a>> {
    let known: BTreeMap<_, _> = simulated.iter().map(|outcome| (outcome.task, outcome)).collect();
    let pair = |measured: &'a Outcome| Some((*known.get(&measured.task)?, measured));
    let both = measured.iter().filter_map(pair);
    both.filter(|(simulated, measured)| simulated.is_completed() && measured.is_completed()).collect()
}

fn errors(pairs: &[Pair<'_>]) -> Errors {
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

/// Where the bytes differ.
fn bytes(worlds: &[World]) -> Bytes {
    let moved = |outcomes: &[Outcome]| outcomes.iter().map(|outcome| outcome.moved_bytes).sum::<f64>();
    let mut causes = Bytes::default();
    let mut all = 0.0;
    for world in worlds {
        let measured = moved(&world.measured.outcomes);
        all += measured;
        causes.excess += moved(&world.simulated.outcomes) - measured;
        causes.other_decisions += moved(&world.simulated.outcomes) - moved(&world.replayed);
        causes.not_in_both += moved(&world.replayed) - measured;
        causes.add(&pairs(&world.replayed, &world.measured.outcomes));
    }
    let Bytes {
        excess,
        other_decisions,
        images,
        inputs,
        outputs,
        other_source,
        not_in_both,
        for_another_task,
    } = &mut causes;
    for bytes in
        [excess, other_decisions, images, inputs, outputs, other_source, not_in_both, for_another_task]
    {
        *bytes /= all.max(1.0);
    }
    causes
}

impl Bytes {
    /// Adds where the tasks of one world differ under the same decisions.
    fn add(&mut self, pairs: &[Pair<'_>]) {
        // By node and cargo: what tasks of the simulator moved more, and what those of the testbed did.
        let mut sides: BTreeMap<_, [f64; 2]> = BTreeMap::new();
        for (simulated, measured) in pairs {
            let cargo = |outcome: &Outcome| {
                [outcome.image_bytes, outcome.input_bytes, outcome.output_bytes].map(|bytes| bytes as f64)
            };
            let (ours, theirs) = (cargo(simulated), cargo(measured));
            // What is moved in one of the two only has the mean price of what the task moves there.
            let price =
                |outcome: &Outcome, bytes: [f64; 3]| outcome.moved_bytes / bytes.iter().sum::<f64>().max(1.0);
            let prices = [price(simulated, ours), price(measured, theirs)];
            let more = simulated.moved_bytes - measured.moved_bytes;
            let mut explained = 0.0;
            for (index, (ours, theirs)) in ours.into_iter().zip(theirs).enumerate() {
                let side = usize::from(ours < theirs);
                let bytes = (ours - theirs) * prices[side];
                explained += bytes;
                *[&mut self.images, &mut self.inputs, &mut self.outputs][index] += bytes;
                sides.entry((measured.node, index)).or_default()[side] += bytes.abs();
            }
            self.other_source += more - explained;
            self.not_in_both -= more;
        }
        self.for_another_task += sides.values().map(|[more, less]| more.min(*less)).sum::<f64>();
    }
}

/// The order of policies, each with the same worlds.
fn ranking(policies: &[&[World]]) -> Vec<Ranking> {
    let worlds = policies.iter().map(|worlds| worlds.len()).min().unwrap_or(0);
    let simulators: [(&str, Side); 2] =
        [("as described", |world| &world.simulated), ("calibrated", |world| &world.calibrated)];
    let mut ranking = Vec::new();
    for (simulator, told) in simulators {
        for (index, figure) in FIGURES.into_iter().enumerate() {
            let tau = |worlds: &dyn Fn(&[World]) -> [f64; 2]| {
                kendall(policies.iter().map(|of| worlds(of).into()).collect())
            };
            let of = |world: &World| [told(world).figures[index], world.measured.figures[index]];
            let single: Vec<f64> = (0..worlds).map(|at| tau(&|worlds| of(&worlds[at]))).collect();
            let means =
                |worlds: &[World]| [0, 1].map(|side| mean(worlds.iter().map(|world| of(world)[side])));
            let (low, high) =
                single.iter().fold((1.0_f64, -1.0_f64), |(low, high), &tau| (low.min(tau), high.max(tau)));
            ranking.push(Ranking { simulator, figure, tau: tau(&means), low, high });
        }
    }
    ranking
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
    use remora_env::Time;
    use remora_env::outcome::Outcome;

    use super::{Bytes, kendall};

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

    /// A task on a node that moved so many bytes of its image and inputs, at a price.
    fn moved(task: u64, node: u32, image: u64, input: u64, price: f64) -> Outcome {
        let mut outcome = Outcome::arrived(task, Time::ZERO);
        (outcome.node, outcome.image_bytes, outcome.input_bytes) = (Some(node), image, input);
        outcome.moved_bytes = price * (image + input) as f64;
        outcome
    }

    fn causes(pairs: &[(Outcome, Outcome)]) -> Bytes {
        let mut causes = Bytes::default();
        causes.add(&pairs.iter().map(|(simulated, measured)| (simulated, measured)).collect::<Vec<_>>());
        causes
    }

    #[test]
    fn bytes_that_differ_have_a_cause() {
        // A layer that the one task waited for here, and the other in the simulator.
        let shared = [
            (moved(0, 1, 50, 0, 2.0), moved(0, 1, 0, 0, 1.0)),
            (moved(1, 1, 0, 0, 1.0), moved(1, 1, 50, 0, 2.0)),
        ];
        let found = causes(&shared);
        assert_eq!((found.for_another_task, found.images, found.other_source), (100.0, 0.0, 0.0));
        // On another node it is none that was moved in both.
        let apart = [
            (moved(0, 1, 50, 0, 2.0), moved(0, 1, 0, 0, 1.0)),
            (moved(1, 2, 0, 0, 1.0), moved(1, 2, 50, 0, 2.0)),
        ];
        assert_eq!((causes(&apart).for_another_task, causes(&apart).images), (0.0, 0.0));
        // An input that was evicted and fetched again in the simulator alone.
        let again = causes(&[(moved(0, 1, 10, 30, 4.0), moved(0, 1, 10, 0, 4.0))]);
        assert_eq!((again.inputs, again.other_source, again.not_in_both), (120.0, 0.0, -120.0));
        // The same from a peer instead of the registry.
        let peer = causes(&[(moved(0, 1, 10, 0, 1.0), moved(0, 1, 10, 0, 4.0))]);
        assert_eq!((peer.images, peer.other_source, peer.not_in_both), (0.0, -30.0, 30.0));
    }
}
