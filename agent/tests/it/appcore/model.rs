//! A world around the core: it carries out effects when and how it is told, handles the journal once more, and checks after every
//! step what must hold whatever happens.

use std::collections::{BTreeMap, BTreeSet};

use remora_agent::appcore::core::{Alias, By, Core, Effect, Input, Launch, Outcome, Refused};
use remora_agent::appcore::gate::Scores;
use remora_agent::appcore::manifest::{Act, Manifest, On, WhileLearning};
use remora_agent::appcore::rows::Row;
use remora_agent::appcore::run::{Blob, End, Left, Run, RunKind, Status, Usage};
use remora_agent::appcore::states::{State, TABLE};

/// 2026-01-05, a Monday, 00:00 UTC.
pub const BEGIN_MS: i64 = 1_767_571_200_000;

/// Inputs between two snapshots.
const SNAPSHOT: usize = 16;

pub fn by(actor: &str) -> By {
    By::new(actor, "")
}

pub fn blob(name: &str, hash: &str) -> Blob {
    Blob { name: name.to_owned(), hash: hash.to_owned(), bytes: 1 }
}

/// Something that was asked for and is not done.
#[derive(Clone, Debug)]
pub enum Pending {
    Wake(String, u64),
    Sleep(String),
    /// With what it was told about stopping: whether it may save its state.
    Run(Box<Launch>, Option<bool>),
}

/// How something that was asked for goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Luck {
    Begins,
    Succeeds,
    /// As above, and what it learnt is better than the champion.
    Better,
    Fails,
    Refuses,
    LeavesNothing,
}

#[derive(Debug, Default)]
pub struct World {
    pub core: Core,
    pub now_ms: i64,
    pub pending: Vec<Pending>,
    pub rows: Vec<Row>,
    pub over: BTreeMap<String, Run>,
    /// Of each application and request the run.
    pub requests: BTreeMap<(String, String), String>,
    /// How often was learnt from each input.
    pub learnt: BTreeMap<String, u32>,
    /// Inputs whose learning somebody cancelled, or that were refused as wrong.
    pub given_up: BTreeSet<String>,
    cancelled: BTreeSet<String>,
    /// Inputs so far.
    accepted: usize,
    /// Handles the journal's text as it grows; the second is written out and read again every now and then.
    replayed: Core,
    restored: Core,
    launched: BTreeSet<(String, u32)>,
    /// Of each application the learning that has been launched and did not end.
    learning: BTreeMap<String, String>,
    champions: BTreeMap<String, u32>,
    numbers: BTreeMap<(String, &'static str), u64>,
}

impl World {
    pub fn new() -> World {
        World { now_ms: BEGIN_MS, ..World::default() }
    }

    /// One application, registered and enabled.
    pub fn with(manifest: &str) -> World {
        let mut world = World::new();
        world.register(manifest);
        world.must(Input::Enable { app: "a".to_owned(), by: by("ada") });
        world
    }

    pub fn register(&mut self, manifest: &str) -> Outcome {
        let manifest = Box::new(Manifest::read(manifest).unwrap());
        self.must(Input::Register { manifest, code: None, by: by("ada") })
    }

    pub fn must(&mut self, input: Input) -> Outcome {
        self.apply(input.clone()).unwrap_or_else(|refused| panic!("{input:?}: {refused}"))
    }

    pub fn apply(&mut self, input: Input) -> Result<Outcome, Refused> {
        let handled = self.core.handle(self.now_ms, &input);
        self.core.check();
        let outcome = match handled {
            Ok(outcome) => outcome,
            Err(refused) => {
                assert!(self.core == self.replayed, "{input:?} was refused and changed something");
                return Err(refused);
            }
        };
        self.follow(&input);
        self.heed(&input, &outcome);
        for row in &outcome.rows {
            self.keep(row);
        }
        for effect in &outcome.effects {
            self.ask(effect);
        }
        self.check_waiting();
        self.accepted += 1;
        Ok(outcome)
    }

    /// The journal, handled again, gives the same state.
    fn follow(&mut self, input: &Input) {
        let read: Input = serde_json::from_str(&serde_json::to_string(input).unwrap()).unwrap();
        assert_eq!(read, *input);
        let snapshot = self.accepted.is_multiple_of(SNAPSHOT);
        if snapshot {
            self.restored = Core::restored(&text(&self.restored)).unwrap();
        }
        for twin in [&mut self.replayed, &mut self.restored] {
            twin.handle(self.now_ms, &read).unwrap();
            assert!(*twin == self.core, "after {input:?}:\n{}\n{}", text(twin), text(&self.core));
            assert_eq!(twin.next_ms(), self.core.next_ms());
            assert!(!snapshot || text(twin) == text(&self.core), "after {input:?}");
        }
    }

