//! Watches of the API server that heal by themselves, and what they see as happenings.

use std::fmt::Debug;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::Config;
use super::state::{Happening, Seen};
use crate::kubernetes::facts::{NodeFacts, PodFacts, Settings};

/// Key of the document in the ConfigMap.
pub const DOCUMENT: &str = "remora.toml";

/// Starts all watches; they end when nobody listens any more.
pub fn start(client: &Client, config: &Config, happenings: &mpsc::Sender<Happening>) {
    let name = &config.scheduler_name;
    let own = watcher::Config::default().fields(&format!("spec.schedulerName={name}"));
    let other = watcher::Config::default().fields(&format!(
        "spec.schedulerName!={name},spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"
    ));
    let nodes = Api::<Node>::all(client.clone());
    let pods = || Api::<Pod>::all(client.clone());
    let all = watcher::Config::default();
    watch(nodes, all, happenings.clone(), |event| Happening::Node(seen(event, NodeFacts::of)));
    watch(pods(), own, happenings.clone(), |event| Happening::Own(seen(event, PodFacts::of)));
    watch(pods(), other, happenings.clone(), |event| Happening::Other(seen(event, PodFacts::of)));
    match &config.config_map {
        Some((namespace, name)) => settings(client, namespace, name, happenings.clone()),
        None => {
            let (happenings, settings) = (happenings.clone(), config.settings.clone());
            tokio::spawn(async move { happenings.send(Happening::Settings(Box::new(settings))).await });
        }
    }
}

fn seen<K, F>(event: Event<K>, facts: impl Fn(&K) -> F) -> Seen<F> {
    match event {
        Event::Init => Seen::Start,
        Event::InitApply(object) | Event::Apply(object) => Seen::Is(Box::new(facts(&object))),
        Event::Delete(object) => Seen::Gone(Box::new(facts(&object))),
        Event::InitDone => Seen::End,
    }
}

/// Objects become facts here, beside the one who decides.
fn watch<K>(
    api: Api<K>,
    config: watcher::Config,
    happenings: mpsc::Sender<Happening>,
    happening: impl Fn(Event<K>) -> Happening + Send + 'static,
) where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    tokio::spawn(async move {
        let mut events = watcher(api, config).default_backoff().boxed();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    if happenings.send(happening(event)).await.is_err() {
                        return;
                    }
                }
                Err(error) => tracing::warn!(%error, "a watch was cut; it begins again"),
            }
        }
    });
}

/// The settings as the ConfigMap has them; what is wrong there leaves those in force that were.
fn settings(client: &Client, namespace: &str, name: &str, happenings: mpsc::Sender<Happening>) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    tokio::spawn(async move {
        let mut events = watcher(api, config).default_backoff().boxed();
        let (mut any, mut listed) = (false, None::<Settings>);
        while let Some(event) = events.next().await {
            let new = match event {
                Ok(Event::InitApply(map) | Event::Apply(map)) => {
                    listed = read(&map);
                    listed.clone()
                }
                // Without a document everything has its default.
                Ok(Event::InitDone) if listed.is_none() && !any => Some(Settings::default()),
                Ok(Event::Delete(_)) => Some(Settings::default()),
                Ok(Event::Init | Event::InitDone) => None,
                Err(error) => {
                    tracing::warn!(%error, "the watch of the settings was cut; it begins again");
                    None
                }
            };
            let Some(new) = new else { continue };
            any = true;
            if happenings.send(Happening::Settings(Box::new(new))).await.is_err() {
                return;
            }
        }
    });
}

fn read(map: &ConfigMap) -> Option<Settings> {
    let text = map.data.as_ref().and_then(|data| data.get(DOCUMENT));
    match Settings::parse(text.map(String::as_str).unwrap_or_default()) {
        Ok(settings) => Some(settings),
        Err(problem) => {
            tracing::error!(problem, "{DOCUMENT} of the ConfigMap is wrong; what held before holds");
            None
        }
    }
}
