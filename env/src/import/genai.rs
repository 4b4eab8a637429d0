//! The Alibaba image-generation service of 2024 ("GenAI"): requests that need a base model each.
//!
//! Source: `lora_request_trace.csv` of `cluster-trace-v2026-GenAI` in alibaba/clusterdata, described
//! in Lin et al., "Understanding Diffusion Model Serving in Production", SoCC 2025.
//!
//! | column | becomes |
//! |---|---|
//! | `gmt_create` | arrival, seconds since the first request that ran |
//! | `exec_time_seconds` | execution time |
//! | `checkpoint_model_version_id` | the dataset that the request reads |
//! | `predict_status` | whether the request ran |
//!
//! Requests that succeeded, failed or were still processing occupied a GPU for the time recorded
//! and are kept; pending ones never ran and are left out. The recorded time is that of the whole
//! request and may include loading its model, which a replay then counts once more. Which LoRA
//! adapters a request used is not recorded, only how many; they are not modelled.
//!
//! The trace has no topology. [`GenaiOptions`] describes the one that it is replayed on: GPU servers
//! on edge sites, whose disks hold a few models each, and a store behind their uplinks with all.

use std::collections::BTreeSet;
use std::path::Path;

use super::calendar::seconds_since_1970;
use super::genai_cluster::{
    CPU_MILLIS_PER_GPU, GenaiOptions, IMAGE, MEMORY_MIB_PER_GPU, catalogue, topology,
};
use super::table::{Row, Table};
use super::{ImportError, Imported, stem};
use crate::scenario::ScenarioFile;
use crate::time::MOST_S;
use crate::trace::{Arrival, Trace};

const COLUMNS: [&str; 4] =
    ["gmt_create", "predict_status", "exec_time_seconds", "checkpoint_model_version_id"];
const WHAT: &str = "the request trace lora_request_trace.csv";
const SOURCE: &str = "alibaba/clusterdata cluster-trace-v2026-GenAI (for research and study)";

/// Imports the request trace. Every row becomes an arrival, except for pending requests.
pub fn genai(requests_csv: &Path, options: &GenaiOptions) -> Result<Imported, ImportError> {
    options.check()?;
    let (requests, pending) = read_requests(requests_csv, options.speedup)?;
    let models: BTreeSet<String> = requests.iter().map(|request| request.model.clone()).collect();
    let mut notes = notes(&requests, &pending, models.len());
    notes.extend(options.notes());
    let start = requests.iter().map(|request| request.created).min().expect("at least one ran");
    let mut arrivals: Vec<_> =
        requests.into_iter().map(|request| request.arrival(start, options.speedup)).collect();
    // Stable: requests of the same second stay in the order of the file.
    arrivals.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
    let scenario = ScenarioFile {
        name: stem(requests_csv),
        summary: format!(
            "{} image generations with {} base models on edge sites",
            arrivals.len(),
            models.len()
        ),
        topology: topology(options, models.len()),
        catalogue: catalogue(options, models),
        ..ScenarioFile::default()
    };
    let source = format!("{SOURCE}, {}", stem(requests_csv));
    let trace = Trace::of_arrivals(source, arrivals);
    Ok(Imported { scenario, trace, notes })
}

// Requests.

/// A request that ran.
struct Request {
    /// Row of the file, from 0: its name.
    row: usize,
    /// Seconds since 1970, in whatever time zone the trace is.
    created: i64,
    failed: bool,
    processing: bool,
    execution_s: f64,
    model: String,
}

/// Requests that never ran.
#[derive(Default)]
struct Pending {
    all: usize,
    without_model: usize,
}

impl Request {
    fn arrival(self, start: i64, speedup: f64) -> Arrival {
        Arrival {
            at_s: (self.created - start) as f64 / speedup,
            name: format!("request-{:05}", self.row),
            cpu_millis: CPU_MILLIS_PER_GPU,
            memory_bytes: u64::from(MEMORY_MIB_PER_GPU) * 1024 * 1024,
            accelerators: 1,
            accelerator_millis: 1000,
            image: Some(IMAGE.to_owned()),
            inputs: vec![self.model],
            duration_s: Some(self.execution_s),
            ..Arrival::default()
        }
    }
}

fn read_requests(path: &Path, speedup: f64) -> Result<(Vec<Request>, Pending), ImportError> {
    let table = Table::read(path, &COLUMNS, WHAT)?;
    let mut requests = Vec::new();
    let mut pending = Pending::default();
    for (index, row) in table.rows().enumerate() {
        let created = read_date(&row)?;
        let status = row.text("predict_status");
        let model = row.text("checkpoint_model_version_id");
        match status {
            "SUCCEED" | "FAILED" | "PROCESSING" if model.is_empty() => {
                return Err(
                    row.not("checkpoint_model_version_id", "a base model, which a request that ran has")
                );
            }
            "SUCCEED" | "FAILED" | "PROCESSING" => requests.push(Request {
                row: index,
                created,
                failed: status == "FAILED",
                processing: status == "PROCESSING",
                execution_s: row.seconds("exec_time_seconds")?,
                model: model.to_owned(),
            }),
            "PENDING" => {
                pending.all += 1;
                pending.without_model += usize::from(model.is_empty());
            }
            _ => return Err(row.not("predict_status", "one of SUCCEED, FAILED, PROCESSING, PENDING")),
        }
    }
    if requests.is_empty() {
        return Err(
            table.wrong(format!("all requests are pending, so there is nothing to replay; want {WHAT}"))
        );
    }
    let start = requests.iter().map(|request| request.created).min().unwrap_or(0);
    for row in table.rows() {
        if (read_date(&row)? - start) as f64 / speedup > MOST_S {
            let wanted = format!("within {MOST_S} seconds of the first request, once divided by the speedup");
            return Err(row.not("gmt_create", &wanted));
        }
    }
    Ok((requests, pending))
}

fn read_date(row: &Row<'_>) -> Result<i64, ImportError> {
    let seconds = seconds_since_1970(row.text("gmt_create"));
    seconds.ok_or_else(|| row.not("gmt_create", "a date and time such as 2024-11-15 16:57:50"))
}

// Notes.

fn notes(requests: &[Request], pending: &Pending, models: usize) -> Vec<String> {
    let count = |holds: &dyn Fn(&Request) -> bool| requests.iter().filter(|request| holds(request)).count();
    let disordered = requests.windows(2).filter(|pair| pair[1].created < pair[0].created).count();
    vec![
        format!("requests: {}; kept: {}", requests.len() + pending.all, requests.len()),
        format!(
            "pending requests, which never ran, left out: {}, of which {} name no base model",
            pending.all, pending.without_model
        ),
        format!("failed requests, kept with the time that they ran: {}", count(&|request| request.failed)),
        format!(
            "requests still processing, kept with the time so far: {}",
            count(&|request| request.processing)
        ),
        format!("requests with a duration of 0 s, kept: {}", count(&|request| request.execution_s == 0.0)),
        format!("requests earlier than the one above, sorted by gmt_create: {disordered}"),
        format!(
            "base models: {models}; LoRA adapters are not modelled, as the trace does not say which they are"
        ),
    ]
}
