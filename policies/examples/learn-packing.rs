//! Learns the weights of the learned packer on seeds that no table is made of.
//!
//! `cargo run --release -p remora-policies --no-default-features --example learn-packing -- FOLDER [SEED]
//! [GENERATIONS]`, where the lists of the openb trace lie. One core, eleven minutes; a seed repeats itself.
//!
//! `remora_policies::search` starts from fgd. Instances are of training seeds, each seen by one generation, all of
//! whose candidates play the same. The best centre on validation seeds wins.

use std::error::Error;
use std::ops::Range;
use std::path::Path;

use remora_env::random::{Purpose, stream};
use remora_policies::packing::{AS_FGD, FEATURES, KINDS, Learned, MOST_PERCENT, Weights, Workload, play};
use remora_policies::search::Search;

const FIRST_TRAINING_SEED: u64 = 1000;
const VALIDATION_SEEDS: Range<u64> = 500..520;
/// Instances on which each candidate of a generation plays.
const INSTANCES: u64 = 4;
/// Standard deviation of a weight at first; that of fgd's own score is 1 a step.
const SPREAD: f64 = 0.3;
/// Generations between validations.
const CHECK_EVERY: u64 = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("name the folder with the openb lists")?;
    let seed = arguments.next().map_or(Ok(1), |seed| seed.parse())?;
    let generations = arguments.next().map_or(Ok(60), |generations| generations.parse())?;
    let lists = ["openb_node_list_gpu_node.csv", "openb_pod_list_default.csv"];
    let [nodes, pods] = lists.map(|list| Path::new(&folder).join(list));
    print_weights(&learn(&Workload::read(&nodes, &pods)?, seed, generations));
    Ok(())
}

/// The best centre on validation seeds.
fn learn(workload: &Workload, seed: u64, generations: u64) -> Weights {
    let mut luck = stream(seed, Purpose::Tuning, 0);
    let mut search = Search::around(AS_FGD, SPREAD);
    let validate = |weights: &Weights| allocated(workload, weights, VALIDATION_SEEDS);
    let mut best = (validate(&AS_FGD), AS_FGD);
    println!("fgd: {:.3} % on validation seeds", best.0);
    for generation in 0..generations {
        let first = FIRST_TRAINING_SEED + generation * INSTANCES;
        let seeds = first..first + INSTANCES;
        let figure = search.step(&mut luck, |weights| allocated(workload, weights, seeds.clone()));
        if (generation + 1) % CHECK_EVERY != 0 {
            continue;
        }
        let centre = search.rounded();
        let validated = validate(&centre);
        let spread = mean(&search.spread);
        println!(
            "generation {}: {figure:.3} %, validated {validated:.3} %, spread {spread:.3}",
            generation + 1
        );
        if validated > best.0 {
            best = (validated, centre);
        }
    }
    best.1
}

/// What weights allocate at 130 % of arrived demand, per cent of the GPUs, mean of these seeds.
fn allocated(workload: &Workload, weights: &Weights, seeds: Range<u64>) -> f64 {
    let mut packer = Learned::new(*weights, &workload.pods);
    let figures: Vec<_> =
        seeds.map(|seed| play(&workload.instance(seed), &mut packer).allocated[MOST_PERCENT]).collect();
    mean(&figures)
}

fn mean(figures: &[f64]) -> f64 {
    figures.iter().sum::<f64>() / figures.len() as f64
}

fn print_weights(weights: &Weights) {
    for (weights, feature) in weights.chunks(KINDS).zip(FEATURES) {
        let weights: Vec<_> = weights.iter().map(|weight| format!("{weight:.3}, ")).collect();
        println!("    {}// {feature}", weights.concat());
    }
}
