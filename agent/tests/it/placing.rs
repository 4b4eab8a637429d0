//! Placing tasks and reporting what became of them.

use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::Duration;

use remora_agent::service::Config;
use remora_env::observation::Observation;
use remora_policies::Policy;
use remora_proto::v1 as wire;
use tonic::{Code, Request};

use crate::server::{Server, dry_run, outcome, request, small_cluster, small_task};

async fn summary(server: &Server) -> wire::ClusterSummary {
    let request = wire::ListClustersRequest {};
    let clusters = server.clusters().await.list(request).await.unwrap().into_inner().clusters;
    clusters.into_iter().find(|cluster| cluster.id == "small").unwrap()
}

async fn facts(server: &Server) -> wire::Facts {
    let request = wire::GetClusterRequest { id: "small".to_owned(), live: false };
    server.clusters().await.get(request).await.unwrap().into_inner().facts.unwrap()
}

#[tokio::test]
async fn an_answer_says_where_and_why() {
    let server = Server::with_small_cluster().await;
    let answer = server.placements().await.place(request(small_task())).await.unwrap().into_inner();
    assert_eq!((answer.node.as_str(), answer.policy.as_str()), ("desk", "greedy-completion"));
    assert_eq!((answer.fallback.as_str(), answer.alpha, answer.admitted), ("", 0.5, true));
    assert_eq!(answer.feasible, 3);
    let nodes: Vec<_> = answer.candidates.iter().map(|candidate| candidate.node.as_str()).collect();
    assert_eq!(nodes, ["desk", "board", "cloud"]);
    // The image comes from the registry at 10 MB/s, four times the price; the output goes to `board`.
    let best = &answer.candidates[0];
    assert_eq!((best.image_bytes, best.input_bytes, best.output_bytes), (100_000_000, 0, 50_000_000));
    assert_eq!((best.wan_bytes, best.moved_bytes), (100_000_000, 450_000_000.0));
    assert_eq!(answer.predicted_transfer_bytes, 150_000_000);
    let phases = [best.wait_s, best.pull_s, best.fetch_s, best.start_s, best.execution_s, best.store_s];
    for (phase, expected) in phases.iter().zip([0.0, 10.02, 0.0, 1.0, 4.0, 0.52]) {
        assert!((phase - expected).abs() < 1e-6, "{phases:?}");
    }
    assert_eq!(answer.predicted_completion_s, phases.iter().sum::<f64>());
    server.stop().await;
}

#[tokio::test]
async fn a_task_holds_its_node_until_its_outcome_is_reported() {
    let server = Server::with_small_cluster().await;
    let mut placements = server.placements().await;
    let first = placements.place(request(small_task())).await.unwrap().into_inner();
    // `desk` has one core left, and the image is on its way.
    let asked = placements.place(dry_run(small_task())).await.unwrap().into_inner();
    let desk = asked.candidates.iter().find(|candidate| candidate.node == "desk").unwrap();
    assert!(!desk.fits_now && desk.wait_s > 10.0, "{desk:?}");
    assert_eq!(desk.image_bytes, 0);
    assert_eq!(asked.decision_id, "");
    let count = summary(&server).await;
    assert_eq!((count.running, count.queued, count.decisions), (1, 0, 1));

    let told = placements.report_outcome(outcome(&first.decision_id)).await.unwrap().into_inner();
    assert!(!told.already_reported);
    let again = placements.report_outcome(outcome(&first.decision_id)).await.unwrap().into_inner();
    assert!(again.already_reported);
    let count = summary(&server).await;
    assert_eq!((count.running, count.queued, count.decisions), (0, 0, 1));
    // The image stayed; the output is new at its first home and where it was made.
    let facts = facts(&server).await;
    assert_eq!(facts.nodes[0].layers, ["base:amd64", "app:amd64"]);
    assert!(facts.nodes[0].arriving_layers.is_empty());
    let asked = placements.place(dry_run(small_task())).await.unwrap().into_inner();
    assert_eq!((asked.node.as_str(), asked.predicted_transfer_bytes), ("desk", 50_000_000));
    server.stop().await;
}

