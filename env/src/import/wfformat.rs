//! Scientific workflows in WfFormat 1.5: jobs whose tasks pass files on.
//!
//! Source: the WfCommons project (Coleman et al., "WfCommons: A Framework for Enabling Scientific
//! Workflow Research and Development", FGCS 128, 2022), for example its WfInstances collection.
//!
//! | field | becomes |
//! |---|---|
//! | `workflow.specification.tasks[].id`, `parents` | an arrival, and the arrivals that it follows |
//! | `…tasks[].inputFiles`, `outputFiles`, `files[].sizeInBytes` | datasets |
//! | `workflow.execution.tasks[].runtimeInSeconds` | execution time, whatever the node |
//! | `…coreCount`, `memoryInBytes` | requests |
//!
//! Of what a task writes, the files that the same tasks read are one dataset, which stays where it
//! was made; files that nobody reads go to the store, and files that nobody writes are there from
//! the beginning. Jobs are copies of the workflow with datasets of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rand_distr::{Distribution, Exp1};
use serde::Deserialize;

use super::edge::{EdgeOptions, STORE, within};
use super::{ImportError, Imported, stem};
use crate::random::{Purpose, stream};
use crate::scenario::{CatalogueFile, DatasetFile, HomeFile, ScenarioFile};
use crate::trace::{Arrival, Trace};

/// How often the workflow comes, and on what cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct WfFormatOptions {
    pub edge: EdgeOptions,
    /// Copies of the workflow.
    pub jobs: u32,
    /// Mean time between two, seconds; exponentially distributed.
    pub gap_s: f64,
    /// Of the gaps.
    pub seed: u64,
}

impl Default for WfFormatOptions {
    fn default() -> WfFormatOptions {
        WfFormatOptions { edge: EdgeOptions::default(), jobs: 10, gap_s: 600.0, seed: 0 }
    }
}

/// Requests where the workflow does not say. Our assumption.
const MEMORY_BYTES: u64 = 512 * 1024 * 1024;
const MOST_CORES: f64 = 1024.0;
const MOST_BYTES: f64 = 1e15;

#[derive(Debug, Deserialize)]
struct File {
    #[serde(default)]
    name: String,
    #[serde(rename = "schemaVersion")]
    version: String,
    workflow: Workflow,
}

#[derive(Debug, Deserialize)]
struct Workflow {
    specification: Specification,
    execution: Execution,
}

