//! What played episodes come to: means, paired comparisons, fronts and distributions.

use std::collections::BTreeMap;

use remora_policies::HEURISTICS;
use serde::{Deserialize, Serialize};

use crate::evaluate::{CLAIRVOYANT, Row};
use crate::journal::Played;
use crate::nsga2::{dominates, hypervolume};
use crate::statistics::{Ratio, geometric_mean, paired_ratio};
use crate::timeline::Timeline;

/// Cost of a policy over that of another on the same worlds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    pub scenario: String,
    pub policy: String,
    pub baseline: String,
    pub alpha: f64,
    #[serde(flatten)]
    pub cost: Ratio,
}

/// How response times of a policy are spread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    pub scenario: String,
    pub policy: String,
    pub alpha: f64,
    /// What 0, 5, …, 100 % of the tasks stay under, seconds; means over the worlds.
    pub response_s: Vec<f64>,
}

/// What a policy offers on the way from response time to data moved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Front {
    pub scenario: String,
    pub policy: String,
    /// Share of the rectangle between nothing and `kube-default` (response time by data moved) that its
    /// points dominate, over all α: 0 is no better than `kube-default`, 1 is free.
    pub hypervolume: f64,
    /// At which α no other policy is better in both.
    pub undominated_at: Vec<f64>,
}

/// A whole evaluation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    pub rows: Vec<Row>,
    pub comparisons: Vec<Comparison>,
    #[serde(default)]
    pub fronts: Vec<Front>,
    #[serde(default)]
    pub distributions: Vec<Distribution>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Timeline>,
    /// Content hashes of the policies that are checkpoints, by the names that they were played under.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub checkpoints: BTreeMap<String, String>,
}

/// Whether a name is of a checkpoint rather than of a heuristic, looking ahead or not.
pub fn is_learned(policy: &str) -> bool {
    let policy = policy.split('+').next().unwrap_or(policy);
    !is_heuristic(policy) && !policy.ends_with(".toml") && !CLAIRVOYANT.contains(&policy)
}

/// Whether a name is of a rule: a heuristic that simulates nothing, perhaps with tuned weights.
fn is_rule(policy: &str) -> bool {
    is_heuristic(policy) && policy != "look-ahead" || policy.ends_with(".toml")
}

fn is_heuristic(policy: &str) -> bool {
    HEURISTICS.iter().any(|heuristic| heuristic.name == policy)
}

/// Sums up played episodes.
pub fn summary(played: Vec<Played>) -> Evaluation {
    let mut spread: Vec<(Distribution, f64)> = Vec::new();
    for Played { row, response_s } in &played {
        let of = |(d, _): &&mut (Distribution, f64)| {
            d.scenario == row.scenario && d.policy == row.policy && d.alpha == row.alpha
        };
        match spread.iter_mut().find(of) {
            Some((distribution, worlds)) => {
                *worlds += 1.0;
                for (sum, value) in distribution.response_s.iter_mut().zip(response_s) {
                    *sum += value;
                }
            }
            None => {
                let (scenario, policy, alpha) = (row.scenario.clone(), row.policy.clone(), row.alpha);
                spread.push((Distribution { scenario, policy, alpha, response_s: response_s.clone() }, 1.0));
            }
        }
    }
    let mean = |(mut distribution, worlds): (Distribution, f64)| {
        distribution.response_s.iter_mut().for_each(|sum| *sum /= worlds);
        distribution
    };
    let rows: Vec<Row> = played.into_iter().map(|played| played.row).collect();
    let comparisons = compare(&rows);
    let mut evaluation = Evaluation {
        rows,
        comparisons,
        distributions: spread.into_iter().map(mean).collect(),
        ..Evaluation::default()
    };
    evaluation.fronts = fronts(&evaluation);
    evaluation
}

/// Hypervolumes against `kube-default`, where it was played, and who is dominated where.
fn fronts(evaluation: &Evaluation) -> Vec<Front> {
    let (scenarios, policies, alphas) = evaluation.axes();
    let mut fronts = Vec::new();
    for scenario in &scenarios {
        let point = |policy: &str, alpha: f64| {
            let mean = |figure: fn(&Row) -> f64| evaluation.mean(scenario, policy, alpha, figure);
            vec![mean(|row| row.response_mean_s), mean(|row| row.data_moved_gb)]
        };
        let points = |policy: &str| alphas.iter().map(|&alpha| point(policy, alpha)).collect::<Vec<_>>();
        let all: Vec<Vec<f64>> = policies.iter().flat_map(|policy| points(policy)).collect();
        let kube = policies.iter().any(|policy| policy == "kube-default");
        let corner = kube.then(|| point("kube-default", alphas[0]));
        for policy in &policies {
            let hypervolume = corner.as_ref().map_or(f64::NAN, |corner| {
                hypervolume(&points(policy), corner) / corner.iter().product::<f64>().max(1e-12)
            });
            let free = |alpha: &f64| !all.iter().any(|other| dominates(other, &point(policy, *alpha)));
            fronts.push(Front {
                scenario: scenario.clone(),
                policy: policy.clone(),
                hypervolume: if hypervolume.is_finite() { hypervolume } else { 0.0 },
                undominated_at: alphas.iter().copied().filter(free).collect(),
            });
        }
    }
    fronts
}

