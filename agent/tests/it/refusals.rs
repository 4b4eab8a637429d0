//! What is refused, with which status, and that the message names the field.

use remora_proto::v1 as wire;
use tonic::{Code, Status};

use crate::server::{Server, dry_run, outcome, request, small_cluster, small_task};

fn assert_refused(status: &Status, code: Code, message: &str) {
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().starts_with(message), "{:?} should begin with {message:?}", status.message());
}

/// Registers the small cluster with one thing changed and demands this refusal.
async fn refused_cluster(
    server: &Server,
    message: &str,
    change: impl FnOnce(&mut wire::Cluster, &mut wire::Facts),
) {
    let mut request = small_cluster();
    let mut facts = wire::Facts::default();
    change(request.cluster.as_mut().unwrap(), &mut facts);
    request.facts = Some(facts);
    let status = server.clusters().await.register(request).await.unwrap_err();
    assert_refused(&status, Code::InvalidArgument, message);
}

#[tokio::test]
async fn wrong_clusters() {
    let server = Server::with_small_cluster().await;
    let s = &server;
    let status = s.clusters().await.register(wire::RegisterClusterRequest::default()).await.unwrap_err();
    assert_refused(&status, Code::InvalidArgument, "cluster: is missing");
    refused_cluster(s, "cluster.id: is empty, want a name", |c, _| c.id.clear()).await;
    refused_cluster(s, "cluster.nodes: has 0, want at least 1", |c, _| c.nodes.clear()).await;
    refused_cluster(s, "cluster.nodes: has 20001, want at most 20000", |c, _| {
        c.nodes = vec![wire::Node::default(); 20_001];
    })
    .await;
    refused_cluster(s, "cluster.nodes[1].memory_bytes: is -5, want a number from 1", |c, _| {
        c.nodes[1].memory_bytes = -5;
    })
    .await;
    refused_cluster(s, "cluster.nodes[0].startup_s: is NaN, want a number from 0", |c, _| {
        c.nodes[0].startup_s = Some(f64::NAN);
    })
    .await;
    refused_cluster(s, "cluster.nodes[0].startup_s: is missing", |c, _| c.nodes[0].startup_s = None).await;
    refused_cluster(s, "cluster.nodes[2].arch: is \"sparc\", want one of amd64, arm64, arm", |c, _| {
        c.nodes[2].arch = "sparc".to_owned();
    })
    .await;
    refused_cluster(s, "cluster.nodes[2].name: \"desk\" is used twice", |c, _| {
        c.nodes[2].name = "desk".to_owned()
    })
    .await;
    refused_cluster(s, "cluster.reference_response_s: is 0.0, want a number above 0", |c, _| {
        c.reference_response_s = 0.0;
    })
    .await;
    refused_cluster(s, "cluster.reference_moved_bytes: is NaN, want a number above 0", |c, _| {
        c.reference_moved_bytes = f64::NAN;
    })
    .await;
    refused_cluster(s, "cluster.links[0].up_bytes_per_s: is inf, want a number from 1", |c, _| {
        c.links[0].up_bytes_per_s = f64::INFINITY;
    })
    .await;
    refused_cluster(
        s,
        "cluster.links[0].inner: no node, registry or switch is called \"hal\"; did you mean \"hall\"?",
        |c, _| {
            c.links[0].inner = "hal".to_owned();
        },
    )
    .await;
    refused_cluster(s, "cluster.links: \"cloud\" is not connected with the first node", |c, _| {
        drop(c.links.remove(2))
    })
    .await;
    refused_cluster(s, "cluster.registries: has 0, want at least 1", |c, _| {
        c.registries.clear();
        c.links.pop();
    })
    .await;
    refused_cluster(
        s,
        "cluster.images[0].variants[0].layers[1].bytes: is -1, want a number from 0",
        |c, _| {
            c.images[0].variants[0].layers[1].bytes = Some(-1);
        },
    )
    .await;
    refused_cluster(s, "cluster.datasets[0].homes[0]: no node is called \"registry\"", |c, _| {
        c.datasets[0].homes[0] = "registry".to_owned();
    })
    .await;
    refused_cluster(s, "cluster.datasets[1].bytes: is 9223372036854775807, want a number up to", |c, _| {
        c.datasets[1].bytes = Some(i64::MAX);
    })
    .await;
    refused_cluster(s, "cluster.task_kinds[0].execution[2].mean_s: is -1.0, want a number from 0", |c, _| {
        c.task_kinds[0].execution[2].mean_s = Some(-1.0);
    })
    .await;
    server.still_answers().await;
    server.stop().await;
}

