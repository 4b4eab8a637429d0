//! The simulator's books and its agreement with closed forms.

use std::sync::Arc;

use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};
use remora_env::observation::Reference;
use remora_env::{Episode, Next, Outcome, Scenario, World};

fn neutral() -> Reference {
    Reference::new(10.0, 1e8)
}

/// Plays a world with choices drawn from `choices`, checking the books as it goes.
fn play(world: &Arc<World>, choices: u64, check_every: usize) -> Vec<Outcome> {
    let mut episode = Episode::new(Arc::clone(world), 0.5, neutral());
    let mut state = choices;
    let mut decisions = 0;
    while let Next::Decide(observation) = episode.next() {
        // Any full-period generator will do: what matters is that all sorts of choices occur.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let index = (state >> 33) as usize % observation.candidates().len();
        let candidate = observation.candidates()[index];
        episode.step(candidate.node);
        decisions += 1;
        if decisions % check_every == 0 {
            episode.check();
        }
    }
    episode.check();
    episode.outcomes().to_vec()
}

fn scenario(name: &str, tasks: u32) -> Scenario {
    let mut scenario = Scenario::load(name).unwrap();
    scenario.file.workload.tasks = Some(tasks);
    scenario
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is decided: every arrival ends as exactly one outcome, phases are in order, and the
    /// books balance all along.
    #[test]
    fn books_balance_under_any_decisions(seed in any::<u32>(), choices in any::<u64>(), which in 0..3_usize) {
        let (name, _) = remora_env::scenario::BUILT_IN[which];
        let world = Arc::new(scenario(name, 60).world(u64::from(seed)));
        let outcomes = play(&world, choices, 1);
        let mut tasks: Vec<u64> = outcomes.iter().map(|outcome| outcome.task).collect();
        tasks.sort_unstable();
        prop_assert_eq!(tasks, (0..world.tasks.len() as u64).collect::<Vec<_>>());
        for o in &outcomes {
            let times = [o.arrived, o.admitted, o.fetched, o.started, o.executed, o.completed];
            assert!(times.is_sorted(), "{o:?}");
        }
    }
}

#[test]
fn the_same_seed_and_decisions_give_the_same_outcomes() {
    let world = || Arc::new(scenario("urban-sensing", 150).world(11));
    assert_eq!(play(&world(), 5, 50), play(&world(), 5, 50));
    assert_ne!(play(&world(), 5, 50), play(&world(), 6, 50));
}

/// One node, one core, memory for one task at a time, Poisson arrivals and a wide spread of
/// execution times: the mean wait of M/G/1 is λ·E[S²] / (2·(1 − ρ)) (Pollaczek and Khinchine).
#[test]
fn waiting_times_follow_pollaczek_and_khinchine() {
    let scenario = Scenario::parse(SINGLE, "single", None).unwrap();
    let time = remora_env::catalogue::ExecutionTime::log_normal(0.8, 0.0, 0.5, 0.01, 10.0);
    let moment = |power: i32| {
        (0..4096).map(|i| time.quantile((f64::from(i) + 0.5) / 4096.0).powi(power)).sum::<f64>() / 4096.0
    };
    let rate = 1.0 / 1.0;
    let expected = rate * moment(2) / (2.0 * (1.0 - rate * moment(1)));
    let mut waits = Vec::new();
    for seed in 0..20 {
        let outcomes = play(&Arc::new(scenario.world(seed)), 0, 1000);
        waits.extend(outcomes.iter().map(|outcome| outcome.admitted.since_s(outcome.arrived)));
    }
    let mean = waits.iter().sum::<f64>() / waits.len() as f64;
    assert!((mean / expected - 1.0).abs() < 0.04, "{mean} s, expected {expected} s");
}

const SINGLE: &str = r#"
name = "single"
[topology]
nodes = [{ name = "n", kind = "box", arch = "amd64", cpu_millis = 1000, memory_mib = 100, disk_gb = 1, startup_s = 0, link = { up_mbps = 1 } }]
[[catalogue.tasks]]
name = "t"
cpu_millis = 1000
memory_mib = 60
execution = { box = { shape = 0.8, scale_s = 0.5, min_s = 0.01, max_s = 10.0 } }
[workload]
tasks = 20000
streams = [{ task = "t", exponential_s = 1.0 }]
"#;

/// Two nodes behind a 10 Mbit/s uplink: a 10 MB input takes 8 s alone, and 16 s when two tasks on
/// two nodes read it at once.
const TWO: &str = r#"
name = "two"
[topology]
nodes = [{ name = "store", kind = "nuc", link = { up_mbps = 1000 }, labels = { "data.skippy.io/storage" = "" } }]
[[topology.sites]]
name = "edge"
uplink = { up_mbps = 10, wan = true, price = 3 }
nodes = [{ name = "n", count = 2, kind = "nuc", startup_s = 0, link = { up_mbps = 1000 } }]
[[catalogue.datasets]]
name = "frames"
size_mb = 10
home = { nodes = ["store"] }
[[catalogue.tasks]]
name = "detect"
inputs = ["frames"]
cpu_millis = 1000
memory_mib = 60
execution = { nuc = { seconds = 1.0 } }
[workload]
tasks = 2
streams = [{ task = "detect", instances = 2, fixed_s = 0.001 }]
"#;

#[test]
fn transfers_share_a_thin_link_and_are_booked_at_its_price() {
    let scenario = Scenario::parse(TWO, "two", None).unwrap();
    let world = Arc::new(scenario.world(1));
    let mut episode = Episode::new(Arc::clone(&world), 0.5, neutral());
    for node in ["edge/n-0", "edge/n-1"] {
        let Next::Decide(observation) = episode.next() else { panic!("two tasks arrive") };
        let at = |c: &&remora_env::observation::Candidate| world.topology.nodes[c.node as usize].name == node;
        let candidate = *observation.candidates().iter().find(at).unwrap();
        // The estimate sees the links as they are shared at the decision.
        let expected = if node == "edge/n-0" { 8.0 } else { 16.0 };
        assert!((candidate.fetch_s - expected).abs() < 0.01, "{candidate:?}");
        episode.step(candidate.node);
    }
    assert!(matches!(episode.next(), Next::Terminated));
    for outcome in episode.outcomes() {
        assert_eq!((outcome.input_bytes, outcome.wan_bytes), (10_000_000, 10_000_000));
        assert_eq!(outcome.moved_bytes, 30e6);
        let fetched = outcome.fetched.since_s(outcome.admitted);
        assert!((fetched - 16.0).abs() < 0.01, "{fetched} s");
    }
}

/// Two tasks of one core each on a one-core node run at half speed.
#[test]
fn tasks_that_want_more_cpu_than_there_is_slow_down_together() {
    let text = TWO
        .replace("inputs = [\"frames\"]", "cpu_use_millis = 4000")
        .replace("cpu_millis = 1000\n", "cpu_millis = 10\n");
    let world = Arc::new(Scenario::parse(&text, "busy", None).unwrap().world(1));
    let mut episode = Episode::new(Arc::clone(&world), 0.5, neutral());
    for _ in 0..2 {
        let Next::Decide(observation) = episode.next() else { panic!("two tasks arrive") };
        let candidate = observation.candidates()[0];
        episode.step(candidate.node);
    }
    for outcome in episode.outcomes() {
        let executed = outcome.executed.since_s(outcome.started);
        assert!((executed - 2.0).abs() < 0.01, "{executed} s");
    }
}