    fn heed(&mut self, input: &Input, outcome: &Outcome) {
        match input {
            Input::Request { app, id, .. } => {
                let run = outcome.run.clone().unwrap();
                let key = (app.clone(), id.clone());
                let first = self.requests.insert(key, run.clone());
                assert!(first.is_none_or(|first| first == run && outcome.known), "{id} is two runs");
            }
            Input::Cancel { run, .. } => drop(self.cancelled.insert(run.clone())),
            _ => {}
        }
    }

    /// What comes `at` a number that must follow the last.
    fn count(&mut self, app: &str, what: &'static str, number: u64) {
        let last = self.numbers.entry((app.to_owned(), what)).or_default();
        *last += 1;
        assert_eq!(*last, number, "{what} of {app}");
    }

    fn keep(&mut self, row: &Row) {
        self.rows.push(row.clone());
        match row {
            Row::Transition { app, number, at_ms, from, to, cause, actor, .. } => {
                self.count(app, "moves", *number);
                assert_eq!(*at_ms, self.now_ms);
                assert!(TABLE.contains(&(*from, *cause, *to)), "{row:?}");
                assert!(!actor.is_empty(), "{row:?}");
            }
            Row::Alias { app, number, alias, version, actor, .. } => {
                self.count(app, "aliases", *number);
                assert!(!actor.is_empty(), "{row:?}");
                if let (Alias::Champion, Some(version)) = (alias, version) {
                    self.champions.insert(app.clone(), *version);
                }
            }
            Row::Fired { app, number, .. } => self.count(app, "fires", *number),
            _ => {}
        }
    }

    fn ask(&mut self, effect: &Effect) {
        match effect {
            Effect::Wake { app, wake, .. } => self.pending.push(Pending::Wake(app.clone(), *wake)),
            Effect::Sleep { app } => self.pending.push(Pending::Sleep(app.clone())),
            Effect::Launch(launch) => self.launch(launch),
            Effect::Stop { run: stopped, attempt, save, .. } => {
                for pending in &mut self.pending {
                    if let Pending::Run(launch, stop) = pending
                        && (&launch.run.id, &launch.run.attempt) == (stopped, attempt)
                    {
                        *stop = Some(*save && stop.unwrap_or(true));
                    }
                }
            }
            Effect::Over(run) => {
                assert!(run.status.over(), "{run:?}");
                assert!(
                    self.over.insert(run.id.clone(), (**run).clone()).is_none(),
                    "{} ended twice",
                    run.id
                );
                let learnt =
                    run.kind != RunKind::Learn || run.again.is_some() || run.status == Status::Succeeded;
                if !learnt && self.cancelled.contains(&run.id) {
                    self.given_up.extend(run.inputs.iter().map(|input| input.hash.clone()));
                }
            }
            Effect::Promoted { app, version } => assert_eq!(self.champions.get(app), Some(&version.number)),
        }
    }

    fn launch(&mut self, launch: &Launch) {
        let run = &launch.run;
        assert!(self.launched.insert((run.id.clone(), run.attempt)), "{} is launched twice", run.id);
        assert_eq!(run.status, Status::Launching);
        match run.kind {
            _ if run.again.is_some() => {}
            RunKind::Execute => assert_eq!(self.champions.get(&run.app), Some(&run.version), "{run:?}"),
            RunKind::Learn | RunKind::Evaluate => {
                let other = self.learning.insert(run.app.clone(), run.id.clone());
                assert_eq!(other, None, "beside {}", run.id);
            }
        }
        self.pending.push(Pending::Run(Box::new(launch.clone()), None));
    }

    /// Whatever waits for time is told when it comes.
    fn check_waiting(&self) {
        let timers = self.core.apps().values().flat_map(|app| app.timers.values());
        assert_eq!(self.core.next_ms(), timers.min().copied());
        for pending in &self.pending {
            if let Pending::Run(launch, None) = pending
                && launch.run.kind != RunKind::Execute
                && launch.run.again.is_none()
            {
                let state = self.core.app(&launch.run.app).unwrap().state;
                assert!(!matches!(state, State::Quarantined | State::Retired), "{} goes on", launch.run.id);
            }
        }
        for (name, app) in self.core.apps() {
            let learns = app.runs.values().any(|run| run.kind != RunKind::Execute && run.again.is_none());
            let active = !matches!(app.state, State::Registered | State::Quarantined | State::Retired);
            for (trigger, state) in &app.triggers {
                let next = app.next_fire_ms(trigger);
                match &state.trigger.on {
                    _ if state.paused || !active => {}
                    On::Schedule { .. } => assert!(next.is_some(), "{name}.{trigger} never fires"),
                    On::Data { longest_s: Some(_), .. } if state.items > 0 => {
                        let execute = app.manifest().execute.as_ref();
                        let pauses = execute
                            .is_some_and(|execute| execute.awake.while_learning == WhileLearning::Pause);
                        let awake = matches!(app.state, State::Waking | State::Executing | State::Draining);
                        let busy = learns || app.calls_waiting() > 0 || app.retry_ms.is_some();
                        let busy = state.trigger.run == Act::Learn && (busy || pauses && awake);
                        assert!(next.is_some() || busy, "{name}.{trigger}: data waits for nothing");
                    }
                    _ => {}
                }
            }
        }
    }

