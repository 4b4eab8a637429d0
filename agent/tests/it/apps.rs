//! Applications through a real server: what they are asked, what runs, what is kept.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use remora_agent::appcore::apps;
use remora_agent::appcore::executor::process::Processes;
use remora_agent::appcore::executor::simulated::Simulated;
use remora_agent::appcore::placing::{EXECUTOR, LOCAL, SIMULATED};
use remora_agent::service::Config;
use remora_agent::storage::{Options, Storage};
use remora_policies::by_name;
use remora_proto::v1 as wire;
use remora_proto::v1::app_service_client::AppServiceClient;
use remora_proto::v1::placement_service_client::PlacementServiceClient;
use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::server::{Server, small_cluster};
use crate::storage::everywhere;

/// Jobs as processes of this machine.
fn options(folder: &Path) -> apps::Options {
    let processes = Processes::supervised_by(env!("CARGO_BIN_EXE_remora"));
    apps::Options::new(folder.join("apps"), processes)
}

/// A server with applications in a folder of its own.
struct Apps {
    server: Server,
    client: AppServiceClient<Channel>,
    storage: Arc<Storage>,
}

impl Apps {
    async fn start(folder: &Path) -> Apps {
        Apps::over(Options::new(folder), options(folder), Vec::new()).await
    }

    async fn with(kept: Options) -> Apps {
        let options = options(&kept.folder);
        Apps::over(kept, options, Vec::new()).await
    }

    /// With these clusters from the start.
    async fn over(
        kept: Options,
        options: apps::Options,
        clusters: Vec<wire::RegisterClusterRequest>,
    ) -> Apps {
        let storage = Arc::new(Storage::open(kept).await.unwrap());
        let config = Config {
            clusters,
            storage: Some(storage.clone()),
            apps: Some(options),
            ..Config::new(by_name("greedy-completion", 0).unwrap())
        };
        let server = Server::start(config).await;
        let client = AppServiceClient::new(server.channel().await);
        Apps { server, client, storage }
    }

