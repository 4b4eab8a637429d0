//! A task on its way through a node: queue, fetch, start, execution, store; then the service is told.

use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::extract::State;
use axum::http::StatusCode;
use futures_util::future::try_join_all;
use remora_env::catalogue::Task;
use remora_env::cluster::{Expected, Item, TaskId};
use remora_proto::v1 as wire;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tonic::Code;

use super::super::burn::BURN;
use super::super::ledger::{Cargo, Job, Line, Moved, Report};
use super::super::web::Json;
use super::fetch::Want;
use super::{Node, Untold, task_of};

/// Between two tries to reach the service.
const PAUSE: Duration = Duration::from_millis(200);

/// Works on a task and says what became of it; the same answer however often it is sent. 404: it was asked what became
/// of a task that it does not know.
pub(super) async fn task(
    State(node): State<Arc<Node>>,
    Json(job): Json<Job>,
) -> Result<Json<Report>, (StatusCode, String)> {
    let wrong = |reason: &str| (StatusCode::BAD_REQUEST, reason.to_owned());
    let mut done = {
        let mut jobs = node.jobs();
        match jobs.get(&job.decision) {
            Some(known) => known.clone(),
            None if job.again => return Err((StatusCode::NOT_FOUND, String::new())),
            None => {
                let task = task_of(&node.world, &job).ok_or_else(|| wrong("there is no such task"))?;
                if node.is_registry() {
                    return Err(wrong("a registry runs no tasks"));
                }
                let (sender, receiver) = watch::channel(None);
                jobs.insert(job.decision.clone(), receiver.clone());
                tokio::spawn(work(node.clone(), job, task, sender));
                receiver
            }
        }
    };
    let ended = done.wait_for(Option::is_some).await.map(|report| report.clone());
    let report = ended.ok().flatten();
    report.map(Json).ok_or((StatusCode::INTERNAL_SERVER_ERROR, "it was dropped".to_owned()))
}

async fn work(node: Arc<Node>, job: Job, task: Arc<Task>, sender: watch::Sender<Option<Report>>) {
    let began = Instant::now();
    let mut report = Report::default();
    let moved = Mutex::new(Vec::new());
    if let Some(turn) = admission(&node, job.id, &task) {
        // The sender is in the queue until the task is admitted.
        let _ = turn.await;
    }
    report.admitted_s = began.elapsed().as_secs_f64();
    let ran = run(&node, &job, &task, (&moved, began), &mut report).await;
    report.stored_s = began.elapsed().as_secs_f64();
    report.moved = moved.into_inner().unwrap_or_default();
    if let Err(error) = ran {
        report.failed = format!("{error:#}");
    }
    leave(&node, &job, &task);
    node.untold.fetch_add(1, Ordering::SeqCst);
    let (decision, age_s) = (job.decision, job.age_s);
    node.ledger.note(&Line::Ended { decision: decision.clone(), age_s, report: report.clone() });
    sender.send_replace(Some(report.clone()));
    tell(node, Untold { decision, age_s, report }).await;
}

/// Commits a task to this node; where it has to wait, what resolves when it is its turn.
fn admission(node: &Node, id: TaskId, task: &Arc<Task>) -> Option<oneshot::Receiver<()>> {
    let mut shelf = node.shelf();
    let admitted = shelf.cluster.place(id, Arc::clone(task), node.id(), Expected::default());
    (!admitted).then(|| {
        let (sender, turn) = oneshot::channel();
        node.queue().insert(id, sender);
        turn
    })
}

/// Gives back what the task held; those that waited for it go on.
fn leave(node: &Node, job: &Job, task: &Task) {
    let mut shelf = node.shelf();
    for item in shelf.cluster.needs(task, node.id()) {
        shelf.cluster.pin(node.id(), item, false);
    }
    let admitted = shelf.cluster.release(job.id, node.id()).unwrap_or_default();
    for id in admitted {
        if let Some(turn) = node.queue().remove(&id) {
            let _ = turn.send(());
        }
    }
}

async fn run(
    node: &Arc<Node>,
    job: &Job,
    task: &Task,
    (moved, began): (&Mutex<Vec<Moved>>, Instant),
    report: &mut Report,
) -> Result<()> {
    let needs = node.shelf().cluster.needs(task, node.id());
    let registry: Vec<_> = node.world.topology.registry_of(node.id()).into_iter().collect();
    let layers = needs.iter().filter(|item| matches!(item, Item::Layer(_))).map(|&item| Want {
        item,
        version: 0,
        sources: registry.clone(),
        cargo: Cargo::Image,
    });
    let inputs = job.inputs.iter().map(|input| Want {
        item: Item::Dataset(input.dataset),
        version: input.version,
        sources: input.sources.clone(),
        cargo: Cargo::Input,
    });
    let (layers, inputs): (Vec<_>, Vec<_>) = (layers.collect(), inputs.collect());
    let pulled = async {
        try_join_all(layers.iter().map(|want| node.bring(want, moved))).await?;
        anyhow::Ok(began.elapsed().as_secs_f64())
    };
    let fetched = try_join_all(inputs.iter().map(|want| node.bring(want, moved)));
    let (pulled_s, _) = tokio::try_join!(pulled, fetched)?;
    report.pulled_s = pulled_s;
    report.fetched_s = began.elapsed().as_secs_f64();
    execute(node, job, task, began, report).await?;
    store(node, job, moved).await
}

