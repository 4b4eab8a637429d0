//! Metrics and health over HTTP, and what the binary says of its configuration and in its logs.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use remora_agent::storage::Role;
use remora_proto::v1 as wire;
use remora_proto::v1::policy_service_client::PolicyServiceClient;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::access::{Guarded, bearer, with};
use crate::server::{outcome, request, small_task};
use crate::tls::{Authority, Files};

const REMORA: &str = env!("CARGO_BIN_EXE_remora");

/// What is answered to a GET: the status and all that follows.
async fn get(address: SocketAddr, path: &str, authorization: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut head = format!("GET {path} HTTP/1.1\r\nhost: remora\r\nconnection: close\r\n");
    if !authorization.is_empty() {
        head += &format!("authorization: {authorization}\r\n");
    }
    stream.write_all((head + "\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    (answer[9..12].parse().unwrap(), answer)
}

/// A sample's name and labels, and its value.
type Samples = BTreeMap<String, f64>;

/// Reads the text format strictly: types before samples, samples of declared families only, and an end.
fn parse(answer: &str) -> Samples {
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    let (mut families, mut samples) = (BTreeSet::new(), Samples::new());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" {
            assert!(lines.peek().is_none(), "something follows the end");
            return samples;
        } else if let Some(family) = line.strip_prefix("# TYPE ") {
            assert!(families.insert(family.split(' ').next().unwrap()), "{family} is declared twice");
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let plain = name.split('{').next().unwrap();
            let of = |suffix| plain.strip_suffix(suffix).is_some_and(|family| families.contains(family));
            let known = ["", "_total", "_info", "_bucket", "_sum", "_count"].into_iter().any(of);
            assert!(known, "{line} belongs to nothing declared");
            assert!(
                samples.insert(name.to_owned(), value.parse().unwrap()).is_none(),
                "{name} is told twice"
            );
        }
    }
    panic!("no end: {text}");
}

async fn guarded() -> (Guarded, SocketAddr) {
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = http.local_addr().unwrap();
    (Guarded::with(|config| config.http = Some(http)).await, address)
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let (guarded, http) = guarded().await;
    let (orchestrator, viewer) = (guarded.token(Role::Orchestrator).await, guarded.token(Role::Viewer).await);
    let mut placements = guarded.server.placements().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        let placed = placements.place(with(request(small_task()), &bearer(&orchestrator))).await.unwrap();
        ids.push(placed.into_inner().decision_id);
    }
    placements.report_outcome(with(outcome(&ids[0]), &bearer(&orchestrator))).await.unwrap();
    placements.place(with(request(small_task()), &bearer(&viewer))).await.unwrap_err();
    placements.place(with(wire::PlaceRequest::default(), &bearer(&orchestrator))).await.unwrap_err();

    assert_eq!(get(http, "/metrics", "").await.0, 401);
    assert_eq!(get(http, "/metrics", "Bearer rmr_x_y").await.0, 401);
    let (code, answer) = get(http, "/metrics", &bearer(&viewer)).await;
    assert_eq!(code, 200);
    let samples = parse(&answer);
    let is = |name: &str, value: f64| assert_eq!(samples.get(name), Some(&value), "{name} in {answer}");
    let place = "method=\"remora.v1.PlacementService/Place\"";
    is(&format!("remora_requests_total{{{place},code=\"OK\"}}"), 5.0);
    is(&format!("remora_requests_total{{{place},code=\"PERMISSION_DENIED\"}}"), 1.0);
    is(&format!("remora_requests_total{{{place},code=\"INVALID_ARGUMENT\"}}"), 1.0);
    is(&format!("remora_request_seconds_count{{{place}}}"), 7.0);
    is("remora_decisions_total{cluster=\"small\",policy=\"greedy-completion\",fallback=\"\"}", 5.0);
    is("remora_decision_seconds_count", 5.0);
    is("remora_clusters", 1.0);
    is("remora_nodes{cluster=\"small\"}", 3.0);
    let tasks = samples["remora_tasks_running{cluster=\"small\"}"]
        + samples["remora_tasks_queued{cluster=\"small\"}"];
    assert_eq!(tasks, 4.0);
    is("remora_journal_healthy", 1.0);
    is("remora_owner_waiting", 0.0);
    // The reading itself is under way.
    is("remora_requests_in_flight", 1.0);
    assert!(samples["process_cpu_seconds_total"] > 0.0);
    guarded.stop().await;
}

#[tokio::test]
async fn health_is_told_to_everybody() {
    let (guarded, http) = guarded().await;
    assert_eq!(get(http, "/healthz", "").await.0, 200);
    assert_eq!(get(http, "/readyz", "").await.0, 200);
    assert_eq!(get(http, "/attic", "").await.0, 404);
    guarded.stop().await;
    assert!(TcpStream::connect(http).await.is_err(), "it still listens");
}

