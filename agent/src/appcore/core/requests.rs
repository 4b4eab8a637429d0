//! Requests: waking, executing, sleeping.

use super::Alias;
use super::app::{Fate, Timer};
use super::step::{Step, ms};
use super::{By, Effect, Refused, good_name};
use crate::appcore::manifest::WhileLearning;
use crate::appcore::rows::Row;
use crate::appcore::run::{Blob, DATA_ERROR, End, Left, Run, RunKind, Status};
use crate::appcore::states::{Cause, State};

impl Step<'_> {
    /// Answers a request, now or once the application is awake.
    pub fn request(&mut self, id: &str, input: Option<&Blob>, by: &By) -> Result<(), Refused> {
        good_name("id", id)?;
        if let Some(run) = self.app.requests.get(id) {
            self.outcome.known = true;
            self.outcome.run = Some(run.clone());
            return Ok(());
        }
        self.can_execute()?;
        let awake = self.awake();
        if self.app.queue.len() >= awake.queue as usize {
            return Err(Refused::Full(format!(
                "{} requests wait for {} already, which is all that may; ask again later",
                self.app.queue.len(),
                self.name
            )));
        }
        let version = self.app.aliases.get(&Alias::Champion).copied().unwrap_or_default();
        let inputs = input.into_iter().cloned().collect();
        let cause = if by.reason.is_empty() { "request" } else { &by.reason };
        let mut run = self.new_run(RunKind::Execute, version, (cause, &by.actor), inputs);
        run.request = Some(id.to_owned());
        self.app.requests.add(id, &run.id);
        self.app.queue.push_back(run.id.clone());
        self.outcome.run = Some(run.id.clone());
        self.enter(run);
        self.rouse(by)
    }

    pub fn can_execute(&self) -> Result<(), Refused> {
        let state = self.app.state;
        if matches!(state, State::Registered | State::Quarantined | State::Retired) {
            return Err(state.refuse(self.name, "execute"));
        }
        if self.app.manifest().execute.is_none() {
            let name = self.name;
            return Err(Refused::State(format!(
                "{name} executes nothing: its manifest has no section [execute]"
            )));
        }
        let Some(champion) = self.champion() else {
            return Err(Refused::State(format!("no version of {} is promoted yet", self.name)));
        };
        if self.awake().needs_model && champion.model.is_none() {
            let (name, number) = (self.name, champion.number);
            return Err(Refused::State(format!(
                "{name} needs a model, and its promoted version {number} has none"
            )));
        }
        Ok(())
    }

    /// Has what waits executed: wakes the application where it sleeps.
    fn rouse(&mut self, by: &By) -> Result<(), Refused> {
        match self.app.state {
            State::Idle | State::Learning | State::Draining => self.begin_waking(by),
            State::Executing => {
                self.pump();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub fn begin_waking(&mut self, by: &By) -> Result<(), Refused> {
        let by = By::new(&by.actor, if by.reason.is_empty() { "a request" } else { &by.reason });
        self.go(Cause::Requested, &by)?;
        if self.awake().while_learning == WhileLearning::Pause {
            self.pause_learning();
        }
        let deadline = self.now_ms + ms(self.awake().wake_deadline_s);
        self.set_timer(Timer::Wake, Some(deadline));
        let definition = self.champion().and_then(|champion| self.app.definitions.get(&champion.definition));
        let definition = Box::new(definition.unwrap_or(self.app.definition()).clone());
        // The move into this state numbers the wake.
        let wake = self.app.transition_count;
        self.do_(Effect::Wake { app: self.name.to_owned(), wake, definition });
        Ok(())
    }

    /// An operator wants it awake.
    pub fn wake(&mut self, by: &By) -> Result<(), Refused> {
        self.can_execute()?;
        match self.app.state {
            State::Waking | State::Executing => {
                self.outcome.known = true;
                Ok(())
            }
            _ => self.begin_waking(by),
        }
    }

    /// It is ready, or could not be made so.
    pub fn woken(&mut self, wake: Option<u64>, error: Option<&str>) -> Result<(), Refused> {
        let earlier = wake.is_some_and(|wake| wake != self.app.transition_count);
        if self.app.state != State::Waking || earlier {
            return Ok(());
        }
        match error {
            None => {
                self.must(Cause::Woken, "ready");
                self.pump();
            }
            Some(error) => self.cannot_wake(error),
        }
        Ok(())
    }

    /// The deadline of waking passed.
    pub fn slept_in(&mut self) {
        let deadline_s = self.awake().wake_deadline_s;
        self.cannot_wake(&format!("it was not ready within its wake deadline of {deadline_s} s"));
    }

    fn cannot_wake(&mut self, why: &str) {
        let reason = format!("{} did not wake: {why}", self.name);
        for id in std::mem::take(&mut self.app.queue) {
            self.conclude(&id, Status::Failed, Some(reason.clone()), &Left::default());
        }
        self.must(Cause::WakeFailed, why);
        self.give_back();
        self.failed(&reason);
        self.back_asleep();
    }

    /// Launches what waits, as many as may run at a time.
    fn pump(&mut self) {
        let most = self.awake().concurrency as usize;
        while self.app.executing() < most
            && let Some(id) = self.app.queue.pop_front()
        {
            let champion = self.app.aliases.get(&Alias::Champion).copied();
            if let (Some(run), Some(champion)) = (self.app.runs.get_mut(&id), champion) {
                run.version = champion;
            }
            self.launch(&id);
        }
        self.watch_quiet();
    }

    /// Once nothing is left to do, it may sleep.
    fn watch_quiet(&mut self) {
        let quiet = self.app.executing() == 0 && self.app.queue.is_empty();
        match self.app.state {
            State::Executing => {
                let idle = quiet.then(|| self.now_ms + ms(self.awake().idle_s));
                self.set_timer(Timer::Idle, idle);
            }
            State::Draining if quiet => self.do_(Effect::Sleep { app: self.name.to_owned() }),
            _ => {}
        }
    }

    /// Nothing was asked of it for a while.
    pub fn fall_asleep(&mut self) {
        if self.app.state == State::Executing && self.app.executing() == 0 {
            self.must(Cause::Quiet, format!("no request for {} s", self.awake().idle_s));
            self.watch_quiet();
        }
    }

    /// An operator wants it asleep; what is under way ends first.
    pub fn send_to_sleep(&mut self, by: &By) -> Result<(), Refused> {
        match self.app.state {
            State::Idle | State::Learning | State::Draining => {
                self.outcome.known = true;
                Ok(())
            }
            _ => {
                let waking = self.app.state == State::Waking;
                self.go(Cause::SentToSleep, by)?;
                if waking {
                    let reason = format!("{} sent it to sleep before it was awake", by.actor);
                    for id in std::mem::take(&mut self.app.queue) {
                        self.conclude(&id, Status::Cancelled, Some(reason.clone()), &Left::default());
                    }
                }
                self.pump();
                Ok(())
            }
        }
    }

    /// What being awake took is given back.
    pub fn slept(&mut self) -> Result<(), Refused> {
        if self.app.state == State::Draining && self.app.executing() == 0 && self.app.queue.is_empty() {
            self.must(Cause::Drained, "nothing is under way");
            self.back_asleep();
        }
        Ok(())
    }

    /// Asleep again: learning that was paused or went on in the background is what it does now.
    pub fn back_asleep(&mut self) {
        if self.app.state != State::Idle {
            return;
        }
        if self.app.learning.is_none() {
            return self.try_learning();
        }
        self.must(Cause::Learns, "learning goes on");
        self.go_on_learning();
    }

    /// What else a run reads; it is kept with it, so that it can be repeated.
    pub fn given(&mut self, (id, attempt): (&str, u32), inputs: &[Blob]) {
        let Some(run) = self.app.runs.get_mut(id).filter(|run| run.attempt == attempt) else { return };
        run.inputs.extend_from_slice(inputs);
        let run = Box::new(run.clone());
        self.keep(Row::Run(run));
    }

    /// A run has begun on a node.
    pub fn started(&mut self, (id, attempt): (&str, u32), node: &str, decision: Option<&str>) {
        let now_ms = self.now_ms;
        let Some(run) = self.app.runs.get_mut(id).filter(|run| run.attempt == attempt) else { return };
        if run.status != Status::Launching {
            return;
        }
        run.status = Status::Running;
        run.started_ms = run.started_ms.or(Some(now_ms));
        run.node = Some(node.to_owned());
        run.decision = decision.map(str::to_owned);
        let run = Box::new(run.clone());
        self.keep(Row::Run(run));
    }

    /// A run ended. Of an attempt that nobody waits for any more this says nothing.
    pub fn ended(&mut self, (id, attempt): (&str, u32), end: &End, left: &Left) {
        let awaited = |run: &&mut Run| run.attempt == attempt && run.status.under_way();
        let Some(run) = self.app.runs.get_mut(id).filter(awaited) else { return };
        run.exit = match end {
            End::Success { .. } => Some(0),
            End::Refused { .. } => Some(DATA_ERROR.into()),
            End::Failure { exit, .. } => *exit,
            End::Saved | End::Cancelled { .. } => None,
        };
        match (self.app.stopping.get(id), end) {
            // Stopped for good, however it took that.
            (Some(stopping), End::Saved | End::Failure { .. }) => {
                let reason = stopping.reason.clone();
                self.finish(id, &End::Cancelled { reason }, left);
            }
            _ => self.finish(id, end, left),
        }
    }

    /// What follows from the end of a run.
    pub fn finish(&mut self, id: &str, end: &End, left: &Left) {
        let Some(run) = self.app.runs.get(id) else { return };
        let (kind, again) = (run.kind, run.again.is_some());
        match kind {
            RunKind::Execute if !again => self.executed(id, end, left),
            _ if again => {
                let (status, reason) = how(end);
                self.conclude(id, status, reason, left);
            }
            _ => self.learning_ended(id, end, left),
        }
    }

    fn executed(&mut self, id: &str, end: &End, left: &Left) {
        let (status, reason) = how(end);
        let run = self.conclude(id, status, reason.clone(), left);
        let version = run.map(|run| run.version);
        match end {
            End::Success { .. } => {
                self.app.failures = 0;
                let champion = self.app.aliases.get(&Alias::Champion).copied();
                if let Some(trial) = self.app.trial.as_mut().filter(|_| champion == version) {
                    trial.failures = 0;
                }
            }
            End::Failure { .. } => {
                self.try_champion(version);
                self.failed(&reason.unwrap_or_default());
            }
            End::Refused { .. } | End::Cancelled { .. } | End::Saved => {}
        }
        match self.app.state {
            State::Executing | State::Draining => self.pump(),
            State::Waking => {}
            _ => self.give_back(),
        }
    }

    pub fn cancel(&mut self, id: &str, by: &By) -> Result<(), Refused> {
        if !self.app.runs.contains_key(id) {
            return Err(Refused::State(format!("run {id} is over, or was never there")));
        }
        let reason = if by.reason.is_empty() { String::new() } else { format!(": {}", by.reason) };
        self.outcome.known = self.app.stopping.contains_key(id);
        self.stop(id, &format!("cancelled by {}{reason}", by.actor), Fate::Dropped);
        Ok(())
    }

    /// Does what was done once more, with the same inputs, version and seed; nothing follows from it.
    pub fn again(&mut self, old: &Run, by: &By) -> Result<(), Refused> {
        if matches!(self.app.state, State::Registered | State::Quarantined | State::Retired) {
            return Err(self.app.state.refuse(self.name, "repeat a run"));
        }
        if !old.status.over() {
            return Err(Refused::State(format!("run {} is not over yet", old.id)));
        }
        if !self.app.versions.contains_key(&old.version) {
            return Err(Refused::State(format!(
                "version {} of {} is no longer kept",
                old.version, self.name
            )));
        }
        let cause = format!("again {}", old.id);
        let mut run = self.new_run(old.kind, old.version, (&cause, &by.actor), old.inputs.clone());
        run.seed = old.seed;
        run.again = Some(old.id.clone());
        let id = run.id.clone();
        self.enter(run);
        self.launch(&id);
        self.outcome.run = Some(id);
        Ok(())
    }
}

/// How a run is remembered.
pub(super) fn how(end: &End) -> (Status, Option<String>) {
    match end {
        End::Success { .. } => (Status::Succeeded, None),
        End::Saved => (Status::Cancelled, Some("stopped".to_owned())),
        End::Refused { reason } | End::Failure { reason, .. } => (Status::Failed, Some(reason.clone())),
        End::Cancelled { reason } => (Status::Cancelled, Some(reason.clone())),
    }
}
