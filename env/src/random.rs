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
}

/// The generator for `purpose` under `seed`; `index` separates parallel users of one purpose.
pub fn stream(seed: u64, purpose: Purpose, index: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream((index << 8) | purpose as u64);
    rng
}
