//! `app.toml`: what an application is. Strict: what is not known is refused, with field and line.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::run::RunKind;
use super::schedule::Schedule;

/// Longest name of an application or trigger.
const LONGEST_NAME: usize = 48;
/// Longest time anything may be set to, seconds: a year.
const LONGEST_S: f64 = 366.0 * 86_400.0;
const MOST_TRIGGERS: usize = 100;

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

    pub fn check(&self) -> Result<(), Wrong> {
        let mut wrong = Vec::new();
        check_name("name", &self.name, &mut wrong);
        let commands = [
            ("execute", self.execute.as_ref().map(Execute::run)),
            ("learn", self.learn.clone()),
            ("evaluate", self.evaluate.clone()),
        ];
        if commands.iter().all(|(_, command)| command.is_none()) {
            wrong.push("execute: is missing, want a section [execute] or [learn]".to_owned());
        }
        for (name, command) in commands {
            if let Some(command) = command {
                check_command(name, &command, &mut wrong);
            }
        }
        if let Some(Execute { awake, .. }) = &self.execute {
            check_awake(awake, &mut wrong);
        }
        if self.evaluate.is_some() && self.learn.is_none() && self.execute.is_none() {
            wrong.push("evaluate: has nothing to evaluate, want a section [learn] too".to_owned());
        }
        self.check_files(&mut wrong);
        self.check_gate(&mut wrong);
        self.check_triggers(&mut wrong);
        if wrong.is_empty() { Ok(()) } else { Err(Wrong(wrong.join("\n"))) }
    }

    fn check_files(&self, wrong: &mut Vec<String>) {
        let mut names: Vec<_> = self.files.iter().map(|file| file_name(file)).collect();
        names.sort_unstable();
        for (index, file) in self.files.iter().enumerate() {
            if file_name(file).is_empty() || file.contains('\0') {
                wrong.push(format!("files[{index}]: is {file:?}, want the path of a file"));
            }
        }
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            wrong.push(format!("files: two are called {:?}, want different names", pair[0]));
        }
    }

    fn check_gate(&self, wrong: &mut Vec<String>) {
        let Gate { margin, confidence, samples, first, .. } = self.gate;
        within("gate.margin", margin, (0.0, 10.0), wrong);
        within("gate.confidence", confidence, (0.5, 0.9999), wrong);
        if !(2..=1_000_000).contains(&samples) {
            wrong.push(format!("gate.samples: is {samples}, want 2 to 1000000"));
        }
        if first.is_some_and(|first| !first.is_finite()) {
            wrong.push("gate.first: is not a finite number".to_owned());
        }
        let Failures { backoff_s, longest_backoff_s, quarantine_after } = self.failures;
        within("failures.backoff_s", backoff_s, (0.0, LONGEST_S), wrong);
        within("failures.longest_backoff_s", longest_backoff_s, (backoff_s.max(0.0), LONGEST_S), wrong);
        if quarantine_after == 0 {
            wrong.push("failures.quarantine_after: is 0, want at least 1".to_owned());
        }
    }

    fn check_triggers(&self, wrong: &mut Vec<String>) {
        if self.triggers.len() > MOST_TRIGGERS {
            wrong.push(format!("trigger: there are {}, want at most {MOST_TRIGGERS}", self.triggers.len()));
        }
        let mut names = Vec::new();
        for (index, trigger) in self.triggers.iter().enumerate() {
            let at = format!("trigger[{index}]");
            check_name(&format!("{at}.name"), &trigger.name, wrong);
            if names.contains(&&trigger.name) {
                wrong.push(format!("{at}.name: {:?} is another trigger's too", trigger.name));
            }
            names.push(&trigger.name);
            let missing = match trigger.run {
                Act::Learn if self.learn.is_none() => Some("learn"),
                Act::Execute if self.execute.is_none() => Some("execute"),
                _ => None,
            };
            if let Some(missing) = missing {
                wrong.push(format!("{at}.run: is {missing:?}, but there is no section [{missing}]"));
            }
            check_on(&at, &trigger.on, wrong);
        }
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

pub(super) fn check_name(field: &str, name: &str, wrong: &mut Vec<String>) {
    let plain = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if name.is_empty() || name.len() > LONGEST_NAME || !plain || name.starts_with('-') {
        let most = LONGEST_NAME;
        wrong.push(format!(
            "{field}: is {name:?}, want 1 to {most} lower-case letters, digits and dashes, no dash first"
        ));
    }
}

fn within(field: &str, value: f64, (least, most): (f64, f64), wrong: &mut Vec<String>) {
    if !(least..=most).contains(&value) {
        wrong.push(format!("{field}: is {value}, want {least} to {most}"));
    }
}

fn check_command(at: &str, command: &Command, wrong: &mut Vec<String>) {
    if command.command.first().is_none_or(String::is_empty) {
        wrong.push(format!("{at}.command: is empty, want a program and its arguments"));
    }
    if command.command.iter().any(|part| part.contains('\0')) {
        wrong.push(format!("{at}.command: has a zero byte"));
    }
    let Limits { timeout_s, cpu_millis, memory_mib, output_mib } = command.limits;
    within(&format!("{at}.limits.timeout_s"), timeout_s, (0.1, LONGEST_S), wrong);
    within(&format!("{at}.limits.cpu_millis"), f64::from(cpu_millis), (1.0, 1e6), wrong);
    within(&format!("{at}.limits.memory_mib"), f64::from(memory_mib), (1.0, 1e7), wrong);
    within(&format!("{at}.limits.output_mib"), f64::from(output_mib), (1.0, 1e5), wrong);
}

fn check_awake(awake: &Awake, wrong: &mut Vec<String>) {
    within("execute.awake.wake_deadline_s", awake.wake_deadline_s, (0.1, LONGEST_S), wrong);
    within("execute.awake.idle_s", awake.idle_s, (0.0, LONGEST_S), wrong);
    within("execute.awake.concurrency", f64::from(awake.concurrency), (1.0, 1000.0), wrong);
    within("execute.awake.queue", f64::from(awake.queue), (1.0, 100_000.0), wrong);
}

fn check_on(at: &str, on: &On, wrong: &mut Vec<String>) {
    match on {
        On::Schedule { cron, zone, catch_up_s } => {
            if let Err(error) = Schedule::read(cron, zone) {
                wrong.push(format!("{at}.{error}"));
            }
            within(&format!("{at}.catch_up_s"), *catch_up_s, (0.0, LONGEST_S), wrong);
        }
        On::Data { count, bytes, debounce_s, longest_s, folder } => {
            if *count == 0 || *bytes == Some(0) {
                wrong.push(format!("{at}: count and bytes want at least 1"));
            }
            within(&format!("{at}.debounce_s"), *debounce_s, (0.0, LONGEST_S), wrong);
            if let Some(longest_s) = longest_s {
                within(&format!("{at}.longest_s"), *longest_s, (*debounce_s, LONGEST_S), wrong);
            }
            if folder.as_ref().is_some_and(|folder| !folder.starts_with('/')) {
                wrong.push(format!("{at}.folder: want an absolute path"));
            }
        }
        On::Drift { metric, above, below, times } => {
            if metric.is_empty() || (above.is_none() && below.is_none()) {
                wrong.push(format!("{at}: want a metric, and above or below"));
            }
            if above.iter().chain(below).any(|bound| !bound.is_finite()) || *times == 0 {
                wrong.push(format!("{at}: above and below want finite numbers, times at least 1"));
            }
        }
        On::Manual {} => {}
    }
}
