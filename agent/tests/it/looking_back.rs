//! What is said of decisions afterwards: what another policy would have decided, what they saved, and that one was wrong.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use remora_env::Time;
use remora_proto::v1 as wire;
use remora_proto::v1::cluster_service_client::ClusterServiceClient;
use remora_proto::v1::placement_service_client::PlacementServiceClient;
use remora_proto::v1::policy_service_client::PolicyServiceClient;
use serde_json::Value;
use tonic::Code;
use tonic::transport::Channel;
use wire::change::Change;

use crate::recorded::{BEGIN_MS, Recording};
use crate::server::{Server, outcome, request, small_cluster, small_task};

struct Service {
    it: Recording,
    placements: PlacementServiceClient<Channel>,
    policies: PolicyServiceClient<Channel>,
    clusters: ClusterServiceClient<Channel>,
}

impl Service {
    async fn start(folder: &Path, at: Time) -> Service {
        let time = Arc::new(AtomicU64::new(BEGIN_MS * 1_000_000 + at.0));
        let it = Recording::with(folder, small_cluster(), time, None).await;
        let channel = it.server.channel().await;
        Service {
            it,
            placements: PlacementServiceClient::new(channel.clone()),
            policies: PolicyServiceClient::new(channel.clone()),
            clusters: ClusterServiceClient::new(channel),
        }
    }

    async fn place(&mut self) -> wire::PlaceResponse {
        self.placements.place(request(small_task())).await.unwrap().into_inner()
    }

    async fn end(&mut self, decision: &str) {
        let measured = wire::ReportOutcomeRequest { response_s: Some(9.0), ..outcome(decision) };
        self.placements.report_outcome(measured).await.unwrap();
    }

    async fn explain(&mut self, decision: &str) -> wire::Receipt {
        let request =
            wire::ExplainRequest { cluster_id: "small".to_owned(), decision_id: decision.to_owned() };
        self.placements.explain(request).await.unwrap().into_inner()
    }

    async fn available(&mut self, node: &str, available: bool) {
        let change = Change::NodeAvailable(wire::NodeAvailable { node: node.to_owned(), available });
        let update = wire::UpdateClusterRequest {
            cluster_id: "small".to_owned(),
            changes: vec![wire::Change { change: Some(change) }],
            ..wire::UpdateClusterRequest::default()
        };
        self.clusters.update(update).await.unwrap();
    }

    async fn preview(&mut self, policy: &str, last: Option<i64>) -> wire::PreviewResponse {
        let request =
            wire::PreviewRequest { policy: policy.to_owned(), last, ..wire::PreviewRequest::default() };
        self.policies.preview(request).await.unwrap().into_inner()
    }

    async fn savings(&mut self, since_ms: Option<i64>) -> wire::SavingsResponse {
        let request = wire::SavingsRequest { since_ms, ..wire::SavingsRequest::default() };
        self.policies.savings(request).await.unwrap().into_inner()
    }

