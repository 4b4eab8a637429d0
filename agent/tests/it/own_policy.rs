//! Remora's own policy as an application: it learns from what the service recorded, and decides where it proved better.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use remora_agent::appcore::apps;
use remora_agent::appcore::core::{Alias, By, Input};
use remora_agent::appcore::executor::process::Processes;
use remora_agent::appcore::own::{self, NAME};
use remora_agent::appcore::owner;
use remora_agent::commands::cluster::of_scenario;
use remora_agent::service::Clock;
use remora_agent::storage::{AuditFilter, Options, Paging, Storage};
use remora_env::{Scenario, Time};
use remora_policies::Checkpoint;
use remora_proto::v1 as wire;
use remora_proto::v1::app_service_client::AppServiceClient;
use remora_proto::v1::policy_service_client::PolicyServiceClient;
use tonic::transport::Channel;

use crate::recorded::{BEGIN_MS, BackEnd, Recording, TINY};
use crate::server::small_cluster;

/// A service with the application.
struct Own {
    recording: Recording,
    apps: AppServiceClient<Channel>,
    policies: PolicyServiceClient<Channel>,
}

fn begin() -> Arc<AtomicU64> {
    Arc::new(AtomicU64::new(BEGIN_MS * 1_000_000))
}

impl Own {
    async fn start(folder: &Path, cluster: wire::RegisterClusterRequest, time: Arc<AtomicU64>) -> Own {
        let options =
            apps::Options::new(folder.join("apps"), Processes::supervised_by(env!("CARGO_BIN_EXE_remora")));
        let recording = Recording::with(folder, cluster, time, Some(options)).await;
        let apps = AppServiceClient::new(recording.server.channel().await);
        let policies = PolicyServiceClient::new(recording.server.channel().await);
        Own { recording, apps, policies }
    }

    /// Time goes on.
    fn later(&self) {
        self.recording.time.fetch_add(1_000_000_000, Ordering::SeqCst);
    }

    async fn register(&mut self, change: impl FnOnce(&mut remora_agent::appcore::manifest::Manifest)) {
        let mut manifest = own::manifest(None, None, Some(1)).unwrap();
        change(&mut manifest);
        let manifest = toml::to_string(&manifest).unwrap();
        let first = wire::RegisterAppRequest { manifest, ..wire::RegisterAppRequest::default() };
        self.apps.register(tokio_stream::iter([first])).await.unwrap();
    }

    async fn enable(&mut self) {
        let command = wire::AppCommand::Enable.into();
        let request = wire::CommandAppRequest { name: NAME.to_owned(), command, reason: String::new() };
        self.apps.command(request).await.unwrap();
    }

    async fn fire(&mut self) {
        let request = wire::CommandTriggerRequest {
            app: NAME.to_owned(),
            trigger: "by-hand".to_owned(),
            command: wire::TriggerCommand::Fire.into(),
            ..wire::CommandTriggerRequest::default()
        };
        self.apps.command_trigger(request).await.unwrap();
    }

    async fn app(&mut self) -> wire::App {
        self.apps.get(wire::GetAppRequest { name: NAME.to_owned() }).await.unwrap().into_inner()
    }

    async fn runs(&mut self) -> Vec<wire::Run> {
        let request = wire::ListRunsRequest { app: NAME.to_owned(), ..wire::ListRunsRequest::default() };
        self.apps.list_runs(request).await.unwrap().into_inner().runs
    }

    async fn versions(&mut self) -> Vec<wire::Version> {
        let request = wire::ListVersionsRequest { app: NAME.to_owned(), limit: None, number: None };
        self.apps.list_versions(request).await.unwrap().into_inner().versions
    }

    /// Id of the policy that decides.
    async fn served(&mut self) -> String {
        let request = wire::GetPolicyRequest { policy: "champion".to_owned() };
        self.policies.get(request).await.unwrap().into_inner().id
    }

    async fn give(&mut self, policy: &str) {
        self.later();
        let (alias, policy, reason) = ("champion".to_owned(), policy.to_owned(), "by hand".to_owned());
        let request = wire::SetAliasRequest { alias, policy, reason, expected: None };
        self.policies.set_alias(request).await.unwrap();
    }

    async fn roll_back(&mut self) {
        self.later();
        let request = wire::RollBackVersionRequest { app: NAME.to_owned(), reason: "to see".to_owned() };
        self.apps.roll_back_version(request).await.unwrap();
    }

