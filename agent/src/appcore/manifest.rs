//! `app.toml`: what an application is. Strict: what is not known is refused, with field and line.

mod check;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::run::RunKind;

/// An application.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Lower-case letters, digits and dashes, at most 48.
    pub name: String,
    /// What it is for, in a line.
    #[serde(default)]
    pub about: String,
    /// Files that its commands need, relative to this one; they stand in the working folder under their own names.
    #[serde(default)]
    pub files: Vec<String>,
    /// Answers requests.
    pub execute: Option<Execute>,
    /// Makes a model from data, or a better one from a model and more data.
    pub learn: Option<Command>,
    /// Compares a model with the champion's.
    pub evaluate: Option<Command>,
    /// What a learnt version must be to be promoted.
    #[serde(default)]
    pub gate: Gate,
    /// How failures are met.
    #[serde(default)]
    pub failures: Failures,
    /// How much of its past is kept.
    #[serde(default)]
    pub keep: Keep,
    /// What makes it learn or execute, besides requests.
    #[serde(default, rename = "trigger")]
    pub triggers: Vec<Trigger>,
    /// Names of datasets of the cluster that runs read: where they lie weighs in the placement.
    #[serde(default)]
    pub datasets: Vec<String>,
    /// Anything its commands want to know; they find it as JSON.
    #[serde(default)]
    pub parameters: BTreeMap<String, serde_json::Value>,
}

/// A command and what it may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Program and arguments; the program is one of `files`, with `./` before it, or found on the path.
    pub command: Vec<String>,
    /// Container image, for nodes that run containers.
    pub image: Option<String>,
    #[serde(default)]
    pub limits: Limits,
}

/// What a run may use.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Seconds after which it is stopped.
    pub timeout_s: f64,
    /// CPU that it asks for, thousandths of a core.
    pub cpu_millis: u32,
    /// Memory that it asks for, and that it may use at most, MiB.
    pub memory_mib: u32,
    /// Most that it may write as output and log together, MiB.
    pub output_mib: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { timeout_s: 600.0, cpu_millis: 500, memory_mib: 512, output_mib: 64 }
    }
}

/// How requests are answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Execute {
    /// As in [`Command`].
    pub command: Vec<String>,
    pub image: Option<String>,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub awake: Awake,
}

impl Execute {
    pub fn run(&self) -> Command {
        Command { command: self.command.clone(), image: self.image.clone(), limits: self.limits }
    }
}

/// How it wakes, and how long it stays awake.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Awake {
    /// Makes it ready: what runs once before the first request is answered.
    pub wake: Vec<String>,
    /// Seconds in which it must be ready.
    pub wake_deadline_s: f64,
    /// Seconds without a request after which it sleeps.
    pub idle_s: f64,
    /// Requests that are executed at the same time.
    pub concurrency: u32,
    /// Requests that may wait; further ones are refused.
    pub queue: u32,
    /// It executes only with a model, so there must be a promoted version that has one.
    pub needs_model: bool,
    /// What happens to learning when a request comes.
    pub while_learning: WhileLearning,
    /// An execution that a restart of the service interrupted is done again.
    pub retry_interrupted: bool,
}

impl Default for Awake {
    fn default() -> Awake {
        Awake {
            wake: Vec::new(),
            wake_deadline_s: 60.0,
            idle_s: 60.0,
            concurrency: 1,
            queue: 100,
            needs_model: false,
            while_learning: WhileLearning::Serve,
            retry_interrupted: true,
        }
    }
}

/// What happens to learning when a request comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhileLearning {
    /// The promoted version answers while learning goes on.
    Serve,
    /// Learning is told to save its state and to stop (SIGTERM); it goes on from there once the application sleeps
    /// again. For small nodes.
    Pause,
}

/// What a version must be to be promoted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Gate {
    /// Better is lower, or higher.
    pub better: Better,
    /// How much better than the champion it must be, relative to it: 0.01 is one per cent.
    pub margin: f64,
    /// How sure that has to be: the one-sided confidence of a paired bootstrap.
    pub confidence: f64,
    /// Least number of pairs.
    pub samples: u32,
    /// The first version, which has nobody to be better than, must be at least as good as this.
    pub first: Option<f64>,
    /// Who promotes what has passed.
    pub promote: Promote,
    /// The version before takes over where so many executions in a row fail after a promotion.
    pub roll_back_after: u32,
}

