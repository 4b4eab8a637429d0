//! What becomes of an application, told step by step.

use remora_agent::appcore::core::{Alias, Input, Refused};
use remora_agent::appcore::gate::{Scores, judge};
use remora_agent::appcore::manifest::{Better, Gate};
use remora_agent::appcore::rows::Row;
use remora_agent::appcore::run::{RunKind, Status};
use remora_agent::appcore::schedule::Schedule;
use remora_agent::appcore::states::State;

use super::model::{Luck, Pending, World, blob, by};

const SERVER: &str = "
name = 'a'
[execute]
command = ['./execute']
";

fn learner(more: &str, triggers: &str) -> String {
    format!(
        "name = 'a'
        [learn]
        command = ['./learn']
        [evaluate]
        command = ['./evaluate']
        [execute]
        command = ['./execute']
        {more}
        {triggers}"
    )
}

const HAND: &str = "[[trigger]]\nname = 'hand'\non.manual = {}";

fn request(world: &mut World, id: &str) -> Result<String, Refused> {
    let input = Input::Request { app: "a".to_owned(), id: id.to_owned(), input: None, by: by("rita") };
    world.apply(input).map(|outcome| outcome.run.unwrap())
}

fn notice(world: &mut World, key: &str) {
    let (app, inputs) = ("a".to_owned(), vec![blob("data", key)]);
    world.must(Input::Notice { app, key: key.to_owned(), items: 1, bytes: 10, inputs, by: by("sensor") });
}

fn fire(world: &mut World, trigger: &str) -> Option<String> {
    let (app, trigger) = ("a".to_owned(), trigger.to_owned());
    world.must(Input::Fire { app, trigger, by: by("olga") }).skipped
}

fn champion(world: &World) -> Option<u32> {
    world.core.app("a").unwrap().version(Alias::Champion).map(|version| version.number)
}

/// Reasons for which triggers were skipped.
fn skipped(world: &World) -> Vec<String> {
    let reason = |row: &Row| match row {
        Row::Fired { skipped, .. } => skipped.clone(),
        _ => None,
    };
    world.rows.iter().filter_map(reason).collect()
}

fn learnt_runs(world: &World) -> usize {
    world.over.values().filter(|run| run.kind == RunKind::Learn && run.status == Status::Succeeded).count()
}

/// Does the one pending thing of that kind.
fn run_on(world: &mut World, kind: RunKind, luck: Luck) {
    let of = |pending: &Pending| matches!(pending, Pending::Run(launch, _) if launch.run.kind == kind);
    let index = world.pending.iter().position(of).unwrap();
    world.carry_out(index, luck);
}

#[test]
fn a_request_wakes_and_is_held_until_ready() {
    let mut world = World::with(SERVER);
    let run = request(&mut world, "r").unwrap();
    assert_eq!((world.state(), world.books()), (State::Waking, vec![(RunKind::Execute, Status::Queued)]));
    assert_eq!(request(&mut world, "r").unwrap(), run);
    world.carry_out(0, Luck::Succeeds);
    assert_eq!(
        (world.state(), world.books()),
        (State::Executing, vec![(RunKind::Execute, Status::Launching)])
    );
    world.settle(Luck::Succeeds);
    assert_eq!(world.over[&run].status, Status::Succeeded);
    world.pass_to_next();
    assert_eq!((world.state(), world.now_ms), (State::Draining, super::model::BEGIN_MS + 60_000));
    world.settle(Luck::Succeeds);
    assert_eq!(world.state(), State::Idle);
}

#[test]
fn a_deadline_of_waking_is_a_clear_answer() {
    let mut world = World::with(SERVER);
    let run = request(&mut world, "r").unwrap();
    world.pass_to_next();
    let reason = world.over[&run].reason.as_deref();
    assert_eq!(reason, Some("a did not wake: it was not ready within its wake deadline of 60 s"));
    assert_eq!(world.state(), State::Idle);
}

