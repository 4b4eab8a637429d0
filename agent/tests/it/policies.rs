//! Policies, their roles, how far they are trusted, and receipts.

use remora_agent::service::Config;
use remora_policies::{Checkpoint, by_name};
use remora_proto::v1 as wire;
use remora_proto::v1::policy_service_client::PolicyServiceClient;
use tonic::Code;
use tonic::transport::Channel;
use wire::place_result::Result as Placed;

use crate::server::{Server, dry_run, outcome, request, small_cluster, small_task};

async fn policies(server: &Server) -> PolicyServiceClient<Channel> {
    PolicyServiceClient::new(server.channel().await)
}

fn alias(alias: &str, policy: &str) -> wire::SetAliasRequest {
    wire::SetAliasRequest {
        alias: alias.to_owned(),
        policy: policy.to_owned(),
        reason: "to see".to_owned(),
        expected: None,
    }
}

fn serving(serving: wire::Serving) -> wire::SetServingRequest {
    wire::SetServingRequest { serving: Some(serving), reason: "to see".to_owned() }
}

async fn who(server: &Server) -> String {
    server.placements().await.place(dry_run(small_task())).await.unwrap().into_inner().policy
}

#[tokio::test]
async fn a_champion_is_replaced_and_brought_back() {
    let server = Server::with_small_cluster().await;
    let mut policies = policies(&server).await;
    assert_eq!(who(&server).await, "greedy-completion");
    let change = policies.set_alias(alias("champion", "kube-default")).await.unwrap().into_inner();
    assert_eq!((change.policy.as_str(), change.before.as_str()), ("kube-default", "greedy-completion"));
    assert_eq!(who(&server).await, "kube-default");
    let back = wire::RollBackRequest { alias: "champion".to_owned(), reason: "it was worse".to_owned() };
    policies.roll_back(back).await.unwrap();
    assert_eq!(who(&server).await, "greedy-completion");
    let history = policies.history(wire::AliasHistoryRequest::default()).await.unwrap().into_inner().changes;
    let reasons: Vec<_> = history.iter().map(|change| change.reason.as_str()).collect();
    assert_eq!(reasons, ["it was worse", "to see"]);
    // Who decided then.
    let then =
        wire::AliasHistoryRequest { at_ms: Some(history[1].at_ms), ..wire::AliasHistoryRequest::default() };
    let then = policies.history(then).await.unwrap().into_inner().changes;
    assert!(then.iter().any(|change| change.policy == "kube-default"));
    server.stop().await;
}

#[tokio::test]
async fn wrong_requests_about_policies_are_refused() {
    let server = Server::with_small_cluster().await;
    let mut policies = policies(&server).await;
    let cases = [
        (
            alias("champoin", "skippy"),
            Code::InvalidArgument,
            "alias: no alias is called \"champoin\"; did you mean \"champion\"?",
        ),
        (
            alias("champion", "skipy"),
            Code::NotFound,
            "policy: no policy is called \"skipy\"; did you mean \"skippy\"?",
        ),
        (alias("champion", ""), Code::InvalidArgument, "policy: is empty, but somebody has to be champion"),
        (
            wire::SetAliasRequest { reason: " ".to_owned(), ..alias("shadow", "skippy") },
            Code::InvalidArgument,
            "reason: is empty, want why",
        ),
        (
            wire::SetAliasRequest { expected: Some("skippy".to_owned()), ..alias("champion", "skippy") },
            Code::FailedPrecondition,
            "expected: champion is greedy-completion",
        ),
    ];
    for (request, code, message) in cases {
        let status = policies.set_alias(request).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, message));
    }
    let wrong = wire::Serving { share: Some(1.5), ..wire::Serving::default() };
    let status = policies.set_serving(serving(wrong)).await.unwrap_err();
    assert_eq!(status.message(), "serving.share: is 1.5, want a number from 0.0 to 1.0");
    let wrong = wire::Serving { fallback: "pretrained".to_owned(), ..wire::Serving::default() };
    let status = policies.set_serving(serving(wrong)).await.unwrap_err();
    assert_eq!(status.message(), "serving.fallback: \"pretrained\" is no heuristic");
    let wrong = wire::Serving { autonomy: 9, ..wire::Serving::default() };
    assert_eq!(policies.set_serving(serving(wrong)).await.unwrap_err().code(), Code::InvalidArgument);
    let nothing = wire::RollBackRequest { alias: "shadow".to_owned(), reason: "why not".to_owned() };
    assert_eq!(policies.roll_back(nothing).await.unwrap_err().code(), Code::FailedPrecondition);
    server.stop().await;
}

