//! Deciding by trying: what would each of the best candidates lead to?

use std::num::NonZero;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
#[allow(clippy::disallowed_types, reason = "a budget of time is the machine's, not the simulation's")]
use std::time::Instant;

use remora_env::random::{Purpose, unit};
use remora_env::topology::NodeId;
use remora_env::{Episode, Next, Observation};
use serde::{Deserialize, Serialize};

use crate::{Policy, choose};

/// Rolls the simulator forward from each of a policy's best candidates, under a quick policy, through
/// futures that could follow ([`Observation::imagine`]: arrivals of the recent past over again, nothing
/// that nobody can know), the same ones for every candidate. The cheapest wins if it is cheaper than the
/// policy's own choice by more than chance. One step of policy improvement (rollout algorithm: Bertsekas,
/// Tsitsiklis, Wu, *Rollout algorithms for combinatorial optimization*, J. Heuristics 3, 1997).
///
/// The policy's own choice is there at once, and futures only improve on it: with a budget of time it
/// looks into as many as there is time for. Where an observation knows neither a simulator nor what came before it, the
/// policy itself decides.
pub struct LookAhead {
    name: String,
    policy: Box<dyn Policy>,
    quick: Quick,
    seed: u64,
    depth: Depth,
    budget: Option<Duration>,
}

/// Makes the policy that goes on where a candidate was placed: one for each thread that looks ahead.
pub type Quick = Box<dyn Fn() -> Box<dyn Policy> + Send + Sync>;

/// How far to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Depth {
    /// How many candidates are tried.
    pub candidates: usize,
    /// In how many futures, at most.
    pub futures: usize,
    /// How many arrivals each has.
    pub tasks: usize,
}

impl Default for Depth {
    fn default() -> Depth {
        Depth { candidates: 4, futures: 8, tasks: 40 }
    }
}

/// Futures that a budget of time may be spent on.
const MOST_FUTURES: usize = 64;

impl std::fmt::Debug for LookAhead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {:?}, {:?}", self.name, self.depth, self.budget)
    }
}

impl LookAhead {
    /// Looks ahead from the best candidates of `policy`, going on with `quick`.
    pub fn new(name: &str, policy: Box<dyn Policy>, quick: Quick, seed: u64) -> LookAhead {
        LookAhead { name: name.to_owned(), policy, quick, seed, depth: Depth::default(), budget: None }
    }

    /// For so long per decision, however many futures that is; what it chooses depends on the machine.
    pub fn within(mut self, budget: Duration) -> LookAhead {
        self.depth.futures = MOST_FUTURES;
        self.budget = Some(budget);
        self
    }
}

impl Policy for LookAhead {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        self.policy.score(observation, scores);
        let scored: Vec<usize> = (0..scores.len()).filter(|&index| scores[index].is_finite()).collect();
        let best = promising(observation, &scored, |index| scores[index], self.depth.candidates);
        if best.len() < 2 {
            return;
        }
        let nodes: Vec<NodeId> = best.iter().map(|&index| observation.node(index)).collect();
        let raced = race(&*self.quick, observation, &nodes, self.depth, self.seed, self.budget);
        let Some(gains) = raced else { return };
        scores.fill(f64::NEG_INFINITY);
        for (&index, gain) in best.iter().zip(gains) {
            scores[index] = gain.mean - LIKELY * gain.error;
        }
        // Of equals the policy's own choice, which is the first.
        scores[best[0]] = 0f64.next_up();
    }
}

/// Of the candidates at `indices` those worth simulating, at most `count`: those with the best scores, best
/// first, and last the one that would cost least with the image there already, since what pulling it leads
/// to shows only later.
pub fn promising(
    observation: &Observation<'_>,
    indices: &[usize],
    score: impl Fn(usize) -> f64,
    count: usize,
) -> Vec<usize> {
    let mut promising = indices.to_vec();
    promising.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
    let warm_cost = |&index: &usize| observation.warm_cost(&observation.candidates()[index]);
    let rest = count.saturating_sub(1).min(promising.len());
    let warmest = (rest..promising.len())
        .min_by(|&a, &b| warm_cost(&promising[a]).total_cmp(&warm_cost(&promising[b])));
    if let Some(warmest) = warmest {
        promising.swap(rest, warmest);
    }
    promising.truncate(count);
    promising
}

