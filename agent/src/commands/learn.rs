//! `remora learn`: a policy learns on from recorded outcomes, and is promoted where it proved better.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use remora_env::Scenario;
use remora_env::calibrate::Calibration;
use remora_policies::Checkpoint;
use remora_trainer::continual::{Gate, Verdict, curriculum, prepare, verdict};
use remora_trainer::run::{Budget, Options};

use super::train::{configuration_from, with_progress};
use super::{print, table, tables};
use crate::files::write;

/// Learn on from recorded outcomes; promote only what proved better.
#[derive(ClapArgs, Debug)]
#[command(
    after_help = "Example:\n  remora trace export --cluster city --out recorded.toml\n  remora learn recorded.toml --out runs/learnt --minutes 5"
)]
pub struct Args {
    /// Scenario file whose trace records decisions and outcomes: see `remora trace export` and `record`.
    recording: PathBuf,
    /// The champion: its path, or `pretrained`.
    #[arg(long, default_value = "pretrained")]
    from: String,
    /// Folder of the run; the verdict and what is promoted go there too.
    #[arg(long)]
    out: PathBuf,
    /// Learn for so long.
    #[arg(long, default_value_t = 5.0, conflicts_with = "steps")]
    minutes: f64,
    /// Learn for so many iterations instead: the same bytes every time.
    #[arg(long)]
    steps: Option<u64>,
    /// TOML file with hyper-parameters; see config.toml of any run.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Seed of the world that was recorded, where it was simulated.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Members of the test family on which nothing may be forgotten.
    #[arg(long, default_value_t = Gate::default().members)]
    members: u64,
}

pub fn run(args: &Args, json: bool) -> Result<()> {
    if !(args.minutes.is_finite() && args.minutes > 0.0) {
        bail!("--minutes is {}, want a number above 0", args.minutes);
    }
    if args.members == 0 {
        bail!("--members is 0, want at least 1");
    }
    let champion = Checkpoint::named(&args.from)?;
    let recording = Scenario::load(&args.recording.to_string_lossy())?;
    let windows = args.out.join("windows");
    std::fs::create_dir_all(&windows).with_context(|| format!("cannot write {}", windows.display()))?;
    let lessons = prepare(&recording, args.seed, &windows)?;
    if !json {
        show(&lessons.calibration)?;
    }
    let mut config = curriculum(&lessons, configuration_from(args.config.as_deref())?);
    config.iterations = args.steps.unwrap_or(config.iterations);
    let budget = if args.steps.is_some() { Budget::Iterations } else { Budget::Minutes(args.minutes) };
    let options =
        Options { folder: args.out.join("run"), budget, resume: false, from: Some(champion.clone()) };
    let finished = with_progress(config, &options)?;
    let candidate = Checkpoint::load(&finished.best)?;
    let gate = Gate { members: args.members, ..Gate::default() };
    let verdict = verdict(&champion, &candidate, &lessons.judge, gate)?;
    let promoted = conclude(&args.out, &candidate, &verdict)?;
    if json {
        return tables::print_rows(&[serde_json::json!({
            "calibration": lessons.calibration,
            "verdict": verdict,
            "candidate": finished.best,
            "promoted": promoted,
        })]);
    }
    print(format_args!("on later windows of the recording: {} of the champion's cost", verdict.recorded))?;
    print(format_args!("on {} members of test-family:      {}", gate.members, verdict.known))?;
    match promoted {
        Some(path) => print(format_args!("promoted: {} ({})", path.display(), verdict.reason)),
        None => print(format_args!("the champion stays: {}", verdict.reason)),
    }
}

/// Writes the verdict and, last, what it promotes.
fn conclude(out: &Path, candidate: &Checkpoint, verdict: &Verdict) -> Result<Option<PathBuf>> {
    let path = out.join("verdict.json");
    let text = serde_json::to_vec_pretty(verdict).context("a verdict becomes JSON")?;
    write(&path, text)?;
    if !verdict.promoted {
        return Ok(None);
    }
    let path = out.join("promoted.safetensors");
    candidate.save(&path)?;
    Ok(Some(path))
}

/// What calibration found.
pub(super) fn show(calibration: &Calibration) -> Result<()> {
    let mut table = table(&["calibrated", "takes × as long", "tasks"]);
    for factor in calibration.executions.iter().chain(&calibration.transfers) {
        table.add_row([factor.of.clone(), format!("{:.3}", factor.factor), factor.tasks.to_string()]);
    }
    let [before, after] = calibration.error.map(|error| 100.0 * error);
    print(table)?;
    print(format_args!(
        "median error of the simulated response times of {} tasks: {before:.1} % before, {after:.1} % after\n",
        calibration.tasks
    ))
}
