//! What the parts of an estimate are worth, which depends on the situation: greedy marginal cost with prices
//! that are learnt.

use remora_env::Observation;
use remora_env::observation::Look;

use crate::Policy;
use crate::heuristics::Coefficients;
use crate::tuned::MARGINAL;

/// What a candidate's cost is made of. Each is a cost at the observation's α: seconds over τ times 1 − α, bytes
/// over σ times α.
pub const PARTS: [&str; 15] = [
    // Phases of the task's own life, seconds.
    "wait",
    "pull",
    "fetch",
    "start",
    "execution",
    "store",
    // What the others on the node lose by sharing its CPUs.
    "crowding",
    // Executing where there are accelerators without need of one.
    "accelerator",
    // How much longer transfers take because links are shared: as much do the others lose.
    "sharing",
    // A tenth of what all that is placed on the node still expects to take: the parts are of like size.
    "backlog",
    // Staying, from arrival to result, on a node whose CPUs are in use already.
    "occupation",
    // Less to pull for the tasks of the same image that a minute brings; at most one of them counts.
    "pull-saved",
    // Bytes of the inputs, the output and what leaves the disk for what comes, of the image, and of the image for the tasks
    // to come: without those that are earned, see `Observation::net`.
    "data",
    "image-data",
    "image-data-saved",
];

/// Positions of the dial for which there are prices; between them they are interpolated.
pub const ANCHORS: [f64; 3] = [0.0, 0.5, 1.0];
/// Prices at one of them: those that hold always, and what is added as the share of candidates grows where the
/// task would have to wait.
pub const SITUATIONS: [&str; 2] = ["always", "congestion"];

/// Prices of all parts in all situations at one position of the dial.
pub type Sheet = [[f32; PARTS.len()]; SITUATIONS.len()];

/// What each part is worth at each of [`ANCHORS`].
#[derive(Clone, Debug, PartialEq)]
pub struct Prices(pub [Sheet; ANCHORS.len()]);

impl Default for Prices {
    /// The coefficients of the tuned greedy, whatever the congestion.
    fn default() -> Prices {
        Prices(MARGINAL.map(|tuned| {
            let Coefficients { wait, pull, transfer, image_data, crowding, accelerator } = tuned;
            let own = [wait, pull, transfer, 1.0, 1.0, transfer];
            let others = [crowding, accelerator, 0.0, 0.0, 0.0, 0.0, 1.0, image_data, 0.0];
            let mut always = [0.0; PARTS.len()];
            always.iter_mut().zip(own.into_iter().chain(others)).for_each(|(price, x)| *price = x as f32);
            [always, [0.0; PARTS.len()]]
        }))
    }
}

impl Prices {
    /// Expected costs of the candidates looked at, in their order; 1 is what the reference costs.
    pub fn costs(&self, observation: &Observation<'_>, looks: &[Look]) -> Vec<f64> {
        let (prices, saved) = (self.at(observation), saved(observation));
        let cost = |look| parts(observation, look, saved).iter().zip(&prices).map(|(a, b)| a * b).sum();
        looks.iter().map(cost).collect()
    }

    /// The prices in the situation of an observation; what is negative counts as nothing.
    fn at(&self, observation: &Observation<'_>) -> [f64; PARTS.len()] {
        let (below, above, share) = between(ANCHORS.len(), observation.alpha);
        let congestion = observation.congestion();
        let price =
            |[always, added]: &Sheet, part| f64::from(always[part]) + congestion * f64::from(added[part]);
        std::array::from_fn(|part| {
            let price = (1.0 - share) * price(&self.0[below], part) + share * price(&self.0[above], part);
            price.max(0.0)
        })
    }

    /// All of them in one row, anchor by anchor.
    pub fn flat(&self) -> Vec<f32> {
        self.0.concat().concat()
    }

    /// The reverse of [`Prices::flat`]; `None` where they are not as many.
    pub fn from_flat(values: &[f32]) -> Option<Prices> {
        let row = |row: &[f32]| row.try_into().ok();
        let rows: Vec<[f32; PARTS.len()]> = values.chunks(PARTS.len()).map(row).collect::<Option<_>>()?;
        let sheets: Vec<Sheet> =
            rows.chunks(SITUATIONS.len()).map(|rows| rows.try_into().ok()).collect::<Option<_>>()?;
        sheets.try_into().ok().map(Prices)
    }
}

/// Which two of so many positions of the dial, evenly spaced from 0 to 1, α is between, and how far it is from the first
/// to the second.
pub(crate) fn between(positions: usize, alpha: f64) -> (usize, usize, f64) {
    let position = alpha.clamp(0.0, 1.0) * (positions - 1) as f64;
    let (below, above) = (position.floor() as usize, position.ceil() as usize);
    (below, above, position - below as f64)
}

/// Tasks of the image that a minute brings, at most one: for them it need not be pulled again.
fn saved(observation: &Observation<'_>) -> f64 {
    let rate = observation.task.image.map_or(0.0, |image| observation.cluster.image_rate_per_s(image));
    (60.0 * rate).min(1.0)
}

/// The parts of a candidate's cost, in the order of [`PARTS`].
fn parts(observation: &Observation<'_>, look: &Look, saved: f64) -> [f64; PARTS.len()] {
    let c = &look.net;
    let cluster = observation.cluster;
    let (second, byte) = observation.rates();
    let state = &cluster.nodes[c.node as usize];
    let kind = cluster.catalogue.kind(observation.task);
    let wasteful = kind.requests.accelerators == 0 && !state.accelerator_free_millis.is_empty();
    let in_use =
        1.0 - state.cpu_free_millis as f64 / f64::from(cluster.topology.nodes[c.node as usize].cpu_millis);
    let shared = c.pull_s + c.fetch_s + c.store_s - look.idle_transfer_s;
    let seconds = [
        c.wait_s,
        c.pull_s,
        c.fetch_s,
        c.start_s,
        c.execution_s,
        c.store_s,
        Coefficients::crowded_s(observation, c),
        if wasteful { c.execution_s } else { 0.0 },
        shared.max(0.0),
        0.1 * look.backlog_s,
        c.completion_s() * in_use,
        -saved * c.pull_s,
    ];
    let bytes = [c.moved_bytes - c.image_moved_bytes, c.image_moved_bytes, -saved * c.image_moved_bytes];
    let mut parts = [0.0; PARTS.len()];
    let costs = seconds.iter().map(|s| s * second).chain(bytes.iter().map(|b| b * byte));
    parts.iter_mut().zip(costs).for_each(|(part, cost)| *part = cost);
    parts
}

/// The candidate with the least cost at given prices.
#[derive(Clone, Debug)]
pub struct Priced {
    pub prices: Prices,
    /// How many candidates it looks at: see `Observation::shortlist`.
    pub shortlist: usize,
}

impl Policy for Priced {
    fn name(&self) -> &str {
        "priced"
    }

    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        scores.resize(observation.count(), f64::NEG_INFINITY);
        let shortlist = observation.shortlist(self.shortlist);
        let costs = self.prices.costs(observation, &observation.look(&shortlist));
        for (&index, cost) in shortlist.iter().zip(costs) {
            scores[index] = -cost;
        }
    }
}
