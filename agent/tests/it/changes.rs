//! What changes in a registered cluster, and watching it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use remora_agent::service::{Clock, Config};
use remora_env::Time;
use remora_policies::by_name;
use remora_proto::v1 as wire;
use tokio_stream::StreamExt;
use tonic::Code;
use wire::change::Change;
use wire::cluster_event::Event;

use crate::server::{Server, dry_run, outcome, request, small_cluster, small_task};

pub fn update(changes: impl IntoIterator<Item = Change>) -> wire::UpdateClusterRequest {
    let changes = changes.into_iter().map(|change| wire::Change { change: Some(change) });
    wire::UpdateClusterRequest {
        cluster_id: "small".to_owned(),
        changes: changes.collect(),
        ..wire::UpdateClusterRequest::default()
    }
}

pub fn numbered(sequence: i64, change: Change) -> wire::UpdateClusterRequest {
    wire::UpdateClusterRequest { source: "kubelet".to_owned(), sequence, ..update([change]) }
}

pub fn available(node: &str, available: bool) -> Change {
    Change::NodeAvailable(wire::NodeAvailable { node: node.to_owned(), available })
}

pub fn storage(node: &str) -> wire::NodeStorage {
    wire::NodeStorage { node: node.to_owned(), ..wire::NodeStorage::default() }
}

pub async fn enter(server: &Server, request: wire::UpdateClusterRequest) -> wire::UpdateClusterResponse {
    server.clusters().await.update(request).await.unwrap().into_inner()
}

pub async fn refusal(server: &Server, request: wire::UpdateClusterRequest) -> (Code, String) {
    let status = server.clusters().await.update(request).await.unwrap_err();
    (status.code(), status.message().to_owned())
}

pub async fn chosen(server: &Server) -> wire::PlaceResponse {
    server.placements().await.place(dry_run(small_task())).await.unwrap().into_inner()
}

