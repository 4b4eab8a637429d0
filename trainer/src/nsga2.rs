//! Search for weights under several objectives at once.
//!
//! NSGA-II: Deb, Pratap, Agarwal, Meyarivan, *A fast and elitist multiobjective genetic algorithm:
//! NSGA-II*, IEEE TEVC 6(2), 2002, with simulated binary crossover and polynomial mutation (η = 15 and 20).
//! The crates that have it pull in linear algebra, Gaussian processes or Python for these two pages.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use remora_env::random::{Purpose, stream};

/// What to search and how long.
#[derive(Clone, Debug)]
pub struct Search {
    /// Range of each gene.
    pub ranges: Vec<(f64, f64)>,
    /// How many live at a time; even.
    pub population: usize,
    pub generations: usize,
    pub seed: u64,
}

/// A solution; each objective is better the smaller it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Individual {
    pub genes: Vec<f64>,
    pub objectives: Vec<f64>,
    /// Which front it is on, 0 the best, and how far it is from its neighbours there.
    rank: usize,
    crowding: f64,
}

const CROSSOVER_ETA: f64 = 15.0;
const MUTATION_ETA: f64 = 20.0;
const CROSSOVER_CHANCE: f64 = 0.9;

/// Whether `a` is nowhere worse than `b` and somewhere better.
pub fn dominates(a: &[f64], b: &[f64]) -> bool {
    a.iter().zip(b).all(|(a, b)| a <= b) && a.iter().zip(b).any(|(a, b)| a < b)
}

/// Searches from `start` and random solutions; `evaluate` gives the objectives of each of several. Returns
/// those that no other found dominates, best in the first objective first.
pub fn search(
    search: &Search,
    start: &[Vec<f64>],
    mut evaluate: impl FnMut(&[Vec<f64>]) -> Vec<Vec<f64>>,
) -> Vec<Individual> {
    let mut rng = stream(search.seed, Purpose::Tuning, 0);
    let random = |rng: &mut ChaCha8Rng| {
        search.ranges.iter().map(|&(low, high)| rng.random_range(low..=high)).collect()
    };
    let mut genes: Vec<Vec<f64>> = start.to_vec();
    genes.truncate(search.population);
    while genes.len() < search.population {
        genes.push(random(&mut rng));
    }
    let mut living = individuals(genes, &mut evaluate);
    rank(&mut living);
    for _ in 0..search.generations {
        let mut children = Vec::with_capacity(search.population);
        while children.len() < search.population {
            let (mother, father) = (tournament(&living, &mut rng), tournament(&living, &mut rng));
            children.extend(cross(&mother.genes, &father.genes, &search.ranges, &mut rng));
        }
        children.truncate(search.population);
        for child in &mut children {
            mutate(child, &search.ranges, &mut rng);
        }
        living.append(&mut individuals(children, &mut evaluate));
        rank(&mut living);
        living.sort_by(|a, b| a.rank.cmp(&b.rank).then(b.crowding.total_cmp(&a.crowding)));
        living.truncate(search.population);
    }
    living.retain(|individual| individual.rank == 0);
    living.sort_by(|a, b| a.objectives[0].total_cmp(&b.objectives[0]));
    living.dedup_by(|a, b| a.objectives == b.objectives);
    living
}

fn individuals(
    genes: Vec<Vec<f64>>,
    evaluate: &mut impl FnMut(&[Vec<f64>]) -> Vec<Vec<f64>>,
) -> Vec<Individual> {
    let objectives = evaluate(&genes);
    let both = genes.into_iter().zip(objectives);
    both.map(|(genes, objectives)| Individual { genes, objectives, rank: 0, crowding: 0.0 }).collect()
}

/// Gives each its front and its distance from its neighbours there.
fn rank(living: &mut [Individual]) {
    let mut left: Vec<usize> = (0..living.len()).collect();
    let mut rank = 0;
    while !left.is_empty() {
        let dominated =
            |&a: &usize| left.iter().any(|&b| dominates(&living[b].objectives, &living[a].objectives));
        let (behind, front): (Vec<usize>, Vec<usize>) = left.iter().copied().partition(dominated);
        for &member in &front {
            living[member].rank = rank;
            living[member].crowding = 0.0;
        }
        crowd(living, front);
        left = behind;
        rank += 1;
    }
}

fn crowd(living: &mut [Individual], mut front: Vec<usize>) {
    for objective in 0..living[front[0]].objectives.len() {
        let value = |living: &[Individual], member: usize| living[member].objectives[objective];
        front.sort_by(|&a, &b| value(living, a).total_cmp(&value(living, b)));
        let (first, last) = (front[0], front[front.len() - 1]);
        let span = value(living, last) - value(living, first);
        living[first].crowding = f64::INFINITY;
        living[last].crowding = f64::INFINITY;
        for window in front.windows(3).filter(|_| span > 0.0) {
            living[window[1]].crowding += (value(living, window[2]) - value(living, window[0])) / span;
        }
    }
}

fn tournament<'a>(living: &'a [Individual], rng: &mut ChaCha8Rng) -> &'a Individual {
    let (a, b) = (&living[rng.random_range(0..living.len())], &living[rng.random_range(0..living.len())]);
    if (b.rank, -b.crowding) < (a.rank, -a.crowding) { b } else { a }
}

