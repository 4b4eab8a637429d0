//! One seed, an independent stream for each purpose: drawing more of one thing shifts no other.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// What a stream of random numbers is for. The number is part of every recorded result: append,
/// never reorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Where datasets live and which image variant an instance runs.
    Placement = 1,
    /// When tasks arrive.
    Arrivals = 2,
    /// How long tasks take.
    Execution = 3,
    /// Which images are on which node at the start.
    Warmth = 4,
    /// What a randomised policy draws.
    Policy = 5,
    /// Initial weights of a network.
    Weights = 6,
    /// The order of minibatches.
    Shuffle = 7,
    /// Resampling for confidence intervals.
    Bootstrap = 8,
    /// When nodes and links fail and return.
    Faults = 9,
    /// Which executions straggle.
    Stragglers = 10,
    /// How long transfers are under way before their first byte.
    Delay = 11,
    /// When bursts of arrivals begin and end.
    Bursts = 12,
    /// What a generated scenario is made of.
    Family = 13,
    /// Which futures a policy looks into.
    LookAhead = 14,
    /// What a search for weights draws.
    Tuning = 15,
    /// How the prices of a generation differ.
    Evolution = 16,
}

/// The generator for `purpose` under `seed`; `index` separates parallel users of one purpose.
pub fn stream(seed: u64, purpose: Purpose, index: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream((index << 8) | purpose as u64);
    rng
}

/// A number in (0, 1) that depends on these four alone: for draws that have no order of their own.
/// Three rounds of the finaliser of SplitMix64 (Steele, Lea and Flood, *Fast Splittable Pseudorandom
/// Number Generators*, OOPSLA 2014).
pub fn unit(seed: u64, purpose: Purpose, index: u64, step: u64) -> f64 {
    let mixed = mix(mix(mix(seed ^ ((purpose as u64) << 56)).wrapping_add(index)).wrapping_add(step));
    ((mixed >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