/// What simulating a candidate showed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gain {
    /// Mean of what it costs less than the first candidate, over the futures that both were simulated in.
    pub mean: f64,
    /// Its standard error.
    pub error: f64,
}

impl Gain {
    fn of(first: &[f64], costs: &[f64]) -> Gain {
        let gains = || first.iter().zip(costs).map(|(first, cost)| first - cost);
        let count = gains().count() as f64;
        let mean = gains().sum::<f64>() / count;
        let variance = gains().map(|gain| (gain - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
        Gain { mean, error: (variance / count).sqrt() }
    }

    /// Of what the simulation does not rule out, the nearest to a `guess`.
    pub fn nearest(self, guess: f64) -> f64 {
        guess.clamp(self.mean - SURE * self.error, self.mean + SURE * self.error)
    }

    /// The part of it that is not chance.
    pub fn sure(self) -> f64 {
        self.mean.signum() * (self.mean.abs() - SURE * self.error).max(0.0)
    }
}

/// Standard errors below which a difference counts as chance in what is learnt.
const SURE: f64 = 2.0;
/// Standard errors that speak for another choice than the policy's own. Of 1,400 decisions with eight futures each, judged
/// by eighty others, one error gained a fifth to a third more than two.
const LIKELY: f64 = 1.0;
/// Standard errors behind the best at which a candidate is given up.
const HOPELESS: f64 = 4.0;

/// Places the waiting task on each of `nodes` and goes on with a quick policy, over futures that are the same for
/// all, until only one is left that may be the best, or until the futures or the time are used up or
/// none can be imagined. `None` where nothing can be told: there were less than two futures.
///
/// With a budget of time every processor looks into futures; without one only the thread that asks, so that
/// nothing depends on the machine.
#[allow(clippy::disallowed_types, reason = "see the import")]
pub fn race(
    quick: &(dyn Fn() -> Box<dyn Policy> + Sync),
    observation: &Observation<'_>,
    nodes: &[NodeId],
    depth: Depth,
    seed: u64,
    budget: Option<Duration>,
) -> Option<Vec<Gain>> {
    let until = budget.map(|budget| Instant::now() + budget);
    let in_time = || until.is_none_or(|until| Instant::now() < until);
    let race = Mutex::new(Race::of(nodes.len(), depth.futures as u64));
    let work = || {
        let mut quick = quick();
        loop {
            let begun = lock(&race).begin().filter(|_| in_time());
            let Some((future, running)) = begun else { break };
            let seed = (unit(seed, Purpose::LookAhead, observation.id, future) * 2f64.powi(52)) as u64;
            let Some(future) = observation.imagine(seed, depth.tasks) else { break };
            let cost =
                |candidate: &usize| in_time().then(|| follow(quick.as_mut(), &future, nodes[*candidate]));
            let costs: Option<Vec<f64>> = running.iter().map(cost).collect();
            let Some(costs) = costs else { break };
            lock(&race).end(&running, costs);
        }
    };
    let threads = if budget.is_some() { thread::available_parallelism().map_or(1, NonZero::get) } else { 1 };
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    lock(&race).gains()
}

/// What happened to a thread that looks ahead shows where it is joined.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Candidates that are simulated through the same futures.
struct Race {
    /// Of each candidate, in the futures that it was simulated in: the first of those of every other that was
    /// given up later.
    costs: Vec<Vec<f64>>,
    /// Those that may be the best.
    running: Vec<usize>,
    /// Numbers of the futures that nobody looks into yet.
    futures: Range<u64>,
}

impl Race {
    fn of(candidates: usize, futures: u64) -> Race {
        Race { costs: vec![Vec::new(); candidates], running: (0..candidates).collect(), futures: 0..futures }
    }

    /// The next future to look into, and the candidates to simulate there; `None` where that is over.
    fn begin(&mut self) -> Option<(u64, Vec<usize>)> {
        let goes_on = self.running.len() >= 2;
        goes_on.then(|| self.futures.next()).flatten().map(|future| (future, self.running.clone()))
    }

    /// What candidates cost in one future; some of them may have been given up meanwhile.
    fn end(&mut self, candidates: &[usize], costs: Vec<f64>) {
        for (candidate, cost) in candidates.iter().zip(costs) {
            if self.running.contains(candidate) {
                self.costs[*candidate].push(cost);
            }
        }
        self.give_up();
    }

    /// Gives up the candidates that are far behind the best of those still running.
    fn give_up(&mut self) {
        let Race { costs, running, .. } = self;
        let sum = |candidate: &usize| costs[*candidate].iter().sum::<f64>();
        let best = running.iter().copied().min_by(|a, b| sum(a).total_cmp(&sum(b)));
        if let Some(best) = best.filter(|best| costs[*best].len() >= 2) {
            running.retain(|&candidate| {
                let behind = Gain::of(&costs[candidate], &costs[best]);
                candidate == best || behind.mean <= HOPELESS * behind.error
            });
        }
    }

    /// What each costs less than the first, which may have been given up: then it is over the futures that it had.
    fn gains(&self) -> Option<Vec<Gain>> {
        let first = &self.costs[0];
        (first.len() >= 2).then(|| self.costs.iter().map(|of| Gain::of(first, of)).collect())
    }
}

/// What placing the waiting task on `node` and then going on with a policy costs in one future.
fn follow(quick: &mut dyn Policy, future: &Episode, node: NodeId) -> f64 {
    let mut episode = future.clone();
    let mut elapsed = episode.step(node);
    let mut total = episode.cost_of(elapsed);
    while let Next::Decide(observation) = episode.next() {
        let node = choose(quick, &observation).node;
        elapsed = episode.step(node);
        total += episode.cost_of(elapsed);
    }
    total
}

/// A policy that may not cost much more than greedy's estimate says is possible, unless looking ahead shows
/// that it pays: else the candidate with the least expected cost is taken.
pub struct Guarded {
    name: String,
    policy: Box<dyn Policy>,
    quick: Quick,
    seed: u64,
    overruled: u64,
}

/// Expected cost above the least, in parts of it, that needs no proof.
const TRUSTED: f64 = 0.5;

impl std::fmt::Debug for Guarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} overruled", self.name, self.overruled)
    }
}

