//! `remora trace`: what arrived, from elsewhere or recorded.

mod calibrate;
mod export;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::{Args as ClapArgs, Subcommand};
use remora_env::import::{
    AzureFunctionsFiles, AzureFunctionsOptions, AzureLlmOptions, EdgeOptions, GenaiOptions, Imported,
    WfFormatOptions, azure_functions, azure_llm, genai, openb, wfformat,
};
use remora_env::record::Recorder;
use remora_env::trace::{Arrival, Record, Trace};
use remora_env::{Episode, Next, Scenario};
use remora_policies::{by_name, choose, rollout};

use super::{print, scenario, table, tables};

/// Import, record, export, calibrate, check and describe traces.
#[derive(ClapArgs, Debug)]
#[command(
    after_help = "Example:\n  remora trace import openb --nodes openb_node_list_all_node.csv --pods openb_pod_list_default.csv --out openb.toml\n  remora trace export --data /var/lib/remora --cluster city --out recorded.toml"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Turn a public trace into a scenario and the trace file that it replays.
    Import {
        #[command(subcommand)]
        source: Source,
    },
    /// Play a scenario and record what arrived, what was decided and what became of it.
    Record(Recording),
    Export(export::Args),
    Calibrate(calibrate::Args),
    /// Check a trace file.
    Check {
        /// A `.jsonl` file.
        file: PathBuf,
    },
    /// Say what is in a trace file.
    Stats {
        /// A `.jsonl` file.
        file: PathBuf,
    },
}

