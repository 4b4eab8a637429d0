//! What is known of one application.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::appcore::gate::Verdict;
use crate::appcore::manifest::{Manifest, Trigger};
use crate::appcore::run::{Blob, Run, RunKind, Status};
use crate::appcore::states::State;
use crate::service::Alias;

/// Requests and notices that are recognised when they come again.
pub(super) const REMEMBERED: usize = 4096;
/// Versions that can be promoted: these last ones, and those with an alias.
pub(super) const VERSIONS: usize = 100;

/// A manifest and the files that its commands need.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    pub manifest: Manifest,
    /// The files as a tar archive.
    pub code: Option<Blob>,
}

/// What can be promoted: code and a model. Never changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Version {
    pub number: u32,
    /// The definition's number.
    pub definition: u32,
    pub model: Option<Blob>,
    /// The run that learnt it; nothing where it was registered.
    pub run: Option<String>,
    pub at_ms: i64,
    pub actor: String,
    pub verdict: Option<Verdict>,
}

/// Something that calls for learning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Call {
    pub trigger: Option<String>,
    pub cause: String,
    pub actor: String,
    pub inputs: Vec<Blob>,
}

/// Learning that is under way: a learn run, then the evaluation of what it learnt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Learning {
    pub call: Call,
    /// The run that is not over.
    pub run: String,
    /// The definition that it began with.
    pub definition: u32,
    /// Of an evaluation: the champion that it compares with.
    pub against: Option<u32>,
    /// How often a restart of the service interrupted it.
    pub interrupted: u32,
}

/// A run that is being stopped for good, whatever it still does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Stopping {
    pub reason: String,
    pub call: Fate,
}

/// What becomes of the call from which a run learnt that is stopped; where several want that, the last of these counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Fate {
    /// It is first once learning may go on.
    Kept,
    /// The next call of its trigger takes over what it was to learn from.
    Merged,
    /// Nobody wants it any more.
    Dropped,
}

/// What is due at some time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Timer {
    /// It must be awake by now.
    Wake,
    /// It has been quiet for long enough.
    Idle,
    /// Learning is tried again.
    Retry,
    /// A trigger's schedule, or the end of its wait for more data.
    Trigger(String),
}

/// Timers are keys in JSON, which have to be text.
impl From<Timer> for String {
    fn from(timer: Timer) -> String {
        match timer {
            Timer::Wake => "wake".to_owned(),
            Timer::Idle => "idle".to_owned(),
            Timer::Retry => "retry".to_owned(),
            Timer::Trigger(name) => format!("trigger {name}"),
        }
    }
}

impl TryFrom<String> for Timer {
    type Error = String;

    fn try_from(text: String) -> Result<Timer, String> {
        match text.as_str() {
            "wake" => Ok(Timer::Wake),
            "idle" => Ok(Timer::Idle),
            "retry" => Ok(Timer::Retry),
            _ => match text.strip_prefix("trigger ") {
                Some(name) => Ok(Timer::Trigger(name.to_owned())),
                None => Err(format!("timer: is {text:?}, want wake, idle, retry or trigger and a name")),
            },
        }
    }
}

/// A trigger and how it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TriggerState {
    pub trigger: Trigger,
    pub paused: bool,
    /// Data that waits: items, bytes, since when, until when the last came.
    pub items: u64,
    pub bytes: u64,
    pub first_ms: i64,
    pub last_ms: i64,
    pub inputs: Vec<Blob>,
    /// Reports in a row outside the bounds.
    pub outside: u64,
    pub fired_ms: Option<i64>,
    /// When and why it was skipped last.
    pub skipped: Option<(i64, String)>,
}

impl TriggerState {
    pub(super) fn new(trigger: Trigger) -> TriggerState {
        TriggerState {
            trigger,
            paused: false,
            items: 0,
            bytes: 0,
            first_ms: 0,
            last_ms: 0,
            inputs: Vec::new(),
            outside: 0,
            fired_ms: None,
            skipped: None,
        }
    }

