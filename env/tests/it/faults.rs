//! Whatever goes wrong, nothing is lost from the books, and no decision shifts what goes wrong.

use std::sync::Arc;

use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};
use remora_env::observation::Reference;
use remora_env::outcome::End;
use remora_env::topology::NodeId;
use remora_env::world::{Planned, When};
use remora_env::{Episode, Next, Outcome, Scenario, World};

/// A dozen nodes of which some crash and some come and go, uplinks that degrade, jobs whose stages
/// pass data on, small disks, short queues, peers, priorities, bursts, stragglers and late reports.
const TROUBLED: &str = r#"
name = "troubled"
[topology]
peers = true
queue_limit = 3
registries = [{ name = "registry", link = { up_mbps = 1000 } }]
nodes = [{ name = "store", kind = "nuc", link = { up_mbps = 1000 }, labels = { "data.skippy.io/storage" = "" } }]
[[topology.sites]]
name = "site"
count = 3
uplink = { up_mbps = 40, down_mbps = 100, latency_ms = 10, jitter = { median_ms = 8, sigma = 0.5 }, price = 4, usd_per_gb = 0.07, wan = true }
nodes = [
    { name = "nuc", kind = "nuc", disk_gb = 0.5, link = { up_mbps = 1000 } },
    { name = "pi", count = 2, kind = "rpi3", disk_gb = 0.4, link = { up_mbps = 100 }, power = { idle_w = 1.5, busy_w = 4 } },
    { name = "van", kind = "tx2", disk_gb = 0.5, link = { up_mbps = 50 }, mobile = { mean_present_s = 120, mean_away_s = 40 } },
]
[[catalogue.images]]
name = "app"
count = 4
size_mb = { arm = 60, arm64 = 70, amd64 = 80 }
base = "base"
base_share = 0.5
[[catalogue.datasets]]
name = "raw"
count = 6
size_mb = 20
home = "anywhere"
replicas = 2
[[catalogue.datasets]]
name = "parts"
count = 6
size_mb = 10
home = "producer"
[[catalogue.datasets]]
name = "report"
count = 6
size_mb = 2
home = { nodes = ["store"] }
[[catalogue.tasks]]
name = "split"
image = "app"
inputs = ["raw"]
outputs = ["parts"]
cpu_millis = 1000
memory_mib = 200
execution = { any = { mean_s = 4 } }
[[catalogue.tasks]]
name = "count"
inputs = ["parts"]
cpu_millis = 2000
memory_mib = 300
priority = 2
execution = { any = { seconds = 3 } }
[[catalogue.tasks]]
name = "merge"
image = "app"
inputs = ["parts", "raw"]
outputs = ["report"]
cpu_millis = 500
cpu_use_millis = 3000
memory_mib = 100
execution = { nuc = { seconds = 2 }, tx2 = { seconds = 3 } }
[[catalogue.tasks]]
name = "serve"
image = "app"
cpu_millis = 500
memory_mib = 100
deadline_s = 20
execution = { any = { mean_s = 1 } }
[workload]
tasks = 300
warm_share = 0.2
[[workload.streams]]
task = "split"
instances = 6
exponential_s = 60
renews_input = true
bursts = { factor = 5, mean_calm_s = 200, mean_burst_s = 50 }
[[workload.streams]]
task = "count"
instances = 6
after = ["split"]
[[workload.streams]]
task = "merge"
instances = 6
after = ["split", "count"]
[[workload.streams]]
task = "serve"
instances = 6
exponential_s = 8
diurnal = { period_s = 600, amplitude = 0.9 }
[faults]
crashes = { mean_up_s = 300, mean_down_s = 30 }
links = { mean_up_s = 150, mean_down_s = 20, capacity = 0 }
stragglers = { share = 0.1, slowdown = 5 }
telemetry_s = 7
retries = 3
backoff_s = 5
"#;

fn world(transfers: &str, seed: u64, tasks: u32) -> Arc<World> {
    let text = TROUBLED.replace("[faults]", &format!("[faults]\ntransfers = {transfers:?}"));
    let mut scenario = Scenario::parse(&text, "troubled", None).unwrap();
    scenario.file.workload.tasks = Some(tasks);
    Arc::new(scenario.world(seed))
}

/// Plays with choices drawn from `choices`.
fn play(mut episode: Episode, choices: u64) -> Episode {
    let mut state = choices;
    while let Next::Decide(observation) = episode.next() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let index = (state >> 33) as usize % observation.candidates().len();
        let node = observation.candidates()[index].node;
        episode.step(node);
    }
    episode.check();
    episode
}

fn start(world: &Arc<World>) -> Episode {
    Episode::new(Arc::clone(world), 0.5, Reference::new(10.0, 1e8))
}

