//! How a Job ended, as far as it and its pod tell.

use k8s_openapi::api::batch::v1::Job as Object;
use k8s_openapi::api::core::v1::{ContainerState, Pod, PodStatus};

use super::Exit;

/// What a container waits for that will not come.
const HOPELESS: [&str; 5] = [
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ImagePullBackOff",
    "InvalidImageName",
];

/// Nothing while it is under way.
pub fn exit(job: &Object, pod: Option<&Pod>) -> Option<Exit> {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut holding = conditions.filter(|condition| condition.status == "True");
    let over = holding.find(|condition| ["Failed", "FailureTarget", "Complete"].contains(&&*condition.type_));
    if over.is_some_and(|over| over.reason.as_deref() == Some("DeadlineExceeded")) {
        return Some(Exit::TimedOut);
    }
    if let Some(status) = pod.and_then(|pod| pod.status.as_ref()) {
        // A pod that is being deleted may have ended by that alone; its Job will tell why.
        let deleted = pod.is_some_and(|pod| pod.metadata.deletion_timestamp.is_some());
        match of_pod(status) {
            Some(Exit::Code(_)) if deleted && over.is_none() => return None,
            None => {}
            exit => return exit,
        }
    }
    let over = over?;
    if over.type_ == "Complete" {
        return Some(Exit::Code(0));
    }
    broken("its Job failed", &over.reason, &over.message)
}

fn broken(what: &str, reason: &Option<String>, message: &Option<String>) -> Option<Exit> {
    let words: Vec<_> = [reason, message].into_iter().flatten().cloned().collect();
    Some(Exit::Broken(format!("{what}: {}", words.join(": "))))
}

fn of_pod(status: &PodStatus) -> Option<Exit> {
    if status.phase.as_deref() == Some("Failed") && status.reason.is_some() {
        return match status.reason.as_deref() {
            Some("DeadlineExceeded") => Some(Exit::TimedOut),
            _ => broken("its pod was put out", &status.reason, &status.message),
        };
    }
    let disrupted = status.conditions.iter().flatten();
    let mut disrupted = disrupted.filter(|told| told.type_ == "DisruptionTarget" && told.status == "True");
    let state = state(status)?;
    if let Some(waiting) = &state.waiting
        && HOPELESS.contains(&waiting.reason.as_deref().unwrap_or_default())
    {
        return broken("its pod cannot start", &waiting.reason, &waiting.message);
    }
    let ended = state.terminated.as_ref()?;
    if ended.reason.as_deref() == Some("OOMKilled") {
        return Some(Exit::Memory);
    }
    if let Some(disrupted) = disrupted.next().filter(|_| ended.exit_code != 0) {
        return broken("its pod was put out", &disrupted.reason, &disrupted.message);
    }
    Some(Exit::Code(ended.exit_code))
}

fn state(status: &PodStatus) -> Option<&ContainerState> {
    status.container_statuses.as_ref()?.first()?.state.as_ref()
}

/// It says or has said something.
pub fn began(pod: &Pod) -> bool {
    let state = pod.status.as_ref().and_then(state);
    state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
}