#[derive(ClapArgs, Debug)]
struct Recording {
    /// A built-in name, a member of a family, or a file.
    #[arg(long)]
    scenario: String,
    /// Name of a heuristic, `pretrained`, or path of a checkpoint.
    #[arg(long, default_value = "greedy-marginal")]
    policy: String,
    /// Position of the dial, 0 (only response time) to 1 (only data moved).
    #[arg(long, default_value_t = 0.5, value_parser = super::alpha)]
    alpha: f64,
    /// Which world.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Scenario file to write; the trace goes beside it.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Subcommand, Debug)]
enum Source {
    /// Alibaba's GPU cluster of 2023: node list and pod list (alibaba/clusterdata, cluster-trace-gpu-v2023).
    Openb {
        /// openb_node_list_all_node.csv
        #[arg(long)]
        nodes: PathBuf,
        /// openb_pod_list_default.csv or one of its variants
        #[arg(long)]
        pods: PathBuf,
        /// Scenario file to write; the trace goes beside it.
        #[arg(long)]
        out: PathBuf,
    },
    /// Alibaba's image-generation requests of 2026 (cluster-trace-v2026-GenAI): base models are the
    /// datasets, on a cluster described by the options.
    Genai(Genai),
    /// Azure's LLM inference requests of 2023 (AzureLLMInferenceTrace_*.csv).
    AzureLlm(AzureLlm),
    /// Azure Functions of 2019: a day's three files.
    AzureFunctions(AzureFunctions),
    /// A scientific workflow in WfFormat 1.5, such as those of WfInstances: jobs of many tasks.
    Wfformat(Wfformat),
}

/// The edge cluster on which a trace is replayed that has none.
#[derive(ClapArgs, Debug)]
struct Edge {
    /// Edge sites.
    #[arg(long, default_value_t = EdgeOptions::default().sites)]
    sites: u32,
    /// Nodes per site.
    #[arg(long, default_value_t = EdgeOptions::default().nodes_per_site)]
    nodes_per_site: u32,
    /// Built-in device kind of the nodes.
    #[arg(long)]
    kind: Option<String>,
    /// Uplink of a site, Mbit/s.
    #[arg(long, default_value_t = EdgeOptions::default().uplink_mbps)]
    uplink_mbps: f64,
}

impl Edge {
    /// These options; those that were not given as in `default`.
    fn options(&self, default: EdgeOptions) -> EdgeOptions {
        EdgeOptions {
            sites: self.sites,
            nodes_per_site: self.nodes_per_site,
            kind: self.kind.clone().unwrap_or(default.kind),
            uplink_mbps: self.uplink_mbps,
            ..default
        }
    }
}

#[derive(ClapArgs, Debug)]
struct AzureLlm {
    /// AzureLLMInferenceTrace_code.csv or _conv.csv
    #[arg(long)]
    requests: PathBuf,
    /// Scenario file to write; the trace goes beside it.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    edge: Edge,
    /// Weights of the model, gigabytes.
    #[arg(long, default_value_t = AzureLlmOptions::default().model_gb)]
    model_gb: f64,
    /// Seconds for a token of the context.
    #[arg(long, default_value_t = AzureLlmOptions::default().prefill_s)]
    prefill_s: f64,
    /// Seconds for a generated token.
    #[arg(long, default_value_t = AzureLlmOptions::default().decode_s)]
    decode_s: f64,
    /// Requests that share an accelerator.
    #[arg(long, default_value_t = AzureLlmOptions::default().batch)]
    batch: u32,
}

#[derive(ClapArgs, Debug)]
struct AzureFunctions {
    /// invocations_per_function_md.anon.dNN.csv
    #[arg(long)]
    invocations: PathBuf,
    /// function_durations_percentiles.anon.dNN.csv
    #[arg(long)]
    durations: PathBuf,
    /// app_memory_percentiles.anon.dNN.csv
    #[arg(long)]
    memory: PathBuf,
    /// Scenario file to write; the trace goes beside it.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    edge: Edge,
    /// How many functions, the most invoked first.
    #[arg(long, default_value_t = AzureFunctionsOptions::default().functions)]
    functions: u32,
    /// First minute of the day, from 1.
    #[arg(long, default_value_t = AzureFunctionsOptions::default().from_minute)]
    from_minute: u32,
    /// How many minutes.
    #[arg(long, default_value_t = AzureFunctionsOptions::default().minutes)]
    minutes: u32,
    /// Size of each app's image, megabytes.
    #[arg(long, default_value_t = AzureFunctionsOptions::default().image_mb)]
    image_mb: f64,
    /// Of what the trace leaves open.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(ClapArgs, Debug)]
struct Wfformat {
    /// A workflow, `.json`.
    #[arg(long)]
    workflow: PathBuf,
    /// Scenario file to write; the trace goes beside it.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    edge: Edge,
    /// Copies of the workflow.
    #[arg(long, default_value_t = WfFormatOptions::default().jobs)]
    jobs: u32,
    /// Mean time between two, seconds.
    #[arg(long, default_value_t = WfFormatOptions::default().gap_s)]
    gap_s: f64,
    /// Of the gaps.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(ClapArgs, Debug)]
struct Genai {
    /// lora_request_trace.csv
    #[arg(long)]
    requests: PathBuf,
    /// Scenario file to write; the trace goes beside it.
    #[arg(long)]
    out: PathBuf,
    /// Edge sites.
    #[arg(long, default_value_t = GenaiOptions::default().sites)]
    sites: u32,
    /// GPU servers per site.
    #[arg(long, default_value_t = GenaiOptions::default().nodes_per_site)]
    nodes_per_site: u32,
    /// Size of a base model, gigabytes.
    #[arg(long, default_value_t = GenaiOptions::default().model_gb)]
    model_gb: f64,
    /// Disk of a server, gigabytes.
    #[arg(long, default_value_t = GenaiOptions::default().disk_gb)]
    disk_gb: f64,
    /// Uplink of a site, Mbit/s.
    #[arg(long, default_value_t = GenaiOptions::default().uplink_mbps)]
    uplink_mbps: f64,
    /// Divides the recorded gaps between requests.
    #[arg(long, default_value_t = GenaiOptions::default().speedup)]
    speedup: f64,
}

pub async fn run(args: &Args, json: bool) -> Result<()> {
    match &args.command {
        Command::Import { source } => import(source, json),
        Command::Record(recording) => record(recording, json),
        Command::Export(args) => export::run(args, json).await,
        Command::Calibrate(args) => calibrate::run(args, json),
        Command::Check { file } => {
            let trace = Trace::read(file)?;
            print(format_args!("{} is accepted: {} arrivals", file.display(), trace.arrivals().count()))
        }
        Command::Stats { file } => stats(&Trace::read(file)?, json),
    }
}

fn import(source: &Source, json: bool) -> Result<()> {
    match source {
        Source::Openb { nodes, pods, out } => finish(&openb(nodes, pods)?, out, json),
        Source::Genai(args) => {
            let options = GenaiOptions {
                sites: args.sites,
                nodes_per_site: args.nodes_per_site,
                model_gb: args.model_gb,
                disk_gb: args.disk_gb,
                uplink_mbps: args.uplink_mbps,
                speedup: args.speedup,
                ..GenaiOptions::default()
            };
            finish(&genai(&args.requests, &options)?, &args.out, json)
        }
        Source::AzureLlm(args) => {
            let options = AzureLlmOptions {
                edge: args.edge.options(AzureLlmOptions::default().edge),
                model_gb: args.model_gb,
                prefill_s: args.prefill_s,
                decode_s: args.decode_s,
                batch: args.batch,
            };
            finish(&azure_llm(&args.requests, &options)?, &args.out, json)
        }
        Source::AzureFunctions(args) => {
            let files = AzureFunctionsFiles {
                invocations: &args.invocations,
                durations: &args.durations,
                memory: &args.memory,
            };
            let options = AzureFunctionsOptions {
                edge: args.edge.options(EdgeOptions::default()),
                functions: args.functions,
                from_minute: args.from_minute,
                minutes: args.minutes,
                image_mb: args.image_mb,
                seed: args.seed,
                ..AzureFunctionsOptions::default()
            };
            finish(&azure_functions(&files, &options)?, &args.out, json)
        }
        Source::Wfformat(args) => {
            let options = WfFormatOptions {
                edge: args.edge.options(EdgeOptions::default()),
                jobs: args.jobs,
                gap_s: args.gap_s,
                seed: args.seed,
            };
            finish(&wfformat(&args.workflow, &options)?, &args.out, json)
        }
    }
}

fn record(args: &Recording, json: bool) -> Result<()> {
    let scenario = Scenario::load(&args.scenario)?;
    let mut policy = by_name(&args.policy, args.seed)?;
    let world = Arc::new(scenario.world(args.seed));
    let mut episode = Episode::new(world, args.alpha, rollout::reference(&scenario));
    let mut recorder = Recorder::new(&args.policy);
    while let Next::Decide(observation) = episode.next() {
        let node = choose(policy.as_mut(), &observation).node;
        recorder.decide(&episode, node);
        episode.step(node);
    }
    finish(&recorder.finish(&scenario, &episode), &args.out, json)
}

/// Writes the files and reads them back: what is reported is what a run will see.
fn finish(imported: &Imported, out: &std::path::Path, json: bool) -> Result<()> {
    let trace = imported.write(out)?;
    let scenario = Scenario::load(&out.to_string_lossy())?;
    let world = scenario.world(0);
    let unplaceable = scenario::unplaceable(&world);
    if json {
        return tables::print_rows(&[serde_json::json!({
            "scenario": out,
            "trace": trace,
            "nodes": world.topology.nodes.len(),
            "datasets": world.catalogue.datasets.len(),
            "tasks": world.tasks.len(),
            "unplaceable": unplaceable,
            "notes": imported.notes,
        })]);
    }
    for note in &imported.notes {
        print(format_args!("- {note}"))?;
    }
    print(format_args!(
        "\n{} and {}: {} nodes, {} datasets, {} tasks, of which {unplaceable} fit no node",
        out.display(),
        trace.display(),
        world.topology.nodes.len(),
        world.catalogue.datasets.len(),
        world.tasks.len()
    ))?;
    print(format_args!(
        "next: remora evaluate --scenario {} --policy kube-default,greedy-marginal --seeds 1",
        out.display()
    ))
}

fn stats(trace: &Trace, json: bool) -> Result<()> {
    let arrivals: Vec<&Arrival> = trace.arrivals().collect();
    let count = arrivals.len();
    let durations: Vec<f64> = arrivals.iter().filter_map(|arrival| arrival.duration_s).collect();
    let span_s = arrivals.last().map_or(0.0, |last| last.at_s - arrivals[0].at_s);
    let row = serde_json::json!({
        "source": trace.header.source,
        "arrivals": count,
        "span_s": span_s,
        "arrivals_per_s": if span_s > 0.0 { count as f64 / span_s } else { 0.0 },
        "mean_duration_s": (!durations.is_empty()).then(|| durations.iter().sum::<f64>() / durations.len() as f64),
        "with_accelerator": arrivals.iter().filter(|a| a.accelerators > 0).count(),
        "with_inputs": arrivals.iter().filter(|a| !a.inputs.is_empty()).count(),
        "with_predecessors": arrivals.iter().filter(|a| !a.after.is_empty()).count(),
        "decisions": trace.records.iter().filter(|r| matches!(r, Record::Decision(_))).count(),
        "outcomes": trace.records.iter().filter(|r| matches!(r, Record::Outcome(_))).count(),
    });
    if json {
        return tables::print_rows(&[row]);
    }
    let mut table = table(&["figure", "value"]);
    for (key, value) in row.as_object().into_iter().flatten() {
        if !value.is_null() {
            table.add_row([key.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)]);
        }
    }
    print(table)
}
