//! How far a policy is trusted with a cluster: who decides a request, and when trust is withdrawn.

use std::collections::VecDeque;

use remora_policies::HEURISTICS;

/// How far the champion is trusted, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Autonomy {
    /// It is not asked.
    Off,
    /// It says what it would do.
    Advise,
    /// It decides a share of the requests.
    Share,
    /// It decides.
    Act,
}

impl Autonomy {
    /// One step down, or where it is at the bottom.
    fn less(self) -> Autonomy {
        match self {
            Autonomy::Act => Autonomy::Share,
            Autonomy::Share => Autonomy::Advise,
            Autonomy::Advise | Autonomy::Off => Autonomy::Off,
        }
    }
}

/// How policies serve a cluster.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Serving {
    pub autonomy: Autonomy,
    /// Shares of the requests: the champion's where it has one, the candidate's of what would be the
    /// champion's, the shadow's.
    pub share: f64,
    pub candidate_share: f64,
    pub shadow_share: f64,
    /// The heuristic that decides otherwise.
    pub fallback: String,
    /// How much dearer than the heuristic's choice was expected to be decisions may come, on average.
    pub regret_budget: f64,
    /// The dial of requests that do not set it.
    pub alpha: f64,
    /// After how many times its expected response a decision without an outcome is taken as ended.
    pub expire_after: f64,
}

impl Serving {
    /// The champion decides; the heuristic steps in where it has no time.
    pub fn new(alpha: f64) -> Serving {
        Serving {
            autonomy: Autonomy::Act,
            share: 0.5,
            candidate_share: 0.1,
            shadow_share: 1.0,
            fallback: "greedy-marginal-tuned".to_owned(),
            regret_budget: 0.0,
            alpha,
            expire_after: 20.0,
        }
    }
}

/// Whether a name is a heuristic's.
pub fn is_heuristic(name: &str) -> bool {
    HEURISTICS.iter().any(|heuristic| heuristic.name == name)
}

/// Who decides a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decider {
    Champion,
    Candidate,
    Fallback(Why),
}

/// Why the heuristic decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Off,
    Advises,
    OutsideShare,
    NoTime,
    /// For a reason that another version of the service had.
    Another,
}

impl Why {
    const ALL: [Why; 5] = [Why::Off, Why::Advises, Why::OutsideShare, Why::NoTime, Why::Another];

    /// As answers tell it.
    pub fn text(self) -> &'static str {
        match self {
            Why::Off => "the policy is off",
            Why::Advises => "the policy advises only",
            Why::OutsideShare => "outside the policy's share",
            Why::NoTime => "no time left",
            Why::Another => "another reason",
        }
    }

    /// What an answer told; nothing where the heuristic did not decide.
    pub fn told(text: &str) -> Option<Why> {
        let known = Why::ALL.into_iter().find(|why| why.text() == text);
        (!text.is_empty()).then(|| known.unwrap_or(Why::Another))
    }
}

impl Serving {
    /// Who decides the request of this number. What falls to whom depends on the number alone.
    pub fn decider(&self, number: u64) -> Decider {
        let trusted = match self.autonomy {
            Autonomy::Off => return Decider::Fallback(Why::Off),
            Autonomy::Advise => return Decider::Fallback(Why::Advises),
            Autonomy::Share => draw(number, 1) < self.share,
            Autonomy::Act => true,
        };
        if !trusted {
            Decider::Fallback(Why::OutsideShare)
        } else if draw(number, 2) < self.candidate_share {
            Decider::Candidate
        } else {
            Decider::Champion
        }
    }

    /// Whether the shadow decides it too.
    pub fn shadowed(&self, number: u64) -> bool {
        draw(number, 3) < self.shadow_share
    }
}

/// A number in [0, 1) that follows from two others: SplitMix64's finaliser (Steele, Lea, Flood 2014).
fn draw(number: u64, purpose: u64) -> f64 {
    let mut bits = number.wrapping_mul(4).wrapping_add(purpose).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (bits ^ (bits >> 31)) as f64 / 2_f64.powi(64)
}

/// Decisions that the budget looks back on.
const WINDOW: usize = 200;
/// With fewer, chance decides.
const LEAST: usize = 30;
/// A decision that came so many times dearer counts as no more.
const WORST: f64 = 4.0;

/// How much dearer a decision came than was expected, as a share of that, 4 at most. Nothing where nothing was expected
/// or what it cost is not known.
pub(crate) fn dearer(actual: f64, expected: f64) -> Option<f64> {
    (expected > 0.0 && actual.is_finite()).then(|| (actual / expected - 1.0).min(WORST))
}

/// How much dearer than the heuristic's choice was expected to be the last decisions came.
#[derive(Clone, Debug, Default)]
pub struct Regret(VecDeque<f64>);

impl Regret {
    /// Notes a decision of the policy that ended: what it cost, and what the heuristic expected.
    pub fn add(&mut self, actual: f64, expected: f64) {
        self.0.extend(dearer(actual, expected));
        if self.0.len() > WINDOW {
            self.0.pop_front();
        }
    }

    /// Mean, and of how many.
    pub fn mean(&self) -> (f64, usize) {
        let count = self.0.len();
        (if count == 0 { 0.0 } else { self.0.iter().sum::<f64>() / count as f64 }, count)
    }

    /// The step down that a budget demands now, if any; then it begins anew.
    pub fn step_down(&mut self, serving: &Serving) -> Option<Autonomy> {
        let (mean, count) = self.mean();
        let beyond = serving.regret_budget > 0.0 && count >= LEAST && mean > serving.regret_budget;
        let trusted = serving.autonomy > Autonomy::Advise;
        (beyond && trusted).then(|| {
            self.0.clear();
            serving.autonomy.less()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Autonomy, Decider, Regret, Serving};

    #[test]
    fn shares_are_kept() {
        let serving =
            Serving { autonomy: Autonomy::Share, share: 0.3, candidate_share: 0.5, ..Serving::new(0.5) };
        let count = |who| (0..10_000).filter(|&number| serving.decider(number) == who).count();
        let (champion, candidate) = (count(Decider::Champion), count(Decider::Candidate));
        assert!(
            (1350..1650).contains(&champion) && (1350..1650).contains(&candidate),
            "{champion} {candidate}"
        );
    }

    #[test]
    fn a_policy_beyond_its_budget_steps_down_once() {
        let serving = Serving { regret_budget: 0.2, ..Serving::new(0.5) };
        let mut regret = Regret::default();
        for _ in 0..29 {
            regret.add(1.5, 1.0);
            assert_eq!(regret.step_down(&serving), None);
        }
        regret.add(1.5, 1.0);
        assert_eq!(regret.step_down(&serving), Some(Autonomy::Share));
        assert_eq!(regret.step_down(&serving), None);
    }

    #[test]
    fn without_a_budget_nothing_happens() {
        let mut regret = Regret::default();
        (0..300).for_each(|_| regret.add(9.0, 1.0));
        assert_eq!(regret.step_down(&Serving::new(0.5)), None);
        assert_eq!(regret.mean(), (4.0, 200));
    }
}
