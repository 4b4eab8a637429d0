//! What holds whatever happens in whatever order, with crashes anywhere: see `model.rs` for what is checked after each
//! step, and below for what must have become of everything in the end. `PROPTEST_CASES` sets how much is tried.

use std::collections::BTreeSet;

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop};
use proptest::{prop_oneof, proptest};
use remora_agent::appcore::core::{Alias, Input, Refused};
use remora_agent::appcore::manifest::Manifest;
use remora_agent::appcore::rows::Row;
use remora_agent::appcore::schedule::Schedule;
use remora_agent::appcore::states::State;

use super::model::{BEGIN_MS, Luck, World, blob, by};

const APPS: [&str; 2] = ["a", "b"];
const TRIGGERS: [&str; 5] = ["hourly", "data", "drift", "hand", "ask"];
const MINUTE_MS: i64 = 60_000;

/// What happens next; numbers pick among what there is.
#[derive(Clone, Debug)]
enum Event {
    Register(usize, u8),
    Enable(usize),
    Wake(usize),
    Sleep(usize),
    Release(usize),
    Retire(usize),
    Request(usize, u8),
    Notice(usize, u8),
    Metric(usize, u8),
    Fire(usize, usize),
    Pause(usize, usize, bool),
    Backfill(usize, u8),
    Alias(usize, u8, u8),
    RollBack(usize),
    Cancel(usize),
    Again(usize),
    CarryOut(usize, Luck),
    Pass(i64),
    Crash,
}

