//! What a supervisor is asked to run, and how that is started.

use std::io::{self, ErrorKind, PipeWriter};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::super::Job;
use super::leftovers::MARK;
use crate::appcore::manifest::Limits;
use crate::appcore::run::RunKind;

/// The error of a file that is no program, `ENOEXEC`.
const NO_PROGRAM: i32 = 8;

/// What tells a command where Remora itself is.
const PROGRAM: &str = "REMORA_PROGRAM";

/// A job, as its supervisor needs to know it. It goes through a pipe, where nobody else sees the environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    pub command: Vec<String>,
    /// Absolute, without links.
    pub folder: PathBuf,
    pub environment: Vec<(String, String)>,
    pub limits: Limits,
    /// It leaves the processor to others: answers are waited for, models are not.
    pub patient: bool,
}

impl Order {
    pub fn new(job: &Job, folder: &Path) -> Order {
        let of_service = |name: &str, otherwise: &str| {
            (name.to_owned(), std::env::var(name).unwrap_or_else(|_| otherwise.to_owned()))
        };
        let mut environment = vec![
            of_service("PATH", "/usr/local/bin:/usr/bin:/bin"),
            of_service("HOME", "/"),
            of_service("LANG", "C.UTF-8"),
        ];
        environment.extend(job.environment.iter().cloned());
        Order {
            command: job.command.clone(),
            folder: folder.to_owned(),
            environment,
            limits: job.limits,
            patient: job.run.kind != RunKind::Execute,
        }
    }

    /// Starts the command, in a group of its own, with both its outputs into the same pipe.
    ///
    /// # Errors
    /// Why it cannot be run, and what would be right.
    pub fn start(&self, log: PipeWriter) -> Result<i32, String> {
        let (program, arguments) = self.command.split_first().ok_or("command: is empty, want a program")?;
        let started = log.try_clone().and_then(|errors| {
            Command::new(program)
                .args(arguments)
                .current_dir(&self.folder)
                .env_clear()
                .envs(self.environment.iter().map(|(name, value)| (name, value)))
                .env(MARK, &self.folder)
                // This very program, even where another release has taken its place on disk.
                .env(PROGRAM, format!("/proc/{}/exe", std::process::id()))
                .stdin(Stdio::null())
                .stdout(log)
                .stderr(errors)
                .process_group(0)
                .spawn()
        });
        started.map(|child| child.id().cast_signed()).map_err(|error| self.explain(program, &error))
    }

    fn explain(&self, program: &str, error: &io::Error) -> String {
        if !self.folder.is_dir() {
            return format!("folder {}: is gone", self.folder.display());
        }
        let wrong = match error.kind() {
            ErrorKind::NotFound => {
                "is not found, or what its first line names is not: want a file of the application with ./ before it, \
                 or a program on the path"
            }
            ErrorKind::PermissionDenied => "is not executable: want a file with the permission to execute it",
            _ if error.raw_os_error() == Some(NO_PROGRAM) => {
                "is no program of this machine: want one, or a first line such as #!/bin/sh"
            }
            _ => return format!("program {program:?}: {error}"),
        };
        format!("program {program:?}: {wrong}")
    }
}
