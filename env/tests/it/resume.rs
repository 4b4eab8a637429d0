//! Futures that go on from the facts of a cluster, with no simulation behind them.

use std::sync::Arc;

use remora_env::cluster::{Commitment, Expected, Item};
use remora_env::observation::Reference;
use remora_env::topology::NodeId;
use remora_env::{Arrivals, Cluster, Episode, Next, Observation, Outcome, Scenario, Time};

const REFERENCE: Reference = Reference { response_s: 10.0, moved_bytes: 1e8 };

/// The cheapest of the candidates.
fn cheapest(observation: &Observation<'_>) -> NodeId {
    let candidates = observation.candidates().iter();
    candidates.min_by(|a, b| observation.cost(a).total_cmp(&observation.cost(b))).unwrap().node
}

/// To its end, always at the cheapest node, the first task at `first`.
fn play(mut future: Episode, first: NodeId) -> Episode {
    future.step(first);
    while let Next::Decide(observation) = future.next() {
        let node = cheapest(&observation);
        future.step(node);
    }
    future.check();
    future
}

/// In every moment of several scenarios the future begins with what is known, its books balance, all that is under way
/// ends, and the same seed leads to the same bytes.
#[test]
fn a_future_goes_on_from_the_facts() {
    let mut queued = 0;
    for name in ["urban-sensing", "industrial-iot", "train-family/4", "train-family/9"] {
        let mut scenario = Scenario::load(name).unwrap();
        scenario.file.workload.tasks = Some(80);
        let world = Arc::new(scenario.world(2));
        let mut episode = Episode::new(Arc::clone(&world), 0.5, REFERENCE);
        let (mut arrivals, mut decisions) = (Arrivals::default(), 0);
        while let Next::Decide(of_episode) = episode.next() {
            let (cluster, task) = (of_episode.cluster, of_episode.task);
            let live = Observation::new(cluster, task, of_episode.id, 0.5, REFERENCE).unwrap();
            assert!(live.imagine(1, 20).is_none(), "of what came before nothing is known");
            let live = live.after(&arrivals);
            let future = live.imagine(1, 20).unwrap().audited();
            let Next::Decide(there) = future.next() else { panic!("what waits here waits there") };
            assert_eq!((there.cluster.now, there.task), (cluster.now, task));
            let under_way: usize = cluster.nodes.iter().map(|node| node.commitments.len()).sum();
            queued += cluster.nodes.iter().map(|node| node.queued).sum::<u32>();
            let node = cheapest(&live);
            let played = play(future, node);
            let ended = played.outcomes().len();
            assert!((under_way + 1..=under_way + 21).contains(&ended), "{ended} of {under_way} and 21");
            assert!(decisions < 2 || ended > under_way + 1, "something arrives");
            let again = play(live.imagine(1, 20).unwrap(), node);
            assert_eq!(played.outcomes(), again.outcomes());
            let other = play(live.imagine(2, 20).unwrap(), node);
            assert!(decisions < 20 || other.outcomes() != again.outcomes(), "another seed, another future");
            let task = Arc::new(task.clone());
            arrivals.note(cluster.now, task);
            // Now and then badly, so that tasks wait for each other.
            let node = if decisions % 3 == 0 { of_episode.node(0) } else { node };
            decisions += 1;
            episode.step(node);
        }
        assert!(decisions > 40, "{name}: {decisions}");
    }
    assert!(queued > 0, "some wait for others");
}

fn small() -> Cluster {
    let scenario = Scenario::load("testbed").unwrap();
    scenario.world(1).initial_cluster()
}

/// A kind of task that this node can run.
fn task_for(cluster: &Cluster, node: NodeId) -> Arc<remora_env::catalogue::Task> {
    let world = Scenario::load("testbed").unwrap().world(1);
    let runs = |task: &&remora_env::world::Planned| cluster.can_run(&task.task, node);
    Arc::clone(&world.tasks.iter().find(runs).unwrap().task)
}

