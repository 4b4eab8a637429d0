//! The orchestrator of a testbed: lets tasks arrive, asks the service where each goes, sends it there, and tries again
//! what was lost.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use remora_env::cluster::TaskId;
use remora_env::outcome::{End, Outcome};
use remora_env::topology::{Direction, NodeId, VertexId};
use remora_env::world::When;
use remora_env::{Cluster, Time, World};
use remora_proto::v1 as wire;
use remora_proto::v1::change::Change;
use remora_proto::v1::cluster_service_client::ClusterServiceClient;
use remora_proto::v1::placement_service_client::PlacementServiceClient;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::ledger::{Cargo, Input, Job, Report};
use super::web;
use crate::service::convert;

/// Between two tries to reach somebody.
const PAUSE: Duration = Duration::from_millis(100);

/// Where each process takes tasks; another address each time that it is started.
#[derive(Debug)]
pub struct Controls(Mutex<Vec<Option<String>>>);

impl Controls {
    pub fn new(vertices: usize) -> Controls {
        Controls(Mutex::new(vec![None; vertices]))
    }

    /// A process takes tasks at this address from now on.
    pub fn found(&self, vertex: VertexId, control: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[vertex as usize] = Some(control);
    }

    /// Where a process takes tasks.
    pub fn of(&self, vertex: VertexId) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[vertex as usize].clone()
    }
}

/// Which version of each dataset there is, and who keeps it.
#[derive(Debug)]
struct Versions {
    current: Vec<u32>,
    next: Vec<u32>,
    keepers: Vec<Vec<NodeId>>,
}

#[derive(Debug)]
pub struct Driver {
    world: Arc<World>,
    alpha: f64,
    placements: PlacementServiceClient<Channel>,
    clusters: ClusterServiceClient<Channel>,
    controls: Arc<Controls>,
    versions: Mutex<Versions>,
    /// Nodes that do not answer.
    away: Mutex<BTreeSet<NodeId>>,
    /// What could ever run where, and for how long.
    idle: Cluster,
    next: AtomicU64,
    /// How long a node may be silent before what it works on counts as lost.
    patience: Duration,
    /// For how many tasks each still waits; nothing once one of them did not complete.
    awaits: Mutex<Vec<Option<u32>>>,
    began: Instant,
    /// Nanoseconds for which the testbed rested: no time of its own.
    rested: AtomicU64,
}

/// One try of a task.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Try {
    pub decision: String,
    pub node: String,
    pub policy: String,
    pub fallback: String,
    /// Seconds since the beginning.
    pub at_s: f64,
    pub predicted_s: f64,
    pub predicted_bytes: i64,
    pub cpu_s: f64,
    /// Why it came to nothing; empty if it did not.
    pub failed: String,
}

/// What became of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Lived {
    pub outcome: Outcome,
    pub tries: Vec<Try>,
    /// Why it did not complete.
    pub reason: String,
}

impl Driver {
    pub fn new(
        world: Arc<World>,
        alpha: f64,
        channel: Channel,
        controls: Arc<Controls>,
        patience: Duration,
    ) -> Driver {
        let datasets = &world.catalogue.datasets;
        let versions = Versions {
            current: vec![0; datasets.len()],
            next: vec![0; datasets.len()],
            keepers: datasets.iter().map(|dataset| dataset.homes.clone()).collect(),
        };
        let awaits = world.tasks.iter().map(|planned| Some(planned.awaits)).collect();
        Driver {
            awaits: Mutex::new(awaits),
            rested: AtomicU64::new(0),
            idle: world.initial_cluster(),
            controls,
            versions: Mutex::new(versions),
            away: Mutex::default(),
            placements: PlacementServiceClient::new(channel.clone()),
            clusters: ClusterServiceClient::new(channel),
            next: AtomicU64::new(0),
            began: Instant::now(),
            world,
            alpha,
            patience,
        }
    }

    fn versions(&self) -> MutexGuard<'_, Versions> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a time of the testbed is.
    fn at(&self, time: Time) -> Instant {
        self.began + Duration::from_nanos(self.rested.load(Ordering::Relaxed) + time.0)
    }

    /// Time of the testbed.
    pub fn now(&self) -> Time {
        let elapsed = Time::from_s(self.began.elapsed().as_secs_f64());
        Time(elapsed.0.saturating_sub(self.rested.load(Ordering::Relaxed)))
    }

    /// Waits for a time of the testbed.
    pub async fn until(&self, time: Time) {
        sleep_until(self.at(time)).await;
    }

