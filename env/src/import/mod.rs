//! Import of public traces: their files in, a scenario and its trace out.
//!
//! Each source has a module that says how its columns become nodes, datasets and arrivals. The
//! sources were recorded in data centres and say nothing of networks or disks; what had to be
//! assumed is written down there and in [`Imported::notes`], which go into the scenario file.
//! Files are read strictly: the first thing wrong is reported with its line, its column and what
//! would be right.

mod azure_functions;
mod azure_llm;
mod calendar;
mod edge;
mod genai;
mod genai_cluster;
mod openb;
mod table;
mod wfformat;

use std::path::{Path, PathBuf};

pub use azure_functions::{AzureFunctionsFiles, AzureFunctionsOptions, azure_functions};
pub use azure_llm::{AzureLlmOptions, azure_llm};
pub use edge::EdgeOptions;
pub use genai::genai;
pub use genai_cluster::GenaiOptions;
pub use openb::openb;
pub(crate) use table::Table;
pub use wfformat::{WfFormatOptions, wfformat};

use crate::file::write_whole;
use crate::scenario::ScenarioFile;
use crate::trace::{Trace, TraceError};

/// A scenario made from a public trace, with the arrivals of that trace.
#[derive(Clone, Debug)]
pub struct Imported {
    /// Without `workload.trace`, which [`Imported::write`] fills in.
    pub scenario: ScenarioFile,
    /// Arrivals in order of time.
    pub trace: Trace,
    /// Every assumption and rule that was applied, with how many rows it concerned.
    pub notes: Vec<String>,
}

/// Something that keeps a trace from being imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {reason}")]
    File { path: PathBuf, reason: String },
    #[error("{path}, line {line}: {reason}")]
    Line { path: PathBuf, line: usize, reason: String },
    #[error("{path}, line {line}, column {column}: {reason}")]
    Field { path: PathBuf, line: usize, column: String, reason: String },
    #[error("option {name} is {value}, {wanted}")]
    Option { name: &'static str, value: String, wanted: String },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Trace(#[from] TraceError),
}

impl Imported {
    /// Writes the scenario to `scenario_path` (`NAME.toml`) and the arrivals beside it to
    /// `NAME.trace.jsonl`; returns the path of the latter.
    ///
    /// Each file appears whole or not at all. The trace comes first, so that a scenario is never
    /// seen without it; when the scenario then cannot be written, a trace that is new is removed.
    pub fn write(&self, scenario_path: &Path) -> Result<PathBuf, ImportError> {
        let failed = |source| ImportError::Write { path: scenario_path.to_owned(), source };
        let trace_name = trace_name(scenario_path)?;
        let trace_path = scenario_path.with_file_name(&trace_name);
        let text = self.scenario_text(trace_name).map_err(|error| failed(std::io::Error::other(error)))?;

        let is_new = trace_path.symlink_metadata().is_err();
        self.trace.write(&trace_path)?;
        write_whole(scenario_path, |file| file.write_all(text.as_bytes())).map_err(|source| {
            if is_new {
                // The error to report is the first one; if this fails as well, a whole trace is left.
                let _ = std::fs::remove_file(&trace_path);
            }
            failed(source)
        })?;
        Ok(trace_path)
    }

    /// The scenario file: where it comes from and on what assumptions, as comments, and the TOML.
    fn scenario_text(&self, trace_name: String) -> Result<String, toml::ser::Error> {
        let mut scenario = self.scenario.clone();
        scenario.workload.trace = Some(trace_name);
        let mut text = format!("# From {}.\n", comment(&self.trace.header.source));
        for note in &self.notes {
            text.push_str(&format!("# - {}\n", comment(note)));
        }
        text.push('\n');
        text.push_str(&toml::to_string(&scenario)?);
        Ok(text)
    }
}

/// Name of the trace that belongs to a scenario file.
fn trace_name(scenario_path: &Path) -> Result<String, ImportError> {
    let name = scenario_path.file_name().and_then(|name| name.to_str());
    match name.and_then(|name| name.strip_suffix(".toml")) {
        Some(stem) if !stem.is_empty() => Ok(format!("{stem}.trace.jsonl")),
        _ => Err(ImportError::File {
            path: scenario_path.to_owned(),
            reason: "not a name for a scenario file; want one in UTF-8 that ends in .toml".to_owned(),
        }),
    }
}

/// Text on one line, as TOML allows it in comments: names of files may hold anything.
fn comment(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// Name of a source file without folder and extension.
fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}