#[test]
fn a_wake_that_took_too_long_says_nothing_of_the_next() {
    let mut world = World::with(SERVER);
    request(&mut world, "1").unwrap();
    world.pass_to_next();
    let run = request(&mut world, "2").unwrap();
    let wakes = |pending: &&Pending| matches!(pending, Pending::Wake(..));
    assert_eq!((world.state(), world.pending.iter().filter(wakes).count()), (State::Waking, 2));
    world.carry_out(0, Luck::Fails);
    assert_eq!(world.state(), State::Waking, "the first could not, the second may");
    world.settle(Luck::Succeeds);
    assert_eq!(world.over[&run].status, Status::Succeeded);
}

#[test]
fn names_that_no_database_could_keep_are_refused() {
    let mut world = World::with(&learner("", "[[trigger]]\nname = 'data'\non.data = {}"));
    for name in ["", "a\0b", &"x".repeat(201)] {
        let refused = request(&mut world, name).unwrap_err();
        assert_eq!(refused.to_string(), "id: want 1 to 200 bytes, none of them zero");
        let (app, key, inputs) = ("a".to_owned(), name.to_owned(), Vec::new());
        let notice = Input::Notice { app, key, items: 1, bytes: 1, inputs, by: by("sensor") };
        let refused = world.apply(notice).map(drop).unwrap_err();
        assert_eq!(refused.to_string(), "key: want 1 to 200 bytes, none of them zero");
    }
}

#[test]
fn only_what_is_over_the_bound_is_refused() {
    let mut world = World::with(&format!("{SERVER}awake = {{ queue = 2 }}"));
    request(&mut world, "1").unwrap();
    request(&mut world, "2").unwrap();
    let refused = request(&mut world, "3").unwrap_err();
    assert_eq!(refused.to_string(), "2 requests wait for a already, which is all that may; ask again later");
    world.settle(Luck::Succeeds);
    request(&mut world, "3").unwrap();
}

#[test]
fn learning_goes_on_beside_a_request() {
    let mut world = World::with(&learner("", HAND));
    fire(&mut world, "hand");
    request(&mut world, "r").unwrap();
    world.carry_out(1, Luck::Succeeds);
    run_on(&mut world, RunKind::Execute, Luck::Succeeds);
    assert_eq!((world.state(), world.books()), (State::Executing, vec![(RunKind::Learn, Status::Launching)]));
    world.pass_to_next();
    run_on(&mut world, RunKind::Learn, Luck::Succeeds);
    run_on(&mut world, RunKind::Evaluate, Luck::Better);
    assert_eq!((world.state(), champion(&world)), (State::Draining, Some(2)));
}

#[test]
fn learning_gives_way_to_a_request() {
    let mut world = World::with(&learner("awake = { while_learning = 'pause' }", HAND));
    fire(&mut world, "hand");
    request(&mut world, "r").unwrap();
    assert!(matches!(&world.pending[0], Pending::Run(_, Some(true))));
    world.carry_out(0, Luck::Succeeds);
    assert!(world.books().contains(&(RunKind::Learn, Status::Paused)));
    world.settle(Luck::Succeeds);
    assert_eq!(world.books(), [(RunKind::Learn, Status::Paused)]);
    world.pass_to_next();
    world.carry_out(0, Luck::Succeeds);
    assert_eq!((world.state(), world.books()), (State::Learning, vec![(RunKind::Learn, Status::Launching)]));
    world.settle(Luck::Better);
    assert_eq!((world.state(), champion(&world)), (State::Idle, Some(2)));
}

#[test]
fn what_was_learnt_just_before_a_pause_is_evaluated_after_it() {
    let mut world = World::with(&learner("awake = { while_learning = 'pause' }", HAND));
    fire(&mut world, "hand");
    request(&mut world, "r").unwrap();
    world.carry_out(0, Luck::Better);
    assert!(world.books().contains(&(RunKind::Evaluate, Status::Queued)));
    world.settle(Luck::Better);
    world.pass_to_next();
    world.settle(Luck::Better);
    assert_eq!((world.state(), champion(&world)), (State::Idle, Some(2)));
}

