//! Everything the service says no with.

use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use super::convert::Invalid;
use crate::storage;

/// Milliseconds after which to ask again, among the trailers.
const RETRY_AFTER: &str = "retry-after-ms";

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
    #[error("{0}")]
    UnknownPolicy(Invalid),
    #[error("{0}")]
    OutOfOrder(Invalid),
    #[error("{0}")]
    Conflict(Invalid),
    /// What happened since then is no longer kept.
    #[error("{0}")]
    TooOld(Invalid),
    #[error("more is asked than can be answered; ask again in {} ms", .0.as_millis())]
    Busy(Duration),
    /// One of the limits that whoever runs the service has set.
    #[error("{0}; ask again in {after} ms", after = .1.as_millis())]
    Limited(String, Duration),
    #[error("{0}")]
    Unauthenticated(String),
    #[error("{0}")]
    Forbidden(String),
    #[error("{0}")]
    Broken(String),
    #[error("{0}")]
    Unavailable(String),
    #[error("the service is stopping; ask again in a moment")]
    Stopping,
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Status {
        let code = match refusal {
            Refusal::Invalid(_) => Code::InvalidArgument,
            Refusal::UnknownCluster(_) | Refusal::UnknownDecision(_) | Refusal::UnknownPolicy(_) => {
                Code::NotFound
            }
            Refusal::Nowhere(_) | Refusal::OutOfOrder(_) | Refusal::Conflict(_) => Code::FailedPrecondition,
            Refusal::TooOld(_) => Code::OutOfRange,
            Refusal::Full(_) | Refusal::Busy(_) | Refusal::Limited(..) => Code::ResourceExhausted,
            Refusal::Unauthenticated(_) => Code::Unauthenticated,
            Refusal::Forbidden(_) => Code::PermissionDenied,
            Refusal::Broken(_) => Code::Internal,
            Refusal::Unavailable(_) | Refusal::Stopping => Code::Unavailable,
        };
        let mut status = Status::new(code, refusal.to_string());
        if let Refusal::Busy(after) | Refusal::Limited(_, after) = refusal {
            let milliseconds = MetadataValue::from(after.as_millis() as u64);
            status.metadata_mut().insert(RETRY_AFTER, milliseconds);
        }
        status
    }
}

impl From<storage::Error> for Refusal {
    fn from(error: storage::Error) -> Refusal {
        match error {
            storage::Error::Invalid(problem) => Refusal::Invalid(Invalid(problem)),
            error => Refusal::Unavailable(format!("it could not be kept: {error}")),
        }
    }
}
