//! The policies on the built-in scenarios.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod baselines;
mod bounds;
mod copies;
mod golden;
mod graph;
mod paper;

use std::sync::Arc;

use burn::tensor::Device;
use remora_env::observation::Reference;
use remora_env::{Episode, Next, Scenario, World};
use remora_policies::forward::Forward;
use remora_policies::learned::{INPUT_COUNT, Inputs};
use remora_policies::network::{ActorCritic, Caution, NetworkConfig};
use remora_policies::rollout::{Figures, play};
use remora_policies::{Checkpoint, HEURISTICS, Learned, by_name, choose};

fn world(name: &str, seed: u64) -> Arc<World> {
    Arc::new(Scenario::load(name).unwrap().world(seed))
}

fn neutral() -> Reference {
    Reference::new(10.0, 1e8)
}

#[test]
fn every_policy_places_every_task_the_same_way_twice() {
    let world = world("industrial-iot", 3);
    for name in HEURISTICS.iter().map(|heuristic| heuristic.name).chain(["pretrained"]) {
        let run = || {
            let episode = play(&world, by_name(name, 3).unwrap().as_mut(), 0.5, neutral());
            episode.check();
            episode.outcomes().to_vec()
        };
        let outcomes = run();
        assert_eq!(outcomes.len(), world.tasks.len(), "{name}");
        assert!(outcomes.iter().all(|outcome| outcome.is_completed()), "{name}");
        assert_eq!(outcomes, run(), "{name}");
    }
}

/// The paper's scenarios separate the policies in this order of response time; a re-run of the
/// authors' code gives 85 s, 16.5 s and, for greedy completion, 4.4 s (execution with transfers).
#[test]
fn urban_sensing_ranks_the_heuristics_as_published() {
    let world = world("urban-sensing", 0);
    let response =
        |name| Figures::of(&play(&world, by_name(name, 0).unwrap().as_mut(), 0.5, neutral())).response_mean_s;
    let [kube, skippy, greedy] = ["kube-default", "skippy", "greedy-completion"].map(response);
    assert!(kube > 3.0 * skippy && skippy > 2.0 * greedy, "kube {kube}, skippy {skippy}, greedy {greedy}");
}

#[test]
fn an_unknown_policy_is_refused_with_the_known_ones() {
    let Err(error) = by_name("skipy", 0) else { panic!("accepted") };
    assert!(error.to_string().contains("random, round-robin, first-fit"), "{error}");
}

/// What may stand behind a name, and what may not.
#[test]
fn suffixes_wrap_a_policy() {
    for name in
        ["greedy-marginal+look-ahead", "skippy+look-ahead=5ms", "random+guard", "random+look-ahead+guard"]
    {
        assert_eq!(by_name(name, 0).unwrap().name(), name);
    }
    for (name, problem) in [
        ("random+look-ahead=fast", "look-ahead=fast"),
        ("random+look-ahead=-3ms", "look-ahead=-3ms"),
        ("random+magic", "random+magic"),
        ("randum+guard", "randum"),
    ] {
        let Err(error) = by_name(name, 0) else { panic!("{name} was accepted") };
        assert!(error.to_string().contains(problem), "{error}");
    }
}

/// A guard lets nothing through that costs much more than greedy's estimate without looking whether it pays.
#[test]
fn a_guard_overrules_what_does_not_pay() {
    let world = world("urban-sensing", 1);
    let cost = |name: &str| {
        let mut policy = by_name(name, 0).unwrap();
        let episode = play(&world, policy.as_mut(), 0.5, neutral());
        (Figures::of(&episode).response_mean_s, policy.overruled())
    };
    let ((alone, _), (guarded, overruled), (_, never)) =
        (cost("random"), cost("random+guard"), cost("greedy-marginal+guard"));
    assert!(guarded < alone, "{guarded} s with and {alone} s without a guard");
    assert!(overruled > 0);
    assert_eq!(never, 0, "greedy's own choice is never dear");
}

/// A decision's logits may not depend on what else is in the batch, on padding, or on the order of
/// the candidates.
#[test]
fn the_network_judges_each_candidate_on_its_own() {
    let config = NetworkConfig { hidden: 16, shortlist: 24, ..NetworkConfig::default() };
    let device = Device::flex();
    let network = ActorCritic::init(&config, 5, &device);
    let world = world("urban-sensing", 1);
    let mut episode = Episode::new(Arc::clone(&world), 0.3, neutral());
    let mut together = Inputs::default();
    let mut alone = Vec::new();
    let mut greedy = by_name("greedy-marginal", 0).unwrap();
    for _ in 0..20 {
        let Next::Decide(observation) = episode.next() else { panic!("ended early") };
        together.push(&observation, &network);
        let mut single = Inputs::default();
        single.push(&observation, &network);
        alone.push(single);
        let node = choose(greedy.as_mut(), &observation).node;
        episode.step(node);
    }
    let logits = |inputs: &Inputs| {
        let (features, mask) = inputs.clone().into_tensors(24, &device);
        network.logits(features, mask).into_data().try_to_vec::<f32>().unwrap()
    };
    let all = logits(&together);
    for (row, single) in alone.iter().enumerate() {
        let own = logits(single);
        for (a, b) in own.iter().zip(&all[row * 24..]) {
            assert!((a - b).abs() < 1e-5, "row {row}: {a} and {b}");
        }
        let mut reversed = single.clone();
        reversed.features =
            single.features.chunks(INPUT_COUNT).rev().flatten().copied().collect::<Vec<f32>>();
        let backwards = logits(&reversed);
        for (a, b) in own.iter().zip(backwards.iter().rev()) {
            assert!((a - b).abs() < 1e-5, "reversed: {a} and {b}");
        }
    }
}