#[derive(Debug, Deserialize)]
struct Specification {
    tasks: Vec<Task>,
    #[serde(default)]
    files: Vec<Data>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Task {
    id: String,
    #[serde(default)]
    parents: Vec<String>,
    #[serde(default)]
    input_files: Vec<String>,
    #[serde(default)]
    output_files: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    id: String,
    size_in_bytes: f64,
}

#[derive(Debug, Deserialize)]
struct Execution {
    tasks: Vec<Executed>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Executed {
    id: String,
    runtime_in_seconds: f64,
    #[serde(default)]
    core_count: Option<f64>,
    #[serde(default)]
    memory_in_bytes: Option<f64>,
}

/// Imports a workflow.
pub fn wfformat(workflow_json: &Path, options: &WfFormatOptions) -> Result<Imported, ImportError> {
    options.edge.check()?;
    within("jobs", f64::from(options.jobs), 1.0, 100_000.0)?;
    within("gap_s", options.gap_s, 0.0, 1e6)?;
    let file = read(workflow_json)?;
    let wrong = |reason| ImportError::File { path: workflow_json.to_owned(), reason };
    let job = Job::of(&file).map_err(wrong)?;
    let stored: f64 = job.datasets.iter().filter(|data| !data.stays).map(|data| data.bytes).sum();
    let jobs = options.jobs as usize;
    let scenario = ScenarioFile {
        name: stem(workflow_json),
        summary: format!("{jobs} jobs of {} tasks each on edge sites", job.tasks.len()),
        topology: options.edge.topology(stored * jobs as f64 / 1e9 * 1.01),
        catalogue: CatalogueFile { datasets: job.datasets_of(jobs), ..CatalogueFile::default() },
        ..ScenarioFile::default()
    };
    let notes = vec![
        format!("tasks of a job: {}; datasets: {}", job.tasks.len(), job.datasets.len()),
        format!("jobs: {jobs}, with exponential gaps of {} s on average", options.gap_s),
        "execution times are as recorded, on whatever node".to_owned(),
        format!("requests that are not recorded: one core, {MEMORY_BYTES} bytes of memory: {}", job.assumed),
        options.edge.note(),
    ];
    let source = format!("WfFormat {}, {} ({})", file.version, stem(workflow_json), file.name);
    Ok(Imported { scenario, trace: Trace::of_arrivals(source, job.arrivals(options)), notes })
}

fn read(path: &Path) -> Result<File, ImportError> {
    let text = std::fs::read(path).map_err(|source| ImportError::Read { path: path.to_owned(), source })?;
    let file: File = serde_json::from_slice(&text).map_err(|error| ImportError::Line {
        path: path.to_owned(),
        line: error.line(),
        reason: format!("{error}; want a workflow in WfFormat 1.5"),
    })?;
    if file.version == "1.5" {
        return Ok(file);
    }
    let reason = format!("schemaVersion is {:?}, only 1.5 is supported", file.version);
    Err(ImportError::File { path: path.to_owned(), reason })
}

/// A workflow as tasks and datasets with numbers.
struct Job {
    /// Parents before their children.
    tasks: Vec<Member>,
    datasets: Vec<Passed>,
    /// How many tasks lack recorded requests.
    assumed: usize,
}

struct Member {
    id: String,
    after: Vec<String>,
    inputs: Vec<usize>,
    outputs: Vec<usize>,
    arrival: Arrival,
}

/// Files that one task writes and the same tasks read.
struct Passed {
    bytes: f64,
    /// Where it was made; otherwise it is in the store.
    stays: bool,
}

impl Job {
    fn of(file: &File) -> Result<Job, String> {
        let Specification { tasks, files } = &file.workflow.specification;
        let mut sizes = BTreeMap::new();
        for data in files {
            if !(0.0..=MOST_BYTES).contains(&data.size_in_bytes) {
                return Err(format!(
                    "file {:?}: sizeInBytes is {}, want 0 to {MOST_BYTES}",
                    data.id, data.size_in_bytes
                ));
            }
            sizes.insert(data.id.as_str(), data.size_in_bytes);
        }
        let executed: BTreeMap<&str, &Executed> =
            file.workflow.execution.tasks.iter().map(|task| (task.id.as_str(), task)).collect();
        let mut job = Job { tasks: Vec::new(), datasets: Vec::new(), assumed: 0 };
        for task in in_order(tasks)? {
            let executed = executed.get(task.id.as_str());
            let executed = executed.ok_or_else(|| format!("task {:?} has no execution", task.id))?;
            job.assumed += usize::from(executed.core_count.is_none() || executed.memory_in_bytes.is_none());
            job.tasks.push(Member {
                id: task.id.clone(),
                after: task.parents.clone(),
                inputs: Vec::new(),
                outputs: Vec::new(),
                arrival: requests(executed)?,
            });
        }
        job.pass_files(tasks, &sizes)?;
        Ok(job)
    }

    /// Groups the files by who writes and who reads them.
    fn pass_files(&mut self, tasks: &[Task], sizes: &BTreeMap<&str, f64>) -> Result<(), String> {
        let number: BTreeMap<String, usize> =
            self.tasks.iter().enumerate().map(|(index, task)| (task.id.clone(), index)).collect();
        // For each file its writer and its readers.
        let mut passed: BTreeMap<&str, (Option<usize>, BTreeSet<usize>)> = BTreeMap::new();
        for task in tasks {
            for file in &task.output_files {
                let (writer, _) = passed.entry(file).or_default();
                if let Some(other) = writer.replace(number[&task.id]) {
                    let other = &self.tasks[other].id;
                    return Err(format!("file {file:?} is written by {other:?} and by {:?}", task.id));
                }
            }
            for file in &task.input_files {
                passed.entry(file).or_default().1.insert(number[&task.id]);
            }
        }
        let mut groups: BTreeMap<(Option<usize>, BTreeSet<usize>), f64> = BTreeMap::new();
        for (file, (writer, readers)) in passed {
            let bytes = sizes.get(file).ok_or_else(|| format!("file {file:?} has no size in files"))?;
            for reader in readers.iter().filter(|_| writer.is_some()) {
                self.check_follows(*reader, writer, file)?;
            }
            *groups.entry((writer, readers)).or_default() += bytes;
        }
        for ((writer, readers), bytes) in groups {
            let dataset = self.datasets.len();
            self.datasets.push(Passed { bytes, stays: writer.is_some() && !readers.is_empty() });
            if let Some(writer) = writer {
                self.tasks[writer].outputs.push(dataset);
            }
            for reader in readers {
                self.tasks[reader].inputs.push(dataset);
            }
        }
        Ok(())
    }

