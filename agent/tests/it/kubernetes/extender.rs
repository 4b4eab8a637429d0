//! The extender answers what a real kube-scheduler sent, in kind.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use remora_agent::kubernetes::book::Book;
use remora_agent::kubernetes::core::Core;
use remora_agent::kubernetes::extender::{Config, Extender, router};
use remora_agent::kubernetes::facts::{NodeFacts, Settings};
use remora_agent::kubernetes::scheduler;
use remora_agent::kubernetes::scheduler::state::Happening;
use remora_agent::service::{self, Door};
use remora_policies::by_name;
use remora_proto::v1 as wire;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::Status;
use tower::ServiceExt;
use wire::change::Change;

use super::double::Double;
use super::{node, pod};
use crate::server::small_cluster;
use crate::tls::{Authority, Files};

async fn door() -> Door {
    Door::start(service::Config::new(by_name("greedy-completion", 0).unwrap())).await.unwrap()
}

async fn ask(extender: &Extender, verb: &str, body: String) -> (StatusCode, String) {
    let request = Request::post(format!("/kubernetes/{verb}")).header("content-type", "application/json");
    let response = router(extender.clone()).oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    let status = response.status();
    (status, String::from_utf8(to_bytes(response.into_body(), 1 << 26).await.unwrap().into()).unwrap())
}

async fn asked(extender: &Extender, verb: &str, body: String) -> Value {
    let (status, text) = ask(extender, verb, body).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    serde_json::from_str(&text).unwrap()
}

fn hosts(scores: &Value) -> Vec<(String, i64)> {
    let of = |score: &Value| {
        assert_eq!(score.as_object().unwrap().len(), 2, "{score}");
        (score["Host"].as_str().unwrap().to_owned(), score["Score"].as_i64().expect("a whole number"))
    };
    scores.as_array().unwrap().iter().map(of).collect()
}

/// Every captured request of filter, prioritize and preempt, beside what a trivial extender answered.
#[tokio::test]
async fn captured_requests_are_answered_in_kind() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/kubernetes-extender");
    if !folder.exists() {
        return eprintln!("skipped: {} is not there", folder.display());
    }
    // Those with names are about a cluster with three such nodes.
    let core = Arc::new(door().await);
    let mut book = Book::new("kubernetes", Settings::default());
    for n in 0..3 {
        let facts = NodeFacts::of(
            &serde_json::from_value(node(&format!("node-0000{n}"), "2", "64Gi", "zone-0")).unwrap(),
        );
        book.apply(Arc::new(facts));
    }
    Core::register(&*core, book.registration().unwrap()).await.unwrap();
    let extender =
        Extender::start(core, Config { budget: Duration::from_secs(20), ..Config::default() }, None);
    let mut answered = BTreeSet::new();
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let Some(stem) = name.strip_suffix("-request.json").filter(|stem| !stem.contains("apiserver")) else {
            continue;
        };
        let (mode, verb) = (stem.split('-').next().unwrap(), stem.split('-').nth(1).unwrap());
        let body = std::fs::read_to_string(&file).unwrap();
        let request: Value = serde_json::from_str(&body).unwrap();
        let before: Value = serde_json::from_str(
            &std::fs::read_to_string(folder.join(format!("{stem}-response.json"))).unwrap(),
        )
        .unwrap();
        if verb == "filter" {
            let answer = asked(&extender, "choose", body.clone()).await;
            let (nodes, names) = (&answer["Nodes"]["items"], &answer["NodeNames"]);
            let (list, of) = if names.is_null() {
                (nodes, &request["Nodes"]["items"])
            } else {
                (names, &request["NodeNames"])
            };
            let all = of.as_array().unwrap();
            let chosen = list.as_array().unwrap();
            assert!(chosen.len() == 1 || mode == "managed", "{stem}: {chosen:?}");
            assert!(chosen.iter().all(|node| all.contains(node)), "{stem}: {chosen:?}");
            assert_eq!(nodes.is_null(), request["Nodes"].is_null(), "{stem}");
        }
        let answer = asked(&extender, verb, body).await;
        answered.insert((mode.to_owned(), verb.to_owned()));
        match verb {
            "filter" => {
                let keys =
                    |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
                assert_eq!(keys(&answer), keys(&before), "{stem}");
                assert_eq!(answer["Error"], "");
                assert_eq!(answer["NodeNames"], request["NodeNames"], "{stem}");
                assert_eq!(answer["Nodes"], request["Nodes"], "{stem}");
                assert_eq!(
                    (&answer["FailedNodes"], &answer["FailedAndUnresolvableNodes"]),
                    (&json!({}), &json!({}))
                );
            }
            "prioritize" => {
                let (ours, theirs) = (hosts(&answer), hosts(&before));
                let names =
                    |list: &[(String, i64)]| list.iter().map(|(host, _)| host.clone()).collect::<Vec<_>>();
                assert_eq!(names(&ours), names(&theirs), "{stem}");
                assert!(ours.iter().all(|(_, score)| (0..=10).contains(score)), "{ours:?}");
                assert!(mode == "managed" || ours.iter().any(|(_, score)| *score == 10), "{stem}: {ours:?}");
            }
            "bind" => assert!(answer["Error"].as_str().unwrap().contains("leave bindVerb out")),
            _ => assert_eq!(answer, before, "{stem}"),
        }
    }
    assert!(answered.len() >= 8, "{answered:?}");
}

