//! The beginning of one episode, for a picture that people can read.

use std::sync::Arc;

use remora_env::{Episode, Scenarios};
use remora_policies::rollout::{self, play};
use remora_policies::{PolicyError, by_name};
use serde::{Deserialize, Serialize};

/// Tasks that a timeline shows.
const TASKS: usize = 40;

/// The beginning of one episode, task by task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    pub scenario: String,
    pub policy: String,
    pub alpha: f64,
    /// Names of the nodes that ran something.
    pub lines: Vec<String>,
    pub tasks: Vec<TimelineTask>,
}

/// A task on a node's line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimelineTask {
    pub name: String,
    pub line: usize,
    /// Place among those at the same time on the line, and how many there are.
    pub place: (usize, usize),
    /// Arrived, admitted, fetched, started, executed, stored: seconds since the beginning.
    pub times_s: [f64; 6],
}

impl Timeline {
    /// Plays the first tasks of a scenario's first world.
    pub fn of(scenarios: &Scenarios, policy: &str, alpha: f64) -> Result<Timeline, PolicyError> {
        let mut scenario = scenarios.at(0).into_owned();
        let reference = rollout::reference(&scenario);
        scenario.file.workload.tasks = Some(TASKS as u32);
        let world = Arc::new(scenario.world(0));
        let episode = play(&world, by_name(policy, 0)?.as_mut(), alpha, reference);
        let (lines, tasks) = lines(&episode);
        let (scenario, policy) = (scenarios.name().to_owned(), policy.to_owned());
        Ok(Timeline { scenario, policy, alpha, lines, tasks })
    }
}

fn lines(episode: &Episode) -> (Vec<String>, Vec<TimelineTask>) {
    let mut outcomes: Vec<_> = episode.outcomes().iter().filter(|outcome| outcome.is_completed()).collect();
    outcomes.sort_by_key(|outcome| outcome.task);
    let mut nodes: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let world = episode.world();
    // When each place of each line is free, so that tasks at the same time stand below each other.
    let mut places: Vec<Vec<f64>> = vec![Vec::new(); nodes.len()];
    let mut tasks = Vec::new();
    for outcome in outcomes {
        let Some(line) = outcome.node.and_then(|node| nodes.binary_search(&node).ok()) else { continue };
        let times = [outcome.arrived, outcome.admitted, outcome.fetched, outcome.started, outcome.executed];
        let [arrived, admitted, fetched, started, executed] = times.map(|time| time.as_s());
        let stored = outcome.completed.as_s();
        let free = places[line].iter().position(|free| *free <= arrived);
        let place = free.unwrap_or(places[line].len());
        if free.is_none() {
            places[line].push(0.0);
        }
        places[line][place] = stored;
        let times_s = [arrived, admitted, fetched, started, executed, stored];
        let name = world.tasks[outcome.task as usize].name.to_string();
        tasks.push(TimelineTask { name, line, place: (place, 0), times_s });
    }
    for task in &mut tasks {
        task.place.1 = places[task.line].len();
    }
    (nodes.iter().map(|&node| world.topology.nodes[node as usize].name.clone()).collect(), tasks)
}