fn count(outcomes: &[Outcome], end: End) -> usize {
    outcomes.iter().filter(|outcome| outcome.end == end).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Every arrival ends as exactly one outcome, and the books balance after every event.
    #[test]
    fn books_balance_in_any_trouble(seed in any::<u32>(), choices in any::<u64>(), fail in any::<bool>()) {
        let world = world(if fail { "fail" } else { "resume" }, u64::from(seed), 120);
        let episode = play(start(&world).audited(), choices);
        let mut tasks: Vec<u64> = episode.outcomes().iter().map(|outcome| outcome.task).collect();
        tasks.sort_unstable();
        prop_assert_eq!(tasks, (0..world.tasks.len() as u64).collect::<Vec<_>>());
        for o in episode.outcomes() {
            let times = [o.arrived, o.admitted, o.fetched, o.started, o.executed, o.completed];
            assert!(o.end != End::Completed || times.is_sorted(), "{o:?}");
        }
    }
}

/// A million events with all sorts of trouble, the books checked after each.
#[test]
fn books_balance_after_each_of_a_million_events() {
    let (mut events, mut ends, mut retries) = (0, [0; 5], 0);
    for seed in 0.. {
        let world = world(if seed % 2 == 0 { "resume" } else { "fail" }, seed, 20_000);
        let episode = play(start(&world).audited(), seed);
        events += episode.events();
        for outcome in episode.outcomes() {
            retries += outcome.retries;
            ends[outcome.end as usize] += 1;
        }
        if events >= 1_000_000 {
            break;
        }
    }
    // All that can happen did: no node lacks what a task needs, so none was unplaceable.
    let [completed, unplaceable, turned_away, given_up, orphaned] = ends;
    assert!(
        completed > 10_000 && turned_away > 0 && given_up > 0 && orphaned > 0 && retries > 100,
        "{ends:?}"
    );
    assert_eq!(unplaceable, 0);
}

/// The trouble of a world is the same whatever is decided: two runs meet the same changes.
#[test]
fn the_same_seed_gives_the_same_bytes_on_one_thread_and_on_two() {
    let run = || {
        let outcomes: Vec<_> =
            (0..4).map(|seed| play(start(&world("fail", seed, 300)), seed).outcomes().to_vec()).collect();
        format!("{outcomes:?}")
    };
    let (one, other) = std::thread::scope(|scope| {
        let threads = [scope.spawn(run), scope.spawn(run)];
        let [one, other] = threads.map(|thread| thread.join().unwrap());
        (one, other)
    });
    assert_eq!(one, other);
    assert_eq!(one, run());
}

/// A snapshot goes on as the original does, and looking ahead from it disturbs neither.
#[test]
fn a_snapshot_restores_everything() {
    let world = world("fail", 5, 300);
    let mut episode = start(&world);
    for _ in 0..100 {
        let Next::Decide(observation) = episode.next() else { panic!("more than a hundred decisions") };
        let node = observation.candidates()[0].node;
        episode.step(node);
    }
    let snapshot = episode.clone();
    let before = episode.outcomes().len();
    let ahead = play(episode.branch(), 9);
    let expected = play(snapshot.clone(), 9);
    assert_eq!(ahead.outcomes(), &expected.outcomes()[before..]);
    assert_eq!(play(episode, 9).outcomes(), expected.outcomes());
    assert_eq!(play(snapshot, 9).outcomes(), expected.outcomes());
}

/// One node that is away half of the time: tasks on it are lost and tried again, and it shows.
#[test]
fn a_task_on_a_node_that_goes_is_tried_again_and_accounted() {
    let text = r#"
name = "flaky"
[topology]
nodes = [{ name = "n", kind = "nuc", startup_s = 0, link = { up_mbps = 100 } }]
[[catalogue.tasks]]
name = "t"
cpu_millis = 100
memory_mib = 100
execution = { nuc = { seconds = 10 } }
[workload]
tasks = 200
streams = [{ task = "t", exponential_s = 20 }]
[faults]
crashes = { mean_up_s = 20, mean_down_s = 5 }
retries = 2
backoff_s = 1
"#;
    let world = Arc::new(Scenario::parse(text, "flaky", None).unwrap().world(3));
    let episode = play(start(&world).audited(), 1);
    let outcomes = episode.outcomes();
    // A try lasts ten seconds and is broken off with probability 1 − e^(−1/2) ≈ 0.39, so that
    // 0.39³ ≈ 6 % are given up.
    let given_up = count(outcomes, End::GivenUp);
    assert!((4..=24).contains(&given_up), "{given_up}");
    assert_eq!(count(outcomes, End::Completed) + given_up, 200);
    for outcome in outcomes {
        let least_s = 10.0 + f64::from(outcome.retries);
        assert!(outcome.end == End::GivenUp || outcome.response_s() >= least_s - 1e-6, "{outcome:?}");
        assert!(outcome.end == End::Completed || outcome.retries == 2, "{outcome:?}");
    }
    assert!(outcomes.iter().any(|outcome| outcome.is_completed() && outcome.retries > 0));
}