    /// A task that reads what another writes comes after it.
    fn check_follows(&self, reader: usize, writer: Option<usize>, file: &str) -> Result<(), String> {
        let mut before: BTreeSet<&str> = self.tasks[reader].after.iter().map(String::as_str).collect();
        // Parents come before their children, so one pass backwards finds all ancestors.
        for task in self.tasks[..reader].iter().rev() {
            if before.contains(task.id.as_str()) {
                before.extend(task.after.iter().map(String::as_str));
            }
        }
        match writer.map(|writer| &self.tasks[writer].id) {
            Some(writer) if !before.contains(writer.as_str()) => Err(format!(
                "task {:?} reads {file:?}, which {writer:?} writes, but does not come after it",
                self.tasks[reader].id
            )),
            _ => Ok(()),
        }
    }

    fn datasets_of(&self, jobs: usize) -> Vec<DatasetFile> {
        let of = |job: usize| {
            self.datasets.iter().enumerate().map(move |(index, data)| DatasetFile {
                name: dataset_name(job, index),
                count: 1,
                size_mb: data.bytes / 1e6,
                home: if data.stays { HomeFile::Producer } else { HomeFile::Nodes(vec![STORE.to_owned()]) },
                replicas: 1,
                bucket: String::new(),
            })
        };
        (0..jobs).flat_map(of).collect()
    }

    fn arrivals(&self, options: &WfFormatOptions) -> Vec<Arrival> {
        let mut rng = stream(options.seed, Purpose::Arrivals, 0);
        let mut at_s = 0.0;
        let mut arrivals = Vec::with_capacity(self.tasks.len() * options.jobs as usize);
        for job in 0..options.jobs as usize {
            let names = |datasets: &[usize]| datasets.iter().map(|&index| dataset_name(job, index)).collect();
            arrivals.extend(self.tasks.iter().map(|task| Arrival {
                at_s,
                name: format!("{job}/{}", task.id),
                inputs: names(&task.inputs),
                outputs: names(&task.outputs),
                after: task.after.iter().map(|parent| format!("{job}/{parent}")).collect(),
                ..task.arrival.clone()
            }));
            let random: f64 = Exp1.sample(&mut rng);
            at_s += random * options.gap_s;
        }
        arrivals
    }
}

fn dataset_name(job: usize, index: usize) -> String {
    format!("{job}/data-{index}")
}

fn requests(executed: &Executed) -> Result<Arrival, String> {
    let Executed { id, runtime_in_seconds, core_count, memory_in_bytes } = executed;
    let number = |field: &str, value: f64, most: f64| {
        let holds = (0.0..=most).contains(&value);
        holds.then_some(value).ok_or_else(|| format!("task {id:?}: {field} is {value}, want 0 to {most}"))
    };
    Ok(Arrival {
        cpu_millis: (number("coreCount", core_count.unwrap_or(1.0), MOST_CORES)? * 1000.0) as u32,
        memory_bytes: number("memoryInBytes", memory_in_bytes.unwrap_or(MEMORY_BYTES as f64), MOST_BYTES)?
            as u64,
        duration_s: Some(number("runtimeInSeconds", *runtime_in_seconds, crate::time::MOST_S)?),
        ..Arrival::default()
    })
}

/// The tasks, parents before their children, otherwise in the order of the file.
fn in_order(tasks: &[Task]) -> Result<Vec<&Task>, String> {
    if tasks.is_empty() {
        return Err("the workflow has no tasks".to_owned());
    }
    let mut children: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut known = BTreeSet::new();
    for (index, task) in tasks.iter().enumerate() {
        if !known.insert(task.id.as_str()) {
            return Err(format!("two tasks have the id {:?}", task.id));
        }
        for parent in &task.parents {
            children.entry(parent).or_default().push(index);
        }
    }
    for task in tasks {
        if let Some(parent) = task.parents.iter().find(|parent| !known.contains(parent.as_str())) {
            return Err(format!("task {:?} has the parent {parent:?}, which is no task", task.id));
        }
    }
    let mut waits: Vec<usize> = tasks.iter().map(|task| task.parents.len()).collect();
    let mut ready: BTreeSet<usize> = (0..tasks.len()).filter(|&index| waits[index] == 0).collect();
    let mut order = Vec::with_capacity(tasks.len());
    while let Some(index) = ready.pop_first() {
        order.push(&tasks[index]);
        for &child in children.get(tasks[index].id.as_str()).into_iter().flatten() {
            waits[child] -= 1;
            if waits[child] == 0 {
                ready.insert(child);
            }
        }
    }
    match (0..tasks.len()).find(|&index| waits[index] > 0) {
        Some(index) => Err(format!("task {:?} comes, through its parents, after itself", tasks[index].id)),
        None => Ok(order),
    }
}
