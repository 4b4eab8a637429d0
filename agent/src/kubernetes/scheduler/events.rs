//! Events on pods: written beside the work, and lost rather than in its way.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::mpsc;

use super::state::Note;

/// Events that may wait to be written.
const WAITING: usize = 4096;
/// Longest text that the API server takes, bytes.
const MAX_TEXT: usize = 1024;

/// Where events are put.
#[derive(Clone, Debug)]
pub struct Events(mpsc::Sender<Note>);

impl Events {
    /// Starts writing events in this name.
    pub fn start(client: Client, name: &str, identity: &str) -> Events {
        let (sender, mut notes) = mpsc::channel::<Note>(WAITING);
        let (name, identity) = (name.to_owned(), identity.to_owned());
        tokio::spawn(async move {
            while let Some(note) = notes.recv().await {
                let events: Api<Event> = Api::namespaced(client.clone(), &note.namespace);
                let event = event(&note, &name, &identity, Timestamp::now());
                if let Err(error) = events.create(&PostParams::default(), &event).await {
                    tracing::debug!(%error, pod = note.name, reason = note.reason, "an event was not written");
                }
            }
        });
        Events(sender)
    }

    pub fn tell(&self, note: Note) {
        tracing::debug!(pod = note.name, reason = note.reason, text = note.text, "event");
        if self.0.try_send(note).is_err() {
            tracing::warn!("events are written too slowly; one is lost");
        }
    }
}

fn event(note: &Note, controller: &str, identity: &str, now: Timestamp) -> Event {
    let end = (0..=note.text.len().min(MAX_TEXT)).rev().find(|&end| note.text.is_char_boundary(end));
    let text = &note.text[..end.unwrap_or(0)];
    let pod = &note.name[..note.name.len().min(200)];
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{pod}.{:x}", now.as_nanosecond())),
            namespace: Some(note.namespace.clone()),
            ..ObjectMeta::default()
        },
        action: Some(if note.reason == "Scheduled" { "Binding" } else { "Scheduling" }.to_owned()),
        event_time: Some(MicroTime(now)),
        note: Some(text.to_owned()),
        reason: Some(note.reason.to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(note.name.clone()),
            namespace: Some(note.namespace.clone()),
            uid: Some(note.uid.clone()),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(controller.to_owned()),
        reporting_instance: Some(identity[..identity.len().min(128)].to_owned()),
        type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
        ..Event::default()
    }
}
