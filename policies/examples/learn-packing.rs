//! Learns the weights of the learned packer on seeds that no table is made of.
//!
//! `cargo run --release -p remora-policies --no-default-features --example learn-packing -- FOLDER [SEED]
//! [GENERATIONS]`, where the lists of the openb trace lie. One core, eleven minutes; a seed repeats itself.
//!
//! A separable natural evolution strategy: every generation draws candidates around a centre, in mirrored pairs,
//! and plays them on the same instances; the better ranks pull centre and spread towards them. It starts from
//! fgd. Instances are of training seeds, each seen by one generation. The best centre on validation seeds wins.
//!
//! Source: Wierstra et al., "Natural Evolution Strategies", JMLR 15 (2014): the separable one, with
//! its utilities and rates; the cooling is ours.

use std::error::Error;
use std::ops::Range;
use std::path::Path;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use remora_env::random::{Purpose, stream};
use remora_policies::packing::{
    AS_FGD, FEATURES, KINDS, Learned, MOST_PERCENT, WEIGHTS, Weights, Workload, play,
};

const FIRST_TRAINING_SEED: u64 = 1000;
const VALIDATION_SEEDS: Range<u64> = 500..520;
/// Pairs of mirrored candidates in a generation.
const PAIRS: usize = 8;
/// Instances on which each candidate of a generation plays.
const INSTANCES: u64 = 4;
/// Standard deviation of a weight at first; that of fgd's own score is 1 a step.
const SPREAD: f64 = 0.3;
/// What is left of all standard deviations after a generation, beside what the search makes of each.
const COOLING: f64 = 0.97;
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
    let mut search = Search { centre: AS_FGD, spread: [SPREAD; WEIGHTS] };
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
        let centre = search.centre.map(|weight| (1000.0 * weight).round() / 1000.0);
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

/// A normal distribution of weights, each on its own.
struct Search {
    centre: Weights,
    spread: Weights,
}

impl Search {
    /// One generation; the mean of what its candidates are worth.
    fn step(&mut self, luck: &mut ChaCha8Rng, worth: impl Fn(&Weights) -> f64) -> f64 {
        let mut draws: Vec<(f64, Weights)> = Vec::new();
        for _ in 0..PAIRS {
            let draw: Weights = std::array::from_fn(|_| normal(luck));
            for draw in [draw, draw.map(|x| -x)] {
                let candidate = std::array::from_fn(|i| self.centre[i] + self.spread[i] * draw[i]);
                draws.push((worth(&candidate), draw));
            }
        }
        draws.sort_by(|a, b| b.0.total_cmp(&a.0));
        self.follow(&draws);
        draws.iter().map(|(worth, _)| worth).sum::<f64>() / draws.len() as f64
    }

    /// Moves by what was drawn, best first.
    fn follow(&mut self, draws: &[(f64, Weights)]) {
        let size = WEIGHTS as f64;
        let rate = (3.0 + size.ln()) / (5.0 * size.sqrt());
        let utilities = utilities(draws.len());
        for i in 0..WEIGHTS {
            let sum = |of: fn(f64) -> f64| -> f64 {
                draws.iter().zip(&utilities).map(|((_, draw), utility)| utility * of(draw[i])).sum()
            };
            self.centre[i] += self.spread[i] * sum(|x| x);
            self.spread[i] *= COOLING * (rate / 2.0 * sum(|x| x * x - 1.0)).exp();
        }
    }
}

/// What ranks count, best first; together nothing.
fn utilities(ranks: usize) -> Vec<f64> {
    let half = (ranks as f64 / 2.0 + 1.0).ln();
    let raw: Vec<f64> = (1..=ranks).map(|rank| f64::max(0.0, half - (rank as f64).ln())).collect();
    let sum: f64 = raw.iter().sum();
    raw.iter().map(|utility| utility / sum - 1.0 / ranks as f64).collect()
}

/// A standard normal number, after Box and Muller.
fn normal(luck: &mut ChaCha8Rng) -> f64 {
    let (radius, angle): (f64, f64) = (luck.random(), luck.random());
    (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

fn print_weights(weights: &Weights) {
    for (weights, feature) in weights.chunks(KINDS).zip(FEATURES) {
        let weights: Vec<_> = weights.iter().map(|weight| format!("{weight:.3}, ")).collect();
        println!("    {}// {feature}", weights.concat());
    }
}
