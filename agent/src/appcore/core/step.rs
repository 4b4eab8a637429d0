//! A step of one application: what all that happens to it is made of.

use std::collections::BTreeSet;

use super::app::{App, Definition, Fate, Stopping, Timer};
use super::{Alias, By, Effect, Launch, Outcome, Refused};
use crate::appcore::manifest::{Awake, Manifest};
use crate::appcore::rows::Row;
use crate::appcore::run::{Blob, End, Left, Run, RunKind, Status, distinct};
use crate::appcore::states::{Cause, State};

/// One application, the time, and what comes of it.
pub(super) struct Step<'a> {
    pub name: &'a str,
    pub app: &'a mut App,
    pub now_ms: i64,
    pub timers: &'a mut BTreeSet<(i64, String, Timer)>,
    pub outcome: Outcome,
}

/// Seconds of a manifest as milliseconds.
pub(super) fn ms(seconds: f64) -> i64 {
    (seconds * 1000.0).round() as i64
}

impl Step<'_> {
    pub fn do_(&mut self, effect: Effect) {
        self.outcome.effects.push(effect);
    }

    pub fn keep(&mut self, row: Row) {
        self.outcome.rows.push(row);
    }

    pub fn awake(&self) -> Awake {
        let execute = self.app.manifest().execute.as_ref();
        execute.map_or_else(Awake::default, |execute| execute.awake.clone())
    }

    /// Moves on, if that is legal.
    pub fn go(&mut self, cause: Cause, by: &By) -> Result<(), Refused> {
        let from = self.app.state;
        let to = from.after(cause).ok_or_else(|| from.refuse(self.name, &format!("be {cause}")))?;
        self.app.state = to;
        self.app.since_ms = self.now_ms;
        self.app.transition_count += 1;
        self.keep(Row::Transition {
            app: self.name.to_owned(),
            number: self.app.transition_count,
            at_ms: self.now_ms,
            from,
            to,
            cause,
            actor: by.actor.clone(),
            reason: by.reason.clone(),
        });
        // What a state waits for, it waits for no longer.
        if to != State::Waking {
            self.set_timer(Timer::Wake, None);
        }
        if to != State::Executing {
            self.set_timer(Timer::Idle, None);
        }
        self.keep_app();
        Ok(())
    }

    /// A move that the table is known to have from here.
    pub fn must(&mut self, cause: Cause, reason: impl Into<String>) {
        let moved = self.go(cause, &By::itself(reason));
        debug_assert!(moved.is_ok(), "{moved:?}");
    }

    pub fn keep_app(&mut self) {
        let manifest = text(self.app.manifest());
        let (state, since_ms) = (self.app.state, self.app.since_ms);
        self.keep(Row::App { app: self.name.to_owned(), state, since_ms, manifest });
    }

    pub fn set_timer(&mut self, timer: Timer, at_ms: Option<i64>) {
        let name = self.name.to_owned();
        if let Some(before) = self.app.timers.remove(&timer) {
            self.timers.remove(&(before, name.clone(), timer.clone()));
        }
        if let Some(at_ms) = at_ms {
            self.app.timers.insert(timer.clone(), at_ms);
            self.timers.insert((at_ms, name, timer));
        }
    }

    /// A timer is due, since `at_ms`.
    pub fn due(&mut self, timer: &Timer, at_ms: i64) {
        match timer {
            Timer::Wake => self.slept_in(),
            Timer::Idle => self.fall_asleep(),
            Timer::Retry => {
                self.app.retry_ms = None;
                self.try_learning();
            }
            Timer::Trigger(name) => self.trigger_due(name, at_ms),
        }
    }

    pub fn new_run(
        &mut self,
        kind: RunKind,
        version: u32,
        (cause, actor): (&str, &str),
        inputs: Vec<Blob>,
    ) -> Run {
        self.app.run_count += 1;
        let id = format!("{}.{}", self.name, self.app.run_count);
        Run {
            version,
            cause: cause.to_owned(),
            actor: actor.to_owned(),
            seed: self.app.run_count,
            inputs: distinct(inputs),
            queued_ms: self.now_ms,
            ..Run::new(&id, self.name, kind)
        }
    }

    /// Takes a run into the books.
    pub fn enter(&mut self, run: Run) {
        self.keep(Row::Run(Box::new(run.clone())));
        self.app.runs.insert(run.id.clone(), run);
    }

    /// Has a run of the books begin, with what its version and definition say.
    pub fn launch(&mut self, id: &str) {
        let Some(run) = self.app.runs.get_mut(id) else { return };
        run.status = Status::Launching;
        run.attempt += 1;
        let run = run.clone();
        let champion = self.app.aliases.get(&Alias::Champion).copied();
        let learning = self.app.learning.as_mut().filter(|learning| learning.run == run.id);
        let learnt_with = learning.map(|learning| {
            learning.against = champion;
            learning.definition
        });
        let version = self.app.versions.get(&run.version);
        let definition = match run.kind {
            RunKind::Learn if learnt_with.is_some() => learnt_with,
            _ => version.map(|version| version.definition),
        };
        let definition = definition.and_then(|number| self.app.definitions.get(&number));
        let definition: Definition = definition.unwrap_or(self.app.definition()).clone();
        let model = version.and_then(|version| version.model.clone());
        let champion = match run.kind {
            RunKind::Evaluate => self.champion().and_then(|champion| champion.model.clone()),
            RunKind::Execute | RunKind::Learn => None,
        };
        self.keep(Row::Run(Box::new(run.clone())));
        match definition.manifest.command(run.kind) {
            Some(command) => self.do_(Effect::Launch(Box::new(Launch {
                run,
                command: command.command,
                image: command.image,
                limits: command.limits,
                definition,
                model,
                champion,
            }))),
            None => {
                let reason = format!("its version has no command to {}", run.kind);
                if learnt_with.is_some() {
                    self.learning_ended(&run.id, &End::Refused { reason }, &Left::default());
                } else {
                    self.conclude(&run.id, Status::Failed, Some(reason), &Left::default());
                }
            }
        }
    }

    /// Takes a run that is over out of the books. What follows from it is the caller's.
    pub fn conclude(&mut self, id: &str, status: Status, reason: Option<String>, left: &Left) -> Option<Run> {
        let mut run = self.app.runs.remove(id)?;
        self.app.stopping.remove(id);
        run.status = status;
        run.ended_ms = Some(self.now_ms);
        run.reason = reason;
        run.outputs.clone_from(&left.outputs);
        run.usage = left.usage;
        self.keep(Row::Run(Box::new(run.clone())));
        self.do_(Effect::Over(Box::new(run.clone())));
        Some(run)
    }

    /// Notes a failure, and sets the application aside where they are too many.
    pub fn failed(&mut self, reason: &str) {
        self.app.failures += 1;
        let most = self.app.manifest().failures.quarantine_after;
        if self.app.failures >= most && self.app.state.after(Cause::Failures).is_some() {
            self.must(
                Cause::Failures,
                format!("{} failures in a row, the last: {reason}", self.app.failures),
            );
            self.abandon("its application was set aside after too many failures");
        }
    }

    /// Sets everything aside: requests that wait are refused, learning is stopped; executions end by themselves.
    pub fn abandon(&mut self, reason: &str) {
        for id in std::mem::take(&mut self.app.queue) {
            self.conclude(&id, Status::Cancelled, Some(reason.to_owned()), &Left::default());
        }
        if let Some(learning) = &self.app.learning {
            let id = learning.run.clone();
            self.stop(&id, reason, Fate::Kept);
        }
        self.set_timer(Timer::Retry, None);
        self.app.retry_ms = None;
        self.give_back();
    }

    /// What being awake took is not needed where it sleeps and nothing executes.
    pub fn give_back(&mut self) {
        if !self.app.awake() && self.app.executing() == 0 {
            self.do_(Effect::Sleep { app: self.name.to_owned() });
        }
    }

    /// Stops a run for good; one that waits or is paused is over at once.
    pub fn stop(&mut self, id: &str, reason: &str, call: Fate) {
        let Some(run) = self.app.runs.get(id) else { return };
        let (attempt, under_way) = (run.attempt, run.status.under_way());
        if let Some(stopping) = self.app.stopping.get_mut(id) {
            stopping.call = stopping.call.max(call);
            return;
        }
        self.app.stopping.insert(id.to_owned(), Stopping { reason: reason.to_owned(), call });
        if under_way {
            let (run, reason) = (id.to_owned(), reason.to_owned());
            self.do_(Effect::Stop { run, attempt, save: false, reason });
        } else {
            self.app.queue.retain(|queued| queued != id);
            self.finish(id, &End::Cancelled { reason: reason.to_owned() }, &Left::default());
        }
    }

    /// After every step.
    pub fn close(&mut self) {
        self.forget_versions();
    }
}

/// A manifest as TOML.
pub(super) fn text(manifest: &Manifest) -> String {
    toml::to_string(manifest).expect("a manifest was read from TOML")
}
