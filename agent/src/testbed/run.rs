//! One run of a testbed: network, processes, service, tasks, faults, books.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use futures_util::future::try_join_all;
use remora_env::import::Imported;
use remora_env::outcome::Outcome;
use remora_env::scenario::{LinkFile, SiteFile};
use remora_env::topology::{Topology, VertexId};
use remora_env::{Scenario, World};
use remora_policies::rollout::Figures;
use serde_json::{Value, json};
use tokio::process::Child;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::burn::Groups;
use super::driver::{Controls, Driver, Lived};
use super::faults::{Fault, What};
use super::ledger::{self, Books, Line};
use super::links::{self, Measured};
use super::network::Network;
use super::node::Ready;
use super::process::started;
use super::recorded::{self, outcomes};
use super::service::{Asked, Service};
use super::web;
use crate::client;
use crate::files::write;

/// Of this machine's CPU, nodes together have at most this share: the rest is for what moves bytes.
const CPU_FOR_TASKS: f64 = 0.5;
/// How long processes may take to report what they know, and then to end.
const REPORTING: Duration = Duration::from_secs(60);
const ENDING: Duration = Duration::from_secs(5);

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// As fast as it is to be played.
    pub scenario: Scenario,
    pub policy: String,
    pub alpha: f64,
    pub seed: u64,
    /// A folder of its own.
    pub folder: PathBuf,
    pub faults: Vec<Fault>,
    /// Seconds after which a silent node's tasks are tried elsewhere, and how long what cannot be fetched is tried for.
    pub patience_s: f64,
    pub measure_links: bool,
    /// Whether the service controls applications.
    pub apps: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Played {
    /// In the order of the tasks.
    pub lived: Vec<Lived>,
    pub books: Books,
    pub links: Vec<Measured>,
    /// Results that were worked out in vain: their tries counted as lost when they came.
    pub in_vain: usize,
    /// Decisions that the service did not know any more when their outcome was reported: a crash swallowed them.
    pub swallowed: usize,
    pub network: &'static str,
    /// Share of a core of this machine that a core of a node had, and whether the kernel saw to it.
    pub cpu_share: f64,
    pub cpu_limited: bool,
    pub seconds: f64,
    pub recording: Imported,
}

/// A scenario as a testbed can play it: so many tasks, so fast, without what it cannot do; and what that is.
pub fn prepared(scenario: &Scenario, tasks: Option<u32>, speed: f64) -> (Scenario, Vec<String>) {
    let mut prepared = scenario.clone();
    let mut notes = Vec::new();
    let file = &mut prepared.file;
    file.workload.tasks = tasks.or(file.workload.tasks);
    let faults = &mut file.faults;
    let mut left_out = |there: bool, what: &str| {
        if there {
            notes.push(format!("{what} of the scenario left out, here and in what it is compared with"));
        }
    };
    left_out(faults.crashes.take().is_some(), "crashes");
    left_out(faults.links.take().is_some(), "degrading links");
    left_out(std::mem::take(&mut faults.telemetry_s) > 0.0, "old telemetry");
    let (mut recorded, mut jitter, mut mobile) = (false, false, false);
    let topology = &mut file.topology;
    let mut link = |link: &mut LinkFile| {
        recorded |= link.bandwidth.take().is_some();
        jitter |= link.jitter.take().is_some();
    };
    topology.registries.iter_mut().for_each(|registry| link(&mut registry.link));
    let mut nodes: Vec<_> = topology.nodes.iter_mut().collect();
    let mut sites: Vec<&mut SiteFile> = topology.sites.iter_mut().collect();
    while let Some(site) = sites.pop() {
        link(&mut site.uplink);
        nodes.extend(&mut site.nodes);
        sites.extend(&mut site.sites);
    }
    for nodes in nodes {
        link(&mut nodes.link);
        mobile |= nodes.mobile.take().is_some();
    }
    left_out(recorded, "links that follow recordings");
    left_out(jitter, "jitter");
    left_out(mobile, "coming and going of mobile nodes");
    (prepared.faster(speed), notes)
}

/// The processes of nodes and registries.
#[derive(Debug)]
struct Processes {
    network: Arc<Network>,
    controls: Arc<Controls>,
    topology: Arc<Topology>,
    groups: Option<Groups>,
    cpu_share: f64,
    scenario: PathBuf,
    folder: PathBuf,
    server: String,
    seed: u64,
    patience_s: f64,
    children: Mutex<Vec<Option<Child>>>,
}

