//! Jobs of which only the time passes.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use remora_agent::appcore::executor::simulated::{SECONDS, Simulated};
use remora_agent::appcore::executor::{Executor, Exit, Job, OUTPUT, Stop};
use remora_agent::appcore::gate::{Scores, judge};
use remora_agent::appcore::manifest::Gate;
use remora_agent::appcore::run::{LOG, MODEL, RESPONSE, RunKind, SCORES, Usage};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::appcore_process::shell;

fn job(folder: &TempDir, kind: RunKind, seconds: &str) -> Job {
    let mut job = shell(folder, "echo this does not run > output/ran");
    job.run.kind = kind;
    job.environment.push((SECONDS.to_owned(), seconds.to_owned()));
    job
}

async fn plays(speed: f64, job: &Job, stop: watch::Receiver<Option<Stop>>) -> (Exit, Usage, f64) {
    let began = Instant::now();
    let (exit, usage) = Simulated { speed }.run(job, stop).await;
    (exit, usage, began.elapsed().as_secs_f64())
}

fn output(job: &Job) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(job.folder.join(OUTPUT)).unwrap().flatten();
    files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())).collect()
}

#[tokio::test]
async fn it_takes_its_time_and_leaves_what_follows_from_the_seed() {
    let (_stop, stop) = watch::channel(None);
    for (kind, name) in [(RunKind::Execute, RESPONSE), (RunKind::Learn, MODEL), (RunKind::Evaluate, SCORES)] {
        let outputs = async |seed| {
            let folder = TempDir::new().unwrap();
            let mut job = job(&folder, kind, "42.5");
            job.run.seed = seed;
            let (exit, usage, took) = plays(100.0, &job, stop.clone()).await;
            assert_eq!(exit, Exit::Code(0));
            assert!((0.425..2.0).contains(&took), "{took}");
            // Half a core, by the limits.
            assert!((21.25..50.0 * took + 0.1).contains(&usage.cpu_s), "{usage:?} in {took} s");
            let log = fs::read_to_string(job.folder.join(LOG)).unwrap();
            assert_eq!(log, format!("{kind} app.1 simulated on here: 42.5 s, Code(0)\n"));
            let output = output(&job);
            assert_eq!(output.keys().collect::<Vec<_>>(), [name]);
            assert_eq!(usage.output_bytes, (log.len() + output[name].len()) as u64);
            output
        };
        let first = outputs(1).await;
        assert_eq!(first, outputs(1).await);
        assert_ne!(first, outputs(2).await);
    }
}

#[tokio::test]
async fn the_gate_can_judge_its_scores() {
    let (_stop, stop) = watch::channel(None);
    let folder = TempDir::new().unwrap();
    let job = job(&folder, RunKind::Evaluate, "1");
    assert_eq!(plays(100.0, &job, stop).await.0, Exit::Code(0));
    let scores: Scores = serde_json::from_slice(&output(&job)[SCORES]).unwrap();
    let verdict = judge(&Gate::default(), &scores, true);
    assert!(verdict.passed, "{verdict:?}");
}

#[tokio::test]
async fn it_stops_when_told_and_when_its_time_is_over() {
    let folder = TempDir::new().unwrap();
    let mut job = job(&folder, RunKind::Learn, "1000");
    for how in [Stop::Save, Stop::Now] {
        let (stop, stopped) = watch::channel(None);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            stop.send(Some(how)).unwrap();
        });
        let (exit, _, took) = plays(2.0, &job, stopped).await;
        assert_eq!(exit, Exit::Stopped);
        assert!((0.2..2.0).contains(&took), "{took}");
    }
    job.limits.timeout_s = 10.0;
    // Nobody can stop it any more, and it goes on.
    let (_, stop) = watch::channel(None);
    let (exit, _, took) = plays(20.0, &job, stop).await;
    assert_eq!(exit, Exit::TimedOut);
    assert!((0.5..2.0).contains(&took), "{took}");
    assert!(output(&job).is_empty());
}

#[tokio::test]
async fn what_it_cannot_play_it_says() {
    let (_stop, stop) = watch::channel(None);
    let folder = TempDir::new().unwrap();
    let mut job = job(&folder, RunKind::Execute, "soon");
    let mut broken = async |speed, seconds: Option<&str>| {
        job.environment =
            seconds.map(|seconds| (SECONDS.to_owned(), seconds.to_owned())).into_iter().collect();
        match plays(speed, &job, stop.clone()).await.0 {
            Exit::Broken(why) => why,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(broken(1.0, Some("soon")).await, format!("{SECONDS}: is \"soon\", want seconds"));
    assert_eq!(broken(1.0, Some("-1")).await, format!("{SECONDS}: is \"-1\", want seconds"));
    assert_eq!(broken(1.0, Some("inf")).await, format!("{SECONDS}: is \"inf\", want seconds"));
    assert_eq!(broken(1.0, None).await, format!("{SECONDS}: is missing, want seconds"));
    assert_eq!(broken(0.0, Some("1")).await, "speed: is 0, want a number above 0");
    assert_eq!(broken(-1.0, Some("1")).await, "speed: is -1, want a number above 0");
    folder.close().unwrap();
    assert!(broken(1.0, Some("1")).await.starts_with("folder "));
}
