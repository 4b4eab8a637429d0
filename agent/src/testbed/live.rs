//! A policy that was trained in simulation learns on from what happens on a testbed, and decides there where it proved
//! better.
//!
//! ```text
//! remora serve: a heuristic decides, the trained policy in its shadow ── decisions, outcomes ──► journal
//!       ▲                                                                                          │
//!       └──── promoted, or not ◄── gate ◄── evaluation ◄── learning: the application `remora-policy` ◄──┘
//! ```
//!
//! Half-way through what is learnt from, a link is degraded, and stays so. Then the testbed rests while the application
//! learns, for that takes the CPU that nodes use; the other tasks are decided by whoever is champion afterwards.

mod plots;
mod service;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use remora_env::Time;
use remora_env::topology::{NodeId, Topology};
use remora_env::world::When;
use remora_proto::v1 as wire;
use remora_trainer::statistics::mean;
use serde::Serialize;
use tokio::time::Instant;

use super::driver::{Driver, Lived, Try};
use super::network::Network;
use super::run::{Plan, Played, Testbed};
use crate::appcore::manifest::Manifest;
use crate::files::write;
use crate::service::dearer;
use service::Talk;

pub use service::Learnt;

/// What happens besides the tasks.
#[derive(Clone, Debug)]
pub struct Course {
    /// It learns from so many tasks, the first ones.
    pub learn_from: usize,
    /// A link, and the share that it has left from half-way on.
    pub degraded: Option<(usize, f64)>,
    /// How it learns.
    pub manifest: Manifest,
}

/// What a link was taken to carry at a moment, and what it was made to; Mbit/s.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sample {
    pub at_s: f64,
    pub up_mbps: f64,
    pub down_mbps: f64,
    pub shaped_up_mbps: f64,
    pub shaped_down_mbps: f64,
}

/// A decision, and what came of it. Costs are at the dial of the run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decided {
    pub phase: &'static str,
    pub at_s: f64,
    pub task: u64,
    pub policy: String,
    pub node: String,
    /// The switch of the node.
    pub site: String,
    pub expected_cost: f64,
    /// Left out where it failed.
    pub actual_cost: Option<f64>,
    /// What the heuristic expected of its own choice.
    pub heuristic_cost: Option<f64>,
    /// How much dearer it came than that.
    pub regret: Option<f64>,
    /// What the shadow would have chosen, and expected.
    pub shadow_node: Option<String>,
    pub shadow_cost: Option<f64>,
}

/// Means over a part of the run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Phase {
    pub phase: &'static str,
    pub decisions: usize,
    pub decided_by: String,
    pub response_mean_s: f64,
    /// At prices, of a task.
    pub moved_mb: f64,
    pub cost: f64,
    pub regret: f64,
    /// Share of the decisions that the shadow would have made otherwise, and what its choices were expected to cost over
    /// those that were made.
    pub shadow_differs: f64,
    pub shadow_cost_ratio: f64,
}

/// What is known at the end besides what became of the tasks.
#[derive(Clone, Debug, Serialize)]
pub struct Learning {
    pub phases: Vec<Phase>,
    pub learnt: Learnt,
    /// Seconds of the testbed: when the link was degraded, and when it went on after learning.
    pub degraded_s: Option<f64>,
    pub went_on_s: f64,
    #[serde(skip)]
    pub decisions: Vec<Decided>,
    #[serde(skip)]
    pub samples: Vec<Sample>,
}