    /// Ends it and lets go of the data.
    async fn close(self) {
        let Apps { server, client, mut storage } = self;
        server.stop().await;
        drop(client);
        let storage = loop {
            match Arc::try_unwrap(storage) {
                Ok(storage) => break storage,
                Err(shared) => storage = shared,
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        storage.close().await;
    }

    async fn register(&mut self, manifest: &str) -> Result<wire::App, Status> {
        let first =
            wire::RegisterAppRequest { manifest: manifest.to_owned(), ..wire::RegisterAppRequest::default() };
        Ok(self.client.register(tokio_stream::iter([first])).await?.into_inner())
    }

    async fn command(&mut self, name: &str, command: wire::AppCommand) -> Result<wire::App, Status> {
        let request = wire::CommandAppRequest {
            name: name.to_owned(),
            command: command.into(),
            reason: "to see".to_owned(),
        };
        Ok(self.client.command(request).await?.into_inner())
    }

    /// Registers and enables.
    async fn take(&mut self, manifest: &str) -> wire::App {
        let name = self.register(manifest).await.unwrap().name;
        self.command(&name, wire::AppCommand::Enable).await.unwrap()
    }

    /// All that is told of a request.
    async fn ask(&mut self, app: &str, id: &str, input: &str) -> Result<Vec<wire::ExecuteProgress>, Status> {
        let (app, request_id, input) = (app.to_owned(), id.to_owned(), input.as_bytes().to_vec());
        let request = wire::ExecuteRequest { app, request_id, input };
        let mut steps = self.client.execute(request).await?.into_inner();
        let mut told = Vec::new();
        while let Some(step) = steps.next().await {
            told.push(step?);
        }
        Ok(told)
    }

    async fn answer(&mut self, app: &str, input: &str) -> String {
        let told = self.ask(app, "", input).await.unwrap();
        let last = told.last().unwrap();
        assert_eq!(last.run.as_ref().unwrap().status, "succeeded", "{last:?}");
        String::from_utf8(last.response.clone().unwrap()).unwrap()
    }

    async fn notify(&mut self, app: &str, key: &str, content: &str) -> bool {
        let file = wire::DataFile { name: "data".to_owned(), content: content.as_bytes().to_vec() };
        let request = wire::NotifyRequest {
            app: app.to_owned(),
            key: key.to_owned(),
            files: vec![file],
            ..wire::NotifyRequest::default()
        };
        self.client.notify(request).await.unwrap().into_inner().already_known
    }

    async fn get(&mut self, name: &str) -> wire::App {
        self.client.get(wire::GetAppRequest { name: name.to_owned() }).await.unwrap().into_inner()
    }

    async fn until(&mut self, name: &str, there: impl Fn(&wire::App) -> bool) -> wire::App {
        let began = Instant::now();
        loop {
            let app = self.get(name).await;
            if there(&app) {
                return app;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{app:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn runs(&mut self, app: &str) -> Vec<wire::Run> {
        let request = wire::ListRunsRequest { app: app.to_owned(), ..wire::ListRunsRequest::default() };
        self.client.list_runs(request).await.unwrap().into_inner().runs
    }

    async fn states(&mut self, app: &str) -> Vec<String> {
        let request = wire::ListTransitionsRequest { app: app.to_owned(), limit: None };
        let moves = self.client.list_transitions(request).await.unwrap().into_inner().transitions;
        moves.into_iter().rev().map(|told| told.to).collect()
    }

    async fn log(&mut self, run: &str) -> String {
        let mut log =
            self.client.run_log(wire::GetRunRequest { id: run.to_owned() }).await.unwrap().into_inner();
        let mut text = Vec::new();
        while let Some(piece) = log.next().await {
            text.extend(piece.unwrap().text);
        }
        String::from_utf8(text).unwrap()
    }
}

/// Answers in capital letters.
const SHOUT: &str = r#"
name = "shout"
[execute]
command = ["sh", "-c", "echo asked; tr a-z A-Z < $REMORA_INPUT/request > $REMORA_OUTPUT/response"]
awake = { idle_s = 0.3 }
"#;

/// Learns a number, the smaller the better.
const LEARNER: &str = r#"
name = "learner"
[execute]
command = ["sh", "-c", "cat $REMORA_MODEL > $REMORA_OUTPUT/response"]
awake = { needs_model = true }
[learn]
command = ["sh", "-c", "cat $REMORA_INPUT/data > $REMORA_OUTPUT/model"]
[evaluate]
command = ["sh", "-c", '''
pairs() { printf "$1"; for i in 1 2 3; do printf ",$1"; done; }
champion=""
if [ -n "$REMORA_CHAMPION" ]; then champion=",\"champion\":[$(pairs $(cat $REMORA_CHAMPION))]"; fi
echo "{\"metric\":\"number\",\"candidate\":[$(pairs $(cat $REMORA_MODEL))]$champion}" > $REMORA_OUTPUT/scores.json
''']
[gate]
samples = 4
[[trigger]]
name = "data"
on.data = {}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_wakes_an_application_which_then_sleeps_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut apps = Apps::start(folder.path()).await;
    let refused = apps.ask("shout", "", "hello").await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert_eq!(apps.register(SHOUT).await.unwrap().state, "registered");
    let refused = apps.ask("shout", "", "hello").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("enable it first"), "{}", refused.message());
    assert!(apps.register(SHOUT).await.unwrap().unchanged);
    let enabled = apps.command("shout", wire::AppCommand::Enable).await.unwrap();
    assert_eq!((enabled.state.as_str(), enabled.aliases["champion"]), ("asleep.idle", 1));

    let told = apps.ask("shout", "first", "hello").await.unwrap();
    let last = told.last().unwrap();
    assert_eq!(last.response.as_deref(), Some("HELLO".as_bytes()));
    let run = last.run.clone().unwrap();
    assert_eq!((run.status.as_str(), run.node.as_str(), run.attempt), ("succeeded", "localhost", 1));
    assert_eq!(apps.log(&run.id).await, "asked\n");
    // The same request is the same run.
    let again = apps.ask("shout", "first", "hello").await.unwrap();
    assert_eq!(again.last().unwrap().run.as_ref().unwrap().id, run.id);
    assert_eq!(apps.runs("shout").await.len(), 1);

    apps.until("shout", |app| app.state == "asleep.idle").await;
    let expected = ["asleep.idle", "waking", "awake.executing", "draining", "asleep.idle"];
    assert_eq!(apps.states("shout").await, expected);
    // The placement service decided, and heard how it went.
    let explain = wire::ExplainRequest { cluster_id: LOCAL.to_owned(), decision_id: run.decision_id };
    let mut placements = PlacementServiceClient::new(apps.server.channel().await);
    let receipt = placements.explain(explain).await.unwrap().into_inner();
    assert!(receipt.outcome.unwrap().response_s.unwrap() > 0.0);
    assert_eq!(receipt.request.unwrap().task.unwrap().kind, "shout/execute");
    apps.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_proved_better_answers() {
    everywhere(async |place| {
        let mut apps = Apps::with(place.options()).await;
        let enabled = apps.take(LEARNER).await;
        assert!(!enabled.aliases.contains_key("champion"));
        let refused = apps.ask("learner", "", "").await.unwrap_err();
        assert!(refused.message().contains("no version of learner is promoted"), "{}", refused.message());
        // The first version has nobody to be better than.
        assert!(!apps.notify("learner", "monday", "5").await);
        apps.until("learner", |app| app.aliases.get("champion") == Some(&2)).await;
        assert_eq!(apps.answer("learner", "").await, "5");
        // A worse one is learnt and not promoted; a notice that comes twice counts once.
        assert!(!apps.notify("learner", "tuesday", "7").await);
        assert!(apps.notify("learner", "tuesday", "7").await);
        apps.until("learner", |app| app.aliases.get("candidate") == Some(&3) && app.learning_run.is_empty())
            .await;
        assert_eq!(apps.answer("learner", "").await, "5");
        apps.notify("learner", "wednesday", "3").await;
        apps.until("learner", |app| app.aliases.get("champion") == Some(&4)).await;
        assert_eq!(apps.answer("learner", "").await, "3");
        let learnt = apps.runs("learner").await.into_iter().filter(|run| run.kind == "learn").count();
        assert_eq!(learnt, 3);
        let request = wire::ListVersionsRequest { app: "learner".to_owned(), limit: None, number: None };
        let versions = apps.client.list_versions(request).await.unwrap().into_inner().versions;
        let one = wire::ListVersionsRequest { app: "learner".to_owned(), limit: None, number: Some(3) };
        assert_eq!(
            apps.client.list_versions(one.clone()).await.unwrap().into_inner().versions,
            versions[1..2]
        );
        let unknown = wire::ListVersionsRequest { number: Some(9), ..one.clone() };
        assert!(apps.client.list_versions(unknown).await.unwrap().into_inner().versions.is_empty());
        let wrong = wire::ListVersionsRequest { number: Some(-1), ..one };
        let refused = apps.client.list_versions(wrong).await.unwrap_err();
        assert_eq!(refused.message(), "number: is -1, want a number from 0");
        let verdicts: Vec<_> = versions.iter().map(|v| v.verdict.as_ref().map(|v| v.passed)).collect();
        assert_eq!(verdicts, [Some(true), Some(false), Some(true), None], "newest first: {versions:?}");
        // Back to the one before; and who was champion in between is known.
        let (app, reason) = ("learner".to_owned(), "too good".to_owned());
        let back = apps.client.roll_back_version(wire::RollBackVersionRequest { app, reason }).await.unwrap();
        assert_eq!(back.into_inner().aliases["champion"], 2);
        assert_eq!(apps.answer("learner", "").await, "5");
        let asked = wire::VersionHistoryRequest {
            app: "learner".to_owned(),
            alias: "champion".to_owned(),
            ..wire::VersionHistoryRequest::default()
        };
        let changes = apps.client.version_history(asked.clone()).await.unwrap().into_inner().changes;
        let told: Vec<_> = changes.iter().map(|change| change.version.unwrap()).collect();
        assert_eq!(told, [2, 4, 2]);
        let then = wire::VersionHistoryRequest { at_ms: Some(changes[1].at_ms), ..asked };
        let then = apps.client.version_history(then).await.unwrap().into_inner().changes;
        assert_eq!(then[0].version, Some(4));
        apps.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_kept_whole_and_can_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let mut apps = Apps::start(folder.path()).await;
    apps.take(SHOUT).await;
    apps.answer("shout", "kept").await;
    let run = apps.runs("shout").await.remove(0);
    let repeat = wire::RepeatRunRequest { id: run.id.clone(), reason: String::new() };
    let again = apps.client.repeat_run(repeat).await.unwrap().into_inner();
    assert_eq!(again.repeats, run.id);
    let again = loop {
        let now =
            apps.client.get_run(wire::GetRunRequest { id: again.id.clone() }).await.unwrap().into_inner();
        if now.ended_ms.is_some() {
            break now;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((again.status.as_str(), &again.outputs), ("succeeded", &run.outputs));
    // A stranger can check the bundle.
    let mut pieces =
        apps.client.export_run(wire::GetRunRequest { id: run.id.clone() }).await.unwrap().into_inner();
    let mut bundle = Vec::new();
    while let Some(piece) = pieces.next().await {
        bundle.extend(piece.unwrap().chunk);
    }
    let out = tempfile::tempdir().unwrap();
    tar::Archive::new(bundle.as_slice()).unpack(out.path()).unwrap();
    let inside = out.path().join(&run.id);
    let checked = std::process::Command::new("sha256sum")
        .args(["--check", "--strict", "--quiet", "SHA256SUMS"])
        .current_dir(&inside)
        .status()
        .unwrap();
    assert!(checked.success());
    assert_eq!(std::fs::read_to_string(inside.join("output/response")).unwrap(), "KEPT");
    assert_eq!(std::fs::read_to_string(inside.join("input/request")).unwrap(), "kept");
    apps.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_files_in_a_watched_folder_are_learnt_from_once() {
    let (folder, watched) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let told = format!("on.data = {{ folder = {:?} }}", watched.path());
    let manifest = LEARNER.replace("on.data = {}", &told);
    std::fs::write(watched.path().join("data"), "9").unwrap();
    let mut apps = Apps::start(folder.path()).await;
    apps.take(&manifest).await;
    apps.until("learner", |app| app.aliases.get("champion") == Some(&2)).await;
    std::fs::write(watched.path().join(".hidden"), "1").unwrap();
    std::fs::write(watched.path().join("half.part"), "1").unwrap();
    // After a restart the file is still known.
    apps.close().await;
    let mut apps = Apps::start(folder.path()).await;
    std::fs::write(watched.path().join("data"), "4").unwrap();
    apps.until("learner", |app| app.aliases.get("champion") == Some(&3)).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let learnt = apps.runs("learner").await.into_iter().filter(|run| run.kind == "learn").count();
    assert_eq!(learnt, 2);
    apps.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let mut apps = Apps::start(folder.path()).await;
    let manifest = r#"
name = "fails"
failures = { quarantine_after = 2 }
[execute]
command = ["sh", "-c", "read how < $REMORA_INPUT/request; echo it was $how; exit $how"]
"#;
    apps.take(manifest).await;
    let how = |told: &[wire::ExecuteProgress]| {
        let run = told.last().unwrap().run.clone().unwrap();
        (run.status, run.exit, run.reason)
    };
    // Whoever asks wrongly harms nobody else.
    for _ in 0..3 {
        let told = apps.ask("fails", "", "65\n").await.unwrap();
        assert_eq!(how(&told), ("failed".to_owned(), Some(65), "ended with code 65: it was 65".to_owned()));
    }
    assert_eq!(apps.get("fails").await.failures, 0);
    for _ in 0..2 {
        let told = apps.ask("fails", "", "3\n").await.unwrap();
        assert_eq!(how(&told), ("failed".to_owned(), Some(3), "ended with code 3: it was 3".to_owned()));
    }
    apps.until("fails", |app| app.state == "quarantined").await;
    let refused = apps.ask("fails", "", "0\n").await.unwrap_err();
    assert!(refused.message().contains("release it first"), "{}", refused.message());
    apps.command("fails", wire::AppCommand::Release).await.unwrap();
    assert_eq!(how(&apps.ask("fails", "", "0\n").await.unwrap()).0, "succeeded");
    apps.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_that_are_wrong_are_refused_with_the_field() {
    let folder = tempfile::tempdir().unwrap();
    let mut apps = Apps::start(folder.path()).await;
    for (manifest, expected) in [
        ("name = \"a\"", "execute: is missing"),
        ("name = \"A\"\n[execute]\ncommand = [\"x\"]", "name: is \"A\", want"),
        ("name = \"a\"\n[execute]\ncomand = [\"x\"]", "unknown field `comand`"),
    ] {
        let refused = apps.register(manifest).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(expected), "{}", refused.message());
    }
    apps.server.stop().await;
}

#[tokio::test]
async fn without_data_there_are_no_applications() {
    let server = Server::with_small_cluster().await;
    let mut client = AppServiceClient::new(server.channel().await);
    let refused = client.list(wire::ListAppsRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("--data"), "{}", refused.message());
    server.stop().await;
}

/// The small cluster, which exists here alone; it knows how long the learner takes on its devices.
fn simulated_cluster() -> wire::RegisterClusterRequest {
    let mut request = small_cluster();
    let cluster = request.cluster.as_mut().unwrap();
    let label = (EXECUTOR.to_owned(), SIMULATED.to_owned());
    cluster.nodes.iter_mut().for_each(|node| node.labels.extend([label.clone()]));
    let kind = |name: &str, seconds: [f64; 3]| {
        let device = |(device, mean_s): (&str, f64)| wire::ExecutionTime {
            device_kind: device.to_owned(),
            mean_s: Some(mean_s),
        };
        let execution = ["nuc", "rpi4", "vm"].into_iter().zip(seconds).map(device).collect();
        // Two of them never fit on one node, the cloud's apart.
        wire::TaskKind { name: name.to_owned(), execution, ..cluster.task_kinds[0].clone() }
    };
    let kinds = [kind("learner/learn", [12.0, 40.0, 30.0]), kind("learner/execute", [2.0, 6.0, 4.0])];
    cluster.task_kinds.extend(kinds);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn on_simulated_nodes_time_alone_passes() {
    const SPEED: f64 = 10.0;
    let folder = tempfile::tempdir().unwrap();
    let options = apps::Options {
        cluster: "small".to_owned(),
        simulated: Simulated { speed: SPEED },
        ..options(folder.path())
    };
    let mut apps = Apps::over(Options::new(folder.path()), options, vec![simulated_cluster()]).await;
    apps.take(LEARNER).await;
    apps.notify("learner", "monday", "5").await;
    apps.until("learner", |app| app.aliases.get("champion") == Some(&2)).await;
    // A request comes while it learns on: both run, on different nodes.
    apps.notify("learner", "tuesday", "4").await;
    let learning = apps.until("learner", |app| !app.learning_run.is_empty()).await.learning_run;
    let answer: serde_json::Value = serde_json::from_str(&apps.answer("learner", "").await).unwrap();
    assert_eq!(answer["simulated"], true);
    assert_eq!(apps.get("learner").await.learning_run, learning, "it learns meanwhile");
    let began = Instant::now();
    let runs = loop {
        let runs = apps.runs("learner").await;
        if runs.len() == 5 && runs.iter().all(|run| run.ended_ms.is_some()) {
            break runs;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{runs:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let of = |kind: &str| runs.iter().find(|run| run.kind == kind).unwrap();
    assert_eq!((of("learn").id.as_str(), of("learn").node.as_str()), (learning.as_str(), "desk"));
    assert_ne!(of("execute").node, "desk");
    for run in &runs {
        assert_eq!(run.status, "succeeded", "{run:?}");
        let (cluster_id, decision_id) = ("small".to_owned(), run.decision_id.clone());
        let explain = wire::ExplainRequest { cluster_id, decision_id };
        let receipt = apps.server.placements().await.explain(explain).await.unwrap().into_inner();
        let predicted = receipt.response.unwrap().predicted_completion_s;
        assert_eq!(receipt.outcome.unwrap().response_s, Some(predicted), "{run:?}");
        let took = (run.ended_ms.unwrap() - run.started_ms.unwrap()) as f64 / 1000.0 * SPEED;
        assert!((predicted * 0.98..predicted + 15.0).contains(&took), "{took} s for {predicted} s: {run:?}");
    }
    apps.server.stop().await;
}