#[test]
fn a_request_revives_what_drains() {
    let mut world = World::with(SERVER);
    request(&mut world, "1").unwrap();
    world.settle(Luck::Succeeds);
    world.pass_to_next();
    assert_eq!(world.state(), State::Draining);
    let run = request(&mut world, "2").unwrap();
    assert_eq!(world.state(), State::Waking);
    world.settle(Luck::Succeeds);
    assert_eq!(world.over[&run].status, Status::Succeeded);
}

#[test]
fn back_off_doubles_until_quarantine_and_nothing_is_lost() {
    let trigger = "[[trigger]]\nname = 'data'\non.data = {}";
    let mut world =
        World::with(&learner("[failures]\nquarantine_after = 4\nlongest_backoff_s = 30", trigger));
    notice(&mut world, "n");
    for wait_s in [10, 20, 30] {
        world.settle(Luck::Fails);
        assert_eq!(world.core.next_ms(), Some(world.now_ms + wait_s * 1000));
        world.pass_to_next();
    }
    world.settle(Luck::Fails);
    assert_eq!((world.state(), world.core.next_ms()), (State::Quarantined, None));
    let refused = request(&mut world, "r").unwrap_err().to_string();
    assert_eq!(refused, "a is quarantined and cannot execute; release it first");
    notice(&mut world, "m");
    world.must(Input::Release { app: "a".to_owned(), by: by("olga") });
    world.settle(Luck::Better);
    world.pass(0);
    world.settle(Luck::Better);
    assert_eq!((world.state(), world.learnt.len()), (State::Idle, 2));
}

#[test]
fn a_champion_on_trial_gives_way() {
    let mut world = World::with(&learner("[gate]\nroll_back_after = 2", HAND));
    fire(&mut world, "hand");
    world.settle(Luck::Better);
    assert_eq!(champion(&world), Some(2));
    for (id, still) in [("1", 2), ("2", 1)] {
        request(&mut world, id).unwrap();
        if world.state() == State::Waking {
            world.carry_out(0, Luck::Succeeds);
        }
        run_on(&mut world, RunKind::Execute, Luck::Fails);
        assert_eq!(champion(&world), Some(still));
    }
}

#[test]
fn two_steps_back() {
    let mut world = World::with(&learner("", HAND));
    for number in [2, 3] {
        fire(&mut world, "hand");
        world.settle(Luck::Better);
        assert_eq!(champion(&world), Some(number));
    }
    for number in [2, 1] {
        world.must(Input::RollBack { app: "a".to_owned(), by: by("olga") });
        assert_eq!(champion(&world), Some(number));
    }
    let refused = world.apply(Input::RollBack { app: "a".to_owned(), by: by("olga") }).unwrap_err();
    assert_eq!(refused.to_string(), "a had no champion before");
}

#[test]
fn a_new_champion_is_compared_with_before_one_is_promoted() {
    let mut world = World::with(&learner("", HAND));
    for _ in 0..2 {
        fire(&mut world, "hand");
        world.settle(Luck::Better);
    }
    fire(&mut world, "hand");
    run_on(&mut world, RunKind::Learn, Luck::Succeeds);
    world.must(Input::RollBack { app: "a".to_owned(), by: by("olga") });
    run_on(&mut world, RunKind::Evaluate, Luck::Better);
    assert_eq!((champion(&world), world.books()), (Some(2), vec![(RunKind::Evaluate, Status::Launching)]));
    world.settle(Luck::Better);
    assert_eq!(champion(&world), Some(4));
}