#[tokio::test]
async fn a_failed_task_leaves_nothing_behind() {
    let server = Server::with_small_cluster().await;
    let mut placements = server.placements().await;
    let before = facts(&server).await;
    let placed = placements.place(request(small_task())).await.unwrap().into_inner();
    let failed = wire::ReportOutcomeRequest { failed: true, ..outcome(&placed.decision_id) };
    placements.report_outcome(failed).await.unwrap();
    let after = facts(&server).await;
    assert_eq!((before.nodes, before.datasets), (after.nodes, after.datasets));
    // That it came is a fact all the same.
    assert!(after.arrivals_per_s > 0.0 && after.images[0].arrivals_per_s > 0.0);
    server.stop().await;
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_decision() {
    let server = Server::with_small_cluster().await;
    let mut placements = server.placements().await;
    let named = wire::PlaceRequest { request_id: "job-7".to_owned(), ..request(small_task()) };
    let first = placements.place(named.clone()).await.unwrap().into_inner();
    let second = placements.place(named.clone()).await.unwrap().into_inner();
    assert_eq!(first, second);
    assert_eq!(summary(&server).await.running, 1);
    // Even when it has ended, and not for another task.
    placements.report_outcome(outcome(&first.decision_id)).await.unwrap();
    let third = placements.place(named.clone()).await.unwrap().into_inner();
    assert_eq!(third.decision_id, first.decision_id);
    let other = wire::Task { outputs: Vec::new(), ..small_task() };
    let refused = placements.place(wire::PlaceRequest { task: Some(other), ..named }).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().starts_with("request_id: "), "{}", refused.message());
    server.stop().await;
}

#[tokio::test]
async fn the_dial_moves_the_choice() {
    let server = Server::start(Config {
        clusters: vec![small_cluster()],
        ..Config::new(remora_policies::by_name("greedy-marginal", 0).unwrap())
    })
    .await;
    let mut placements = server.placements().await;
    // Without an image the cloud is fastest for a task that has nothing to read, but far from `labels`.
    let task = wire::Task { image: String::new(), inputs: Vec::new(), ..small_task() };
    for (alpha, node) in [(0.0, "desk"), (1.0, "board")] {
        let asked = wire::PlaceRequest { alpha: Some(alpha), ..dry_run(task.clone()) };
        let answer = placements.place(asked).await.unwrap().into_inner();
        assert_eq!((answer.node.as_str(), answer.alpha), (node, alpha));
    }
    server.stop().await;
}

#[tokio::test]
async fn clusters_are_listed_shown_replaced_and_removed() {
    let server = Server::with_small_cluster().await;
    let mut clusters = server.clusters().await;
    let placed = server.placements().await.place(request(small_task())).await.unwrap().into_inner();
    // What is shown can be registered again, and the decision lives on.
    let shown = clusters
        .get(wire::GetClusterRequest { id: "small".to_owned(), live: false })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(shown.cluster, small_cluster().cluster);
    let again = wire::RegisterClusterRequest { cluster: shown.cluster, facts: shown.facts };
    let registered = clusters.register(again).await.unwrap().into_inner();
    assert!(registered.replaced);
    assert_eq!(registered.summary.unwrap().running, 1);
    server.placements().await.report_outcome(outcome(&placed.decision_id)).await.unwrap();
    assert_eq!(summary(&server).await.running, 0);
    // A registration without it forgets it.
    clusters.register(small_cluster()).await.unwrap();
    let refused = server.placements().await.report_outcome(outcome(&placed.decision_id)).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    clusters.remove(wire::RemoveClusterRequest { id: "small".to_owned() }).await.unwrap();
    let refused = clusters.remove(wire::RemoveClusterRequest { id: "small".to_owned() }).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::NotFound, "id: no cluster is called \"small\""));
    server.stop().await;
}

