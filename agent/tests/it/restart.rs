//! What survives a restart, and a crash.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use remora_agent::service::Config;
use remora_agent::storage::{Options, Storage, Who};
use remora_policies::by_name;
use remora_proto::v1 as wire;
use remora_proto::v1::cluster_service_client::ClusterServiceClient;
use remora_proto::v1::placement_service_client::PlacementServiceClient;
use remora_proto::v1::policy_service_client::PolicyServiceClient;
use tonic::Code;
use tonic::transport::Channel;
use wire::change::Change;

use crate::server::{Server, outcome, request, small_cluster, small_task};

async fn server(folder: &Path) -> (Server, Arc<Storage>) {
    let storage = Arc::new(Storage::open(Options::new(folder)).await.unwrap());
    let policy = by_name("greedy-completion", 0).unwrap();
    let config = Config {
        storage: Some(Arc::clone(&storage)),
        clusters: vec![small_cluster()],
        ..Config::new(policy)
    };
    (Server::start(config).await, storage)
}

async fn stop(server: Server, storage: Arc<Storage>) {
    server.stop().await;
    // The service's tasks let go of it one after the other.
    let mut storage = storage;
    let storage = loop {
        match Arc::try_unwrap(storage) {
            Ok(storage) => break storage,
            Err(shared) => storage = shared,
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    storage.close().await;
}

async fn facts(server: &Server) -> wire::GetClusterResponse {
    let request = wire::GetClusterRequest { id: "small".to_owned(), live: false };
    server.clusters().await.get(request).await.unwrap().into_inner()
}

fn alias(alias: &str, policy: &str) -> wire::SetAliasRequest {
    let (alias, policy, reason) = (alias.to_owned(), policy.to_owned(), "to see".to_owned());
    wire::SetAliasRequest { alias, policy, reason, expected: None }
}

/// Times differ by what passed between two looks.
fn about_equal(a: &wire::Facts, b: &wire::Facts) {
    let timeless = |facts: &wire::Facts| {
        let mut facts = facts.clone();
        facts.arrivals_per_s = 0.0;
        facts.images.clear();
        for node in &mut facts.nodes {
            for placed in &mut node.placed {
                placed.expected_remaining_s = None;
            }
            for arriving in &mut node.arriving {
                arriving.expected_remaining_s = None;
            }
        }
        facts
    };
    assert_eq!(timeless(a), timeless(b));
}

#[tokio::test]
async fn a_restart_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let (first, storage) = server(folder.path()).await;
    let named = wire::PlaceRequest { request_id: "once".to_owned(), ..request(small_task()) };
    let open = first.placements().await.place(named.clone()).await.unwrap().into_inner();
    let ended = first.placements().await.place(request(small_task())).await.unwrap().into_inner();
    let measured = wire::ReportOutcomeRequest { response_s: Some(9.0), ..outcome(&ended.decision_id) };
    first.placements().await.report_outcome(measured).await.unwrap();
    let away = Change::NodeAvailable(wire::NodeAvailable { node: "board".to_owned(), available: false });
    let update = wire::UpdateClusterRequest {
        cluster_id: "small".to_owned(),
        source: "kubelet".to_owned(),
        sequence: 4,
        changes: vec![wire::Change { change: Some(away) }],
    };
    first.clusters().await.update(update.clone()).await.unwrap();
    let mut policies = PolicyServiceClient::new(first.channel().await);
    policies.set_alias(alias("champion", "kube-default")).await.unwrap();
    policies.set_alias(alias("shadow", "random")).await.unwrap();
    let serving =
        wire::Serving { alpha: Some(0.25), cluster_id: "small".to_owned(), ..wire::Serving::default() };
    let serving = wire::SetServingRequest { serving: Some(serving), reason: "to see".to_owned() };
    policies.set_serving(serving).await.unwrap();
    let before = facts(&first).await;
    stop(first, storage).await;

    let (second, storage) = server(folder.path()).await;
    let after = facts(&second).await;
    assert_eq!(before.cluster, after.cluster);
    about_equal(&before.facts.unwrap(), &after.facts.unwrap());
    // The same request gets the same decision, the same update changes nothing, what ended has ended.
    let again = second.placements().await.place(named).await.unwrap().into_inner();
    assert_eq!((again.decision_id, again.node), (open.decision_id.clone(), open.node));
    assert!(second.clusters().await.update(update).await.unwrap().into_inner().already_entered);
    let told = second.placements().await.report_outcome(outcome(&ended.decision_id)).await.unwrap();
    assert!(told.into_inner().already_reported);
    // Those who decide, and how, are the same; and the history says why.
    let placed = second.placements().await.place(request(small_task())).await.unwrap().into_inner();
    assert_eq!((placed.policy.as_str(), placed.alpha), ("kube-default", 0.25));
    let mut policies = PolicyServiceClient::new(second.channel().await);
    let history = policies.history(wire::AliasHistoryRequest::default()).await.unwrap().into_inner().changes;
    let told: Vec<_> = history.iter().map(|change| (change.alias.as_str(), change.policy.as_str())).collect();
    assert!(told.contains(&("shadow", "random")) && told.contains(&("champion", "kube-default")), "{told:?}");
    // What was open is ended as ever.
    let told = second.placements().await.report_outcome(outcome(&open.decision_id)).await.unwrap();
    assert!(!told.into_inner().already_reported);
    stop(second, storage).await;
}

#[tokio::test]
async fn a_changed_cluster_is_the_same_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (first, storage) = server(folder.path()).await;
    let open = first.placements().await.place(request(small_task())).await.unwrap().into_inner();
    let parts = small_cluster().cluster.unwrap();
    let link = |outer: &str, inner: &str| wire::Link {
        outer: outer.to_owned(),
        inner: inner.to_owned(),
        ..parts.links[0].clone()
    };
    let transfer = wire::Transfer {
        from: "registry".to_owned(),
        to: "desk".to_owned(),
        bytes: 10_000_000,
        seconds: 4.0,
        others: 0,
    };
    let changes = [
        Change::Transfer(transfer),
        Change::SwitchEntered(wire::SwitchEntered {
            name: "closet".to_owned(),
            link: Some(link("closet", "hall")),
        }),
        Change::NodeEntered(wire::NodeEntered {
            node: Some(wire::Node { cpu_millis: 2000, ..parts.nodes[0].clone() }),
            links: vec![link("desk", "closet")],
            layers: vec!["base:amd64".to_owned()],
        }),
        Change::ConfirmedDecisionId(open.decision_id.clone()),
    ];
    let changes = changes.map(|change| wire::Change { change: Some(change) }).into();
    let update = wire::UpdateClusterRequest {
        cluster_id: "small".to_owned(),
        changes,
        ..wire::UpdateClusterRequest::default()
    };
    first.clusters().await.update(update).await.unwrap();
    let before = facts(&first).await;
    assert!(before.facts.as_ref().unwrap().nodes[0].placed[0].queued, "it has no room there any more");
    stop(first, storage).await;
    let (second, storage) = server(folder.path()).await;
    let after = facts(&second).await;
    assert_eq!(before.cluster, after.cluster);
    about_equal(&before.facts.unwrap(), &after.facts.unwrap());
    let told = second.placements().await.report_outcome(outcome(&open.decision_id)).await.unwrap();
    assert!(!told.into_inner().already_reported);
    stop(second, storage).await;
}

