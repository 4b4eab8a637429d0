//! Advice for Kubernetes' own scheduler, over HTTP: scores for nodes, or one of them. It never stands in the way: what
//! takes too long or goes wrong passes all nodes and scores them equally, and is counted.

mod advisor;
mod messages;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use kube::Client;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::{mpsc, oneshot, watch};

use super::bind::{self, Binding};
use super::core::Core;
use super::facts::{NodeFacts, PodFacts, Settings};
use super::scheduler::state::Happening;
use crate::service::access::Peer;
use advisor::{Advisor, Among, Ask};
use messages::{Args, BindingArgs, BindingResult, FilterResult, HostPriority, Items, MetaPod, MetaVictims};
use messages::{Nodes, PreemptionArgs, PreemptionResult, Slim};

/// Largest request, bytes: five hundred real nodes have some megabytes.
const MAX_BYTES: usize = 64 << 20;
/// Requests that may wait for scores.
const WAITING: usize = 64;

/// How the extender works.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster that node names belong to.
    pub cluster: String,
    /// What nodes and pods do not say.
    pub settings: Settings,
    /// How long advice may take.
    pub budget: Duration,
    /// The scheduler in this process, which keeps the cluster: a choice is committed, and it hears of it.
    pub keeper: Option<mpsc::Sender<Happening>>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            cluster: "kubernetes".to_owned(),
            settings: Settings::default(),
            budget: Duration::from_millis(500),
            keeper: None,
        }
    }
}

/// What was asked and what went wrong.
#[derive(Debug, Default)]
pub struct Counters {
    pub filters: AtomicU64,
    pub choices: AtomicU64,
    pub priorities: AtomicU64,
    pub bindings: AtomicU64,
    pub preemptions: AtomicU64,
    /// Advice that came too late.
    pub late: AtomicU64,
    /// Advice that could not be given.
    pub failed: AtomicU64,
}

impl Counters {
    fn text(&self) -> String {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let requests = [
            ("filter", &self.filters),
            ("choose", &self.choices),
            ("prioritize", &self.priorities),
            ("bind", &self.bindings),
            ("preempt", &self.preemptions),
        ];
        let mut text = String::from("# TYPE remora_extender_requests_total counter\n");
        for (verb, count) in requests {
            text += &format!("remora_extender_requests_total{{verb=\"{verb}\"}} {}\n", of(count));
        }
        text += "# TYPE remora_extender_without_advice_total counter\n";
        for (reason, count) in [("late", &self.late), ("failed", &self.failed)] {
            text += &format!("remora_extender_without_advice_total{{reason=\"{reason}\"}} {}\n", of(count));
        }
        text
    }
}

/// What a request asks.
struct Question<'a> {
    pod: PodFacts,
    among: Among,
    names: Vec<String>,
    /// The nodes as they came, if they are described.
    items: Option<Vec<&'a RawValue>>,
}

/// What the routes share.
#[derive(Clone)]
pub struct Extender {
    asks: mpsc::Sender<Ask>,
    /// Versions of the nodes that the advisor has heard of.
    heard: watch::Receiver<Arc<BTreeMap<String, String>>>,
    budget: Duration,
    client: Option<Client>,
    counters: Arc<Counters>,
}

impl std::fmt::Debug for Extender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Extender {{ budget: {:?}, counters: {:?} }}", self.budget, self.counters)
    }
}

