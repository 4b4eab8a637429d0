//! The gate: whether a version is better than the champion, and surely so.

use remora_trainer::statistics::sure_mean;
use serde::{Deserialize, Serialize};

use super::manifest::{Better, Gate};

/// What an evaluation run writes as `scores.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scores {
    /// What was measured, for people.
    #[serde(default)]
    pub metric: String,
    /// Of the version that is judged, sample by sample.
    pub candidate: Vec<f64>,
    /// Of the champion on the same samples, or of whom else it must be better than; left out where there is nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub champion: Option<Vec<f64>>,
}

/// What the gate says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    pub passed: bool,
    pub metric: String,
    pub samples: u64,
    /// Mean scores.
    pub candidate: Option<f64>,
    pub champion: Option<f64>,
    pub reason: String,
}

impl Verdict {
    /// A version that nobody has to evaluate, or that could not be.
    pub fn without_scores(passed: bool, reason: impl Into<String>) -> Verdict {
        Verdict {
            passed,
            metric: String::new(),
            samples: 0,
            candidate: None,
            champion: None,
            reason: reason.into(),
        }
    }
}

/// Judges a version. Of each pair counts by how much the candidate is better, less the margin's share of the
/// champion's score; the mean of that has to be above 0 with the gate's confidence.
pub fn judge(gate: &Gate, scores: &Scores, has_champion: bool) -> Verdict {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let verdict = |passed, reason| Verdict {
        passed,
        metric: scores.metric.clone(),
        samples: scores.candidate.len() as u64,
        candidate: Some(mean(&scores.candidate)).filter(|mean| mean.is_finite()),
        champion: scores.champion.as_deref().map(mean).filter(|mean| mean.is_finite()),
        reason,
    };
    let finite =
        scores.candidate.iter().chain(scores.champion.iter().flatten()).all(|score| score.is_finite());
    if !finite {
        return verdict(false, "a score is not a finite number".to_owned());
    }
    let samples = scores.candidate.len();
    if samples < gate.samples as usize {
        return verdict(false, format!("{samples} samples, and the gate wants {}", gate.samples));
    }
    let sign = if gate.better == Better::Lower { 1.0 } else { -1.0 };
    let Some(champion) = &scores.champion else {
        if has_champion {
            return verdict(false, "the champion was not evaluated beside it".to_owned());
        }
        let candidate = mean(&scores.candidate);
        return match gate.first {
            Some(first) if sign * (first - candidate) < 0.0 => {
                verdict(false, format!("the first version scores {candidate:.4}, and the gate wants {first}"))
            }
            _ => verdict(true, "it is the first version".to_owned()),
        };
    };
    if champion.len() != samples {
        let reason =
            format!("{samples} scores of the candidate, {} of the champion: no pairs", champion.len());
        return verdict(false, reason);
    }
    let gains = scores.candidate.iter().zip(champion);
    let gains: Vec<f64> =
        gains.map(|(ours, theirs)| sign * (theirs - ours) - gate.margin * theirs.abs()).collect();
    let (sure, percent) = (sure_mean(&gains, gate.confidence), 100.0 * gate.confidence);
    let (ours, theirs) = (mean(&scores.candidate), mean(champion));
    let compared = format!("{ours:.4} against the champion's {theirs:.4} on {samples} samples");
    match sure {
        Some(sure) if sure > 0.0 => verdict(true, format!("better: {compared}, {percent:.0} % sure")),
        _ if gate.margin > 0.0 => {
            verdict(false, format!("not surely better by {:.1} %: {compared}", 100.0 * gate.margin))
        }
        _ => verdict(false, format!("not surely better: {compared}")),
    }
}
