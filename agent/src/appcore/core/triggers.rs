//! Triggers: schedules, metrics that drift, and hands; `data.rs` has those that wait for data.

use super::app::{Call, Fate, Timer, TriggerState};
use super::data::data_due;
use super::step::{Step, ms};
use super::{By, Refused};
use crate::appcore::manifest::{Act, On, Overlap};
use crate::appcore::rows::Row;
use crate::appcore::run::Blob;
use crate::appcore::schedule::Schedule;
use crate::appcore::states::State;

/// Calls for learning that may wait.
const MOST_CALLS: usize = 100;
/// Times that passed and are caught up with at once.
const MOST_CAUGHT_UP: usize = 100;

impl Step<'_> {
    pub fn trigger(&mut self, name: &str) -> Result<&mut TriggerState, Refused> {
        let app = self.name;
        let known: Vec<_> = self.app.triggers.keys().cloned().collect();
        self.app.triggers.get_mut(name).ok_or_else(|| {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Refused::Unknown(format!("trigger: {app} has none called {name:?}, it has {known}"))
        })
    }

    /// After enabling, registering or releasing: schedules know when they fire next, data that waits may fire.
    pub fn set_triggers_going(&mut self) {
        let names: Vec<_> = self.app.triggers.keys().cloned().collect();
        for name in names {
            self.set_trigger_going(&name);
        }
    }

    fn set_trigger_going(&mut self, name: &str) {
        let Some(state) = self.app.triggers.get(name) else { return };
        let next = match &state.trigger.on {
            _ if state.paused => None,
            // A time that is due and was not heeded yet is not forgotten.
            On::Schedule { cron, zone, .. } => self
                .app
                .next_fire_ms(name)
                .or_else(|| Schedule::read(cron, zone).ok().and_then(|schedule| schedule.next(self.now_ms))),
            On::Data { .. } if self.app.active() => data_due(state),
            _ => None,
        };
        self.set_timer(Timer::Trigger(name.to_owned()), next);
        self.keep_trigger(name);
    }

    pub fn keep_trigger(&mut self, name: &str) {
        let Some(state) = self.app.triggers.get(name) else { return };
        let row = Row::Trigger {
            app: self.name.to_owned(),
            trigger: name.to_owned(),
            spec: serde_json::to_string(&state.trigger).expect("a trigger becomes JSON"),
            paused: state.paused,
            next_ms: self.app.next_fire_ms(name),
            fired_ms: state.fired_ms,
        };
        self.keep(row);
    }

    /// A schedule's time has come, or data has waited long enough.
    pub fn trigger_due(&mut self, name: &str, at_ms: i64) {
        let Some(state) = self.app.triggers.get(name) else { return };
        let On::Schedule { cron, zone, catch_up_s } = &state.trigger.on else { return self.fire_data(name) };
        if let Ok(schedule) = Schedule::read(cron, zone) {
            self.catch_up(name, &schedule, (at_ms, ms(*catch_up_s)));
        }
        self.set_trigger_going(name);
    }

    /// Fires for each time of a schedule since this one, as far back as it catches up.
    fn catch_up(&mut self, name: &str, schedule: &Schedule, (since_ms, catch_up_ms): (i64, i64)) {
        let oldest_ms = self.now_ms - catch_up_ms;
        let first = if since_ms < oldest_ms { schedule.next(oldest_ms - 1) } else { Some(since_ms) };
        let past = |at_ms: &i64| *at_ms <= self.now_ms;
        let times = std::iter::successors(first.filter(past), |at_ms| schedule.next(*at_ms).filter(past));
        let mut times: Vec<_> = times.take(MOST_CAUGHT_UP + 1).collect();
        if since_ms < oldest_ms {
            let (since, catch_up_s) = (stamp(since_ms), catch_up_ms / 1000);
            let why =
                format!("what was due from {since} on is too long ago: it catches up with {catch_up_s} s");
            self.skip(name, "appcore", why);
        }
        let rest = times.get(MOST_CAUGHT_UP).copied();
        times.truncate(MOST_CAUGHT_UP);
        for _ in times {
            self.fire(name, &By::itself(format!("trigger {name}")));
        }
        if let Some(rest) = rest {
            let since = stamp(rest);
            let why = format!(
                "what was due from {since} on is too much: it catches up with {MOST_CAUGHT_UP} times"
            );
            self.skip(name, "appcore", why);
        }
    }

    /// Has a trigger do what it is for, or says why not.
    fn fire(&mut self, name: &str, by: &By) {
        let Some(state) = self.app.triggers.get(name) else { return };
        let (act, overlap) = (state.trigger.run, state.trigger.overlap);
        if !self.app.active() {
            let state = self.app.state;
            return self.skip(name, &by.actor, format!("the application is {state}"));
        }
        match act {
            Act::Execute => self.fire_request(name, overlap, by),
            Act::Learn => match self.too_busy(overlap) {
                Some(why) => self.skip(name, &by.actor, why),
                None => self.fire_call(name, overlap, &by.actor, Vec::new()),
            },
        }
    }

    fn fire_request(&mut self, name: &str, overlap: Overlap, by: &By) {
        let busy = self.app.executing() + self.app.waiting();
        if busy > 0 && overlap == Overlap::Skip {
            return self.skip(name, &by.actor, format!("{busy} executions are under way or wait"));
        }
        if overlap == Overlap::Cancel {
            let under_way: Vec<_> = self.app.runs.keys().cloned().collect();
            let by_trigger = format!("trigger {name}");
            for id in under_way {
                if self.app.runs.get(&id).is_some_and(|run| run.cause == by_trigger) {
                    self.stop(&id, "its trigger fired again", Fate::Dropped);
                }
            }
        }
        let number = self.app.fire_count + 1;
        let id = format!("trigger {name} {number}");
        let by = By::new(&by.actor, format!("trigger {name}"));
        match self.request(&id, None, &by) {
            Ok(()) => self.fired(name, &by.actor),
            Err(refused) => self.skip(name, &by.actor, refused.to_string()),
        }
        self.outcome.run = None;
    }

    /// Why a call for learning has to be left out now.
    pub fn too_busy(&self, overlap: Overlap) -> Option<String> {
        let busy = self.app.learning.is_some() || !self.app.calls.is_empty();
        match overlap {
            Overlap::Skip if busy => Some("it is learning already".to_owned()),
            Overlap::Skip | Overlap::Cancel => None,
            Overlap::Buffer => (self.app.calls.len() >= MOST_CALLS)
                .then(|| format!("{MOST_CALLS} calls for learning wait already")),
        }
    }

    pub fn fire_call(&mut self, name: &str, overlap: Overlap, actor: &str, inputs: Vec<Blob>) {
        let cause = format!("trigger {name}");
        let mut call = Call { trigger: Some(name.to_owned()), cause, actor: actor.to_owned(), inputs };
        self.fired(name, actor);
        if overlap == Overlap::Cancel {
            self.replace_calls(&mut call);
        }
        self.app.calls.push_back(call);
        if overlap == Overlap::Cancel
            && let Some(learning) = &self.app.learning
        {
            let id = learning.run.clone();
            self.stop(&id, "its trigger fired again", Fate::Merged);
        }
        self.try_learning();
    }

    /// A call takes the place of those of its trigger that wait, with what they were to learn from.
    fn replace_calls(&mut self, call: &mut Call) {
        let calls = std::mem::take(&mut self.app.calls);
        let (same, others) = calls.into_iter().partition::<Vec<_>, _>(|other| other.trigger == call.trigger);
        self.app.calls = others.into();
        let inputs = same.into_iter().flat_map(|other| other.inputs);
        let inputs = inputs.chain(std::mem::take(&mut call.inputs)).collect();
        call.inputs = inputs;
    }

    pub fn fired(&mut self, name: &str, actor: &str) {
        let now_ms = self.now_ms;
        if let Some(state) = self.app.triggers.get_mut(name) {
            state.fired_ms = Some(now_ms);
        }
        self.keep_fired(name, actor, None);
    }

    fn skip(&mut self, name: &str, actor: &str, why: String) {
        let now_ms = self.now_ms;
        if let Some(state) = self.app.triggers.get_mut(name) {
            state.skipped = Some((now_ms, why.clone()));
        }
        self.outcome.skipped = Some(why.clone());
        self.keep_fired(name, actor, Some(why));
    }

    pub fn keep_fired(&mut self, name: &str, actor: &str, skipped: Option<String>) {
        self.app.fire_count += 1;
        self.keep(Row::Fired {
            app: self.name.to_owned(),
            number: self.app.fire_count,
            at_ms: self.now_ms,
            trigger: name.to_owned(),
            actor: actor.to_owned(),
            skipped,
        });
    }

    pub fn metric(&mut self, metric: &str, value: f64, by: &By) -> Result<(), Refused> {
        if !value.is_finite() {
            return Err(Refused::Invalid(format!("value: is {value}, want a finite number")));
        }
        let watches =
            |state: &TriggerState| matches!(&state.trigger.on, On::Drift { metric: of, .. } if of == metric);
        let names: Vec<_> = self
            .app
            .triggers
            .iter()
            .filter(|(_, state)| watches(state))
            .map(|(name, _)| name.clone())
            .collect();
        if names.is_empty() {
            return Err(Refused::State(format!("{} watches no metric called {metric:?}", self.name)));
        }
        for name in names {
            let state = self.trigger(&name)?;
            let On::Drift { above, below, times, .. } = &state.trigger.on else { continue };
            let outside =
                above.is_some_and(|above| value > above) || below.is_some_and(|below| value < below);
            let times = *times;
            state.outside = if outside { state.outside + 1 } else { 0 };
            if state.outside >= times && !state.paused {
                state.outside = 0;
                self.fire(&name, &By::new(&by.actor, format!("{metric} is {value}")));
                self.keep_trigger(&name);
            }
        }
        Ok(())
    }

    pub fn fire_by_hand(&mut self, name: &str, by: &By) -> Result<(), Refused> {
        let data = matches!(self.trigger(name)?.trigger.on, On::Data { .. });
        if !self.app.active() {
            return Err(self.app.state.refuse(self.name, "act"));
        }
        if data {
            self.fire_data(name);
        } else {
            self.fire(name, by);
            self.keep_trigger(name);
        }
        Ok(())
    }

    pub fn pause(&mut self, name: &str, paused: bool, by: &By) -> Result<(), Refused> {
        let known = self.trigger(name)?.paused == paused;
        if self.app.state == State::Retired {
            return Err(self.app.state.refuse(self.name, "have triggers changed"));
        }
        self.outcome.known = known;
        self.trigger(name)?.paused = paused;
        if self.outcome.known {
            return Ok(());
        }
        let what = if paused { "paused" } else { "goes on" };
        let why = if by.reason.is_empty() { what.to_owned() } else { format!("{what}: {}", by.reason) };
        self.keep_fired(name, &by.actor, Some(why));
        if self.app.state != State::Registered {
            self.set_trigger_going(name);
        }
        Ok(())
    }

    /// Fires for times of a schedule that are past, however busy it is.
    pub fn backfill(&mut self, name: &str, (from_ms, until_ms): (i64, i64), by: &By) -> Result<(), Refused> {
        if !self.app.active() {
            return Err(self.app.state.refuse(self.name, "act"));
        }
        let trigger = self.trigger(name)?.trigger.clone();
        let On::Schedule { cron, zone, .. } = trigger.on else {
            return Err(Refused::Invalid(format!("trigger: {name:?} has no schedule to backfill")));
        };
        if from_ms >= until_ms {
            return Err(Refused::Invalid("until_ms: want a time after from_ms".to_owned()));
        }
        let schedule = Schedule::read(&cron, &zone).map_err(Refused::Invalid)?;
        let room = match trigger.run {
            Act::Learn => MOST_CALLS.saturating_sub(self.app.calls.len()),
            Act::Execute => {
                self.can_execute()?;
                (self.awake().queue as usize).saturating_sub(self.app.queue.len()).min(MOST_CALLS)
            }
        };
        let next = |after_ms: &i64| schedule.next(*after_ms).filter(|at_ms| *at_ms < until_ms);
        let times = std::iter::successors(next(&from_ms.saturating_sub(1)), next);
        let times: Vec<i64> = times.take(room + 1).collect();
        if times.len() > room {
            return Err(Refused::Full(format!(
                "until_ms: more than {room} times lie between the two, and no more may wait"
            )));
        }
        if times.is_empty() {
            self.outcome.skipped = Some("none of its times lies between the two".to_owned());
        }
        for at_ms in times {
            let cause = format!("trigger {name}, for {}", stamp(at_ms));
            self.fill(name, trigger.run, &By::new(&by.actor, cause))?;
        }
        self.keep_trigger(name);
        Ok(())
    }

    /// Fires for one time that is past; a request for it is known when it comes again.
    fn fill(&mut self, name: &str, act: Act, by: &By) -> Result<(), Refused> {
        let (trigger, cause, actor) = (Some(name.to_owned()), by.reason.clone(), by.actor.clone());
        match act {
            Act::Learn => {
                self.fired(name, &by.actor);
                self.call(Call { trigger, cause, actor, inputs: Vec::new() });
            }
            Act::Execute if self.app.requests.get(&cause).is_none() => {
                self.fired(name, &by.actor);
                self.request(&cause, None, by)?;
                self.outcome.run = None;
            }
            Act::Execute => {}
        }
        Ok(())
    }
}

/// A time for people and commands.
fn stamp(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms).map_or_else(|_| at_ms.to_string(), |at| at.to_string())
}