#[test]
fn what_the_gate_says() {
    let says = |gate: &Gate, candidate: &[f64], champion: Option<&[f64]>| {
        let (candidate, champion) = (candidate.to_vec(), champion.map(<[f64]>::to_vec));
        let has_champion = champion.is_some();
        let verdict = judge(gate, &Scores { metric: String::new(), candidate, champion }, has_champion);
        (verdict.passed, verdict.reason)
    };
    let lower = Gate { samples: 4, ..Gate::default() };
    let higher = Gate { better: Better::Higher, ..lower.clone() };
    let margin = Gate { margin: 0.5, ..lower.clone() };
    let first = Gate { first: Some(0.5), ..lower.clone() };
    let (low, high) = ([0.8, 0.7, 0.9, 0.8], [1.0, 1.0, 1.0, 1.0]);
    let mixed = [0.1, 1.9, 0.2, 1.7];
    let all = [
        says(&lower, &low, Some(&high)),
        says(&lower, &high, Some(&low)),
        says(&lower, &mixed, Some(&high)),
        says(&higher, &high, Some(&low)),
        says(&margin, &low, Some(&high)),
        says(&lower, &low[..3], Some(&high[..3])),
        says(&lower, &[f64::NAN; 4], Some(&high)),
        says(&lower, &low, Some(&high[..3])),
        says(&lower, &low, None),
        says(&first, &low, None),
        says(&first, &[0.5; 4], None),
    ];
    let said: Vec<_> = all.iter().map(|(passed, reason)| format!("{passed}: {reason}")).collect();
    insta::assert_snapshot!(said.join("\n"));
    let unpaired = Scores { metric: String::new(), candidate: low.to_vec(), champion: None };
    assert_eq!(judge(&lower, &unpaired, true).reason, "the champion was not evaluated beside it");
}

#[test]
fn data_fires_when_it_is_enough_and_quiet_or_old() {
    let trigger = "[[trigger]]\nname = 'data'
        on.data = { count = 3, bytes = 100, debounce_s = 5, longest_s = 60 }";
    let mut world = World::with(&learner("", trigger));
    for key in ["1", "2"] {
        notice(&mut world, key);
    }
    assert_eq!(world.core.next_ms(), Some(world.now_ms + 60_000));
    world.pass(1000);
    notice(&mut world, "3");
    notice(&mut world, "3");
    assert_eq!(world.core.next_ms(), Some(world.now_ms + 5000));
    world.pass(4000);
    notice(&mut world, "4");
    world.pass(4999);
    assert_eq!(world.state(), State::Idle);
    world.pass(1);
    assert_eq!(world.state(), State::Learning);
    // What comes meanwhile waits, however old it grows.
    notice(&mut world, "5");
    world.pass(70_000);
    world.settle(Luck::Better);
    assert_eq!((world.learnt.len(), learnt_runs(&world)), (5, 2));
    let (app, inputs) = ("a".to_owned(), Vec::new());
    let heavy = Input::Notice { app, key: "6".to_owned(), items: 1, bytes: 100, inputs, by: by("sensor") };
    world.must(heavy);
    world.pass(5000);
    assert_eq!(world.state(), State::Learning);
}

#[test]
fn data_that_is_fired_too_early_still_comes_due() {
    let trigger = "[[trigger]]\nname = 'data'\non.data = { count = 2, longest_s = 60 }";
    let mut world = World::with(&learner("", trigger));
    notice(&mut world, "1");
    world.pass(60_000);
    notice(&mut world, "2");
    assert_eq!(fire(&mut world, "data").unwrap(), "it is learning already; the data waits");
    world.settle(Luck::Better);
    world.pass_to_next();
    world.settle(Luck::Better);
    assert_eq!(world.learnt.len(), 2);
}

#[test]
fn what_fires_while_it_learns() {
    let triggers = ["skip", "buffer", "cancel"]
        .map(|name| format!("[[trigger]]\nname = '{name}'\noverlap = '{name}'\non.manual = {{}}\n"))
        .concat();
    let mut world = World::with(&learner("", &triggers));
    assert_eq!(fire(&mut world, "skip"), None);
    assert_eq!(fire(&mut world, "skip").unwrap(), "it is learning already");
    assert_eq!(fire(&mut world, "buffer"), None);
    assert_eq!(world.core.app("a").unwrap().calls_waiting(), 1);
    assert_eq!(fire(&mut world, "cancel"), None);
    assert!(matches!(&world.pending[0], Pending::Run(_, Some(false))));
    assert_eq!(skipped(&world), ["it is learning already"]);
    world.settle(Luck::Better);
    assert_eq!(learnt_runs(&world), 4 - 1);
}

