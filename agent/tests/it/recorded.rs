//! From what the service recorded to a scenario, its trace, and a policy that learns from it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prost::Message;
use remora_agent::appcore::apps;
use remora_agent::commands::cluster::of_scenario;
use remora_agent::service::{Clock, Config, convert};
use remora_agent::storage::{self, Options, Storage};
use remora_env::outcome::{End, Outcome};
use remora_env::trace::{Arrival, Ended, Record, Trace};
use remora_env::{Episode, Next, Scenario, Time, World};
use remora_policies::{by_name, rollout};
use remora_proto::v1 as wire;
use remora_proto::v1::cluster_service_client::ClusterServiceClient;
use remora_proto::v1::placement_service_client::PlacementServiceClient;
use serde_json::Value;
use tonic::Code;
use tonic::transport::Channel;
use wire::change::Change;

use crate::server::{Server, outcome, request, small_cluster, small_task};

/// When these tests take place, milliseconds since 1970: 2026-03-01T10:00:00Z.
pub const BEGIN_MS: u64 = 1_772_359_200_000;

fn remora(folder: &Path, args: &str) -> Output {
    let args: Vec<&str> = args.split_whitespace().collect();
    Command::new(env!("CARGO_BIN_EXE_remora")).args(args).current_dir(folder).output().unwrap()
}