    /// What a command says that must succeed.
    async fn remora(&self, args: &str) -> String {
        let (args, server) = (args.to_owned(), self.it.server.address.to_string());
        let run = move || {
            let args: Vec<&str> = args.split_whitespace().chain(["--server", &server]).collect();
            Command::new(env!("CARGO_BIN_EXE_remora")).args(args).output().unwrap()
        };
        let output = tokio::task::spawn_blocking(run).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// So many decisions, two or three of them open at a time, a node being away now and then; returns their ids.
    async fn work(&mut self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        for number in 0..count {
            self.it.is(Time::from_s(1.0 + 3.7 * number as f64));
            if number % 10 == 3 {
                self.available("board", number % 20 == 3).await;
            }
            ids.push(self.place().await.decision_id);
            if number >= 2 {
                self.it.is(Time::from_s(2.4 + 3.7 * number as f64));
                let ended = ids[number - 2].clone();
                self.end(&ended).await;
            }
        }
        ids
    }
}

#[tokio::test]
async fn a_preview_says_what_another_policy_would_have_decided() {
    let folder = tempfile::tempdir().unwrap();
    let mut service = Service::start(folder.path(), Time::ZERO).await;
    // What the shadow said at the time is what the preview has to say afterwards.
    let shadow = wire::SetAliasRequest {
        alias: "shadow".to_owned(),
        policy: "random".to_owned(),
        reason: "to compare".to_owned(),
        expected: None,
    };
    service.policies.set_alias(shadow).await.unwrap();
    let ids = service.work(40).await;
    // Who decided would have decided the same: everything is as it was then.
    let same = service.preview("champion", None).await;
    assert_eq!((same.policy.as_str(), same.cluster_id.as_str()), ("greedy-completion", "small"));
    assert_eq!((same.decisions, same.exact, same.differ, same.left_out), (40, 40, 0, 0), "{same:?}");
    assert_eq!(same.decided, same.previewed);
    let other = service.preview("random", None).await;
    assert_eq!((other.decisions, other.exact), (40, 40));
    assert_eq!((other.decided, other.differences.len() as i64), (same.decided, other.differ));
    let (decided, previewed) = (other.decided.unwrap(), other.previewed.unwrap());
    assert!(other.differ > 0 && previewed.response_s > decided.response_s, "{other:?}");
    // The figures are those that the receipts have.
    let mut sums = wire::Expected::default();
    for id in &ids {
        let receipt = service.explain(id).await;
        let response = receipt.response.unwrap();
        sums.transfer_bytes += response.predicted_transfer_bytes;
        sums.response_s += response.predicted_completion_s / 40.0;
        sums.cost += receipt.predicted_cost / 40.0;
        let found = other.differences.iter().find(|it| it.decision_id == *id);
        let shadow = receipt.shadow.unwrap();
        assert_eq!(found.is_some(), shadow.node != response.node, "{id}");
        let Some(found) = found else { continue };
        let (then, now) = (found.decided.clone().unwrap(), found.previewed.clone().unwrap());
        assert_eq!((then.node, found.task_kind.as_str()), (response.node, "detect"));
        assert_eq!((&now.node, now.policy.as_str()), (&shadow.node, "random"));
        assert!((now.predicted_cost - shadow.predicted_cost).abs() < 0.001, "{now:?} {shadow:?}");
        let listed = response.candidates.iter().find(|candidate| candidate.node == now.node).unwrap();
        assert_eq!(
            now.predicted_transfer_bytes,
            listed.image_bytes + listed.input_bytes + listed.output_bytes
        );
        let wire::Candidate { wait_s, pull_s, fetch_s, start_s, execution_s, store_s, .. } = listed;
        let response_s = wait_s + pull_s + fetch_s + start_s + execution_s + store_s;
        assert!((now.predicted_completion_s - response_s).abs() < 0.01, "{now:?} {listed:?}");
    }
    assert_eq!(sums.transfer_bytes, decided.transfer_bytes);
    assert!((sums.response_s - decided.response_s).abs() < 0.01 && (sums.cost - decided.cost).abs() < 0.001);
    // The command line says the same.
    let printed = service.remora("policy preview random --cluster small --json").await;
    let printed: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(printed["rows"].as_array().unwrap().len() as i64, other.differ);
    assert_eq!((printed["differ"].as_i64(), printed["exact"].as_i64()), (Some(other.differ), Some(40)));
    assert_eq!(printed["previewed"]["response_s"].as_f64(), Some(previewed.response_s));
    assert_eq!(printed["rows"][0]["decision_id"].as_str(), Some(other.differences[0].decision_id.as_str()));
    let printed = service.remora("policy preview random --last 40").await;
    let told = format!("{} of 40 decisions would have been others; expected then:", other.differ);
    assert!(printed.contains(&told) && printed.contains("all of them were rebuilt exactly"), "{printed}");
    assert!(service.remora("policy list").await.contains("champion"));
    // The last ones only, newest first; and the same after a restart.
    let few = service.preview("random", Some(10)).await;
    assert_eq!(few.decisions, 10);
    let told = few.differences.iter().map(|it| it.at_ms);
    assert!(told.clone().rev().is_sorted() && told.min().is_none_or(|at_ms| at_ms >= few.from_ms), "{few:?}");
    service.it.stop().await;
    let mut again = Service::start(folder.path(), Time::from_s(400.0)).await;
    assert_eq!(again.preview("random", None).await, other);
    assert_eq!(again.preview("pretrained", None).await.decisions, 40);
    again.it.stop().await;
}

#[tokio::test]
async fn a_preview_that_cannot_be_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut service = Service::start(folder.path(), Time::ZERO).await;
    let ask = |policy: &str, cluster: &str, last| wire::PreviewRequest {
        policy: policy.to_owned(),
        cluster_id: cluster.to_owned(),
        last,
        version: None,
    };
    let cases = [
        (
            ask("random", "", None),
            Code::FailedPrecondition,
            "no decision about cluster \"small\" is recorded",
        ),
        (
            ask("randm", "", None),
            Code::NotFound,
            "policy: no policy is called \"randm\"; did you mean \"random\"?",
        ),
        (
            ask("random", "smal", None),
            Code::NotFound,
            "cluster_id: no cluster is called \"smal\"; did you mean \"small\"?",
        ),
        (ask("random", "", Some(1001)), Code::InvalidArgument, "last: is 1001, want a number up to 1000"),
        (ask("", "", None), Code::InvalidArgument, "policy: is empty, want a name"),
        (
            wire::PreviewRequest { version: Some(3), ..ask("random", "", None) },
            Code::InvalidArgument,
            "policy: is there, and version too; want one",
        ),
        (
            wire::PreviewRequest { version: Some(3), ..ask("", "", None) },
            Code::NotFound,
            "version: remora-policy has no version 3",
        ),
    ];
    for (request, code, message) in cases {
        let status = service.policies.preview(request).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, message));
    }
    service.it.stop().await;
    let server = Server::with_small_cluster().await;
    let mut policies = PolicyServiceClient::new(server.channel().await);
    let status = policies.preview(ask("random", "", None)).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(status.message(), "the service records nothing; start it with --data FOLDER");
    server.stop().await;
}