fn other_cluster() -> wire::RegisterClusterRequest {
    let mut other = small_cluster();
    other.cluster.as_mut().unwrap().id = "other".to_owned();
    other
}

async fn alpha_of_other(server: &Server) -> f64 {
    let mut policies = PolicyServiceClient::new(server.channel().await);
    let request = wire::GetServingRequest { cluster_id: "other".to_owned() };
    policies.get_serving(request).await.unwrap().into_inner().alpha.unwrap()
}

#[tokio::test]
async fn how_a_removed_cluster_was_served_does_not_come_back_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let (first, storage) = server(folder.path()).await;
    first.clusters().await.register(other_cluster()).await.unwrap();
    let usual = alpha_of_other(&first).await;
    let mut policies = PolicyServiceClient::new(first.channel().await);
    let serving =
        wire::Serving { alpha: Some(0.125), cluster_id: "other".to_owned(), ..wire::Serving::default() };
    let request = wire::SetServingRequest { serving: Some(serving), reason: "to see".to_owned() };
    policies.set_serving(request).await.unwrap();
    let kept = storage.setting("other", "serving").await.unwrap().expect("it is kept");
    assert_eq!(alpha_of_other(&first).await, 0.125);
    // To register it anew changes nothing of that; to remove it does.
    first.clusters().await.register(other_cluster()).await.unwrap();
    assert_eq!(alpha_of_other(&first).await, 0.125);
    first.clusters().await.remove(wire::RemoveClusterRequest { id: "other".to_owned() }).await.unwrap();
    first.clusters().await.register(other_cluster()).await.unwrap();
    assert_eq!(alpha_of_other(&first).await, usual);
    stop(first, storage).await;
    let (second, storage) = server(folder.path()).await;
    assert_eq!(alpha_of_other(&second).await, usual);
    // Nor after a crash that came between the cluster's end and this.
    second.clusters().await.remove(wire::RemoveClusterRequest { id: "other".to_owned() }).await.unwrap();
    let who = Who { at_ms: 1, actor: "crash".to_owned(), role: None };
    storage.set_setting(("other", "serving"), Some(&kept), "crash", &who).await.unwrap();
    stop(second, storage).await;
    let (third, storage) = server(folder.path()).await;
    third.clusters().await.register(other_cluster()).await.unwrap();
    assert_eq!(alpha_of_other(&third).await, usual);
    assert_eq!(storage.setting("other", "serving").await.unwrap(), None);
    stop(third, storage).await;
}