/// Scenario, policy and α of rows, each once, in order of first appearance.
pub fn cases(rows: &[Row]) -> Vec<(&str, &str, f64)> {
    let mut keys: Vec<(&str, &str, f64)> = Vec::new();
    for row in rows {
        let key = (row.scenario.as_str(), row.policy.as_str(), row.alpha);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// Pairs every policy with every other, scenario by scenario and α by α.
fn compare(rows: &[Row]) -> Vec<Comparison> {
    let keys = cases(rows);
    // Worlds of one member are alike: it counts once.
    let costs = |scenario: &str, policy: &str, alpha: f64| -> Vec<f64> {
        let of = |row: &&Row| row.scenario == scenario && row.policy == policy && row.alpha == alpha;
        let rows: Vec<&Row> = rows.iter().filter(of).collect();
        let alike = rows.chunk_by(|a, b| a.member.is_some() && a.member == b.member);
        let mean = |rows: &[&Row]| geometric_mean(&rows.iter().map(|row| row.cost).collect::<Vec<_>>());
        alike.map(mean).collect()
    };
    let mut comparisons = Vec::new();
    for &(scenario, policy, alpha) in &keys {
        for &(_, baseline, _) in
            keys.iter().filter(|key| key.0 == scenario && key.2 == alpha && key.1 != policy)
        {
            let cost = paired_ratio(&costs(scenario, policy, alpha), &costs(scenario, baseline, alpha));
            let (scenario, policy) = (scenario.to_owned(), policy.to_owned());
            comparisons.push(Comparison { scenario, policy, baseline: baseline.to_owned(), alpha, cost });
        }
    }
    comparisons
}

impl Evaluation {
    /// Calls a policy by another name, such as a checkpoint by its role.
    pub fn rename(&mut self, from: &str, to: &str) {
        let policies = self.rows.iter_mut().map(|row| &mut row.policy);
        let compared = self.comparisons.iter_mut().flat_map(|c| [&mut c.policy, &mut c.baseline]);
        let fronts = self.fronts.iter_mut().map(|front| &mut front.policy);
        let spread = self.distributions.iter_mut().map(|distribution| &mut distribution.policy);
        let timeline = self.timeline.iter_mut().map(|timeline| &mut timeline.policy);
        for name in
            policies.chain(compared).chain(fronts).chain(spread).chain(timeline).filter(|name| *name == from)
        {
            to.clone_into(name);
        }
        if let Some(hash) = self.checkpoints.remove(from) {
            self.checkpoints.insert(to.to_owned(), hash);
        }
    }

    /// Mean over the worlds of one figure.
    pub fn mean(&self, scenario: &str, policy: &str, alpha: f64, figure: impl Fn(&Row) -> f64) -> f64 {
        let of = |row: &&Row| row.scenario == scenario && row.policy == policy && row.alpha == alpha;
        let values: Vec<f64> = self.rows.iter().filter(of).map(figure).collect();
        values.iter().sum::<f64>() / values.len().max(1) as f64
    }

    /// Mean ratio of a policy's cost to what no schedule costs less than; `None` where there is no bound.
    pub fn over_bound(&self, scenario: &str, policy: &str, alpha: f64) -> Option<f64> {
        let of = |row: &&Row| row.scenario == scenario && row.policy == policy && row.alpha == alpha;
        let ratio = |row: &Row| row.bound.filter(|bound| *bound > 0.0).map(|bound| row.cost / bound);
        let ratios: Option<Vec<f64>> = self.rows.iter().filter(of).map(ratio).collect();
        ratios.filter(|ratios| !ratios.is_empty()).map(|ratios| geometric_mean(&ratios))
    }

    /// The α in the middle of those evaluated.
    pub fn middle_alpha(&self) -> f64 {
        let (_, _, mut alphas) = self.axes();
        alphas.sort_by(f64::total_cmp);
        alphas.get(alphas.len() / 2).copied().unwrap_or(0.5)
    }

    /// The comparison of one policy with another.
    pub fn comparison(&self, scenario: &str, policy: &str, baseline: &str, alpha: f64) -> Option<Ratio> {
        let of = |c: &&Comparison| {
            c.scenario == scenario && c.policy == policy && c.baseline == baseline && c.alpha == alpha
        };
        self.comparisons.iter().find(of).map(|comparison| comparison.cost)
    }

    /// The rule to beat: of the policies played that neither learn nor simulate, the one with the least mean
    /// cost.
    pub fn opponent(&self, scenario: &str, alpha: f64) -> Option<String> {
        let (_, policies, _) = self.axes();
        let cost = |policy: &str| self.mean(scenario, policy, alpha, |row| row.cost);
        policies.into_iter().filter(|policy| is_rule(policy)).min_by(|a, b| cost(a).total_cmp(&cost(b)))
    }

    /// Scenarios, policies and values of α, each in order of first appearance.
    pub fn axes(&self) -> (Vec<String>, Vec<String>, Vec<f64>) {
        let (mut scenarios, mut policies, mut alphas) = (Vec::new(), Vec::new(), Vec::new());
        for row in &self.rows {
            if !scenarios.contains(&row.scenario) {
                scenarios.push(row.scenario.clone());
            }
            if !policies.contains(&row.policy) {
                policies.push(row.policy.clone());
            }
            if !alphas.contains(&row.alpha) {
                alphas.push(row.alpha);
            }
        }
        (scenarios, policies, alphas)
    }
}
