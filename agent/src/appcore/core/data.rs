//! Data that arrives, gathers, and is learnt from or executed on.

use super::app::{Call, Timer, TriggerState};
use super::step::{Step, ms};
use super::{By, Refused, good_name};
use crate::appcore::manifest::{Act, On};
use crate::appcore::rows::Row;
use crate::appcore::run::{Blob, REQUEST};
use crate::appcore::states::State;

/// Files that may wait to be learnt from.
const MOST_INPUTS: usize = 10_000;
/// Data that could not be executed on is tried again after that, milliseconds.
const TRIED_AGAIN_MS: i64 = 10_000;

impl Step<'_> {
    /// Data came; every trigger that waits for data counts it.
    pub fn notice(
        &mut self,
        key: &str,
        (items, bytes): (u64, u64),
        inputs: &[Blob],
        by: &By,
    ) -> Result<(), Refused> {
        good_name("key", key)?;
        if items == 0 {
            return Err(Refused::Invalid("items: is 0, want at least 1".to_owned()));
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
        let (now_ms, active) = (self.now_ms, self.app.active());
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
            let due = if state.paused || !active { None } else { data_due(state) };
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
    pub fn fire_data(&mut self, name: &str) {
        self.set_timer(Timer::Trigger(name.to_owned()), None);
        let active = self.app.active();
        let Some(state) = self.app.triggers.get_mut(name).filter(|_| active) else { return };
        let (act, overlap) = (state.trigger.run, state.trigger.overlap);
        match act {
            Act::Execute => self.execute_on_data(name),
            Act::Learn => match self.too_busy(overlap) {
                Some(why) => self.let_wait(name, &why),
                None => {
                    let inputs = self.app.triggers.get_mut(name).map(TriggerState::take);
                    self.fire_call(name, overlap, "appcore", inputs.unwrap_or_default());
                }
            },
        }
        self.keep_trigger(name);
    }

    /// Data stays until learning is over, or until it is due, where it is not yet.
    fn let_wait(&mut self, name: &str, why: &str) {
        let (now_ms, why) = (self.now_ms, format!("{why}; the data waits"));
        self.outcome.skipped = Some(why.clone());
        let Some(state) = self.app.triggers.get_mut(name) else { return };
        state.skipped = Some((now_ms, why));
        let due = if state.paused { None } else { data_due(state).filter(|due| *due > now_ms) };
        self.set_timer(Timer::Trigger(name.to_owned()), due);
    }

    /// Executes once for each input; those that there is no room for wait.
    fn execute_on_data(&mut self, name: &str) {
        let Some(state) = self.app.triggers.get_mut(name) else { return };
        let (items, bytes) = (state.items, state.bytes);
        let mut inputs: Vec<_> = state.take().into_iter().map(Some).collect();
        if inputs.is_empty() {
            inputs.push(None);
        }
        let (cause, number) = (format!("trigger {name}"), self.app.fire_count + 1);
        let mut inputs = inputs.into_iter().enumerate();
        let mut left = None;
        for (index, input) in inputs.by_ref() {
            let id = format!("{cause} {number} {index}");
            let request = input.clone().map(|input| Blob { name: REQUEST.to_owned(), ..input });
            if let Err(refused) = self.request(&id, request.as_ref(), &By::new("appcore", &cause)) {
                left = Some((input, index, refused));
                break;
            }
        }
        self.outcome.run = None;
        if left.as_ref().is_none_or(|(_, index, _)| *index > 0) {
            self.fired(name, "appcore");
        }
        let Some((input, _, refused)) = left else { return };
        let again_ms = self.now_ms + TRIED_AGAIN_MS;
        if let Some(state) = self.app.triggers.get_mut(name) {
            state.inputs = input.into_iter().chain(inputs.filter_map(|(_, input)| input)).collect();
            (state.items, state.bytes) = (items, bytes);
        }
        self.let_wait(name, &refused.to_string());
        self.set_timer(Timer::Trigger(name.to_owned()), Some(again_ms));
    }

    /// Learning is over: data that waited for that.
    pub fn gather_data(&mut self) {
        if !self.app.calls.is_empty() {
            return;
        }
        let ready = |state: &&mut TriggerState| {
            state.trigger.run == Act::Learn
                && !state.paused
                && data_due(state).is_some_and(|due| due <= self.now_ms)
        };
        let Some(state) = self.app.triggers.values_mut().find(ready) else { return };
        let (name, inputs) = (state.trigger.name.clone(), state.take());
        self.set_timer(Timer::Trigger(name.clone()), None);
        self.fired(&name, "appcore");
        self.keep_trigger(&name);
        let cause = format!("trigger {name}");
        self.app.calls.push_back(Call { trigger: Some(name), cause, actor: "appcore".to_owned(), inputs });
    }
}

/// When data that waits is to be learnt from.
pub(super) fn data_due(state: &TriggerState) -> Option<i64> {
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