fn outcome(episode: &Episode, task: u64) -> Outcome {
    episode.outcomes().iter().find(|outcome| outcome.task == task).unwrap().clone()
}

/// What executes ends when it was to; what is queued behind it begins then; what is late is about to end.
#[test]
fn what_is_under_way_ends_as_expected() {
    let mut cluster = small();
    let node = (0..cluster.nodes.len() as NodeId)
        .find(|&node| cluster.topology.nodes[node as usize].name.contains("pi"));
    let node = node.unwrap_or(0);
    let task = task_for(&cluster, node);
    cluster.now = Time::from_s(100.0);
    let span = |s| Expected { span: Time::from_s(s), ..Expected::default() };
    assert!(cluster.place(71, Arc::clone(&task), node, span(30.0)));
    let mut next = 72;
    while cluster.place(next, Arc::clone(&task), node, span(40.0)) {
        next += 1;
    }
    cluster.now = Time::from_s(110.0);
    cluster.check();
    let arrivals = Arrivals::default();
    let observation = Observation::new(&cluster, &task, 9, 0.0, REFERENCE).unwrap().after(&arrivals);
    let there = observation.nodes().find(|&other| other != node).unwrap();
    let expected = cluster.nodes[node as usize].commitments[0].expected_end;
    let last = cluster.nodes[node as usize].commitments.len() as u64 - 1;
    let played = play(observation.imagine(5, 20).unwrap().audited(), there);
    let first = outcome(&played, 0);
    assert!(
        (first.completed.as_s() - expected.as_s()).abs() < 0.01,
        "{} for {}",
        first.completed.as_s(),
        expected.as_s()
    );
    assert_eq!(first.moved_bytes, 0.0, "it has nothing more to move");
    let queued = outcome(&played, last);
    assert_eq!(queued.admitted, first.completed, "there is room from then on");
    assert!(queued.completed > queued.admitted);
}

/// Facts that no simulation would come to: tasks that wait on nodes that are away or could never run them, data that
/// nobody has, links that are down.
#[test]
fn strange_facts_do_no_harm() {
    let mut cluster = small();
    cluster.now = Time::from_s(50.0);
    let nodes = 0..cluster.nodes.len() as NodeId;
    let node = nodes.clone().find(|&node| task_for_any(&cluster, node)).unwrap();
    let task = task_for(&cluster, node);
    let waits = |id| Commitment {
        id,
        task: Arc::clone(&task),
        expected_end: Time::from_s(10.0),
        span: Time::ZERO,
        admitted: false,
        accelerators: Vec::new(),
    };
    for (id, node) in nodes.clone().enumerate() {
        assert!(cluster.restore(node, waits(id as u64)));
    }
    let away = nodes.clone().find(|&other| other != node).unwrap();
    cluster.set_up(away, false);
    assert!(cluster.restore(away, waits(1000)));
    for channel in 0..cluster.topology.channels().len() as u32 {
        cluster.set_channel_capacity(channel, 0.0);
        cluster.add_channel_load(channel, 3);
    }
    for dataset in 0..cluster.catalogue.datasets.len() as u32 {
        let holders = cluster.holders(dataset).to_vec();
        holders.into_iter().for_each(|holder| cluster.remove(holder, Item::Dataset(dataset)));
        cluster.store(node, Item::Dataset(dataset), false);
    }
    cluster.check();
    let mut arrivals = Arrivals::default();
    (0..500).for_each(|s| arrivals.note(Time::from_s(f64::from(s) / 10.0), Arc::clone(&task)));
    let observation = Observation::new(&cluster, &task, 9, 0.5, REFERENCE).unwrap().after(&arrivals);
    let played = play(observation.imagine(5, 30).unwrap().audited(), node);
    assert!(played.outcomes().len() > 30);
}

fn task_for_any(cluster: &Cluster, node: NodeId) -> bool {
    let world = Scenario::load("testbed").unwrap().world(1);
    world.tasks.iter().any(|task| cluster.can_run(&task.task, node))
}