/// What a command prints that must succeed.
fn succeeds(folder: &Path, args: &str) -> String {
    let output = remora(folder, args);
    assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn row(folder: &Path, args: &str) -> Value {
    let printed: Value = serde_json::from_str(&succeeds(folder, args)).unwrap();
    printed["rows"][0].clone()
}

/// What a command says that must fail.
fn fails(folder: &Path, args: &str) -> String {
    let output = remora(folder, args);
    assert!(!output.status.success(), "{args} succeeded");
    String::from_utf8(output.stderr).unwrap()
}

/// A service that records, with a clock of its own.
pub struct Recording {
    pub server: Server,
    pub storage: Arc<Storage>,
    pub time: Arc<AtomicU64>,
}

impl Recording {
    async fn start(folder: &Path, cluster: wire::RegisterClusterRequest) -> Recording {
        let time = Arc::new(AtomicU64::new(BEGIN_MS * 1_000_000));
        Recording::with(folder, cluster, time, None).await
    }

    /// A service with applications perhaps, at this time.
    pub async fn with(
        folder: &Path,
        cluster: wire::RegisterClusterRequest,
        time: Arc<AtomicU64>,
        apps: Option<apps::Options>,
    ) -> Recording {
        let storage = Arc::new(Storage::open(Options::new(folder)).await.unwrap());
        let clock = Arc::clone(&time);
        let config = Config {
            storage: Some(Arc::clone(&storage)),
            apps,
            clusters: vec![cluster],
            clock: Clock::new(move || Time(clock.load(Ordering::SeqCst))),
            ..Config::new(by_name("greedy-completion", 0).unwrap())
        };
        Recording { server: Server::start(config).await, storage, time }
    }

    /// It is so long after the beginning.
    pub fn is(&self, at: Time) {
        self.time.store(BEGIN_MS * 1_000_000 + at.0, Ordering::SeqCst);
    }

    /// What was handed in is on disk, and nobody has the folder any more.
    pub async fn stop(self) {
        self.server.stop().await;
        let mut storage = self.storage;
        let storage = loop {
            match Arc::try_unwrap(storage) {
                Ok(storage) => break storage,
                Err(shared) => storage = shared,
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        storage.close().await;
    }
}

fn name(world: &World, task: u64) -> String {
    format!("task-{task}-{}", world.catalogue.kind(&world.tasks[task as usize].task).name)
}

/// What a back end measures of a task that ended.
fn report(cluster: &str, decision_id: &str, ended: &Outcome) -> wire::ReportOutcomeRequest {
    let phases = wire::Phases {
        wait_s: Some(ended.admitted.since_s(ended.arrived)),
        fetch_s: Some(ended.fetched.since_s(ended.admitted)),
        start_s: Some(ended.started.since_s(ended.fetched)),
        execution_s: Some(ended.executed.since_s(ended.started)),
        store_s: Some(ended.completed.since_s(ended.executed)),
        ..wire::Phases::default()
    };
    wire::ReportOutcomeRequest {
        cluster_id: cluster.to_owned(),
        decision_id: decision_id.to_owned(),
        response_s: Some(ended.response_s()),
        transfer_bytes: Some((ended.image_bytes + ended.input_bytes + ended.output_bytes) as i64),
        phases: Some(phases),
        ..wire::ReportOutcomeRequest::default()
    }
}

/// A simulated back end: every task is placed by the service, and its outcome reported when it ends.
pub struct BackEnd<'a> {
    recording: &'a Recording,
    placements: PlacementServiceClient<Channel>,
    cluster: &'a str,
    decisions: BTreeMap<u64, String>,
    reported: usize,
}

impl<'a> BackEnd<'a> {
    pub async fn of(recording: &'a Recording, cluster: &'a str) -> BackEnd<'a> {
        let placements = recording.server.placements().await;
        BackEnd { recording, placements, cluster, decisions: BTreeMap::new(), reported: 0 }
    }

    async fn report(&mut self, episode: &Episode) {
        for ended in &episode.outcomes()[self.reported..] {
            self.reported += 1;
            let Some(decision) = self.decisions.get(&ended.task) else { continue };
            self.recording.is(ended.completed);
            let report = report(self.cluster, decision, ended);
            self.placements.report_outcome(report).await.unwrap();
        }
    }

    pub async fn play(mut self, world: &Arc<World>, scenario: &Scenario) -> Episode {
        let mut episode = Episode::new(Arc::clone(world), 0.25, rollout::reference(scenario));
        loop {
            let next = episode.next();
            let Next::Decide(observation) = next else { break };
            let topology = &world.topology;
            let among = observation.nodes().map(|node| topology.nodes[node as usize].name.clone()).collect();
            let (id, task) = (observation.id, convert::task(observation.task, &world.catalogue));
            drop(observation);
            self.report(&episode).await;
            self.recording.is(episode.cluster().now);
            let request = wire::PlaceRequest {
                cluster_id: self.cluster.to_owned(),
                task: Some(task),
                alpha: Some(0.25),
                request_id: name(world, id),
                among,
                ..wire::PlaceRequest::default()
            };
            let placed = self.placements.place(request).await.unwrap().into_inner();
            self.decisions.insert(id, placed.decision_id);
            episode.step(topology.node_named(&placed.node).unwrap());
        }
        self.report(&episode).await;
        episode
    }
}

pub const TINY: &str = "
worlds = 2
rollouts = 2
tasks = 20
epochs = 1
minibatch = 32
validate_every = 1
network = { hidden = 16, shortlist = 16 }
[evolution]
until = 0.0
population = 4
worlds = 2
[labels]
until = 0.0
worlds = 2
per_world = 10
updates = 2
minibatch = 16
depth = { candidates = 3, futures = 3, tasks = 5 }
";

#[tokio::test(flavor = "multi_thread")]
async fn an_episode_through_the_service_comes_back_as_a_recording_that_is_learnt_from() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let mut scenario = Scenario::load("urban-sensing").unwrap();
    scenario.file.workload.tasks = Some(820);
    let world = Arc::new(scenario.world(4));
    let recording =
        Recording::start(&at.join("data"), of_scenario(&scenario, Some("city".to_owned()), 4)).await;
    let episode = BackEnd::of(&recording, "city").await.play(&world, &scenario).await;

    // Of the running service, while its folder is refused; then out of the folder.
    let server = recording.server.address;
    let export = format!("trace export --cluster city --server http://{server} --json --out asked.toml");
    let kept = "trace export --cluster city --data data --json --out kept.toml";
    let [asked, refused] = tokio::task::block_in_place(|| [row(at, &export), fails(at, kept).into()]);
    let refused = refused.as_str().unwrap();
    assert!(refused.contains("is used by another process") && refused.contains("--server"), "{refused}");
    recording.stop().await;
    let told = row(at, kept);
    assert_eq!((&asked["arrivals"], &asked["notes"]), (&told["arrivals"], &told["notes"]));
    let read = |name: &str| std::fs::read_to_string(at.join(name)).unwrap();
    assert_eq!(read("asked.trace.jsonl"), read("kept.trace.jsonl"));
    assert_eq!(read("asked.toml").replace("asked.", "kept."), read("kept.toml"));

    compare(&Trace::read(&at.join("kept.trace.jsonl")).unwrap(), &world, &episode);
    let checked = succeeds(at, "scenario check kept.toml");
    assert!(checked.contains("is accepted: 91 nodes"), "{checked}");
    assert!(succeeds(at, "trace check kept.trace.jsonl").contains("820 arrivals"));

    // It was simulated, but what is warm and how long which task takes is not recorded: it is about as fast.
    let calibration =
        row(at, "trace calibrate kept.toml --json --out calibrated.toml")["calibration"].clone();
    let [before, after] = [0, 1].map(|index| calibration["error"][index].as_f64().unwrap());
    assert!(after <= before && after < 0.35, "{calibration}");
    assert!(calibration["tasks"].as_u64().unwrap() > 700, "{calibration}");
    let evaluated =
        row(at, "evaluate --scenario calibrated.toml --policy greedy-completion --seeds 1 --json");
    assert_eq!((&evaluated["tasks"], &evaluated["unplaceable"]), (&820.into(), &0.into()));

    std::fs::write(at.join("tiny.toml"), TINY).unwrap();
    let learn = "learn kept.toml --config tiny.toml --steps 1 --members 1 --json --out learnt";
    let learnt = row(at, learn);
    assert_eq!(learnt["calibration"], calibration);
    assert!(learnt["verdict"]["recorded"]["ratio"].as_f64().unwrap() > 0.0, "{learnt}");
}

