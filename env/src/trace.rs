//! Traces: what arrived, what was decided and what became of it, in versioned JSON Lines.
//!
//! The first line is a header `{"remora_trace": 2, "source": …}`. Every other line is one
//! [`Record`], an object with one key that says what it is: `{"arrival": {…}}`, `{"decision": {…}}`
//! or `{"outcome": {…}}`, in order of time. Only arrivals are needed to replay a trace; decisions
//! and outcomes are what a recording adds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::accept::MOST_ACCELERATORS;
use crate::file::write_whole;
use crate::time::MOST_S;

/// Version of the format that this revision reads and writes.
pub const VERSION: u32 = 2;

/// First line of a trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Version of the format: [`VERSION`].
    pub remora_trace: u32,
    /// Where the trace comes from, for people.
    #[serde(default)]
    pub source: String,
}

/// One line of a trace after the header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// A task came.
    Arrival(Arrival),
    /// It was given a node.
    Decision(Decision),
    /// It ended.
    Outcome(Ended),
}

/// One task that arrived. It says itself what it requests and how long it takes, or names a `kind`
/// of the scenario's catalogue that does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Arrival {
    /// Seconds since the trace began; with `after`, when it was known to come.
    pub at_s: f64,
    /// Unique where other lines refer to it.
    pub name: String,
    /// Task kind of the scenario's catalogue; then the fields from `cpu_millis` to `duration_s` stay
    /// out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Requested CPU, thousandths of a core.
    #[serde(skip_serializing_if = "is_zero")]
    pub cpu_millis: u32,
    /// Requested memory.
    #[serde(skip_serializing_if = "is_zero_bytes")]
    pub memory_bytes: u64,
    /// Requested accelerators.
    #[serde(skip_serializing_if = "is_zero")]
    pub accelerators: u32,
    /// Share of each accelerator, thousandths.
    #[serde(skip_serializing_if = "is_zero")]
    pub accelerator_millis: u32,
    /// Models that will do; any if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub accelerator_models: Vec<String>,
    /// Execution time wherever it runs, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_s: Option<f64>,
    /// Seconds from arrival after which its result is late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_s: Option<f64>,
    /// Of the tasks that wait on a node, those with the highest go first.
    #[serde(skip_serializing_if = "is_zero_priority")]
    pub priority: i32,
    /// Image of the scenario's catalogue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Datasets of the scenario's catalogue that it reads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<String>,
    /// Datasets of the scenario's catalogue that it writes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
    /// Names of earlier tasks: it arrives when they have all completed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// Dataset of which new data appears at its home with this arrival.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renews: Option<String>,
    /// Quantile of its execution time among those of its kind, 0 to 1; drawn if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub luck: Option<f64>,
}

/// A task was given a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// Seconds since the trace began.
    pub at_s: f64,
    /// Name of the task.
    pub task: String,
    /// Where it was sent.
    pub node: String,
    /// Who decided.
    pub policy: String,
    /// Weight of data moved against response time, 0 to 1.
    pub alpha: f64,
    /// What the policy said of the node, higher is better; comparable within one decision only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Why another policy than the one in charge decided; empty if none did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fallback: String,
}

/// What became of a task. Times are seconds since the trace began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ended {
    /// When it ended.
    pub at_s: f64,
    /// Name of the task.
    pub task: String,
    /// `completed`, or why it was not: see [`crate::outcome::End`].
    pub end: crate::outcome::End,
    /// Absent where it never ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// It arrived.
    pub arrived_s: f64,
    /// Its requests were set aside.
    pub admitted_s: f64,
    /// Image and inputs were there.
    pub fetched_s: f64,
    /// Its container ran.
    pub started_s: f64,
    /// It had computed its result.
    pub executed_s: f64,
    /// Pulled for it.
    pub image_bytes: u64,
    /// Read for it.
    pub input_bytes: u64,
    /// Stored elsewhere.
    pub output_bytes: u64,
    /// All of these, each byte at the price of the dearest link that it crossed.
    pub moved_bytes: f64,
    /// Of them, those that left a site.
    pub wan_bytes: u64,
    /// How often it was tried again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: u32,
    /// It came to its result, too late.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deadline_missed: bool,
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

fn is_zero_bytes(value: &u64) -> bool {
    *value == 0
}

fn is_zero_priority(value: &i32) -> bool {
    *value == 0
}

