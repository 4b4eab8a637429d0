//! A baseline of one's own, beside those that are there.
//!
//! `cargo run --release -p remora-policies --example own-baseline -- [SCENARIO]`

use std::error::Error;
use std::sync::Arc;

use remora_env::Scenario;
use remora_env::observation::Observation;
use remora_policies::rollout::{Figures, play, reference};
use remora_policies::{Policy, by_name};

/// The least bytes, and of equals the soonest done.
struct ThriftyThenSoon;

impl Policy for ThriftyThenSoon {
    fn name(&self) -> &str {
        "thrifty-then-soon"
    }

    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        let soon = |seconds: f64| seconds / (1.0 + seconds);
        scores.extend(
            observation.candidates().iter().map(|node| -node.moved_bytes - soon(node.completion_s())),
        );
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "urban-sensing".to_owned());
    let (scenario, alpha) = (Scenario::load(&name)?, 0.5);
    let units = reference(&scenario);
    let rivals: [Box<dyn Policy>; 3] =
        [Box::new(ThriftyThenSoon), by_name("kube-default", 0)?, by_name("greedy-marginal-tuned", 0)?];
    for mut policy in rivals {
        // Worlds 0 to 4 are those of `remora evaluate --seeds 5`: no training meets them.
        let worlds = (0..5).map(|seed| Arc::new(scenario.world(seed)));
        let figures: Vec<_> =
            worlds.map(|world| Figures::of(&play(&world, &mut *policy, alpha, units))).collect();
        let costs = figures.iter().map(|figures| figures.cost_per_task(alpha, units));
        println!("{:22} {:.3} of kube-default", policy.name(), costs.sum::<f64>() / figures.len() as f64);
    }
    Ok(())
}
