//! Azure Functions of 2019: how often each function was invoked in each minute of a day.
//!
//! Source: `AzureFunctionsDataset2019` of Azure/AzurePublicDataset (CC-BY-4.0), described in Shahrad
//! et al., "Serverless in the Wild", USENIX ATC 2020.
//!
//! | file, column | becomes |
//! |---|---|
//! | `invocations_per_function_md.anon.dNN.csv`: `1` … `1440` | arrivals, spread evenly over their minute |
//! | `function_durations_percentiles.anon.dNN.csv`: `percentile_Average_*` | execution time, ms: a draw from the line through the percentiles |
//! | `app_memory_percentiles.anon.dNN.csv`: `AverageAllocatedMb_pct50` | memory of each invocation |
//! | `HashApp` | the image, of one size for all |
//!
//! Of the functions of the day the most invoked are taken, of the minutes those that are wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rand::RngExt;

use super::edge::{EdgeOptions, within};
use super::table::{Row, Table};
use super::{ImportError, Imported, stem};
use crate::device::Arch;
use crate::random::{Purpose, stream};
use crate::scenario::{CatalogueFile, ImageFile, ScenarioFile};
use crate::trace::{Arrival, Trace};

/// Which part of the day, and on what cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct AzureFunctionsOptions {
    pub edge: EdgeOptions,
    /// How many functions, the most invoked first.
    pub functions: u32,
    /// First minute of the day, from 1, and how many.
    pub from_minute: u32,
    pub minutes: u32,
    /// Size of each app's image, MB. Our assumption: the trace has none.
    pub image_mb: f64,
    /// CPU that an invocation asks for, thousandths of a core. Our assumption.
    pub cpu_millis: u32,
    /// Of the phases within a minute and the draws of execution times.
    pub seed: u64,
}

impl Default for AzureFunctionsOptions {
    fn default() -> AzureFunctionsOptions {
        AzureFunctionsOptions {
            edge: EdgeOptions::default(),
            functions: 50,
            from_minute: 1,
            minutes: 60,
            image_mb: 100.0,
            cpu_millis: 250,
            seed: 0,
        }
    }
}

const MINUTES: u32 = 1440;
const KEYS: [&str; 3] = ["HashOwner", "HashApp", "HashFunction"];
const PERCENTILES: [(&str, f64); 7] = [
    ("percentile_Average_0", 0.0),
    ("percentile_Average_1", 0.01),
    ("percentile_Average_25", 0.25),
    ("percentile_Average_50", 0.5),
    ("percentile_Average_75", 0.75),
    ("percentile_Average_99", 0.99),
    ("percentile_Average_100", 1.0),
];
const MEMORY: &str = "AverageAllocatedMb_pct50";
/// Memory of an app that the trace does not have, MB: the median app of the paper has 170 MB at most.
const MEMORY_MB: f64 = 170.0;
const MOST_INVOCATIONS: usize = 10_000_000;

/// The three files of a day.
#[derive(Clone, Copy, Debug)]
pub struct AzureFunctionsFiles<'a> {
    pub invocations: &'a Path,
    pub durations: &'a Path,
    pub memory: &'a Path,
}

struct Function {
    /// `HashApp`, and the whole name.
    app: String,
    key: [String; 3],
    /// Invocations in each of the wanted minutes.
    counts: Vec<u32>,
}

/// Imports part of a day.
pub fn azure_functions(
    files: &AzureFunctionsFiles<'_>,
    options: &AzureFunctionsOptions,
) -> Result<Imported, ImportError> {
    check(options)?;
    let (all, functions) = read_invocations(files.invocations, options)?;
    let durations = read_durations(files.durations)?;
    let memory = read_memory(files.memory)?;
    let timed = functions.iter().filter(|function| durations.contains_key(&function.key)).count();
    let sized = functions.iter().filter(|function| memory.contains_key(&function.app)).count();
    let arrivals = arrivals(&functions, &durations, &memory, options);
    let apps: BTreeSet<&String> = functions.iter().map(|function| &function.app).collect();
    let image = |app: &&String| ImageFile {
        name: (*app).clone(),
        count: 1,
        size_mb: Arch::ALL.map(|arch| (arch, options.image_mb)).into_iter().collect(),
        ..ImageFile::default()
    };
    let notes = vec![
        format!("functions of the day: {all}; the most invoked that are taken: {}", functions.len()),
        format!(
            "minutes {} to {}; invocations: {}",
            options.from_minute,
            options.from_minute + options.minutes - 1,
            arrivals.len()
        ),
        format!("functions without recorded durations, left out: {}", functions.len() - timed),
        format!(
            "functions of apps without recorded memory, {MEMORY_MB} MB assumed: {}",
            functions.len() - sized
        ),
        format!(
            "assumed: images of {} MB, {} millicores for each invocation",
            options.image_mb, options.cpu_millis
        ),
        options.edge.note(),
    ];
    let scenario = ScenarioFile {
        name: stem(files.invocations),
        summary: format!("{} invocations of {} functions on edge sites", arrivals.len(), functions.len()),
        topology: options.edge.topology(1.0),
        catalogue: CatalogueFile { images: apps.iter().map(image).collect(), ..CatalogueFile::default() },
        ..ScenarioFile::default()
    };
    let source = format!("Azure/AzurePublicDataset (CC-BY-4.0), {}", stem(files.invocations));
    Ok(Imported { scenario, trace: Trace::of_arrivals(source, arrivals), notes })
}

