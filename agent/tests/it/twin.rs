//! The twin test: what the episode decides, the live service decides too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use remora_agent::service::{Clock, Config, convert};
use remora_env::catalogue::Task;
use remora_env::{Cluster, Episode, Next, Scenario, Time};
use remora_policies::{by_name, choose, rollout};
use remora_proto::v1 as wire;

use crate::server::Server;

/// The task in names.
fn named(cluster: &Cluster, task: &Task) -> wire::Task {
    let dataset = |id: &u32| cluster.catalogue.datasets[*id as usize].name.clone();
    wire::Task {
        kind: cluster.catalogue.kind(task).name.clone(),
        image: task.image.map(|id| cluster.catalogue.images[id as usize].name.clone()).unwrap_or_default(),
        inputs: task.inputs.iter().map(dataset).collect(),
        outputs: task.outputs.iter().map(dataset).collect(),
    }
}

/// Plays a scenario; at every decision, hands the facts to the service and asks it for the same.
async fn twins_agree(scenario: &str, policy: &str, decisions: usize) {
    let scenario = Scenario::load(scenario).unwrap();
    let reference = rollout::reference(&scenario);
    let (alpha, seed) = (0.3, 11);
    let mut own = by_name(policy, 0).unwrap();
    let time = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&time);
    let clock = Clock::new(move || Time(clock.load(Ordering::SeqCst)));
    let server = Server::start(Config { clock, ..Config::new(by_name(policy, 0).unwrap()) }).await;
    let (mut clusters, mut placements) = (server.clusters().await, server.placements().await);
    let mut episode = Episode::new(Arc::new(scenario.world(seed)), alpha, reference);
    let mut busy = 0;
    for number in 0..decisions {
        let Next::Decide(observation) = episode.next() else { break };
        let choice = choose(&mut *own, &observation);
        let cluster = episode.cluster();
        time.store(cluster.now.0, Ordering::SeqCst);
        busy += cluster.nodes.iter().map(|node| node.commitments.len()).sum::<usize>();
        clusters.register(convert::export("twin", cluster, reference, &BTreeMap::new())).await.unwrap();
        let request = wire::PlaceRequest {
            cluster_id: "twin".to_owned(),
            task: Some(named(cluster, observation.task)),
            alpha: Some(alpha),
            dry_run: true,
            max_candidates: Some(20_000),
            ..wire::PlaceRequest::default()
        };
        let answer = placements.place(request).await.unwrap().into_inner();
        let node = |id: u32| cluster.topology.nodes[id as usize].name.as_str();
        let at = format!("decision {number} at {}", cluster.now);
        let chosen = observation.candidates()[choice.index];
        assert_eq!(answer.node, node(choice.node), "{at}");
        assert_eq!(answer.predicted_completion_s, chosen.completion_s(), "{at}");
        // Not only the same choice: the same view of every node.
        assert_eq!(answer.feasible as usize, observation.candidates().len(), "{at}");
        for (candidate, score) in observation.candidates().iter().zip(&choice.scores) {
            let told = answer.candidates.iter().find(|told| told.node == node(candidate.node)).unwrap();
            assert_eq!(told.score, score.is_finite().then_some(*score), "{at}: {told:?} {candidate:?}");
            assert_eq!(
                (told.wait_s, told.pull_s),
                (candidate.wait_s, candidate.pull_s),
                "{at}: {}",
                told.node
            );
            assert_eq!(
                (told.fetch_s, told.store_s),
                (candidate.fetch_s, candidate.store_s),
                "{at}: {}",
                told.node
            );
            assert_eq!(told.moved_bytes, candidate.moved_bytes, "{at}: {}", told.node);
        }
        episode.step(choice.node);
    }
    assert!(busy > 0, "a test of idle clusters says little");
    server.stop().await;
}

#[tokio::test]
async fn greedy_completion() {
    twins_agree("urban-sensing", "greedy-completion", 120).await;
}

#[tokio::test]
async fn greedy_marginal() {
    twins_agree("industrial-iot", "greedy-marginal", 120).await;
}

#[tokio::test]
async fn skippy() {
    twins_agree("cloud-regions", "skippy", 60).await;
    twins_agree("urban-sensing", "skippy", 60).await;
}

#[tokio::test]
async fn the_pretrained_network() {
    twins_agree("urban-sensing", "pretrained", 60).await;
}

/// What tasks have waited for is a fact like others.
#[tokio::test]
async fn the_pretrained_network_where_copies_are_earned() {
    let serving = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies/tests/data/serving.toml");
    twins_agree(serving, "pretrained", 400).await;
    // And what has left full disks.
    let studio = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies/tests/data/studio.toml");
    twins_agree(studio, "pretrained", 400).await;
}
