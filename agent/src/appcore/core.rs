//! AppCore as a pure state machine: [`Core::handle`] takes the time and what happened, and says what is to be done. It
//! reads no clock and does nothing itself, so the journal of its inputs, handled again, gives the same state.

mod app;
mod data;
mod learning;
mod requests;
mod restart;
mod shared;
mod step;
mod triggers;
mod versions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::manifest::{Limits, Manifest};
use super::rows::Row;
use super::run::{Blob, End, Left, Run};
use super::states::State;

pub use crate::service::Alias;
pub use app::{App, Definition, Timer, TriggerState, Version};
use step::Step;

/// Most applications.
pub const MOST_APPS: usize = 10_000;

/// Who wants something, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    pub actor: String,
    pub reason: String,
}

impl By {
    pub fn new(actor: impl Into<String>, reason: impl Into<String>) -> By {
        By { actor: actor.into(), reason: reason.into() }
    }

    /// AppCore itself.
    pub(super) fn itself(reason: impl Into<String>) -> By {
        By::new("appcore", reason)
    }
}

/// Something that happened, or that somebody wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    /// A new application, or new code of one.
    Register {
        manifest: Box<Manifest>,
        code: Option<Blob>,
        by: By,
    },
    Enable {
        app: String,
        by: By,
    },
    Wake {
        app: String,
        by: By,
    },
    Sleep {
        app: String,
        by: By,
    },
    Release {
        app: String,
        by: By,
    },
    Retire {
        app: String,
        by: By,
    },
    /// `id` makes it one request however often it is sent.
    Request {
        app: String,
        id: String,
        input: Option<Blob>,
        by: By,
    },
    /// Data came. `key` makes it one notice however often it is sent.
    Notice {
        app: String,
        key: String,
        items: u64,
        bytes: u64,
        inputs: Vec<Blob>,
        by: By,
    },
    Metric {
        app: String,
        metric: String,
        value: f64,
        by: By,
    },
    Fire {
        app: String,
        trigger: String,
        by: By,
    },
    Pause {
        app: String,
        trigger: String,
        paused: bool,
        by: By,
    },
    /// A schedule's times between these two, the second excluded.
    Backfill {
        app: String,
        trigger: String,
        from_ms: i64,
        until_ms: i64,
        by: By,
    },
    SetAlias {
        app: String,
        alias: Alias,
        version: Option<u32>,
        by: By,
    },
    RollBack {
        app: String,
        by: By,
    },
    Cancel {
        run: String,
        by: By,
    },
    /// Repeats a run that is over, as it was recorded.
    Again {
        run: Box<Run>,
        by: By,
    },
    Woken {
        app: String,
        /// That of `Effect::Wake`; nothing in journals that are older than it.
        #[serde(default)]
        wake: Option<u64>,
        error: Option<String>,
    },
    Slept {
        app: String,
    },
    /// A model that was not learnt here is in use: it becomes a version, and the champion.
    Adopt {
        app: String,
        model: Blob,
        by: By,
    },
    /// What the service itself gives a run to read, besides what called for it.
    Given {
        run: String,
        attempt: u32,
        inputs: Vec<Blob>,
    },
    Started {
        run: String,
        attempt: u32,
        node: String,
        decision: Option<String>,
    },
    Ended {
        run: String,
        attempt: u32,
        end: End,
        left: Left,
    },
    /// Timers that are due.
    Time,
    /// The service begins: what was under way is no more.
    Restarted,
}

/// Something to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    pub run: Run,
    pub command: Vec<String>,
    pub image: Option<String>,
    pub limits: Limits,
    pub definition: Definition,
    pub model: Option<Blob>,
    /// Of an evaluation: the promoted version's.
    pub champion: Option<Blob>,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Make an application ready; then say `Woken`.
    Wake {
        app: String,
        /// Which of its wakes: one that took too long says nothing of the next.
        wake: u64,
        definition: Box<Definition>,
    },
    /// Give back what being awake took; then say `Slept`.
    Sleep {
        app: String,
    },
    Launch(Box<Launch>),
    /// Stop a run; its `Ended` follows. Where `save` is set it may save its state before.
    Stop {
        run: String,
        attempt: u32,
        save: bool,
        reason: String,
    },
    /// A run is over.
    Over(Box<Run>),
    /// A version became the champion.
    Promoted {
        app: String,
        version: Version,
    },
}