/// One uplink that goes down under a transfer of 80 s: resumed, it takes as much longer as the link
/// was down; failed, it begins anew.
#[test]
fn transfers_resume_or_fail_when_a_link_goes_down() {
    let text = |transfers: &str| {
        format!(
            r#"
name = "outage"
[topology]
nodes = [{{ name = "store", kind = "nuc", link = {{ up_mbps = 1000 }}, labels = {{ "data.skippy.io/storage" = "" }} }}]
[[topology.sites]]
name = "edge"
uplink = {{ up_mbps = 10, wan = true }}
nodes = [{{ name = "n", kind = "nuc", startup_s = 0, link = {{ up_mbps = 1000 }} }}]
[[catalogue.datasets]]
name = "film"
size_mb = 100
home = {{ nodes = ["store"] }}
[[catalogue.tasks]]
name = "watch"
inputs = ["film"]
cpu_millis = 100
memory_mib = 100
execution = {{ nuc = {{ seconds = 1 }} }}
[workload]
tasks = 1
streams = [{{ task = "watch", fixed_s = 1 }}]
[faults]
links = {{ mean_up_s = 60, mean_down_s = 30 }}
transfers = "{transfers}"
retries = 100
backoff_s = 1
"#
        )
    };
    let outcome = |transfers: &str, seed| {
        let world = Arc::new(Scenario::parse(&text(transfers), "outage", None).unwrap().world(seed));
        play(start(&world).audited(), 1).outcomes()[0].clone()
    };
    let mut interrupted = 0;
    for seed in 0..20 {
        let (resumed, failed) = (outcome("resume", seed), outcome("fail", seed));
        assert_eq!((resumed.retries, resumed.input_bytes), (0, 100_000_000));
        // 80 s for the bytes, 1 s to execute, and the outage.
        assert!(resumed.response_s() > 80.9, "{resumed:?}");
        assert_eq!(failed.input_bytes, 100_000_000 * u64::from(failed.retries + 1));
        assert!(failed.response_s() >= resumed.response_s() - 1e-6, "{failed:?} {resumed:?}");
        interrupted += u32::from(failed.retries > 0);
    }
    assert!(interrupted > 5, "{interrupted}");
}

/// Where the state is reported late, what has become of it since is imagined: the policy sees there what it sees
/// here, the books balance, and what happened since the report, but was not reported, changes nothing.
#[test]
fn the_present_is_imagined_from_the_last_report() {
    const REPORT_S: f64 = 7.0;
    let world = world("resume", 5, 120);
    let mut episode = start(&world);
    let (mut nodes, mut imagined, mut compared) = (Vec::new(), 0, 0);
    while let Next::Decide(observation) = episode.next() {
        let node = observation.node(nodes.len() % observation.count());
        if let Some(future) = observation.imagine(3, 10) {
            let Next::Decide(there) = future.next() else { panic!("what waits here waits there") };
            assert_eq!((there.id, there.cluster.now), (observation.id, observation.cluster.now));
            imagined += usize::from(there.candidates() == observation.candidates());
            let reported_s = (observation.cluster.now.as_s() / REPORT_S).floor() * REPORT_S;
            if let Some(other) = unlucky_since(&world, reported_s, &nodes, observation.id) {
                let other = other.imagine(3, 10).expect("as much is known");
                assert_eq!(play(future.audited(), 1).outcomes(), play(other, 1).outcomes());
                compared += 1;
            }
        }
        nodes.push(node);
        episode.step(node);
    }
    eprintln!("{} decisions, {imagined} imagined alike, {compared} compared", nodes.len());
    assert!(imagined > nodes.len() / 2 && compared > nodes.len() / 4);
}

/// The same decisions in the same world, but for the luck of what arrived since `reported_s`; `None` where the
/// next decision is then another.
fn unlucky_since(world: &Arc<World>, reported_s: f64, nodes: &[NodeId], next: u64) -> Option<Episode> {
    let mut other = World::clone(world);
    let late = |task: &&mut Planned| matches!(task.when, When::At(at) if at.as_s() > reported_s);
    other.tasks.iter_mut().filter(late).for_each(|task| task.luck = 1.0 - task.luck);
    let mut episode = start(&Arc::new(other));
    for &node in nodes {
        if !episode.accepts(node) {
            return None;
        }
        episode.step(node);
    }
    (episode.pending() == Some(next as u32)).then_some(episode)
}
