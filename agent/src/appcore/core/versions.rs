//! Registration, versions and their aliases.

use std::sync::Arc;

use super::Alias;
use super::app::{App, Definition, Fate, Timer, Trial, TriggerState, VERSIONS, Version};
use super::step::{Step, text};
use super::{By, Core, Effect, MOST_APPS, Outcome, Refused};
use crate::appcore::gate::Verdict;
use crate::appcore::manifest::Manifest;
use crate::appcore::rows::Row;
use crate::appcore::run::Blob;
use crate::appcore::states::{Cause, State};

/// Champions that a roll-back can go back to.
const CHAMPIONS: usize = 50;

impl Core {
    pub(super) fn register(
        &mut self,
        now_ms: i64,
        manifest: &Manifest,
        code: Option<&Blob>,
        by: &By,
    ) -> Result<Outcome, Refused> {
        manifest.check().map_err(|wrong| Refused::Invalid(wrong.0))?;
        let known = self.apps.contains_key(&manifest.name);
        if !known && self.apps.len() >= MOST_APPS {
            return Err(Refused::Full(format!("there are {MOST_APPS} applications, which is the most")));
        }
        if self.apps.get(&manifest.name).is_some_and(|app| app.state == State::Retired) {
            let name = &manifest.name;
            return Err(Refused::State(format!("{name} is retired; choose another name")));
        }
        self.apps.entry(manifest.name.clone()).or_insert_with(|| Arc::new(App::new(now_ms)));
        self.with(now_ms, &manifest.name, |step| {
            step.define(Definition { manifest: manifest.clone(), code: code.cloned() }, by);
            Ok(())
        })
    }
}