/// What an input led to.
#[derive(Debug, Default)]
pub struct Outcome {
    pub effects: Vec<Effect>,
    /// What is to be remembered.
    pub rows: Vec<Row>,
    /// The run that a request is answered by; it may be over already.
    pub run: Option<String>,
    /// It was known already and changed nothing.
    pub known: bool,
    /// Why a trigger did nothing.
    pub skipped: Option<String>,
}

/// Why an input is refused; it changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Unknown(String),
    /// Not in this state.
    #[error("{0}")]
    State(String),
    #[error("{0}")]
    Full(String),
}

/// Whether requests and notices may be called so. A zero byte PostgreSQL would refuse.
pub fn good_name(field: &str, name: &str) -> Result<(), Refused> {
    if name.is_empty() || name.len() > 200 || name.contains('\0') {
        return Err(Refused::Invalid(format!("{field}: want 1 to 200 bytes, none of them zero")));
    }
    Ok(())
}

/// All applications. A clone costs little, so that it can be written while the original goes on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Core {
    #[serde(with = "shared")]
    apps: BTreeMap<String, Arc<App>>,
    /// When what is due next; of each application its timers, once more by time.
    #[serde(skip)]
    timers: BTreeSet<(i64, String, Timer)>,
}

impl Core {
    /// A state as it was kept.
    pub fn restored(text: &str) -> Result<Core, serde_json::Error> {
        let mut core: Core = serde_json::from_str(text)?;
        for (name, app) in &core.apps {
            let timers = app.timers.iter().map(|(timer, at_ms)| (*at_ms, name.clone(), timer.clone()));
            core.timers.extend(timers);
        }
        Ok(core)
    }

    pub fn apps(&self) -> &BTreeMap<String, Arc<App>> {
        &self.apps
    }

    pub fn app(&self, name: &str) -> Result<&App, Refused> {
        self.apps.get(name).map(Arc::as_ref).ok_or_else(|| unknown(name, self.apps.keys()))
    }

    /// A run that is not over.
    pub fn run(&self, id: &str) -> Option<&Run> {
        let (app, _) = id.rsplit_once('.')?;
        self.apps.get(app)?.runs.get(id)
    }

    /// When to say [`Input::Time`] next, milliseconds since 1970.
    pub fn next_ms(&self) -> Option<i64> {
        self.timers.first().map(|(at_ms, _, _)| *at_ms)
    }

