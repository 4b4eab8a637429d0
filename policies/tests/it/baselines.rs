//! What single baselines are known for.

use std::sync::Arc;

use remora_env::observation::Reference;
use remora_env::{Arrivals, Episode, Next, Observation, Scenario, World};
use remora_policies::rollout::{Figures, play};
use remora_policies::{Policy, by_name, choose};

/// SPARK-18886: a hundred executors of one slot, five hundred tasks within a second that all have their data
/// on one of them, and the default wait of 3 s a level. Read from another executor it takes milliseconds.
fn hot_executor(task_s: f64) -> Arc<World> {
    let text = format!(
        r#"
name = "hot-executor"
[topology]
registries = [{{ name = "registry", link = {{ up_mbps = 10000 }} }}]
[[topology.sites]]
name = "here"
uplink = {{ up_mbps = 10000 }}
nodes = [{{ name = "hot", kind = "server", cpu_millis = 1000, startup_s = 0, link = {{ up_mbps = 10000 }} }}]
[[topology.sites]]
name = "there"
uplink = {{ up_mbps = 10000 }}
nodes = [{{ name = "cold", count = 99, kind = "server", cpu_millis = 1000, startup_s = 0, link = {{ up_mbps = 10000 }} }}]
[[catalogue.datasets]]
name = "partition"
count = 500
size_mb = 1
home = {{ nodes = ["here/hot"] }}
[[catalogue.tasks]]
name = "stage"
inputs = ["partition"]
cpu_millis = 1000
memory_mib = 100
execution = {{ any = {{ seconds = {task_s} }} }}
[workload]
tasks = 500
streams = [{{ task = "stage", instances = 500, fixed_s = 1 }}]
"#
    );
    Arc::new(Scenario::parse(&text, "hot-executor", None).unwrap_or_else(|error| panic!("{error}")).world(0))
}

fn makespan_s(world: &Arc<World>, policy: &str) -> f64 {
    let episode = play(world, by_name(policy, 0).unwrap().as_mut(), 0.0, Reference::new(10.0, 1e8));
    episode.outcomes().iter().map(|outcome| outcome.completed.as_s()).fold(0.0, f64::max)
}

/// "Better off if tasks took seven seconds": those of five all queue on the one executor.
#[test]
fn delay_scheduling_stays_on_the_hot_executor_and_others_do_not() {
    let (short, long) = (hot_executor(5.0), hot_executor(7.0));
    let [stuck, spread] = [&short, &long].map(|world| makespan_s(world, "delay-scheduling"));
    assert!(stuck > 500.0 * 5.0, "{stuck}: all on one executor");
    assert!(spread < stuck / 10.0, "{spread} for tasks that take longer, {stuck} before");
    for policy in ["firebird-like", "greedy-completion", "min-list-one-node", "heft"] {
        let makespan = makespan_s(&short, policy);
        assert!(makespan < stuck / 20.0, "{policy}: {makespan}, delay scheduling {stuck}");
    }
}

/// Response time of look-ahead over that of the tuned greedy, on six worlds.
fn gained(policy: impl Fn(&str) -> Box<dyn Policy>) -> f64 {
    let mut ratio = 1.0;
    for member in 0..6 {
        let mut scenario = Scenario::load(&format!("train-family/{member}")).unwrap();
        scenario.file.workload.tasks = Some(120);
        let world = Arc::new(scenario.world(member));
        let reference = remora_policies::rollout::reference(&scenario);
        let response_s =
            |name: &str| Figures::of(&play(&world, policy(name).as_mut(), 0.0, reference)).response_mean_s;
        ratio *= response_s("look-ahead") / response_s("greedy-marginal-tuned");
    }
    f64::powf(ratio, 1.0 / 6.0)
}

/// Looking ahead improves on the policy that it rolls out, and knows nothing that it should not: a world
/// whose future is another gets the same decision now.
#[test]
fn looking_ahead_pays_and_does_not_see_the_future() {
    let ratio = gained(|policy| by_name(policy, 0).unwrap());
    eprintln!("look-ahead takes {ratio:.3} of the time of greedy-marginal-tuned");
    assert!(ratio < 1.0, "{ratio}");

    let scenario = Scenario::load("train-family/3").unwrap();
    let reference = Reference::new(10.0, 1e8);
    let decisions = |tasks: u32| {
        let mut scenario = scenario.clone();
        // The same arrivals, of which fewer come.
        scenario.file.workload.tasks = Some(tasks);
        let mut episode = Episode::new(Arc::new(scenario.world(3)), 0.5, reference);
        let mut policy = by_name("look-ahead", 0).unwrap();
        let mut nodes = Vec::new();
        while let (Next::Decide(observation), true) = (episode.next(), nodes.len() < 12) {
            let node = choose(policy.as_mut(), &observation).node;
            nodes.push(node);
            episode.step(node);
        }
        nodes
    };
    assert_eq!(decisions(80), decisions(40));
}

/// A policy that gets what a live service would give it: facts, and what arrived before.
struct Live {
    policy: Box<dyn Policy>,
    arrivals: Arrivals,
}

impl Policy for Live {
    fn name(&self) -> &str {
        self.policy.name()
    }

    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        let Observation { cluster, task, id, alpha, reference, .. } = *observation;
        let live = Observation::new(cluster, task, id, alpha, reference).unwrap().after(&self.arrivals);
        self.policy.score(&live, scores);
        self.arrivals.note(cluster.now, Arc::new(task.clone()));
    }
}

/// Looking ahead pays where there is nothing but facts to look ahead from.
#[test]
fn looking_ahead_from_facts_pays() {
    let live = |policy: &str| Live { policy: by_name(policy, 0).unwrap(), arrivals: Arrivals::default() };
    let ratio = gained(|policy| Box::new(live(policy)));
    eprintln!("look-ahead from facts takes {ratio:.3} of the time of greedy-marginal-tuned");
    assert!(ratio < 1.0, "{ratio}");
}