#[tokio::test]
async fn the_dashboard_shows_metrics_that_exist() {
    let (guarded, http) = guarded().await;
    let operator = bearer(&guarded.token(Role::Operator).await);
    // Without a budget nobody counts regret.
    let serving = wire::Serving { regret_budget: Some(0.5), ..wire::Serving::default() };
    let serving = wire::SetServingRequest { serving: Some(serving), reason: "to see".to_owned() };
    let mut policies = PolicyServiceClient::new(guarded.server.channel().await);
    policies.set_serving(with(serving, &operator)).await.unwrap();
    let mut placements = guarded.server.placements().await;
    let placed = placements.place(with(request(small_task()), &operator)).await.unwrap().into_inner();
    let measured = wire::ReportOutcomeRequest { response_s: Some(9.0), ..outcome(&placed.decision_id) };
    placements.report_outcome(with(measured, &operator)).await.unwrap();
    let (_, answer) = get(http, "/metrics", &operator).await;
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/grafana.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut named = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let words =
                target["expr"].as_str().unwrap().split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            let ours = |word: &&str| word.starts_with("remora_") || word.starts_with("process_");
            named.extend(words.filter(ours).map(str::to_owned));
        }
    }
    assert!(named.len() >= 15, "{named:?}");
    for name in named {
        let there = answer
            .lines()
            .any(|line| line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} ")));
        assert!(there, "{name} is not among\n{answer}");
    }
    guarded.stop().await;
}

fn refused(arguments: &[&str]) -> String {
    let output = Command::new(REMORA).arg("serve").args(arguments).output().unwrap();
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn wrong_configurations_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("remora.toml");
    let read = |text: &str| {
        std::fs::write(&file, text).unwrap();
        refused(&["--config", file.to_str().unwrap(), "--listen", "127.0.0.1:0"])
    };
    let error = read("seed = 1\nlog-fromat = \"json\"\n");
    assert!(error.contains("line 2") && error.contains("did you mean \"log-format\"?"), "{error}");
    let error = read("[[clients]]\nname = \"edge\"\nrole = \"oprator\"\n");
    assert!(error.contains("line 3") && error.contains("did you mean \"operator\"?"), "{error}");
    let error = read("alpha = 2.0\n");
    assert!(error.contains("alpha: is 2, want 0 to 1"), "{error}");
    let error = read("listen = 7\n");
    assert!(error.contains("line 1"), "{error}");
    let error = read("listen = \"0.0.0.0:0\"\nauth = true\n");
    assert!(!error.contains("add --insecure"), "a flag wins: {error}");
    assert!(error.contains("give --data FOLDER"), "{error}");
    let error = refused(&["--config", "attic.toml"]);
    assert!(error.contains("cannot read attic.toml"), "{error}");
}

#[test]
fn other_machines_are_not_served_in_the_open() {
    let cases: [&[&str]; 4] = [
        &["--listen", "0.0.0.0:0"],
        &["--listen", "[::]:0", "--auth", "--data", "unused"],
        &["--listen", "0.0.0.0:0", "--tls-cert", "a", "--tls-key", "b"],
        &["--listen", "127.0.0.1:0", "--http", "0.0.0.0:0"],
    ];
    for arguments in cases {
        let error = refused(arguments);
        assert!(error.contains("can be reached by other machines"), "{arguments:?}: {error}");
    }
    let error = refused(&["--database", "postgres://localhost/remora"]);
    assert!(error.contains("--database wants --data FOLDER too"), "{error}");
    assert!(refused(&["--tls-cert", "a"]).contains("both --tls-cert and --tls-key"));
}

/// A running service with all of its logs, killed when the test fails.
struct Logged(Child);

impl Drop for Logged {
    fn drop(&mut self) {
        self.0.kill().unwrap_or(());
    }
}