impl Guarded {
    /// Guards `policy`; looking ahead goes on with `quick`.
    pub fn new(name: &str, policy: Box<dyn Policy>, quick: Quick, seed: u64) -> Guarded {
        Guarded { name: name.to_owned(), policy, quick, seed, overruled: 0 }
    }

    /// Whether looking ahead finds `chosen` cheaper than `greedy`.
    fn confirms(&mut self, observation: &Observation<'_>, chosen: usize, greedy: usize) -> bool {
        let nodes = [observation.node(chosen), observation.node(greedy)];
        let raced = race(&*self.quick, observation, &nodes, Depth::default(), self.seed, None);
        raced.is_some_and(|gains| gains[1].mean < 0.0)
    }
}

impl Policy for Guarded {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&mut self, observation: &Observation<'_>, scores: &mut Vec<f64>) {
        self.policy.score(observation, scores);
        let chosen = crate::argmax(scores);
        let cost = |c| observation.cost(&observation.net(c));
        let costs: Vec<f64> = observation.candidates().iter().map(cost).collect();
        let least = |a: &usize, b: &usize| costs[*a].total_cmp(&costs[*b]);
        let greedy = (0..costs.len()).min_by(least).expect("an observation has a candidate");
        let dear = costs[chosen] > costs[greedy] * (1.0 + TRUSTED);
        if dear && !self.confirms(observation, chosen, greedy) {
            self.overruled += 1;
            scores[greedy] = scores[chosen].next_up();
        }
    }

    fn overruled(&self) -> u64 {
        self.overruled
    }
}
