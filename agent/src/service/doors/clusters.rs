//! Clusters and what changes there.

use std::pin::Pin;

use remora_proto::v1 as wire;
use remora_proto::v1::cluster_service_server::ClusterService;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt, iter};
use tonic::{Request, Response, Status, Streaming};

use super::{Door, about};
use crate::service::access::{Caller, Subject};
use crate::service::convert::{self, Field};
use crate::service::feed::Watch;
use crate::service::owner::{Command, Snapshot};
use crate::service::recording::{self, Span};
use crate::service::refusal::Refusal;
use crate::service::restart::forget_serving;

/// Answers of a stream that may wait for its client.
const AHEAD: usize = 64;

#[tonic::async_trait]
impl ClusterService for Door {
    type FollowStream = ReceiverStream<Result<wire::UpdateClusterResponse, Status>>;
    type ExportTraceStream = Pin<Box<dyn Stream<Item = Result<wire::ExportTraceResponse, Status>> + Send>>;
    type WatchStream = Pin<Box<dyn Stream<Item = Result<wire::ClusterEvent, Status>> + Send>>;

    async fn register(
        &self,
        request: Request<wire::RegisterClusterRequest>,
    ) -> Result<Response<wire::RegisterClusterResponse>, Status> {
        let request = request.into_inner();
        let id = request.cluster.as_ref().map_or_else(String::new, |cluster| cluster.id.clone());
        about(&id);
        let mut answer = Response::new(self.register(request).await?);
        answer.extensions_mut().insert(Subject(id));
        Ok(answer)
    }

    async fn list(
        &self,
        _: Request<wire::ListClustersRequest>,
    ) -> Result<Response<wire::ListClustersResponse>, Status> {
        let clusters = self.owner.list().await?.iter().map(convert::summary).collect();
        Ok(Response::new(wire::ListClustersResponse { clusters }))
    }

    async fn get(
        &self,
        request: Request<wire::GetClusterRequest>,
    ) -> Result<Response<wire::GetClusterResponse>, Status> {
        let wire::GetClusterRequest { id, live } = request.into_inner();
        about(&id);
        let Snapshot { portrait, version } = self.owner.ask(|reply| Command::Get(id, live, reply)).await?;
        let wire::RegisterClusterRequest { cluster, facts } = portrait.registration();
        Ok(Response::new(wire::GetClusterResponse { cluster, facts, version: version as i64 }))
    }

    async fn remove(
        &self,
        request: Request<wire::RemoveClusterRequest>,
    ) -> Result<Response<wire::RemoveClusterResponse>, Status> {
        let who = Caller::of(request.extensions()).who(&self.clock);
        let id = request.into_inner().id;
        about(&id);
        let subject = Subject(id.clone());
        let _turn = self.changing.lock().await;
        let removed = id.clone();
        self.owner.ask_durably(|reply| Command::Remove(removed, reply)).await?;
        if let Some(storage) = &self.storage {
            // It is removed all the same, and the next start does what is left.
            let forgotten = forget_serving(storage, &id, &who).await;
            forgotten
                .unwrap_or_else(|error| tracing::error!(%error, "a removed cluster's serving is still kept"));
        }
        let mut answer = Response::new(wire::RemoveClusterResponse {});
        answer.extensions_mut().insert(subject);
        Ok(answer)
    }

    async fn update(
        &self,
        request: Request<wire::UpdateClusterRequest>,
    ) -> Result<Response<wire::UpdateClusterResponse>, Status> {
        self.update(request.into_inner()).await.map(Response::new)
    }

    async fn follow(
        &self,
        request: Request<Streaming<wire::UpdateClusterRequest>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let (mut updates, door) = (request.into_inner(), self.clone());
        let (answers, stream) = mpsc::channel(AHEAD);
        tokio::spawn(async move {
            while let Some(update) = updates.next().await {
                let answer = match update {
                    Ok(update) => door.update(update).await,
                    Err(status) => Err(status),
                };
                let refused = answer.is_err();
                if answers.send(answer).await.is_err() || refused {
                    break;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn watch(
        &self,
        request: Request<wire::WatchClusterRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let wire::WatchClusterRequest { cluster_id, after } = request.into_inner();
        about(&cluster_id);
        let after = after.map(|after| Field::root("after").whole(after, 0..=i64::MAX)).transpose();
        let after = after.map_err(Refusal::from)?;
        let Watch { past, future } = self.owner.ask(|reply| Command::Watch(cluster_id, after, reply)).await?;
        let past = iter(past.into_iter().map(|entry| Ok(convert::event(&entry))));
        // Ends when the cluster is removed, or with who watches too slowly.
        let future = following(future);
        Ok(Response::new(Box::pin(past.chain(future))))
    }

    async fn export_trace(
        &self,
        request: Request<wire::ExportTraceRequest>,
    ) -> Result<Response<Self::ExportTraceStream>, Status> {
        let wire::ExportTraceRequest { cluster_id, from_ms, until_ms } = request.into_inner();
        about(&cluster_id);
        let cluster = Field::root("cluster_id").name(&cluster_id).map_err(Refusal::from)?;
        let time = |name, at: Option<i64>| {
            let at = at.map(|at| Field::root(name).whole(at, 0..=LAST_MS)).transpose();
            at.map(|at| at.map(|at| at as i64)).map_err(Refusal::from)
        };
        let span = Span { from_ms: time("from_ms", from_ms)?, until_ms: time("until_ms", until_ms)? };
        let storage = self.storage.as_ref().ok_or_else(|| {
            Status::failed_precondition("the service records nothing; start it with --data FOLDER")
        })?;
        let pieces = recording::pieces(recording::recording(storage, &cluster, span).await?)?;
        let mut answer = Response::new(Box::pin(iter(pieces.map(Ok))) as Self::ExportTraceStream);
        answer.extensions_mut().insert(Subject(cluster));
        Ok(answer)
    }
}

/// Later than any journal.
const LAST_MS: i64 = 1_000_000_000_000_000;

type Events = tokio::sync::broadcast::Receiver<std::sync::Arc<crate::service::feed::Entry>>;

fn following(mut events: Events) -> impl Stream<Item = Result<wire::ClusterEvent, Status>> {
    let (sender, stream) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        loop {
            let event = match events.recv().await {
                Ok(entry) => Ok(convert::event(&entry)),
                Err(RecvError::Closed) => break,
                Err(RecvError::Lagged(missed)) => {
                    let problem =
                        format!("{missed} events were missed; watch again from the last version seen");
                    Err(Status::data_loss(problem))
                }
            };
            let last = event.is_err();
            if sender.send(event).await.is_err() || last {
                break;
            }
        }
    });
    ReceiverStream::new(stream)
}