fn args(pod: &Value, nodes: Option<&[Value]>, names: Option<&[&str]>) -> String {
    let nodes = nodes.map(|items| json!({ "metadata": {}, "items": items }));
    json!({ "Pod": pod, "Nodes": nodes, "NodeNames": names }).to_string()
}

/// Nodes that nobody has registered become known by requests; data decides.
#[tokio::test]
async fn full_nodes_are_scored_and_sent_back_as_they_came() {
    let extender = Extender::start(
        Arc::new(door().await),
        Config { budget: Duration::from_secs(20), ..Config::default() },
        None,
    );
    let mut nodes: Vec<_> =
        (0..4).map(|n| node(&format!("n{n}"), "4", "8Gi", &format!("zone-{n}"))).collect();
    for (version, node) in nodes.iter_mut().enumerate() {
        node["metadata"]["resourceVersion"] = json!(version.to_string());
    }
    nodes[2]["metadata"]["annotations"] = json!({ "remora.dev/datasets": "video=8Gi" });
    let mut reads = pod("p", "1", "1Gi");
    reads["metadata"]["annotations"] = json!({ "remora.dev/inputs": "video" });
    let body = args(&reads, Some(&nodes), None);
    let passed = asked(&extender, "filter", body.clone()).await;
    assert_eq!(passed["Nodes"]["items"], json!(nodes));
    assert!(passed.get("NodeNames").is_none());
    let scores = hosts(&asked(&extender, "prioritize", body.clone()).await);
    assert_eq!(scores.iter().map(|(_, score)| *score).collect::<Vec<_>>(), [0, 0, 10, 0], "{scores:?}");
    let chosen = asked(&extender, "choose", body).await;
    assert_eq!(chosen["Nodes"], json!({ "items": [nodes[2]] }));
    assert!(chosen.get("NodeNames").is_none());
    // The data moves, which the node's new version says, and another node comes first.
    nodes[2]["metadata"] = json!({ "name": "n2", "resourceVersion": "8" });
    nodes[1]["metadata"]["annotations"] = json!({ "remora.dev/datasets": "video=8Gi" });
    nodes[1]["metadata"]["resourceVersion"] = json!("9");
    nodes.insert(0, node("n9", "4", "8Gi", "zone-1"));
    let scores = hosts(&asked(&extender, "prioritize", args(&reads, Some(&nodes), None)).await);
    let best: Vec<_> = scores.iter().filter(|(_, score)| *score == 10).collect();
    assert_eq!(best, [&("n1".to_owned(), 10)], "{scores:?}");
    assert_eq!(extender.counters().failed.load(Ordering::Relaxed), 0);
    assert_eq!(asked(&extender, "prioritize", args(&reads, Some(&[]), None)).await, json!([]));
}

/// A cluster that its owner registered, with its own words for kinds and images.
#[tokio::test]
async fn names_belong_to_a_registered_cluster() {
    let core = door().await;
    core.register(small_cluster()).await.unwrap();
    let config = Config { cluster: "small".to_owned(), budget: Duration::from_secs(20), ..Config::default() };
    let extender = Extender::start(Arc::new(core.clone()), config, None);
    let mut work = pod("p", "1", "100Mi");
    work["metadata"]["annotations"] = json!({ "remora.dev/kind": "detect", "remora.dev/inputs": "video" });
    work["spec"]["containers"][0]["image"] = json!("vision");
    let names = ["cloud", "desk", "stranger", "board"];
    let scores = hosts(&asked(&extender, "prioritize", args(&work, None, Some(&names))).await);
    let of = |name: &str| scores.iter().find(|(host, _)| host == name).unwrap().1;
    assert_eq!((of("desk"), of("stranger")), (10, 0), "{scores:?}");
    let chosen = asked(&extender, "choose", args(&work, None, Some(&names))).await;
    assert_eq!((&chosen["NodeNames"], &chosen["Error"]), (&json!(["desk"]), &json!("")));
    // Whom it does not know, it has nothing against.
    let strangers = asked(&extender, "choose", args(&work, None, Some(&["stranger", "other"]))).await;
    assert_eq!(strangers["NodeNames"], json!(["stranger", "other"]));
    let known = core.get("small".to_owned()).await.unwrap().cluster.unwrap();
    assert_eq!((known.task_kinds.len(), known.images.len()), (1, 1), "its own words are enough");
    // What the cluster has never heard of is added to it, even when it was registered anew meanwhile.
    for _ in 0..2 {
        let scores =
            hosts(&asked(&extender, "prioritize", args(&pod("q", "1", "1Mi"), None, Some(&names))).await);
        assert!(scores.iter().any(|(_, score)| *score == 10), "{scores:?}");
        core.register(small_cluster()).await.unwrap();
    }
    assert_eq!(extender.counters().failed.load(Ordering::Relaxed), 0);
}