/// The trace has what was played: every arrival and every outcome, to the millisecond.
fn compare(trace: &Trace, world: &World, episode: &Episode) {
    let played: BTreeMap<String, &Outcome> =
        episode.outcomes().iter().map(|outcome| (name(world, outcome.task), outcome)).collect();
    let first = episode.outcomes().iter().map(|outcome| outcome.arrived).min().unwrap();
    let arrivals: BTreeMap<&str, &Arrival> = trace.arrivals().map(|it| (it.name.as_str(), it)).collect();
    assert_eq!(arrivals.len(), played.len());
    for (name, outcome) in &played {
        let arrival = arrivals[name.as_str()];
        let task = &world.tasks[outcome.task as usize].task;
        assert_eq!(arrival.kind.as_deref(), Some(world.catalogue.kind(task).name.as_str()));
        let inputs = task.inputs.iter().map(|&id| &world.catalogue.datasets[id as usize].name);
        assert!(arrival.inputs.iter().eq(inputs), "{arrival:?}");
        assert!((arrival.at_s - outcome.arrived.since_s(first)).abs() <= 0.001, "{arrival:?} {outcome:?}");
    }
    let ended: Vec<&Ended> = trace
        .records
        .iter()
        .filter_map(|record| match record {
            Record::Outcome(ended) => Some(ended),
            _ => None,
        })
        .collect();
    assert_eq!(ended.len(), played.len());
    for ended in ended {
        let outcome = played[&ended.task];
        let close = |told: f64, was: f64| assert!((told - was).abs() < 1e-6, "{ended:?} {outcome:?}");
        close(ended.at_s - ended.arrived_s, outcome.response_s());
        close(ended.fetched_s - ended.admitted_s, outcome.fetched.since_s(outcome.admitted));
        close(ended.executed_s - ended.started_s, outcome.executed.since_s(outcome.started));
        assert_eq!(ended.end, End::Completed);
        let node = outcome.node.map(|node| world.topology.nodes[node as usize].name.as_str());
        assert_eq!(ended.node.as_deref(), node);
        let bytes = (ended.image_bytes + ended.input_bytes + ended.output_bytes) as f64;
        let was = (outcome.image_bytes + outcome.input_bytes + outcome.output_bytes) as f64;
        assert!((bytes - was).abs() <= 2.0, "{ended:?} {outcome:?}");
    }
    let decisions = trace.records.iter().filter_map(|record| match record {
        Record::Decision(decision) => Some(decision),
        _ => None,
    });
    let mut count = 0;
    for decision in decisions {
        count += 1;
        assert_eq!((decision.policy.as_str(), decision.alpha), ("greedy-completion", 0.25));
        assert!(decision.score.is_some() && decision.fallback.is_empty(), "{decision:?}");
    }
    assert_eq!(count, played.len());
}

