//! What decisions were expected to save against Kubernetes' default scheduler, by the hour.

use std::collections::BTreeMap;

use remora_proto::v1::{Saved, SavedHour};

use super::messages::Answer;

/// Who decisions are compared with.
pub const KUBE_DEFAULT: &str = "kube-default";
const HOUR_MS: i64 = 3_600_000;
/// Hours that are kept.
const KEPT: i64 = 8 * 24;

/// What a decision adds; nothing where nobody asked what else would have been chosen.
fn of(answer: &Answer) -> Option<Saved> {
    let other = answer.kube_default.as_ref()?;
    let chosen = &answer.chosen.candidate;
    Some(Saved {
        cluster_id: String::new(),
        decisions: 1,
        differ: i64::from(other.node != chosen.node),
        transfer_bytes: answer.chosen.bytes() as i64,
        kube_default_transfer_bytes: other.bytes as i64,
        response_s: chosen.completion_s(),
        kube_default_response_s: other.response_s,
    })
}

/// Adds up, whatever clusters they are of.
pub fn add(sum: &mut Saved, more: &Saved) {
    sum.decisions += more.decisions;
    sum.differ += more.differ;
    sum.transfer_bytes = sum.transfer_bytes.saturating_add(more.transfer_bytes);
    sum.kube_default_transfer_bytes =
        sum.kube_default_transfer_bytes.saturating_add(more.kube_default_transfer_bytes);
    sum.response_s += more.response_s;
    sum.kube_default_response_s += more.kube_default_response_s;
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
        let Some(saved) = of(answer) else { return };
        let hour = hour(at_ms);
        add(self.0.entry(hour).or_default(), &saved);
        while self.0.first_key_value().is_some_and(|(first, _)| first + KEPT * HOUR_MS <= hour) {
            self.0.pop_first();
        }
    }

    /// All together since an hour began.
    pub fn since(&self, begin_ms: i64) -> Saved {
        let mut sum = Saved::default();
        self.0.range(begin_ms..).for_each(|(_, saved)| add(&mut sum, saved));
        sum
    }

    /// As snapshots keep them, oldest first.
    pub fn kept(&self) -> Vec<SavedHour> {
        let hour = |(&begin_ms, saved): (&i64, &Saved)| SavedHour { begin_ms, saved: Some(saved.clone()) };
        self.0.iter().map(hour).collect()
    }

    /// From what a snapshot kept; hours that it says nothing of are left out.
    pub fn restored(kept: &[SavedHour]) -> Savings {
        let hour = |kept: &SavedHour| Some((kept.begin_ms, kept.saved.clone()?));
        Savings(kept.iter().filter_map(hour).collect())
    }
}