/// Plays a plan, whose service controls applications, in two parts with learning in between.
///
/// # Errors
/// Where something breaks. That nothing is learnt or promoted is no error.
pub async fn learn(
    (plan, course): (&Plan, &Course),
    network: &Arc<Network>,
    said: &dyn Fn(String),
    ended: &dyn Fn(&Lived),
) -> Result<(Played, Learning)> {
    let testbed = Testbed::start(plan, network, said).await?;
    let mut talk = Talk::new(&testbed.server, &testbed.world.name)?;
    talk.begin(&course.manifest).await?;
    let driver = testbed.driver()?;
    let tasks = &testbed.world.tasks;
    let watched = Watched {
        course,
        talk: talk.clone(),
        driver: &driver,
        topology: &testbed.world.topology,
        share: Cell::new(1.0),
        samples: RefCell::default(),
    };
    let arrives = |from: usize| {
        tasks[from..].iter().find_map(|task| match task.when {
            When::At(at) => Some(at),
            When::Later => None,
        })
    };
    let degraded = arrives(course.learn_from / 2).filter(|_| course.degraded.is_some());

    let began = Instant::now();
    let degrade = watched.degrade(&testbed, degraded, said);
    let playing = async { tokio::try_join!(driver.play(0..course.learn_from, ended), degrade) };
    let (mut lived, ()) = watched.during(playing).await?;
    testbed.settled().await?;
    let rested_at = driver.now();
    let mut seconds = began.elapsed().as_secs_f64();

    said("learning".to_owned());
    let learnt = talk.learn(&course.manifest).await?;
    said(learnt.told());
    driver.go_on(rested_at, arrives(course.learn_from).unwrap_or(rested_at));
    let (went_on, began) = (driver.now(), Instant::now());
    lived.extend(watched.during(driver.play(course.learn_from..tasks.len(), ended)).await?);
    testbed.settled().await?;
    seconds += began.elapsed().as_secs_f64();

    let turns = Turns { degraded, learn_from: course.learn_from };
    let decisions = turns.decisions(&lived, &testbed.world.topology, &mut talk).await?;
    let samples = watched.samples.into_inner();
    let played = testbed.end(lived, seconds).await?;
    let phases = phases(&decisions, &played.lived);
    let (degraded_s, went_on_s) = (degraded.map(Time::as_s), went_on.as_s());
    Ok((played, Learning { phases, learnt, degraded_s, went_on_s, decisions, samples }))
}

/// The link that is degraded, and what it is taken to carry meanwhile.
struct Watched<'a> {
    course: &'a Course,
    talk: Talk,
    driver: &'a Driver,
    topology: &'a Topology,
    /// What the link has left.
    share: Cell<f64>,
    samples: RefCell<Vec<Sample>>,
}

/// Between two looks at what a link is taken to carry.
const LOOK: std::time::Duration = std::time::Duration::from_millis(500);

