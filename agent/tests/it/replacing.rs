//! Nodes and switches that come in the place of others: what is known of the cluster stays.

use remora_agent::service::Config;
use remora_policies::by_name;
use remora_proto::v1 as wire;
use tonic::Code;
use wire::change::Change;

use crate::changes::{available, chosen, cluster, enter, numbered, refusal, storage, update};
use crate::server::{Server, outcome, request, small_cluster, small_task};

/// A node as it is in a cluster, changed, with its link.
fn again(name: &str, change: impl FnOnce(&mut wire::Node, &mut wire::Link)) -> Change {
    let cluster = small_cluster().cluster.unwrap();
    let mut node = cluster.nodes.into_iter().find(|node| node.name == name).unwrap();
    let mut link = cluster.links.into_iter().find(|link| link.outer == name).unwrap();
    change(&mut node, &mut link);
    Change::NodeEntered(wire::NodeEntered { node: Some(node), links: vec![link], layers: Vec::new() })
}

fn with_cpu(cpu_millis: i64) -> Change {
    again("desk", |node, _| node.cpu_millis = cpu_millis)
}

/// A node like `desk` that hangs on this.
fn shelf(inner: &str) -> wire::NodeEntered {
    let cluster = small_cluster().cluster.unwrap();
    let node = wire::Node { name: "shelf".to_owned(), ..cluster.nodes[0].clone() };
    let link = wire::Link { outer: "shelf".to_owned(), inner: inner.to_owned(), ..cluster.links[0].clone() };
    wire::NodeEntered { node: Some(node), links: vec![link], layers: Vec::new() }
}

fn switch(inner: &str, bytes_per_s: f64) -> Change {
    let link = wire::Link {
        outer: "closet".to_owned(),
        inner: inner.to_owned(),
        up_bytes_per_s: bytes_per_s,
        down_bytes_per_s: bytes_per_s,
        ..small_cluster().cluster.unwrap().links[0].clone()
    };
    Change::SwitchEntered(wire::SwitchEntered { name: "closet".to_owned(), link: Some(link) })
}

fn placed(decision_id: &str) -> Change {
    let task = wire::PlacedTask {
        task: Some(small_task()),
        expected_remaining_s: Some(30.0),
        decision_id: decision_id.to_owned(),
        ..wire::PlacedTask::default()
    };
    Change::Placed(wire::Placed { node: "desk".to_owned(), task: Some(task) })
}

fn pull_s(answer: &wire::PlaceResponse, node: &str) -> f64 {
    answer.candidates.iter().find(|candidate| candidate.node == node).unwrap().pull_s
}

/// What is placed on `desk`, and whether it waits.
async fn on_desk(server: &Server) -> Vec<(String, bool)> {
    let facts = cluster(server).await.facts.unwrap();
    let desk = facts.nodes.into_iter().find(|node| node.node == "desk").unwrap();
    desk.placed.into_iter().map(|placed| (placed.decision_id, placed.queued)).collect()
}

#[tokio::test]
async fn a_node_that_is_replaced_keeps_all_that_is_known_of_it() {
    let server = Server::with_small_cluster().await;
    enter(&server, numbered(7, available("cloud", false))).await;
    let idle_s = pull_s(&chosen(&server).await, "board");
    let slow = wire::Transfer {
        from: "registry".to_owned(),
        to: "board".to_owned(),
        bytes: 10_000_000,
        seconds: 4.0,
        others: 0,
    };
    enter(&server, update([Change::Transfer(slow)])).await;
    let named = wire::PlaceRequest { request_id: "once".to_owned(), ..request(small_task()) };
    let made = server.placements().await.place(named.clone()).await.unwrap().into_inner();
    assert_eq!(made.node, "desk");
    let (before, pulled_s) = (cluster(&server).await, pull_s(&chosen(&server).await, "board"));
    assert!(pulled_s > idle_s * 2.0, "the link is slower than told, and shared: {pulled_s}");

    let replaced = again("desk", |node, link| {
        node.memory_bytes *= 2;
        link.up_bytes_per_s *= 2.0;
    });
    enter(&server, update([replaced])).await;
    let after = cluster(&server).await;
    let (now, then) = (after.cluster.unwrap(), before.cluster.unwrap());
    assert_eq!(now.nodes[0].memory_bytes, 2 * then.nodes[0].memory_bytes);
    assert_eq!((now.links.len(), now.links[0].up_bytes_per_s), (4, 2.0 * then.links[0].up_bytes_per_s));
    assert_eq!((&now.nodes[1..], &now.links[1..]), (&then.nodes[1..], &then.links[1..]));
    let (facts, known) = (after.facts.unwrap(), before.facts.unwrap());
    assert_eq!(facts.link_estimates, known.link_estimates);
    assert!(facts.nodes.iter().any(|node| node.node == "cloud" && node.unavailable));
    assert_eq!(facts.nodes[0].placed.len(), 1);
    assert_eq!(facts.nodes[0].arriving.len(), known.nodes[0].arriving.len());
    assert!((pull_s(&chosen(&server).await, "board") - pulled_s).abs() < 1e-6, "its pull is under way still");

    // The request, its receipt, the source's numbers and the outcome are remembered.
    let answer = server.placements().await.place(named).await.unwrap().into_inner();
    assert_eq!(answer.decision_id, made.decision_id);
    let asked =
        wire::ExplainRequest { cluster_id: "small".to_owned(), decision_id: made.decision_id.clone() };
    let explained = server.placements().await.explain(asked).await.unwrap().into_inner();
    assert_eq!(explained.response.unwrap().node, "desk");
    assert!(enter(&server, numbered(7, available("cloud", false))).await.already_entered);
    let told = server.placements().await.report_outcome(outcome(&made.decision_id)).await.unwrap();
    assert!(!told.into_inner().already_reported);
    // Its image is on its disk, whatever replaces it.
    enter(&server, update([with_cpu(8000)])).await;
    assert_eq!(pull_s(&chosen(&server).await, "desk"), 0.0);
    // With its pull, its share of the link is free.
    assert!(pull_s(&chosen(&server).await, "board") < pulled_s);
    server.stop().await;
}