#[tokio::test]
async fn savings_are_what_receipts_say() {
    let folder = tempfile::tempdir().unwrap();
    let mut service = Service::start(folder.path(), Time::ZERO).await;
    assert_eq!(service.savings(None).await.total.unwrap(), wire::Saved::default());
    let ids = service.work(30).await;
    let told = service.savings(None).await;
    let total = told.total.clone().unwrap();
    let mut sum = wire::Saved { decisions: 30, ..wire::Saved::default() };
    for id in &ids {
        let receipt = service.explain(id).await;
        let (response, other) = (receipt.response.unwrap(), receipt.kube_default.unwrap());
        assert_eq!(other.policy, "kube-default");
        sum.differ += i64::from(other.node != response.node);
        sum.transfer_bytes += response.predicted_transfer_bytes;
        sum.kube_default_transfer_bytes += other.predicted_transfer_bytes;
        sum.response_s += response.predicted_completion_s;
        sum.kube_default_response_s += other.predicted_completion_s;
        let same = response.node == other.node;
        assert!(!same || (other.predicted_cost - receipt.predicted_cost).abs() < 1e-12);
    }
    assert_eq!((total.decisions, total.differ), (sum.decisions, sum.differ));
    assert_eq!(total.transfer_bytes, sum.transfer_bytes);
    assert_eq!(total.kube_default_transfer_bytes, sum.kube_default_transfer_bytes);
    assert!((total.response_s - sum.response_s).abs() < 1e-6);
    assert!((total.kube_default_response_s - sum.kube_default_response_s).abs() < 1e-6);
    assert!(total.kube_default_response_s > total.response_s, "{total:?}");
    assert_eq!(told.clusters, [wire::Saved { cluster_id: "small".to_owned(), ..total.clone() }]);
    assert_eq!(told.since_ms % 3_600_000, 0);
    let printed: Value = serde_json::from_str(&service.remora("policy savings --json").await).unwrap();
    assert_eq!(printed["total"]["decisions"].as_i64(), Some(30));
    assert_eq!(
        printed["rows"][0]["kube_default_transfer_bytes"].as_i64(),
        Some(sum.kube_default_transfer_bytes)
    );
    assert!(service.remora("policy savings --cluster small").await.contains("nothing of it was measured"));
    // A dry run saves nothing, and a restart loses nothing.
    let dry = wire::PlaceRequest { dry_run: true, ..request(small_task()) };
    service.placements.place(dry).await.unwrap();
    service.it.stop().await;
    let mut again = Service::start(folder.path(), Time::from_s(400.0)).await;
    let restored = again.savings(None).await.total.unwrap();
    assert_eq!((restored.decisions, restored.differ), (total.decisions, total.differ));
    assert!((restored.response_s - total.response_s).abs() < 1e-6);
    // What was more than a day ago counts only where somebody asks for it.
    again.it.is(Time::from_s(30.0 * 3600.0));
    assert_eq!(again.savings(None).await.total.unwrap().decisions, 0);
    assert_eq!(again.savings(Some(BEGIN_MS as i64)).await.total.unwrap().decisions, 30);
    let unknown = wire::SavingsRequest { cluster_id: "attic".to_owned(), since_ms: None };
    assert_eq!(again.policies.savings(unknown).await.unwrap_err().code(), Code::NotFound);
    again.it.stop().await;
}