    async fn until_app(&mut self, there: impl Fn(&wire::App) -> bool) -> wire::App {
        let began = Instant::now();
        loop {
            let app = self.app().await;
            if there(&app) {
                return app;
            }
            if began.elapsed() > Duration::from_secs(40) {
                panic!("{app:?} {:?}", self.runs().await);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_served(&mut self, id: &str) {
        let began = Instant::now();
        while self.served().await != id {
            assert!(began.elapsed() < Duration::from_secs(10), "{id} is not served");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn artifact(&mut self, run: &str, name: &str) -> Vec<u8> {
        let request = wire::GetArtifactRequest { run: run.to_owned(), name: name.to_owned() };
        let mut pieces = self.apps.get_artifact(request).await.unwrap().into_inner();
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.message().await.unwrap() {
            bytes.extend(piece.chunk);
        }
        bytes
    }
}

/// The shipped policy, which does the opposite of what it is advised.
fn bad() -> Checkpoint {
    let mut bad = Checkpoint::pretrained().unwrap();
    for weight in &mut bad.weights {
        if weight.name.starts_with("advice") || weight.name.starts_with("score") {
            weight.values.iter_mut().for_each(|value| *value = -*value);
        }
    }
    bad
}

async fn upload(policies: &mut PolicyServiceClient<Channel>, checkpoint: &Checkpoint) -> String {
    let request = wire::UploadPolicyRequest {
        evaluation: None,
        name: "bad".to_owned(),
        note: String::new(),
        chunk: checkpoint.to_bytes(),
    };
    policies.upload(tokio_stream::iter([request])).await.unwrap().into_inner().id
}

fn tiny(manifest: &mut remora_agent::appcore::manifest::Manifest) {
    let config: toml::Value = toml::from_str(TINY).unwrap();
    let parameters = &mut manifest.parameters;
    parameters.insert("config".to_owned(), serde_json::to_value(config).unwrap());
    parameters.insert("seeds".to_owned(), 8.into());
    parameters.insert("members".to_owned(), 2.into());
    for trigger in &mut manifest.triggers {
        if let remora_agent::appcore::manifest::On::Data { count, .. } = &mut trigger.on {
            *count = 800;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_learns_from_outcomes_and_decides_where_it_proved_better() {
    let folder = tempfile::tempdir().unwrap();
    let mut scenario = Scenario::load("urban-sensing").unwrap();
    scenario.file.workload.tasks = Some(820);
    let cluster = || of_scenario(&scenario, Some("city".to_owned()), 4);
    let time = begin();
    let mut own = Own::start(folder.path(), cluster(), time.clone()).await;
    let world = Arc::new(scenario.world(4));
    let episode = BackEnd::of(&own.recording, "city").await.play(&world, &scenario).await;
    own.recording.is(Time(episode.cluster().now.0 + 1_000_000_000));

    // What is served when it is taken into use is its champion.
    let bad = bad();
    let bad_id = upload(&mut own.policies, &bad).await;
    own.give(&bad_id).await;
    own.later();
    own.register(tiny).await;
    assert_eq!(own.app().await.state, "registered");
    // Requests go on all the while.
    let mut placements = own.recording.server.placements().await;
    let task = remora_agent::service::convert::task(&world.tasks[0].task, &world.catalogue);
    let (enough, asked) = tokio::sync::oneshot::channel();
    let asking = tokio::spawn(async move {
        let mut deciders = BTreeSet::new();
        let mut enough: tokio::sync::oneshot::Receiver<()> = asked;
        while enough.try_recv().is_err() {
            let request = wire::PlaceRequest {
                cluster_id: "city".to_owned(),
                task: Some(task.clone()),
                dry_run: true,
                ..wire::PlaceRequest::default()
            };
            deciders.insert(placements.place(request).await.unwrap().into_inner().policy);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        deciders
    });
    // The outcomes that were recorded make it learn.
    own.enable().await;
    own.until_app(|app| app.aliases.get("champion") == Some(&2)).await;
    own.later();
    own.until_app(|app| app.aliases.get("champion") == Some(&3)).await;
    let versions = own.versions().await;
    let verdict = versions[0].verdict.clone().unwrap();
    assert!(verdict.passed && verdict.candidate < verdict.champion, "{verdict:?}");
    let runs = own.runs().await;
    let learn = runs.iter().find(|run| run.kind == "learn").unwrap().clone();
    let inputs: Vec<_> = learn.inputs.iter().map(|input| input.name.as_str()).collect();
    assert_eq!(inputs, ["recording.toml", "recording.trace.jsonl"]);
    let judged = runs.iter().find(|run| run.kind == "evaluate").unwrap();
    assert_eq!(judged.inputs, learn.inputs, "it is judged by the same recording");
    let learnt = Checkpoint::from_bytes(&own.artifact(&learn.id, "model").await).unwrap().id();
    own.until_served(&learnt).await;
    enough.send(()).unwrap();
    let deciders = asking.await.unwrap();
    assert!(deciders.contains(&bad_id) && deciders.len() <= 2, "{deciders:?}");
    // Who did that, and why, is on record.
    let history = own.policies.history(wire::AliasHistoryRequest::default()).await.unwrap().into_inner();
    let last = &history.changes[0];
    assert_eq!(
        (last.policy.as_str(), last.before.as_str(), last.actor.as_str()),
        (&*learnt, &*bad_id, "appcore")
    );
    assert!(last.reason.starts_with("version 3 of remora-policy: better: "), "{}", last.reason);
    let paging = Paging { newest_first: true, ..Paging::default() };
    let audit = own.recording.storage.audit_log(AuditFilter::default(), &paging).await.unwrap().items;
    assert!(audit.iter().any(|entry| entry.action == "alias.set" && entry.who.actor == "appcore"));
    // The pairs say what was compared.
    let pairs: serde_json::Value =
        serde_json::from_slice(&own.artifact(&judged.id, "pairs.json").await).unwrap();
    let counts = ["recorded", "known"].map(|what| pairs[what].as_array().unwrap().len());
    assert_eq!((counts, verdict.samples), ([24, 6], 30));

    own.roll_back().await;
    own.until_served(&bad_id).await;
    // What the version would have decided can be asked though it does not decide.
    let preview = wire::PreviewRequest {
        cluster_id: "city".to_owned(),
        last: Some(300),
        version: Some(3),
        ..wire::PreviewRequest::default()
    };
    let told = own.policies.preview(preview).await.unwrap().into_inner();
    assert_eq!((told.policy, told.decisions, told.exact, told.left_out), (learnt.clone(), 300, 300, 0));
    own.recording.stop().await;

    // A promotion, and nobody who acts on it: as if the service had been killed in between.
    let storage = Arc::new(Storage::open(Options::new(folder.path())).await.unwrap());
    time.fetch_add(1_000_000_000, Ordering::SeqCst);
    let now = time.clone();
    let clock = Clock::new(move || Time(now.load(Ordering::SeqCst)));
    let (handle, effects, owning) = owner::start(storage.clone(), clock).await.unwrap();
    let by = By::new("tester", "once more");
    let promote = Input::SetAlias { app: NAME.to_owned(), alias: Alias::Champion, version: Some(3), by };
    handle.tell(promote).await.unwrap();
    handle.stop().await;
    owning.await.unwrap();
    drop((handle, effects));
    Arc::into_inner(storage).unwrap().close().await;
    let mut own = Own::start(folder.path(), cluster(), time.clone()).await;
    own.until_served(&learnt).await;

    // An operator wins, until something better comes.
    own.give("greedy-completion").await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(own.served().await, "greedy-completion");
    own.recording.stop().await;
    let mut own = Own::start(folder.path(), cluster(), time).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!((own.served().await.as_str(), own.app().await.aliases["champion"]), ("greedy-completion", 3));
    // A checkpoint that is served by hand becomes a version.
    own.give("pretrained").await;
    let shipped = own.served().await;
    own.until_app(|app| app.aliases.get("champion") == Some(&4)).await;

    // One step does not make the shipped policy better, so it stays.
    own.later();
    own.fire().await;
    own.until_app(|app| app.aliases.get("candidate") == Some(&5) && app.learning_run.is_empty()).await;
    let versions = own.versions().await;
    assert!(!versions[0].verdict.as_ref().unwrap().passed, "{versions:?}");
    assert_eq!((own.served().await, own.app().await.aliases["champion"]), (shipped, 4));
    own.recording.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_recording_there_is_nothing_to_learn_from() {
    let folder = tempfile::tempdir().unwrap();
    let mut own = Own::start(folder.path(), small_cluster(), begin()).await;
    own.register(tiny).await;
    own.enable().await;
    own.fire().await;
    let began = Instant::now();
    let run = loop {
        let run = own.runs().await.remove(0);
        if run.ended_ms.is_some() {
            break run;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{run:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(run.status, "failed");
    assert_eq!(run.reason, "no decision about cluster \"small\" is recorded in that time");
    assert_eq!(own.app().await.state, "asleep.idle");
    own.recording.stop().await;
}

#[test]
fn what_is_asked_of_it_is_checked() {
    let manifest = own::manifest(Some("city".to_owned()), Some(600.0), None).unwrap();
    assert_eq!(manifest.parameters["cluster"], "city");
    assert!(manifest.learn.unwrap().limits.timeout_s > 600.0 * 60.0);
    let wrong = own::manifest(None, Some(-1.0), None).unwrap_err();
    assert_eq!(wrong.to_string(), "parameters.minutes: is -1, want a number above 0");
    let wrong = own::manifest(None, None, Some(0)).unwrap_err();
    assert_eq!(wrong.to_string(), "parameters.steps: is 0, want 1 to 1000000");
}