pub async fn cluster(server: &Server) -> wire::GetClusterResponse {
    let request = wire::GetClusterRequest { id: "small".to_owned(), live: false };
    server.clusters().await.get(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_node_that_is_not_available_takes_nothing_and_keeps_what_it_has() {
    let server = Server::with_small_cluster().await;
    let placed = server.placements().await.place(request(small_task())).await.unwrap().into_inner();
    assert_eq!(placed.node, "desk");
    enter(&server, update([available("desk", false)])).await;
    let answer = chosen(&server).await;
    assert_eq!((answer.feasible, answer.node == "desk"), (2, false));
    // It is a fact like others: a registration from these facts knows it too.
    let told = cluster(&server).await;
    let facts = told.facts.clone().unwrap();
    assert!(facts.nodes.iter().any(|node| node.node == "desk" && node.unavailable && node.placed.len() == 1));
    let again = wire::RegisterClusterRequest { cluster: told.cluster, facts: told.facts };
    server.clusters().await.register(again).await.unwrap();
    assert_eq!(chosen(&server).await.feasible, 2);
    enter(&server, update([available("desk", true)])).await;
    assert_eq!(chosen(&server).await.feasible, 3);
    server.placements().await.report_outcome(outcome(&placed.decision_id)).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn nodes_come_and_go() {
    let server = Server::with_small_cluster().await;
    let before = cluster(&server).await.cluster.unwrap();
    let placed = server.placements().await.place(request(small_task())).await.unwrap().into_inner();
    let node = wire::Node { name: "shelf".to_owned(), ..before.nodes[0].clone() };
    let link = wire::Link { outer: "shelf".to_owned(), ..before.links[0].clone() };
    let entered = wire::NodeEntered { node: Some(node), links: vec![link], layers: Vec::new() };
    // Facts about the node may come with it.
    let warm = wire::NodeStorage { images: vec!["vision".to_owned()], ..storage("shelf") };
    enter(&server, update([Change::NodeStorage(warm), Change::NodeEntered(entered)])).await;
    let answer = chosen(&server).await;
    assert_eq!(answer.feasible, 4);
    let shelf = answer.candidates.iter().find(|candidate| candidate.node == "shelf").unwrap();
    assert_eq!((shelf.image_bytes, shelf.input_bytes), (0, 50_000_000));
    // The decision of before is still known, and holds what it holds.
    let told = cluster(&server).await.facts.unwrap();
    assert_eq!(told.nodes.iter().find(|node| node.node == "desk").unwrap().placed.len(), 1);
    // With its node it ends.
    enter(&server, update([Change::NodeLeft("desk".to_owned())])).await;
    let report = server.placements().await.report_outcome(outcome(&placed.decision_id)).await.unwrap();
    assert!(report.into_inner().already_reported);
    let (after, facts) = (cluster(&server).await.cluster.unwrap(), cluster(&server).await.facts.unwrap());
    assert_eq!(after.nodes.len(), 3);
    assert_eq!(after.datasets[1].homes, ["board"], "homes that are gone are no homes");
    assert!(facts.nodes.iter().all(|node| node.placed.is_empty()));
    assert_eq!(chosen(&server).await.feasible, 3);
    server.stop().await;
}

#[tokio::test]
async fn an_update_is_entered_whole_or_not_at_all() {
    let server = Server::with_small_cluster().await;
    let before = cluster(&server).await;
    let cases = [
        (
            available("dask", false),
            "changes[1].node_available.node: no node is called \"dask\"; did you mean \"desk\"?",
        ),
        (Change::NodeLeft("dask".to_owned()), "changes[1].node_left: no node is called \"dask\""),
        (Change::Heartbeat(String::new()), "changes[1].heartbeat: no node is called \"\""),
        (Change::EndedDecisionId("7".to_owned()), "changes[1].ended_decision_id: no decision \"7\" is open"),
        (
            Change::LinkFacts(wire::LinkFacts { link: Some(9), ..wire::LinkFacts::default() }),
            "changes[1].link_facts.link: is 9, but the cluster has 4 links",
        ),
        (
            Change::Transfer(wire::Transfer {
                from: "desk".to_owned(),
                to: "hall".to_owned(),
                bytes: 5,
                ..wire::Transfer::default()
            }),
            "changes[1].transfer.seconds: is 0.0, want a number above 0",
        ),
        (Change::NodeEntered(wire::NodeEntered::default()), "changes[1].node_entered.node: is missing"),
        (Change::TaskKind(wire::TaskKind::default()), "cluster.task_kinds[1].name: is empty"),
    ];
    for (wrong, message) in cases {
        let (code, told) = refusal(&server, update([available("desk", false), wrong])).await;
        assert_eq!(code, Code::InvalidArgument, "{told}");
        assert!(told.starts_with(message), "{told}");
    }
    let (code, told) =
        refusal(&server, wire::UpdateClusterRequest { changes: vec![wire::Change::default()], ..update([]) })
            .await;
    assert_eq!((code, told.as_str()), (Code::InvalidArgument, "changes[0]: is empty, want one change"));
    let after = cluster(&server).await;
    assert_eq!(before, after);
    server.stop().await;
}

#[tokio::test]
async fn updates_of_a_source_are_entered_once_and_in_order() {
    let server = Server::with_small_cluster().await;
    let first = enter(&server, numbered(7, available("desk", false))).await;
    assert!(!first.already_entered);
    enter(&server, numbered(8, available("desk", true))).await;
    // The first once more, as a client sends it that did not hear the answer.
    let again = enter(&server, numbered(7, available("desk", false))).await;
    assert!(again.already_entered);
    assert_eq!(chosen(&server).await.feasible, 3);
    let (code, told) = refusal(&server, numbered(10, available("desk", false))).await;
    assert_eq!(code, Code::FailedPrecondition);
    assert_eq!(told, "sequence: is 10, but 9 is next from source \"kubelet\"");
    server.stop().await;
}

#[tokio::test]
async fn a_stream_of_updates_ends_with_the_first_that_is_refused() {
    let server = Server::with_small_cluster().await;
    let updates = [
        numbered(1, available("desk", false)),
        numbered(2, available("dask", true)),
        numbered(3, available("desk", true)),
    ];
    let mut answers = server.clusters().await.follow(tokio_stream::iter(updates)).await.unwrap().into_inner();
    let first = answers.next().await.unwrap().unwrap();
    assert!(first.version > 0);
    assert_eq!(answers.next().await.unwrap().unwrap_err().code(), Code::InvalidArgument);
    assert!(answers.next().await.is_none());
    assert_eq!(chosen(&server).await.feasible, 2);
    server.stop().await;
}

#[tokio::test]
async fn measured_transfers_correct_what_links_are_said_to_carry() {
    let server = Server::with_small_cluster().await;
    let pull = |answer: &wire::PlaceResponse| {
        answer.candidates.iter().find(|candidate| candidate.node == "desk").unwrap().pull_s
    };
    assert!((pull(&chosen(&server).await) - 10.02).abs() < 1e-6);
    // The registry's link was registered with 10 MB/s and carries a tenth.
    let slow = wire::Transfer {
        from: "registry".to_owned(),
        to: "desk".to_owned(),
        bytes: 10_000_000,
        seconds: 10.02,
        others: 0,
    };
    for _ in 0..40 {
        enter(&server, update([Change::Transfer(slow.clone())])).await;
    }
    let learnt = pull(&chosen(&server).await);
    assert!((50.0..100.0).contains(&learnt), "{learnt}");
    let told = cluster(&server).await;
    let estimate = &told.facts.clone().unwrap().link_estimates[0];
    assert_eq!(estimate.link, Some(3));
    assert!(estimate.up_bytes_per_s < 2e6 && estimate.up_confidence > 0.7, "{estimate:?}");
    // What was learnt survives a registration from the facts, and a change of the cluster.
    server
        .clusters()
        .await
        .register(wire::RegisterClusterRequest { cluster: told.cluster, facts: told.facts })
        .await
        .unwrap();
    enter(&server, update([Change::NodeLeft("board".to_owned())])).await;
    assert!((pull(&chosen(&server).await) - learnt).abs() < 1e-6);
    server.stop().await;
}

#[tokio::test]
async fn what_others_placed_counts() {
    let server = Server::with_small_cluster().await;
    let task = wire::PlacedTask {
        task: Some(small_task()),
        expected_remaining_s: Some(30.0),
        decision_id: "theirs".to_owned(),
        ..wire::PlacedTask::default()
    };
    let placed = Change::Placed(wire::Placed { node: "desk".to_owned(), task: Some(task) });
    enter(&server, update([placed.clone()])).await;
    let desk =
        |answer: wire::PlaceResponse| answer.candidates.into_iter().find(|it| it.node == "desk").unwrap();
    assert!(!desk(chosen(&server).await).fits_now);
    let (code, told) = refusal(&server, update([placed])).await;
    assert_eq!(
        (code, told.as_str()),
        (Code::InvalidArgument, "changes[0].placed.task.decision_id: \"theirs\" is used twice")
    );
    enter(&server, update([Change::EndedDecisionId("theirs".to_owned())])).await;
    assert!(desk(chosen(&server).await).fits_now);
    server.stop().await;
}

#[tokio::test]
async fn a_watch_tells_everything_and_goes_on_where_it_ended() {
    let server = Server::with_small_cluster().await;
    let watch = |after| wire::WatchClusterRequest { cluster_id: "small".to_owned(), after };
    let mut events = server.clusters().await.watch(watch(None)).await.unwrap().into_inner();
    let placed = server.placements().await.place(request(small_task())).await.unwrap().into_inner();
    enter(&server, update([available("cloud", false)])).await;
    server.placements().await.report_outcome(outcome(&placed.decision_id)).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(events.next().await.unwrap().unwrap());
    }
    assert!(seen.windows(2).all(|pair| pair[0].version < pair[1].version));
    let Some(Event::Decided(receipt)) = &seen[0].event else { panic!("{:?}", seen[0]) };
    assert_eq!(receipt.response.as_ref().unwrap().node, "desk");
    assert!(
        matches!(seen[1].event, Some(Event::Updated(_))) && matches!(seen[2].event, Some(Event::Ended(_)))
    );
    drop(events);
    // From the first on, once more; then its end.
    let mut again = server.clusters().await.watch(watch(Some(seen[0].version))).await.unwrap().into_inner();
    assert_eq!(again.next().await.unwrap().unwrap(), seen[1]);
    assert_eq!(again.next().await.unwrap().unwrap(), seen[2]);
    server.clusters().await.remove(wire::RemoveClusterRequest { id: "small".to_owned() }).await.unwrap();
    assert!(matches!(again.next().await.unwrap().unwrap().event, Some(Event::Removed(true))));
    assert!(again.next().await.is_none());
    server.stop().await;
}

#[tokio::test]
async fn time_alone_ends_decisions_and_silences_nodes() {
    let time = Arc::new(AtomicU64::new(1_000_000_000));
    let clock = Arc::clone(&time);
    let clock = Clock::new(move || Time(clock.load(Ordering::SeqCst)));
    let mut small = small_cluster();
    small.cluster.as_mut().unwrap().stale_after_s = Some(60.0);
    let config =
        Config { clock, clusters: vec![small], ..Config::new(by_name("greedy-completion", 0).unwrap()) };
    let server = Server::start(config).await;
    let placed = server.placements().await.place(request(small_task())).await.unwrap().into_inner();
    let pass = |seconds: u64| time.fetch_add(seconds * 1_000_000_000, Ordering::SeqCst);
    pass(50);
    enter(&server, update([Change::Heartbeat("board".to_owned())])).await;
    pass(50);
    let answer = chosen(&server).await;
    assert_eq!((answer.feasible, answer.node.as_str()), (1, "board"), "of the others nothing was heard");
    pass(4000);
    enter(&server, update(["desk", "cloud"].map(|node| Change::Heartbeat(node.to_owned())))).await;
    let answer = chosen(&server).await;
    assert_eq!(answer.feasible, 2);
    let desk = answer.candidates.iter().find(|candidate| candidate.node == "desk").unwrap();
    assert!(desk.fits_now, "an hour without an outcome is enough");
    let late = server.placements().await.report_outcome(outcome(&placed.decision_id)).await.unwrap();
    assert!(late.into_inner().already_reported);
    server.stop().await;
}