    /// What has gathered, which is no longer here then.
    pub(super) fn take(&mut self) -> Vec<Blob> {
        (self.items, self.bytes) = (0, 0);
        std::mem::take(&mut self.inputs)
    }
}

/// Which ones came, so that none counts twice; the oldest are forgotten.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Seen {
    order: VecDeque<String>,
    /// What each led to.
    ids: BTreeMap<String, String>,
}

impl Seen {
    pub fn get(&self, id: &str) -> Option<&String> {
        self.ids.get(id)
    }

    /// Some may have been forgotten.
    pub fn full(&self) -> bool {
        self.order.len() >= REMEMBERED
    }

    pub fn add(&mut self, id: &str, led_to: &str) {
        if self.ids.insert(id.to_owned(), led_to.to_owned()).is_none() {
            self.order.push_back(id.to_owned());
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

/// The version that a promotion put in place of another, on trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trial {
    pub before: u32,
    pub failures: u32,
}

/// An application.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct App {
    pub state: State,
    pub since_ms: i64,
    /// What was registered, the last of which counts for what does not belong to a version: triggers, limits, gate.
    pub definitions: BTreeMap<u32, Definition>,
    pub versions: BTreeMap<u32, Version>,
    pub aliases: BTreeMap<Alias, u32>,
    /// Champions before this one, the last of them last.
    pub(super) champions: Vec<u32>,
    pub triggers: BTreeMap<String, TriggerState>,
    /// Runs that are not over.
    pub runs: BTreeMap<String, Run>,
    /// Executions that wait.
    pub(super) queue: VecDeque<String>,
    pub(super) learning: Option<Learning>,
    pub(super) stopping: BTreeMap<String, Stopping>,
    pub(super) calls: VecDeque<Call>,
    pub(super) requests: Seen,
    pub(super) notices: Seen,
    /// In a row, of any kind.
    pub failures: u32,
    /// In a row, of learning: for how long it waits.
    pub(super) learning_failures: u32,
    /// Learning waits until then.
    pub retry_ms: Option<i64>,
    pub(super) trial: Option<Trial>,
    pub timers: BTreeMap<Timer, i64>,
    pub(super) run_count: u64,
    pub(super) transition_count: u64,
    pub(super) alias_count: u64,
    pub(super) fire_count: u64,
}

impl App {
    pub(super) fn new(now_ms: i64) -> App {
        App {
            state: State::Registered,
            since_ms: now_ms,
            definitions: BTreeMap::new(),
            versions: BTreeMap::new(),
            aliases: BTreeMap::new(),
            champions: Vec::new(),
            triggers: BTreeMap::new(),
            runs: BTreeMap::new(),
            queue: VecDeque::new(),
            learning: None,
            stopping: BTreeMap::new(),
            calls: VecDeque::new(),
            requests: Seen::default(),
            notices: Seen::default(),
            failures: 0,
            learning_failures: 0,
            retry_ms: None,
            trial: None,
            timers: BTreeMap::new(),
            run_count: 0,
            transition_count: 0,
            alias_count: 0,
            fire_count: 0,
        }
    }

    /// What was registered last.
    pub fn definition(&self) -> &Definition {
        self.definitions.last_key_value().expect("there is one from registration on").1
    }

    pub fn manifest(&self) -> &Manifest {
        &self.definition().manifest
    }

    pub fn version(&self, alias: Alias) -> Option<&Version> {
        self.aliases.get(&alias).and_then(|number| self.versions.get(number))
    }

    /// When a trigger fires next, as far as that is known.
    pub fn next_fire_ms(&self, trigger: &str) -> Option<i64> {
        self.timers.get(&Timer::Trigger(trigger.to_owned())).copied()
    }

    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Executions under way.
    pub fn executing(&self) -> usize {
        let under_way =
            |run: &&Run| run.kind == RunKind::Execute && run.again.is_none() && run.status.under_way();
        self.runs.values().filter(under_way).count()
    }

