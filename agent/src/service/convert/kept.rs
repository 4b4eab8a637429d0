//! What is read back from the journal.

use std::sync::Arc;

use remora_env::Time;
use remora_env::observation::Candidate;
use remora_env::topology::Topology;
use remora_proto::v1 as wire;

use crate::service::books::Made;
use crate::service::messages::{Answer, Other, Ranked};
use crate::service::names::Names;
use crate::service::serving::Why;

/// Milliseconds since 1970.
pub fn ms(at: Time) -> i64 {
    (at.0 / 1_000_000) as i64
}

/// The time of so many milliseconds since 1970.
pub fn time(at_ms: i64) -> Time {
    Time(at_ms.max(0) as u64 * 1_000_000)
}

/// A decision as it was made; `None` where its node is gone, or it says too little.
pub fn made(receipt: &wire::Receipt, topology: &Arc<Topology>, names: &Names) -> Option<Made> {
    let (request, response) = (receipt.request.as_ref()?, receipt.response.as_ref()?);
    let ranked = |wire: &wire::Candidate| ranked(wire, names);
    let other = |other: &Option<wire::Alternative>| {
        let other = other.as_ref()?;
        Some(Other {
            policy: other.policy.as_str().into(),
            node: *names.nodes.get(&other.node)?,
            cost: other.predicted_cost,
            bytes: other.predicted_transfer_bytes.max(0) as u64,
            response_s: other.predicted_completion_s,
        })
    };
    let answer = Answer {
        topology: Arc::clone(topology),
        decision_id: response.decision_id.clone(),
        policy: response.policy.as_str().into(),
        fallback: Why::told(&response.fallback),
        alpha: response.alpha,
        feasible: response.feasible.max(0) as usize,
        chosen: ranked(response.candidates.first()?)?,
        cost: receipt.predicted_cost,
        candidates: response.candidates.iter().filter_map(ranked).collect(),
        advised: None,
        shadow: other(&receipt.shadow),
        heuristic: other(&receipt.fallback),
        kube_default: other(&receipt.kube_default),
    };
    Some(Made { at: time(receipt.at_ms), request: Arc::new(request.clone()), answer: Arc::new(answer) })
}

fn ranked(wire: &wire::Candidate, names: &Names) -> Option<Ranked> {
    let bytes = |bytes: i64| bytes.max(0) as u64;
    let candidate = Candidate {
        node: *names.nodes.get(&wire.node)?,
        fits_now: wire.fits_now,
        wait_s: wire.wait_s,
        pull_s: wire.pull_s,
        fetch_s: wire.fetch_s,
        start_s: wire.start_s,
        execution_s: wire.execution_s,
        store_s: wire.store_s,
        missing_image_bytes: bytes(wire.image_bytes),
        missing_input_bytes: bytes(wire.input_bytes),
        output_bytes: bytes(wire.output_bytes),
        wan_bytes: bytes(wire.wan_bytes),
        moved_bytes: wire.moved_bytes,
        ..Candidate::UNKNOWN
    };
    Some(Ranked { candidate, score: wire.score.unwrap_or(f64::NEG_INFINITY) })
}
