//! Writes down what happens. Encoding is not the owner's work: it hands events on, in order, to a task that
//! does it and gives them to the journal.

use std::sync::Arc;

use prost::Message;
use remora_proto::v1 as wire;
use tokio::sync::{mpsc, oneshot};

use super::books::Kept;
use super::convert;
use super::feed::{Entry, Event};
use super::refusal::Refusal;
use crate::storage::{self, Kind, Recorder};

/// Resolves when what was written down is durable.
pub type Durable = oneshot::Receiver<Result<(), String>>;

/// Something to write down.
enum Line {
    Entry(Arc<Entry>, Option<Done>),
    Snapshot { cluster: String, at_ms: i64, kept: Box<Kept> },
    Flush(Done),
}

type Done = oneshot::Sender<Result<(), String>>;

/// Access to the one who writes.
#[derive(Clone, Debug)]
pub struct Scribe {
    lines: mpsc::UnboundedSender<Line>,
    recorder: Recorder,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Line")
    }
}

impl Scribe {
    /// Begins to write.
    pub fn start(recorder: Recorder) -> Scribe {
        let (lines, waiting) = mpsc::unbounded_channel();
        tokio::spawn(write(waiting, recorder.clone()));
        Scribe { lines, recorder }
    }

    /// Whether there is room for more; without it nothing that changes something is begun.
    pub fn ready(&self) -> Result<(), Refusal> {
        self.recorder.ready().map_err(|refused| match refused {
            storage::Refused::Full { trouble: None, .. } => Refusal::Full(refused.to_string()),
            refused => Refusal::Unavailable(refused.to_string()),
        })
    }

    /// Writes an event down some time soon.
    pub fn note(&self, entry: Arc<Entry>) {
        // The task that writes ends with the last of these handles.
        drop(self.lines.send(Line::Entry(entry, None)));
    }

    /// Writes an event down, and tells when that is durable.
    pub fn commit(&self, entry: Arc<Entry>) -> Durable {
        let (done, durable) = oneshot::channel();
        drop(self.lines.send(Line::Entry(entry, Some(done))));
        durable
    }

    /// Tells when all that was handed in is durable.
    pub fn flush(&self) -> Durable {
        let (done, durable) = oneshot::channel();
        drop(self.lines.send(Line::Flush(done)));
        durable
    }

    /// Keeps a cluster as it stands, to go on from.
    pub fn keep(&self, cluster: String, at_ms: i64, kept: Box<Kept>) {
        drop(self.lines.send(Line::Snapshot { cluster, at_ms, kept }));
    }
}

async fn write(mut lines: mpsc::UnboundedReceiver<Line>, recorder: Recorder) {
    while let Some(line) = lines.recv().await {
        let written = match line {
            Line::Entry(entry, None) => recorder.record(encoded(&entry)),
            Line::Entry(entry, Some(done)) => {
                tell(recorder.commit(encoded(&entry)), done);
                Ok(())
            }
            Line::Flush(done) => {
                tell(recorder.flush(), done);
                Ok(())
            }
            Line::Snapshot { cluster, at_ms, kept } => {
                recorder.snapshot(&cluster, at_ms, kept.snapshot().encode_to_vec())
            }
        };
        if let Err(refused) = written {
            tracing::error!(%refused, "an event could not be written down");
        }
    }
}

/// Tells somebody when something is durable.
fn tell(durable: impl Future<Output = Result<i64, storage::Refused>> + Send + 'static, done: Done) {
    tokio::spawn(async move {
        let durable = durable.await.map(drop).map_err(|refused| refused.to_string());
        // Whoever asked may have gone.
        drop(done.send(durable));
    });
}

/// An event as the journal keeps it.
fn encoded(entry: &Entry) -> storage::Entry {
    let ended = |decision_id: &str| wire::ReportOutcomeRequest {
        cluster_id: entry.cluster.to_string(),
        decision_id: decision_id.to_owned(),
        failed: true,
        reason: EXPIRED.to_owned(),
        ..wire::ReportOutcomeRequest::default()
    };
    let (kind, decision_id, body) = match &entry.event {
        Event::Registered(request, _) => (Kind::Registered, None, request.encode_to_vec()),
        Event::Updated(request) => (Kind::Changed, None, request.encode_to_vec()),
        Event::Decided(made) => {
            let body = convert::receipt(&entry.cluster, made).encode_to_vec();
            (Kind::Decided, Some(made.answer.decision_id.clone()), body)
        }
        Event::Ended(request) => (Kind::Ended, Some(request.decision_id.clone()), request.encode_to_vec()),
        Event::Expired(id) => (Kind::Ended, Some(id.clone()), ended(id).encode_to_vec()),
        Event::Disputed(disputed) => {
            (Kind::Disputed, Some(disputed.decision_id.clone()), disputed.encode_to_vec())
        }
        Event::Removed => (Kind::Removed, None, Vec::new()),
    };
    storage::Entry { at_ms: entry.at_ms, cluster: entry.cluster.to_string(), kind, decision_id, body }
}

/// Why a decision ended whose outcome nobody reported.
pub(super) const EXPIRED: &str = "no outcome was reported in time";
