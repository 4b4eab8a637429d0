//! Finds windows of sensor readings that are unlike what it has learnt: an application to copy from.
//!
//! Whoever runs it says everything in the environment: what to do, where its input, its model and its parameters are,
//! and where its output goes.

mod data;
mod file;
mod generate;
mod learn;
mod model;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::{Subcommand, ValueEnum};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::data::Series;
use crate::learn::scores;
use crate::model::{Model, Parameters};

pub use crate::generate::{Generate, readings};

/// The application as it is registered.
pub const MANIFEST: &str = include_str!("../app.toml");

/// What it can be told to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    Run(Run),
    Generate(Generate),
}

/// Learns, evaluates or scores, as the environment says
#[derive(Debug, clap::Args)]
pub struct Run {
    #[arg(long, env = "REMORA_KIND")]
    kind: Kind,
    /// Of all that is random: the same seed and input give the same output
    #[arg(long, env = "REMORA_SEED", default_value_t = 0)]
    seed: u64,
    /// Folder with `request`, or with the data files
    #[arg(long, env = "REMORA_INPUT")]
    input: PathBuf,
    /// Folder for what is made
    #[arg(long, env = "REMORA_OUTPUT")]
    output: PathBuf,
    /// To score with, to continue from, or to evaluate
    #[arg(long, env = "REMORA_MODEL")]
    model: Option<PathBuf>,
    /// The model to compare with
    #[arg(long, env = "REMORA_CHAMPION")]
    champion: Option<PathBuf>,
    /// JSON file
    #[arg(long, env = "REMORA_PARAMETERS")]
    parameters: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// From `request`, readings as CSV, to `response`, scores as JSON
    Execute,
    /// From data files to `model`
    Learn,
    /// From data files to `scores.json`, on windows that are never learnt from
    Evaluate,
}

/// What an execution answers.
#[derive(Serialize)]
struct Response<'a> {
    /// Scores above it are anomalies.
    threshold: f32,
    windows: Vec<Scored<'a>>,
}

#[derive(Serialize)]
struct Scored<'a> {
    /// Of the window, counted from 1 below the header.
    first_row: usize,
    last_row: usize,
    /// Mean squared error of the reproduction, in squared standard deviations.
    score: f32,
    anomaly: bool,
    /// The channel with the largest share of the score.
    channel: &'a str,
    share: f32,
}

/// Errors of the same windows under two models; lower is better.
#[derive(Serialize)]
struct Scores {
    metric: &'static str,
    candidate: Vec<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    champion: Option<Vec<f32>>,
}

impl Command {
    /// Does it, and tells whoever started it how that ended.
    pub fn run(&self) -> ExitCode {
        let done = match self {
            Command::Run(run) => run.run(),
            Command::Generate(generate) => generate.run(),
        };
        let Err(error) = done else { return ExitCode::SUCCESS };
        let input = error.is::<BadData>();
        let told: Vec<_> = error.chain().skip(usize::from(input)).map(ToString::to_string).collect();
        eprintln!("error: {}", told.join(": "));
        // Whoever runs it is to know whose fault it is.
        if input { ExitCode::from(DATA_ERROR) } else { ExitCode::FAILURE }
    }
}

/// The exit code for input that cannot be used, `EX_DATAERR` of sysexits.h.
const DATA_ERROR: u8 = 65;

/// Input that cannot be used.
#[derive(Debug)]
struct BadData;

impl std::fmt::Display for BadData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the input cannot be used")
    }
}

impl Run {
    fn run(&self) -> Result<()> {
        match self.kind {
            Kind::Execute => self.execute(),
            Kind::Learn => self.learn(),
            Kind::Evaluate => self.evaluate(),
        }
    }

