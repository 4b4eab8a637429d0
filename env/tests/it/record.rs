//! A recording replays to what was recorded.

use std::sync::Arc;

use remora_env::observation::Reference;
use remora_env::outcome::Outcome;
use remora_env::record::Recorder;
use remora_env::{Episode, Next, Scenario};

/// Plays a world by choosing the cheapest candidate but one, so that something happens.
fn play(scenario: &Scenario, seed: u64) -> (Episode, Recorder) {
    let world = Arc::new(scenario.world(seed));
    let mut episode = Episode::new(world, 0.5, Reference::new(20.0, 1e8));
    let mut recorder = Recorder::new("second-best");
    while let Next::Decide(observation) = episode.next() {
        let mut candidates: Vec<_> = observation.candidates().iter().collect();
        candidates.sort_by(|a, b| observation.cost(a).total_cmp(&observation.cost(b)));
        let node = candidates[1.min(candidates.len() - 1)].node;
        recorder.decide(&episode, node);
        episode.step(node);
    }
    (episode, recorder)
}

fn record_and_replay(scenario: &Scenario, seed: u64) -> (Vec<Outcome>, Vec<Outcome>) {
    let (episode, recorder) = play(scenario, seed);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recorded.toml");
    recorder.finish(scenario, &episode).write(&path).unwrap();
    let recorded = Scenario::load(path.to_str().unwrap()).unwrap();
    let (again, recorder) = play(&recorded, seed);
    // A recording of the replay is the recording.
    let trace = recorded.trace.as_ref().unwrap();
    assert_eq!(recorder.finish(&recorded, &again).trace.records, trace.records);
    let decisions =
        trace.records.iter().filter(|record| matches!(record, remora_env::trace::Record::Decision(_)));
    assert!(decisions.count() >= again.outcomes().iter().filter(|outcome| outcome.is_completed()).count());
    (episode.outcomes().to_vec(), again.outcomes().to_vec())
}

#[test]
fn chains_jobs_faults_and_bursts_replay_to_the_nanosecond() {
    for name in ["urban-sensing", "industrial-iot", "train-family/7", "train-family/30", "train-family/66"] {
        let scenario = Scenario::load(name).unwrap();
        let (recorded, replayed) = record_and_replay(&scenario, 3);
        assert!(recorded.len() >= 200);
        assert_eq!(recorded, replayed, "{name}");
    }
}
