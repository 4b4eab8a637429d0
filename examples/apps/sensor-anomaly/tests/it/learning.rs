//! Models get better, follow drift, keep what they knew, and come out the same again.

use serde_json::json;

use crate::{Desk, defaults, json_of, numbers};

#[test]
fn learning_lowers_the_error_on_windows_never_learnt_from_to_a_tenth() {
    let desk = Desk::new();
    desk.generate("data/pump.csv", "--seed 1");
    let ignorant = desk.learn("data", "ignorant", None, &json!({"steps": 1}));
    let learnt = desk.learn("data", "learnt", None, &defaults());
    let (learnt, ignorant) = desk.compare("data", &learnt, &ignorant);
    assert!(learnt < ignorant / 10.0, "{learnt} against {ignorant}");
}

#[test]
fn learning_on_follows_drift_and_keeps_what_was_known() {
    let desk = Desk::new();
    desk.generate("new/pump.csv", "--seed 1");
    desk.generate("worn/pump.csv", "--seed 2 --drift 0.2");
    let few = |replay: u64| json!({"steps": 800, "replay": replay});
    let before = desk.learn("new", "before", None, &few(48));
    let after = desk.learn("worn", "after", Some(&before), &few(48));
    let forgetful = desk.learn("worn", "forgetful", Some(&before), &few(0));

    let (on_worn, was) = desk.compare("worn", &after, &before);
    assert!(on_worn < was / 10.0, "{on_worn} on the worn pump, {was} before learning from it");
    let (on_new, was) = desk.compare("new", &after, &before);
    assert!(on_new < 2.5 * was, "{on_new} on the new pump, {was} before learning from the worn one");
    let (without_replay, _) = desk.compare("new", &forgetful, &before);
    assert!(without_replay > 5.0 * on_new, "{without_replay} without replay, {on_new} with it");
}

/// So the gate pairs like with like, even where a candidate began afresh with a normalisation of its own.
#[test]
fn candidate_and_champion_are_measured_in_the_same_units() {
    let desk = Desk::new();
    desk.generate("data/pump.csv", "--seed 1 --rows 1000");
    // The spike widens the candidate's units manifold; in those its errors would look tiny.
    let text = std::fs::read_to_string(desk.path("data/pump.csv")).unwrap();
    desk.write("spike/pump.csv", text.replacen('\n', "\n20000,400,2000,300\n", 1));
    let sober = desk.learn("data", "sober", None, &json!({"steps": 300}));
    let dazzled = desk.learn("spike", "dazzled", None, &json!({"steps": 1}));
    let (dazzled, sober) = desk.compare("data", &dazzled, &sober);
    assert!(dazzled > sober, "{dazzled} against {sober}");
}

#[test]
fn the_same_seed_gives_the_same_bytes_on_any_number_of_threads() {
    let desk = Desk::new();
    desk.generate("data/pump.csv", "--seed 1 --rows 1000");
    let learn = |output: &str, seed: &str, threads: &str, from: Option<&std::path::Path>| {
        let run = desk.run("learn", "data", output).parameters(&json!({"steps": 100}));
        let run = run.env("REMORA_SEED", seed).env("RAYON_NUM_THREADS", threads);
        match from {
            Some(model) => run.model(model).done("model"),
            None => run.done("model"),
        }
    };
    let bytes = |path: &std::path::Path| std::fs::read(path).unwrap();
    let first = learn("first", "18446744073709551615", "1", None);
    let again = learn("again", "18446744073709551615", "4", None);
    assert_eq!(bytes(&first), bytes(&again));
    assert_ne!(bytes(&first), bytes(&learn("other", "1", "1", None)));
    let on = learn("on", "3", "1", Some(&first));
    assert_eq!(bytes(&on), bytes(&learn("on-again", "3", "4", Some(&again))));
    assert_ne!(bytes(&on), bytes(&first));
}

#[test]
fn without_a_champion_there_is_one_list_of_errors() {
    let desk = Desk::new();
    desk.generate("data/a.csv", "--seed 1 --rows 400");
    desk.generate("data/b.csv", "--seed 2 --rows 479");
    let model = desk.learn("data", "learnt", None, &json!({"steps": 1}));
    let scores = json_of(&desk.run("evaluate", "data", "evaluation").model(&model).done("scores.json"));
    assert!(scores.get("champion").is_none());
    // Every fifth window of 16 rows: five of each file.
    assert_eq!(numbers(&scores["candidate"]).len(), 10);
}

/// What is held out may be anything: the model never learns of it.
#[test]
fn windows_held_out_do_not_reach_the_model() {
    let desk = Desk::new();
    desk.generate("data/pump.csv", "--seed 1 --rows 800");
    let text = std::fs::read_to_string(desk.path("data/pump.csv")).unwrap();
    let changed = |held_out: bool| {
        // Of every 80 rows, the last 16 are held out.
        let lines = text.lines().enumerate().map(|(line, text)| {
            let within = line > 0 && ((line - 1) % 80 >= 64) == held_out;
            if within { "100,4,10,2".to_owned() } else { text.to_owned() }
        });
        lines.map(|line| line + "\n").collect::<String>()
    };
    desk.write("held-out/pump.csv", changed(true));
    desk.write("learnt/pump.csv", changed(false));
    let on = |input: &str| {
        std::fs::read(desk.learn(input, &format!("on-{input}"), None, &json!({"steps": 50}))).unwrap()
    };
    let same = on("data");
    assert!(on("held-out") == same, "rows held out changed the model");
    assert!(on("learnt") != same);
}
