//! What every scenario must hold to when it is played, checked by playing it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::episode::{Episode, Next};
use crate::observation::{FEATURE_COUNT, Reference};
use crate::outcome::{End, Outcome};
use crate::random::{Purpose, unit};
use crate::scenario::Scenario;
use crate::world::World;

/// What was played without finding a fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Played {
    pub worlds: u64,
    pub decisions: u64,
    pub events: u64,
    /// Outcomes in the order of [`End::ALL`].
    pub ends: [u64; End::ALL.len()],
}

/// A promise of the simulator that a scenario breaks: a fault of the simulator, never of the scenario.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("world {seed}: {what}")]
pub struct Broken {
    pub seed: u64,
    pub what: String,
}

/// Plays `worlds` worlds of a scenario, at most `tasks` tasks of each, with choices at random:
///
/// - the books balance after every event;
/// - every arrival ends as exactly one outcome, its phases in order;
/// - every feature of every observation is a number;
/// - the same seed gives the same outcomes, and so does going on from a snapshot.
///
/// # Panics
/// When a book does not balance.
pub fn check(scenario: &Scenario, worlds: u64, tasks: u32) -> Result<Played, Broken> {
    let mut scenario = scenario.clone();
    let limit = scenario.file.workload.tasks.map_or(tasks, |all| all.min(tasks));
    scenario.file.workload.tasks = Some(limit);
    let mut played = Played { worlds, ..Played::default() };
    for seed in 0..worlds {
        let broken = |what: String| Broken { seed, what };
        let world = Arc::new(scenario.world(seed));
        let episode = Episode::new(Arc::clone(&world), 0.5, Reference::new(10.0, 1e8));
        let (outcomes, decisions, events) = play(episode.clone().audited(), seed, 0).map_err(broken)?;
        let broken = |what: String| Broken { seed, what };
        one_outcome_each(&world, &outcomes).map_err(broken)?;
        let mut halfway = episode;
        let mut made = 0;
        while made < decisions / 2 && halfway.goes_on() {
            halfway.step(chosen(&halfway, seed, made));
            made += 1;
        }
        let (again, _, _) = play(halfway.clone(), seed, made).map_err(broken)?;
        let (snapshot, _, _) = play(halfway, seed, made).map_err(broken)?;
        if again != outcomes || snapshot != outcomes {
            return Err(broken("the same seed and choices gave other outcomes".to_owned()));
        }
        played.decisions += decisions;
        played.events += events;
        for outcome in &outcomes {
            played.ends[outcome.end as usize] += 1;
        }
    }
    Ok(played)
}

/// The node drawn for decision number `decision`.
fn chosen(episode: &Episode, seed: u64, decision: u64) -> u32 {
    let Next::Decide(observation) = episode.next() else { unreachable!("the episode goes on") };
    let draw = unit(seed, Purpose::Policy, 0, decision) * observation.candidates().len() as f64;
    observation.candidates()[draw as usize].node
}

/// Plays on to the end; outcomes, decisions and events.
fn play(mut episode: Episode, seed: u64, from: u64) -> Result<(Vec<Outcome>, u64, u64), String> {
    let mut decisions = from;
    let mut features = vec![0.0; 16 * FEATURE_COUNT];
    while let Next::Decide(observation) = episode.next() {
        let shortlist = observation.shortlist(16);
        observation.features(&observation.look(&shortlist), features.chunks_exact_mut(FEATURE_COUNT));
        if let Some(at) = features[..shortlist.len() * FEATURE_COUNT].iter().position(|f| !f.is_finite()) {
            let name = crate::observation::FEATURES[at % FEATURE_COUNT].name;
            return Err(format!("feature {name} of decision {decisions} is {}", features[at]));
        }
        let node = chosen(&episode, seed, decisions);
        episode.step(node);
        decisions += 1;
    }
    Ok((episode.outcomes().to_vec(), decisions, episode.events()))
}

fn one_outcome_each(world: &World, outcomes: &[Outcome]) -> Result<(), String> {
    let tasks: BTreeSet<u64> = outcomes.iter().map(|outcome| outcome.task).collect();
    if outcomes.len() != world.tasks.len() || tasks.len() != outcomes.len() {
        return Err(format!("{} tasks have {} outcomes", world.tasks.len(), outcomes.len()));
    }
    for o in outcomes.iter().filter(|outcome| outcome.is_completed()) {
        let phases = [o.arrived, o.admitted, o.fetched, o.started, o.executed, o.completed];
        if !phases.is_sorted() {
            return Err(format!("the phases of task {} are not in order: {phases:?}", o.task));
        }
    }
    Ok(())
}
