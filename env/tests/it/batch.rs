//! Episodes side by side do what each does alone.

use std::sync::Arc;

use remora_env::batch::{Batch, Ended};
use remora_env::observation::Reference;
use remora_env::{Episode, Next, Outcome, Scenario};

/// Episodes of 40 tasks; those of the second slot are cut off after 15 decisions.
fn episode(slot: usize, round: u64) -> Episode {
    let mut scenario = Scenario::load("urban-sensing").unwrap();
    scenario.file.workload.tasks = Some(40);
    let world = Arc::new(scenario.world(100 * slot as u64 + round));
    let episode = Episode::new(world, 0.5, Reference::new(10.0, 1e8));
    if slot == 1 { episode.with_limit(15) } else { episode }
}

fn batched(threads: usize) -> (Vec<Outcome>, usize) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let mut batch = Batch::new(3, episode);
        let (mut outcomes, mut truncated) = (Vec::new(), 0);
        for _ in 0..120 {
            let nodes = batch.observe(|_, observation| observation.candidates()[0].node);
            for stepped in batch.step(&nodes) {
                match stepped.ended {
                    Some(Ended::Terminated(episode)) => outcomes.extend_from_slice(episode.outcomes()),
                    Some(Ended::Truncated(episode)) => {
                        assert!(matches!(episode.next(), Next::Truncated(_)));
                        truncated += 1;
                    }
                    None => {}
                }
            }
        }
        (outcomes, truncated)
    })
}

#[test]
fn a_batch_gives_the_same_on_one_thread_and_on_two() {
    let (outcomes, truncated) = batched(1);
    assert_eq!(truncated, 120 / 15);
    assert!(outcomes.len() >= 4 * 40, "{}", outcomes.len());
    assert_eq!((outcomes, truncated), batched(2));
}

#[test]
fn a_slot_goes_through_the_episodes_that_it_would_alone() {
    let mut alone = Vec::new();
    for round in 0..2 {
        let mut episode = episode(0, round);
        while let Next::Decide(observation) = episode.next() {
            let node = observation.candidates()[0].node;
            episode.step(node);
        }
        alone.extend_from_slice(episode.outcomes());
    }
    let mut batch = Batch::new(1, episode);
    let mut outcomes = Vec::new();
    while outcomes.len() < alone.len() {
        let nodes = batch.observe(|_, observation| observation.candidates()[0].node);
        for stepped in batch.step(&nodes) {
            if let Some(Ended::Terminated(episode)) = stepped.ended {
                outcomes.extend_from_slice(episode.outcomes());
            }
        }
    }
    assert_eq!(outcomes, alone);
}