impl Extender {
    /// Starts an extender; with a client it can bind.
    pub fn start(core: Arc<dyn Core>, config: Config, client: Option<Client>) -> Extender {
        let (asks, asked) = mpsc::channel(WAITING);
        let (hear, heard) = watch::channel(Arc::default());
        let budget = config.budget;
        tokio::spawn(Advisor::new(core, config, hear).run(asked));
        Extender { asks, heard, budget, client, counters: Arc::default() }
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Scores in the order of the nodes, of the best alone if only that is wanted; None where there is no advice.
    async fn scores(&self, pod: PodFacts, among: Among, best: bool) -> Option<Vec<i64>> {
        let (reply, answer) = oneshot::channel();
        let name = format!("{}/{}", pod.namespace, pod.name);
        let asked = async {
            self.asks.send(Ask { pod, among, best, reply }).await.ok()?;
            answer.await.ok()
        };
        let trouble = match tokio::time::timeout(self.budget, asked).await {
            Ok(Some(Ok(scores))) => return Some(scores),
            Ok(Some(Err(status))) => {
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
                status.message().to_owned()
            }
            Ok(None) => {
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
                "the service is stopping".to_owned()
            }
            Err(_) => {
                self.counters.late.fetch_add(1, Ordering::Relaxed);
                format!("took longer than {} ms", self.budget.as_millis())
            }
        };
        tracing::warn!(pod = name, trouble, "no advice; Kubernetes decides alone");
        None
    }

    /// A pod and its nodes as requests have them.
    fn read<'a>(&self, body: &'a [u8]) -> serde_json::Result<Question<'a>> {
        let Args { pod, nodes, node_names } = serde_json::from_slice(body)?;
        let pod = PodFacts::of(&pod);
        let (among, items) = match (node_names, nodes) {
            (Some(names), _) => (Among::Names(serde_json::from_str(names.get())?), None),
            (None, Some(nodes)) => {
                let Items { items } = serde_json::from_str(nodes.get())?;
                let wrong = || serde::de::Error::custom("Nodes.items: not all are nodes");
                let (names, new) = self.unheard(&items).ok_or_else(wrong)?;
                (Among::Nodes(names, new), Some(items))
            }
            (None, None) => (Among::Names(Vec::new()), None),
        };
        let names = match &among {
            Among::Names(names) | Among::Nodes(names, _) => names.clone(),
        };
        Ok(Question { pod, among, names, items })
    }

    /// Names of the nodes of a list, and those that are not known as they are.
    fn unheard(&self, items: &[&RawValue]) -> Option<(Vec<String>, Vec<NodeFacts>)> {
        let known = Arc::clone(&self.heard.borrow());
        let (mut names, mut new) = (Vec::with_capacity(items.len()), Vec::new());
        for item in items {
            let Slim { metadata } = serde_json::from_str(item.get()).ok()?;
            if metadata.resource_version.is_empty()
                || known.get(&metadata.name) != Some(&metadata.resource_version)
            {
                new.push(NodeFacts::of(&serde_json::from_str(item.get()).ok()?));
            }
            names.push(metadata.name);
        }
        Some((names, new))
    }
}

/// The routes under `/kubernetes`.
pub fn router(extender: Extender) -> axum::Router {
    routes(advice(), extender)
}

/// The same, with advice only for callers that show a certificate; what probes and Prometheus read is for everybody.
/// Connections say who calls as [`Peer`].
pub fn guarded(extender: Extender) -> axum::Router {
    routes(advice().route_layer(from_fn(certified)), extender)
}

fn advice() -> axum::Router<Extender> {
    axum::Router::new()
        .route("/kubernetes/filter", post(filter))
        .route("/kubernetes/choose", post(choose))
        .route("/kubernetes/prioritize", post(prioritize))
        .route("/kubernetes/bind", post(binding))
        .route("/kubernetes/preempt", post(preempt))
}

fn routes(advice: axum::Router<Extender>, extender: Extender) -> axum::Router {
    advice
        .route("/kubernetes/metrics", get(metrics))
        .layer(DefaultBodyLimit::max(MAX_BYTES))
        .with_state(extender)
}

async fn certified(ConnectInfo(peer): ConnectInfo<Peer>, request: Request, next: Next) -> Response {
    match peer.name {
        Some(_) => next.run(request).await,
        None => (
            StatusCode::FORBIDDEN,
            "show a certificate of the authority in --tls-client-ca that names you: certFile and keyFile of the \
             extender's tlsConfig\n",
        )
            .into_response(),
    }
}

/// All nodes pass, and are sent back as they came: what forbids a pod a node, Kubernetes' scheduler
/// has asked already, and nothing of the policy is worth leaving a pod without a place.
async fn filter(State(extender): State<Extender>, body: Bytes) -> Response {
    extender.counters.filters.fetch_add(1, Ordering::Relaxed);
    pass(&body)
}