impl Processes {
    fn folder(&self, vertex: VertexId) -> PathBuf {
        self.folder.join("nodes").join(self.topology.vertex_name(vertex).replace('/', "-"))
    }

    async fn start(&self, vertex: VertexId) -> Result<()> {
        let name = self.topology.vertex_name(vertex);
        let folder = self.folder(vertex);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut command = self.network.program(vertex);
        command.arg("node").arg(&self.scenario).arg(format!("--seed={}", self.seed));
        command.arg(format!("--name={name}")).arg("--folder").arg(&folder);
        command.arg(format!("--server={}", self.server)).args(self.network.arguments(vertex));
        command.arg(format!("--cpu-share={}", self.cpu_share));
        command.arg(format!("--patience-s={}", self.patience_s));
        if let Some(group) = self.group(vertex) {
            command.arg("--group").arg(group);
        }
        let log = folder.join("log");
        let (child, ready) = started::<Ready>(&format!("node {name}"), &mut command, &log).await?;
        self.network.opened(vertex, &ready);
        self.controls.found(vertex, ready.control.to_string());
        self.children.lock().await[vertex as usize] = Some(child);
        Ok(())
    }

    fn group(&self, vertex: VertexId) -> Option<PathBuf> {
        let node = self.topology.nodes.get(vertex as usize)?;
        let share = f64::from(node.cpu_millis) / 1000.0 * self.cpu_share;
        self.groups.as_ref()?.make(&node.name, share)
    }

