//! What policies came to: handed in with the checkpoint, kept with it, and shown.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use remora_agent::service::Config;
use remora_agent::storage::{Options, Storage};
use remora_policies::{Checkpoint, by_name};
use remora_proto::v1 as wire;
use remora_proto::v1::policy_service_client::PolicyServiceClient;
use tokio::net::TcpListener;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::panel::{Client, open};
use crate::server::{Server, request, small_task};

/// Runs a command beside the service that it may ask.
pub async fn remora(args: &[&str]) -> Output {
    let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    let run = move || Command::new(env!("CARGO_BIN_EXE_remora")).args(args).output().unwrap();
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// What a command says that must succeed.
pub async fn says(args: &[&str]) -> String {
    let output = remora(args).await;
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A checkpoint that no other is, as in the folder of a run.
fn checkpoint(folder: &Path, seed: u64) -> (String, String) {
    let mut checkpoint = Checkpoint::pretrained().unwrap();
    checkpoint.about.seed = seed;
    let checkpoints = folder.join(format!("run-{seed}/checkpoints"));
    std::fs::create_dir_all(&checkpoints).unwrap();
    let file = checkpoints.join("best.safetensors");
    checkpoint.save(&file).unwrap();
    (checkpoint.id(), file.display().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_handed_in_with_what_it_came_to() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (server, client) = open(&data).await;
    let address = server.address.to_string();
    let (id, file) = checkpoint(folder.path(), 77);
    let out = folder.path().join("evaluated");
    let (out, played) = (out.display().to_string(), format!("kube-default,greedy-marginal,{file}"));
    let evaluate = ["evaluate", "--scenario", "urban-sensing", "--seeds", "1", "--alpha", "0,1"];
    says(&[&evaluate[..], &["--policy", &played, "--out", &out]].concat()).await;
    let evaluation = format!("{out}/evaluation.json");
    let upload = async |file: &str, evaluation: &[&str]| {
        remora(&[&["policy", "upload", file, "--server", &address], evaluation].concat()).await
    };
    let told = upload(&file, &["--evaluation", &evaluation]).await;
    assert_eq!(
        String::from_utf8_lossy(&told.stdout),
        format!("run-77 is there as {id}, with what it came to\n"),
        "{told:?}"
    );
    let shown = says(&["policy", "evaluation", "run-77", "--alpha", "1", "--server", &address]).await;
    assert!(shown.contains("greedy-marginal") && shown.contains("→ "), "{shown}");

    // Another is not what was evaluated, and has nothing to show yet.
    let (other, without) = checkpoint(folder.path(), 78);
    let refused = upload(&without, &["--evaluation", &evaluation]).await;
    assert!(!refused.status.success());
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    let expected =
        format!("it is not of the checkpoint {other}, but of {file} ({id}), greedy-marginal, kube-default");
    assert!(why.contains(&expected), "{why}");
    assert!(upload(&without, &[]).await.status.success());
    let none = client.get("/policies/evaluation?policy=run-78").await;
    assert_eq!(none.code, 200);
    for expected in
        ["Nobody handed in an evaluation of it", "remora policy upload CHECKPOINT --evaluation", &other]
    {
        assert!(none.body.contains(expected), "{expected}: {}", none.body);
    }
    assert_eq!(client.get("/policies/evaluation?policy=nobody").await.code, 404);
    assert!(client.get("/policies/evaluation?policy=skippy").await.body.contains("A heuristic is what"));
    let list = client.get("/policies").await.body;
    assert!(list.contains(&format!("policies/evaluation?policy={id}")), "{list}");

    let shows = async |client: &Client| {
        let page = client.get(&format!("/policies/evaluation?policy={id}")).await;
        assert_eq!(page.code, 200);
        for expected in [
            "How run-77 was evaluated",
            "<svg",
            "this one",
            "kube-default",
            "The plots as numbers",
            "by local",
        ] {
            assert!(page.body.contains(expected), "{expected}: {}", page.body);
        }
        assert!(page.body.contains("run-77 at α = 0: "), "the plot in words: {}", page.body);
        assert!(!page.body.contains(&file), "it is called by its name: {}", page.body);
    };
    shows(&client).await;
    server.stop().await;
    // It is kept.
    free(&data).await;
    let (server, client) = open(&data).await;
    shows(&client).await;
    server.stop().await;
}

/// Waits until a folder is nobody's any more: a service that was stopped may have something to end yet.
async fn free(data: &Path) {
    for _ in 0..600 {
        if let Ok(storage) = Storage::open(Options::new(data)).await {
            return storage.close().await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{} is still used", data.display());
}

async fn upload(
    policies: &mut PolicyServiceClient<Channel>,
    first: wire::UploadPolicyRequest,
) -> Result<wire::Policy, Status> {
    let chunk = Checkpoint::pretrained().unwrap().to_bytes();
    let piece = wire::UploadPolicyRequest { chunk, ..first };
    Ok(policies.upload(tokio_stream::iter([piece])).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evaluation_that_is_wrong_is_refused_with_the_field() {
    let server = Server::with_small_cluster().await;
    let mut policies = PolicyServiceClient::new(server.channel().await);
    let id = Checkpoint::pretrained().unwrap().id();
    let result = wire::TrainingResult {
        scenario: "urban-sensing".to_owned(),
        policy: "mine".to_owned(),
        alpha: 0.5,
        cost: 0.5,
        data_moved_gb: 1.0,
        response_mean_s: 2.0,
        worlds: 5,
    };
    let right = wire::PolicyEvaluation {
        policy: id.clone(),
        called: "mine".to_owned(),
        results: vec![result.clone()],
        ..wire::PolicyEvaluation::default()
    };
    let results = |result| vec![result];
    let cases = [
        (
            wire::PolicyEvaluation { policy: "0123456789abcdef".to_owned(), ..right.clone() },
            "evaluation.policy: is \"0123456789abcdef\", but what is uploaded is",
        ),
        (
            wire::PolicyEvaluation { called: "yours".to_owned(), ..right.clone() },
            "evaluation.called: no policy of the results is called \"yours\"",
        ),
        (
            wire::PolicyEvaluation { results: Vec::new(), ..right.clone() },
            "evaluation.results: has 0, want at least 1",
        ),
        (
            wire::PolicyEvaluation {
                results: results(wire::TrainingResult { alpha: 2.0, ..result.clone() }),
                ..right.clone()
            },
            "evaluation.results[0].alpha: is 2.0, want a number from 0.0 to 1.0",
        ),
        (
            wire::PolicyEvaluation {
                results: results(wire::TrainingResult { cost: f64::NAN, ..result.clone() }),
                ..right.clone()
            },
            "evaluation.results[0].cost: is NaN, want a number",
        ),
    ];
    for (evaluation, problem) in cases {
        let first = wire::UploadPolicyRequest {
            name: "mine".to_owned(),
            evaluation: Some(evaluation),
            ..wire::UploadPolicyRequest::default()
        };
        let status = upload(&mut policies, first).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains(problem), "{problem}: {}", status.message());
    }
    let first = wire::UploadPolicyRequest {
        name: "mine".to_owned(),
        evaluation: Some(right.clone()),
        ..wire::UploadPolicyRequest::default()
    };
    assert!(upload(&mut policies, first).await.unwrap().evaluated);
    let get = |policy: &str| wire::GetEvaluationRequest { policy: policy.to_owned() };
    let told = policies.get_evaluation(get("mine")).await.unwrap().into_inner();
    assert_eq!((told.policy, told.results, told.actor.as_str()), (id, right.results, "local"));
    assert!(told.at_ms > 0);
    let status = policies.get_evaluation(get("kube-default")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("is a heuristic"), "{}", status.message());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ships_was_evaluated() {
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(http.local_addr().unwrap());
    let config = Config { http: Some(http), ..Config::new(by_name("pretrained", 0).unwrap()) };
    let server = Server::start(config).await;
    let page = client.get("/policies/evaluation").await;
    assert_eq!(page.code, 200, "{}", page.body);
    for expected in
        ["How pretrained was evaluated", "cloud-regions", "Means over 20 worlds", "technical report"]
    {
        assert!(page.body.contains(expected), "{expected}: {}", page.body);
    }
    assert_eq!(page.body.matches("role=\"img\"").count(), 3);
    assert!(client.get("/policies").await.body.contains("policies/evaluation?policy=pretrained"));
    server.stop().await;
}

/// In a name as many other programs would run.
const SCRIPT: &str = "<script>alert(1)</script>'\"&<img src=x onerror=alert(1)>";

#[tokio::test(flavor = "multi_thread")]
async fn scripts_in_names_and_notes_of_policies_stay_text() {
    let folder = tempfile::tempdir().unwrap();
    let (server, client) = open(folder.path()).await;
    let mut policies = PolicyServiceClient::new(server.channel().await);
    let id = Checkpoint::pretrained().unwrap().id();
    let hostile = |policy: &str| wire::TrainingResult {
        scenario: SCRIPT.to_owned(),
        policy: policy.to_owned(),
        worlds: 1,
        response_mean_s: 1.0,
        data_moved_gb: 1.0,
        ..wire::TrainingResult::default()
    };
    let first = wire::UploadPolicyRequest {
        name: SCRIPT.to_owned(),
        note: SCRIPT.to_owned(),
        evaluation: Some(wire::PolicyEvaluation {
            policy: id.clone(),
            called: SCRIPT.to_owned(),
            results: vec![hostile(SCRIPT), hostile("<b>other</b>")],
            ..wire::PolicyEvaluation::default()
        }),
        ..wire::UploadPolicyRequest::default()
    };
    assert_eq!(upload(&mut policies, first).await.unwrap().name, SCRIPT);
    let alias = |alias: &str, policy: &str| wire::SetAliasRequest {
        alias: alias.to_owned(),
        policy: policy.to_owned(),
        reason: SCRIPT.to_owned(),
        expected: None,
    };
    policies.set_alias(alias("champion", &id)).await.unwrap();
    policies.set_alias(alias("shadow", "random")).await.unwrap();
    let placed = server.placements().await.place(request(small_task())).await.unwrap().into_inner();
    for (path, shows) in [
        ("/policies".to_owned(), true),
        (format!("/policies/evaluation?policy={id}"), true),
        (format!("/policies/preview?policy={id}"), true),
        ("/placements/small".to_owned(), true),
        (format!("/placements/small/{}", placed.decision_id), true),
        ("/audit".to_owned(), true),
    ] {
        let page = client.get(&path).await;
        assert_eq!(page.code, 200, "{path}: {}", page.body);
        assert!(!page.body.contains("<script>alert") && !page.body.contains("<img"), "{path}: {}", page.body);
        assert!(!page.body.contains("<b>other"), "{path}: {}", page.body);
        assert_eq!(page.body.contains("&lt;script&gt;alert(1)"), shows, "{path}: {}", page.body);
    }
    server.stop().await;
}
