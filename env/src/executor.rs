//! Execution on one node.

use crate::power::Power;
use crate::time::Time;
use crate::topology::Node;

/// Tasks executing on one node share its CPU: when together they use more than there is, all slow
/// down by the same factor (processor sharing).
#[derive(Clone, Debug)]
pub(crate) struct Executor {
    running: Vec<Running>,
    capacity_millis: f64,
    power: Power,
    /// Share of full speed at which all run.
    speed: f64,
    /// Power above idle for each millicore in use, watts.
    watts_per_milli: f64,
    settled: Time,
    /// Counts changes of speed: an announced end is valid while it has not changed.
    epoch: u32,
    /// How many faults keep the node away.
    pub away: u32,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    task: u32,
    /// Seconds of work left at full speed.
    left_s: f64,
    cpu_millis: u32,
    energy_j: f64,
}

impl Executor {
    pub(crate) fn new(node: &Node) -> Executor {
        Executor {
            running: Vec::new(),
            capacity_millis: f64::from(node.cpu_millis),
            power: node.power,
            speed: 1.0,
            watts_per_milli: 0.0,
            settled: Time::ZERO,
            epoch: 0,
            away: 0,
        }
    }

    /// How many tasks execute.
    pub(crate) fn len(&self) -> usize {
        self.running.len()
    }

    /// A task begins with `work_s` seconds of work at full speed.
    pub(crate) fn begin(&mut self, now: Time, task: u32, work_s: f64, cpu_millis: u32) {
        self.settle(now);
        self.running.push(Running { task, left_s: work_s, cpu_millis, energy_j: 0.0 });
        self.share();
    }

    /// When the first of the tasks ends if nothing changes, and the epoch for which that holds.
    pub(crate) fn first_end(&self) -> Option<(Time, u32)> {
        let shortest = self.running.iter().map(|running| running.left_s).min_by(f64::total_cmp)?;
        Some((self.settled.after_s(shortest / self.speed), self.epoch))
    }

    /// Ends the task whose end was announced for now, unless the announcement is void. Returns it and
    /// the energy that it took, joules.
    pub(crate) fn end_first(&mut self, now: Time, epoch: u32) -> Option<(u32, f64)> {
        if self.epoch != epoch {
            return None;
        }
        self.settle(now);
        let shortest = self.running.iter().enumerate().min_by(|(_, a), (_, b)| a.left_s.total_cmp(&b.left_s));
        let ended = self.running.remove(shortest?.0);
        self.share();
        Some((ended.task, ended.energy_j))
    }

    /// Stops a task before its end; returns the energy that it took, joules, or `None` if it does not
    /// execute here.
    pub(crate) fn stop(&mut self, now: Time, task: u32) -> Option<f64> {
        let index = self.running.iter().position(|running| running.task == task)?;
        self.settle(now);
        let stopped = self.running.remove(index);
        self.share();
        Some(stopped.energy_j)
    }

    /// Gives each task the work that `left_s(task, seconds left)` says, in seconds at full speed.
    pub(crate) fn redraw(&mut self, now: Time, left_s: impl Fn(u32, f64) -> f64) {
        self.settle(now);
        for running in &mut self.running {
            running.left_s = left_s(running.task, running.left_s);
        }
        self.epoch += 1;
    }

    /// Accounts for the work done since the speed last changed.
    fn settle(&mut self, now: Time) {
        let seconds = now.since_s(self.settled);
        let done = self.speed * seconds;
        for running in &mut self.running {
            running.left_s = (running.left_s - done).max(0.0);
            running.energy_j += self.watts_per_milli * f64::from(running.cpu_millis) * seconds;
        }
        self.settled = now;
    }

    /// Sets the speed for the present tasks.
    fn share(&mut self) {
        let used: u64 = self.running.iter().map(|running| u64::from(running.cpu_millis)).sum();
        let used = used as f64;
        self.speed = if used > self.capacity_millis { self.capacity_millis / used } else { 1.0 };
        let above_idle = self.power.watts(used / self.capacity_millis) - self.power.watts(0.0);
        self.watts_per_milli = if used > 0.0 { above_idle / used } else { 0.0 };
        self.epoch += 1;
    }
}