    /// Goes on with what was asked for.
    pub fn carry_out(&mut self, index: usize, luck: Luck) {
        match self.pending[index].clone() {
            Pending::Wake(app, wake) => {
                self.pending.remove(index);
                let error = (luck == Luck::Fails).then(|| "no such program".to_owned());
                self.must(Input::Woken { app, wake: Some(wake), error });
            }
            Pending::Sleep(app) => {
                self.pending.remove(index);
                self.must(Input::Slept { app });
            }
            Pending::Run(launch, _) if luck == Luck::Begins => {
                let (run, attempt) = (launch.run.id, launch.run.attempt);
                self.must(Input::Started { run, attempt, node: "node-1".to_owned(), decision: None });
            }
            Pending::Run(launch, stop) => {
                self.pending.remove(index);
                let (end, left) = ends(&launch, stop, luck);
                self.end(&launch.run, end, left);
            }
        }
    }

    fn end(&mut self, run: &Run, end: End, left: Left) {
        let real = run.kind == RunKind::Learn && run.again.is_none();
        if self.learning.get(&run.app) == Some(&run.id) {
            self.learning.remove(&run.app);
        }
        let done = matches!(end, End::Success { .. }) && left.model().is_some();
        let given_up = matches!(end, End::Refused { .. });
        for input in run.inputs.iter().filter(|_| real) {
            if done {
                *self.learnt.entry(input.hash.clone()).or_default() += 1;
            } else if given_up {
                self.given_up.insert(input.hash.clone());
            }
        }
        self.must(Input::Ended { run: run.id.clone(), attempt: run.attempt, end, left });
    }

    pub fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        self.must(Input::Time);
    }

    /// Time goes to the next timer.
    pub fn pass_to_next(&mut self) {
        self.now_ms = self.core.next_ms().unwrap().max(self.now_ms);
        self.must(Input::Time);
    }

    /// The service ends at once and begins again: what was asked for is forgotten, the journal is not.
    pub fn crash(&mut self) {
        self.pending.clear();
        self.learning.clear();
        self.core = Core::restored(&text(&self.restored)).unwrap();
        self.must(Input::Restarted);
    }

    /// Everything that was asked for is done, what follows from it too.
    pub fn settle(&mut self, luck: Luck) {
        for _ in 0..10_000 {
            if self.pending.is_empty() {
                return;
            }
            self.carry_out(0, luck);
        }
        panic!("it never settles: {:?}", self.pending);
    }

    pub fn state(&self) -> State {
        self.core.app("a").unwrap().state
    }

    /// Runs of the application `a` that are not over, each as its kind and status.
    pub fn books(&self) -> Vec<(RunKind, Status)> {
        self.core.app("a").unwrap().runs.values().map(|run| (run.kind, run.status)).collect()
    }
}

/// How a run ends that is stopped or has this luck.
fn ends(launch: &Launch, stop: Option<bool>, luck: Luck) -> (End, Left) {
    let nothing = Left::default();
    match (stop, luck) {
        (Some(true), Luck::Succeeds | Luck::Refuses) => return (End::Saved, nothing),
        (Some(_), Luck::Succeeds) => return (End::Cancelled { reason: "stopped".to_owned() }, nothing),
        (_, Luck::Fails) => {
            return (End::Failure { reason: "exit code 1".to_owned(), exit: Some(1) }, nothing);
        }
        (_, Luck::Refuses) => return (End::Refused { reason: "no picture".to_owned() }, nothing),
        (_, Luck::LeavesNothing) => return (End::Success { scores: None }, nothing),
        _ => {}
    }
    let run = &launch.run;
    let gain = if luck == Luck::Better { 0.5 } else { 0.0 };
    let champion = launch.champion.as_ref().map(|_| vec![1.0; 20]);
    let scores = Scores { metric: "error".to_owned(), candidate: vec![1.0 - gain; 20], champion };
    let model = blob("model", &format!("model of {}", run.id));
    let (scores, outputs) = match run.kind {
        RunKind::Execute => (None, vec![blob("response", "answer")]),
        RunKind::Learn => (None, vec![model]),
        RunKind::Evaluate => (Some(scores), vec![]),
    };
    (End::Success { scores }, Left { outputs, usage: Usage::default() })
}

pub fn text(core: &Core) -> String {
    serde_json::to_string(core).unwrap()
}