const NOTES: [&str; 7] = [
    "decisions left out with their outcomes, as their node has left the cluster: 1",
    "decisions of which no outcome was reported: 1",
    "outcomes without a measured response, which counts until the report came: 1",
    "completed tasks without a measured execution time, by which calibration goes: 1",
    "changes of facts (availability, disks, links), left out: in a replay they follow from the tasks: 1",
    "changes of nodes, images, data and kinds, of which the last state is kept: 2",
    "nodes that get labels of their built-in device kind: 3",
];

fn change(change: Change) -> wire::UpdateClusterRequest {
    let changes = vec![wire::Change { change: Some(change) }];
    wire::UpdateClusterRequest { cluster_id: "small".to_owned(), changes, ..Default::default() }
}

#[tokio::test]
async fn what_cannot_be_exported_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let recording = Recording::start(&at.join("data"), small_cluster()).await;
    let (mut placements, mut clusters) =
        (recording.server.placements().await, recording.server.clusters().await);
    let mut place = async |s: u64, among: &str| {
        recording.is(Time(s * 1_000_000_000));
        let among = vec![among.to_owned()];
        let request = wire::PlaceRequest { among, ..request(small_task()) };
        placements.place(request).await.unwrap().into_inner().decision_id
    };
    let ids = [
        place(0, "desk").await,
        place(60, "cloud").await,
        place(120, "desk").await,
        place(180, "desk").await,
    ];
    recording.is(Time(190_000_000_000));
    let mut report = async |it: wire::ReportOutcomeRequest| placements.report_outcome(it).await.unwrap();
    report(wire::ReportOutcomeRequest { response_s: Some(7.5), ..outcome(&ids[0]) }).await;
    report(wire::ReportOutcomeRequest { response_s: Some(9.0), ..outcome(&ids[1]) }).await;
    report(wire::ReportOutcomeRequest { failed: true, reason: "lost".to_owned(), ..outcome(&ids[2]) }).await;
    // A node leaves, another enters, one is away for a while; and a kind of task changes.
    let entered = wire::NodeEntered {
        node: Some(wire::Node {
            name: "lab".to_owned(),
            ..small_cluster().cluster.unwrap().nodes[0].clone()
        }),
        links: vec![wire::Link {
            outer: "lab".to_owned(),
            ..small_cluster().cluster.unwrap().links[0].clone()
        }],
        layers: Vec::new(),
    };
    let away = wire::NodeAvailable { node: "board".to_owned(), available: false };
    for it in
        [Change::NodeLeft("cloud".to_owned()), Change::NodeEntered(entered), Change::NodeAvailable(away)]
    {
        clusters.update(change(it)).await.unwrap();
    }
    let server = recording.server.address;
    let never =
        wire::ExportTraceRequest { cluster_id: "small".to_owned(), from_ms: Some(-1), ..Default::default() };
    let refused = clusters.export_trace(never).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::InvalidArgument, "from_ms: is -1, want a number from 0")
    );
    let unknown = wire::ExportTraceRequest { cluster_id: "smal".to_owned(), ..Default::default() };
    let refused = clusters.export_trace(unknown).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert!(refused.message().contains("did you mean \"small\"?"), "{refused}");
    recording.stop().await;

    let told = row(at, "trace export --cluster small --data data --json --out it.toml");
    let counts = ["arrivals", "decisions", "outcomes"].map(|what| told[what].as_u64().unwrap());
    assert_eq!(counts, [4, 3, 2], "{told}");
    let notes: Vec<_> = told["notes"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    assert_eq!(notes[1..], NOTES, "{notes:#?}");
    let trace = Trace::read(&at.join("it.trace.jsonl")).unwrap();
    let ended: Vec<_> = trace
        .records
        .iter()
        .filter_map(|it| match it {
            Record::Outcome(it) => Some((it.end, it.at_s, it.arrived_s, it.node.as_deref().unwrap())),
            _ => None,
        })
        .collect();
    // The one that failed has no measured response: it counts until its report.
    assert_eq!(ended, [(End::Completed, 7.5, 0.0, "desk"), (End::GivenUp, 190.0, 120.0, "desk")]);
    let scenario = Scenario::load(&at.join("it.toml").to_string_lossy()).unwrap();
    let nodes: Vec<_> = scenario.world(0).topology.nodes.iter().map(|node| node.name.clone()).collect();
    assert_eq!(nodes, ["desk", "board", "lab"]);
    // The middle two alone, and then none.
    let span = "--from 2026-03-01T10:01:00Z --until 2026-03-01T10:03:00Z";
    let told = row(at, &format!("trace export --cluster small --data data {span} --json --out it.toml"));
    assert_eq!(
        ["arrivals", "decisions", "outcomes"].map(|what| told[what].as_u64().unwrap()),
        [2, 1, 1],
        "{told}"
    );
    let none = "trace export --cluster small --data data --from 2027-01-01T00:00:00Z --out it.toml";
    assert!(fails(at, none).contains("no decision about cluster \"small\" is recorded in that time"));
    let wrong = "trace export --cluster small --data data --from yesterday --out it.toml";
    assert!(fails(at, wrong).contains("want one such as 2026-03-01T10:00:00Z"));
    assert!(
        fails(at, "trace export --cluster smal --data data --out it.toml")
            .contains("did you mean \"small\"?")
    );
    assert!(
        fails(at, "trace export --cluster small --data none --out it.toml").contains("is no data folder")
    );
    assert!(!at.join("none").exists());
    assert!(
        fails(at, &format!("trace export --cluster small --server http://{server} --timeout 1 --out x.toml"))
            .contains("cannot reach")
    );
}

