//! Copies of what everybody reads.

use std::sync::Arc;

use remora_env::cluster::Item;
use remora_env::family::Family;
use remora_env::{Episode, Next, Observation, Scenario};
use remora_policies::prices::{Priced, Prices};
use remora_policies::rollout::{Figures, play, reference};
use remora_policies::{Policy, choose, tuned_greedy};

const SERVING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/serving.toml");

const GALLERY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/gallery.toml");

const STUDIO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/studio.toml");

fn priced() -> Priced {
    Priced { prices: Prices::default(), shortlist: 16 }
}

/// More is asked than the node with the weights can answer. No single task is worth a copy, so that a rule which looks at
/// one at a time lets all of them wait.
#[test]
fn a_copy_is_made_once_its_lack_has_cost_as_much() {
    let scenario = Scenario::load(SERVING).unwrap();
    let reference = reference(&scenario);
    let world = Arc::new(scenario.world(1));
    let alpha = 0.5;
    let cost = |policy: &mut dyn Policy| {
        let figures = Figures::of(&play(&world, policy, alpha, reference));
        (figures.cost_per_task(alpha, reference), figures.moved_bytes_per_task())
    };
    let (greedy, moved_by_greedy) = cost(tuned_greedy().as_mut());
    let (earning, moved) = cost(&mut priced());
    assert!(earning < 0.5 * greedy, "{earning} with copies as they are earned, {greedy} without");
    assert!(moved > moved_by_greedy, "{moved} and {moved_by_greedy} bytes");
}

/// All models have room on the servers together, a quarter of them on any one. Where only bytes count, all servers are alike to
/// a rule that does not see what has to leave: it takes the first, again and again.
#[test]
fn what_has_to_leave_a_disk_counts() {
    let scenario = Scenario::load(GALLERY).unwrap();
    let reference = reference(&scenario);
    let world = Arc::new(scenario.world(1));
    let moved = |policy: &mut dyn Policy| {
        let outcome = play(&world, policy, 1.0, reference);
        Figures::of(&outcome).moved_bytes_per_task() * world.tasks.len() as f64
    };
    let each_once = 12.0 * 6e9 * 4.0;
    let (greedy, priced) = (moved(tuned_greedy().as_mut()), moved(&mut priced()));
    assert!(greedy > 2.0 * each_once, "{greedy} bytes");
    assert!(priced < 1.1 * each_once, "{priced} bytes, {each_once} for each model once");
}

/// The image is dearer than any model, so that no single task is worth a second copy of it: each goes where the image is, and
/// what is there leaves. What left so is set against the copy.
#[test]
fn what_left_where_the_image_is_earns_another_copy_of_it() {
    let scenario = Scenario::load(STUDIO).unwrap();
    let mut episode = Episode::new(Arc::new(scenario.world(1)), 1.0, reference(&scenario));
    let mut policy = priced();
    let (mut pulls, mut displaced_bytes, mut most_bytes) = (0, 0.0, 0.0);
    while let Next::Decide(observation) = episode.next() {
        let choice = choose(&mut policy, &observation);
        let candidate = observation.candidates()[choice.index];
        if candidate.missing_image_bytes > candidate.arriving_image_bytes {
            (pulls, displaced_bytes) = (pulls + 1, 0.0);
        } else if !being_pulled(&observation, 0, candidate.node) {
            let brought = candidate.missing_input_bytes;
            displaced_bytes += observation.cluster.displaced_bytes(candidate.node, brought) as f64;
        }
        episode.step(choice.node);
        assert_near(episode.cluster().image_lack(0).displaced_bytes, displaced_bytes);
        most_bytes = displaced_bytes.max(most_bytes);
    }
    assert_eq!(pulls, 4, "four servers have room for all models");
    assert!(most_bytes < 18e9, "{most_bytes} bytes had left without another copy");
}

/// A queue brings what it needs, and only what the last of it need is still there at its end.
#[test]
fn what_a_queue_brings_counts_while_it_stays() {
    let scenario = Scenario::load(GALLERY).unwrap();
    let mut episode = Episode::new(Arc::new(scenario.world(1)), 1.0, reference(&scenario));
    let (mut stays, mut left) = (0, 0);
    let mut waiting: Vec<u32> = Vec::new();
    while let Next::Decide(observation) = episode.next() {
        let candidate = observation.candidates()[1];
        let node = &observation.cluster.nodes[candidate.node as usize];
        let model = observation.task.inputs[0];
        waiting.drain(..waiting.len() - node.queued as usize);
        // Three models have room.
        let mut last: Vec<u32> = vec![model];
        let mut brought = false;
        for &other in waiting.iter().rev() {
            if !last.contains(&other) {
                last.push(other);
            }
            if last.len() > 3 {
                break;
            }
            brought |= other == model;
        }
        if last.len() > 3 && !observation.cluster.is_arriving(Item::Dataset(model), candidate.node) {
            assert_eq!(candidate.missing_input_bytes == 0, brought, "of {waiting:?} the end brings {model}");
            (stays, left) = (stays + u32::from(brought), left + u32::from(!brought));
        }
        waiting.push(model);
        episode.step(candidate.node);
    }
    assert!(stays > 0 && left > 0, "{stays} stay, {left} leave");
}

