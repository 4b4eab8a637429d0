//! What was told, against what is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use remora_agent::appcore::core::{App, Core};
use remora_agent::appcore::run::{Run, RunKind, Status};
use remora_agent::appcore::states::{State, TABLE};
use remora_agent::storage::{RunFilter, Storage};
use remora_proto::v1 as wire;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Client, day};

/// Most rows of an answer; the day is shorter than that.
const ALL: i64 = 1000;
/// Of what was acknowledged earlier so much is asked for anew after each start.
const ASKED_AGAIN: usize = 20;

/// An application and a key, an id or a reason.
type Key = (String, String);

/// All that was acknowledged.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    /// Of each request its run and input, in the order of their answers.
    requests: Vec<(Key, String, String)>,
    notices: Vec<Key>,
    aliases: Vec<Key>,
    moves: Vec<wire::Transition>,
    over: BTreeMap<String, wire::Run>,
}

impl Ledger {
    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.0.lock().unwrap()
    }

    pub fn asked(&self, key: Key, run: String, input: String) {
        self.told().requests.push((key, run, input));
    }

    pub fn noticed(&self, key: Key) {
        self.told().notices.push(key);
    }

    pub fn named(&self, key: Key) {
        self.told().aliases.push(key);
    }

    pub fn moved(&self, told: wire::Transition) {
        self.told().moves.push(told);
    }

    pub fn over(&self, run: wire::Run) {
        self.told().over.insert(run.id.clone(), run);
    }

    /// A new service knows what the one before acknowledged.
    pub async fn check_told(&self, client: &mut Client) {
        let last = |len: usize| len.saturating_sub(ASKED_AGAIN);
        let (requests, notices, over) = {
            let told = self.told();
            let over: Vec<_> = told.over.values().rev().take(ASKED_AGAIN).cloned().collect();
            let (requests, notices) = (&told.requests, &told.notices);
            (requests[last(requests.len())..].to_vec(), notices[last(notices.len())..].to_vec(), over)
        };
        for ((app, request_id), run, input) in requests {
            let request = wire::ExecuteRequest { app, request_id, input: input.into_bytes() };
            let mut told = client.execute(request).await.unwrap().into_inner();
            let first = told.message().await.unwrap().unwrap();
            assert_eq!(first.run.unwrap().id, run, "a request became two runs");
        }
        for (app, key) in notices {
            let request = wire::NotifyRequest { app, key, ..wire::NotifyRequest::default() };
            assert!(client.notify(request.clone()).await.unwrap().into_inner().already_known, "{request:?}");
        }
        for run in over {
            let id = run.id.clone();
            assert_eq!(client.get_run(wire::GetRunRequest { id }).await.unwrap().into_inner(), run);
        }
    }

    /// The tables say what the journal leads to, and what was told to those who watched.
    pub async fn check_tables(&self, core: &Core, storage: &Storage) {
        let states: Vec<_> = core.apps().iter().map(|(name, app)| (name.clone(), app.state)).collect();
        assert_eq!(storage.app_states().await.unwrap(), states);
        let mut open = BTreeMap::new();
        for status in Status::ALL.into_iter().filter(|status| !status.over()) {
            let filter = RunFilter { status: Some(status), limit: Some(ALL), ..RunFilter::default() };
            open.extend(storage.runs(&filter).await.unwrap().into_iter().map(|run| (run.id.clone(), run)));
        }
        let runs = core.apps().values().flat_map(|app| &app.runs);
        assert_eq!(open, runs.map(|(id, run)| (id.clone(), run.clone())).collect());
        let moves = std::mem::take(&mut self.told().moves);
        for app in core.apps().keys() {
            let kept = storage.transitions(Some(app), Some(ALL)).await.unwrap();
            for told in moves.iter().filter(|told| told.app == *app) {
                let same = kept.iter().any(|kept| {
                    (kept.number, kept.at_ms, &kept.from, &kept.to, &kept.cause)
                        == (told.number, told.at_ms, &told.from, &told.to, &told.cause)
                });
                assert!(same, "{told:?} is lost");
            }
        }
    }

    /// Everything that was acknowledged is there and done, once.
    pub async fn check_all(&self, core: &Core, storage: &Storage) {
        let mut runs = BTreeMap::new();
        for app in day::names() {
            check_moves(core.app(&app).unwrap().state, &app, storage).await;
            check_fires(&app, storage).await;
            runs.extend(check_runs(&app, storage).await);
        }
        let told = std::mem::take(&mut *self.told());
        for ((app, id), run, input) in &told.requests {
            let run = &runs[run];
            assert_eq!((&run.app, run.request.as_ref()), (app, Some(id)));
            assert!(run.status.over(), "{run:?}");
            if app.starts_with("answers") && run.status == Status::Succeeded {
                let wanted = Sha256::digest(input.to_uppercase());
                let wanted: String = wanted.iter().map(|byte| format!("{byte:02x}")).collect();
                assert!(
                    run.outputs.iter().any(|blob| blob.name == "response" && blob.hash == wanted),
                    "{run:?}"
                );
            }
        }
        for (app, reason) in &told.aliases {
            let changes = storage.app_aliases(app, None, None, Some(ALL)).await.unwrap();
            assert_eq!(
                changes.iter().filter(|change| change.reason == *reason).count(),
                1,
                "{app}: {reason}"
            );
        }
        let state = serde_json::to_value(core).unwrap();
        for (app, key) in told.notices.iter().filter(|(app, _)| app.starts_with("learns")) {
            assert!(storage.notice_known(app, key).await.unwrap(), "{app}: {key} is lost");
            let learnt = runs.values().filter(|run| {
                let learnt = run.kind == RunKind::Learn && run.status == Status::Succeeded;
                learnt && run.app == *app && run.inputs.iter().any(|input| input.name == *key)
            });
            let waits = waits(&state["apps"][app], key);
            assert_eq!(learnt.count() + waits, 1, "{app}: {key} waits {waits} times");
        }
        let (requests, notices, aliases) = (told.requests.len(), told.notices.len(), told.aliases.len());
        eprintln!("{requests} requests, {notices} notices, {aliases} aliases, {} runs", runs.len());
        assert!(requests > 20 && notices > 5 && aliases > 5, "{requests} {notices} {aliases}");
        assert!(runs.len() > requests, "nothing was learnt");
    }
}