    /// The learn or evaluate run that is not over.
    pub fn learning_run(&self) -> Option<&str> {
        self.learning.as_ref().map(|learning| learning.run.as_str())
    }

    /// Calls for learning that wait.
    pub fn calls_waiting(&self) -> usize {
        self.calls.len()
    }

    /// Whether a notice came before: nothing where it may be too long ago to know.
    pub fn notice_known(&self, key: &str) -> Option<bool> {
        match self.notices.get(key) {
            Some(_) => Some(true),
            None => (!self.notices.full()).then_some(false),
        }
    }

    /// Everything that may still be read: code, models, and what runs and calls were given.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        let code = self.definitions.values().filter_map(|definition| definition.code.as_ref());
        let models = self.versions.values().filter_map(|version| version.model.as_ref());
        let calls = self.calls.iter().chain(self.learning.as_ref().map(|learning| &learning.call));
        let gathered = self.triggers.values().flat_map(|state| &state.inputs);
        let runs = self.runs.values().flat_map(|run| run.inputs.iter().chain(&run.outputs));
        code.chain(models).chain(calls.flat_map(|call| &call.inputs)).chain(gathered).chain(runs)
    }

    pub(super) fn awake(&self) -> bool {
        matches!(self.state, State::Waking | State::Executing | State::Draining)
    }

    /// It was taken into use, and neither set aside nor ended.
    pub(super) fn active(&self) -> bool {
        !matches!(self.state, State::Registered | State::Quarantined | State::Retired)
    }

    pub(super) fn check(&self, name: &str) {
        self.check_runs(name);
        self.check_timers(name);
        match self.state {
            State::Learning => assert!(self.learning.is_some(), "{name} is learning nothing"),
            State::Idle => {
                assert!(self.learning.is_none(), "{name} is idle and learns");
                assert!(self.calls.is_empty() || self.retry_ms.is_some(), "{name}: nobody heeds its calls");
            }
            _ => {}
        }
        if !self.awake() {
            assert!(self.queue.is_empty(), "{name} is {} and lets requests wait", self.state);
        }
        for number in self.aliases.values().chain(&self.champions) {
            assert!(self.versions.contains_key(number), "{name}: version {number} is gone");
        }
        for version in self.versions.values() {
            assert!(self.definitions.contains_key(&version.definition), "{name}: a definition is gone");
        }
    }

    fn check_timers(&self, name: &str) {
        assert_eq!(self.timers.get(&Timer::Retry), self.retry_ms.as_ref(), "{name} tries again");
        assert_eq!(self.timers.contains_key(&Timer::Wake), self.state == State::Waking, "{name} wakes");
        let quiet = self.state == State::Executing && self.executing() == 0;
        assert_eq!(self.timers.contains_key(&Timer::Idle), quiet, "{name} is quiet");
        assert!(self.state != State::Retired || self.timers.is_empty(), "{name} is retired and waits");
    }

    fn check_runs(&self, name: &str) {
        let learners =
            self.runs.values().filter(|run| run.kind == RunKind::Learn && run.again.is_none()).count();
        assert!(learners <= 1, "{name} has {learners} learning runs");
        let queued: BTreeSet<_> = self.queue.iter().collect();
        assert_eq!(queued.len(), self.queue.len(), "{name}: a request waits twice");
        for run in self.runs.values() {
            assert!(!run.status.over(), "{} is over and still here", run.id);
            assert_eq!(run.app, *name);
            assert!(self.versions.contains_key(&run.version), "{}: its version is gone", run.id);
            if run.kind == RunKind::Execute {
                assert_eq!(run.status == Status::Queued, queued.contains(&run.id), "{} waits", run.id);
            }
        }
        if let Some(learning) = &self.learning {
            assert!(self.runs.contains_key(&learning.run), "{name} learns in a run that is over");
        }
        for id in self.stopping.keys() {
            assert!(self.runs.contains_key(id), "{id} is over and being stopped");
        }
    }
}
