//! What decisions were expected to save against Kubernetes' default scheduler, by the hour.

use std::collections::BTreeMap;

use remora_proto::v1 as wire;

use super::messages::Answer;

/// Who decisions are compared with.
pub const KUBE_DEFAULT: &str = "kube-default";
const HOUR_MS: i64 = 3_600_000;
/// Hours that are kept.
const KEPT: i64 = 8 * 24;

/// Decisions beside what Kubernetes' default scheduler would have decided; bytes and seconds are of all together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Saved {
    decisions: i64,
    differ: i64,
    bytes: i64,
    default_bytes: i64,
    response_s: f64,
    default_response_s: f64,
}

impl Saved {
    fn of(answer: &Answer) -> Option<Saved> {
        let other = answer.kube_default.as_ref()?;
        let chosen = &answer.chosen.candidate;
        Some(Saved {
            decisions: 1,
            differ: i64::from(other.node != chosen.node),
            bytes: answer.chosen.bytes() as i64,
            default_bytes: other.bytes as i64,
            response_s: chosen.completion_s(),
            default_response_s: other.response_s,
        })
    }

    pub fn add(&mut self, more: &Saved) {
        self.decisions += more.decisions;
        self.differ += more.differ;
        self.bytes = self.bytes.saturating_add(more.bytes);
        self.default_bytes = self.default_bytes.saturating_add(more.default_bytes);
        self.response_s += more.response_s;
        self.default_response_s += more.default_response_s;
    }

    pub fn told(&self, cluster: &str) -> wire::Saved {
        wire::Saved {
            cluster_id: cluster.to_owned(),
            decisions: self.decisions,
            differ: self.differ,
            transfer_bytes: self.bytes,
            kube_default_transfer_bytes: self.default_bytes,
            response_s: self.response_s,
            kube_default_response_s: self.default_response_s,
        }
    }

    fn read(told: &wire::Saved) -> Saved {
        Saved {
            decisions: told.decisions,
            differ: told.differ,
            bytes: told.transfer_bytes,
            default_bytes: told.kube_default_transfer_bytes,
            response_s: told.response_s,
            default_response_s: told.kube_default_response_s,
        }
    }
}

/// When the hour began that a time is in, milliseconds since 1970.
pub fn hour(at_ms: i64) -> i64 {
    at_ms.div_euclid(HOUR_MS) * HOUR_MS
}

/// The last hours, by when they began.
#[derive(Clone, Debug, Default)]
pub struct Savings(BTreeMap<i64, Saved>);

impl Savings {
    /// Counts a decision.
    pub fn add(&mut self, at_ms: i64, answer: &Answer) {
        let Some(saved) = Saved::of(answer) else { return };
        let hour = hour(at_ms);
        self.0.entry(hour).or_default().add(&saved);
        while self.0.first_key_value().is_some_and(|(first, _)| first + KEPT * HOUR_MS <= hour) {
            self.0.pop_first();
        }
    }

    /// All together since an hour began.
    pub fn since(&self, begin_ms: i64) -> Saved {
        let mut sum = Saved::default();
        self.0.range(begin_ms..).for_each(|(_, saved)| sum.add(saved));
        sum
    }

    pub fn kept(&self) -> Vec<wire::SavedHour> {
        let hour =
            |(&begin_ms, saved): (&i64, &Saved)| wire::SavedHour { begin_ms, saved: Some(saved.told("")) };
        self.0.iter().map(hour).collect()
    }

    pub fn restored(kept: &[wire::SavedHour]) -> Savings {
        let hour = |kept: &wire::SavedHour| Some((kept.begin_ms, Saved::read(kept.saved.as_ref()?)));
        Savings(kept.iter().filter_map(hour).collect())
    }
}
