//! Live updates: a word whenever something changed, upon which the page asks for itself anew. One task looks whether
//! something did, for all who want to know, and only while somebody does.

use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use remora_proto::v1 as wire;
use remora_proto::v1::cluster_service_server::ClusterService;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;

use super::{Parts, Visit};

/// Pages are told at most this often.
const PAUSE: Duration = Duration::from_secs(1);
/// Folders of training runs are looked at every so many times.
const FOLDERS: u64 = 3;

/// Counts changes.
#[derive(Debug)]
pub struct Pulse(watch::Sender<u64>);

impl Pulse {
    pub fn new() -> Pulse {
        Pulse(watch::Sender::new(0))
    }
}

/// Looks for changes until the panel is gone.
pub fn start(panel: &Arc<Parts>) {
    tokio::spawn(beat(Arc::downgrade(panel)));
}

async fn beat(panel: Weak<Parts>) {
    let Some(mut rows) = panel.upgrade().map(|panel| panel.apps.0.as_ref().map(|apps| apps.handle.watch()))
    else {
        return;
    };
    let (mut clusters, mut training) = (Vec::new(), Vec::new());
    for round in 0_u64.. {
        tokio::time::sleep(PAUSE).await;
        let Some(panel) = panel.upgrade() else { return };
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
        if panel.pulse.0.receiver_count() == 0 {
            continue;
        }
        let now = versions(&panel).await;
        changed |= now != clusters;
        clusters = now;
        if round.is_multiple_of(FOLDERS) {
            let now = panel.training.mark().await;
            changed |= now != training;
            training = now;
        }
        if changed {
            panel.pulse.0.send_modify(|count| *count += 1);
        }
    }
}

/// How far clusters are.
async fn versions(panel: &Parts) -> Vec<(String, i64)> {
    let listed = ClusterService::list(&panel.door, Request::new(wire::ListClustersRequest {})).await;
    let clusters = listed.map(|listed| listed.into_inner().clusters).unwrap_or_default();
    clusters.into_iter().map(|told| (told.id, told.version)).collect()
}

pub async fn live(visit: Result<Visit, Response>) -> Response {
    let Visit { panel, headers, peer, place, .. } = match visit {
        Ok(visit) => visit,
        Err(refused) if refused.status() == StatusCode::TOO_MANY_REQUESTS => return refused,
        // Browsers take this for the end and ask no more; a page would be no answer to them.
        Err(_) => return StatusCode::NO_CONTENT.into_response(),
    };
    let (sender, events) = mpsc::channel::<Result<Event, Infallible>>(4);
    let mut pulse = panel.0.pulse.0.subscribe();
    tokio::spawn(async move {
        // A stream is a request under way for as long as it lasts.
        let _place = place;
        loop {
            let changed = tokio::select! {
                changed = pulse.changed() => changed.is_ok(),
                () = tokio::time::sleep(PAUSE) => false,
                () = sender.closed() => return,
            };
            // A session that ended shows nothing any more.
            if panel.0.sessions.find(&panel.0, &headers, &peer).is_err() {
                return;
            }
            if changed && sender.send(Ok(Event::default().data("changed"))).await.is_err() {
                return;
            }
        }
    });
    Sse::new(ReceiverStream::new(events)).keep_alive(KeepAlive::default()).into_response()
}
