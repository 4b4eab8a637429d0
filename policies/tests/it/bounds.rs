//! Nothing beats the optimum, and every bound is below everything.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use remora_env::family::Family;
use remora_env::observation::Reference;
use remora_env::random::{Purpose, stream};
use remora_env::{Episode, Scenario, World};
use remora_policies::bounds::{Scheduled, applies, hindsight, lower_bound, nodes_of, optimum, relaxation};
use remora_policies::rollout::{Figures, play};
use remora_policies::{HEURISTICS, by_name};

/// Two to four nodes of measured kinds in one or two sites, three to five tasks of one or two kinds.
fn tiny(seed: u64) -> Scenario {
    let mut rng = stream(seed, Purpose::Family, 99);
    let kinds = ["rpi4", "nano", "nuc", "tx2"];
    let sites = rng.random_range(1..=2);
    let mut text = String::from(
        "name = \"tiny\"\n[topology]\nregistries = [{ name = \"registry\", link = { up_mbps = 1000 } }]\n",
    );
    for site in 0..sites {
        let up = [10, 25, 100][rng.random_range(0..3)];
        let price = rng.random_range(1..=4);
        text += &format!(
            "[[topology.sites]]\nname = \"site{site}\"\nuplink = {{ up_mbps = {up}, latency_ms = 10, price = {price}, wan = true }}\nnodes = [\n"
        );
        for node in 0..rng.random_range(1..=2) {
            let kind = kinds[rng.random_range(0..kinds.len())];
            text += &format!("  {{ name = \"n{node}\", kind = \"{kind}\", link = {{ up_mbps = 1000 }} }},\n");
        }
        text += "]\n";
    }
    let image = rng.random_range(20..400);
    let data = rng.random_range(1..100);
    let share = rng.random_range(0.0..0.8);
    text += &format!(
        "[[catalogue.images]]\nname = \"app\"\ncount = 2\nsize_mb = {{ arm = {image}, arm64 = {image}, amd64 = {image} }}\nbase = \"base\"\nbase_share = {share:.2}\n\
         [[catalogue.datasets]]\nname = \"data\"\ncount = 2\nsize_mb = {data}\nhome = {{ nodes = [\"site0/n0\"] }}\n"
    );
    for (task, input, output) in [("a", "inputs = [\"data\"]", ""), ("b", "", "outputs = [\"data\"]")] {
        let seconds = rng.random_range(0.2..20.0);
        let cpu = rng.random_range(500..4000);
        text += &format!(
            "[[catalogue.tasks]]\nname = \"{task}\"\nimage = \"app\"\n{input}\n{output}\ncpu_millis = {cpu}\nmemory_mib = 200\nexecution = {{ any = {{ seconds = {seconds:.2} }}, nuc = {{ seconds = {:.2} }} }}\n",
            seconds / 3.0
        );
    }
    let gap = rng.random_range(0.5..30.0);
    let warm = rng.random_range(0.0..0.6);
    text += &format!(
        "[workload]\ntasks = {}\nwarm_share = {warm:.2}\nstreams = [{{ task = \"a\", instances = 2, exponential_s = {gap:.1} }}, {{ task = \"b\", instances = 1, exponential_s = {gap:.1} }}]\n",
        rng.random_range(3..=5)
    );
    Scenario::parse(&text, "tiny", None).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn cost(world: &Arc<World>, name: &str, alpha: f64, reference: Reference) -> f64 {
    let figures = Figures::of(&play(world, by_name(name, world.seed).unwrap().as_mut(), alpha, reference));
    assert_eq!(figures.completed(), world.tasks.len());
    reference.cost(alpha, figures.moved_bytes_per_task(), figures.response_mean_s)
}

/// As it costs, up to rounding.
fn at_most(a: f64, b: f64) -> bool {
    a <= b * (1.0 + 1e-6) + 1e-9
}

#[test]
fn no_policy_beats_the_optimum_and_every_bound_is_below() {
    let mut sums = [0.0; 4];
    const INSTANCES: u64 = 1000;
    for seed in 0..INSTANCES {
        let world = Arc::new(tiny(seed).world(seed));
        assert!(applies(&world));
        let reference = Reference::new(10.0, 2e8);
        let alpha = [0.0, 0.3, 0.7, 1.0][seed as usize % 4];
        let best = optimum(&world, alpha, reference, 1_000_000).expect("five tasks on four nodes are few");
        let bound = lower_bound(&world, alpha, reference);
        let relaxed = relaxation(&world, alpha, reference, Duration::from_secs(20)).expect("it is small");
        assert!(at_most(bound, relaxed), "{seed}: bound {bound}, relaxation {relaxed}");
        assert!(at_most(relaxed, best.cost), "{seed}: relaxation {relaxed}, optimum {}", best.cost);
        let mut greedy = 0.0;
        for heuristic in HEURISTICS.iter().filter(|heuristic| heuristic.name != "look-ahead" || seed < 50) {
            let cost = cost(&world, heuristic.name, alpha, reference);
            assert!(
                at_most(best.cost, cost),
                "{seed}: {} costs {cost}, optimum {}",
                heuristic.name,
                best.cost
            );
            if heuristic.name == "greedy-marginal" {
                greedy = cost;
            }
        }
        if seed < 100 {
            let episode = play(&world, by_name("greedy-marginal", 0).unwrap().as_mut(), alpha, reference);
            let found = hindsight(&world, alpha, reference, nodes_of(&episode), 200);
            assert!(at_most(best.cost, found.cost) && at_most(found.cost, greedy), "{seed}: {found:?}");
        }
        for (sum, cost) in sums.iter_mut().zip([bound, relaxed, best.cost, greedy]) {
            *sum += cost;
        }
    }
    let [bound, relaxed, best, greedy] = sums.map(|sum| sum / sums[2]);
    eprintln!(
        "costs of {INSTANCES} worlds together, over the optimum's: bound {bound:.3}, relaxation {relaxed:.3}, \
         greedy-marginal {greedy:.3}"
    );
    assert!(bound > 0.15 && relaxed > 0.4 && best == 1.0, "a bound far off says nothing");
}

/// Where faults strike, as they do, what is found is no dearer than what the search began with, loses no more tasks, and
/// comes out again.
#[test]
fn hindsight_knows_faults() {
    let faulty = (0..).map(|index| Scenario::member(Family::Validation, index));
    let mut scenario = faulty.into_iter().find(|s| s.file.faults.crashes.is_some()).unwrap();
    scenario.file.workload.tasks = Some(80);
    let world = Arc::new(scenario.world(0));
    assert!(!applies(&world));
    let (alpha, reference) = (0.3, Reference::new(10.0, 2e8));
    let lost = |episode: &Episode| Figures::of(episode).failed;
    let begun = play(&world, by_name("greedy-marginal", 0).unwrap().as_mut(), alpha, reference);
    let search = |nodes, tries| hindsight(&world, alpha, reference, nodes, tries);
    let found = search(nodes_of(&begun), 600);
    assert!(found.cost < search(nodes_of(&begun), 0).cost, "600 tries find something");
    assert_eq!(search(found.nodes.clone(), 0).cost, found.cost);
    let again = play(&world, &mut Scheduled { name: "found", nodes: found.nodes }, alpha, reference);
    assert!(lost(&again) <= lost(&begun));
}

/// The bound for worlds of any size, on the shipped scenarios.
#[test]
fn the_lower_bound_is_below_every_policy_on_the_shipped_scenarios() {
    for name in remora_env::scenario::built_in() {
        let mut scenario = Scenario::load(name).unwrap();
        scenario.file.workload.tasks = Some(200);
        let world = Arc::new(scenario.world(0));
        let reference = Reference::new(10.0, 2e8);
        for alpha in [0.0, 0.5, 1.0] {
            let bound = lower_bound(&world, alpha, reference);
            for heuristic in HEURISTICS.iter().filter(|heuristic| heuristic.name != "look-ahead") {
                let cost = cost(&world, heuristic.name, alpha, reference);
                assert!(
                    at_most(bound, cost),
                    "{name} at {alpha}: {} costs {cost}, bound {bound}",
                    heuristic.name
                );
            }
        }
    }
}