#[test]
fn a_trigger_that_cancels_takes_the_data_over() {
    let mut world = World::with(&learner("", "[[trigger]]\nname = 'data'\noverlap = 'cancel'\non.data = {}"));
    for key in ["1", "2", "3"] {
        notice(&mut world, key);
    }
    run_on(&mut world, RunKind::Learn, Luck::Succeeds);
    world.settle(Luck::Better);
    assert_eq!((learnt_runs(&world), world.learnt.len()), (1, 3));
}

#[test]
fn what_passed_is_caught_up_with_or_left_out_with_a_reason() {
    let trigger = "[[trigger]]\nname = 'hourly'\noverlap = 'buffer'
        on.schedule = { cron = '0 * * * *', catch_up_s = 7200 }";
    let mut world = World::with(&learner("", trigger));
    world.crash();
    world.pass(5 * 3_600_000 + 1);
    let why = "what was due from 2026-01-05T01:00:00Z on is too long ago: it catches up with 7200 s";
    assert_eq!(skipped(&world), [why]);
    world.settle(Luck::Better);
    assert_eq!(learnt_runs(&world), 2);
    assert_eq!(world.core.next_ms(), Some(super::model::BEGIN_MS + 6 * 3_600_000));
}

#[test]
fn times_that_are_past_can_be_filled() {
    let triggers = "[[trigger]]\nname = 'learn'\non.schedule = { cron = '0 * * * *' }
        [[trigger]]\nname = 'execute'\nrun = 'execute'\non.schedule = { cron = '0 * * * *' }";
    let mut world = World::with(&learner("", triggers));
    let fill = |trigger: &str, hours: i64| Input::Backfill {
        app: "a".to_owned(),
        trigger: trigger.to_owned(),
        from_ms: super::model::BEGIN_MS - hours * 3_600_000,
        until_ms: super::model::BEGIN_MS,
        by: by("olga"),
    };
    world.must(fill("learn", 3));
    world.must(fill("execute", 3));
    world.must(fill("execute", 4));
    world.settle(Luck::Better);
    assert_eq!(learnt_runs(&world), 3);
    let causes: Vec<_> = world.over.values().filter(|run| run.kind == RunKind::Execute).collect();
    assert_eq!(causes.len(), 4);
    assert!(causes.iter().any(|run| run.cause == "trigger execute, for 2026-01-04T20:00:00Z"));
    let refused = world.apply(fill("learn", 101)).unwrap_err().to_string();
    assert_eq!(refused, "until_ms: more than 100 times lie between the two, and no more may wait");
    world.apply(fill("learn", -1)).unwrap_err();
    let (app, trigger) = ("a".to_owned(), "learn".to_owned());
    let all = Input::Backfill { app, trigger, from_ms: i64::MIN, until_ms: i64::MAX, by: by("olga") };
    drop(world.apply(all));
}

#[test]
fn drift_is_so_many_reports_in_a_row() {
    let trigger = "[[trigger]]\nname = 'drift'\non.drift = { metric = 'error', above = 0.5, times = 2 }";
    let mut world = World::with(&learner("", trigger));
    let report =
        |value| Input::Metric { app: "a".to_owned(), metric: "error".to_owned(), value, by: by("m") };
    for value in [0.6, 0.5, 0.6] {
        world.must(report(value));
    }
    assert_eq!(world.state(), State::Idle);
    world.must(report(0.7));
    assert_eq!(world.state(), State::Learning);
    let refused = world.apply(report(f64::NAN)).unwrap_err().to_string();
    assert_eq!(refused, "value: is NaN, want a finite number");
}

