//! Learning: a learn run makes a version, an evaluation judges it, the gate promotes it or not.

use super::app::{Alias, Call, Learning, Timer, Version};
use super::requests::how;
use super::step::{Step, ms};
use super::{By, Effect};
use crate::appcore::gate::{Verdict, judge};
use crate::appcore::manifest::{Promote, WhileLearning};
use crate::appcore::run::{Blob, End, Left, RunKind, Status};
use crate::appcore::states::{Cause, State};

impl Step<'_> {
    /// Begins with the next call for learning, if it may.
    pub fn try_learning(&mut self) {
        let background = self.app.awake() && self.awake().while_learning == WhileLearning::Serve;
        let free = self.app.learning.is_none() && self.app.retry_ms.is_none();
        if !(free && (self.app.state == State::Idle || background)) {
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
        self.app.learning = Some(Learning { call, run: id.clone(), definition });
        if self.app.state == State::Idle {
            let moved = self.go(Cause::Learns, &by);
            debug_assert!(moved.is_ok(), "{moved:?}");
        }
        self.launch(&id);
    }

    /// Learning gives way to a request, and goes on later.
    pub fn pause_learning(&mut self) {
        let Some(learning) = &self.app.learning else { return };
        if let Some(run) = self.app.runs.get(&learning.run)
            && matches!(run.status, Status::Launching | Status::Running)
        {
            let (run, attempt) = (run.id.clone(), run.attempt);
            self.do_(Effect::Stop { run, attempt, save: true, reason: "a request came".to_owned() });
        }
    }

    pub fn learning_ended(&mut self, id: &str, end: &End, left: &Left) {
        let kind = self.app.runs.get(id).map(|run| run.kind);
        if let End::Saved = end
            && self.app.awake()
        {
            if let Some(run) = self.app.runs.get_mut(id) {
                run.status = Status::Paused;
            }
            return;
        }
        let model = left.model().cloned();
        let (status, reason) = match (end, kind, &model) {
            (End::Success { .. }, Some(RunKind::Learn), None) => {
                let reason = "it wrote no file `model` into its output folder".to_owned();
                (Status::Failed, Some(reason))
            }
            (End::Success { scores: None }, Some(RunKind::Evaluate), _) => {
                (Status::Failed, Some("it wrote no scores.json into its output folder".to_owned()))
            }
            _ => how(end),
        };
        let Some(run) = self.conclude(id, status, reason.clone(), left) else { return };
        let Some(learning) = self.app.learning.take() else { return };
        let why = reason.unwrap_or_default();
        match (run.kind, end, model) {
            (RunKind::Learn, End::Success { .. }, Some(model)) => self.learnt(learning, model),
            (RunKind::Evaluate, End::Success { scores: Some(scores) }, _) => {
                let gate = self.app.manifest().gate.clone();
                let verdict = judge(&gate, scores, self.champion().is_some());
                self.judged(run.version, verdict);
            }
            (_, End::Refused { .. } | End::Cancelled { .. } | End::Saved, _) => {
                self.give_up(run.version, &why)
            }
            (RunKind::Learn, _, _) => {
                // What was to be learnt from is not lost.
                self.app.calls.push_front(learning.call);
                self.learning_failed(&why);
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
        let number = self.new_version(Version {
            number: 0,
            definition: learning.definition,
            model: Some(model),
            run: Some(learning.run.clone()),
            at_ms: self.now_ms,
            actor: learning.call.actor.clone(),
            verdict: None,
        });
        self.set_alias(
            Alias::Candidate,
            Some(number),
            &By::itself(format!("learnt by run {}", learning.run)),
        );
        let evaluated =
            self.app.definitions.get(&learning.definition).is_some_and(|d| d.manifest.evaluate.is_some());
        if !evaluated {
            let verdict =
                Verdict::without_scores(false, "there is no section [evaluate]: an operator promotes");
            self.judged(number, verdict);
            return;
        }
        let cause = format!("run {}", learning.run);
        let (actor, inputs) = (learning.call.actor.clone(), learning.call.inputs.clone());
        let run = self.new_run(RunKind::Evaluate, number, (&cause, &actor), inputs);
        let id = run.id.clone();
        self.enter(run);
        self.app.learning = Some(Learning { run: id.clone(), ..learning });
        self.launch(&id);
    }

    /// The gate has spoken.
    fn judged(&mut self, number: u32, verdict: Verdict) {
        let (passed, reason) = (verdict.passed, verdict.reason.clone());
        self.keep_verdict(number, verdict);
        self.app.failures = 0;
        if passed && self.app.manifest().gate.promote == Promote::Auto {
            self.promote(number, &By::itself(reason.clone()));
        }
        self.end_learning(Cause::Learnt, &reason);
    }

    fn give_up(&mut self, version: u32, why: &str) {
        if self
            .app
            .versions
            .get(&version)
            .is_some_and(|version| version.verdict.is_none() && version.run.is_some())
        {
            self.keep_verdict(version, Verdict::without_scores(false, why));
        }
        self.end_learning(Cause::LearningFailed, why);
    }

    fn learning_failed(&mut self, why: &str) {
        let failures = self.app.manifest().failures;
        let doubled = failures.backoff_s * 2f64.powi(self.app.failures.min(60) as i32);
        let again_ms = self.now_ms + ms(doubled.min(failures.longest_backoff_s));
        self.app.retry_ms = Some(again_ms);
        self.set_timer(Timer::Retry, Some(again_ms));
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
