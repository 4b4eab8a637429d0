//! Tasks: where they should run, and what became of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use remora_proto::v1 as wire;
use remora_proto::v1::placement_service_server::PlacementService;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use wire::place_result::Result as Placed;

use super::{Door, about};
use crate::service::access::{Caller, Subject};
use crate::service::convert::{self, Field};
use crate::service::owner::{Command, PlaceReply};
use crate::service::refusal::Refusal;
use crate::service::serving::Why;

/// Most tasks of a batch.
const MAX_BATCH: usize = 1000;
/// Requests of a stream that may be under way.
const AHEAD: usize = 64;

/// A place that was asked for.
pub(super) struct Asked {
    cluster: String,
    at: Instant,
    reply: PlaceReply,
}

/// Asks for a place; waits for nothing.
pub(super) fn ask(
    door: &Door,
    request: wire::PlaceRequest,
    deadline: Option<Instant>,
) -> Result<Asked, Refusal> {
    about(&request.cluster_id);
    let at = Instant::now();
    let mut order = convert::order(&request)?;
    order.deadline = deadline;
    let cluster = request.cluster_id.clone();
    Ok(Asked { cluster, at, reply: door.owner.place(order, Arc::new(request))? })
}

/// Waits for the answer.
pub(super) async fn answered(
    door: &Door,
    asked: Result<Asked, Refusal>,
) -> Result<wire::PlaceResponse, Status> {
    let Asked { cluster, at, reply } = asked?;
    let answer = reply.await.map_err(|_| Refusal::Stopping)??;
    // A dry run decides nothing.
    if !answer.decision_id.is_empty() {
        door.metrics.decided(&cluster, &answer.policy, answer.fallback.map_or("", Why::text), at.elapsed());
    }
    Ok(convert::answer(&answer))
}

/// The answer as one of several.
fn result(answer: Result<wire::PlaceResponse, Status>) -> wire::PlaceResult {
    let result = match answer {
        Ok(placed) => Placed::Placed(placed),
        Err(status) => {
            let message = status.message().to_owned();
            Placed::Refused(wire::Refused { code: status.code() as i32, message })
        }
    };
    wire::PlaceResult { result: Some(result) }
}

/// When the client stops waiting, as the call says: gRPC's `grpc-timeout`, a number and its unit.
fn deadline(metadata: &MetadataMap) -> Option<Instant> {
    let timeout = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = timeout.split_at_checked(timeout.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    let timeout = match unit {
        "H" => Duration::from_secs(number.checked_mul(3600)?),
        "M" => Duration::from_secs(number.checked_mul(60)?),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    };
    Instant::now().checked_add(timeout)
}

#[tonic::async_trait]
impl PlacementService for Door {
    type PlaceStreamStream = ReceiverStream<Result<wire::PlaceResult, Status>>;

    async fn place(
        &self,
        request: Request<wire::PlaceRequest>,
    ) -> Result<Response<wire::PlaceResponse>, Status> {
        let deadline = deadline(request.metadata());
        answered(self, ask(self, request.into_inner(), deadline)).await.map(Response::new)
    }

    async fn place_batch(
        &self,
        request: Request<wire::PlaceBatchRequest>,
    ) -> Result<Response<wire::PlaceBatchResponse>, Status> {
        let deadline = deadline(request.metadata());
        let requests = request.into_inner().requests;
        Field::root("requests").count(requests.len(), 0..=MAX_BATCH).map_err(Refusal::from)?;
        let mut results = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter();
        loop {
            // A few at a time: they wait in one line with everybody's.
            let asked: Vec<_> =
                requests.by_ref().take(AHEAD).map(|request| ask(self, request, deadline)).collect();
            if asked.is_empty() {
                return Ok(Response::new(wire::PlaceBatchResponse { results }));
            }
            for asked in asked {
                results.push(result(answered(self, asked).await));
            }
        }
    }

    async fn place_stream(
        &self,
        request: Request<Streaming<wire::PlaceRequest>>,
    ) -> Result<Response<Self::PlaceStreamStream>, Status> {
        let (mut requests, door, answering) = (request.into_inner(), self.clone(), self.clone());
        let (asked, mut asking) = mpsc::channel(AHEAD);
        let (answers, stream) = mpsc::channel(AHEAD);
        tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                let next = request.map(|request| ask(&door, request, None));
                let last = next.is_err();
                if asked.send(next).await.is_err() || last {
                    break;
                }
            }
        });
        tokio::spawn(async move {
            while let Some(asked) = asking.recv().await {
                let answer = match asked {
                    Ok(asked) => Ok(result(answered(&answering, asked).await)),
                    Err(status) => Err(status),
                };
                if answers.send(answer).await.is_err() {
                    break;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn report_outcome(
        &self,
        request: Request<wire::ReportOutcomeRequest>,
    ) -> Result<Response<wire::ReportOutcomeResponse>, Status> {
        self.report(request.into_inner()).await.map(Response::new)
    }

    async fn dispute(
        &self,
        request: Request<wire::DisputeRequest>,
    ) -> Result<Response<wire::Disputed>, Status> {
        let actor = Caller::of(request.extensions()).name.to_string();
        let dispute = convert::dispute(request.into_inner()).map_err(Refusal::from)?;
        about(&dispute.cluster_id);
        let disputed = self.owner.ask_durably(|reply| Command::Dispute(dispute, actor, reply)).await?;
        let subject = Subject(format!("{}/{}", disputed.cluster_id, disputed.decision_id));
        let mut answer = Response::new(Arc::unwrap_or_clone(disputed));
        answer.extensions_mut().insert(subject);
        Ok(answer)
    }

    async fn explain(
        &self,
        request: Request<wire::ExplainRequest>,
    ) -> Result<Response<wire::Receipt>, Status> {
        let wire::ExplainRequest { cluster_id, decision_id } = request.into_inner();
        about(&cluster_id);
        let cluster = cluster_id.clone();
        let explained = self.owner.ask(|reply| Command::Explain(cluster, decision_id, reply)).await?;
        Ok(Response::new(convert::explained(&cluster_id, &explained)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tonic::metadata::MetadataMap;

    use super::deadline;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        let within = |timeout: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", timeout.parse().unwrap());
            deadline(&metadata).map(|at| at.saturating_duration_since(Instant::now()))
        };
        let close = |timeout, expected| {
            let left: Duration = within(timeout).unwrap();
            assert!(left <= expected && left + Duration::from_secs(1) > expected, "{timeout}: {left:?}");
        };
        close("2H", Duration::from_secs(7200));
        close("90S", Duration::from_secs(90));
        close("3000m", Duration::from_secs(3));
        assert!(within("S").is_none() && within("5x").is_none() && within("").is_none());
    }
}
