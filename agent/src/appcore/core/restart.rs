//! Going on after the service ended, in whatever way.

use super::app::Alias;
use super::step::Step;
use super::{Core, Effect, Outcome};
use crate::appcore::run::{Left, Run, RunKind, Status};
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
        let under_way = |run: &&Run| matches!(run.status, Status::Launching | Status::Running);
        let interrupted: Vec<_> = self.app.runs.values().filter(under_way).cloned().collect();
        if self.app.awake() {
            self.must(Cause::Interrupted, INTERRUPTED);
        }
        let mut learns = None;
        for run in interrupted {
            match run.kind {
                _ if run.again.is_some() => self.lose(&run),
                RunKind::Execute => self.execute_again(&run),
                RunKind::Learn | RunKind::Evaluate if run.attempt < ATTEMPTS => learns = Some(run.id),
                RunKind::Learn | RunKind::Evaluate => {
                    let failure = crate::appcore::run::End::Failure {
                        reason: format!("{INTERRUPTED}, {ATTEMPTS} times"),
                        exit: None,
                    };
                    self.learning_ended(&run.id, &failure, &Left::default());
                }
            }
        }
        if let Some(id) = &learns {
            self.launch(id);
        }
        self.go_on();
    }

    fn lose(&mut self, run: &Run) {
        self.conclude(&run.id, Status::Failed, Some(INTERRUPTED.to_owned()), &Left::default());
    }

    fn execute_again(&mut self, run: &Run) {
        let active = !matches!(self.app.state, State::Quarantined | State::Retired);
        let again = self.awake().retry_interrupted && run.attempt < ATTEMPTS && active;
        if !(again && self.app.aliases.contains_key(&Alias::Champion)) {
            return self.lose(run);
        }
        if let Some(run) = self.app.runs.get_mut(&run.id) {
            run.status = Status::Queued;
            let run = Box::new(run.clone());
            self.app.queue.push_front(run.id.clone());
            self.keep(crate::appcore::rows::Row::Run(run));
        }
    }

    /// What waits is taken up.
    fn go_on(&mut self) {
        self.do_(Effect::Sleep { app: self.name.to_owned() });
        if self.app.state != State::Idle {
            return;
        }
        if self.app.queue.is_empty() {
            self.back_asleep();
        } else {
            let woken = self.wake(&super::By::itself("requests waited when the service ended"));
            debug_assert!(woken.is_ok(), "{woken:?}");
        }
    }
}