/// The clock goes from 02:00 to 03:00 on 2026-03-29 in Paris, and from 03:00 to 02:00 on 2026-10-25.
#[test]
fn schedules_when_the_clock_jumps() {
    let times = |cron: &str, from: &str| {
        let schedule = Schedule::read(cron, "Europe/Paris").unwrap();
        let from: jiff::Timestamp = from.parse().unwrap();
        let next = |after: &i64| schedule.next(*after);
        let times = std::iter::successors(next(&from.as_millisecond()), next).take(3);
        let text = |at_ms| jiff::Timestamp::from_millisecond(at_ms).unwrap().to_string();
        times.map(text).collect::<Vec<_>>().join(" ")
    };
    let (spring, autumn) = ("2026-03-29T00:00:00Z", "2026-10-24T22:00:00Z");
    let fixed = times("30 2 * * *", spring);
    assert_eq!(fixed, "2026-03-29T01:00:00Z 2026-03-30T00:30:00Z 2026-03-31T00:30:00Z");
    let every = times("*/30 * * * *", "2026-03-29T00:30:00Z");
    assert_eq!(every, "2026-03-29T01:00:00Z 2026-03-29T01:30:00Z 2026-03-29T02:00:00Z");
    let fixed = times("30 2 * * *", autumn);
    assert_eq!(fixed, "2026-10-25T00:30:00Z 2026-10-26T01:30:00Z 2026-10-27T01:30:00Z");
    let every = times("30 * * * *", "2026-10-25T00:00:00Z");
    assert_eq!(every, "2026-10-25T00:30:00Z 2026-10-25T01:30:00Z 2026-10-25T02:30:00Z");
}

#[test]
fn what_was_done_is_done_again_as_it_was() {
    let mut world = World::with(SERVER);
    let first = request(&mut world, "r").unwrap();
    world.settle(Luck::Succeeds);
    let run = world.over[&first].clone();
    let again = world.must(Input::Again { run: Box::new(run.clone()), by: by("olga") }).run.unwrap();
    world.settle(Luck::Fails);
    let repeated = &world.over[&again];
    assert_eq!((repeated.seed, repeated.version, &repeated.inputs), (run.seed, run.version, &run.inputs));
    assert_eq!((repeated.again.as_ref(), repeated.status), (Some(&first), Status::Failed));
    assert_eq!(world.core.app("a").unwrap().failures, 0);
}

#[test]
fn registered_again_it_is_known() {
    let mut world = World::with(SERVER);
    assert!(world.register(SERVER).known);
    assert!(!world.register(&learner("", HAND)).known);
    // New code is a candidate, until somebody promotes it.
    let app = world.core.app("a").unwrap();
    assert_eq!((champion(&world), app.version(Alias::Candidate).unwrap().number), (Some(1), 2));
}

#[test]
fn a_cancelled_run_stays_cancelled() {
    let mut world = World::with(&learner("", HAND));
    fire(&mut world, "hand");
    let run = world.core.app("a").unwrap().runs.keys().next().unwrap().clone();
    world.must(Input::Cancel { run: run.clone(), by: by("olga") });
    world.crash();
    assert_eq!((world.over[&run].status, world.state()), (Status::Cancelled, State::Idle));
}

#[test]
fn after_a_crash_requests_are_done_in_their_order() {
    let mut world = World::with(&format!("{SERVER}awake = {{ concurrency = 2 }}"));
    let runs: Vec<_> = (0..12).map(|id| request(&mut world, &id.to_string()).unwrap()).collect();
    world.carry_out(0, Luck::Succeeds);
    world.crash();
    world.carry_out(1, Luck::Succeeds);
    let begun = world.pending.iter().filter_map(|pending| match pending {
        Pending::Run(launch, _) => Some((launch.run.id.clone(), launch.run.attempt)),
        _ => None,
    });
    assert_eq!(begun.collect::<Vec<_>>(), [(runs[0].clone(), 2), (runs[1].clone(), 2)]);
    world.settle(Luck::Succeeds);
    assert_eq!(world.over.len(), 12);
}