/// A decision as the journal keeps it.
fn decided(id: &str, at_ms: i64, inputs: &[&str], outputs: &[&str]) -> storage::Entry {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let task = wire::Task { inputs: names(inputs), outputs: names(outputs), ..small_task() };
    let candidate = wire::Candidate { node: "desk".to_owned(), ..wire::Candidate::default() };
    let response = wire::PlaceResponse {
        node: "desk".to_owned(),
        decision_id: id.to_owned(),
        policy: "random".to_owned(),
        fallback: "deadline".to_owned(),
        candidates: vec![candidate],
        ..wire::PlaceResponse::default()
    };
    let receipt =
        wire::Receipt { request: Some(request(task)), response: Some(response), at_ms, ..Default::default() };
    let body = receipt.encode_to_vec();
    entry(storage::Kind::Decided, at_ms, Some(id), body)
}

fn entry(kind: storage::Kind, at_ms: i64, id: Option<&str>, body: Vec<u8>) -> storage::Entry {
    storage::Entry { at_ms, cluster: "small".to_owned(), kind, decision_id: id.map(str::to_owned), body }
}

#[tokio::test]
async fn it_goes_on_from_a_snapshot_and_what_stays_where_it_was_written_comes_after_its_writer() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let storage = Storage::open(Options::new(at.join("data"))).await.unwrap();
    let mut cluster = small_cluster();
    let made = cluster.cluster.as_mut().unwrap();
    for name in ["frames", "state"] {
        made.datasets.push(wire::Dataset { name: name.to_owned(), bytes: Some(7), homes: Vec::new() });
    }
    let before = cluster.clone();
    // What entered it is forgotten, and kept in the snapshot alone.
    let made = cluster.cluster.as_mut().unwrap();
    made.nodes.push(wire::Node { name: "lab".to_owned(), ..made.nodes[0].clone() });
    made.links.push(wire::Link { outer: "lab".to_owned(), ..made.links[0].clone() });
    let recorder = storage.recorder();
    let expired = wire::ReportOutcomeRequest {
        failed: true,
        reason: "no outcome was reported in time".to_owned(),
        ..outcome("second")
    };
    let nothing = wire::Receipt { at_ms: 4000, ..wire::Receipt::default() }.encode_to_vec();
    for entry in [
        entry(storage::Kind::Registered, 1000, None, before.encode_to_vec()),
        decided("first", 2000, &["state"], &["frames", "state"]),
        decided("second", 3500, &["frames"], &[]),
        entry(storage::Kind::Decided, 4000, Some("third"), nothing),
    ] {
        recorder.commit(entry).await.unwrap();
    }
    let kept = wire::ClusterSnapshot { registration: Some(cluster), ..wire::ClusterSnapshot::default() };
    recorder.snapshot("small", 5000, kept.encode_to_vec()).unwrap();
    recorder
        .commit(entry(storage::Kind::Ended, 6000, Some("second"), expired.encode_to_vec()))
        .await
        .unwrap();
    storage.close().await;

    let told = row(at, "trace export --cluster small --data data --json --out it.toml");
    assert_eq!(["arrivals", "decisions", "outcomes"].map(|what| told[what].as_u64().unwrap()), [2, 2, 0]);
    for note in [
        "decisions left out, as they say too little: 1",
        "outcomes left out, as nobody reported them in time: 1",
        "data without a home that is read before it is written, given one: 1",
    ] {
        assert!(told["notes"].as_array().unwrap().contains(&note.into()), "{told}");
    }
    let scenario = Scenario::load(&at.join("it.toml").to_string_lossy()).unwrap();
    assert_eq!(scenario.world(0).topology.nodes.len(), 4);
    let trace = scenario.trace.as_ref().unwrap();
    let after: Vec<_> = trace.arrivals().map(|it| (it.name.as_str(), it.at_s, it.after.clone())).collect();
    assert_eq!(after, [("first", 0.0, vec![]), ("second", 1.5, vec!["first".to_owned()])]);
    let fallbacks =
        trace.records.iter().filter(|it| matches!(it, Record::Decision(it) if it.fallback == "deadline"));
    assert_eq!(fallbacks.count(), 2);
    // Cut between the two, the second does not read what nobody wrote, and every window is a scenario.
    let homeless = scenario.file.catalogue.homeless();
    assert_eq!(homeless.iter().collect::<Vec<_>>(), ["frames"]);
    let windows = trace.windows(1, &homeless);
    let second = windows[1].arrivals().next().unwrap();
    assert_eq!((second.inputs.len(), second.after.len()), (0, 0));
    assert_eq!(windows[0].arrivals().next().unwrap().inputs, ["state"]);
}

#[tokio::test]
async fn a_service_that_keeps_nothing_says_so() {
    let server = Server::with_small_cluster().await;
    let mut clusters = ClusterServiceClient::new(server.channel().await);
    let request = wire::ExportTraceRequest { cluster_id: "small".to_owned(), ..Default::default() };
    let refused = clusters.export_trace(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("start it with --data FOLDER"), "{refused}");
    server.stop().await;
}