/// Placements and outcomes in many orders, with queues and failures; the service checks its books
/// after each and breaks down if they do not balance.
#[tokio::test]
async fn books_balance_whatever_the_order() {
    let server = Server::with_small_cluster().await;
    let mut placements = server.placements().await;
    let mut open: Vec<String> = Vec::new();
    let mut state = 7_u64;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for _ in 0..400 {
        if open.is_empty() || draw(2) == 0 {
            let mut task = small_task();
            if draw(2) == 0 {
                task.outputs.clear();
            }
            if draw(2) == 0 {
                task.inputs.push("labels".to_owned());
            }
            open.push(placements.place(request(task)).await.unwrap().into_inner().decision_id);
        } else {
            let index = draw(open.len() as u64) as usize;
            let failed = draw(4) == 0;
            let report = wire::ReportOutcomeRequest { failed, ..outcome(&open.swap_remove(index)) };
            assert!(!placements.report_outcome(report).await.unwrap().into_inner().already_reported);
        }
        let count = summary(&server).await;
        assert_eq!(count.running + count.queued, open.len() as i64);
    }
    for decision in open {
        placements.report_outcome(outcome(&decision)).await.unwrap();
    }
    let facts = facts(&server).await;
    assert!(
        facts.nodes.iter().all(|node| node.placed.is_empty() && node.arriving_layers.is_empty()),
        "{facts:?}"
    );
    server.stop().await;
}

/// Finds all candidates equal, and counts the tasks of the future that it imagines.
struct Imagining(Arc<Mutex<Vec<usize>>>);

impl Policy for Imagining {
    fn name(&self) -> &str {
        "imagining"
    }

    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        scores.resize(observation.count(), 0.0);
        let future = observation.imagine(1, 10).expect("a service knows what arrived");
        assert_eq!(future.cluster().now, observation.cluster.now);
        self.0.lock().unwrap().push(future.world().tasks.len());
    }
}

/// Nothing but facts is behind what a live service decides, and futures follow from them.
#[tokio::test]
async fn a_policy_can_look_ahead_in_a_live_service() {
    let seen = Arc::<Mutex<Vec<usize>>>::default();
    let policy = Box::new(Imagining(Arc::clone(&seen)));
    let server = Server::start(Config { clusters: vec![small_cluster()], ..Config::new(policy) }).await;
    for _ in 0..3 {
        server.placements().await.place(request(small_task())).await.unwrap();
    }
    // The task itself, those placed before, and from the second known arrival on what may come.
    assert_eq!(*seen.lock().unwrap(), [1, 2, 13]);
    server.placements().await.place(dry_run(small_task())).await.unwrap();
    assert_eq!(seen.lock().unwrap().last(), Some(&14));
    server.stop().await;
}

/// Takes a second to find all candidates equal.
struct Slow;

impl Policy for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        sleep(Duration::from_secs(1));
        scores.resize(observation.count(), 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_time_is_left_the_heuristic_answers_and_says_so() {
    let server =
        Server::start(Config { clusters: vec![small_cluster()], ..Config::new(Box::new(Slow)) }).await;
    let mut placements = server.placements().await;
    let mut ask = async |timeout| {
        let mut request = Request::new(dry_run(small_task()));
        request.set_timeout(timeout);
        placements.place(request).await.unwrap().into_inner()
    };
    // It is known to be slow once it has been for a while.
    for _ in 0..4 {
        let answer = ask(Duration::from_secs(60)).await;
        assert_eq!((answer.policy.as_str(), answer.fallback.as_str()), ("slow", ""));
    }
    let answer = ask(Duration::from_millis(800)).await;
    assert_eq!(
        (answer.policy.as_str(), answer.fallback.as_str()),
        ("greedy-marginal-tuned", "no time left"),
        "its answer would have come too late"
    );
    assert_eq!(ask(Duration::from_secs(60)).await.policy, "slow", "who has time gets the policy");
    server.stop().await;
}