/// A recording or an imported workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Version and origin.
    pub header: Header,
    /// In order of time.
    pub records: Vec<Record>,
}

/// Why a trace could not be read or written.
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
    /// A trace of arrivals alone, which are in order of time.
    pub fn of_arrivals(source: String, arrivals: Vec<Arrival>) -> Trace {
        let records = arrivals.into_iter().map(Record::Arrival).collect();
        Trace { header: Header { remora_trace: VERSION, source }, records }
    }

    /// What arrived, in order of time.
    pub fn arrivals(&self) -> impl Iterator<Item = &Arrival> {
        self.records.iter().filter_map(|record| match record {
            Record::Arrival(arrival) => Some(arrival),
            _ => None,
        })
    }

    /// What arrived, cut into traces of `size` arrivals, each from its own beginning; what is left over is left
    /// out. What came after tasks of an earlier window comes when it was known to come, and does not read what of
    /// the `homeless` datasets only those wrote.
    pub fn windows(&self, size: usize, homeless: &BTreeSet<String>) -> Vec<Trace> {
        let arrivals: Vec<&Arrival> = self.arrivals().collect();
        let windows = arrivals.chunks_exact(size.max(1));
        let window = |window: &[&Arrival]| {
            // What each task of the window and those before it wrote.
            let mut written: BTreeMap<&str, BTreeSet<&String>> = BTreeMap::new();
            let mut arrivals = Vec::with_capacity(size);
            for &arrival in window {
                let mut cut = Arrival { at_s: arrival.at_s - window[0].at_s, ..arrival.clone() };
                cut.after.retain(|name| written.contains_key(name.as_str()));
                let before = arrival.after.iter().filter_map(|name| written.get(name.as_str()));
                let mut there: BTreeSet<&String> = before.flatten().copied().collect();
                cut.inputs.retain(|name| !homeless.contains(name) || there.contains(name));
                there.extend(arrival.outputs.iter().filter(|name| homeless.contains(*name)));
                written.insert(&arrival.name, there);
                arrivals.push(cut);
            }
            Trace::of_arrivals(self.header.source.clone(), arrivals)
        };
        windows.map(window).collect()
    }

    /// Reads and checks a trace file.
    pub fn read(path: &Path) -> Result<Trace, TraceError> {
        let read = |source| TraceError::Read { path: path.to_owned(), source };
        Trace::parse(BufReader::new(File::open(path).map_err(read)?), path)
    }

    /// Reads and checks a trace; `path` names it in errors.
    pub fn parse(text: impl BufRead, path: &Path) -> Result<Trace, TraceError> {
        let wrong = |line: usize, reason: String| TraceError::Line { path: path.to_owned(), line, reason };
        let mut header = None;
        let mut records = Vec::new();
        let mut reader = Reader::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.map_err(|error| wrong(index + 1, error.to_string()))?;
            if header.is_none() {
                header = Some(parse_header(&line).map_err(|reason| wrong(index + 1, reason))?);
                continue;
            }
            let record: Record = parse_line(&line).map_err(|reason| wrong(index + 1, reason))?;
            reader.check(&record).map_err(|reason| wrong(index + 1, reason))?;
            records.push(record);
        }
        let header = header.ok_or_else(|| wrong(1, "the file is empty; a header is missing".to_owned()))?;
        Ok(Trace { header, records })
    }

    /// Writes the trace; the file appears whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), TraceError> {
        let failed = |source| TraceError::Write { path: path.to_owned(), source };
        write_whole(path, |file| self.lines(file)).map_err(failed)
    }

    /// The trace as it stands in a file.
    pub fn to_text(&self) -> String {
        let mut text = Vec::new();
        self.lines(&mut text).expect("memory takes everything, and plain data becomes JSON");
        String::from_utf8(text).expect("JSON is UTF-8")
    }

    fn lines(&self, file: &mut dyn Write) -> std::io::Result<()> {
        serde_json::to_writer(&mut *file, &self.header)?;
        for record in &self.records {
            file.write_all(b"\n")?;
            serde_json::to_writer(&mut *file, record)?;
        }
        file.write_all(b"\n")
    }
}

fn parse_header(line: &str) -> Result<Header, String> {
    let header: Header = parse_line(line).map_err(|reason| format!("not a trace header: {reason}"))?;
    if header.remora_trace != VERSION {
        return Err(format!("remora_trace is {}, only version {VERSION} is read", header.remora_trace));
    }
    Ok(header)
}

