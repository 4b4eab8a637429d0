//! Jobs of which only the time passes, for clusters that exist in a scenario alone.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use remora_env::random::{Purpose, unit};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::{Executor, Exit, Job, OUTPUT, Stop};
use crate::appcore::gate::Scores;
use crate::appcore::run::{LOG, MODEL, RESPONSE, RunKind, SCORES, Usage};

/// The variable that says how many seconds a job takes, unless it is stopped.
pub const SECONDS: &str = "REMORA_SIMULATED_S";
/// Pairs of scores of an evaluation.
const SAMPLES: u64 = 200;
/// By how much of the champion's error a candidate's is smaller on average, and by how much of it the two differ.
const GAIN: f64 = 0.05;
const SPREAD: f64 = 0.2;

/// Plays jobs: they take the time that they are told, leave what such a job would, and use no processor.
#[derive(Clone, Copy, Debug)]
pub struct Simulated {
    /// Simulated seconds in one of ours; above 0.
    pub speed: f64,
}

#[tonic::async_trait]
impl Executor for Simulated {
    async fn run(&self, job: &Job, mut stop: watch::Receiver<Option<Stop>>) -> (Exit, Usage) {
        let told = job.environment.iter().rev().find(|(name, _)| name == SECONDS);
        let seconds = told.and_then(|(_, seconds)| seconds.parse::<f64>().ok());
        let Some(seconds) = seconds.filter(|seconds| seconds.is_finite() && *seconds >= 0.0) else {
            let told = told.map_or("missing".to_owned(), |(_, seconds)| format!("{seconds:?}"));
            return (Exit::Broken(format!("{SECONDS}: is {told}, want seconds")), Usage::default());
        };
        let lasts = seconds.min(job.limits.timeout_s);
        let Ok(waits) = Duration::try_from_secs_f64(lasts / self.speed) else {
            let wrong = format!("speed: is {}, want a number above 0", self.speed);
            return (Exit::Broken(wrong), Usage::default());
        };
        let began = Instant::now();
        let exit = tokio::select! {
            () = sleep(waits) => if seconds > lasts { Exit::TimedOut } else { Exit::Code(0) },
            // A sender that is gone stops nothing.
            Ok(_) = stop.wait_for(Option::is_some) => Exit::Stopped,
        };
        match leave(job, seconds, &exit) {
            Ok(output_bytes) => {
                let memory_bytes = u64::from(job.limits.memory_mib) << 20;
                let cpu_s =
                    began.elapsed().as_secs_f64() * self.speed * f64::from(job.limits.cpu_millis) / 1000.0;
                (exit, Usage { cpu_s, memory_bytes, output_bytes })
            }
            Err(error) => {
                (Exit::Broken(format!("folder {}: {error}", job.folder.display())), Usage::default())
            }
        }
    }

    /// It dies with the service.
    async fn reap(&self, _: &Path) {}
}

/// Writes what a job leaves; all of it follows from the seed. Returns the number of bytes.
fn leave(job: &Job, seconds: f64, exit: &Exit) -> io::Result<u64> {
    let (id, node, seed) = (&job.run.id, &job.node, job.run.seed);
    let log = format!("{} {id} simulated on {node}: {seconds} s, {exit:?}\n", job.run.kind);
    fs::write(job.folder.join(LOG), &log)?;
    if *exit != Exit::Code(0) {
        return Ok(log.len() as u64);
    }
    let draw = |index, step| unit(seed, Purpose::Execution, index, step);
    let (name, value) = match job.run.kind {
        RunKind::Execute => (RESPONSE, json!({ "simulated": true, "value": draw(0, 0) })),
        RunKind::Learn => {
            let weights: Vec<_> = (0..16).map(|step| 2.0 * draw(1, step) - 1.0).collect();
            (MODEL, json!({ "simulated": true, "seed": seed, "weights": weights }))
        }
        RunKind::Evaluate => {
            let champion: Vec<_> = (0..SAMPLES).map(|step| 0.5 + draw(2, step)).collect();
            let ratio = |step| 1.0 - GAIN + SPREAD * (draw(3, step) - 0.5);
            let candidate = (0..SAMPLES).zip(&champion).map(|(step, error)| error * ratio(step)).collect();
            let metric = "simulated error".to_owned();
            (SCORES, serde_json::to_value(Scores { metric, candidate, champion: Some(champion) })?)
        }
    };
    let bytes = serde_json::to_vec(&value)?;
    fs::create_dir_all(job.folder.join(OUTPUT))?;
    fs::write(job.folder.join(OUTPUT).join(name), &bytes)?;
    Ok((log.len() + bytes.len()) as u64)
}
