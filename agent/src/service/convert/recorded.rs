//! From receipts and reported outcomes to the lines of a trace.

use std::collections::BTreeSet;

use remora_env::outcome::End;
use remora_env::trace::{Arrival, Decision, Ended};
use remora_proto::v1 as wire;

/// A task as the journal tells it: how it was placed and what was reported of it.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Milliseconds since 1970.
    pub at_ms: i64,
    pub decision_id: String,
    pub request_id: String,
    pub task: wire::Task,
    pub node: String,
    policy: String,
    fallback: String,
    alpha: f64,
    expected: wire::Candidate,
    pub reported: Option<Reported>,
    /// Somebody says that it was wrong: what came of it teaches nothing.
    pub disputed: bool,
}

/// What was reported of it, and when.
#[derive(Clone, Debug)]
pub struct Reported {
    pub at_ms: i64,
    pub outcome: wire::ReportOutcomeRequest,
}

impl Placed {
    /// A decision as it was written down; `None` where it says too little.
    pub fn of(receipt: wire::Receipt) -> Option<Placed> {
        let (request, mut response) = (receipt.request?, receipt.response?);
        let expected = (!response.candidates.is_empty()).then(|| response.candidates.swap_remove(0))?;
        Some(Placed {
            at_ms: receipt.at_ms,
            decision_id: response.decision_id,
            request_id: request.request_id,
            task: request.task?,
            node: response.node,
            policy: response.policy,
            fallback: response.fallback,
            alpha: response.alpha,
            expected,
            reported: None,
            disputed: false,
        })
    }

    pub fn arrival(&self, at_s: f64, name: &str, after: Vec<String>) -> Arrival {
        let wire::Task { kind, image, inputs, outputs } = &self.task;
        Arrival {
            at_s,
            name: name.to_owned(),
            kind: Some(kind.clone()),
            image: (!image.is_empty()).then(|| image.clone()),
            inputs: inputs.clone(),
            outputs: outputs.clone(),
            after,
            ..Arrival::default()
        }
    }

    pub fn decision(&self, at_s: f64, name: &str, node: &str) -> Decision {
        Decision {
            at_s,
            task: name.to_owned(),
            node: node.to_owned(),
            policy: self.policy.clone(),
            alpha: self.alpha,
            score: self.expected.score,
            fallback: self.fallback.clone(),
        }
    }

    /// What became of a task that arrived at `at_s`, as it was reported. Phases that were not measured have no
    /// length; bytes are of the sorts that were expected.
    pub fn ended(
        &self,
        reported: &Reported,
        at_s: f64,
        name: &str,
        node: &str,
        deadline_s: Option<f64>,
    ) -> Ended {
        let Reported { at_ms, outcome } = reported;
        let phases = outcome.phases.unwrap_or_default();
        let known = |seconds: Option<f64>| seconds.unwrap_or(0.0);
        let admitted_s = at_s + known(phases.wait_s);
        let fetched_s = admitted_s + known(phases.pull_s) + known(phases.fetch_s);
        let started_s = fetched_s + known(phases.start_s);
        let executed_s = started_s + known(phases.execution_s);
        let summed_s = executed_s + known(phases.store_s) - at_s;
        let response_s = match (outcome.response_s, phases.execution_s) {
            (Some(response_s), _) => response_s,
            (None, Some(_)) => summed_s,
            (None, None) => (at_ms - self.at_ms).max(0) as f64 / 1000.0,
        };
        let wire::Candidate { image_bytes, input_bytes, output_bytes, wan_bytes, moved_bytes, .. } =
            self.expected;
        let expected = [image_bytes, input_bytes, output_bytes, wan_bytes].map(|bytes| bytes.max(0) as f64);
        let all = expected[0] + expected[1] + expected[2];
        let measured = outcome.transfer_bytes.map_or(all, |bytes| bytes.max(0) as f64);
        // What was not expected at all was read, at the price of an ordinary link.
        let (sorts, moved_bytes) = match all {
            0.0 => ([0.0, measured, 0.0, 0.0], measured),
            all => (expected.map(|bytes| bytes * measured / all), moved_bytes * measured / all),
        };
        let [image_bytes, input_bytes, output_bytes, wan_bytes] = sorts.map(|bytes| bytes.round() as u64);
        Ended {
            at_s: at_s + response_s,
            task: name.to_owned(),
            end: if outcome.failed { End::GivenUp } else { End::Completed },
            node: Some(node.to_owned()),
            arrived_s: at_s,
            admitted_s,
            fetched_s,
            started_s,
            executed_s,
            image_bytes,
            input_bytes,
            output_bytes,
            moved_bytes,
            wan_bytes,
            retries: 0,
            deadline_missed: !outcome.failed && deadline_s.is_some_and(|deadline_s| response_s > deadline_s),
        }
    }
}

impl Reported {
    /// Whether it says how long the task took.
    pub fn is_measured(&self) -> bool {
        self.outcome.response_s.is_some() || self.executed()
    }

    /// Whether it says how long the task executed, if it did.
    pub fn is_timed(&self) -> bool {
        self.outcome.failed || self.executed()
    }

    fn executed(&self) -> bool {
        self.outcome.phases.is_some_and(|phases| phases.execution_s.is_some())
    }
}

/// Share of pairs of a node and an image that could run there of which the node has the image.
pub fn warm_share(request: &wire::RegisterClusterRequest) -> f64 {
    let (Some(cluster), Some(facts)) = (&request.cluster, &request.facts) else { return 0.0 };
    let (mut warm, mut pairs) = (0_u32, 0_u32);
    for node in &cluster.nodes {
        let facts = facts.nodes.iter().find(|facts| facts.node == node.name);
        let layers: BTreeSet<&String> = facts.iter().flat_map(|facts| &facts.layers).collect();
        for image in &cluster.images {
            let Some(variant) = image.variants.iter().find(|it| it.arch == node.arch) else { continue };
            let told = facts.is_some_and(|facts| facts.images.contains(&image.name));
            warm += u32::from(told || variant.layers.iter().all(|layer| layers.contains(&layer.name)));
            pairs += 1;
        }
    }
    f64::from(warm) / f64::from(pairs.max(1))
}
