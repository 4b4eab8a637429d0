//! Learns the weights of the learned list scheduler on random jobs that no table is made of.
//!
//! `cargo run --release -p remora-policies --no-default-features --example learn-list -- [SEED] [GENERATIONS]`. One
//! core, minutes; a seed repeats itself.
//!
//! `remora_policies::search` starts from the network-aware list. Jobs are of training seeds, each seen by one
//! generation; what counts is the makespan over that of the shorter of the network-aware list and one node. The
//! best centre on validation seeds wins.

use std::error::Error;
use std::ops::Range;

use rand::RngExt;
use remora_env::random::{Purpose, stream};
use remora_policies::graph::learned::{AS_LIST, FEATURES, Weights, learned};
use remora_policies::graph::{Job, min_list_one_node};
use remora_policies::search::Search;

const FIRST_TRAINING_SEED: u64 = 100_000;
const VALIDATION_SEEDS: Range<u64> = 50_000..51_000;
/// Jobs that each candidate of a generation schedules.
const JOBS: u64 = 400;
/// Standard deviation of a weight at first.
const SPREAD: f64 = 0.5;
/// Generations between validations.
const CHECK_EVERY: u64 = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let seed = arguments.next().map_or(Ok(1), |seed| seed.parse())?;
    let generations = arguments.next().map_or(Ok(100), |generations| generations.parse())?;
    let weights = learn(seed, generations);
    for (feature, name) in FEATURES.into_iter().enumerate() {
        println!("    {:.3}, {:.3}, // {name}", weights[feature], weights[FEATURES.len() + feature]);
    }
    Ok(())
}

/// The best centre on validation seeds.
fn learn(seed: u64, generations: u64) -> Weights {
    let mut luck = stream(seed, Purpose::Tuning, 1);
    let mut search = Search::around(AS_LIST, SPREAD);
    let mut best = (saved(&AS_LIST, VALIDATION_SEEDS), AS_LIST);
    println!("the network-aware list: {:.4} on validation seeds", best.0);
    for generation in 0..generations {
        let first = FIRST_TRAINING_SEED + generation * JOBS;
        let figure = search.step(&mut luck, |weights| saved(weights, first..first + JOBS));
        if (generation + 1) % CHECK_EVERY != 0 {
            continue;
        }
        let centre = search.rounded();
        let validated = saved(&centre, VALIDATION_SEEDS);
        println!("generation {}: {figure:.4}, validated {validated:.4}", generation + 1);
        if validated > best.0 {
            best = (validated, centre);
        }
    }
    best.1
}

/// Mean logarithm of how much shorter schedules are than those of the shorter of list and one node.
fn saved(weights: &Weights, seeds: Range<u64>) -> f64 {
    let count = seeds.clone().count() as f64;
    let saved = seeds.map(|seed| {
        let mut rng = stream(seed, Purpose::Arrivals, 8);
        let (tasks, machines) = (rng.random_range(5..=20), rng.random_range(2..=8));
        let rho = 10_f64.powf(rng.random_range(-1.0..1.0));
        let job = Job::random(&mut rng, tasks, rho);
        let [theirs, ours] = [min_list_one_node(&job, machines), learned(&job, machines, weights)];
        (f64::from(theirs.makespan(&job)) / f64::from(ours.makespan(&job))).ln()
    });
    saved.sum::<f64>() / count
}
