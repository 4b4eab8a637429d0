//! Futures that could follow a moment, for looking ahead without knowing what comes.
//!
//! What has happened is kept: what is placed where, what is under way, which tasks wait for others.
//! What has not is drawn anew: arrivals from those of the recent past (a bootstrap over jobs, each with
//! the gap before it), execution times, also what is left of those under way, faults and delays. Links
//! stay as they are now.
//!
//! Where the state of the cluster is reported late, the present is not known. It is imagined too: from the last
//! report on, with the arrivals and the decisions since.

use std::sync::Arc;

use crate::cluster::Expected;
use crate::random::{Purpose, unit};
use crate::simulation::{Event, ORPHANED, Reported, Simulation};
use crate::time::Time;
use crate::topology::NodeId;
use crate::world::{Planned, When, World};

/// How many of the last arrivals the future is drawn from.
pub(crate) const HISTORY: usize = 120;
/// Draws of an execution time before one under way is taken to be at its end.
const TRIES: u64 = 16;

impl Simulation {
    /// A copy in which `pending` has just arrived, with a future of `tasks` arrivals, or some more where a job has
    /// several. `None` where the last report no longer tells what the task is about: it was lost since.
    pub(crate) fn imagine(&self, pending: u32, seed: u64, tasks: usize) -> Option<Simulation> {
        let now = self.cluster.now;
        let Some(reported) = &self.reported else { return Some(self.imagine_from(now, seed, tasks)) };
        if self.active[&pending].outcome.retries > 0 {
            return None;
        }
        let mut imagined = reported.then.as_ref()?.imagine_from(now, seed, tasks);
        let cluster = imagined.cluster.clone();
        imagined.reported = Some(Box::new(Reported { cluster, then: None, decisions: Vec::new() }));
        imagined.catch_up(&reported.decisions, pending, now)?;
        Some(imagined)
    }

    /// A copy with another future, of which nothing but the arrivals until `now` is known.
    fn imagine_from(&self, now: Time, seed: u64, tasks: usize) -> Simulation {
        let mut imagined = self.clone();
        imagined.outcomes.clear();
        let known = known_tasks(&self.world, now);
        let world = Arc::new(self.imagine_world(&known, now, seed, tasks));
        imagined.awaits.truncate(known.len());
        for (awaits, _) in imagined.awaits.iter_mut().zip(&known).filter(|(_, known)| !**known) {
            *awaits = ORPHANED;
            imagined.ended += 1;
        }
        imagined.awaits.extend(world.tasks[known.len()..].iter().map(|planned| planned.awaits));
        imagined.world = Arc::clone(&world);
        imagined.draw_events(&known);
        imagined.draw_executions(&self.world);
        imagined
    }

    /// Goes on until `now`, when `pending` arrives, with the decisions that were made. `None` where it cannot have
    /// come to that: something went wrong here that did not happen.
    fn catch_up(&mut self, decisions: &[(u32, NodeId, Expected)], pending: u32, now: Time) -> Option<()> {
        if self.awaits[pending as usize] > 0 {
            self.awaits[pending as usize] = ORPHANED;
            self.schedule(now, Event::Arrive(pending));
        }
        let mut decisions = decisions.to_vec();
        loop {
            let task = self.next_arrival()?;
            if task == pending && self.cluster.now == now {
                break;
            }
            debug_assert!(self.cluster.now <= now, "what arrives is asked about before what comes after it");
            match decisions.iter().position(|decision| decision.0 == task) {
                Some(index) => {
                    let (_, node, expected) = decisions.remove(index);
                    self.place(task, node, expected);
                }
                // It has not asked for a node yet.
                None => self.schedule(now, Event::Arrive(task)),
            }
        }
        let world = Arc::clone(&self.world);
        let follows = |task: &u32| world.tasks[*task as usize].followers.contains(&pending);
        let before: Vec<u32> = self.active.keys().copied().filter(follows).collect();
        before.into_iter().try_for_each(|task| self.hurry(task))?;
        let inputs = &world.tasks[pending as usize].task.inputs;
        inputs.iter().all(|&input| self.cluster.dataset_source(input, 0).is_some()).then_some(())?;
        self.outcomes.clear();
        self.take_elapsed();
        Some(())
    }

    /// Completes an active task at once, since what follows it has come; `None` where it is on no node.
    fn hurry(&mut self, task: u32) -> Option<()> {
        let node = self.active[&task].outcome.node?;
        let commitments = &self.cluster.nodes[node as usize].commitments;
        commitments.iter().any(|commitment| commitment.id == u64::from(task)).then_some(())?;
        self.leave(task);
        self.completed(task);
        Some(())
    }

    fn imagine_world(&self, known: &[bool], now: Time, seed: u64, tasks: usize) -> World {
        let old = &self.world;
        let mut planned: Vec<Planned> = old.tasks[..known.len()].to_vec();
        for (index, task) in planned.iter_mut().enumerate() {
            task.luck = unit(seed, Purpose::Execution, index as u64, 0);
        }
        let (history, gaps_s) = history(old, known);
        for (at, chosen) in again(gaps_s, now, seed) {
            if planned.len() >= known.len() + tasks {
                break;
            }
            plan_again(old, history[chosen], at, seed, &mut planned);
        }
        World {
            name: old.name.clone(),
            seed,
            topology: Arc::clone(&old.topology),
            catalogue: Arc::clone(&old.catalogue),
            tasks: planned,
            faults: old.faults.clone(),
            warm: Vec::new(),
        }
    }

