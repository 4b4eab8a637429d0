//! Runs: one execution, learning or evaluation each, and what they leave.

use std::collections::BTreeSet;
use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunKind {
    Execute,
    Learn,
    Evaluate,
}

impl RunKind {
    pub const ALL: [RunKind; 3] = [RunKind::Execute, RunKind::Learn, RunKind::Evaluate];

    pub fn name(self) -> &'static str {
        match self {
            RunKind::Execute => "execute",
            RunKind::Learn => "learn",
            RunKind::Evaluate => "evaluate",
        }
    }

    pub fn named(name: &str) -> Option<RunKind> {
        RunKind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl Display for RunKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It waits until its application is ready for it.
    Queued,
    /// A node is looked for, and what it needs is brought there.
    Launching,
    Running,
    /// It saved its state and gave way to a request.
    Paused,
    Succeeded,
    Failed,
    /// Somebody did not want it any more.
    Cancelled,
}

impl Status {
    pub const ALL: [Status; 7] = [
        Status::Queued,
        Status::Launching,
        Status::Running,
        Status::Paused,
        Status::Succeeded,
        Status::Failed,
        Status::Cancelled,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Status::Queued => "queued",
            Status::Launching => "launching",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Succeeded => "succeeded",
            Status::Failed => "failed",
            Status::Cancelled => "cancelled",
        }
    }

    pub fn named(name: &str) -> Option<Status> {
        Status::ALL.into_iter().find(|status| status.name() == name)
    }

    /// Somebody is at it.
    pub fn under_way(self) -> bool {
        matches!(self, Status::Launching | Status::Running)
    }

    pub fn over(self) -> bool {
        matches!(self, Status::Succeeded | Status::Failed | Status::Cancelled)
    }
}

impl Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Something that a run reads or wrote, by the SHA-256 of its contents.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Blob {
    /// As the run finds or left it in its folder.
    pub name: String,
    pub hash: String,
    pub bytes: u64,
}

/// The same files, of which no two have one name: a later one with a name that is taken gets a number before its ending.
pub fn distinct(blobs: Vec<Blob>) -> Vec<Blob> {
    let mut taken = BTreeSet::new();
    let mut named = Vec::with_capacity(blobs.len());
    for blob in blobs {
        let (stem, ending) = match blob.name.rsplit_once('.') {
            Some((stem, ending)) if !stem.is_empty() && !ending.contains('/') => (stem, format!(".{ending}")),
            _ => (blob.name.as_str(), String::new()),
        };
        let numbered = (2..).map(|number: u64| format!("{stem}-{number}{ending}"));
        let mut names = std::iter::once(blob.name.clone()).chain(numbered);
        let name = names.find(|name| !taken.contains(name)).expect("there are numbers enough");
        taken.insert(name.clone());
        named.push(Blob { name, ..blob });
    }
    named
}

/// What a run needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Seconds of processor time.
    pub cpu_s: f64,
    /// Most memory at a time.
    pub memory_bytes: u64,
    /// Written as output and log.
    pub output_bytes: u64,
}

/// One execution, learning or evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The application's name, a dot and a number.
    pub id: String,
    pub app: String,
    pub kind: RunKind,
    pub status: Status,
    /// The version that it runs; of an evaluation, the one that it judges.
    pub version: u32,
    /// What made it: a request, a trigger, a run, an operator.
    pub cause: String,
    pub actor: String,
    /// Idempotency key of an execution.
    pub request: Option<String>,
    pub seed: u64,
    pub inputs: Vec<Blob>,
    /// Attempts so far, with those that a restart of the service or a pause interrupted.
    pub attempt: u32,
    pub queued_ms: i64,
    pub started_ms: Option<i64>,
    pub ended_ms: Option<i64>,
    /// Where it ran, and the decision that put it there.
    pub node: Option<String>,
    pub decision: Option<String>,
    /// Exit code, where it ended by itself.
    pub exit: Option<i32>,
    /// Why it failed or was cancelled.
    pub reason: Option<String>,
    /// Everything it wrote, its log among it.
    pub outputs: Vec<Blob>,
    pub usage: Usage,
    /// The run that it repeats.
    pub again: Option<String>,
}

impl Run {
    /// Whether a text, in small letters, is somewhere in what people know it by: its id, kind, status, node, cause, actor
    /// or reason, or the name or hash of something that it read or wrote.
    pub fn mentions(&self, text: &str) -> bool {
        let own = [self.kind.name(), self.status.name(), &self.id, &self.cause, &self.actor];
        let others = [&self.node, &self.reason].into_iter().flatten().map(String::as_str);
        let blobs = self.inputs.iter().chain(&self.outputs).flat_map(|blob| [&*blob.name, &*blob.hash]);
        own.into_iter().chain(others).chain(blobs).any(|told| told.to_lowercase().contains(text))
    }

    /// A run before anything happened to it.
    pub fn new(id: &str, app: &str, kind: RunKind) -> Run {
        Run {
            id: id.to_owned(),
            app: app.to_owned(),
            kind,
            status: Status::Queued,
            version: 0,
            cause: String::new(),
            actor: String::new(),
            request: None,
            seed: 0,
            inputs: Vec::new(),
            attempt: 0,
            queued_ms: 0,
            started_ms: None,
            ended_ms: None,
            node: None,
            decision: None,
            exit: None,
            reason: None,
            outputs: Vec::new(),
            usage: Usage::default(),
            again: None,
        }
    }
}

/// How a run ended, as whoever ran it tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// Its command ended with code 0.
    Success {
        scores: Option<super::gate::Scores>,
    },
    /// It saved its state and stopped, as it was told.
    Saved,
    /// What it was asked is wrong (exit code 65): not the application's fault.
    Refused {
        reason: String,
    },
    Failure {
        reason: String,
        exit: Option<i32>,
    },
    Cancelled {
        reason: String,
    },
}

/// What a run left when it ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Left {
    pub outputs: Vec<Blob>,
    pub usage: Usage,
}

impl Left {
    /// The model that it wrote.
    pub fn model(&self) -> Option<&Blob> {
        self.outputs.iter().find(|blob| blob.name == MODEL)
    }
}

/// The exit code of a command that could not use what it was given (`EX_DATAERR` of sysexits.h).
pub const DATA_ERROR: u8 = 65;

/// Names in a run's folders.
pub const MODEL: &str = "model";
pub const REQUEST: &str = "request";
pub const RESPONSE: &str = "response";
pub const SCORES: &str = "scores.json";
pub const LOG: &str = "log";

#[cfg(test)]
mod tests {
    use super::{Blob, distinct};

    #[test]
    fn files_of_one_name_are_told_apart() {
        let named = |name: &str| Blob { name: name.to_owned(), hash: String::new(), bytes: 0 };
        let given = ["a.csv", "a.csv", "a-2.csv", "b", "b", "x.y/b", "x.y/b"].map(named).to_vec();
        let names: Vec<_> = distinct(given).into_iter().map(|blob| blob.name).collect();
        assert_eq!(names, ["a.csv", "a-2.csv", "a-2-2.csv", "b", "b-2", "x.y/b", "x.y/b-2"]);
    }
}