/// One decision scored without tensors is scored as with them, whatever the width; the shipped network then
/// chooses the same.
#[test]
fn scoring_without_tensors_changes_nothing() {
    let device = Device::flex();
    let drawn = |hidden| {
        let config = NetworkConfig { hidden, shortlist: 12, advised: false, ..NetworkConfig::default() };
        ActorCritic::init(&config, 5, &device)
    };
    let mut shipped = Checkpoint::pretrained().unwrap().network(&device).unwrap();
    shipped.config.caution = Caution::default();
    for network in [shipped, drawn(8), drawn(40)] {
        let mut forward = Forward::of(&network).unwrap();
        let mut policy = Learned::from_network("policy", network.clone());
        let mut episode = Episode::new(world("urban-sensing", 1), 0.3, neutral());
        for _ in 0..100 {
            let Next::Decide(observation) = episode.next() else { panic!("ended early") };
            let mut inputs = Inputs::default();
            inputs.push(&observation, &network);
            let shortlist = &inputs.shortlists[0];
            let (features, mask) = inputs.clone().into_tensors(network.config.shortlist, &device);
            let expected = network.logits(features, mask).into_data().try_to_vec::<f32>().unwrap();
            let expected = &expected[..shortlist.len()];
            let rows = inputs.features.chunks_exact(INPUT_COUNT);
            forward.logits(expected.iter().zip(rows), |expected, logit| {
                assert!((logit - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{logit} and {expected}");
            });
            let choice = choose(&mut policy, &observation);
            let chosen = shortlist.iter().position(|&index| index == choice.index).unwrap();
            let best = expected.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert!(expected[chosen] >= best - 1e-4, "{} of at most {best}", expected[chosen]);
            episode.step(choice.node);
        }
    }
}

/// Asked for certainty that it cannot have, a network does what its prices advise; asked for none, it does not always.
#[test]
fn caution_keeps_to_the_prices() {
    let mut network = Checkpoint::pretrained().unwrap().network(&Device::flex()).unwrap();
    let mut priced = network.priced();
    let mut choosing = |caution| {
        network.config.caution = Caution([caution; 5]);
        Learned::from_network("policy", network.clone())
    };
    let (mut careless, mut careful) = (choosing(0.0), choosing(1e6));
    let mut episode = Episode::new(world("urban-sensing", 1), 0.3, neutral());
    let mut differ = 0;
    for _ in 0..100 {
        let Next::Decide(observation) = episode.next() else { panic!("ended early") };
        let node = choose(&mut priced, &observation).node;
        assert_eq!(choose(&mut careful, &observation).node, node);
        differ += usize::from(choose(&mut careless, &observation).node != node);
        episode.step(node);
    }
    assert!(differ > 0, "it learnt nothing beyond its prices");
}

#[test]
fn masked_candidates_have_no_chance() {
    let config = NetworkConfig { hidden: 8, ..NetworkConfig::default() };
    let device = Device::flex();
    let network = ActorCritic::init(&config, 5, &device);
    let inputs = Inputs {
        shortlists: vec![vec![0, 1]],
        features: vec![0.5; 4 * INPUT_COUNT],
        mask: vec![1.0, 1.0, 0.0, 0.0],
    };
    let (features, mask) = inputs.into_tensors(4, &device);
    let logits = network.logits(features, mask);
    let chances = burn::tensor::activation::softmax(logits, 1).into_data().try_to_vec::<f32>().unwrap();
    assert!((chances[0] - 0.5).abs() < 1e-5 && chances[2] == 0.0 && chances[3] == 0.0, "{chances:?}");
}

/// The life of the first tasks of a world under one policy, as a person would write it down.
fn timeline(name: &str, tasks: usize) -> String {
    let mut scenario = Scenario::load("urban-sensing").unwrap();
    scenario.file.workload.tasks = Some(24);
    let world = Arc::new(scenario.world(0));
    let episode = play(&world, by_name(name, 0).unwrap().as_mut(), 0.5, neutral());
    let mut outcomes = episode.outcomes().to_vec();
    outcomes.sort_by_key(|outcome| outcome.task);
    let mut text = String::new();
    for o in &outcomes[..tasks] {
        let node = o.node.map_or("-", |node| &world.topology.nodes[node as usize].name);
        let phase = |from: remora_env::Time, to: remora_env::Time| to.since_s(from);
        text.push_str(&format!(
            "{:>13} at {:>6.2} s on {node:<12} pull and fetch {:>6.2} s, start {:>5.2} s, run {:>6.2} s, store {:>5.2} s; {:>5.0} MB image, {:>3.0} MB in, {:>3.0} MB out\n",
            world.tasks[o.task as usize].name,
            o.arrived.as_s(),
            phase(o.admitted, o.fetched),
            phase(o.fetched, o.started),
            phase(o.started, o.executed),
            phase(o.executed, o.completed),
            o.image_bytes as f64 / 1e6,
            o.input_bytes as f64 / 1e6,
            o.output_bytes as f64 / 1e6,
        ));
    }
    text
}

/// Golden: a change of behaviour shows as a change of these files (`INSTA_UPDATE=always` rewrites
/// them).
#[test]
fn timelines_are_as_recorded() {
    for name in ["kube-default", "skippy", "greedy-completion", "greedy-marginal"] {
        insta::assert_snapshot!(format!("timeline-{name}"), timeline(name, 12));
    }
}