    /// Takes away what nobody knows yet, and draws it anew.
    fn draw_events(&mut self, known: &[bool]) {
        let mut changes = Vec::new();
        self.events.retain(|scheduled| match scheduled.0.event {
            Event::Arrive(task) => known.get(task as usize) == Some(&true),
            Event::Change { process, step } => {
                changes.push((process, step));
                false
            }
            _ => true,
        });
        changes.sort_unstable();
        for (process, step) in changes {
            if !self.world.faults.processes[process as usize].is_recorded() {
                self.schedule_change(process, step);
            }
        }
        let world = Arc::clone(&self.world);
        for (index, planned) in world.tasks.iter().enumerate().skip(known.len()) {
            if let When::At(at) = planned.when {
                self.schedule(at, Event::Arrive(index as u32));
            }
        }
    }

    /// Draws what is left of the executions under way, given what is done of them.
    fn draw_executions(&mut self, old: &World) {
        let now = self.cluster.now;
        let total_s = |world: &World, task: u32, luck: f64, attempt: u32| {
            let planned = &world.tasks[task as usize];
            let node = self.active[&task].outcome.node.expect("a task executes where it is placed");
            let time =
                self.cluster.execution(&planned.task, node).expect("a task is placed where it can run");
            let slowdown = world.faults.stragglers.map_or(1.0, |s| s.slowdown(world.seed, task, attempt));
            time.quantile(luck) * slowdown
        };
        let world = &self.world;
        let left_s = |task: u32, left_s: f64| {
            let attempt = self.active[&task].outcome.retries;
            let done_s = total_s(old, task, old.tasks[task as usize].luck, attempt) - left_s;
            let draw = |index| unit(world.seed, Purpose::Execution, u64::from(task), 1 + index);
            let drawn = (0..TRIES).map(|index| total_s(world, task, draw(index), attempt) - done_s);
            drawn.into_iter().find(|left_s| *left_s > 0.0).unwrap_or(0.0)
        };
        let mut executors = std::mem::take(&mut self.executors);
        for executor in executors.iter_mut().filter(|executor| executor.len() > 0) {
            executor.redraw(now, left_s);
        }
        self.executors = executors;
        for node in 0..self.executors.len() as u32 {
            self.announce_execution(node);
        }
    }
}

/// Arrivals of the past over again from `now` on, without end: when, and which of them (a bootstrap, each with the gap
/// before it). The first has none; none comes where no other is known.
pub(crate) fn again(gaps_s: Vec<f64>, now: Time, seed: u64) -> impl Iterator<Item = (Time, usize)> {
    let among = gaps_s.len().saturating_sub(1);
    let draws = if among > 0 { 0..u64::MAX } else { 0..0 };
    draws.scan(now, move |at, draw| {
        let chosen = 1 + (unit(seed, Purpose::Arrivals, draw, 0) * among as f64) as usize;
        *at = at.after_s(gaps_s[chosen]);
        Some((*at, chosen))
    })
}

/// Which tasks are known of: those that have arrived and all that wait for them. As long as the last
/// of them.
fn known_tasks(world: &World, now: Time) -> Vec<bool> {
    let mut known = vec![false; world.tasks.len()];
    for (index, planned) in world.tasks.iter().enumerate() {
        match planned.when {
            // Those that come later come at higher indices.
            When::At(at) if at > now => break,
            When::At(_) => known[index] = true,
            When::Later => {}
        }
        if known[index] {
            for &follower in &planned.followers {
                known[follower as usize] = true;
            }
        }
    }
    let length = known.iter().rposition(|known| *known).map_or(0, |last| last + 1);
    known.truncate(length);
    known
}

/// The last tasks that arrived by themselves, in order, and the seconds before each.
fn history(world: &World, known: &[bool]) -> (Vec<u32>, Vec<f64>) {
    let arrived = (0..known.len() as u32).rev().filter_map(|index| match world.tasks[index as usize].when {
        When::At(at) if known[index as usize] => Some((index, at)),
        _ => None,
    });
    let mut arrived: Vec<(u32, Time)> = arrived.take(HISTORY).collect();
    arrived.reverse();
    let before = arrived.iter().take(1).chain(&arrived);
    let gaps_s = arrived.iter().zip(before).map(|((_, at), (_, before))| at.since_s(*before)).collect();
    (arrived.into_iter().map(|(index, _)| index).collect(), gaps_s)
}

/// Plans the job of `root`, a task of `old`, once more.
fn plan_again(old: &World, root: u32, at: Time, seed: u64, planned: &mut Vec<Planned>) {
    let mut job = vec![root];
    let mut next = 0;
    while next < job.len() {
        let followers = &old.tasks[job[next] as usize].followers;
        let new: Vec<u32> = followers.iter().copied().filter(|follower| !job.contains(follower)).collect();
        job.extend(new);
        next += 1;
    }
    job.sort_unstable();
    let first = planned.len() as u32;
    for &member in &job {
        let task = &old.tasks[member as usize];
        let position = |follower: &u32| job.binary_search(follower).expect("a job has all its followers");
        planned.push(Planned {
            when: if member == root { When::At(at) } else { When::Later },
            followers: task.followers.iter().map(|follower| first + position(follower) as u32).collect(),
            luck: unit(seed, Purpose::Execution, planned.len() as u64, 0),
            ..task.clone()
        });
    }
    // A member may also wait for tasks of another job, which are not repeated.
    let range = first as usize..planned.len();
    let mut awaits = vec![0; range.len()];
    for task in &planned[range.clone()] {
        for &follower in &task.followers {
            awaits[(follower - first) as usize] += 1;
        }
    }
    for (task, awaits) in planned[range].iter_mut().zip(awaits) {
        task.awaits = awaits;
    }
}
