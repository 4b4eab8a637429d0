//! Where runs are carried out: a job is a folder, a command and limits; an executor runs it on a node.

pub mod kubernetes;
pub mod process;
pub mod simulated;

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::manifest::Limits;
use super::run::{Run, Usage};

/// Names in a job's folder.
pub const INPUT: &str = "input";
pub const OUTPUT: &str = "output";

/// Something to run, made ready.
#[derive(Clone, Debug)]
pub struct Job {
    pub run: Run,
    /// Program and arguments.
    pub command: Vec<String>,
    pub image: Option<String>,
    pub limits: Limits,
    /// Where it runs: the files of the application, `input` with what it reads, `output` for what it writes, and `log`,
    /// into which the executor writes what it says.
    pub folder: PathBuf,
    /// All that it is told, besides what a shell needs (`PATH`, `HOME`, `LANG`).
    pub environment: Vec<(String, String)>,
    /// Name of the node.
    pub node: String,
}

/// How to stop a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It may save its state first, for so long as [`GRACE`](process::GRACE).
    Save,
    /// At once.
    Now,
}

/// How a job ended. None of its processes runs any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Exit {
    Code(i32),
    Signal(i32),
    /// It ran longer than `timeout_s`.
    TimedOut,
    /// It used more than `memory_mib`.
    Memory,
    /// It wrote more than `output_mib`.
    Output,
    /// It was told to stop.
    Stopped,
    /// It could not be run, or nobody knows how it ended.
    Broken(String),
}

/// Carries out jobs on nodes of one kind.
#[tonic::async_trait]
pub trait Executor: Send + Sync + Debug {
    /// Runs a job until it ends or is stopped.
    async fn run(&self, job: &Job, stop: watch::Receiver<Option<Stop>>) -> (Exit, Usage);

    /// Ends what an earlier service left running of a job in this folder.
    async fn reap(&self, folder: &Path);
}