#[tokio::test]
async fn wrong_facts() {
    let server = Server::with_small_cluster().await;
    let s = &server;
    let node = |name: &str| wire::NodeFacts { node: name.to_owned(), ..wire::NodeFacts::default() };
    let placed = || wire::PlacedTask {
        task: Some(small_task()),
        expected_remaining_s: Some(3.0),
        expected_span_s: None,
        ..wire::PlacedTask::default()
    };
    refused_cluster(s, "facts.nodes[0].node: no node is called \"attic\"", |_, f| {
        f.nodes = vec![node("attic")]
    })
    .await;
    refused_cluster(s, "facts.nodes[1].node: \"desk\" is listed twice", |_, f| {
        f.nodes = vec![node("desk"), node("desk")];
    })
    .await;
    refused_cluster(s, "facts.nodes[0].layers[0]: no layer is called \"x\"", |_, f| {
        f.nodes = vec![wire::NodeFacts { layers: vec!["x".to_owned()], ..node("desk") }];
    })
    .await;
    refused_cluster(s, "facts.nodes[0].placed[1]: what it requests is not free", |_, f| {
        f.nodes = vec![wire::NodeFacts { placed: vec![placed(), placed()], ..node("desk") }];
    })
    .await;
    refused_cluster(s, "facts.nodes[0].placed[0].task: is missing", |_, f| {
        f.nodes = vec![wire::NodeFacts { placed: vec![wire::PlacedTask::default()], ..node("desk") }];
    })
    .await;
    refused_cluster(s, "facts.nodes[0].placed[0].task.kind: no task kind is called \"x\"", |_, f| {
        let task = Some(wire::Task { kind: "x".to_owned(), ..small_task() });
        f.nodes =
            vec![wire::NodeFacts { placed: vec![wire::PlacedTask { task, ..placed() }], ..node("desk") }];
    })
    .await;
    refused_cluster(s, "facts.datasets[0].holders: names none of the dataset's homes", |_, f| {
        let holders = vec!["cloud".to_owned()];
        f.datasets = vec![wire::DatasetFacts { dataset: "video".to_owned(), holders, waited_s: None }];
    })
    .await;
    refused_cluster(s, "facts.links[0].link: is 4, but the cluster has 4 links", |_, f| {
        f.links = vec![wire::LinkFacts { link: Some(4), ..wire::LinkFacts::default() }];
    })
    .await;
    refused_cluster(s, "facts.arrivals_per_s: is NaN", |_, f| f.arrivals_per_s = f64::NAN).await;
    server.still_answers().await;
    server.stop().await;
}