/// Reads one line, or says which field is wrong and how.
fn parse_line<T: serde::de::DeserializeOwned>(line: &str) -> Result<T, String> {
    let mut reader = serde_json::Deserializer::from_str(line);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let field = error.path().to_string();
        let reason = in_line(error.inner());
        if field == "." { reason } else { format!("{field}: {reason}") }
    })?;
    reader.end().map_err(|error| in_line(&error))?;
    Ok(value)
}

/// The error, which counts lines from its own beginning, without its line.
fn in_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.replace(&format!(" at line {} column", error.line()), " at column")
}

/// What has been read so far, against which the next record is checked.
#[derive(Default)]
struct Reader {
    at_s: f64,
    /// Names of the tasks that arrived.
    names: BTreeSet<String>,
    /// Whether any of them is named by another record, so that names must be distinct.
    distinct: bool,
}

impl Reader {
    fn check(&mut self, record: &Record) -> Result<(), String> {
        let at_s = match record {
            Record::Arrival(arrival) => arrival.at_s,
            Record::Decision(decision) => decision.at_s,
            Record::Outcome(ended) => ended.at_s,
        };
        seconds("at_s", at_s)?;
        if at_s < self.at_s {
            return Err(format!("at_s is {at_s}, before the {} of the line above", self.at_s));
        }
        self.at_s = at_s;
        match record {
            Record::Arrival(arrival) => self.arrival(arrival),
            Record::Decision(decision) => {
                share("alpha", decision.alpha)?;
                self.known("task", &decision.task)
            }
            Record::Outcome(ended) => self.known("task", &ended.task),
        }
    }

    fn arrival(&mut self, arrival: &Arrival) -> Result<(), String> {
        match (&arrival.kind, arrival.duration_s) {
            (None, None) => return Err("duration_s is missing; want it, or the kind of the task".to_owned()),
            (None, Some(duration_s)) => seconds("duration_s", duration_s)?,
            (Some(_), _) => check_kind_alone(arrival)?,
        }
        at_most("accelerators", arrival.accelerators, MOST_ACCELERATORS)?;
        at_most("accelerator_millis", arrival.accelerator_millis, 1000)?;
        seconds("deadline_s", arrival.deadline_s.unwrap_or(0.0))?;
        share("luck", arrival.luck.unwrap_or(0.5))?;
        for name in &arrival.after {
            self.known("after", name)?;
        }
        if !self.names.insert(arrival.name.clone()) && (self.distinct || !arrival.after.is_empty()) {
            return Err(format!(
                "name {:?} is used twice, and other lines refer to tasks by name",
                arrival.name
            ));
        }
        Ok(())
    }

    fn known(&mut self, field: &str, name: &str) -> Result<(), String> {
        self.distinct = true;
        let known = self.names.contains(name);
        known.then_some(()).ok_or_else(|| format!("{field}: no task {name:?} arrived before this line"))
    }
}

/// A task that names its kind leaves the rest to it.
fn check_kind_alone(arrival: &Arrival) -> Result<(), String> {
    let doubled = [
        ("cpu_millis", arrival.cpu_millis > 0),
        ("memory_bytes", arrival.memory_bytes > 0),
        ("accelerators", arrival.accelerators > 0),
        ("accelerator_millis", arrival.accelerator_millis > 0),
        ("accelerator_models", !arrival.accelerator_models.is_empty()),
        ("duration_s", arrival.duration_s.is_some()),
        ("deadline_s", arrival.deadline_s.is_some()),
        ("priority", arrival.priority != 0),
    ];
    match doubled.iter().find(|(_, given)| *given) {
        Some((field, _)) => Err(format!("{field} is given, and so is kind, which says it; want one of them")),
        None => Ok(()),
    }
}

fn seconds(field: &str, value: f64) -> Result<(), String> {
    let holds = (0.0..=MOST_S).contains(&value);
    holds.then_some(()).ok_or_else(|| format!("{field} is {value}, want seconds from 0 to 1e8"))
}

fn at_most(field: &str, value: u32, most: u32) -> Result<(), String> {
    (value <= most).then_some(()).ok_or_else(|| format!("{field} is {value}, want at most {most}"))
}

fn share(field: &str, value: f64) -> Result<(), String> {
    let holds = (0.0..=1.0).contains(&value);
    holds.then_some(()).ok_or_else(|| format!("{field} is {value}, want a number from 0 to 1"))
}