/// Simulated binary crossover.
fn cross(mother: &[f64], father: &[f64], ranges: &[(f64, f64)], rng: &mut ChaCha8Rng) -> [Vec<f64>; 2] {
    let mut children = [mother.to_vec(), father.to_vec()];
    if rng.random_bool(1.0 - CROSSOVER_CHANCE) {
        return children;
    }
    for (gene, &(low, high)) in ranges.iter().enumerate() {
        if rng.random_bool(0.5) {
            continue;
        }
        let u: f64 = rng.random();
        let spread = if u <= 0.5 { 2.0 * u } else { 1.0 / (2.0 * (1.0 - u)) };
        let beta = spread.powf(1.0 / (CROSSOVER_ETA + 1.0));
        let (a, b) = (mother[gene], father[gene]);
        children[0][gene] = (0.5 * ((1.0 + beta) * a + (1.0 - beta) * b)).clamp(low, high);
        children[1][gene] = (0.5 * ((1.0 - beta) * a + (1.0 + beta) * b)).clamp(low, high);
    }
    children
}

/// Polynomial mutation of one gene on average.
fn mutate(genes: &mut [f64], ranges: &[(f64, f64)], rng: &mut ChaCha8Rng) {
    let chance = 1.0 / genes.len() as f64;
    for (gene, &(low, high)) in genes.iter_mut().zip(ranges) {
        if !rng.random_bool(chance) {
            continue;
        }
        let u: f64 = rng.random();
        let power = 1.0 / (MUTATION_ETA + 1.0);
        let step = if u < 0.5 { (2.0 * u).powf(power) - 1.0 } else { 1.0 - (2.0 * (1.0 - u)).powf(power) };
        *gene = (*gene + step * (high - low)).clamp(low, high);
    }
}

/// Area (or volume) that a set of points dominates below `corner`, by inclusion of slices along the last
/// objective; 2 or 3 objectives are quick.
pub fn hypervolume(points: &[Vec<f64>], corner: &[f64]) -> f64 {
    let mut inside: Vec<&Vec<f64>> =
        points.iter().filter(|point| point.iter().zip(corner).all(|(value, limit)| value < limit)).collect();
    let Some((limit, rest)) = corner.split_last() else { return 0.0 };
    if rest.is_empty() {
        let least = inside.iter().map(|point| point[0]).fold(*limit, f64::min);
        return limit - least;
    }
    inside.sort_by(|a, b| a[rest.len()].total_cmp(&b[rest.len()]));
    let mut volume = 0.0;
    for index in 0..inside.len() {
        let from = inside[index][rest.len()];
        let to = inside.get(index + 1).map_or(*limit, |next| next[rest.len()]);
        let slice: Vec<Vec<f64>> =
            inside[..=index].iter().map(|point| point[..rest.len()].to_vec()).collect();
        volume += (to - from) * hypervolume(&slice, rest);
    }
    volume
}

#[cfg(test)]
mod tests {
    use super::{Search, dominates, hypervolume, search};

    /// ZDT1: the front is f₂ = 1 − √f₁, where all genes but the first are 0.
    #[test]
    fn it_finds_the_front_of_zdt1() {
        let search_for = Search { ranges: vec![(0.0, 1.0); 6], population: 40, generations: 120, seed: 1 };
        let zdt1 = |genes: &[Vec<f64>]| {
            let of = |x: &Vec<f64>| {
                let g = 1.0 + 9.0 * x[1..].iter().sum::<f64>() / (x.len() - 1) as f64;
                vec![x[0], g * (1.0 - (x[0] / g).sqrt())]
            };
            genes.iter().map(of).collect()
        };
        let front = search(&search_for, &[], zdt1);
        assert!(front.len() > 20, "{}", front.len());
        for point in &front {
            let [f1, f2] = [point.objectives[0], point.objectives[1]];
            assert!(f2 - (1.0 - f1.sqrt()) < 0.05, "({f1}, {f2}) is above the front");
        }
        // The front's own hypervolume below (1, 1) is 2/3.
        let points: Vec<Vec<f64>> = front.iter().map(|point| point.objectives.clone()).collect();
        assert!(hypervolume(&points, &[1.0, 1.0]) > 0.62, "{}", hypervolume(&points, &[1.0, 1.0]));
        assert_eq!(front, search(&search_for, &[], zdt1), "the same seed, the same front");
    }

    #[test]
    fn volumes_and_dominance_as_worked_by_hand() {
        assert!(dominates(&[1.0, 2.0], &[1.0, 3.0]) && !dominates(&[1.0, 2.0], &[1.0, 2.0]));
        let points = vec![vec![1.0, 3.0], vec![2.0, 1.0], vec![2.5, 2.5]];
        // Below (4, 4): 3 × 1 and 2 × 3, of which 2 × 1 counts once.
        assert_eq!(hypervolume(&points, &[4.0, 4.0]), 3.0 + 6.0 - 2.0);
        assert_eq!(hypervolume(&[vec![5.0, 0.0]], &[4.0, 4.0]), 0.0, "beyond the corner");
        assert_eq!(hypervolume(&[vec![1.0, 1.0, 1.0]], &[2.0, 3.0, 4.0]), 6.0);
    }
}
