//! Learning: a learn run makes a version, an evaluation judges it, the gate promotes it or not.

use super::Alias;
use super::app::{Call, Definition, Fate, Learning, Timer, Version};
use super::requests::how;
use super::step::{Step, ms};
use super::{By, Effect};
use crate::appcore::gate::{Scores, Verdict, judge};
use crate::appcore::manifest::{Promote, WhileLearning};
use crate::appcore::rows::Row;
use crate::appcore::run::{Blob, End, Left, RunKind, Status};
use crate::appcore::states::{Cause, State};

impl Step<'_> {
    /// Begins with the next call for learning, if it may.
    pub fn try_learning(&mut self) {
        let free = self.app.learning.is_none() && self.app.retry_ms.is_none();
        if !(free && self.may_learn()) {
            return;
        }
        self.gather_data();
        let Some(call) = self.app.calls.pop_front() else { return };
        // Learning goes on from what is proved, with the newest code.
        let from = self.app.aliases.get(&Alias::Champion).or(self.app.versions.keys().next_back());
        let from = from.copied().unwrap_or_default();
        let inputs = call.inputs.clone();
        let run = self.new_run(RunKind::Learn, from, (&call.cause, &call.actor), inputs);
        let (id, definition) = (run.id.clone(), *self.app.definitions.keys().next_back().unwrap_or(&0));
        let by = By::new(&call.actor, &call.cause);
        self.enter(run);
        let run = id.clone();
        self.app.learning = Some(Learning { call, run, definition, against: None, interrupted: 0 });
        if self.app.state == State::Idle {
            let moved = self.go(Cause::Learns, &by);
            debug_assert!(moved.is_ok(), "{moved:?}");
        }
        self.launch(&id);
    }

    /// It sleeps, or learns while it serves.
    fn may_learn(&self) -> bool {
        let background = self.app.awake() && self.awake().while_learning == WhileLearning::Serve;
        matches!(self.app.state, State::Idle | State::Learning) || background
    }

    /// Learning that was paused, or had to wait, is taken up.
    pub fn go_on_learning(&mut self) {
        let Some(learning) = &self.app.learning else { return };
        let id = learning.run.clone();
        if self.may_learn() && self.app.runs.get(&id).is_some_and(|run| !run.status.under_way()) {
            self.launch(&id);
        }
    }

    /// Learning gives way to a request, and goes on later.
    pub fn pause_learning(&mut self) {
        let Some(learning) = &self.app.learning else { return };
        if let Some(run) = self.app.runs.get(&learning.run)
            && run.status.under_way()
            && !self.app.stopping.contains_key(&run.id)
        {
            let (run, attempt) = (run.id.clone(), run.attempt);
            self.do_(Effect::Stop { run, attempt, save: true, reason: "a request came".to_owned() });
        }
    }

    /// Learning that saved its state, or lost it, goes on from there.
    pub fn set_paused(&mut self, id: &str) {
        let Some(run) = self.app.runs.get_mut(id) else { return };
        run.status = Status::Paused;
        let run = Box::new(run.clone());
        self.keep(Row::Run(run));
    }

    pub fn learning_ended(&mut self, id: &str, end: &End, left: &Left) {
        let model = left.model().cloned();
        let kind = self.app.runs.get(id).map(|run| run.kind);
        let (status, reason) = match (end, kind, &model) {
            (End::Saved, ..) => {
                self.set_paused(id);
                return self.go_on_learning();
            }
            (End::Success { .. }, Some(RunKind::Learn), None) => {
                let reason = "it wrote no file `model` into its output folder".to_owned();
                (Status::Failed, Some(reason))
            }
            (End::Success { scores: None }, Some(RunKind::Evaluate), _) => {
                (Status::Failed, Some("it wrote no scores.json into its output folder".to_owned()))
            }
            _ => how(end),
        };
        let fate = self.app.stopping.get(id).map(|stopping| stopping.call);
        let Some(run) = self.conclude(id, status, reason.clone(), left) else { return };
        let Some(mut learning) = self.app.learning.take() else { return };
        let why = reason.unwrap_or_default();
        match (run.kind, end, model) {
            (RunKind::Learn, End::Success { .. }, Some(model)) => {
                // It is judged by all that it was given.
                learning.call.inputs = run.inputs;
                self.learnt(learning, model);
            }
            (RunKind::Evaluate, End::Success { scores: Some(scores) }, _) => {
                self.evaluated(learning, run.version, scores);
            }
            (RunKind::Learn, End::Refused { .. } | End::Cancelled { .. }, _) => {
                self.give_up(learning.call, fate.unwrap_or(Fate::Dropped), &why);
            }
            (RunKind::Learn, _, _) if fate.is_some() => {
                self.give_up(learning.call, fate.unwrap_or(Fate::Dropped), &why);
            }
            (RunKind::Learn, _, _) => {
                // What was to be learnt from is not lost.
                self.app.calls.push_front(learning.call);
                self.learning_failed(&why);
            }
            (_, End::Refused { .. } | End::Cancelled { .. }, _) => {
                self.keep_verdict(
                    run.version,
                    Verdict::without_scores(false, format!("not evaluated: {why}")),
                );
                self.end_learning(Cause::LearningFailed, &why);
            }
            _ => {
                let verdict = Verdict::without_scores(false, format!("the evaluation failed: {why}"));
                self.keep_verdict(run.version, verdict);
                self.learning_failed(&why);
            }
        }
    }

    /// There is a new version; it is evaluated.
    fn learnt(&mut self, learning: Learning, model: Blob) {
        let by = By::itself(format!("learnt by run {}", learning.run));
        let number = self.new_version(Version {
            number: 0,
            definition: learning.definition,
            model: Some(model),
            run: Some(learning.run.clone()),
            at_ms: self.now_ms,
            actor: learning.call.actor.clone(),
            verdict: None,
        });
        self.set_alias(Alias::Candidate, Some(number), &by);
        let evaluate = |definition: &Definition| definition.manifest.evaluate.is_some();
        let reason = if !self.app.active() {
            format!("not evaluated: the application is {}", self.app.state)
        } else if !self.app.definitions.get(&learning.definition).is_some_and(evaluate) {
            "there is no section [evaluate]: an operator promotes".to_owned()
        } else {
            return self.evaluate(learning, number);
        };
        self.judged(number, Verdict::without_scores(false, reason));
    }

    fn evaluate(&mut self, learning: Learning, number: u32) {
        let cause = format!("run {}", learning.run);
        let (actor, inputs) = (learning.call.actor.clone(), learning.call.inputs.clone());
        let run = self.new_run(RunKind::Evaluate, number, (&cause, &actor), inputs);
        let id = run.id.clone();
        self.enter(run);
        self.app.learning = Some(Learning { run: id, interrupted: 0, ..learning });
        self.go_on_learning();
    }

    fn evaluated(&mut self, learning: Learning, number: u32, scores: &Scores) {
        let champion = self.app.aliases.get(&Alias::Champion).copied();
        if self.app.active() && champion != learning.against && champion != Some(number) {
            // The champion is another by now, and that one is to be compared with.
            return self.evaluate(learning, number);
        }
        let against = learning.against.and_then(|against| self.app.versions.get(&against));
        let has_champion = against.is_some_and(|champion| champion.model.is_some());
        let verdict = judge(&self.app.manifest().gate, scores, has_champion);
        self.judged(number, verdict);
    }

    /// The gate has spoken.
    fn judged(&mut self, number: u32, verdict: Verdict) {
        let (passed, reason) = (verdict.passed, verdict.reason.clone());
        self.keep_verdict(number, verdict);
        (self.app.failures, self.app.learning_failures) = (0, 0);
        if passed && self.app.active() && self.app.manifest().gate.promote == Promote::Auto {
            self.promote(number, &By::itself(reason.clone()));
        }
        self.end_learning(Cause::Learnt, &reason);
    }

    /// Learning was stopped.
    fn give_up(&mut self, mut call: Call, fate: Fate, why: &str) {
        match fate {
            Fate::Kept => self.app.calls.push_front(call),
            Fate::Merged => match self.app.calls.iter_mut().find(|next| next.trigger == call.trigger) {
                Some(next) => {
                    call.inputs.append(&mut next.inputs);
                    next.inputs = call.inputs;
                }
                None => self.app.calls.push_back(call),
            },
            Fate::Dropped => {}
        }
        self.end_learning(Cause::LearningFailed, why);
    }

    fn learning_failed(&mut self, why: &str) {
        let failures = self.app.manifest().failures;
        let doubled = failures.backoff_s * 2f64.powi(self.app.learning_failures.min(60) as i32);
        let again_ms = self.now_ms + ms(doubled.min(failures.longest_backoff_s));
        self.app.learning_failures += 1;
        if self.app.active() {
            self.app.retry_ms = Some(again_ms);
            self.set_timer(Timer::Retry, Some(again_ms));
        }
        self.end_learning(Cause::LearningFailed, why);
        self.failed(why);
    }

    /// Learning is over, in the background too.
    fn end_learning(&mut self, cause: Cause, why: &str) {
        if self.app.state == State::Learning {
            self.must(cause, why);
        }
        self.try_learning();
    }

    /// A call for learning, which waits for its turn.
    pub fn call(&mut self, call: Call) {
        self.app.calls.push_back(call);
        self.try_learning();
    }
}
