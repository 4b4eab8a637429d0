//! A scenario that is played faster is the same scenario.

use std::sync::Arc;

use remora_env::observation::Reference;
use remora_env::scenario::{BUILT_IN, TESTBED};
use remora_env::{Episode, Next, Scenario};

/// Plays a world; the nodes are chosen by turns, so that decisions are the same at any speed.
fn played(scenario: &Scenario) -> Episode {
    let mut episode = Episode::new(Arc::new(scenario.world(3)), 0.5, Reference::new(20.0, 1e8));
    let mut turn = 0;
    while let Next::Decide(observation) = episode.next() {
        turn += 1;
        let node = observation.node(turn % observation.count());
        episode.step(node);
    }
    episode
}

#[test]
fn everything_takes_a_share_of_the_time_and_of_the_bytes() {
    const SPEED: f64 = 8.0;
    for (name, _) in BUILT_IN.iter().chain([&TESTBED]) {
        let scenario = Scenario::load(name).unwrap();
        let text = scenario.faster(SPEED).to_toml();
        let faster = Scenario::parse(&text, "faster.toml", None).unwrap();
        let (slow, fast) = (played(&scenario), played(&faster));
        assert_eq!(slow.outcomes().len(), fast.outcomes().len(), "{name}");
        for slow in slow.outcomes() {
            let fast = fast.outcomes().iter().find(|fast| fast.task == slow.task).unwrap();
            assert_eq!((slow.end, slow.node), (fast.end, fast.node), "{name} {}", slow.task);
            let (response_s, expected_s) = (fast.response_s(), slow.response_s() / SPEED);
            assert!(
                (response_s - expected_s).abs() < 1e-3,
                "{name} {}: {response_s} {expected_s}",
                slow.task
            );
            let (bytes, expected) = (fast.moved_bytes, slow.moved_bytes / SPEED);
            assert!((bytes - expected).abs() < 100.0, "{name} {}: {bytes} {expected}", slow.task);
        }
    }
}
