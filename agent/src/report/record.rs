//! What an experiment came to, as it is kept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use remora_trainer::evaluate::Row;
use remora_trainer::summary::{Comparison, Evaluation, Front, cases};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Experiment;
use crate::files;

/// The result of an experiment, and how it came about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub command: String,
    /// Of the sources, as Git names it.
    pub revision: String,
    /// Of the machine, and how long it took there.
    pub cores: usize,
    pub seconds: f64,
    /// Of an evaluation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub means: Vec<Means>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub comparisons: Vec<Comparison>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fronts: Vec<Front>,
    /// Content hashes of the policies that are checkpoints.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub checkpoints: BTreeMap<String, String>,
    /// Of any other command: rows, and other lists of rows by their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lists: BTreeMap<String, Vec<Map<String, Value>>>,
    /// Plots that the command drew, as SVG.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub plots: BTreeMap<String, String>,
}

/// Means over the worlds of a scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Means {
    pub scenario: String,
    pub policy: String,
    pub alpha: f64,
    pub worlds: usize,
    pub data_moved_gb: f64,
    pub wan_gb: f64,
    pub response_mean_s: f64,
    pub response_p95_s: f64,
    /// `kube-default` costs 1.
    pub cost: f64,
    pub deadline_miss: f64,
    pub energy_kj: f64,
    pub decision_us: f64,
}

/// Where a record lies.
pub fn path(folder: &Path, name: &str) -> PathBuf {
    folder.join("recorded").join(format!("{name}.json"))
}

/// # Errors
/// When it was never made, or cannot be read.
pub fn read(folder: &Path, name: &str) -> Result<Record> {
    let path = path(folder, name);
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!("cannot read {}; `remora report --record --only {name}` makes it", path.display())
    })?;
    serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))
}

/// # Errors
/// When it cannot be written.
pub fn write(folder: &Path, name: &str, record: &Record) -> Result<()> {
    let path = path(folder, name);
    std::fs::create_dir_all(folder.join("recorded"))
        .with_context(|| format!("cannot write {}", path.display()))?;
    files::write(&path, serde_json::to_string_pretty(record)? + "\n")
}

/// In a command: the folder of the report, and one that is removed afterwards.
const REPORT: &str = "{report}";
const SCRATCH: &str = "{scratch}";

/// Runs this program with the words of a command, and keeps what it prints.
///
/// # Errors
/// When it fails, or prints no result.
pub fn run(folder: &Path, experiment: &Experiment, command: &str) -> Result<Record> {
    let began = Instant::now();
    let program = std::env::current_exe().context("this program does not find itself")?;
    let scratch = tempfile::tempdir().context("an experiment wants a place")?;
    let place = |word: &str| {
        let word = word.replace(REPORT, &folder.to_string_lossy());
        word.replace(SCRATCH, &scratch.path().to_string_lossy())
    };
    let told = Command::new(program)
        .args(command.split_whitespace().map(place))
        .arg("--json")
        .stderr(Stdio::inherit())
        .output()
        .context("an experiment cannot be started")?;
    let name = &experiment.name;
    if !told.status.success() {
        bail!("experiment {name}: remora {command} failed ({})", told.status);
    }
    let mut record = Record {
        command: format!("remora {command}"),
        revision: revision(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        seconds: began.elapsed().as_secs_f64().round(),
        ..Record::default()
    };
    let result: Value = serde_json::from_slice(&told.stdout)
        .with_context(|| format!("experiment {name}: remora {command} printed no JSON"))?;
    if result.get("comparisons").is_some() {
        let evaluation: Evaluation = serde_json::from_value(result)
            .with_context(|| format!("experiment {name}: remora {command} printed no evaluation"))?;
        record.means = means(&evaluation);
        record.comparisons = evaluation.comparisons;
        record.comparisons.retain(|compared| experiment.over.contains(&compared.baseline));
        record.fronts = evaluation.fronts;
        record.checkpoints = evaluation.checkpoints;
    } else {
        let Printed { rows, plots, others } = serde_json::from_value(result)
            .with_context(|| format!("experiment {name}: remora {command} printed no rows"))?;
        (record.rows, record.plots) = (rows, plots);
        let list = |(key, value)| Some((key, serde_json::from_value(value).ok()?));
        record.lists = others.into_iter().filter_map(list).collect();
    }
    Ok(record)
}

/// What a command prints that is no evaluation.
#[derive(Deserialize)]
struct Printed {
    rows: Vec<Map<String, Value>>,
    #[serde(default)]
    plots: BTreeMap<String, String>,
    /// Lists of rows are kept of these.
    #[serde(flatten)]
    others: Map<String, Value>,
}

fn means(evaluation: &Evaluation) -> Vec<Means> {
    let of = |&(scenario, policy, alpha): &(&str, &str, f64)| {
        let mean = |figure: fn(&Row) -> f64| rounded(evaluation.mean(scenario, policy, alpha, figure));
        let same = |row: &&Row| row.scenario == scenario && row.policy == policy && row.alpha == alpha;
        Means {
            scenario: scenario.to_owned(),
            policy: policy.to_owned(),
            alpha,
            worlds: evaluation.rows.iter().filter(same).count(),
            data_moved_gb: mean(|row| row.data_moved_gb),
            wan_gb: mean(|row| row.wan_gb),
            response_mean_s: mean(|row| row.response_mean_s),
            response_p95_s: mean(|row| row.response_p95_s),
            cost: mean(|row| row.cost),
            deadline_miss: mean(|row| row.deadline_miss),
            energy_kj: mean(|row| row.energy_kj),
            decision_us: mean(|row| row.decision_us),
        }
    };
    cases(&evaluation.rows).iter().map(of).collect()
}

/// Six digits, which is more than any figure here is worth.
fn rounded(value: f64) -> f64 {
    format!("{value:.6e}").parse().unwrap_or(value)
}

/// The commit of the folder that one is in, with `+` where files differ from it.
fn revision() -> String {
    let git = |words: &[&str]| -> Option<String> {
        let told = Command::new("git").args(words).stderr(Stdio::null()).output().ok()?;
        told.status.success().then(|| String::from_utf8_lossy(&told.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=10", "HEAD"]) else { return "unknown".to_owned() };
    let changed = git(&["status", "--porcelain", "--", "*.rs", "*.toml", "*.safetensors"]);
    let mark = if changed.is_some_and(|changed| changed.is_empty()) { "" } else { "+" };
    format!("{commit}{mark}")
}
