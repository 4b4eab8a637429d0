//! Going on after the service ended, in whatever way.

use super::Alias;
use super::step::Step;
use super::{By, Core, Effect, Outcome};
use crate::appcore::rows::Row;
use crate::appcore::run::{End, Left, Run, RunKind, Status};
use crate::appcore::states::{Cause, State};

/// How often a run begins at most.
const ATTEMPTS: u32 = 3;
const INTERRUPTED: &str = "the service ended while it ran";

impl Core {
    /// Nothing runs any more: what was under way begins again, or has failed.
    pub(super) fn restart(&mut self, now_ms: i64) -> Outcome {
        let names: Vec<_> = self.apps.keys().cloned().collect();
        let mut all = Outcome::default();
        for name in names {
            let passed = self.with(now_ms, &name, |step| {
                step.restart();
                Ok(())
            });
            let passed = passed.expect("a restart refuses nothing");
            all.effects.extend(passed.effects);
            all.rows.extend(passed.rows);
        }
        all
    }
}

impl Step<'_> {
    fn restart(&mut self) {
        let interrupted = self.app.runs.values().filter(|run| run.status.under_way());
        let mut interrupted: Vec<_> = interrupted.cloned().collect();
        // The first request is the first again; learning comes after all of them.
        interrupted.sort_by_key(|run| (run.kind, std::cmp::Reverse((run.queued_ms, run.seed))));
        if self.app.awake() {
            self.must(Cause::Interrupted, INTERRUPTED);
        }
        for run in interrupted {
            if let Some(stopping) = self.app.stopping.get(&run.id) {
                let reason = stopping.reason.clone();
                self.finish(&run.id, &End::Cancelled { reason }, &Left::default());
                continue;
            }
            match run.kind {
                _ if run.again.is_some() => self.lose(&run),
                RunKind::Execute => self.execute_again(&run),
                RunKind::Learn | RunKind::Evaluate => self.learn_again(&run),
            }
        }
        self.go_on();
    }

    fn lose(&mut self, run: &Run) {
        self.conclude(&run.id, Status::Failed, Some(INTERRUPTED.to_owned()), &Left::default());
    }

    fn execute_again(&mut self, run: &Run) {
        let again = self.awake().retry_interrupted && run.attempt < ATTEMPTS && self.app.active();
        if !(again && self.app.aliases.contains_key(&Alias::Champion)) {
            return self.lose(run);
        }
        if let Some(run) = self.app.runs.get_mut(&run.id) {
            run.status = Status::Queued;
            let run = Box::new(run.clone());
            self.app.queue.push_front(run.id.clone());
            self.keep(Row::Run(run));
        }
    }

    fn learn_again(&mut self, run: &Run) {
        let Some(learning) = &mut self.app.learning else { return self.lose(run) };
        learning.interrupted += 1;
        if learning.interrupted < ATTEMPTS {
            return self.set_paused(&run.id);
        }
        let reason = format!("{INTERRUPTED}, {ATTEMPTS} times");
        self.learning_ended(&run.id, &End::Failure { reason, exit: None }, &Left::default());
    }

    /// What waits is taken up.
    fn go_on(&mut self) {
        if self.app.state != State::Registered {
            self.do_(Effect::Sleep { app: self.name.to_owned() });
        }
        if self.app.queue.is_empty() {
            self.back_asleep();
        } else {
            let woken = self.begin_waking(&By::itself("requests waited when the service ended"));
            debug_assert!(woken.is_ok(), "{woken:?}");
        }
        self.go_on_learning();
    }
}