impl Step<'_> {
    /// Takes a definition that is not the present one; it makes a version that is to prove itself.
    fn define(&mut self, definition: Definition, by: &By) {
        let last = self.app.definitions.last_key_value();
        if last.is_some_and(|(_, last)| *last == definition) {
            self.outcome.known = true;
            return;
        }
        let number = last.map_or(1, |(number, _)| number + 1);
        self.keep(Row::Definition {
            app: self.name.to_owned(),
            number,
            manifest: text(&definition.manifest),
            code: definition.code.as_ref().map(|code| code.hash.clone()),
            at_ms: self.now_ms,
            actor: by.actor.clone(),
        });
        self.define_triggers(&definition.manifest);
        self.app.definitions.insert(number, definition);
        self.keep_app();
        let model = self.champion().and_then(|champion| champion.model.clone());
        let (at_ms, actor) = (self.now_ms, by.actor.clone());
        let version = self.new_version(Version {
            number: 0,
            definition: number,
            model,
            run: None,
            at_ms,
            actor,
            verdict: None,
        });
        self.set_alias(Alias::Candidate, Some(version), by);
        if self.app.state != State::Registered {
            self.set_triggers_going();
        }
    }

    /// Triggers of the new manifest; those that were there keep what they gathered.
    fn define_triggers(&mut self, manifest: &Manifest) {
        let mut before = std::mem::take(&mut self.app.triggers);
        for (name, state) in &before {
            if !manifest.triggers.contains(&state.trigger) {
                self.set_timer(Timer::Trigger(name.clone()), None);
            }
        }
        let kept = manifest.triggers.iter().map(|trigger| {
            let state = match before.remove(&trigger.name) {
                Some(state) => TriggerState { trigger: trigger.clone(), ..state },
                None => TriggerState::new(trigger.clone()),
            };
            (trigger.name.clone(), state)
        });
        self.app.triggers = kept.collect();
    }

    pub fn enable(&mut self, by: &By) -> Result<(), Refused> {
        if matches!(
            self.app.state,
            State::Idle | State::Learning | State::Waking | State::Executing | State::Draining
        ) {
            self.outcome.known = true;
            return Ok(());
        }
        if self.app.state != State::Registered {
            return Err(self.app.state.refuse(self.name, "be enabled"));
        }
        self.go(Cause::Enabled, by)?;
        let ready = self.app.manifest().execute.as_ref().is_some_and(|execute| !execute.awake.needs_model);
        if ready
            && self.champion().is_none()
            && let Some(version) = self.app.versions.keys().next_back().copied()
        {
            self.promote(version, by);
        }
        self.set_triggers_going();
        Ok(())
    }

    pub fn release(&mut self, by: &By) -> Result<(), Refused> {
        if self.app.state != State::Quarantined {
            return Err(self.app.state.refuse(self.name, "be released"));
        }
        self.go(Cause::Released, by)?;
        (self.app.failures, self.app.learning_failures) = (0, 0);
        self.set_triggers_going();
        self.back_asleep();
        Ok(())
    }

    pub fn retire(&mut self, by: &By) -> Result<(), Refused> {
        self.go(Cause::Retired, by)?;
        self.abandon(&format!("its application was retired by {}", by.actor));
        let under_way: Vec<_> = self.app.runs.keys().cloned().collect();
        for id in under_way {
            self.stop(&id, "its application was retired", Fate::Dropped);
        }
        self.app.calls.clear();
        for state in self.app.triggers.values_mut() {
            state.take();
        }
        let timers: Vec<_> = self.app.timers.keys().cloned().collect();
        for timer in timers {
            self.set_timer(timer, None);
        }
        Ok(())
    }

    pub fn champion(&self) -> Option<&Version> {
        self.app.version(Alias::Champion)
    }

    pub fn new_version(&mut self, version: Version) -> u32 {
        let number = self.app.versions.keys().next_back().map_or(1, |last| last + 1);
        let version = Version { number, ..version };
        self.keep_version(&version);
        self.app.versions.insert(number, version);
        number
    }

    fn keep_version(&mut self, version: &Version) {
        self.keep(Row::Version { app: self.name.to_owned(), version: Box::new(version.clone()) });
    }

    pub fn keep_verdict(&mut self, number: u32, verdict: Verdict) {
        let Some(version) = self.app.versions.get_mut(&number) else { return };
        version.verdict = Some(verdict);
        let version = version.clone();
        self.keep_version(&version);
    }

    pub fn set_alias(&mut self, alias: Alias, version: Option<u32>, by: &By) {
        match version {
            Some(version) => self.app.aliases.insert(alias, version),
            None => self.app.aliases.remove(&alias),
        };
        self.app.alias_count += 1;
        self.keep(Row::Alias {
            app: self.name.to_owned(),
            number: self.app.alias_count,
            at_ms: self.now_ms,
            alias,
            version,
            actor: by.actor.clone(),
            reason: by.reason.clone(),
        });
    }

    /// Makes a version the champion.
    pub fn promote(&mut self, number: u32, by: &By) {
        let before = self.app.aliases.get(&Alias::Champion).copied();
        if before == Some(number) {
            return;
        }
        if let Some(before) = before {
            self.app.champions.push(before);
            if self.app.champions.len() > CHAMPIONS {
                self.app.champions.remove(0);
            }
        }
        self.app.trial = before.map(|before| Trial { before, failures: 0 });
        self.crown(number, by);
    }

    fn crown(&mut self, number: u32, by: &By) {
        self.set_alias(Alias::Champion, Some(number), by);
        if self.app.aliases.get(&Alias::Candidate) == Some(&number) {
            self.set_alias(Alias::Candidate, None, by);
        }
        if let Some(version) = self.app.versions.get(&number).cloned() {
            self.do_(Effect::Promoted { app: self.name.to_owned(), version });
        }
    }

    pub fn set_alias_by_hand(&mut self, alias: Alias, version: Option<u32>, by: &By) -> Result<(), Refused> {
        if self.app.state == State::Retired {
            return Err(self.app.state.refuse(self.name, "have aliases changed"));
        }
        if let Some(number) = version
            && !self.app.versions.contains_key(&number)
        {
            let known: Vec<_> = self.app.versions.keys().rev().take(5).map(u32::to_string).collect();
            let known = known.join(", ");
            return Err(Refused::Unknown(format!(
                "version: {} keeps no version {number}; the last are {known}",
                self.name
            )));
        }
        match (alias, version) {
            (Alias::Champion, None) => {
                return Err(Refused::Invalid(
                    "version: a champion cannot be taken away, only replaced".to_owned(),
                ));
            }
            (Alias::Champion, Some(number)) => self.promote(number, by),
            _ => self.set_alias(alias, version, by),
        }
        Ok(())
    }

    /// A model that somebody took into use elsewhere is the champion, under the number that it has.
    pub fn adopt(&mut self, model: &Blob, by: &By) -> Result<(), Refused> {
        if matches!(self.app.state, State::Registered | State::Retired) {
            return Err(self.app.state.refuse(self.name, "adopt a model"));
        }
        let has = |version: &&Version| version.model.as_ref().is_some_and(|known| known.hash == model.hash);
        let known = self.app.versions.values().rev().find(has).map(|version| version.number);
        let number = known.unwrap_or_else(|| {
            let definition =
                *self.app.definitions.keys().next_back().expect("there is one from registration on");
            self.new_version(Version {
                number: 0,
                definition,
                model: Some(model.clone()),
                run: None,
                at_ms: self.now_ms,
                actor: by.actor.clone(),
                verdict: None,
            })
        });
        self.promote(number, by);
        Ok(())
    }

    /// The champion before takes over again.
    pub fn roll_back(&mut self, by: &By) -> Result<(), Refused> {
        if self.app.state == State::Retired {
            return Err(self.app.state.refuse(self.name, "be rolled back"));
        }
        let before = self.app.champions.pop();
        let before = before.ok_or_else(|| Refused::State(format!("{} had no champion before", self.name)))?;
        self.app.trial = None;
        self.crown(before, by);
        Ok(())
    }

    /// An execution failed: a champion on trial gives way to the one before.
    pub fn try_champion(&mut self, version: Option<u32>) {
        let champion = self.app.aliases.get(&Alias::Champion).copied();
        let limit = self.app.manifest().gate.roll_back_after;
        let Some(trial) = &mut self.app.trial else { return };
        if champion != version {
            return;
        }
        trial.failures += 1;
        if trial.failures >= limit {
            let reason =
                format!("rolled back: {} executions in a row failed after the promotion", trial.failures);
            let rolled = self.roll_back(&By::itself(reason));
            debug_assert!(rolled.is_ok(), "{rolled:?}");
            self.app.failures = 0;
        }
    }

    /// Versions that nothing refers to are forgotten here; the archive has them.
    pub fn forget_versions(&mut self) {
        let app = &mut *self.app;
        if app.versions.len() <= VERSIONS {
            return;
        }
        let in_use = |number: &u32| {
            app.aliases.values().any(|used| used == number)
                || app.champions.contains(number)
                || app.runs.values().any(|run| run.version == *number)
        };
        let surplus = app.versions.len() - VERSIONS;
        let old: Vec<u32> =
            app.versions.keys().take(surplus).filter(|number| !in_use(number)).copied().collect();
        for number in old {
            app.versions.remove(&number);
        }
        let last = app.definitions.keys().next_back().copied();
        let used: Vec<u32> = app.versions.values().map(|version| version.definition).collect();
        let learning = app.learning.as_ref().map(|learning| learning.definition);
        app.definitions
            .retain(|number, _| used.contains(number) || Some(*number) == last || Some(*number) == learning);
    }
}