impl Watched<'_> {
    /// Degrades the link at its time.
    async fn degrade(&self, testbed: &Testbed<'_>, at: Option<Time>, said: &dyn Fn(String)) -> Result<()> {
        if let (Some((link, share)), Some(at)) = (self.course.degraded, at) {
            self.driver.until(at).await;
            testbed.degrade(link, share).await?;
            self.share.set(share);
            said(format!("link degraded to {share} after {:.0} s", at.as_s()));
        }
        Ok(())
    }

    /// Looks at the link as long as something goes on.
    async fn during<T>(&self, what: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = what => done,
            failed = self.watch() => Err(failed),
        }
    }

    async fn watch(&self) -> anyhow::Error {
        let Some((link, _)) = self.course.degraded else { return std::future::pending().await };
        // The service was told of it as it is in the scenario.
        let Some(made) = self.topology.links.get(link) else { return anyhow!("there is no link {link}") };
        let made = [made.up_bytes_per_s, made.down_bytes_per_s];
        loop {
            let taken = match self.talk.clone().estimate(link).await {
                Ok(estimate) => estimate.unwrap_or(made),
                Err(error) => return error.context("what a link is taken to carry"),
            };
            self.samples.borrow_mut().push(Sample {
                at_s: self.driver.now().as_s(),
                up_mbps: taken[0] * 8e-6,
                down_mbps: taken[1] * 8e-6,
                shaped_up_mbps: made[0] * 8e-6 * self.share.get(),
                shaped_down_mbps: made[1] * 8e-6 * self.share.get(),
            });
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Where one part of the run ends and the next begins.
struct Turns {
    degraded: Option<Time>,
    learn_from: usize,
}

const PHASES: [&str; 3] = ["at first", "link degraded", "after learning"];

impl Turns {
    fn phase(&self, task: u64, at_s: f64) -> &'static str {
        match self.degraded {
            _ if task as usize >= self.learn_from => PHASES[2],
            Some(at) if at_s >= at.as_s() => PHASES[1],
            _ => PHASES[0],
        }
    }

    /// What became of each decision, by the service's receipts.
    async fn decisions(&self, lived: &[Lived], topology: &Topology, talk: &mut Talk) -> Result<Vec<Decided>> {
        let mut decisions = Vec::new();
        for one in lived {
            for tried in &one.tries {
                let phase = self.phase(one.outcome.task, tried.at_s);
                let site = topology.node_named(&tried.node).map(|node| site(topology, node));
                let receipt = talk.receipt(&tried.decision).await?;
                decisions.push(Decided::of(
                    (phase, one.outcome.task, tried),
                    site.unwrap_or_default(),
                    &receipt,
                ));
            }
        }
        decisions.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
        Ok(decisions)
    }
}

impl Decided {
    fn of((phase, task, tried): (&'static str, u64, &Try), site: String, receipt: &wire::Receipt) -> Decided {
        let cost = |other: &Option<wire::Alternative>| other.as_ref().map(|other| other.predicted_cost);
        let heuristic_cost = cost(&receipt.fallback);
        Decided {
            phase,
            at_s: tried.at_s,
            task,
            policy: tried.policy.clone(),
            node: tried.node.clone(),
            site,
            expected_cost: receipt.predicted_cost,
            actual_cost: receipt.actual_cost,
            heuristic_cost,
            regret: receipt
                .actual_cost
                .zip(heuristic_cost)
                .and_then(|(actual, expected)| dearer(actual, expected)),
            shadow_node: receipt.shadow.as_ref().map(|shadow| shadow.node.clone()),
            shadow_cost: cost(&receipt.shadow),
        }
    }

    /// Whether the shadow would have chosen another node, and what that was expected to cost over this.
    fn shadow(&self) -> Option<(bool, f64)> {
        let (node, cost) = (self.shadow_node.as_ref()?, self.shadow_cost?);
        let ratio = if self.expected_cost > 0.0 { cost / self.expected_cost } else { 1.0 };
        Some((*node != self.node, ratio))
    }
}

/// The switch that a node is at.
fn site(topology: &Topology, node: NodeId) -> String {
    let link = topology.links.iter().find(|link| link.from == node);
    link.map_or_else(String::new, |link| topology.vertex_name(link.to).to_owned())
}

fn phases(decisions: &[Decided], lived: &[Lived]) -> Vec<Phase> {
    let phase = |&phase: &&'static str| {
        let of: Vec<_> = decisions.iter().filter(|decided| decided.phase == phase).collect();
        let outcomes = of.iter().filter(|decided| decided.actual_cost.is_some());
        let outcomes = outcomes.filter_map(|decided| {
            let at = lived.binary_search_by_key(&decided.task, |one| one.outcome.task).ok()?;
            Some(&lived[at].outcome)
        });
        Some(Phase {
            phase,
            decisions: of.len(),
            decided_by: of.last()?.policy.clone(),
            response_mean_s: mean(outcomes.clone().map(|outcome| outcome.response_s())),
            moved_mb: mean(outcomes.map(|outcome| outcome.moved_bytes / 1e6)),
            cost: mean(of.iter().filter_map(|decided| decided.actual_cost)),
            regret: mean(of.iter().filter_map(|decided| decided.regret)),
            shadow_differs: mean(of.iter().filter_map(|one| Some(f64::from(one.shadow()?.0)))),
            shadow_cost_ratio: mean(of.iter().filter_map(|one| Some(one.shadow()?.1))),
        })
    };
    PHASES.iter().filter_map(phase).collect()
}

impl Learning {
    /// Writes what is known of each decision and of the link, and plots of both.
    pub fn write(&self, folder: &Path) -> Result<()> {
        lines(&folder.join("decisions.jsonl"), &self.decisions)?;
        lines(&folder.join("link.jsonl"), &self.samples)?;
        let text = serde_json::to_string_pretty(self)? + "\n";
        write(&folder.join("learning.json"), text)?;
        for (name, svg) in self.plots() {
            write(&folder.join(format!("{name}.svg")), svg)?;
        }
        Ok(())
    }

    /// Plots over time, by their names; of a link only where one was watched.
    pub fn plots(&self) -> BTreeMap<&'static str, String> {
        let mut plots =
            BTreeMap::from([("decisions", plots::decisions(self)), ("regret", plots::regret(self))]);
        if !self.samples.is_empty() {
            plots.insert("link", plots::link(self));
        }
        plots
    }
}

fn lines(path: &Path, rows: &[impl Serialize]) -> Result<()> {
    let lines: Result<String> = rows.iter().map(|row| Ok(serde_json::to_string(row)? + "\n")).collect();
    write(path, lines?)
}