    /// Goes on after a rest, in which nothing was under way: it is now the time at which the rest began or, where tasks
    /// were to arrive before that, `next`.
    pub fn go_on(&self, rested_at: Time, next: Time) {
        let elapsed = Time::from_s(self.began.elapsed().as_secs_f64());
        self.rested.store(elapsed.0.saturating_sub(rested_at.min(next).0), Ordering::Relaxed);
    }

    /// Plays those of these tasks that arrive at times of their own, and all that follow them; what became of each, as
    /// they ended. `ended` is told of each.
    pub async fn play(self: &Arc<Self>, tasks: Range<usize>, ended: impl Fn(&Lived)) -> Result<Vec<Lived>> {
        let mut living = JoinSet::new();
        for index in tasks {
            if let When::At(at) = self.world.tasks[index].when {
                living.spawn(self.clone().live(index as u32, at));
            }
        }
        let mut lived = Vec::new();
        while let Some(one) = living.join_next().await {
            let mut over = vec![one.context("a task's life broke off")??];
            while let Some(one) = over.pop() {
                let (ready, orphans) = self.followers(&one);
                ready.into_iter().for_each(|task| drop(living.spawn(self.clone().live(task, self.now()))));
                over.extend(orphans);
                ended(&one);
                lived.push(one);
            }
        }
        Ok(lived)
    }

    /// Those that waited for this task: whose turn it is, and who will never have one.
    fn followers(&self, one: &Lived) -> (Vec<u32>, Vec<Lived>) {
        let (mut ready, mut orphans) = (Vec::new(), Vec::new());
        let before = &self.world.tasks[one.outcome.task as usize];
        let mut awaits = self.awaits.lock().unwrap_or_else(PoisonError::into_inner);
        for &follower in &before.followers {
            let waits = &mut awaits[follower as usize];
            match (one.outcome.is_completed(), *waits) {
                (_, None) => {}
                (true, Some(1)) => ready.push(follower),
                (true, Some(more)) => *waits = Some(more - 1),
                (false, Some(_)) => {
                    *waits = None;
                    let mut outcome = Outcome::arrived(TaskId::from(follower), self.now());
                    outcome.end = End::Orphaned;
                    let reason = format!("{} did not complete", before.name);
                    orphans.push(Lived { outcome, tries: Vec::new(), reason });
                }
            }
        }
        (ready, orphans)
    }

    /// A task from its arrival to its end.
    async fn live(self: Arc<Self>, index: u32, at: Time) -> Result<Lived> {
        self.until(at).await;
        let planned = &self.world.tasks[index as usize];
        let outcome = Outcome::arrived(TaskId::from(index), at);
        let mut lived = Lived { outcome, tries: Vec::new(), reason: String::new() };
        let mut nodes = 0..self.world.topology.nodes.len() as NodeId;
        if !nodes.any(|node| self.idle.can_run(&planned.task, node)) {
            lived.outcome.end = End::Unplaceable;
            lived.reason = "no node could ever run it".to_owned();
            return Ok(self.over(lived));
        }
        if let Some(dataset) = planned.renews {
            self.renew(dataset).await?;
        }
        loop {
            let Some(placed) = self.place(index, &lived).await? else {
                lived.outcome.end = End::TurnedAway;
                lived.reason = "all queues were full".to_owned();
                return Ok(self.over(lived));
            };
            self.attempt(index, placed, &mut lived).await?;
            let failed = lived.tries.last().map_or("", |one| &one.failed).to_owned();
            if failed.is_empty() {
                lived.outcome.end = End::Completed;
                return Ok(self.over(lived));
            }
            if lived.outcome.retries == self.world.faults.retries {
                lived.outcome.end = End::GivenUp;
                lived.reason = failed;
                return Ok(self.over(lived));
            }
            lived.outcome.retries += 1;
            sleep(Duration::from_nanos(self.world.faults.backoff.0)).await;
        }
    }

    fn over(&self, mut lived: Lived) -> Lived {
        let outcome = &mut lived.outcome;
        if outcome.end == End::Completed {
            let kind = self.world.catalogue.kind(&self.world.tasks[outcome.task as usize].task);
            outcome.deadline_missed = kind.deadline_s.is_some_and(|most_s| outcome.response_s() > most_s);
        } else {
            outcome.completed = self.now();
        }
        lived
    }

    /// New data comes to its home, and the service hears that copies elsewhere are out of date.
    async fn renew(&self, dataset: u32) -> Result<()> {
        let home = self.world.catalogue.datasets[dataset as usize].homes[0];
        let version = {
            let mut versions = self.versions();
            versions.next[dataset as usize] += 1;
            versions.next[dataset as usize]
        };
        while !self.made(home, dataset, version).await {
            sleep(PAUSE).await;
        }
        self.published(dataset, version, home);
        let holders = vec![self.name(home)];
        let dataset = self.world.catalogue.datasets[dataset as usize].name.clone();
        self.tell(Change::DatasetFacts(wire::DatasetFacts { dataset, holders, waited_s: None })).await
    }

