//! `remora trace`: recorded arrivals.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args as ClapArgs, Subcommand};
use remora_env::Scenario;
use remora_env::import::{GenaiOptions, Imported, genai, openb};
use remora_env::trace::{Arrival, Record, Trace};

use super::{print, scenario, table, tables};

/// Import, check and describe recorded arrivals.
#[derive(ClapArgs, Debug)]
#[command(
    after_help = "Example:\n  remora trace import openb --nodes openb_node_list_all_node.csv --pods openb_pod_list_default.csv --out openb.toml"
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

pub fn run(args: &Args, json: bool) -> Result<()> {
    match &args.command {
        Command::Import { source: Source::Openb { nodes, pods, out } } => {
            finish(&openb(nodes, pods)?, out, json)
        }
        Command::Import { source: Source::Genai(args) } => {
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
        Command::Check { file } => {
            let trace = Trace::read(file)?;
            print(format_args!("{} is accepted: {} arrivals", file.display(), trace.arrivals().count()))
        }
        Command::Stats { file } => stats(&Trace::read(file)?, json),
    }
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
    let durations = || arrivals.iter().filter_map(|arrival| arrival.duration_s);
    let span_s = arrivals.last().map_or(0.0, |last| last.at_s - arrivals[0].at_s);
    let row = serde_json::json!({
        "source": trace.header.source,
        "arrivals": count,
        "span_s": span_s,
        "arrivals_per_s": if span_s > 0.0 { count as f64 / span_s } else { 0.0 },
        "mean_duration_s": durations().sum::<f64>() / durations().count().max(1) as f64,
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
        table.add_row([key.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)]);
    }
    print(table)
}