    async fn kill(&self, vertex: VertexId) -> Result<()> {
        if let Some(mut child) = self.children.lock().await[vertex as usize].take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Waits until each has told the service all that it knows.
    async fn settled(&self) -> Result<()> {
        let began = Instant::now();
        for vertex in 0..self.topology.nodes.len() as VertexId {
            let control = self.controls.of(vertex).context("every node was started")?;
            while !matches!(web::ask::<u32>(&control, "/pending", &()).await, Ok(Some(0))) {
                if began.elapsed() > REPORTING {
                    bail!("{} did not report everything in time", self.topology.vertex_name(vertex));
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// Ends all of them.
    async fn end(&self) -> Result<()> {
        let mut children: Vec<_> = self.children.lock().await.iter_mut().filter_map(Option::take).collect();
        children.iter_mut().for_each(|child| drop(child.stdin.take()));
        for mut child in children {
            if timeout(ENDING, child.wait()).await.is_err() {
                child.kill().await?;
            }
        }
        Ok(())
    }
}

/// Share of a core of this machine that a core of a node can have.
fn cpu_share(topology: &Topology) -> f64 {
    let machine = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
    let cluster: f64 = topology.nodes.iter().map(|node| f64::from(node.cpu_millis) / 1000.0).sum();
    (machine * CPU_FOR_TASKS / cluster).min(1.0)
}

/// Runs a plan on a network made for its world. `said` is told what it is at, `ended` of each task.
///
/// # Errors
/// Where something breaks that was not to be broken. Dropping the future ends all processes.
pub async fn play(
    plan: &Plan,
    network: &Arc<Network>,
    said: &dyn Fn(String),
    ended: &dyn Fn(&Lived),
) -> Result<Played> {
    let testbed = Testbed::start(plan, network, said).await?;
    let target =
        |fault: &Fault| fault.what.target(&testbed.world).map_err(|wrong| anyhow!("--fault: {wrong}"));
    let targets = plan.faults.iter().map(target).collect::<Result<Vec<_>>>()?;
    let driver = testbed.driver()?;
    let began = Instant::now();
    let faults = plan.faults.iter().cloned().zip(targets);
    let faults = try_join_all(faults.map(|(fault, target)| testbed.inflict(fault, target, began, said)));
    // What is broken is healed, also where no task is left to notice.
    let (lived, _) = tokio::try_join!(driver.play(0..testbed.world.tasks.len(), ended), faults)?;
    let seconds = began.elapsed().as_secs_f64();
    testbed.settled().await?;
    testbed.end(lived, seconds).await
}

/// A testbed that is up: its processes run, and no task has arrived.
#[derive(Debug)]
pub struct Testbed<'a> {
    plan: &'a Plan,
    network: &'a Arc<Network>,
    folder: PathBuf,
    /// As all processes read it.
    scenario: Scenario,
    pub world: Arc<World>,
    /// Where the service is.
    pub server: String,
    service: Arc<Mutex<Service>>,
    controls: Arc<Controls>,
    processes: Arc<Processes>,
    links: Vec<Measured>,
}

impl<'a> Testbed<'a> {
    /// Starts the service and all nodes, and measures the links where that is wanted.
    pub async fn start(
        plan: &'a Plan,
        network: &'a Arc<Network>,
        said: &dyn Fn(String),
    ) -> Result<Testbed<'a>> {
        let folder = absolute(&plan.folder)?;
        let path = folder.join("scenario.toml");
        let scenario = written(&plan.scenario, &path)?;
        let world = Arc::new(scenario.world(plan.seed));
        let Plan { policy, alpha, seed, apps, .. } = plan.clone();
        let asked = Asked { scenario: path.clone(), policy, alpha, seed, folder: folder.clone(), apps };
        let service = Service::start(asked, network).await?;
        let server = format!("http://{}", service.address);
        let service = Arc::new(Mutex::new(service));
        let topology = &world.topology;
        let controls = Arc::new(Controls::new(topology.vertex_count()));
        let processes = Arc::new(Processes {
            network: network.clone(),
            controls: controls.clone(),
            groups: Groups::new(),
            cpu_share: cpu_share(topology),
            scenario: path,
            folder: folder.clone(),
            server: server.clone(),
            seed,
            patience_s: plan.patience_s,
            children: Mutex::new(topology.leaves().map(|_| None).collect()),
            topology: topology.clone(),
        });
        let (nodes, registries) = (topology.nodes.len(), topology.registries.len());
        said(format!("starting {nodes} nodes and {registries} registries on the {} network", network.name()));
        try_join_all(topology.leaves().map(|vertex| processes.start(vertex))).await?;
        let mut links = Vec::new();
        if plan.measure_links {
            said("measuring links".to_owned());
            links = links::measure(topology, &controls).await?;
        }
        said(format!("{} tasks", world.tasks.len()));
        Ok(Testbed { plan, network, folder, scenario, world, server, service, controls, processes, links })
    }

    /// Who lets the tasks arrive; time begins now.
    pub fn driver(&self) -> Result<Arc<Driver>> {
        let (world, controls) = (self.world.clone(), self.controls.clone());
        let patience = Duration::from_secs_f64(self.plan.patience_s);
        let channel = client::lazy(&self.server)?;
        Ok(Arc::new(Driver::new(world, self.plan.alpha, channel, controls, patience)))
    }

    /// Lets a link carry a share of what it was made for.
    pub async fn degrade(&self, link: usize, share: f64) -> Result<()> {
        self.network.degrade(link, share).await
    }

    /// Breaks something and heals it.
    async fn inflict(
        &self,
        fault: Fault,
        target: Option<usize>,
        began: Instant,
        said: &dyn Fn(String),
    ) -> Result<()> {
        sleep_until(began + Duration::from_secs_f64(fault.at_s)).await;
        said(fault.to_string());
        let span = Duration::from_secs_f64(fault.for_s);
        match (&fault.what, target) {
            (What::Node(_), Some(vertex)) => {
                self.processes.kill(vertex as VertexId).await?;
                sleep(span).await;
                self.processes.start(vertex as VertexId).await?;
            }
            (What::Link(_), Some(link)) => {
                self.degrade(link, fault.share).await?;
                sleep(span).await;
                self.degrade(link, 1.0).await?;
            }
            _ => {
                let mut service = self.service.lock().await;
                service.kill().await?;
                sleep(span).await;
                service.begin().await?;
            }
        }
        Ok(())
    }

    /// Waits until each node has told the service all that it knows.
    pub async fn settled(&self) -> Result<()> {
        self.processes.settled().await
    }

    /// Ends all processes, compares the books and keeps what is known of the tasks, which were played for so long.
    pub async fn end(self, mut lived: Vec<Lived>, seconds: f64) -> Result<Played> {
        self.processes.end().await?;
        self.service.lock().await.kill().await?;
        lived.sort_by_key(|one| one.outcome.task);
        let (world, plan) = (&self.world, self.plan);
        let mut ledgers = Vec::new();
        for vertex in world.topology.leaves() {
            ledgers.extend(ledger::read(&self.processes.folder(vertex))?);
        }
        let played = Played {
            books: Books::of(ledgers.iter()),
            in_vain: in_vain(&lived, &ledgers),
            swallowed: swallowed(&ledgers),
            recording: recorded::imported(&self.scenario, world, &plan.policy, plan.alpha, &lived),
            links: self.links,
            network: self.network.name(),
            cpu_share: self.processes.cpu_share,
            cpu_limited: self.processes.groups.is_some(),
            seconds,
            lived,
        };
        keep(&played, world, &self.folder)?;
        Ok(played)
    }
}

/// Writes the scenario for all processes, and reads it as they do.
fn written(scenario: &Scenario, path: &Path) -> Result<Scenario> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    match &scenario.trace {
        Some(trace) => {
            let (file, notes) = (scenario.file.clone(), Vec::new());
            Imported { scenario: file, trace: trace.clone(), notes }.write(path)?;
        }
        None => write(path, scenario.to_toml())?,
    }
    Ok(Scenario::load(&path.to_string_lossy())?)
}

fn absolute(folder: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    folder.canonicalize().with_context(|| format!("cannot read {}", folder.display()))
}

/// Results of tries that counted as lost: what they made was made twice.
fn in_vain(lived: &[Lived], ledgers: &[Line]) -> usize {
    let tries = lived.iter().flat_map(|one| &one.tries).filter(|tried| !tried.failed.is_empty());
    let lost: BTreeSet<&String> = tries.map(|tried| &tried.decision).collect();
    let done = ledgers.iter().filter(|line| match line {
        Line::Ended { decision, report, .. } => report.failed.is_empty() && lost.contains(decision),
        _ => false,
    });
    done.count()
}

fn swallowed(ledgers: &[Line]) -> usize {
    let told = |line: &&Line| matches!(line, Line::Told { answer, .. } if answer.contains("no decision"));
    ledgers.iter().filter(told).count()
}

/// Writes what is known of each task and each link, and a recording for the simulator.
fn keep(played: &Played, world: &World, folder: &Path) -> Result<()> {
    let rows: String = played.lived.iter().map(|one| format!("{}\n", recorded::row(world, one))).collect();
    write(&folder.join("tasks.jsonl"), rows)?;
    played.recording.write(&folder.join("recorded.toml"))?;
    Ok(())
}

impl Played {
    /// What became of the tasks, in their order.
    pub fn outcomes(&self) -> Vec<Outcome> {
        outcomes(&self.lived)
    }

    /// Every task came to one end, every byte is accounted for, and links carry what they were made for.
    pub fn problems(&self, tasks: usize) -> Vec<String> {
        let mut problems = Vec::new();
        if self.lived.len() != tasks {
            problems.push(format!("{} tasks have an outcome, want {tasks}", self.lived.len()));
        }
        if !self.books.balance() {
            problems.push(format!("the books of bytes do not balance: {:?}", self.books));
        }
        for link in self.links.iter().filter(|link| !link.holds()) {
            problems.push(format!(
                "{} → {} carries {:.1} Mbit/s over the link of {}, made for {:.1}",
                link.from, link.to, link.measured_mbps, link.link, link.shaped_mbps
            ));
        }
        problems
    }

    /// The run as a row; seconds and bytes are those of the testbed.
    pub fn row(&self, plan: &Plan, speed: f64) -> Value {
        let figures = Figures::of_outcomes(&self.outcomes());
        let ends = |end| self.lived.iter().filter(|one| one.outcome.end == end).count();
        use remora_env::outcome::End;
        json!({
            "scenario": plan.scenario.name(),
            "policy": plan.policy,
            "alpha": plan.alpha,
            "seed": plan.seed,
            "speed": speed,
            "network": self.network,
            "seconds": self.seconds,
            "tasks": self.lived.len(),
            "completed": ends(End::Completed),
            "unplaceable": ends(End::Unplaceable),
            "turned_away": ends(End::TurnedAway),
            "given_up": ends(End::GivenUp),
            "orphaned": ends(End::Orphaned),
            "retries": figures.retries,
            "worked_in_vain": self.in_vain,
            "decisions_swallowed": self.swallowed,
            "response_mean_s": figures.response_mean_s,
            "response_p95_s": figures.response_p95_s,
            "deadline_missed": figures.deadline_missed,
            "moved_bytes": figures.moved_bytes,
            "wan_bytes": figures.wan_bytes,
            "books": self.books,
            "books_balance": self.books.balance(),
            "links_measured": self.links.len(),
            "links_hold": self.links.iter().filter(|link| link.holds()).count(),
            "cpu_share": self.cpu_share,
            "cpu_limited": self.cpu_limited,
        })
    }
}