impl Default for Gate {
    fn default() -> Gate {
        Gate {
            better: Better::Lower,
            margin: 0.0,
            confidence: 0.95,
            samples: 20,
            first: None,
            promote: Promote::Auto,
            roll_back_after: 3,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    Lower,
    Higher,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Promote {
    /// The gate.
    Auto,
    /// An operator.
    Ask,
}

/// How failures are met.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Failures {
    /// Seconds before learning is tried again after a failure; it doubles with each.
    pub backoff_s: f64,
    /// The longest it becomes.
    pub longest_backoff_s: f64,
    /// Failures in a row after which the application is set aside.
    pub quarantine_after: u32,
}

impl Default for Failures {
    fn default() -> Failures {
        Failures { backoff_s: 10.0, longest_backoff_s: 3600.0, quarantine_after: 5 }
    }
}

/// How much of the past is kept: all of it, unless something is said here. What is over either limit is forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keep {
    /// Most runs that are over; the oldest are forgotten with all that they read and wrote.
    pub runs: Option<u32>,
    /// Days after their end for which runs are kept.
    pub days: Option<u32>,
}

/// Something that makes the application act.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    /// As an application's name.
    pub name: String,
    /// What it makes the application do.
    #[serde(default = "learn")]
    pub run: Act,
    /// What happens when it fires and the application is still at it.
    #[serde(default)]
    pub overlap: Overlap,
    /// When it fires: `on.schedule`, `on.data`, `on.drift` or `on.manual`.
    pub on: On,
}

fn learn() -> Act {
    Act::Learn
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    Learn,
    Execute,
}

/// What happens to what fires while the last is not done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Overlap {
    /// It is skipped; data that came stays for the next time.
    #[default]
    Skip,
    /// It waits, at most 100 of them.
    Buffer,
    /// What is under way is cancelled.
    Cancel,
}

/// When a trigger fires.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum On {
    /// At times.
    Schedule {
        /// Five fields: minute, hour, day of month, month, day of week; six with seconds before them.
        cron: String,
        /// Time zone, such as `Europe/Paris`.
        #[serde(default = "utc")]
        zone: String,
        /// A time that passed while the service was down is caught up with if it is not longer ago, seconds.
        #[serde(default = "an_hour")]
        catch_up_s: f64,
    },
    /// When data has come: through a notice, or as files in a folder.
    Data {
        /// After so many items.
        #[serde(default = "one")]
        count: u64,
        /// Or after so many bytes.
        bytes: Option<u64>,
        /// Not before it has been quiet for so many seconds.
        #[serde(default)]
        debounce_s: f64,
        /// Or once the oldest has waited for so many seconds, however few there are.
        longest_s: Option<f64>,
        /// Folder on the server whose new files are such data.
        folder: Option<String>,
    },
    /// When a reported metric leaves its bounds.
    Drift {
        metric: String,
        above: Option<f64>,
        below: Option<f64>,
        /// Reports in a row.
        #[serde(default = "one")]
        times: u64,
    },
    /// Only when somebody says so.
    Manual {},
}

fn utc() -> String {
    "UTC".to_owned()
}

fn an_hour() -> f64 {
    3600.0
}

fn one() -> u64 {
    1
}

/// What is wrong with a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Wrong(pub String);

impl Manifest {
    /// Reads and checks it.
    ///
    /// # Errors
    /// All that is wrong, a line each, with the field's name and what would be right.
    pub fn read(text: &str) -> Result<Manifest, Wrong> {
        let manifest: Manifest = toml::from_str(text)
            .map_err(|error| Wrong(format!("app.toml: {}", error.to_string().trim_end())))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The JSON Schema of the format.
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Manifest).to_value()
    }

    /// The command of a kind of run.
    pub fn command(&self, kind: RunKind) -> Option<Command> {
        match kind {
            RunKind::Execute => self.execute.as_ref().map(Execute::run),
            RunKind::Learn => self.learn.clone(),
            RunKind::Evaluate => self.evaluate.clone(),
        }
    }
}

/// The last part of a path.
pub fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}
