//! Azure's LLM inference services of 2023: requests with their numbers of tokens.
//!
//! Source: `AzureLLMInferenceTrace_*.csv` of Azure/AzurePublicDataset (CC-BY-4.0), described in Patel
//! et al., "Splitwise: Efficient Generative LLM Inference Using Phase Splitting", ISCA 2024.
//!
//! | column | becomes |
//! |---|---|
//! | `TIMESTAMP` | arrival, seconds since the first request |
//! | `ContextTokens`, `GeneratedTokens` | execution time, at the options' seconds per token |
//!
//! The trace says neither which model nor which machine. Requests read one model, at home in the
//! store, and hold a share of an accelerator.

use std::path::Path;

use super::calendar::seconds_since_1970;
use super::edge::{EdgeOptions, STORE, within};
use super::table::{Row, Table};
use super::{ImportError, Imported, stem};
use crate::device;
use crate::scenario::{CatalogueFile, DatasetFile, HomeFile, ScenarioFile};
use crate::time::MOST_S;
use crate::trace::{Arrival, Trace};

const COLUMNS: [&str; 3] = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"];
const WHAT: &str = "an LLM inference trace such as AzureLLMInferenceTrace_code.csv";
const MODEL: &str = "model";
const MEMORY_MIB: u64 = 2048;
const CPU_MILLIS: u32 = 500;
const MOST_TOKENS: u32 = 10_000_000;

/// Model and machine. All of it is assumption; the defaults say why.
#[derive(Clone, Debug, PartialEq)]
pub struct AzureLlmOptions {
    pub edge: EdgeOptions,
    /// Weights that each node must hold, GB.
    pub model_gb: f64,
    /// Seconds for a token of the context and for one that is generated.
    pub prefill_s: f64,
    pub decode_s: f64,
    /// Requests that share an accelerator.
    pub batch: u32,
}

impl Default for AzureLlmOptions {
    /// A model of 7·10⁹ parameters in 16 bits on NVIDIA L4 cards: a generated token reads all weights
    /// at 300 GB/s, a token of the context takes 14 GFLOP at half of 121 TFLOP/s (both figures of the
    /// card's data sheet).
    fn default() -> AzureLlmOptions {
        AzureLlmOptions {
            edge: EdgeOptions { kind: "l4-server".to_owned(), ..EdgeOptions::default() },
            model_gb: 14.0,
            prefill_s: 0.000_23,
            decode_s: 0.047,
            batch: 8,
        }
    }
}

/// Imports a request trace; every row becomes an arrival.
pub fn azure_llm(requests_csv: &Path, options: &AzureLlmOptions) -> Result<Imported, ImportError> {
    check(options)?;
    let table = Table::read(requests_csv, &COLUMNS, WHAT)?;
    let arrivals: Result<Vec<Arrival>, _> =
        table.rows().enumerate().map(|(index, row)| arrival(index, &row, options)).collect();
    let mut arrivals = arrivals?;
    arrivals.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
    let start_s = arrivals.first().map_or(0.0, |first| first.at_s);
    for arrival in &mut arrivals {
        // To the tenth of a microsecond that the trace has.
        arrival.at_s = ((arrival.at_s - start_s) * 1e7).round() / 1e7;
    }
    if let Some(late) = arrivals.iter().find(|arrival| arrival.at_s > MOST_S) {
        let reason =
            format!("request {} comes {} s after the first; want at most {MOST_S}", late.name, late.at_s);
        return Err(table.wrong(reason));
    }
    let notes = vec![
        format!("requests: {}, none left out", arrivals.len()),
        format!(
            "assumed, as the trace has no model: {} GB of weights, {} s for a token of the context, {} s for a generated \
             one, {} requests at a time on an accelerator",
            options.model_gb, options.prefill_s, options.decode_s, options.batch
        ),
        options.edge.note(),
    ];
    let dataset = DatasetFile {
        name: MODEL.to_owned(),
        count: 1,
        size_mb: options.model_gb * 1000.0,
        home: HomeFile::Nodes(vec![STORE.to_owned()]),
        replicas: 1,
        bucket: String::new(),
    };
    let scenario = ScenarioFile {
        name: stem(requests_csv),
        summary: format!("{} requests to a language model on edge sites", arrivals.len()),
        topology: options.edge.topology(options.model_gb + 1.0),
        catalogue: CatalogueFile { datasets: vec![dataset], ..CatalogueFile::default() },
        ..ScenarioFile::default()
    };
    let source = format!("Azure/AzurePublicDataset (CC-BY-4.0), {}", stem(requests_csv));
    Ok(Imported { scenario, trace: Trace::of_arrivals(source, arrivals), notes })
}

fn check(options: &AzureLlmOptions) -> Result<(), ImportError> {
    options.edge.check()?;
    within("prefill_s", options.prefill_s, 0.0, 10.0)?;
    within("decode_s", options.decode_s, 0.0, 10.0)?;
    within("batch", f64::from(options.batch), 1.0, 1000.0)?;
    let disk_gb = device::device(&options.edge.kind).map_or(0.0, |device| device.disk_bytes as f64 / 1e9);
    within("model_gb", options.model_gb, 1e-3, disk_gb)?;
    if device::device(&options.edge.kind).is_none_or(|device| device.accelerator.is_none()) {
        let wanted = "want a device kind with an accelerator, such as l4-server".to_owned();
        return Err(ImportError::Option { name: "kind", value: options.edge.kind.clone(), wanted });
    }
    Ok(())
}

fn arrival(index: usize, row: &Row<'_>, options: &AzureLlmOptions) -> Result<Arrival, ImportError> {
    let tokens = |column| row.whole(column, "tokens", 0..=MOST_TOKENS).map(f64::from);
    let (context, generated) = (tokens("ContextTokens")?, tokens("GeneratedTokens")?);
    Ok(Arrival {
        at_s: timestamp_s(row.text("TIMESTAMP"))
            .ok_or_else(|| row.not("TIMESTAMP", "a date and time such as 2023-11-16 18:17:03.9799600"))?,
        name: format!("request-{index:05}"),
        cpu_millis: CPU_MILLIS,
        memory_bytes: MEMORY_MIB * 1024 * 1024,
        accelerators: 1,
        accelerator_millis: 1000 / options.batch,
        inputs: vec![MODEL.to_owned()],
        duration_s: Some(context * options.prefill_s + generated * options.decode_s),
        ..Arrival::default()
    })
}

/// Seconds since 1970, with a fraction.
fn timestamp_s(text: &str) -> Option<f64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let fraction: f64 = digits.then(|| format!("0.{fraction}").parse().ok())??;
    Some(seconds_since_1970(whole)? as f64 + fraction)
}