    /// Takes an input at a time, milliseconds since 1970.
    ///
    /// # Errors
    /// When it is refused; then nothing changed.
    pub fn handle(&mut self, now_ms: i64, input: &Input) -> Result<Outcome, Refused> {
        match input {
            Input::Register { manifest, code, by } => self.register(now_ms, manifest, code.as_ref(), by),
            Input::Time => Ok(self.pass_time(now_ms)),
            Input::Restarted => Ok(self.restart(now_ms)),
            Input::Enable { app, by } => self.with(now_ms, app, |step| step.enable(by)),
            Input::Wake { app, by } => self.with(now_ms, app, |step| step.wake(by)),
            Input::Sleep { app, by } => self.with(now_ms, app, |step| step.send_to_sleep(by)),
            Input::Release { app, by } => self.with(now_ms, app, |step| step.release(by)),
            Input::Retire { app, by } => self.with(now_ms, app, |step| step.retire(by)),
            Input::Request { app, id, input, by } => {
                self.with(now_ms, app, |step| step.request(id, input.as_ref(), by))
            }
            Input::Notice { app, key, items, bytes, inputs, by } => {
                self.with(now_ms, app, |step| step.notice(key, (*items, *bytes), inputs, by))
            }
            Input::Metric { app, metric, value, by } => {
                self.with(now_ms, app, |step| step.metric(metric, *value, by))
            }
            Input::Fire { app, trigger, by } => self.with(now_ms, app, |step| step.fire_by_hand(trigger, by)),
            Input::Pause { app, trigger, paused, by } => {
                self.with(now_ms, app, |step| step.pause(trigger, *paused, by))
            }
            Input::Backfill { app, trigger, from_ms, until_ms, by } => {
                self.with(now_ms, app, |step| step.backfill(trigger, (*from_ms, *until_ms), by))
            }
            Input::SetAlias { app, alias, version, by } => {
                self.with(now_ms, app, |step| step.set_alias_by_hand(*alias, *version, by))
            }
            Input::RollBack { app, by } => self.with(now_ms, app, |step| step.roll_back(by)),
            Input::Cancel { run, by } => self.with(now_ms, app_of(run), |step| step.cancel(run, by)),
            Input::Again { run, by } => self.with(now_ms, &run.app, |step| step.again(run, by)),
            Input::Woken { app, wake, error } => {
                self.with(now_ms, app, |step| step.woken(*wake, error.as_deref()))
            }
            Input::Slept { app } => self.with(now_ms, app, |step| step.slept()),
            Input::Adopt { app, model, by } => self.with(now_ms, app, |step| step.adopt(model, by)),
            Input::Given { run, attempt, inputs } => self.with(now_ms, app_of(run), |step| {
                step.given((run, *attempt), inputs);
                Ok(())
            }),
            Input::Started { run, attempt, node, decision } => self.with(now_ms, app_of(run), |step| {
                step.started((run, *attempt), node, decision.as_deref());
                Ok(())
            }),
            Input::Ended { run, attempt, end, left } => self.with(now_ms, app_of(run), |step| {
                step.ended((run, *attempt), end, left);
                Ok(())
            }),
        }
    }

    /// Lets one application take a step.
    fn with(
        &mut self,
        now_ms: i64,
        name: &str,
        go: impl FnOnce(&mut Step) -> Result<(), Refused>,
    ) -> Result<Outcome, Refused> {
        if !self.apps.contains_key(name) {
            return Err(unknown(name, self.apps.keys()));
        }
        let app = Arc::make_mut(self.apps.get_mut(name).expect("it is there"));
        let mut step = Step { name, app, now_ms, timers: &mut self.timers, outcome: Outcome::default() };
        go(&mut step)?;
        step.close();
        Ok(step.outcome)
    }

    fn pass_time(&mut self, now_ms: i64) -> Outcome {
        let mut all = Outcome::default();
        while let Some((at_ms, name, timer)) = self.timers.first().filter(|first| first.0 <= now_ms).cloned()
        {
            self.timers.pop_first();
            let passed = self.with(now_ms, &name, |step| {
                step.app.timers.remove(&timer);
                step.due(&timer, at_ms);
                Ok(())
            });
            let passed = passed.expect("a timer is of an application and refuses nothing");
            all.effects.extend(passed.effects);
            all.rows.extend(passed.rows);
        }
        all
    }

    /// What must hold whatever happened; for tests.
    ///
    /// # Panics
    /// When it does not.
    pub fn check(&self) {
        for (name, app) in &self.apps {
            app.check(name);
            for (timer, at_ms) in &app.timers {
                assert!(self.timers.contains(&(*at_ms, name.clone(), timer.clone())), "{name}: {timer:?}");
            }
        }
        let timers: usize = self.apps.values().map(|app| app.timers.len()).sum();
        assert_eq!(timers, self.timers.len(), "every timer is an application's");
    }
}

/// The application of a run.
fn app_of(run: &str) -> &str {
    run.rsplit_once('.').map_or(run, |(app, _)| app)
}

fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Refused {
    let near = known.max_by(|a, b| strsim::jaro(a, name).total_cmp(&strsim::jaro(b, name)));
    let hint = near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
    Refused::Unknown(format!("no application is called {name:?}{hint}"))
}

impl State {
    /// Refuses what wants another state.
    fn refuse(self, name: &str, what: &str) -> Refused {
        let hint = match self {
            State::Registered => "; enable it first",
            State::Quarantined => "; release it first",
            _ => "",
        };
        Refused::State(format!("{name} is {self} and cannot {what}{hint}"))
    }
}