/// Where a scheduler keeps the cluster, the next choice counts on the one before, and the scheduler hears of both.
#[tokio::test]
async fn choices_are_committed_where_somebody_keeps_the_cluster() {
    let core = door().await;
    core.register(small_cluster()).await.unwrap();
    let (keeper, mut told) = scheduler::hearing();
    let (cluster, budget) = ("small".to_owned(), Duration::from_secs(20));
    let config = Config { cluster, budget, keeper: Some(keeper), ..Config::default() };
    let extender = Extender::start(Arc::new(core.clone()), config, None);
    let placed = async || -> usize {
        let facts = core.get("small".to_owned()).await.unwrap().facts.unwrap();
        facts.nodes.iter().map(|node| node.placed.len()).sum()
    };
    let before = placed().await;
    for n in 0..2 {
        let mut work = pod("p", "1", "100Mi");
        work["metadata"]["uid"] = json!(n.to_string());
        let chosen = asked(&extender, "choose", args(&work, None, Some(&["cloud", "desk"]))).await;
        let Some(Happening::Chosen { uid, node, decision_id }) = told.recv().await else { panic!("{n}") };
        assert_eq!((uid, &chosen["NodeNames"]), (n.to_string(), &json!([node])));
        let report =
            wire::ReportOutcomeRequest { cluster_id: "small".to_owned(), decision_id, ..Default::default() };
        if n == 1 {
            core.report(report).await.unwrap();
        }
    }
    assert_eq!(placed().await, before + 1, "two chosen, one ended");
    // Scores are no decision.
    asked(&extender, "prioritize", args(&pod("q", "1", "100Mi"), None, Some(&["cloud", "desk"]))).await;
    assert_eq!(placed().await, before + 1);
}

/// A core that is too slow, or refuses.
struct Trouble(Duration);

#[tonic::async_trait]
impl Core for Trouble {
    async fn register(&self, _: wire::RegisterClusterRequest) -> Result<(), Status> {
        Ok(())
    }
    async fn get(&self, _: &str) -> Result<wire::RegisterClusterRequest, Status> {
        Err(Status::not_found("no cluster"))
    }
    async fn update(&self, _: &str, _: Vec<Change>) -> Result<(), Status> {
        Ok(())
    }
    async fn place(&self, _: wire::PlaceRequest, _: Vec<String>) -> Result<wire::PlaceResponse, Status> {
        tokio::time::sleep(self.0).await;
        Err(Status::internal("trouble"))
    }
    async fn report(&self, _: wire::ReportOutcomeRequest) -> Result<(), Status> {
        Ok(())
    }
}

#[tokio::test]
async fn trouble_costs_nobody_a_place() {
    let budget = Duration::from_millis(50);
    for (slow, late, failed) in [(Duration::from_secs(60), 1, 0), (Duration::ZERO, 0, 1)] {
        let extender = Extender::start(Arc::new(Trouble(slow)), Config { budget, ..Config::default() }, None);
        let nodes = [node("a", "1", "1Gi", "z"), node("b", "1", "1Gi", "z")];
        let body = args(&pod("p", "1", "1Mi"), Some(&nodes), None);
        let started = Instant::now();
        assert_eq!(
            hosts(&asked(&extender, "prioritize", body.clone()).await),
            [("a".to_owned(), 0), ("b".to_owned(), 0)]
        );
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_eq!(asked(&extender, "filter", body.clone()).await["Nodes"]["items"], json!(nodes));
        let counters = extender.counters();
        assert_eq!(
            (counters.late.load(Ordering::Relaxed), counters.failed.load(Ordering::Relaxed)),
            (late, failed)
        );
        let chosen = asked(&extender, "choose", body).await;
        assert_eq!(chosen["Nodes"]["items"], json!(nodes), "all pass where nothing was chosen");
        // An unknown cluster is trouble too, where nodes are named.
        if failed == 1 {
            let scores =
                asked(&extender, "prioritize", args(&pod("p", "1", "1Mi"), None, Some(&["a"]))).await;
            assert_eq!(scores, json!([{ "Host": "a", "Score": 0 }]));
        }
    }
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let extender = Extender::start(Arc::new(Trouble(Duration::ZERO)), Config::default(), None);
    for verb in ["filter", "choose", "prioritize", "bind", "preempt"] {
        for body in ["", "[]]", "7", "{\"Pod\": 3, \"NodeNames\": 4, \"Node\": 1, \"NodeNameToVictims\": 5}"]
        {
            let (status, text) = ask(&extender, verb, body.to_owned()).await;
            // A filter that passes on what it got does not look into it.
            assert!(status == StatusCode::BAD_REQUEST || verb == "filter", "{verb} {body}: {status} {text}");
        }
    }
    let neither =
        asked(&extender, "filter", json!({ "Pod": {}, "Nodes": null, "NodeNames": null }).to_string()).await;
    assert_eq!(neither["Error"], "Nodes and NodeNames are both null, want one of them");
}