fn luck() -> impl Strategy<Value = Luck> {
    prop_oneof![
        4 => Just(Luck::Begins),
        4 => Just(Luck::Succeeds),
        4 => Just(Luck::Better),
        3 => Just(Luck::Fails),
        1 => Just(Luck::Refuses),
        1 => Just(Luck::LeavesNothing),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let app = || 0..APPS.len();
    let trigger = || 0..TRIGGERS.len();
    prop_oneof![
        2 => (app(), any::<u8>()).prop_map(|(app, variant)| Event::Register(app, variant)),
        4 => app().prop_map(Event::Enable),
        2 => app().prop_map(Event::Wake),
        2 => app().prop_map(Event::Sleep),
        4 => app().prop_map(Event::Release),
        1 => (app(), 0..10_u8).prop_map(|(app, sure)| if sure == 0 { Event::Retire(app) } else { Event::Crash }),
        14 => (app(), 0..40_u8).prop_map(|(app, id)| Event::Request(app, id)),
        14 => (app(), 0..60_u8).prop_map(|(app, key)| Event::Notice(app, key)),
        2 => (app(), 0..10_u8).prop_map(|(app, value)| Event::Metric(app, value)),
        4 => (app(), trigger()).prop_map(|(app, trigger)| Event::Fire(app, trigger)),
        2 => (app(), trigger(), any::<bool>()).prop_map(|(app, which, paused)| Event::Pause(app, which, paused)),
        1 => (app(), 0..120_u8).prop_map(|(app, hours)| Event::Backfill(app, hours)),
        2 => (app(), 0..3_u8, 0..8_u8).prop_map(|(app, alias, version)| Event::Alias(app, alias, version)),
        1 => app().prop_map(Event::RollBack),
        4 => any::<usize>().prop_map(Event::Cancel),
        2 => any::<usize>().prop_map(Event::Again),
        60 => (any::<usize>(), luck()).prop_map(|(which, luck)| Event::CarryOut(which, luck)),
        8 => (0..180_000_i64).prop_map(Event::Pass),
        2 => (0..10 * 60 * MINUTE_MS).prop_map(Event::Pass),
        5 => Just(Event::Crash),
    ]
}

/// An application that has everything; the bits of `variant` say how.
fn manifest(app: usize, variant: u8) -> Manifest {
    let pick = |bit: u8, words: [&'static str; 2]| words[usize::from(variant >> bit & 1)];
    let overlap = ["skip", "buffer", "cancel"][usize::from(variant >> 3) % 3];
    let (name, learning) = (APPS[app], pick(0, ["serve", "pause"]));
    let evaluate = pick(1, ["[evaluate]\ncommand = ['./evaluate']", ""]);
    let (execute, concurrency) = (pick(2, ["['./execute']", "['./execute', 'fast']"]), 1 + variant % 2);
    let text = format!(
        "name = '{name}'
        [learn]
        command = ['./learn']
        [execute]
        command = {execute}
        awake = {{ while_learning = '{learning}', queue = 3, concurrency = {concurrency} }}
        {evaluate}
        [failures]
        quarantine_after = 4
        [[trigger]]
        name = 'hourly'
        overlap = '{overlap}'
        on.schedule = {{ cron = '0 * * * *' }}
        [[trigger]]
        name = 'data'
        overlap = '{overlap}'
        on.data = {{ count = 2, debounce_s = 5, longest_s = 60 }}
        [[trigger]]
        name = 'drift'
        overlap = 'buffer'
        on.drift = {{ metric = 'error', above = 5, times = 2 }}
        [[trigger]]
        name = 'hand'
        overlap = '{overlap}'
        on.manual = {{}}
        [[trigger]]
        name = 'ask'
        run = 'execute'
        overlap = '{overlap}'
        on.data = {{ count = 3 }}
        "
    );
    Manifest::read(&text).unwrap()
}

fn input(world: &World, event: &Event) -> Option<Input> {
    let app = |index: &usize| APPS[*index].to_owned();
    let trigger = |index: &usize| TRIGGERS[*index].to_owned();
    let by = by("olga");
    Some(match event {
        Event::Register(index, variant) => {
            Input::Register { manifest: Box::new(manifest(*index, *variant)), code: None, by }
        }
        Event::Enable(index) => Input::Enable { app: app(index), by },
        Event::Wake(index) => Input::Wake { app: app(index), by },
        Event::Sleep(index) => Input::Sleep { app: app(index), by },
        Event::Release(index) => Input::Release { app: app(index), by },
        Event::Retire(index) => Input::Retire { app: app(index), by },
        Event::Request(index, id) => Input::Request { app: app(index), id: id.to_string(), input: None, by },
        Event::Notice(index, key) => {
            let hash = format!("{} {key}", APPS[*index]);
            let (key, inputs) = (key.to_string(), vec![blob("data", &hash)]);
            Input::Notice { app: app(index), key, items: 1, bytes: 10, inputs, by }
        }
        Event::Metric(index, value) => {
            Input::Metric { app: app(index), metric: "error".to_owned(), value: f64::from(*value), by }
        }
        Event::Fire(index, which) => Input::Fire { app: app(index), trigger: trigger(which), by },
        Event::Pause(index, which, paused) => {
            Input::Pause { app: app(index), trigger: trigger(which), paused: *paused, by }
        }
        Event::Backfill(index, hours) => {
            let (from_ms, until_ms) = (BEGIN_MS, BEGIN_MS + i64::from(*hours) * 60 * MINUTE_MS);
            Input::Backfill { app: app(index), trigger: "hourly".to_owned(), from_ms, until_ms, by }
        }
        Event::Alias(index, alias, version) => {
            let alias = Alias::ALL[usize::from(*alias)];
            let version = Some(u32::from(*version)).filter(|version| *version > 0);
            Input::SetAlias { app: app(index), alias, version, by }
        }
        Event::RollBack(index) => Input::RollBack { app: app(index), by },
        Event::Cancel(which) => {
            let runs: Vec<_> = world.core.apps().values().flat_map(|app| app.runs.keys()).collect();
            let run = (*runs.get(which % runs.len().max(1))?).clone();
            Input::Cancel { run, by }
        }
        Event::Again(which) => {
            let run = world.over.values().nth(which % world.over.len().max(1))?;
            Input::Again { run: Box::new(run.clone()), by }
        }
        Event::CarryOut(..) | Event::Pass(_) | Event::Crash => return None,
    })
}

/// A request that may be served is refused only over the bound.
fn check_refused(world: &World, app: &str, refused: &Refused) {
    let Ok(app) = world.core.app(app) else { return };
    match refused {
        Refused::Full(_) => assert!(app.waiting() >= 3, "{refused}"),
        Refused::State(_) => {
            let active = !matches!(app.state, State::Registered | State::Quarantined | State::Retired);
            assert!(!active || app.version(Alias::Champion).is_none(), "{refused}");
        }
        _ => panic!("{refused}"),
    }
}

fn happen(world: &mut World, event: &Event) {
    match event {
        Event::CarryOut(_, _) if world.pending.is_empty() => {}
        Event::CarryOut(which, luck) => world.carry_out(which % world.pending.len(), *luck),
        Event::Pass(ms) => world.pass(*ms),
        Event::Crash => world.crash(),
        _ => {
            let Some(input) = input(world, event) else { return };
            let refused = world.apply(input.clone()).err();
            if let (Input::Request { app, .. }, Some(refused)) = (&input, refused) {
                check_refused(world, app, &refused);
            }
        }
    }
}

/// Everything goes well until all is done that is to be done.
fn end_well(world: &mut World, noticed: &BTreeSet<(String, String)>) {
    for app in APPS.map(str::to_owned) {
        // Whether that is needed, and allowed, depends.
        let _ = world.apply(Input::Enable { app: app.clone(), by: by("olga") });
        for trigger in TRIGGERS.map(str::to_owned) {
            let _ = world.apply(Input::Pause { app: app.clone(), trigger, paused: false, by: by("olga") });
        }
    }
    for _ in 0..100 {
        if left(world, noticed).is_none() {
            break;
        }
        for app in APPS.map(str::to_owned) {
            let _ = world.apply(Input::Release { app, by: by("olga") });
        }
        world.settle(Luck::Succeeds);
        let to_next = world.core.next_ms().map_or(MINUTE_MS, |next_ms| next_ms - world.now_ms);
        world.pass(to_next.clamp(0, 5 * MINUTE_MS));
    }
    world.settle(Luck::Succeeds);
}

/// Something that was asked for or told, and of which nothing became yet.
fn left(world: &World, noticed: &BTreeSet<(String, String)>) -> Option<String> {
    let request = world.requests.iter().find(|(_, run)| !world.over.contains_key(*run));
    let data = noticed.iter().find(|(app, hash)| {
        let retired = world.core.app(app).unwrap().state == State::Retired;
        !(retired || world.learnt.contains_key(hash) || world.given_up.contains(hash))
    });
    let request = request.map(|((app, id), run)| format!("request {id} of {app}, run {run}"));
    request.or_else(|| data.map(|(app, hash)| format!("data {hash} of {app}")))
}

fn play(events: &[Event]) {
    let mut world = World::new();
    let mut noticed = BTreeSet::new();
    for index in 0..APPS.len() {
        happen(&mut world, &Event::Register(index, index as u8));
    }
    for event in events {
        let before = world.rows.len();
        happen(&mut world, event);
        if let Some(Input::Notice { app, inputs, .. }) = input(&world, event)
            && world.rows[before..].iter().any(|row| matches!(row, Row::Notice { .. }))
        {
            noticed.insert((app, inputs[0].hash.clone()));
        }
    }
    end_well(&mut world, &noticed);
    assert_eq!(left(&world, &noticed), None);
    assert!(world.learnt.values().all(|times| *times == 1), "{:?}", world.learnt);
}

proptest! {
    #[test]
    fn whatever_happens(events in prop::collection::vec(event(), 0..120)) {
        play(&events);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    /// Each time of a schedule fires once, however often the service is down; what it slept through is fired for
    /// afterwards, or left out with a reason.
    #[test]
    fn a_day_of_a_schedule(steps in prop::collection::vec((1..200_i64, any::<bool>()), 15)) {
        let mut world = World::with(
            "name = 'a'
            [learn]
            command = ['./learn']
            [[trigger]]
            name = 'often'
            overlap = 'buffer'
            on.schedule = { cron = '*/10 * * * *', catch_up_s = 3600 }",
        );
        let schedule = Schedule::read("*/10 * * * *", "UTC").unwrap();
        let (mut fired, mut skipped) = (0, 0);
        for (minutes, crash) in steps {
            let from_ms = world.now_ms;
            if crash {
                world.crash();
            }
            world.pass(minutes * MINUTE_MS);
            world.settle(Luck::Better);
            let times = std::iter::successors(schedule.next(from_ms), |at_ms| schedule.next(*at_ms));
            let times = times.take_while(|at_ms| *at_ms <= world.now_ms);
            let (late, in_time): (Vec<_>, Vec<_>) =
                times.partition(|at_ms| world.now_ms - at_ms > 60 * MINUTE_MS);
            fired += in_time.len();
            skipped += usize::from(!late.is_empty());
        }
        let rows = world.rows.iter().filter_map(|row| match row {
            Row::Fired { skipped, .. } => Some(skipped.is_some()),
            _ => None,
        });
        let (left_out, done): (Vec<_>, Vec<_>) = rows.partition(|skipped| *skipped);
        assert_eq!((done.len(), left_out.len()), (fired, skipped));
        assert_eq!(world.over.len(), fired);
    }
}