/// Starts the container and lets it run.
async fn execute(node: &Node, job: &Job, task: &Task, began: Instant, report: &mut Report) -> Result<()> {
    let startup_s = node.world.topology.nodes[node.id() as usize].startup_s;
    let starts = Instant::now() + Duration::from_secs_f64(startup_s);
    let use_millis = node.world.catalogue.kind(task).cpu_use_millis;
    let pace = f64::from(use_millis) / 1000.0 * node.args.cpu_share;
    let (mut child, mut said) = start(node, job.execution_s, pace)?;
    let ready = said.next_line().await?;
    if ready.as_deref() != Some("ready") {
        bail!("its command did not start: {}", child.wait().await?);
    }
    // Its process is part of what starting a container takes.
    sleep_until(starts).await;
    report.started_s = began.elapsed().as_secs_f64();
    let mut input = child.stdin.take().context("its command has no input")?;
    input.write_all(b"go\n").await?;
    let used = said.next_line().await?;
    report.executed_s = began.elapsed().as_secs_f64();
    drop(input);
    let ended = child.wait().await?;
    report.cpu_s =
        used.and_then(|used| used.parse().ok()).with_context(|| format!("its command ended: {ended}"))?;
    Ok(())
}

fn start(node: &Node, work_s: f64, pace: f64) -> Result<(Child, Lines<BufReader<ChildStdout>>)> {
    // Not by its path: the file there may have been replaced meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("remora").arg(BURN).arg(format!("--work-s={work_s}")).arg(format!("--pace={pace}"));
    if let Some(group) = &node.args.group {
        command.arg("--group").arg(group);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("its command cannot be started")?;
    let said = child.stdout.take().context("its command has no output")?;
    Ok((child, BufReader::new(said).lines()))
}

/// Makes the outputs and brings each to its home.
async fn store(node: &Arc<Node>, job: &Job, moved: &Mutex<Vec<Moved>>) -> Result<()> {
    for &(dataset, version) in &job.outputs {
        let item = Item::Dataset(dataset);
        let made = node.shelf().make(item, version).context("an output cannot be written")?;
        node.evicted(made);
        if node.world.catalogue.datasets[dataset as usize].homes.is_empty() {
            // It stays here for good.
            node.shelf().cluster.publish(dataset, node.id());
        }
    }
    let datasets = &node.world.catalogue.datasets;
    let elsewhere = job.outputs.iter().filter_map(|&output| {
        let home = *datasets[output.0 as usize].homes.first()?;
        (home != node.id()).then_some((output, home))
    });
    try_join_all(elsewhere.map(|(output, home)| node.deliver(output, home, moved))).await?;
    Ok(())
}

/// Reports to the service, however long it is away.
pub(super) async fn tell(node: Arc<Node>, untold: Untold) {
    let request = outcome(&node, &untold);
    let mut placements = node.placements.clone();
    let answer = loop {
        match placements.report_outcome(request.clone()).await {
            Ok(told) if told.get_ref().already_reported => break "it was reported already".to_owned(),
            Ok(_) => break String::new(),
            Err(status) => match status.code() {
                // A crash swallowed the decision, or there is something wrong with what is told.
                Code::NotFound | Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated => {
                    break format!("{} ({:?})", status.message(), status.code());
                }
                _ => tracing::debug!(%status, "tried again"),
            },
        }
        sleep(PAUSE).await;
    };
    node.ledger.note(&Line::Told { decision: untold.decision, answer });
    node.untold.fetch_sub(1, Ordering::SeqCst);
}

/// The most transfers that an outcome may list.
const MOST_TRANSFERS: usize = 1000;

fn outcome(node: &Node, untold: &Untold) -> wire::ReportOutcomeRequest {
    let Untold { decision, age_s, report } = untold;
    let name = |vertex: u32| node.world.topology.vertex_name(vertex).to_owned();
    let transfers = report.moved.iter().filter(|moved| moved.bytes > 0 && moved.from != moved.to);
    let transfers = transfers.take(MOST_TRANSFERS).map(|moved| wire::Transfer {
        from: name(moved.from),
        to: name(moved.to),
        bytes: moved.bytes as i64,
        seconds: moved.seconds.max(1e-6),
        others: moved.others.into(),
    });
    let failed = !report.failed.is_empty();
    let span = |from: f64, to: f64| (!failed).then_some((to - from).max(0.0));
    wire::ReportOutcomeRequest {
        cluster_id: node.world.name.clone(),
        decision_id: decision.clone(),
        failed,
        response_s: Some(age_s + report.stored_s),
        transfer_bytes: Some(report.moved.iter().map(|moved| moved.bytes as i64).sum()),
        phases: Some(wire::Phases {
            wait_s: span(0.0, report.admitted_s).map(|wait_s| wait_s + age_s),
            pull_s: span(report.admitted_s, report.pulled_s),
            fetch_s: span(report.pulled_s, report.fetched_s),
            start_s: span(report.fetched_s, report.started_s),
            execution_s: span(report.started_s, report.executed_s),
            store_s: span(report.executed_s, report.stored_s),
        }),
        transfers: transfers.collect(),
        reason: report.failed.chars().take(500).collect(),
    }
}