#[tokio::test]
async fn what_no_longer_fits_on_a_smaller_node_waits_until_there_is_room() {
    let server = Server::with_small_cluster().await;
    let told = |first: bool, second: bool| vec![("first".to_owned(), first), ("second".to_owned(), second)];
    enter(&server, update([placed("first"), placed("second")])).await;
    assert_eq!(on_desk(&server).await, told(false, true));
    enter(&server, update([with_cpu(8000)])).await;
    assert_eq!(on_desk(&server).await, told(false, false), "with more room the second goes on");
    enter(&server, update([with_cpu(5000)])).await;
    assert_eq!(on_desk(&server).await, told(false, true), "the older one stays");
    enter(&server, update([with_cpu(1000)])).await;
    assert_eq!(on_desk(&server).await, told(true, true));
    assert_ne!(chosen(&server).await.node, "desk");
    enter(&server, update([with_cpu(4000)])).await;
    assert_eq!(on_desk(&server).await, told(false, true));
    server.placements().await.report_outcome(outcome("first")).await.unwrap();
    assert_eq!(on_desk(&server).await, [("second".to_owned(), false)]);
    // So do those whose kind demands more than before.
    let mut kind = small_cluster().cluster.unwrap().task_kinds.remove(0);
    kind.cpu_millis = Some(5000);
    enter(&server, update([Change::TaskKind(kind)])).await;
    assert_eq!(on_desk(&server).await, [("second".to_owned(), true)]);
    server.placements().await.report_outcome(outcome("second")).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_task_whose_accelerator_is_gone_holds_another() {
    let mut small = small_cluster();
    let parts = small.cluster.as_mut().unwrap();
    let tpus = |count| Some(wire::Accelerator { model: "tpu".to_owned(), count });
    parts.nodes[0].accelerator = tpus(4);
    parts.task_kinds[0].accelerators = 1;
    parts.task_kinds[0].accelerator_millis = 1000;
    let config = Config { clusters: vec![small], ..Config::new(by_name("greedy-completion", 0).unwrap()) };
    let server = Server::start(config).await;
    let Change::Placed(mut theirs) = placed("theirs") else { unreachable!() };
    theirs.task.as_mut().unwrap().accelerators = vec![3];
    enter(&server, update([Change::Placed(theirs)])).await;
    enter(&server, update([again("desk", |node, _| node.accelerator = tpus(2))])).await;
    let facts = cluster(&server).await.facts.unwrap();
    assert_eq!(
        (facts.nodes[0].placed[0].queued, facts.nodes[0].placed[0].accelerators.as_slice()),
        (false, &[0][..])
    );
    enter(&server, update([again("desk", |_, _| {})])).await;
    assert_eq!(on_desk(&server).await, [("theirs".to_owned(), true)]);
    server.stop().await;
}

#[tokio::test]
async fn a_switch_enters_with_the_node_behind_it() {
    let server = Server::with_small_cluster().await;
    let mut warm = shelf("closet");
    warm.layers = vec!["base:amd64".to_owned()];
    enter(&server, update([Change::NodeEntered(warm), switch("hall", 5e6)])).await;
    let answer = chosen(&server).await;
    assert_eq!(answer.feasible, 4);
    // 20 MB are lacking, and the closet's uplink is the narrowest on their way.
    let pulled_s = pull_s(&answer, "shelf");
    assert!((4.0..4.1).contains(&pulled_s), "{pulled_s}");
    // Another uplink comes in its place.
    enter(&server, update([switch("hall", 2e6)])).await;
    assert!((10.0..10.1).contains(&pull_s(&chosen(&server).await, "shelf")));
    enter(&server, update([switch("registry", 20e6)])).await;
    assert!((1.0..1.1).contains(&pull_s(&chosen(&server).await, "shelf")));
    let parts = cluster(&server).await.cluster.unwrap();
    assert_eq!((parts.switches.len(), parts.links.len()), (2, 6));
    server.stop().await;
}

#[tokio::test]
async fn what_is_said_of_a_node_before_it_leaves_goes_with_it() {
    let server = Server::with_small_cluster().await;
    let before = cluster(&server).await;
    let layers = wire::NodeStorage { layers: vec!["base:amd64".to_owned()], ..storage("shelf") };
    let changes = [
        Change::NodeEntered(shelf("hall")),
        Change::NodeStorage(layers),
        available("shelf", false),
        Change::Heartbeat("shelf".to_owned()),
        Change::NodeLeft("shelf".to_owned()),
    ];
    enter(&server, update(changes)).await;
    let after = cluster(&server).await;
    assert_eq!((&before.cluster, &before.facts), (&after.cluster, &after.facts));
    // One that comes back has nothing of before.
    let changes = [placed("theirs"), Change::NodeLeft("desk".to_owned()), with_cpu(4000)];
    enter(&server, update(changes)).await;
    assert!(cluster(&server).await.facts.unwrap().nodes.iter().all(|node| node.placed.is_empty()));
    assert_eq!(chosen(&server).await.feasible, 3);
    server.stop().await;
}

#[tokio::test]
async fn nodes_and_switches_that_cannot_enter_are_refused() {
    let server = Server::with_small_cluster().await;
    let before = cluster(&server).await;
    let of = |change: fn(&mut wire::NodeEntered)| {
        let mut entered = shelf("hall");
        change(&mut entered);
        Change::NodeEntered(entered)
    };
    let closet = |change: fn(&mut wire::SwitchEntered)| {
        let Change::SwitchEntered(mut entered) = switch("hall", 1e6) else { unreachable!() };
        change(&mut entered);
        Change::SwitchEntered(entered)
    };
    let cases = [
        (
            of(|it| it.node.as_mut().unwrap().name = "hall".to_owned()),
            "changes[1].node_entered.node.name: \"hall\" is used twice",
        ),
        (
            of(|it| it.node.as_mut().unwrap().cpu_millis = 0),
            "cluster.nodes[3].cpu_millis: is 0, want a number from 1",
        ),
        (
            of(|it| it.links[0].outer = "board".to_owned()),
            "changes[1].node_entered.links[0]: is between \"board\" and \"hall\", want \"shelf\" at one end",
        ),
        (of(|it| it.links.clear()), "cluster.links: \"shelf\" is not connected with the first node"),
        (
            of(|it| it.layers = vec!["basis:amd64".to_owned()]),
            "changes[1].node_entered.layers[0]: no layer is called \"basis:amd64\"; did you mean \"base:amd64\"?",
        ),
        (
            again("desk", |_, link| link.inner = "hal".to_owned()),
            "cluster.links[3].inner: no node, registry or switch is called \"hal\"; did you mean \"hall\"?",
        ),
        (closet(|it| it.link = None), "changes[1].switch_entered.link: is missing"),
        (closet(|it| it.name.clear()), "changes[1].switch_entered.name: is empty, want a name"),
        (closet(|it| it.name = "desk".to_owned()), "changes[1].switch_entered.name: \"desk\" is used twice"),
        (
            closet(|it| it.name = "hall".to_owned()),
            "changes[1].switch_entered.link.outer: is \"closet\", want the switch itself, \"hall\"",
        ),
        (
            Change::ConfirmedDecisionId("7".to_owned()),
            "changes[1].confirmed_decision_id: no decision \"7\" is open",
        ),
    ];
    for (wrong, message) in cases {
        let told = refusal(&server, update([with_cpu(8000), wrong])).await;
        assert_eq!(told, (Code::InvalidArgument, message.to_owned()));
    }
    assert_eq!(before, cluster(&server).await);
    server.stop().await;
}
