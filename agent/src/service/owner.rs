//! The one owner of all clusters. Everybody else has a [`Handle`] and sends it a command; commands
//! are carried out one after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use remora_env::Cluster;
use remora_env::cluster::TaskId;
use remora_env::observation::Reference;
use remora_policies::Policy;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::Clock;
use super::books::{Books, Chooser};
use super::convert::{Field, Registration};
use super::messages::{Answer, Order, Report, Summary};
use super::refusal::Refusal;

/// Most clusters at a time.
const MAX_CLUSTERS: usize = 1000;
/// Commands that may wait; beyond that, those who ask wait.
const WAITING: usize = 1024;

type Reply<T> = oneshot::Sender<T>;

/// A cluster as it stands, with the ids of its decisions that have not ended.
pub(super) struct Snapshot {
    pub cluster: Cluster,
    pub reference: Reference,
    pub decisions: BTreeMap<TaskId, String>,
}

/// Everything that can be asked of the owner.
enum Command {
    Register(Box<Registration>, Reply<Result<(Summary, bool), Refusal>>),
    List(Reply<Vec<Summary>>),
    Get(String, Reply<Result<Box<Snapshot>, Refusal>>),
    Remove(String, Reply<Result<(), Refusal>>),
    Place(Box<Order>, Reply<Result<Arc<Answer>, Refusal>>),
    Report(Box<Report>, Reply<Result<bool, Refusal>>),
}

/// Access to the owner.
#[derive(Clone)]
pub(super) struct Handle(mpsc::Sender<Command>);

impl Handle {
    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.0.send(command(reply)).await.map_err(|_| Refusal::Stopping)?;
        answer.await.map_err(|_| Refusal::Stopping)
    }

    /// Enters a cluster; true if it replaces another.
    pub async fn register(&self, registration: Registration) -> Result<(Summary, bool), Refusal> {
        self.ask(|reply| Command::Register(Box::new(registration), reply)).await?
    }

    pub async fn list(&self) -> Result<Vec<Summary>, Refusal> {
        self.ask(Command::List).await
    }

    pub async fn get(&self, id: String) -> Result<Box<Snapshot>, Refusal> {
        self.ask(|reply| Command::Get(id, reply)).await?
    }

    pub async fn remove(&self, id: String) -> Result<(), Refusal> {
        self.ask(|reply| Command::Remove(id, reply)).await?
    }

    pub async fn place(&self, order: Order) -> Result<Arc<Answer>, Refusal> {
        self.ask(|reply| Command::Place(Box::new(order), reply)).await?
    }

    /// Ends a decision; true if it had ended before.
    pub async fn report(&self, report: Report) -> Result<bool, Refusal> {
        self.ask(|reply| Command::Report(Box::new(report), reply)).await?
    }
}

struct Owner {
    clock: Clock,
    chooser: Chooser,
    clusters: BTreeMap<String, Books>,
}

/// Starts the owner; it ends when the last handle is gone.
pub(super) fn start(policy: Box<dyn Policy>, alpha: f64, clock: Clock) -> (Handle, JoinHandle<()>) {
    let (sender, mut commands) = mpsc::channel(WAITING);
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let chooser = Chooser { policy, alpha, run: format!("{:x}", started.as_nanos()), next: 0 };
    let mut owner = Owner { clock, chooser, clusters: BTreeMap::new() };
    let task = tokio::spawn(async move {
        while let Some(command) = commands.recv().await {
            owner.handle(command);
        }
    });
    (Handle(sender), task)
}

impl Owner {
    /// Whoever asked may have gone: then there is nobody to tell.
    fn handle(&mut self, command: Command) {
        match command {
            Command::Register(registration, reply) => drop(reply.send(self.register(*registration))),
            Command::List(reply) => drop(reply.send(self.clusters.values().map(Books::summary).collect())),
            Command::Get(id, reply) => drop(reply.send(self.get(&id))),
            Command::Remove(id, reply) => drop(reply.send(self.remove(&id))),
            // A decision that nobody hears of would never end.
            Command::Place(_, reply) if reply.is_closed() => {}
            Command::Place(order, reply) => drop(reply.send(self.place(&order))),
            Command::Report(report, reply) => drop(reply.send(self.report(&report))),
        }
    }

    fn books(&mut self, field: &'static str, id: &str) -> Result<&mut Books, Refusal> {
        if !self.clusters.contains_key(id) {
            let known = self.clusters.keys().map(String::as_str);
            return Err(Refusal::UnknownCluster(Field::root(field).unknown("cluster", id, known)));
        }
        let books = self.clusters.get_mut(id).expect("it is there");
        books.set_time(self.clock.now());
        Ok(books)
    }

    fn register(&mut self, registration: Registration) -> Result<(Summary, bool), Refusal> {
        let id = registration.id.clone();
        let replaced = self.clusters.contains_key(&id);
        if !replaced && self.clusters.len() >= MAX_CLUSTERS {
            return Err(Refusal::Full(format!(
                "there are {MAX_CLUSTERS} clusters already; remove one first"
            )));
        }
        let books = Books::new(registration);
        books.check();
        let summary = books.summary();
        self.clusters.insert(id, books);
        tracing::info!(cluster = summary.id, nodes = summary.nodes, replaced, "cluster registered");
        Ok((summary, replaced))
    }

    fn get(&mut self, id: &str) -> Result<Box<Snapshot>, Refusal> {
        let books = self.books("id", id)?;
        let (cluster, decisions) = (books.cluster.clone(), books.open_decisions());
        Ok(Box::new(Snapshot { cluster, reference: books.reference, decisions }))
    }

    fn remove(&mut self, id: &str) -> Result<(), Refusal> {
        self.books("id", id)?;
        self.clusters.remove(id);
        tracing::info!(cluster = id, "cluster removed");
        Ok(())
    }

    fn place(&mut self, order: &Order) -> Result<Arc<Answer>, Refusal> {
        self.books("cluster_id", &order.cluster_id)?;
        let books = self.clusters.get_mut(&order.cluster_id).expect("it is there");
        let answer = books.place(order, &mut self.chooser)?;
        books.check();
        let node = &answer.topology.nodes[answer.chosen.candidate.node as usize].name;
        let (cluster, kind) = (&order.cluster_id, &order.task.kind);
        tracing::debug!(cluster, kind, node, decision = answer.decision_id, "placed");
        Ok(answer)
    }

    fn report(&mut self, report: &Report) -> Result<bool, Refusal> {
        let books = self.books("cluster_id", &report.cluster_id)?;
        let already = books.report(report)?;
        books.check();
        tracing::debug!(?report, already, "outcome");
        Ok(already)
    }
}