fn check(options: &AzureFunctionsOptions) -> Result<(), ImportError> {
    options.edge.check()?;
    within("functions", f64::from(options.functions), 1.0, 1e6)?;
    within("from_minute", f64::from(options.from_minute), 1.0, f64::from(MINUTES))?;
    let left = MINUTES - options.from_minute + 1;
    within("minutes", f64::from(options.minutes), 1.0, f64::from(left))?;
    within("image_mb", options.image_mb, 1e-3, 1e6)?;
    within("cpu_millis", f64::from(options.cpu_millis), 1.0, 1e6)
}

fn key(row: &Row<'_>) -> [String; 3] {
    KEYS.map(|column| row.text(column).to_owned())
}

/// How many functions there are, and those that are taken.
fn read_invocations(
    path: &Path,
    options: &AzureFunctionsOptions,
) -> Result<(usize, Vec<Function>), ImportError> {
    let wanted: Vec<String> = (options.from_minute..options.from_minute + options.minutes)
        .map(|minute| minute.to_string())
        .collect();
    let columns: Vec<&str> = KEYS.into_iter().chain(wanted.iter().map(String::as_str)).collect();
    let table = Table::read(path, &columns, "invocations_per_function_md.anon.dNN.csv")?;
    let mut functions = Vec::new();
    for row in table.rows() {
        let counts: Result<_, _> =
            wanted.iter().map(|minute| row.whole(minute, "invocations", 0..=1_000_000)).collect();
        functions.push(Function { app: row.text("HashApp").to_owned(), key: key(&row), counts: counts? });
    }
    let all = functions.len();
    let total = |function: &Function| function.counts.iter().map(|&count| u64::from(count)).sum::<u64>();
    functions.sort_by(|a, b| total(b).cmp(&total(a)).then_with(|| a.key.cmp(&b.key)));
    functions.truncate(options.functions as usize);
    let invocations: u64 = functions.iter().map(total).sum();
    if invocations > MOST_INVOCATIONS as u64 {
        let reason = format!(
            "{invocations} invocations, want at most {MOST_INVOCATIONS}; take fewer functions or minutes"
        );
        return Err(table.wrong(reason));
    }
    Ok((all, functions))
}

/// Durations at [`PERCENTILES`], seconds.
fn read_durations(path: &Path) -> Result<BTreeMap<[String; 3], [f64; 7]>, ImportError> {
    let columns: Vec<&str> = KEYS.into_iter().chain(PERCENTILES.map(|(column, _)| column)).collect();
    let table = Table::read(path, &columns, "function_durations_percentiles.anon.dNN.csv")?;
    let mut durations = BTreeMap::new();
    for row in table.rows() {
        let mut seconds = [0.0; 7];
        let mut before = ("", 0.0);
        for (value, (column, _)) in seconds.iter_mut().zip(PERCENTILES) {
            *value = row.number(column, "milliseconds", 0.0..=1e9)? / 1e3;
            if *value < before.1 {
                return Err(row.not(column, &format!("at least {}", before.0)));
            }
            before = (column, *value);
        }
        durations.insert(key(&row), seconds);
    }
    Ok(durations)
}

/// Memory of each app, MB.
fn read_memory(path: &Path) -> Result<BTreeMap<String, f64>, ImportError> {
    let table = Table::read(path, &["HashApp", MEMORY], "app_memory_percentiles.anon.dNN.csv")?;
    let rows = table.rows();
    rows.map(|row| Ok((row.text("HashApp").to_owned(), row.number(MEMORY, "MB", 0.0..=1e6)?))).collect()
}

fn arrivals(
    functions: &[Function],
    durations: &BTreeMap<[String; 3], [f64; 7]>,
    memory: &BTreeMap<String, f64>,
    options: &AzureFunctionsOptions,
) -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    for (index, function) in functions.iter().enumerate() {
        let Some(percentiles) = durations.get(&function.key) else { continue };
        let mut rng = stream(options.seed, Purpose::Arrivals, index as u64);
        let phase: f64 = rng.random();
        let memory_mb = memory.get(&function.app).copied().unwrap_or(MEMORY_MB);
        for (minute, &count) in function.counts.iter().enumerate() {
            arrivals.extend((0..count).map(|invocation| Arrival {
                at_s: 60.0 * (minute as f64 + (f64::from(invocation) + phase) / f64::from(count)),
                name: format!("function-{index}-{minute}-{invocation}"),
                cpu_millis: options.cpu_millis,
                memory_bytes: (memory_mb * 1e6) as u64,
                image: Some(function.app.clone()),
                duration_s: Some(at_percentile(percentiles, rng.random())),
                ..Arrival::default()
            }));
        }
    }
    arrivals.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
    arrivals
}

/// The value on the line through the percentiles.
fn at_percentile(values: &[f64; 7], share: f64) -> f64 {
    let above = PERCENTILES.iter().position(|(_, percentile)| *percentile >= share).unwrap_or(6).max(1);
    let ((_, low), (_, high)) = (PERCENTILES[above - 1], PERCENTILES[above]);
    values[above - 1] + (values[above] - values[above - 1]) * (share - low) / (high - low)
}