fn pass(body: &[u8]) -> Response {
    let Nodes { nodes, node_names } = match serde_json::from_slice(body) {
        Ok(nodes) => nodes,
        Err(error) => return refuse(&error),
    };
    let error = match (nodes, node_names) {
        (None, None) => "Nodes and NodeNames are both null, want one of them".to_owned(),
        _ => String::new(),
    };
    let node_names = node_names.filter(|_| nodes.is_none());
    json(&FilterResult { nodes, node_names, error, ..FilterResult::default() })
}

/// The policy's choice alone passes, so that Kubernetes need not score anything; without advice all do, as they do
/// where the policy would have none of them.
async fn choose(State(extender): State<Extender>, body: Bytes) -> Response {
    extender.counters.choices.fetch_add(1, Ordering::Relaxed);
    let Question { pod, among, names, items } = match extender.read(&body) {
        Ok(question) => question,
        Err(error) => return refuse(&error),
    };
    let scores = if names.is_empty() { None } else { extender.scores(pod, among, true).await };
    let best = scores.and_then(|scores| scores.iter().position(|score| *score == advisor::MAX_SCORE));
    let Some(best) = best else { return pass(&body) };
    let chosen = match &items {
        Some(items) => to_raw_value(&Items { items: vec![items[best]] }),
        None => to_raw_value(&[&names[best]]),
    };
    let chosen = chosen.expect("answers have no keys that are no text");
    let (nodes, node_names) = if items.is_some() { (Some(&*chosen), None) } else { (None, Some(&*chosen)) };
    json(&FilterResult { nodes, node_names, ..FilterResult::default() })
}

async fn prioritize(State(extender): State<Extender>, body: Bytes) -> Response {
    extender.counters.priorities.fetch_add(1, Ordering::Relaxed);
    let Question { pod, among, names, .. } = match extender.read(&body) {
        Ok(question) => question,
        Err(error) => return refuse(&error),
    };
    let scores = if names.is_empty() { None } else { extender.scores(pod, among, false).await };
    let scores = scores.unwrap_or_else(|| vec![0; names.len()]);
    let list = names.into_iter().zip(scores).map(|(host, score)| HostPriority { host, score });
    json(&list.collect::<Vec<_>>())
}

async fn binding(State(extender): State<Extender>, body: Bytes) -> Response {
    extender.counters.bindings.fetch_add(1, Ordering::Relaxed);
    let args: BindingArgs = match serde_json::from_slice(&body) {
        Ok(args) => args,
        Err(error) => return refuse(&error),
    };
    let Some(client) = &extender.client else {
        let error = "this extender cannot reach the API server; leave bindVerb out".to_owned();
        return json(&BindingResult { error });
    };
    let binding =
        Binding { namespace: args.pod_namespace, name: args.pod_name, uid: args.pod_uid, node: args.node };
    let error = bind::bind(client, &binding).await.err().map(|failure| failure.to_string());
    json(&BindingResult { error: error.unwrap_or_default() })
}

/// All victims as proposed: whom to evict for whom is a matter of priorities, which the scheduler knows.
async fn preempt(State(extender): State<Extender>, body: Bytes) -> Response {
    extender.counters.preemptions.fetch_add(1, Ordering::Relaxed);
    let args: PreemptionArgs = match serde_json::from_slice(&body) {
        Ok(args) => args,
        Err(error) => return refuse(&error),
    };
    let full = args.node_name_to_victims.into_iter().flatten().map(|(node, victims)| {
        let pods = victims.pods.into_iter().map(|pod| MetaPod { uid: pod.metadata.uid }).collect();
        (node, MetaVictims { pods, pdb_violations: victims.pdb_violations })
    });
    let node_name_to_meta_victims = args.node_name_to_meta_victims.unwrap_or_else(|| full.collect());
    json(&PreemptionResult { node_name_to_meta_victims })
}

async fn metrics(State(extender): State<Extender>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], extender.counters.text()).into_response()
}

/// Anything but 200 makes the scheduler go on without this extender.
fn refuse(error: &serde_json::Error) -> Response {
    tracing::warn!(%error, "a request of the scheduler is not understood");
    (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response()
}

fn json(answer: &impl Serialize) -> Response {
    let bytes = serde_json::to_vec(answer).expect("answers have no keys that are no text");
    ([(header::CONTENT_TYPE, "application/json")], bytes).into_response()
}
