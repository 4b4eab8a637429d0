//! Everything the service says no with.

use tonic::{Code, Status};

use super::convert::Invalid;

/// A request that is not granted; nothing was changed by it.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("{0}")]
    UnknownCluster(Invalid),
    #[error("{0}")]
    UnknownDecision(Invalid),
    #[error("{0}")]
    Nowhere(String),
    #[error("{0}")]
    Full(String),
    #[error("the service is stopping; ask again in a moment")]
    Stopping,
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Status {
        let code = match refusal {
            Refusal::Invalid(_) => Code::InvalidArgument,
            Refusal::UnknownCluster(_) | Refusal::UnknownDecision(_) => Code::NotFound,
            Refusal::Nowhere(_) => Code::FailedPrecondition,
            Refusal::Full(_) => Code::ResourceExhausted,
            Refusal::Stopping => Code::Unavailable,
        };
        Status::new(code, refusal.to_string())
    }
}
