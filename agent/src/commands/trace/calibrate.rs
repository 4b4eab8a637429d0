//! `remora trace calibrate`: a recorded scenario that is as fast as what was recorded.

use std::path::PathBuf;

use anyhow::{Context, Result};
use remora_env::Scenario;
use remora_env::calibrate::calibrate;
use remora_env::import::Imported;

use crate::commands::{learn, print, tables};

/// Make a recorded scenario as fast as what was recorded, to evaluate policies on it.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Example:\n  remora trace calibrate recorded.toml --out calibrated.toml\n  remora evaluate --scenario calibrated.toml --policy kube-default,pretrained"
)]
pub(super) struct Args {
    /// Scenario file whose trace records decisions and outcomes: see `remora trace export` and `record`.
    recording: PathBuf,
    /// Scenario file to write; the trace goes beside it.
    #[arg(long)]
    out: PathBuf,
    /// Seed of the world that was recorded, where it was simulated.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

pub(super) fn run(args: &Args, json: bool) -> Result<()> {
    let recording = Scenario::load(&args.recording.to_string_lossy())?;
    let (calibrated, calibration) = calibrate(&recording, args.seed).with_context(|| {
        format!("{} records no outcomes: want a trace with decisions and outcomes", args.recording.display())
    })?;
    let trace = calibrated.trace.context("what was calibrated has a trace")?;
    let notes = vec![format!("calibrated by {} recorded tasks", calibration.tasks)];
    let trace = Imported { scenario: calibrated.file, trace, notes }.write(&args.out)?;
    if json {
        return tables::print_rows(&[serde_json::json!({
            "scenario": args.out, "trace": trace, "calibration": calibration,
        })]);
    }
    learn::show(&calibration)?;
    print(format_args!(
        "{} and {}\nnext: remora evaluate --scenario {} --policy kube-default,pretrained",
        args.out.display(),
        trace.display(),
        args.out.display()
    ))
}