    fn execute(&self) -> Result<()> {
        let model = self.wanted_model("score with")?;
        let request = Series::read(&self.input.join("request")).context(BadData)?;
        request.expect_channels(&model.about.channels, "the model").context(BadData)?;
        let length = model.about.parameters.window;
        let firsts = request.tiles(length).context(BadData)?;
        let windows: Vec<_> =
            firsts.iter().map(|&first| model.normalised(request.window(first, length))).collect();
        let errors = model.errors(&windows);
        let threshold = model.about.threshold;
        let scored = firsts.iter().zip(&errors).zip(scores(&errors)).map(|((first, errors), score)| {
            let total = errors.iter().sum::<f32>().max(f32::MIN_POSITIVE);
            let channels = errors.iter().zip(&model.about.channels);
            let (error, channel) =
                channels.max_by(|a, b| a.0.total_cmp(b.0)).expect("a series has one channel at least");
            let (first_row, last_row) = (first + 1, first + length);
            let (anomaly, share) = (score > threshold, error / total);
            Scored { first_row, last_row, score, anomaly, channel, share }
        });
        let response = Response { threshold, windows: scored.collect() };
        let anomalies = response.windows.iter().filter(|window| window.anomaly).count();
        println!("{anomalies} of {} windows are anomalies", firsts.len());
        self.write("response", &serde_json::to_vec(&response)?)
    }

    fn learn(&self) -> Result<()> {
        let parameters = self.parameters()?;
        let files = Series::read_all(&self.input).context(BadData)?;
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut known = self.model.as_deref().map(Model::load).transpose()?;
        if let Some(model) = &mut known {
            model.continue_with(&parameters)?;
        }
        let (channels, whose) = match &known {
            Some(model) => (&model.about.channels, "the model"),
            None => (&files[0].channels, "the first file"),
        };
        files.iter().try_for_each(|series| series.expect_channels(channels, whose)).context(BadData)?;
        let splits = files
            .iter()
            .map(|series| series.split(parameters.window))
            .collect::<Result<Vec<_>>>()
            .context(BadData)?;
        let windows: Vec<_> = splits.into_iter().flat_map(|split| split.learnt).collect();
        let fresh = || Model::fresh(&parameters, &files[0].channels, &windows, &mut rng);
        let mut model = known.unwrap_or_else(fresh);
        model.learn(&windows, &mut rng)?;
        println!("learnt from {} windows; the threshold is {}", windows.len(), model.about.threshold);
        self.write("model", &model.to_bytes())
    }

    fn evaluate(&self) -> Result<()> {
        let candidate = self.wanted_model("evaluate")?;
        let champion = self.champion.as_deref().map(Model::load).transpose()?;
        if let Some(champion) = &champion {
            let (ours, theirs) = (candidate.about.parameters.window, champion.about.parameters.window);
            ensure!(
                ours == theirs,
                "the candidate's windows have {ours} rows, the champion's {theirs}; want the same"
            );
        }
        let files = Series::read_all(&self.input).context(BadData)?;
        // Both are measured in the same units, whatever data their normalisation comes from.
        let unit = &champion.as_ref().unwrap_or(&candidate).deviation;
        let errors = |model: &Model| held_out_errors(model, &files, unit).context(BadData);
        let scores = Scores {
            metric: "reconstruction_error",
            candidate: errors(&candidate)?,
            champion: champion.as_ref().map(errors).transpose()?,
        };
        println!("evaluated on {} windows held out", scores.candidate.len());
        self.write("scores.json", &serde_json::to_vec(&scores)?)
    }

    fn wanted_model(&self, purpose: &str) -> Result<Model> {
        let Some(path) = &self.model else { bail!("REMORA_MODEL is not set; want a model to {purpose}") };
        Model::load(path)
    }

    fn parameters(&self) -> Result<Parameters> {
        let Some(path) = &self.parameters else { return Ok(Parameters::default()) };
        let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let parameters: Result<Parameters, _> =
            serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(&text));
        let parameters = parameters.with_context(|| path.display().to_string())?;
        parameters.check()?;
        Ok(parameters)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path: &Path = &self.output.join(name);
        std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Score of each window held out, in squared `unit`s of each channel.
fn held_out_errors(model: &Model, files: &[Series], unit: &[f32]) -> Result<Vec<f32>> {
    let mut windows = Vec::new();
    for series in files {
        series.expect_channels(&model.about.channels, "the model")?;
        let held_out = series.split(model.about.parameters.window)?.held_out;
        windows.extend(held_out.into_iter().map(|window| model.normalised(window)));
    }
    let mut errors = model.errors(&windows);
    for channels in &mut errors {
        for ((error, own), unit) in channels.iter_mut().zip(&model.deviation).zip(unit) {
            // JSON knows no infinity, where the units are worlds apart.
            *error = (*error * (own / unit).powi(2)).min(1e30);
        }
    }
    Ok(scores(&errors).collect())
}
