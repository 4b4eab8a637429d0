//! What is counted, and how it is told: in the text format of OpenMetrics, which Prometheus reads.
//!
//! Counting is cheap, so it is done with every request. What the owner and the system know is asked for when somebody
//! reads the metrics.

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tonic::Code;

use super::limits::Limiter;
use super::owner::{Command, Handle, PolicyCommand};
use crate::memory::status_bytes;
use crate::storage::Storage;

/// Upper ends of the buckets of durations, seconds.
const BUCKETS: [f64; 14] = [5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0];
/// Most combinations of cluster, policy and fallback that are told apart.
const COMBINATIONS: usize = 5000;
/// What stands for those beyond, and for methods that do not exist.
const OTHER: &str = "other";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    method: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfMethod {
    method: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Decided {
    cluster: String,
    policy: String,
    fallback: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfCluster {
    cluster: String,
}

type Seconds<L> = Family<L, Histogram, fn() -> Histogram>;

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

/// Everything that is counted as it happens.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    request_seconds: Seconds<OfMethod>,
    decisions: Family<Decided, Counter>,
    /// Combinations that were told apart so far.
    combinations: AtomicUsize,
    decision_seconds: Histogram,
    /// Clusters that were read for the Control Panel.
    pub panel_reads: Counter,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut registry = Registry::default();
        let requests = Family::default();
        registry.register("remora_requests", "Requests by method and gRPC status", requests.clone());
        let request_seconds = Seconds::new_with_constructor(histogram);
        registry.register(
            "remora_request_seconds",
            "Time from a request's head to the end of its answer",
            request_seconds.clone(),
        );
        let decisions = Family::default();
        registry.register(
            "remora_decisions",
            "Decisions, without dry runs; fallback says why the policy did not decide, and is empty if it did",
            decisions.clone(),
        );
        let decision_seconds = histogram();
        registry.register(
            "remora_decision_seconds",
            "Time from asking the owner of the clusters to its decision, with its queue",
            decision_seconds.clone(),
        );
        let panel_reads = Counter::default();
        registry.register(
            "remora_panel_clusters_read",
            "How often the Control Panel read a cluster, for all who look together",
            panel_reads.clone(),
        );
        let build = vec![("version", env!("CARGO_PKG_VERSION")), ("target", std::env::consts::ARCH)];
        registry.register("remora_build", "The program that runs", Info::new(build));
        Metrics {
            registry,
            requests,
            request_seconds,
            decisions,
            combinations: AtomicUsize::new(0),
            decision_seconds,
            panel_reads,
        }
    }
}

impl Metrics {
    /// A request was answered, or given up by whoever sent it.
    pub fn answered(&self, method: Option<&'static str>, code: Code, took: Duration) {
        let method = method.unwrap_or(OTHER);
        self.requests.get_or_create(&Answered { method, code: code_name(code) }).inc();
        self.request_seconds.get_or_create(&OfMethod { method }).observe(took.as_secs_f64());
    }

    pub fn decided(&self, cluster: &str, policy: &str, fallback: &'static str, took: Duration) {
        self.decision_seconds.observe(took.as_secs_f64());
        let mut labels = Decided { cluster: cluster.to_owned(), policy: policy.to_owned(), fallback };
        if let Some(counter) = self.decisions.get(&labels) {
            counter.inc();
            return;
        }
        if self.combinations.fetch_add(1, Ordering::Relaxed) >= COMBINATIONS {
            labels = Decided { cluster: OTHER.to_owned(), policy: OTHER.to_owned(), fallback };
        }
        self.decisions.get_or_create(&labels).inc();
    }

    /// All metrics as text.
    pub(super) async fn tell(&self, limiter: &Limiter, owner: &Handle, storage: Option<&Storage>) -> String {
        let mut now = Registry::default();
        gauge(&mut now, "remora_requests_in_flight", "Requests under way", limiter.under_way() as i64);
        gauge(
            &mut now,
            "remora_owner_waiting",
            "Commands that wait for the owner of the clusters",
            owner.waiting() as i64,
        );
        if let Some(storage) = storage {
            journal(&mut now, storage);
        }
        clusters(&mut now, owner).await;
        process(&mut now);
        let mut text = String::new();
        let told = encode_registry(&mut text, &self.registry)
            .and_then(|()| encode_registry(&mut text, &now))
            .and_then(|()| encode_eof(&mut text));
        told.expect("a string takes any text");
        text
    }
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: i64) {
    registry.register(name, help, ConstGauge::new(value));
}

fn journal(registry: &mut Registry, storage: &Storage) {
    let health = storage.recorder().health();
    let well = health.trouble.is_none() && health.closed.is_none();
    gauge(registry, "remora_journal_healthy", "Whether the journal is written", well.into());
    let waiting = health.waiting_kib as i64 * 1024;
    gauge(registry, "remora_journal_waiting_bytes", "What waits to be written to the journal", waiting);
    gauge(registry, "remora_journal_durable", "Number of the last entry that is durable", health.durable);
}

/// What the owner knows. One that is too busy to tell is left out, and nobody waits for the next reading.
async fn clusters(registry: &mut Registry, owner: &Handle) {
    let Ok(clusters) = owner.list().await else { return };
    gauge(registry, "remora_clusters", "Registered clusters", clusters.len() as i64);
    let count = |help: &str, name: &str, registry: &mut Registry| {
        let family = Family::<OfCluster, Gauge<i64, AtomicI64>>::default();
        registry.register(name, help, family.clone());
        family
    };
    let nodes = count("Nodes of a cluster", "remora_nodes", registry);
    let running = count("Tasks whose requests are set aside", "remora_tasks_running", registry);
    let queued = count("Tasks that wait for resources", "remora_tasks_queued", registry);
    let regret = Family::<OfCluster, Gauge<f64, AtomicU64>>::default();
    registry.register(
        "remora_regret",
        "How much dearer the last decisions came than the heuristic was expected to, as a share of it",
        regret.clone(),
    );
    for cluster in clusters {
        let label = OfCluster { cluster: cluster.id.clone() };
        nodes.get_or_create(&label).set(cluster.nodes as i64);
        running.get_or_create(&label).set(cluster.running as i64);
        queued.get_or_create(&label).set(cluster.queued as i64);
        let ask = |reply| Command::Policies(PolicyCommand::Serving(cluster.id, reply));
        if let Ok(served) = owner.ask(ask).await
            && served.regret.1 > 0
        {
            regret.get_or_create(&label).set(served.regret.0);
        }
    }
}

/// What the process uses, under the names that Prometheus' own clients give it.
fn process(registry: &mut Registry) {
    if let Ok(used) = cpu_time::ProcessTime::try_now() {
        let seconds = ConstCounter::new(used.as_duration().as_secs_f64());
        registry.register("process_cpu_seconds", "User and system CPU time", seconds);
    }
    // Linux tells, others do not.
    if let Some(bytes) = status_bytes("self", "VmRSS") {
        gauge(registry, "process_resident_memory_bytes", "Resident memory", bytes as i64);
    }
}

/// As the gRPC specification writes it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