#[tokio::test]
async fn a_removed_cluster_stays_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (first, storage) = server(folder.path()).await;
    first.clusters().await.register(other_cluster()).await.unwrap();
    first.clusters().await.remove(wire::RemoveClusterRequest { id: "other".to_owned() }).await.unwrap();
    stop(first, storage).await;
    let (second, storage) = server(folder.path()).await;
    let request = wire::GetClusterRequest { id: "other".to_owned(), live: false };
    assert_eq!(second.clusters().await.get(request).await.unwrap_err().code(), Code::NotFound);
    stop(second, storage).await;
}

/// The real program, on a port of its own.
pub struct Program {
    child: Child,
    address: String,
}

impl Program {
    pub fn start(folder: &Path, more: &[&str]) -> Program {
        let mut child = Command::new(env!("CARGO_BIN_EXE_remora"))
            .args(["serve", "--policy", "greedy-completion", "--listen", "127.0.0.1:0", "--json", "--data"])
            .arg(folder)
            .args(more)
            .env("RUST_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        while !told.trim_end().ends_with('}') {
            assert_ne!(lines.read_line(&mut told).unwrap(), 0, "it ended: {told}");
        }
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        Program { child, address: told["listen"].as_str().unwrap().to_owned() }
    }

    /// Killed as by a power cut of the program alone.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub async fn channel(&self) -> Channel {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match remora_agent::client::connect(&self.address).await {
                Ok(channel) => return channel,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        }
    }
}

/// How often the real program is killed: `REMORA_TEST_KILLS`.
pub fn kills() -> u64 {
    std::env::var("REMORA_TEST_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(5)
}

/// Places tasks and reports their outcomes until the service is gone; the decisions whose outcome it has
/// acknowledged.
async fn load(channel: Channel, task: wire::Task) -> Vec<String> {
    let mut client = PlacementServiceClient::new(channel);
    let mut acknowledged = Vec::new();
    loop {
        let request = wire::PlaceRequest {
            cluster_id: "urban-sensing".to_owned(),
            task: Some(task.clone()),
            ..wire::PlaceRequest::default()
        };
        let Ok(placed) = client.place(request).await else { return acknowledged };
        let id = placed.into_inner().decision_id;
        let report = wire::ReportOutcomeRequest { cluster_id: "urban-sensing".to_owned(), ..outcome(&id) };
        match client.report_outcome(report).await {
            Ok(_) => acknowledged.push(id),
            Err(_) => return acknowledged,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_being_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::<String>::new();
    let mut changes = 0;
    for round in 0..kills() {
        let program = Program::start(folder.path(), &["--scenario", "urban-sensing"]);
        let channel = program.channel().await;
        let mut clusters = ClusterServiceClient::new(channel.clone());
        let get = wire::GetClusterRequest { id: "urban-sensing".to_owned(), live: false };
        let cluster = clusters.get(get).await.unwrap().into_inner().cluster.unwrap();
        let task = wire::Task { kind: cluster.task_kinds[0].name.clone(), ..wire::Task::default() };
        // What was acknowledged before is known; of an alias the last change.
        let mut policies = PolicyServiceClient::new(channel.clone());
        let history = policies
            .history(wire::AliasHistoryRequest { limit: Some(1000), ..wire::AliasHistoryRequest::default() });
        assert!(history.await.unwrap().into_inner().changes.len() >= changes.min(1000), "round {round}");
        let mut client = PlacementServiceClient::new(channel.clone());
        for id in acknowledged.iter().rev().take(200) {
            let report = wire::ReportOutcomeRequest { cluster_id: "urban-sensing".to_owned(), ..outcome(id) };
            let told = client.report_outcome(report).await;
            assert!(told.is_ok_and(|told| told.into_inner().already_reported), "round {round}: {id} is lost");
        }
        let loads: Vec<_> = (0..4).map(|_| tokio::spawn(load(channel.clone(), task.clone()))).collect();
        let until = Instant::now() + Duration::from_millis(150 + 130 * (round * 7 % 5));
        while Instant::now() < until {
            let policy = ["skippy", "greedy-marginal"][changes % 2];
            if policies.set_alias(alias("candidate", policy)).await.is_ok() {
                changes += 1;
            }
        }
        program.kill();
        for load in loads {
            acknowledged.extend(load.await.unwrap());
        }
    }
    assert!(acknowledged.len() > 10 && changes > 5, "{} outcomes, {changes} changes", acknowledged.len());
}