#[tokio::test]
async fn a_checkpoint_is_uploaded_and_decides() {
    let server = Server::with_small_cluster().await;
    let mut policies = policies(&server).await;
    let bytes = Checkpoint::pretrained().unwrap().to_bytes();
    let piece = |chunk: &[u8]| wire::UploadPolicyRequest {
        evaluation: None,
        name: "mine".to_owned(),
        note: "trained at home".to_owned(),
        chunk: chunk.to_vec(),
    };
    let pieces: Vec<_> = bytes.chunks(10_000).map(piece).collect();
    let policy = policies.upload(tokio_stream::iter(pieces.clone())).await.unwrap().into_inner();
    assert_eq!((policy.name.as_str(), policy.learned, policy.bytes), ("mine", true, bytes.len() as i64));
    // Once more changes nothing.
    let again = policies.upload(tokio_stream::iter(pieces)).await.unwrap().into_inner();
    assert_eq!((&again.id, again.uploaded_at_ms), (&policy.id, policy.uploaded_at_ms));
    policies.set_alias(alias("champion", "mine")).await.unwrap();
    assert_eq!(who(&server).await, policy.id);
    let told =
        policies.get(wire::GetPolicyRequest { policy: "champion".to_owned() }).await.unwrap().into_inner();
    assert_eq!((told.id, told.aliases), (policy.id.clone(), vec!["champion".to_owned()]));
    let all = policies.list(wire::ListPoliciesRequest {}).await.unwrap().into_inner().policies;
    assert!(all.iter().any(|other| other.id == policy.id) && all.iter().any(|other| other.id == "skippy"));
    let mut damaged = bytes;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let status = policies.upload(tokio_stream::iter([piece(&damaged)])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    server.stop().await;
}

#[tokio::test]
async fn autonomy_says_who_decides() {
    let server = Server::with_small_cluster().await;
    let mut policies = policies(&server).await;
    policies.set_alias(alias("champion", "kube-default")).await.unwrap();
    let level =
        |autonomy: wire::Autonomy| wire::Serving { autonomy: autonomy.into(), ..wire::Serving::default() };
    policies.set_serving(serving(level(wire::Autonomy::Off))).await.unwrap();
    let place =
        || async { server.placements().await.place(dry_run(small_task())).await.unwrap().into_inner() };
    let off = place().await;
    assert_eq!(
        (off.policy.as_str(), off.fallback.as_str(), off.advised_node.as_str()),
        ("greedy-marginal-tuned", "the policy is off", "")
    );
    // A cluster may have a setting of its own.
    let own = wire::Serving { cluster_id: "small".to_owned(), ..level(wire::Autonomy::Advise) };
    policies.set_serving(serving(own)).await.unwrap();
    let advised = place().await;
    assert_eq!(
        (advised.policy.as_str(), advised.fallback.as_str()),
        ("greedy-marginal-tuned", "the policy advises only")
    );
    assert!(!advised.advised_node.is_empty());
    let everyone = policies.get_serving(wire::GetServingRequest::default()).await.unwrap().into_inner();
    assert_eq!(everyone.autonomy(), wire::Autonomy::Off);
    server.stop().await;
}

#[tokio::test]
async fn a_shadow_decides_silently() {
    let server = Server::with_small_cluster().await;
    let mut policies = policies(&server).await;
    policies.set_alias(alias("shadow", "random")).await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..20 {
        let placed = server.placements().await.place(request(small_task())).await.unwrap().into_inner();
        assert_eq!(placed.policy, "greedy-completion");
        ids.push(placed.decision_id);
    }
    let compare = wire::CompareRequest { cluster_id: "small".to_owned() };
    let compared = policies.compare(compare).await.unwrap().into_inner();
    assert_eq!(
        (compared.decided.as_str(), compared.shadow.as_str(), compared.decisions),
        ("greedy-completion", "random", 20)
    );
    assert!(compared.differ > 0 && compared.expected_cost_ratio > 1.0, "{compared:?}");
    assert_eq!(compared.examples.len() as i64, compared.differ);
    let explain =
        wire::ExplainRequest { cluster_id: "small".to_owned(), decision_id: compared.examples[0].clone() };
    let receipt = server.placements().await.explain(explain).await.unwrap().into_inner();
    assert_ne!(receipt.shadow.unwrap().node, receipt.response.unwrap().node);
    server.stop().await;
}

#[tokio::test]
async fn a_policy_that_comes_too_dear_steps_down() {
    let policy = by_name("kube-default", 0).unwrap();
    let server = Server::start(Config { clusters: vec![small_cluster()], ..Config::new(policy) }).await;
    let mut policies = policies(&server).await;
    let budget = wire::Serving { regret_budget: Some(0.5), ..wire::Serving::default() };
    policies.set_serving(serving(budget)).await.unwrap();
    let mut placements = server.placements().await;
    for number in 0..40 {
        let placed = placements.place(request(small_task())).await.unwrap().into_inner();
        if number < 30 {
            assert_eq!(placed.policy, "kube-default", "decision {number}");
        }
        let late = wire::ReportOutcomeRequest { response_s: Some(500.0), ..outcome(&placed.decision_id) };
        placements.report_outcome(late).await.unwrap();
    }
    let of = wire::GetServingRequest { cluster_id: "small".to_owned() };
    let now = policies.get_serving(of).await.unwrap().into_inner();
    assert_eq!(now.autonomy(), wire::Autonomy::Share);
    server.stop().await;
}

#[tokio::test]
async fn a_receipt_says_what_was_expected_and_what_came() {
    let server = Server::with_small_cluster().await;
    let mut placements = server.placements().await;
    let placed = placements.place(request(small_task())).await.unwrap().into_inner();
    let explain =
        || wire::ExplainRequest { cluster_id: "small".to_owned(), decision_id: placed.decision_id.clone() };
    let open = placements.explain(explain()).await.unwrap().into_inner();
    assert_eq!(
        (open.response.clone().unwrap(), open.outcome, open.actual_cost),
        (placed.clone(), None, None)
    );
    let measured = wire::ReportOutcomeRequest {
        response_s: Some(2.0 * placed.predicted_completion_s),
        ..outcome(&placed.decision_id)
    };
    placements.report_outcome(measured.clone()).await.unwrap();
    let ended = placements.explain(explain()).await.unwrap().into_inner();
    assert_eq!(ended.outcome, Some(measured));
    // At the middle of the dial half of a task's time over 20 s is its cost.
    let dearer = ended.actual_cost.unwrap() - ended.predicted_cost;
    assert!((dearer - 0.5 * placed.predicted_completion_s / 20.0).abs() < 1e-9, "{dearer}");
    let unknown = wire::ExplainRequest { decision_id: "x".to_owned(), ..explain() };
    assert_eq!(placements.explain(unknown).await.unwrap_err().code(), Code::NotFound);
    server.stop().await;
}

#[tokio::test]
async fn many_tasks_are_placed_at_once() {
    let server = Server::with_small_cluster().await;
    let wrong = wire::Task { kind: "detct".to_owned(), ..small_task() };
    let requests = vec![request(small_task()), request(wrong), request(small_task())];
    let batch = wire::PlaceBatchRequest { requests: requests.clone() };
    let results = server.placements().await.place_batch(batch).await.unwrap().into_inner().results;
    let nodes = |results: &[wire::PlaceResult]| -> Vec<String> {
        let told = |result: &wire::PlaceResult| match result.result.clone().unwrap() {
            Placed::Placed(answer) => answer.node,
            Placed::Refused(refused) => format!("{} {}", refused.code, refused.message),
        };
        results.iter().map(told).collect()
    };
    // The second counts the first as placed.
    let refused = "3 task.kind: no task kind is called \"detct\"; did you mean \"detect\"?";
    let told = nodes(&results);
    assert_eq!((told[0].as_str(), told[1].as_str()), ("desk", refused));
    let Some(Placed::Placed(third)) = &results[2].result else { panic!("{:?}", results[2]) };
    assert!(third.node != "desk" || !third.admitted, "{third:?}");
    let mut stream =
        server.placements().await.place_stream(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let mut streamed = Vec::new();
    while let Some(result) = stream.message().await.unwrap() {
        streamed.push(result);
    }
    assert_eq!((streamed.len(), nodes(&streamed)[1].as_str()), (3, refused));
    let few = wire::PlaceRequest { among: vec!["board".to_owned()], ..dry_run(small_task()) };
    let answer = server.placements().await.place(few.clone()).await.unwrap().into_inner();
    assert_eq!((answer.node.as_str(), answer.feasible), ("board", 1));
    let unknown = wire::PlaceRequest { among: vec!["bored".to_owned()], ..few };
    let status = server.placements().await.place(unknown).await.unwrap_err();
    assert_eq!(status.message(), "among[0]: no node is called \"bored\"; did you mean \"board\"?");
    server.stop().await;
}