fn dispute(decision: &str, reason: &str) -> wire::DisputeRequest {
    wire::DisputeRequest {
        cluster_id: "small".to_owned(),
        decision_id: decision.to_owned(),
        reason: reason.to_owned(),
        withdraw: false,
    }
}

fn exported(folder: &Path) -> Value {
    let args = ["trace", "export", "--cluster", "small", "--data"];
    let output = Command::new(env!("CARGO_BIN_EXE_remora"))
        .args(args)
        .arg(folder)
        .args(["--json", "--out"])
        .arg(folder.join("it.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["rows"][0].clone()
}

#[tokio::test]
async fn a_disputed_decision_teaches_nothing_until_that_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut service = Service::start(folder.path(), Time::ZERO).await;
    let ids = service.work(6).await;
    let nobody = wire::DisputeRequest { withdraw: true, ..dispute(&ids[0], "it was right") };
    let cases = [
        (dispute(&ids[0], " "), Code::InvalidArgument, "reason: is empty, want why".to_owned()),
        (nobody, Code::FailedPrecondition, format!("withdraw: nobody disputes decision {:?}", ids[0])),
        (
            dispute("attic", "why"),
            Code::NotFound,
            "decision_id: cluster \"small\" made no decision \"attic\", or it is no longer kept".to_owned(),
        ),
    ];
    for (request, code, message) in cases {
        let status = service.placements.dispute(request).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, message.as_str()));
    }
    let watch = wire::WatchClusterRequest { cluster_id: "small".to_owned(), after: None };
    let mut events = service.clusters.watch(watch).await.unwrap().into_inner();
    // One that ended, and one that is open.
    for id in [&ids[1], &ids[5]] {
        let told = service.placements.dispute(dispute(id, "the camera was off")).await.unwrap().into_inner();
        assert_eq!((told.actor.as_str(), told.withdrawn), ("local", false));
        let event = events.message().await.unwrap().unwrap().event;
        assert_eq!(event, Some(wire::cluster_event::Event::Disputed(told.clone())));
        assert_eq!(service.explain(id).await.disputed, Some(told));
    }
    assert_eq!(service.explain(&ids[0]).await.disputed, None);
    let audit = {
        let paging = remora_agent::storage::Paging { newest_first: true, ..Default::default() };
        service.it.storage.audit_log(Default::default(), &paging).await.unwrap().items
    };
    assert_eq!(audit[0].action, "remora.v1.PlacementService/Dispute");
    assert_eq!(audit[0].subject, format!("small/{}", ids[5]));
    drop(events);
    service.it.stop().await;

    let told = exported(folder.path());
    assert_eq!(["arrivals", "decisions", "outcomes"].map(|what| told[what].as_u64().unwrap()), [6, 6, 3]);
    let note = "outcomes left out, as somebody disputes the decision: 1";
    assert!(told["notes"].as_array().unwrap().contains(&note.into()), "{told}");

    let mut again = Service::start(folder.path(), Time::from_s(100.0)).await;
    let receipt = again.explain(&ids[1]).await;
    assert_eq!(receipt.disputed.unwrap().reason, "the camera was off");
    let back = wire::DisputeRequest { withdraw: true, ..dispute(&ids[1], "it was on") };
    assert!(again.placements.dispute(back).await.unwrap().into_inner().withdrawn);
    assert_eq!(again.explain(&ids[1]).await.disputed, None);
    again.it.stop().await;
    assert_eq!(exported(folder.path())["outcomes"].as_u64(), Some(4));
}