#[tokio::test]
async fn bindings_are_made_and_refusals_told() {
    let double = Double::start().await;
    double.add_pods([pod("p", "1", "1Mi")]);
    let uid = double.get("pods", "default/p").unwrap()["metadata"]["uid"].clone();
    let extender =
        Extender::start(Arc::new(Trouble(Duration::ZERO)), Config::default(), Some(double.client()));
    let body = json!({ "PodName": "p", "PodNamespace": "default", "PodUID": uid, "Node": "n" }).to_string();
    let (_, text) = ask(&extender, "bind", body.clone()).await;
    assert_eq!(text, "{\"Error\":\"\"}");
    assert_eq!(double.placed()["default/p"], "n");
    let again = asked(&extender, "bind", body).await;
    assert_eq!(again["Error"], "pod is already assigned to a node");
}

/// The status of a request to `https://localhost:PORT`, with this certificate and key if any.
async fn status(port: u16, ca: &str, identity: Option<(String, String)>, path: &str, body: &str) -> u16 {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
            builder
                .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
                .unwrap()
        }
    };
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let Ok(mut stream) = connector.connect("localhost".try_into().unwrap(), stream).await else { return 0 };
    let verb = if body.is_empty() { "GET" } else { "POST" };
    let head = format!(
        "{verb} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}",
        body.len()
    );
    let mut answer = Vec::new();
    // Who is not let in may be cut off instead.
    let asked = stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await;
    if asked.is_err() || stream.read_to_end(&mut answer).await.is_err() && answer.is_empty() {
        return 0;
    }
    String::from_utf8_lossy(&answer)[9..12].parse().unwrap()
}

#[tokio::test]
async fn advice_is_for_those_whom_the_authority_names() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let files = Files::new(&ours);
    let file = |name: &str| files.path(name).display().to_string();
    let ca = files.write("ca.crt", &ours.pem).display().to_string();
    let (cert, key) = (file("tls.crt"), file("tls.key"));
    let extender = ["kubernetes", "extender", "--policy", "greedy-completion", "--json"];
    let reachable = ["--listen", "0.0.0.0:0", "--tls-cert", &cert, "--tls-key", &key];
    let remora = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_remora"));
        command.args(extender).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    // Encryption alone lets everybody in.
    let refused = remora(&reachable).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--tls-client-ca"), "{refused:?}");
    let mut process =
        remora(&[&reachable[..], &["--tls-client-ca", &ca]].concat()).spawn().map(Ended).unwrap();
    let mut line = String::new();
    BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let told: Value = serde_json::from_str(&line).unwrap();
    assert!(told["url"].as_str().unwrap().starts_with("https://"), "{told}");
    let port = told["listen"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    let body = json!({ "Pod": {}, "Nodes": null, "NodeNames": [] }).to_string();
    let filter = "/kubernetes/filter";
    assert_eq!(
        status(port, &ours.pem, Some(ours.certify(Some("kube-scheduler"), Vec::new())), filter, &body).await,
        200
    );
    assert_eq!(status(port, &ours.pem, None, filter, &body).await, 403);
    assert_eq!(
        status(port, &ours.pem, None, "/kubernetes/metrics", "").await,
        200,
        "probes have no certificate"
    );
    assert_eq!(
        status(port, &ours.pem, Some(theirs.certify(Some("mallory"), Vec::new())), filter, &body).await,
        0
    );
    assert_eq!(status(port, &theirs.pem, None, filter, &body).await, 0, "it is not who the scheduler means");
}

/// A process that is ended whatever happens.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().map(drop).unwrap_or_default();
    }
}
