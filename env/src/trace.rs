//! Traces: arrivals as recorded, in versioned JSON Lines.
//!
//! The first line is a header `{"remora_trace": 1, "source": …}`; every other line is one
//! arrival. Times do not decrease.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::file::write_whole;

/// Version of the format that this revision reads and writes.
pub const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    pub remora_trace: u32,
    /// Where the trace comes from, for people.
    #[serde(default)]
    pub source: String,
}

/// One task that arrived.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arrival {
    /// Seconds since the trace began.
    pub at_s: f64,
    pub name: String,
    pub cpu_millis: u32,
    pub memory_bytes: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub accelerators: u32,
    /// Share of each accelerator, thousandths.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub accelerator_millis: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accelerator_models: Vec<String>,
    /// Image of the scenario's catalogue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Datasets of the scenario's catalogue.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<String>,
    /// Execution time wherever it runs, seconds.
    pub duration_s: f64,
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    pub header: Header,
    pub arrivals: Vec<Arrival>,
}

#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error("cannot read trace {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write trace {path}: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("trace {path}, line {line}: {reason}")]
    Line { path: PathBuf, line: usize, reason: String },
}

impl Trace {
    /// Reads and checks a trace file.
    pub fn read(path: &Path) -> Result<Trace, TraceError> {
        let read = |source| TraceError::Read { path: path.to_owned(), source };
        let reader = BufReader::new(File::open(path).map_err(read)?);
        let wrong = |line: usize, reason: String| TraceError::Line { path: path.to_owned(), line, reason };
        let mut header = None;
        let mut arrivals: Vec<Arrival> = Vec::new();
        for (index, line) in reader.lines().enumerate() {
            let line = line.map_err(|error| wrong(index + 1, error.to_string()))?;
            if header.is_none() {
                header = Some(parse_header(&line).map_err(|reason| wrong(index + 1, reason))?);
                continue;
            }
            let arrival: Arrival =
                serde_json::from_str(&line).map_err(|error| wrong(index + 1, error.to_string()))?;
            check(&arrival, arrivals.last()).map_err(|reason| wrong(index + 1, reason))?;
            arrivals.push(arrival);
        }
        let header = header.ok_or_else(|| wrong(1, "the file is empty; a header is missing".to_owned()))?;
        Ok(Trace { header, arrivals })
    }

    /// Writes the trace; the file appears whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), TraceError> {
        let failed = |source| TraceError::Write { path: path.to_owned(), source };
        write_whole(path, |file| {
            serde_json::to_writer(&mut *file, &self.header)?;
            for arrival in &self.arrivals {
                file.write_all(b"\n")?;
                serde_json::to_writer(&mut *file, arrival)?;
            }
            file.write_all(b"\n")
        })
        .map_err(failed)
    }
}

fn parse_header(line: &str) -> Result<Header, String> {
    let header: Header =
        serde_json::from_str(line).map_err(|error| format!("not a trace header: {error}"))?;
    if header.remora_trace != VERSION {
        return Err(format!("version {} is not supported, only {VERSION}", header.remora_trace));
    }
    Ok(header)
}

fn check(arrival: &Arrival, before: Option<&Arrival>) -> Result<(), String> {
    let positive = |field: &str, value: f64| {
        let holds = (0.0..=1e9).contains(&value);
        holds.then_some(()).ok_or(format!("{field} is {value}, want seconds from 0 to 1e9"))
    };
    positive("at_s", arrival.at_s)?;
    positive("duration_s", arrival.duration_s)?;
    match before {
        Some(before) if before.at_s > arrival.at_s => {
            Err(format!("at_s is {}, before the {} of the line above", arrival.at_s, before.at_s))
        }
        _ => Ok(()),
    }
}
