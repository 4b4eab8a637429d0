//! Triggers: schedules, data that arrives, metrics that drift, and hands.

use super::app::{Call, Timer, TriggerState, waits};
use super::step::{Step, ms};
use super::{By, Refused};
use crate::appcore::manifest::{Act, On, Overlap};
use crate::appcore::rows::Row;
use crate::appcore::run::Blob;
use crate::appcore::schedule::Schedule;
use crate::appcore::states::State;

/// Calls for learning that may wait.
const MOST_CALLS: usize = 100;
/// Files that may wait to be learnt from.
const MOST_INPUTS: usize = 10_000;
/// Times that one backfill may fire.
const MOST_BACKFILLED: usize = MOST_CALLS;

impl Step<'_> {
    fn active(&self) -> bool {
        !matches!(self.app.state, State::Registered | State::Quarantined | State::Retired)
    }

    fn trigger(&mut self, name: &str) -> Result<&mut TriggerState, Refused> {
        let app = self.name;
        let known: Vec<_> = self.app.triggers.keys().cloned().collect();
        self.app.triggers.get_mut(name).ok_or_else(|| {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Refused::Unknown(format!("trigger: {app} has none called {name:?}, it has {known}"))
        })
    }

    /// After enabling, releasing or a restart: schedules know when they fire next, data that waits may fire.
    pub fn set_triggers_going(&mut self) {
        let names: Vec<_> = self.app.triggers.keys().cloned().collect();
        for name in names {
            self.set_trigger_going(&name);
        }
    }

    fn set_trigger_going(&mut self, name: &str) {
        let Some(state) = self.app.triggers.get(name) else { return };
        let next = match &state.trigger.on {
            On::Schedule { cron, zone, .. } if !state.paused => {
                Schedule::read(cron, zone).ok().and_then(|schedule| schedule.next(self.now_ms))
            }
            On::Data { .. } if !state.paused => data_due(state),
            _ => None,
        };
        self.set_timer(Timer::Trigger(name.to_owned()), next);
        self.keep_trigger(name);
    }

    fn keep_trigger(&mut self, name: &str) {
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
        if let On::Schedule { catch_up_s, .. } = &state.trigger.on {
            let late_ms = self.now_ms - at_ms;
            if late_ms > ms(*catch_up_s) {
                let late_s = late_ms / 1000;
                self.skip(
                    name,
                    "appcore",
                    format!("its time passed {late_s} s ago, and it catches up with {catch_up_s} s"),
                );
            } else {
                self.fire(name, &By::itself(format!("trigger {name}")));
            }
        } else {
            self.fire_data(name);
        }
        self.set_trigger_going(name);
    }

    /// Has a trigger do what it is for, or says why not.
    fn fire(&mut self, name: &str, by: &By) {
        let Some(state) = self.app.triggers.get(name) else { return };
        let (act, overlap) = (state.trigger.run, state.trigger.overlap);
        if !self.active() {
            let state = self.app.state;
            return self.skip(name, &by.actor, format!("the application is {state}"));
        }
        match act {
            Act::Execute => self.fire_request(name, overlap, by),
            Act::Learn => {
                let call = Call {
                    trigger: Some(name.to_owned()),
                    cause: format!("trigger {name}"),
                    actor: by.actor.clone(),
                    inputs: Vec::new(),
                };
                self.fire_call(name, call, overlap);
            }
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
                    self.stop(&id, "its trigger fired again");
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

    fn fire_call(&mut self, name: &str, call: Call, overlap: Overlap) {
        let busy = self.app.learning.is_some() || !self.app.calls.is_empty();
        let actor = call.actor.clone();
        if busy && !waits(overlap) {
            return self.skip(name, &actor, "it is learning already".to_owned());
        }
        if self.app.calls.len() >= MOST_CALLS {
            return self.skip(name, &actor, format!("{MOST_CALLS} calls for learning wait already"));
        }
        self.fired(name, &actor);
        if overlap == Overlap::Cancel
            && let Some(learning) = &self.app.learning
        {
            let id = learning.run.clone();
            self.stop(&id, "its trigger fired again");
        }
        self.call(call);
    }

    fn fired(&mut self, name: &str, actor: &str) {
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
        self.keep_fired(name, actor, Some(why));
    }

    fn keep_fired(&mut self, name: &str, actor: &str, skipped: Option<String>) {
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

    /// Data came; every trigger that waits for data counts it.
    pub fn notice(
        &mut self,
        key: &str,
        (items, bytes): (u64, u64),
        inputs: &[Blob],
        by: &By,
    ) -> Result<(), Refused> {
        if key.is_empty() || key.len() > 200 {
            return Err(Refused::Invalid("key: want 1 to 200 bytes".to_owned()));
        }
        if self.app.notices.get(key).is_some() {
            self.outcome.known = true;
            return Ok(());
        }
        if self.app.state == State::Retired {
            return Err(self.app.state.refuse(self.name, "take data"));
        }
        let waiting = |state: &TriggerState| matches!(state.trigger.on, On::Data { .. });
        let names: Vec<_> = self
            .app
            .triggers
            .iter()
            .filter(|(_, state)| waiting(state))
            .map(|(name, _)| name.clone())
            .collect();
        if names.is_empty() {
            return Err(Refused::State(format!(
                "{} waits for no data: it has no trigger on.data",
                self.name
            )));
        }
        let now_ms = self.now_ms;
        for name in &names {
            let state = self.trigger(name)?;
            if state.inputs.len() + inputs.len() > MOST_INPUTS {
                return Err(Refused::Full(format!(
                    "{MOST_INPUTS} files wait for trigger {name} already; ask again once it has fired"
                )));
            }
        }
        self.app.notices.add(key, "");
        for name in &names {
            let state = self.trigger(name)?;
            state.first_ms = if state.items == 0 { now_ms } else { state.first_ms };
            state.last_ms = now_ms;
            state.items = state.items.saturating_add(items);
            state.bytes = state.bytes.saturating_add(bytes);
            state.inputs.extend_from_slice(inputs);
            let due = if state.paused { None } else { data_due(state) };
            self.set_timer(Timer::Trigger(name.clone()), due);
        }
        self.keep(Row::Notice {
            app: self.name.to_owned(),
            key: key.to_owned(),
            at_ms: now_ms,
            items,
            bytes,
            actor: by.actor.clone(),
        });
        for name in &names {
            let due = self.app.next_fire_ms(name).is_some_and(|due| due <= now_ms);
            if due {
                self.fire_data(name);
            }
        }
        Ok(())
    }

    /// What has gathered is learnt from, unless the application is busy: then it stays for later.
    fn fire_data(&mut self, name: &str) {
        if !self.active() {
            return;
        }
        let busy = self.app.learning.is_some() || !self.app.calls.is_empty();
        let Some(state) = self.app.triggers.get_mut(name) else { return };
        let (act, overlap) = (state.trigger.run, state.trigger.overlap);
        if act == Act::Learn && busy && overlap == Overlap::Skip {
            let now_ms = self.now_ms;
            state.skipped = Some((now_ms, "it is learning; the data waits".to_owned()));
            self.set_timer(Timer::Trigger(name.to_owned()), None);
            return;
        }
        let inputs = std::mem::take(&mut state.inputs);
        (state.items, state.bytes) = (0, 0);
        self.set_timer(Timer::Trigger(name.to_owned()), None);
        let cause = format!("trigger {name}");
        match act {
            Act::Learn => {
                let call =
                    Call { trigger: Some(name.to_owned()), cause, actor: "appcore".to_owned(), inputs };
                self.fire_call(name, call, overlap);
            }
            Act::Execute => {
                let inputs: Vec<Option<Blob>> =
                    if inputs.is_empty() { vec![None] } else { inputs.into_iter().map(Some).collect() };
                self.execute_on(name, &cause, inputs);
            }
        }
        self.keep_trigger(name);
    }

    /// Executes once for each input.
    fn execute_on(&mut self, name: &str, cause: &str, inputs: Vec<Option<Blob>>) {
        for (index, input) in inputs.into_iter().enumerate() {
            let id = format!("{cause} {} {index}", self.app.fire_count + 1);
            let input = input.map(|input| Blob { name: crate::appcore::run::REQUEST.to_owned(), ..input });
            if let Err(refused) = self.request(&id, input.as_ref(), &By::new("appcore", cause)) {
                self.skip(name, "appcore", refused.to_string());
            }
        }
        self.fired(name, "appcore");
        self.outcome.run = None;
    }

    /// Learning is over: data that waited for that.
    pub fn gather_data(&mut self) {
        if !self.app.calls.is_empty() {
            return;
        }
        let ready = |state: &&TriggerState| {
            state.trigger.run == Act::Learn
                && !state.paused
                && data_due(state).is_some_and(|due| due <= self.now_ms)
        };
        let Some(state) = self.app.triggers.values_mut().find(|state| ready(&&**state)) else { return };
        let name = state.trigger.name.clone();
        let inputs = std::mem::take(&mut state.inputs);
        (state.items, state.bytes) = (0, 0);
        self.set_timer(Timer::Trigger(name.clone()), None);
        self.fired(&name, "appcore");
        let cause = format!("trigger {name}");
        self.app.calls.push_back(Call { trigger: Some(name), cause, actor: "appcore".to_owned(), inputs });
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
        if !self.active() {
            return Err(self.app.state.refuse(self.name, "act"));
        }
        let before = self.app.triggers.get(name).and_then(|state| state.skipped.clone());
        if data {
            self.fire_data(name)
        } else {
            self.fire(name, by)
        }
        self.keep_trigger(name);
        let skipped = self.app.triggers.get(name).and_then(|state| state.skipped.clone());
        match skipped.filter(|skipped| before.as_ref() != Some(skipped)) {
            // It is told, and stays on record.
            Some((_, why)) if self.outcome.effects.is_empty() => {
                self.outcome.skipped = Some(why);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub fn pause(&mut self, name: &str, paused: bool, by: &By) -> Result<(), Refused> {
        let state = self.trigger(name)?;
        self.outcome.known = state.paused == paused;
        self.trigger(name)?.paused = paused;
        if self.outcome.known {
            return Ok(());
        }
        let what = if paused { "paused" } else { "goes on" };
        let why = if by.reason.is_empty() { what.to_owned() } else { format!("{what}: {}", by.reason) };
        self.keep_fired(name, &by.actor, Some(why));
        if self.active() {
            self.set_trigger_going(name);
        }
        self.keep_trigger(name);
        Ok(())
    }

    /// Fires for times of a schedule that are past.
    pub fn backfill(&mut self, name: &str, (from_ms, until_ms): (i64, i64), by: &By) -> Result<(), Refused> {
        if !self.active() {
            return Err(self.app.state.refuse(self.name, "act"));
        }
        let On::Schedule { cron, zone, .. } = self.trigger(name)?.trigger.on.clone() else {
            return Err(Refused::Invalid(format!("trigger: {name:?} has no schedule to backfill")));
        };
        let schedule = Schedule::read(&cron, &zone).map_err(Refused::Invalid)?;
        let next = |after_ms: &i64| schedule.next(*after_ms).filter(|at_ms| *at_ms < until_ms);
        let times: Vec<i64> =
            std::iter::successors(next(&(from_ms - 1)), next).take(MOST_BACKFILLED + 1).collect();
        let room = MOST_BACKFILLED.saturating_sub(self.app.calls.len());
        if times.len() > room {
            return Err(Refused::Full(format!(
                "until_ms: more than {room} times lie between the two, and no more may wait"
            )));
        }
        let act = self.trigger(name)?.trigger.run;
        for at_ms in times {
            let cause = format!("trigger {name}, for {}", stamp(at_ms));
            let by = By::new(&by.actor, cause.clone());
            self.fired(name, &by.actor);
            match act {
                Act::Learn => self.call(Call {
                    trigger: Some(name.to_owned()),
                    cause,
                    actor: by.actor,
                    inputs: Vec::new(),
                }),
                Act::Execute => {
                    self.request(&cause, None, &by)?;
                    self.outcome.run = None;
                }
            }
        }
        Ok(())
    }
}

/// A time for people and commands.
fn stamp(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms).map_or_else(|_| at_ms.to_string(), |at| at.to_string())
}

/// When data that waits is to be learnt from.
fn data_due(state: &TriggerState) -> Option<i64> {
    let On::Data { count, bytes, debounce_s, longest_s, .. } = &state.trigger.on else { return None };
    if state.items == 0 {
        return None;
    }
    let enough = state.items >= *count || bytes.is_some_and(|bytes| state.bytes >= bytes);
    let quiet = enough.then(|| state.last_ms + ms(*debounce_s));
    let latest = longest_s.map(|longest_s| state.first_ms + ms(longest_s));
    match (quiet, latest) {
        (Some(quiet), Some(latest)) => Some(quiet.min(latest)),
        (quiet, latest) => quiet.or(latest),
    }
}
