//! What a run comes to: figures, and a recording that the simulator can replay.

use remora_env::import::Imported;
use remora_env::outcome::Outcome;
use remora_env::record;
use remora_env::{Scenario, Time, World};
use serde_json::{Value, json};

use super::driver::Lived;

/// What became of the tasks, in their order.
pub fn outcomes(lived: &[Lived]) -> Vec<Outcome> {
    lived.iter().map(|one| one.outcome.clone()).collect()
}

/// A scenario with a trace of all that was decided and became of it.
pub fn imported(scenario: &Scenario, world: &World, policy: &str, alpha: f64, lived: &[Lived]) -> Imported {
    let decisions = lived.iter().flat_map(|one| {
        one.tries.iter().filter_map(|tried| {
            let node = world.topology.node_named(&tried.node)?;
            Some((Time::from_s(tried.at_s), one.outcome.task as u32, node))
        })
    });
    let source = format!("a testbed of {} under {policy} at α = {alpha}, seed {}", world.name, world.seed);
    let played = record::Played { source, policy: policy.to_owned(), alpha, decisions: decisions.collect() };
    played.on(scenario, world, &outcomes(lived))
}

/// A task as a row.
pub fn row(world: &World, lived: &Lived) -> Value {
    let outcome = &lived.outcome;
    let node = outcome.node.map(|node| world.topology.nodes[node as usize].name.clone());
    json!({
        "task": *world.tasks[outcome.task as usize].name,
        "end": outcome.end,
        "reason": lived.reason,
        "node": node,
        "arrived_s": outcome.arrived.as_s(),
        "response_s": outcome.response_s(),
        "wait_s": outcome.admitted.since_s(outcome.arrived),
        "fetch_s": outcome.fetched.since_s(outcome.admitted),
        "start_s": outcome.started.since_s(outcome.fetched),
        "execution_s": outcome.executed.since_s(outcome.started),
        "store_s": outcome.completed.since_s(outcome.executed),
        "image_bytes": outcome.image_bytes,
        "input_bytes": outcome.input_bytes,
        "output_bytes": outcome.output_bytes,
        "wan_bytes": outcome.wan_bytes,
        "moved_bytes": outcome.moved_bytes,
        "retries": outcome.retries,
        "deadline_missed": outcome.deadline_missed,
        "tries": lived.tries,
    })
}