#[tokio::test]
async fn wrong_requests() {
    let server = Server::with_small_cluster().await;
    let mut placements = server.placements().await;
    let task = small_task;
    let cases = [
        (wire::PlaceRequest { task: None, ..dry_run(task()) }, "task: is missing"),
        (
            wire::PlaceRequest { cluster_id: String::new(), ..dry_run(task()) },
            "cluster_id: is empty, want a name",
        ),
        (wire::PlaceRequest { alpha: Some(1.5), ..dry_run(task()) }, "alpha: is 1.5, want a number from 0"),
        (
            wire::PlaceRequest { alpha: Some(f64::NAN), ..dry_run(task()) },
            "alpha: is NaN, want a number from 0",
        ),
        (wire::PlaceRequest { max_candidates: Some(-1), ..dry_run(task()) }, "max_candidates: is -1"),
        (wire::PlaceRequest { request_id: "x".repeat(501), ..dry_run(task()) }, "request_id: has 501 bytes"),
        (dry_run(wire::Task { kind: String::new(), ..task() }), "task.kind: is empty, want a name"),
        (
            dry_run(wire::Task { kind: "detekt".to_owned(), ..task() }),
            "task.kind: no task kind is called \"detekt\"; did you mean \"detect\"?",
        ),
        (dry_run(wire::Task { image: "x".to_owned(), ..task() }), "task.image: no image is called \"x\""),
        (
            dry_run(wire::Task { inputs: vec!["x".to_owned()], ..task() }),
            "task.inputs[0]: no dataset is called \"x\"",
        ),
        (
            dry_run(wire::Task { inputs: vec!["video".to_owned(); 2], ..task() }),
            "task.inputs[1]: \"video\" is listed twice",
        ),
        (
            dry_run(wire::Task { outputs: vec!["x".to_owned()], ..task() }),
            "task.outputs[0]: no dataset is called \"x\"",
        ),
    ];
    for (request, message) in cases {
        assert_refused(&placements.place(request).await.unwrap_err(), Code::InvalidArgument, message);
    }
    let status = placements.report_outcome(outcome("")).await.unwrap_err();
    assert_refused(&status, Code::InvalidArgument, "decision_id: is empty, want a name");
    let negative = wire::ReportOutcomeRequest { transfer_bytes: Some(-1), ..outcome("x") };
    let status = placements.report_outcome(negative).await.unwrap_err();
    assert_refused(&status, Code::InvalidArgument, "transfer_bytes: is -1, want a number from 0");
    server.still_answers().await;
    server.stop().await;
}

#[tokio::test]
async fn what_is_not_there() {
    let server = Server::with_small_cluster().await;
    let mut placements = server.placements().await;
    let elsewhere = wire::PlaceRequest { cluster_id: "smal".to_owned(), ..request(small_task()) };
    let status = placements.place(elsewhere).await.unwrap_err();
    assert_refused(
        &status,
        Code::NotFound,
        "cluster_id: no cluster is called \"smal\"; did you mean \"small\"?",
    );
    let status = placements.report_outcome(outcome("0-0")).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "decision_id: no decision \"0-0\" is known of cluster \"small\"");
    let elsewhere = wire::ReportOutcomeRequest { cluster_id: "big".to_owned(), ..outcome("0-0") };
    assert_eq!(placements.report_outcome(elsewhere).await.unwrap_err().code(), Code::NotFound);
    let elsewhere = wire::GetClusterRequest { id: "big".to_owned(), live: false };
    let status = server.clusters().await.get(elsewhere).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "id: no cluster is called \"big\"");
    server.still_answers().await;
    server.stop().await;
}

#[tokio::test]
async fn a_task_that_fits_nowhere_learns_why() {
    let server = Server::with_small_cluster().await;
    let mut request_ = small_cluster();
    let cluster = request_.cluster.as_mut().unwrap();
    cluster.id = "picky".to_owned();
    cluster.task_kinds[0].execution.remove(2); // the cloud's
    cluster.task_kinds[0].memory_bytes = Some(3_000_000_000);
    cluster.nodes[0].memory_bytes = 2_000_000_000; // the desk's
    cluster.images[0].variants.remove(1); // the board's
    server.clusters().await.register(request_).await.unwrap();
    let asked = wire::PlaceRequest { cluster_id: "picky".to_owned(), ..request(small_task()) };
    let status = server.placements().await.place(asked).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(
        status.message(),
        "no node can run a task of kind \"detect\": of 3 nodes, \
         1 are arm64, for which image \"vision\" does not exist; \
         1 have less memory than the 3000000000 bytes it requests; \
         1 of kind \"vm\" have no execution time for it"
    );
    server.stop().await;
}