    async fn made(&self, home: NodeId, dataset: u32, version: u32) -> bool {
        let Some(control) = self.controls.of(home) else { return false };
        matches!(web::ask::<()>(&control, "/renew", &(dataset, version)).await, Ok(Some(())))
    }

    fn published(&self, dataset: u32, version: u32, keeper: NodeId) {
        let mut versions = self.versions();
        let current = &mut versions.current[dataset as usize];
        if *current < version {
            *current = version;
            versions.keepers[dataset as usize] = vec![keeper];
        }
    }

    fn name(&self, node: NodeId) -> String {
        self.world.topology.nodes[node as usize].name.clone()
    }

    async fn tell(&self, change: Change) -> Result<()> {
        let request = wire::UpdateClusterRequest {
            cluster_id: self.world.name.clone(),
            changes: vec![wire::Change { change: Some(change) }],
            ..wire::UpdateClusterRequest::default()
        };
        let mut clusters = self.clusters.clone();
        loop {
            match clusters.update(request.clone()).await {
                Ok(_) => return Ok(()),
                Err(status) if passes(&status) => sleep(PAUSE).await,
                Err(status) => {
                    bail!("the service did not take an update: {} ({:?})", status.message(), status.code())
                }
            }
        }
    }

    /// Asks the service where a task goes, until it answers and some node takes the task; `None` where it is turned
    /// away.
    async fn place(&self, index: u32, lived: &Lived) -> Result<Option<wire::PlaceResponse>> {
        let task = convert::task(&self.world.tasks[index as usize].task, &self.world.catalogue);
        let request = wire::PlaceRequest {
            cluster_id: self.world.name.clone(),
            task: Some(task),
            alpha: Some(self.alpha),
            request_id: format!("{index}/{}", lived.outcome.retries),
            max_candidates: Some(1),
            ..wire::PlaceRequest::default()
        };
        let mut placements = self.placements.clone();
        loop {
            match placements.place(request.clone()).await {
                Ok(placed) => return Ok(Some(placed.into_inner())),
                Err(status) if passes(&status) => sleep(PAUSE).await,
                Err(status) if status.code() == Code::FailedPrecondition => {
                    let away = !self.away.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
                    if self.world.topology.queue_limit.is_some() && !away {
                        return Ok(None);
                    }
                    sleep(Duration::from_nanos(self.world.faults.backoff.0).max(PAUSE)).await;
                }
                Err(status) => {
                    bail!("the service did not place a task: {} ({:?})", status.message(), status.code())
                }
            }
        }
    }

    /// Sends a task to the node that was chosen and waits for what becomes of it.
    async fn attempt(
        self: &Arc<Self>,
        index: u32,
        placed: wire::PlaceResponse,
        lived: &mut Lived,
    ) -> Result<()> {
        let node =
            self.world.topology.node_named(&placed.node).context("the service chose a node of its own")?;
        let sent = self.now();
        let job = self.job(index, &placed.decision_id, node, lived)?;
        let mut one = Try {
            decision: placed.decision_id,
            node: placed.node,
            policy: placed.policy,
            fallback: placed.fallback,
            at_s: sent.as_s(),
            predicted_s: placed.predicted_completion_s,
            predicted_bytes: placed.predicted_transfer_bytes,
            cpu_s: 0.0,
            failed: String::new(),
        };
        match self.send(node, job.clone()).await {
            Ok(report) => {
                self.enter(&report, (node, sent), &mut lived.outcome);
                one.failed.clone_from(&report.failed);
                one.cpu_s = report.cpu_s;
                if report.failed.is_empty() {
                    for &(dataset, version) in &job.outputs {
                        let home = self.world.catalogue.datasets[dataset as usize].homes.first().copied();
                        self.published(dataset, version, home.unwrap_or(node));
                    }
                }
            }
            Err(lost) => {
                one.failed = format!("{lost:#}");
                lived.outcome.node = Some(node);
                self.lost(&one).await?;
            }
        }
        lived.tries.push(one);
        Ok(())
    }