/// How often a file waits to be learnt from.
fn waits(app: &Value, key: &str) -> usize {
    let gathered = app["triggers"].as_object().unwrap().values();
    let calls = app["calls"].as_array().unwrap();
    let inputs = gathered.chain(calls).flat_map(|holder| holder["inputs"].as_array().unwrap());
    inputs.filter(|blob| blob["name"] == key).count()
}

/// Moves are numbered without gaps, legal, and lead to where the application is.
async fn check_moves(state: State, app: &str, storage: &Storage) {
    let mut moves = storage.transitions(Some(app), Some(ALL)).await.unwrap();
    moves.reverse();
    assert!(moves.len() < ALL as usize, "the day was too long");
    let mut at = "registered".to_owned();
    for (number, step) in (1..).zip(&moves) {
        assert_eq!((step.number, &step.from), (number, &at), "{app}");
        let legal = TABLE.iter().any(|(from, cause, to)| {
            (from.name(), cause.name(), to.name())
                == (step.from.as_str(), step.cause.as_str(), step.to.as_str())
        });
        assert!(legal, "{step:?}");
        at.clone_from(&step.to);
    }
    assert_eq!(at, state.name(), "{app}");
}

/// Fires are numbered without gaps; a schedule for every second fires or is skipped once a second.
async fn check_fires(app: &str, storage: &Storage) {
    let mut fires = storage.fires(Some(app), Some(ALL)).await.unwrap();
    fires.reverse();
    assert!(fires.len() < ALL as usize, "the day was too long");
    let numbers: Vec<_> = fires.iter().map(|fire| fire.number).collect();
    assert_eq!(numbers, (1..=fires.len() as i64).collect::<Vec<_>>(), "{app}");
    let of_clock = |fire: &&remora_agent::storage::FireRow| fire.trigger == "tick" && fire.actor == "appcore";
    let ticks: Vec<_> = fires.iter().filter(of_clock).collect();
    if let (Some(first), Some(last)) = (ticks.first(), ticks.last()) {
        let seconds = (last.at_ms - first.at_ms) / 1000 + 2;
        let fired = ticks.iter().filter(|tick| tick.skipped.is_none()).count();
        assert!(fired as i64 <= seconds, "{app} fired {fired} times in {seconds} s");
    }
}

/// Runs are numbered without gaps and over, and each request has one.
async fn check_runs(app: &str, storage: &Storage) -> BTreeMap<String, Run> {
    let filter = RunFilter { app: Some(app.to_owned()), limit: Some(ALL), ..RunFilter::default() };
    let runs = storage.runs(&filter).await.unwrap();
    assert!(runs.len() < ALL as usize, "the day was too long");
    let mut requests = BTreeSet::new();
    for run in &runs {
        assert!(run.status.over() && run.ended_ms.is_some(), "{run:?}");
        assert!(run.request.as_ref().is_none_or(|id| requests.insert(id)), "{run:?} is another's request");
    }
    let count = runs.len();
    let runs: BTreeMap<_, _> = runs.into_iter().map(|run| (run.id.clone(), run)).collect();
    for number in 1..=count {
        assert!(runs.contains_key(&format!("{app}.{number}")), "{app}.{number} of {count} is missing");
    }
    runs
}

/// What was told of an application is what the journal leads to.
pub fn same(told: &wire::App, app: &App) {
    let aliases = app.aliases.iter().map(|(alias, version)| (alias.name().to_owned(), i64::from(*version)));
    assert_eq!(told.aliases, aliases.collect());
    assert_eq!((told.state.as_str(), told.since_ms), (app.state.name(), app.since_ms), "{}", told.name);
    let counts = (app.waiting(), app.executing(), app.calls_waiting(), app.failures, app.retry_ms);
    let (waiting, executing, calls) =
        (told.waiting as usize, told.executing as usize, told.calls_waiting as usize);
    assert_eq!((waiting, executing, calls, told.failures as u32, told.retry_ms), counts, "{}", told.name);
    for trigger in &told.triggers {
        let state = &app.triggers[&trigger.name];
        let told = (trigger.paused, trigger.fired_ms, trigger.items as u64, trigger.bytes as u64);
        assert_eq!(told, (state.paused, state.fired_ms, state.items, state.bytes));
        assert_eq!(trigger.next_ms, app.next_fire_ms(&trigger.name));
    }
}
