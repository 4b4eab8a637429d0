//! Training runs as a user starts them, in miniature.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;

use remora_policies::Checkpoint;
use remora_policies::look_ahead::Depth;
use remora_policies::network::{Caution, NetworkConfig};
use remora_trainer::Config;
use remora_trainer::device::Accelerator;
use remora_trainer::evolution::EvolutionConfig;
use remora_trainer::labels::LabelConfig;
use remora_trainer::run::{Budget, Finished, Options, Report, RunError, train};
use remora_trainer::status::{self, State, Status, is_running};

fn small(iterations: u64) -> Config {
    let mut config = Config {
        seed: 7,
        scenarios: vec!["urban-sensing".to_owned()],
        iterations,
        worlds: 3,
        rollouts: 2,
        tasks: 20,
        epochs: 2,
        minibatch: 32,
        validate_every: 2,
        ..Config::default()
    };
    config.network.hidden = 16;
    config.evolution = EvolutionConfig { until: 0.2, population: 4, worlds: 2, ..config.evolution };
    config.labels = LabelConfig {
        until: 0.6,
        worlds: 2,
        per_world: 6,
        depth: Depth { candidates: 3, futures: 2, tasks: 5 },
        replay: 24,
        updates: 3,
        minibatch: 16,
    };
    config
}

fn run(config: Config, folder: &Path, resume: bool) -> Result<Finished, RunError> {
    let options = Options { folder: folder.to_owned(), budget: Budget::Iterations, resume, from: None };
    train(config, &options, &mut |_| {})
}

fn bytes(folder: &Path) -> [Vec<u8>; 3] {
    ["checkpoints/best.safetensors", "checkpoints/latest.safetensors", "metrics.jsonl"]
        .map(|name| std::fs::read(folder.join(name)).unwrap())
}

fn on_threads(threads: usize, folder: &Path) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| run(small(4), folder, false)).unwrap();
}

#[test]
fn the_same_seed_gives_the_same_bytes_on_one_thread_and_on_two() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
    on_threads(1, &one);
    on_threads(2, &two);
    assert!(bytes(&one) == bytes(&two), "checkpoints or metrics differ");
}

#[test]
fn another_seed_gives_other_weights() {
    let folder = tempfile::tempdir().unwrap();
    let [seven, eight] = ["seven", "eight"].map(|name| folder.path().join(name));
    run(small(2), &seven, false).unwrap();
    run(Config { seed: 8, ..small(2) }, &eight, false).unwrap();
    assert_ne!(bytes(&seven)[1], bytes(&eight)[1]);
}

#[test]
fn a_resumed_run_ends_where_an_uninterrupted_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    run(small(6), &whole, false).unwrap();
    // Before the first checkpoint, which is the second iteration's, and after it.
    for last in [1, 5] {
        let broken = folder.path().join(format!("broken-{last}"));
        let options =
            Options { folder: broken.clone(), budget: Budget::Iterations, resume: false, from: None };
        let stopped = std::panic::catch_unwind(|| {
            train(small(6), &options, &mut |report| {
                assert!(report.line.iteration < last, "stopped on purpose")
            })
        });
        assert!(stopped.is_err());
        run(small(6), &broken, true).unwrap();
        assert!(bytes(&whole) == bytes(&broken), "stopped at {last}: checkpoints or metrics differ");
    }
}

#[test]
fn a_folder_with_a_run_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    run(small(2), folder.path(), false).unwrap();
    let error = run(small(2), folder.path(), false).unwrap_err().to_string();
    assert!(error.contains("holds a run already"), "{error}");
}

#[test]
fn bad_figures_are_all_named() {
    let mut config = Config { rollouts: 1, clip: f64::NAN, scenarios: Vec::new(), ..small(1) };
    config.network.caution = Caution([5.0; 5]);
    let folder = tempfile::tempdir().unwrap();
    let error = run(config, &folder.path().join("run"), false).unwrap_err().to_string();
    for field in ["rollouts is 1", "clip is NaN", "scenarios is empty", "network.caution is [5.0, "] {
        assert!(error.contains(field), "{error}");
    }
}

#[test]
fn a_run_begins_with_the_weights_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
    let from = Checkpoint::load(&run(small(2), &first, false).unwrap().best).unwrap();
    // A step of learning so small that nothing moves.
    let mut still = Config { learning_rate: 1e-30, network: NetworkConfig::default(), ..small(2) };
    still.evolution.until = 0.0;
    let options = Options {
        folder: second.clone(),
        budget: Budget::Iterations,
        resume: false,
        from: Some(from.clone()),
    };
    let finished = train(still, &options, &mut |_| {}).unwrap();
    let tuned = Checkpoint::load(&finished.best).unwrap();
    assert_eq!(tuned.weights, from.weights);
    assert_eq!(tuned.about.training["from"], from.id());
}

#[test]
fn a_device_that_the_build_lacks_is_refused_before_the_run_begins() {
    let lacking = Accelerator::ALL.iter().find(|(_, device)| device.device().is_none());
    let Some((name, device)) = lacking else { return eprintln!("skipped: this build has all devices") };
    let folder = tempfile::tempdir().unwrap();
    let config = Config { device: *device, ..small(1) };
    let error = run(config, &folder.path().join("run"), false).unwrap_err().to_string();
    assert!(error.contains(&format!("--features {name}")), "{error}");
    assert!(!folder.path().join("run").exists());
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "in the way").unwrap();
    let error = run(small(1), &folder.path().join("file/run"), false).unwrap_err().to_string();
    assert!(error.contains("cannot write") && error.contains("--out"), "{error}");
}

#[test]
fn a_folder_says_how_its_run_fares_and_takes_one_trainer_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let run_folder = folder.path().join("run");
    let read = || -> Status {
        serde_json::from_slice(&std::fs::read(run_folder.join(status::FILE)).unwrap()).unwrap()
    };
    let options =
        Options { folder: run_folder.clone(), budget: Budget::Iterations, resume: false, from: None };
    let mut seen = Vec::new();
    let mut watch = |_: &Report<'_>| {
        let again = Options { resume: true, ..options.clone() };
        let refused = train(small(2), &again, &mut |_| {}).unwrap_err().to_string();
        assert!(refused.starts_with("another process trains in "), "{refused}");
        seen.push((is_running(&run_folder), read().state));
    };
    train(small(2), &options, &mut watch).unwrap();
    assert_eq!(seen, [(true, State::Running); 2]);
    let ended = read();
    assert!(!is_running(&run_folder));
    assert_eq!((ended.state, ended.iteration, ended.progress), (State::Ended, 2, 1.0));
    assert!(ended.decisions_per_s > 0.0 && ended.validation.is_some());

    // What cannot go on says so.
    std::fs::write(run_folder.join("checkpoints/latest.safetensors"), "torn").unwrap();
    train(small(4), &Options { resume: true, ..options.clone() }, &mut |_| {}).unwrap_err();
    let failed = read();
    assert_eq!(failed.state, State::Failed);
    assert!(failed.reason.contains("not a checkpoint"), "{}", failed.reason);
}