/// What waiting has cost counts from the last copy on, and not while one is on its way.
#[test]
fn waiting_is_counted_between_copies() {
    let scenario = Scenario::load(SERVING).unwrap();
    let mut episode = Episode::new(Arc::new(scenario.world(1)), 0.5, reference(&scenario));
    let mut policy = priced();
    let (mut copies, mut waited_s) = (0, 0.0);
    while let Next::Decide(observation) = episode.next() {
        let choice = choose(&mut policy, &observation);
        let candidate = observation.candidates()[choice.index];
        if candidate.missing_input_bytes > 0 {
            (copies, waited_s) = (copies + 1, 0.0);
        } else if !under_way(&observation, Item::Dataset(0)) {
            waited_s += candidate.wait_s;
        }
        episode.step(choice.node);
        assert_near(episode.cluster().waited_for_copy_s(0), waited_s);
    }
    assert!(copies > 1, "nothing was copied a second time");
}

/// Who joins a queue that brings what it reads copies nothing: its waiting counts on.
#[test]
fn waiting_counts_on_where_a_queue_brings_the_copy() {
    let scenario = Scenario::load(GALLERY).unwrap();
    let mut episode = Episode::new(Arc::new(scenario.world(1)), 0.5, reference(&scenario));
    let mut waited_s = vec![0.0; episode.cluster().catalogue.datasets.len()];
    let mut waiting: Vec<u32> = Vec::new();
    let mut brought = 0;
    while let Next::Decide(observation) = episode.next() {
        let candidate = observation.candidates()[1];
        let (cluster, model) = (observation.cluster, observation.task.inputs[0]);
        let queued = cluster.nodes[candidate.node as usize].queued as usize;
        waiting.drain(..waiting.len() - queued);
        if !cluster.has_dataset(model, candidate.node) && !waiting.contains(&model) {
            waited_s[model as usize] = 0.0;
        } else if !under_way(&observation, Item::Dataset(model)) {
            brought += usize::from(!cluster.has_dataset(model, candidate.node));
            waited_s[model as usize] += candidate.wait_s;
        }
        waiting.push(model);
        episode.step(candidate.node);
        assert_near(episode.cluster().waited_for_copy_s(model), waited_s[model as usize]);
    }
    assert!(brought > 0, "nobody joined a queue that brings what it reads");
}

/// The same of images, and what it comes to: no candidate is dearer for it, and none where the task would wait.
#[test]
fn waiting_for_images_is_counted_between_pulls() {
    let mut earned = 0;
    // What is reported late is counted late.
    let members = (0..12).map(|member| Scenario::member(Family::Validation, member));
    for scenario in members.filter(|scenario| scenario.file.faults.telemetry_s == 0.0) {
        let mut episode = Episode::new(Arc::new(scenario.world(1)), 0.25, reference(&scenario));
        let mut policy = priced();
        let mut waited_s = vec![0.0; episode.cluster().catalogue.images.len()];
        while let Next::Decide(observation) = episode.next() {
            for candidate in observation.candidates() {
                let net = observation.net(candidate);
                let other = net.moved_bytes != candidate.moved_bytes;
                assert!(net.moved_bytes <= candidate.moved_bytes && net.moved_bytes >= 0.0);
                assert!(candidate.fits_now || !other, "a copy where the task would wait");
                earned += usize::from(other);
            }
            let choice = choose(&mut policy, &observation);
            let candidate = observation.candidates()[choice.index];
            let image = observation.task.image;
            if let Some(image) = image {
                let (missing, arriving) = observation.cluster.missing_image_bytes(image, choice.node);
                if missing > arriving {
                    waited_s[image as usize] = 0.0;
                } else if !being_pulled(&observation, image, choice.node) {
                    waited_s[image as usize] += candidate.wait_s;
                }
            }
            episode.step(choice.node);
            if let Some(image) = image {
                assert_near(episode.cluster().image_lack(image).waited_s, waited_s[image as usize]);
            }
        }
    }
    assert!(earned > 0, "nobody waited long enough for an image");
}

fn assert_near(told: f64, want: f64) {
    assert!((told - want).abs() <= 1e-6 * want.max(1.0), "{told}, want {want}");
}

/// Whether any layer of the image, as this node needs it, is on its way to any node.
fn being_pulled(observation: &Observation<'_>, image: u32, node: u32) -> bool {
    let arch = observation.cluster.topology.nodes[node as usize].arch;
    let layers = observation.cluster.catalogue.images[image as usize].layers(arch);
    layers.iter().any(|&layer| under_way(observation, Item::Layer(layer)))
}

/// Whether an item is on its way to any node.
fn under_way(observation: &Observation<'_>, item: Item) -> bool {
    let nodes = 0..observation.cluster.nodes.len() as u32;
    nodes.into_iter().any(|node| observation.cluster.is_arriving(item, node))
}