    fn job(&self, index: u32, decision: &str, node: NodeId, lived: &Lived) -> Result<Job> {
        let planned = &self.world.tasks[index as usize];
        let execution = self.idle.execution(&planned.task, node);
        let execution =
            execution.ok_or_else(|| anyhow!("the service chose a node that cannot run the task"))?;
        let slowdown = self.world.faults.stragglers;
        let slowdown =
            slowdown.map_or(1.0, |luck| luck.slowdown(self.world.seed, index, lived.outcome.retries));
        let mut versions = self.versions();
        let inputs = planned.task.inputs.iter().map(|&dataset| Input {
            dataset,
            version: versions.current[dataset as usize],
            sources: versions.keepers[dataset as usize].clone(),
        });
        let inputs = inputs.collect();
        let outputs = planned.task.outputs.iter().map(|&dataset| {
            versions.next[dataset as usize] += 1;
            (dataset, versions.next[dataset as usize])
        });
        let outputs = outputs.collect();
        Ok(Job {
            decision: decision.to_owned(),
            id: self.next.fetch_add(1, Ordering::Relaxed),
            task: index,
            inputs,
            outputs,
            execution_s: execution.quantile(planned.luck) * slowdown,
            age_s: self.now().since_s(lived.outcome.arrived),
            again: false,
        })
    }

    /// Sends a job; where the connection breaks, asks what became of it until that is known or patience ends.
    async fn send(self: &Arc<Self>, node: NodeId, mut job: Job) -> Result<Report> {
        let mut silent: Option<Instant> = None;
        loop {
            let control = self.controls.of(node);
            let asked = match &control {
                Some(control) => web::ask::<Report>(control, "/tasks", &job).await,
                None => Err(anyhow!("it is not there")),
            };
            let error = match asked {
                Ok(Some(report)) => return Ok(report),
                Ok(None) => bail!("its node was started anew and does not know it"),
                Err(error) => error,
            };
            // It may have been taken: from now on we only ask.
            job.again = true;
            let since = *silent.get_or_insert_with(Instant::now);
            if since.elapsed() > self.patience {
                self.miss(node).await?;
                return Err(error.context("its node does not answer"));
            }
            sleep(PAUSE).await;
        }
    }

    /// A node does not answer: the service sends nothing there until it does again.
    async fn miss(self: &Arc<Self>, node: NodeId) -> Result<()> {
        if !self.away.lock().unwrap_or_else(PoisonError::into_inner).insert(node) {
            return Ok(());
        }
        let available = |available| wire::NodeAvailable { node: self.name(node), available };
        self.tell(Change::NodeAvailable(available(false))).await?;
        let (driver, back) = (self.clone(), available(true));
        tokio::spawn(async move {
            loop {
                sleep(PAUSE).await;
                let Some(control) = driver.controls.of(node) else { continue };
                if matches!(web::ask::<u32>(&control, "/pending", &()).await, Ok(Some(_))) {
                    break;
                }
            }
            driver.away.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
            if let Err(error) = driver.tell(Change::NodeAvailable(back)).await {
                tracing::warn!(%error, "a node that came back takes no tasks");
            }
        });
        Ok(())
    }

    /// Tells the service that a try was lost.
    async fn lost(&self, one: &Try) -> Result<()> {
        let request = wire::ReportOutcomeRequest {
            cluster_id: self.world.name.clone(),
            decision_id: one.decision.clone(),
            failed: true,
            reason: one.failed.clone(),
            ..wire::ReportOutcomeRequest::default()
        };
        let mut placements = self.placements.clone();
        loop {
            match placements.report_outcome(request.clone()).await {
                Err(status) if passes(&status) => sleep(PAUSE).await,
                // A crash may have swallowed the decision.
                Err(status) if status.code() == Code::NotFound => return Ok(()),
                Err(status) => bail!("the service did not take an outcome: {}", status.message()),
                Ok(_) => return Ok(()),
            }
        }
    }

    /// Enters what a node reported of a try that it was sent at this time.
    fn enter(&self, report: &Report, (node, sent): (NodeId, Time), outcome: &mut Outcome) {
        outcome.node = Some(node);
        outcome.admitted = sent.after_s(report.admitted_s);
        outcome.fetched = sent.after_s(report.fetched_s);
        outcome.started = sent.after_s(report.started_s);
        outcome.executed = sent.after_s(report.executed_s);
        outcome.completed = sent.after_s(report.stored_s);
        for moved in report.moved.iter().filter(|moved| moved.from != moved.to) {
            let path = self.world.topology.path(moved.from, moved.to, Direction::From);
            let (price, wan) = path.map_or((1.0, false), |path| (path.price, path.wan));
            let bytes = match moved.cargo {
                Cargo::Image => &mut outcome.image_bytes,
                Cargo::Input => &mut outcome.input_bytes,
                Cargo::Output => &mut outcome.output_bytes,
            };
            *bytes += moved.bytes;
            outcome.moved_bytes += price * moved.bytes as f64;
            outcome.wan_bytes += if wan { moved.bytes } else { 0 };
        }
    }
}

/// Whether a refusal says that the service is away, or has too much to do: it passes.
fn passes(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Internal
    )
}
