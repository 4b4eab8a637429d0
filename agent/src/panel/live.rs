//! Live updates: a word whenever something changed, upon which the page asks for itself anew.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use remora_proto::v1 as wire;
use remora_proto::v1::cluster_service_server::ClusterService;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Parts, Visit, request};
use crate::service::access::Caller;

/// Pages are told at most this often.
const PAUSE: Duration = Duration::from_secs(1);

pub async fn live(Visit { panel, session, headers, peer, .. }: Visit) -> Response {
    let (sender, events) = mpsc::channel::<Result<Event, Infallible>>(4);
    tokio::spawn(async move {
        let mut rows = panel.0.apps.0.as_ref().map(|apps| apps.handle.watch());
        let mut clusters = state(&panel.0, &session.caller).await;
        loop {
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = sender.closed() => return,
            }
            // A session that ended shows nothing any more.
            if panel.0.sessions.find(&panel.0, &headers, &peer).is_err() {
                return;
            }
            let mut changed = false;
            if let Some(feed) = &mut rows {
                loop {
                    match feed.try_recv() {
                        Ok(_) | Err(TryRecvError::Lagged(_)) => changed = true,
                        Err(TryRecvError::Empty) => break,
                        Err(TryRecvError::Closed) => return,
                    }
                }
            }
            let now = state(&panel.0, &session.caller).await;
            changed |= now != clusters;
            clusters = now;
            if changed && sender.send(Ok(Event::default().data("changed"))).await.is_err() {
                return;
            }
        }
    });
    Sse::new(ReceiverStream::new(events)).keep_alive(KeepAlive::default()).into_response()
}

/// What of clusters changes whenever something happens there.
async fn state(panel: &Parts, caller: &Caller) -> Vec<(String, i64, i64, i64)> {
    let listed = ClusterService::list(&panel.door, request(caller, wire::ListClustersRequest {})).await;
    let clusters = listed.map(|listed| listed.into_inner().clusters).unwrap_or_default();
    clusters.into_iter().map(|told| (told.id, told.decisions, told.running, told.queued)).collect()
}