#[test]
fn no_log_shows_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--json", "--auth"];
    let mut process = Command::new(REMORA)
        .args(arguments)
        .args(["--policy", "greedy-completion", "--log-format", "json", "--data"])
        .arg(folder.path())
        .env("RUST_LOG", "trace")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map(Logged)
        .unwrap();
    let mut errors = BufReader::new(process.0.stderr.take().unwrap());
    let logs = std::thread::spawn(move || {
        let mut text = String::new();
        errors.read_to_string(&mut text).unwrap();
        text
    });
    let mut line = String::new();
    BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let told: Value = serde_json::from_str(&line).unwrap();
    let (grpc, http) = (told["listen"].as_str().unwrap(), told["http"].as_str().unwrap());

    // The first token is on stderr, from where only whoever started the service has it; here it is another's.
    let secret = format!("rmr_{}_{}", "ab".repeat(8), "cd".repeat(32));
    let ask = |arguments: &[&str], token: &str| {
        let asked = Command::new(REMORA)
            .args(arguments)
            .args(["--server", grpc])
            .env("REMORA_TOKEN", token)
            .output()
            .unwrap();
        assert!(!asked.status.success(), "{asked:?}");
        assert!(!String::from_utf8(asked.stderr).unwrap().contains("cdcdcd"), "{arguments:?}");
    };
    ask(&["cluster", "list"], &secret);
    ask(&["cluster", "show", "x"], &format!("x{secret}"));
    ask(&["token", "list"], "");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let address: SocketAddr = http.parse().unwrap();
    for authorization in [format!("Bearer {secret}"), format!("Basic {secret}"), secret.clone()] {
        assert_eq!(runtime.block_on(get(address, "/metrics", &authorization)).0, 401);
    }
    runtime.block_on(get(address, &format!("/metrics?token={secret}"), ""));
    runtime.block_on(get(address, &format!("/{secret}"), ""));

    let id = process.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert!(process.0.wait().unwrap().success());
    let logs = logs.join().unwrap();
    let first = logs.lines().filter(|line| line.contains("token of the first administrator")).count();
    assert_eq!(first, 1);
    assert!(!logs.contains("cdcdcd"), "a secret is in the logs");
    // What was said in its place, by the libraries underneath too.
    assert!(logs.contains("rmr_…"), "{logs}");
    let shown = |line: &&str| {
        line.contains("token of the first administrator") || line.contains("to sign in with it")
    };
    for line in logs.lines().filter(|line| !shown(line)) {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

/// The binary, as somebody far away would use it: encrypted, and with a token from a file.
#[test]
fn tokens_and_the_audit_log_from_the_command_line() {
    let authority = Authority::new("ours");
    let files = Files::new(&authority);
    let config = format!(
        "listen = \"127.0.0.1:0\"\nauth = true\npolicy = \"greedy-completion\"\ndata = {:?}\ntls-cert = {:?}\ntls-key = {:?}",
        files.path("data"),
        files.path("tls.crt"),
        files.path("tls.key"),
    );
    let mut process = Command::new(REMORA)
        .args(["serve", "--json", "--config"])
        .arg(files.write("remora.toml", &config))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map(Logged)
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let told: Value = serde_json::from_str(&line).unwrap();
    let port = told["listen"].as_str().unwrap().rsplit(':').next().unwrap();
    let server = format!("https://localhost:{port}");
    let mut first = String::new();
    BufReader::new(process.0.stderr.take().unwrap()).read_line(&mut first).unwrap();
    let first = first.trim().rsplit(' ').next().unwrap();
    let ca = files.write("ca.crt", &authority.pem);
    let ask = |arguments: &[&str], token: &str| {
        let mut command = Command::new(REMORA);
        command.args(arguments).args(["--server", &server, "--ca"]).arg(&ca);
        if !token.is_empty() {
            command.arg("--token-file").arg(files.write("token", &format!("{token}\n")));
        }
        command.output().unwrap()
    };
    let json = |arguments: &[&str], token: &str| -> Value {
        let output = ask(&[arguments, &["--json"]].concat(), token);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let made = ask(&["token", "create", "edge", "--role", "operator", "--days", "1"], first);
    let edge = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    assert!(edge.starts_with("rmr_"), "{edge}");
    json(&["cluster", "register", "urban-sensing"], &edge);
    let refused = ask(&["token", "list"], &edge);
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(error.starts_with("error: \"edge\" has the role operator, and this wants admin"), "{error}");
    let error = String::from_utf8(ask(&["cluster", "list"], "").stderr).unwrap();
    assert!(error.contains("who calls?"), "{error}");
    let listed = json(&["token", "list"], first);
    let id =
        listed["rows"].as_array().unwrap().iter().find(|row| row["name"] == "edge").unwrap()["id"].clone();
    assert!(ask(&["token", "revoke", id.as_str().unwrap()], first).status.success());
    let error = String::from_utf8(ask(&["cluster", "list"], &edge).stderr).unwrap();
    assert!(error.contains("the token was revoked"), "{error}");
    let audit = json(&["audit"], first);
    let did = |who: &str, action: &str, allowed: bool| {
        let rows = audit["rows"].as_array().unwrap();
        rows.iter().any(|row| row["actor"] == who && row["action"] == action && row["allowed"] == allowed)
    };
    assert!(did("edge", "remora.v1.ClusterService/Register", true), "{audit}");
    assert!(did("edge", "remora.v1.AdminService/ListTokens", false), "{audit}");
    assert!(did("unknown", "remora.v1.ClusterService/List", false), "{audit}");
    let table = String::from_utf8(ask(&["audit", "--limit", "2"], first).stdout).unwrap();
    assert!(table.contains("AdminService/Audit"), "{table}");
}
