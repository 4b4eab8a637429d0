//! `remora bench env`: each case in a process of its own, so that its peak memory is its own.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use cpu_time::ProcessTime;
use remora_env::observation::{FEATURE_COUNT, Reference};
use remora_env::{Episode, Next, Scenario, World};
use remora_trainer::plot::{Labels, Scale, Series, plot};
use serde::{Deserialize, Serialize};

use crate::commands::{print, table, tables};
use crate::files::write;
use crate::memory::status_bytes;

#[derive(ClapArgs, Debug)]
pub struct Args {
    /// Cluster sizes, each decided on without and with the observation.
    #[arg(long, value_delimiter = ',', default_value = "32,100,1000,10000")]
    nodes: Vec<u32>,
    /// Numbers of concurrent transfers over ten uplinks.
    #[arg(long, value_delimiter = ',', default_value = "10,100,300,1000")]
    flows: Vec<u32>,
    /// Each case is run so often; the best counts.
    #[arg(long, default_value_t = 5)]
    repeats: u32,
    /// Also write a page with the growth over nodes and flows.
    #[arg(long)]
    html: Option<PathBuf>,
    /// Run one case in this process.
    #[arg(long, hide = true)]
    case: Option<String>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Case {
    nodes: u32,
    /// Transfers that begin within a second; none: a mixed load for ever.
    flows: u32,
    observation: Seen,
}

/// What is made for every decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Seen {
    /// Nothing: a node is drawn.
    None,
    /// The observation, its shortlist and the features of that; the cheapest is chosen.
    Shortlist,
}

/// Per CPU second of one core.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    #[serde(flatten)]
    case: Case,
    decisions_per_s: f64,
    events_per_s: f64,
    cpu_s: f64,
    peak_rss_mb: f64,
    /// Against faas-sim at the nearest size that it was measured at.
    ratio_to_faas_sim: f64,
}

/// Placements (with pull) per CPU second of faas-sim at 94, 997 and 10,006 nodes, urban preset, and
/// its CPU seconds for 10, 30, 100 and 300 transfers of 10 MB over ten uplinks and a core.
/// Measured with Python 3.8 on one core of a shared machine of our kind.
const FAAS_SIM_PLACEMENTS: [(u32, f64); 3] = [(94, 627.0), (997, 53.0), (10_006, 1.05)];
const FAAS_SIM_FLOWS: [(u32, f64); 4] = [(10, 0.0006), (30, 0.003), (100, 0.16), (300, 7.1)];

pub fn run(args: &Args, json: bool) -> Result<()> {
    if let Some(case) = &args.case {
        let row = measure(serde_json::from_str(case)?, args.repeats)?;
        return tables::print_json(&serde_json::to_value(row)?);
    }
    let rows = cases(args).into_iter().map(|case| in_own_process(case, args.repeats));
    let rows = rows.collect::<Result<Vec<Row>>>()?;
    if let Some(path) = &args.html {
        write(path, page(&rows))?;
        eprintln!("wrote {}", path.display());
    }
    if json {
        let rows: Result<Vec<_>, _> = rows.iter().map(serde_json::to_value).collect();
        return tables::print_rows(&rows?);
    }
    let mut table =
        table(&["nodes", "flows", "observation", "decisions/s", "events/s", "peak MB", "faas-sim ×"]);
    for row in &rows {
        let Case { nodes, flows, observation } = row.case;
        table.add_row([
            nodes.to_string(),
            if flows == 0 { "mixed".to_owned() } else { flows.to_string() },
            if observation == Seen::None { "none" } else { "shortlist" }.to_owned(),
            format!("{:.0}", row.decisions_per_s),
            format!("{:.0}", row.events_per_s),
            format!("{:.0}", row.peak_rss_mb),
            format!("{:.0}", row.ratio_to_faas_sim),
        ]);
    }
    print(table)?;
    print(
        "Per CPU second of one core, the best of the repeats. The last column: how many times faas-sim's\nrate at the nearest size it was measured at, on a shared machine like ours.",
    )
}

fn cases(args: &Args) -> Vec<Case> {
    let sizes = args.nodes.iter().flat_map(|&nodes| {
        [Seen::None, Seen::Shortlist].map(|observation| Case { nodes, flows: 0, observation })
    });
    let flows = args.flows.iter().map(|&flows| Case { nodes: 100, flows, observation: Seen::None });
    sizes.chain(flows).collect()
}

fn in_own_process(case: Case, repeats: u32) -> Result<Row> {
    eprintln!("measuring {} nodes, {} flows, observation {:?}", case.nodes, case.flows, case.observation);
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    command.args([
        "bench",
        "env",
        "--repeats",
        &repeats.to_string(),
        "--case",
        &serde_json::to_string(&case)?,
    ]);
    let output = command.output().context("cannot start the measuring process")?;
    if !output.status.success() {
        bail!("the measuring process failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("cannot read what the measuring process printed")
}

fn measure(case: Case, repeats: u32) -> Result<Row> {
    let scenario = if case.flows == 0 { mixed(case.nodes) } else { bursts(case.nodes, case.flows) };
    let scenario = Scenario::parse(&scenario, "bench", None)?;
    let world = Arc::new(scenario.world(1));
    let mut best: Option<Row> = None;
    for _ in 0..repeats.max(1) {
        let started = ProcessTime::now();
        let (decisions, events) = play(&world, case.observation);
        let cpu_s = started.elapsed().as_secs_f64();
        if best.as_ref().is_none_or(|best| cpu_s < best.cpu_s) {
            best = Some(row(case, decisions as f64, events as f64, cpu_s));
        }
    }
    let mut row = best.context("nothing was run")?;
    row.peak_rss_mb = peak_rss_mb()?;
    Ok(row)
}

fn row(case: Case, decisions: f64, events: f64, cpu_s: f64) -> Row {
    let nearest = |table: &[(u32, f64)], size: u32| {
        let distance = |(other, _): &&(u32, f64)| (f64::from(*other) / f64::from(size)).ln().abs();
        table.iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).map_or(f64::NAN, |(_, rate)| *rate)
    };
    let ratio_to_faas_sim = if case.flows == 0 {
        decisions / cpu_s / nearest(&FAAS_SIM_PLACEMENTS, case.nodes)
    } else {
        nearest(&FAAS_SIM_FLOWS, case.flows) / cpu_s
    };
    Row {
        case,
        decisions_per_s: decisions / cpu_s,
        events_per_s: events / cpu_s,
        cpu_s,
        peak_rss_mb: 0.0,
        ratio_to_faas_sim,
    }
}

/// Most memory that this process had, megabytes (10⁶ bytes), as Linux counts it.
fn peak_rss_mb() -> Result<f64> {
    let bytes = status_bytes("self", "VmHWM").context("peak memory is read from Linux' /proc/self/status")?;
    Ok(bytes as f64 / 1e6)
}

/// Plays to the end; returns decisions and events.
fn play(world: &Arc<World>, observation: Seen) -> (u64, u64) {
    let mut episode = Episode::new(Arc::clone(world), 0.5, Reference::new(10.0, 1e8));
    let mut decisions = 0;
    let mut features = vec![0.0_f32; 16 * FEATURE_COUNT];
    let mut draw = 1_u64;
    let nodes = world.topology.nodes.len() as u64;
    while episode.pending().is_some() {
        let node = match observation {
            Seen::None => loop {
                draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let node = ((draw >> 33) % nodes) as u32;
                if episode.accepts(node) {
                    break node;
                }
            },
            Seen::Shortlist => {
                let Next::Decide(observation) = episode.next() else { break };
                let shortlist = observation.shortlist(16);
                observation.features(&observation.look(&shortlist), features.chunks_exact_mut(FEATURE_COUNT));
                let cost = |&&index: &&usize| observation.cost(&observation.candidates()[index]);
                let best = shortlist.iter().min_by(|a, b| cost(a).total_cmp(&cost(b)));
                observation.candidates()[best.copied().unwrap_or(0)].node
            }
        };
        episode.step(node);
        decisions += 1;
    }
    (decisions, episode.events())
}

/// Sites of twenty mixed devices behind thin uplinks, and a workload at about a third of what a
/// random placement can bear, whatever the size.
pub fn mixed(nodes: u32) -> String {
    let sites = nodes.div_ceil(20);
    let each = nodes.div_ceil(sites);
    let (boards, pis) = (each / 2, each - each / 2 - 2);
    format!(
        r#"
name = "bench"
[topology]
registries = [{{ name = "registry", link = {{ up_mbps = 10000 }} }}]
[[topology.sites]]
name = "site"
count = {sites}
uplink = {{ up_mbps = 100, down_mbps = 500, latency_ms = 10, price = 4, wan = true }}
nodes = [
    {{ name = "storage", kind = "nuc", link = {{ up_mbps = 1000, latency_ms = 0.5 }} }},
    {{ name = "nuc", kind = "nuc", link = {{ up_mbps = 1000, latency_ms = 0.5 }} }},
    {{ name = "tx2", count = {boards}, kind = "tx2", link = {{ up_mbps = 1000, latency_ms = 0.5 }} }},
    {{ name = "pi", count = {pis}, kind = "rpi3", link = {{ up_mbps = 1000, latency_ms = 0.5 }} }},
]
[[catalogue.images]]
name = "app"
count = 20
size_mb = {{ arm = 50, arm64 = 60, amd64 = 60 }}
base = "base"
base_share = 0.8
[[catalogue.datasets]]
name = "data"
count = {nodes}
size_mb = 2
home = {{ kind = "nuc" }}
[[catalogue.tasks]]
name = "infer"
image = "app"
inputs = ["data"]
cpu_millis = 500
memory_mib = 100
execution = {{ nuc = {{ seconds = 0.5 }}, tx2 = {{ seconds = 0.3 }}, rpi3 = {{ seconds = 1.5 }} }}
[workload]
tasks = 20000
warm_share = 0.8
streams = [{{ task = "infer", instances = {nodes}, exponential_s = 30 }}]
"#
    )
}

/// `flows` reads of 10 MB each from a store across the core, over ten uplinks, all within a second.
fn bursts(nodes: u32, flows: u32) -> String {
    let each = nodes.div_ceil(10);
    let gap_s = 1.0;
    format!(
        r#"
name = "bench"
[topology]
nodes = [{{ name = "store", kind = "nuc", link = {{ up_mbps = 10000 }}, labels = {{ "data.skippy.io/storage" = "" }} }}]
[[topology.sites]]
name = "site"
count = 10
uplink = {{ up_mbps = 100, latency_ms = 1, wan = true }}
nodes = [{{ name = "node", count = {each}, kind = "server", link = {{ up_mbps = 1000 }} }}]
[[catalogue.datasets]]
name = "data"
count = {flows}
size_mb = 10
home = {{ nodes = ["store"] }}
[[catalogue.tasks]]
name = "read"
inputs = ["data"]
cpu_millis = 10
memory_mib = 10
execution = {{ any = {{ seconds = 0.1 }} }}
[workload]
tasks = {flows}
streams = [{{ task = "read", instances = {flows}, fixed_s = {gap_s} }}]
"#
    )
}

/// Growth with nodes and with flows, on logarithmic axes: a line of slope one is linear.
fn page(rows: &[Row]) -> String {
    let points = |wanted: &dyn Fn(&Case) -> Option<f64>, y: &dyn Fn(&Row) -> f64| -> Vec<(f64, f64)> {
        rows.iter().filter_map(|row| wanted(&row.case).map(|x| (x, y(row)))).collect()
    };
    let series = |name: &str, points| Series { name: name.to_owned(), points, joined: true };
    let nodes = |observation| {
        move |case: &Case| {
            (case.flows == 0 && case.observation == observation).then_some(f64::from(case.nodes))
        }
    };
    let flows = |case: &Case| (case.flows > 0).then_some(f64::from(case.flows));
    let per_decision = |row: &Row| 1e6 / row.decisions_per_s;
    let per_event = |row: &Row| 1e6 / row.events_per_s;
    let by_nodes = plot(
        &Labels { title: "One decision", x: "nodes", y: "CPU µs" },
        Scale::Logarithmic,
        &[
            series("without observation", points(&nodes(Seen::None), &per_decision)),
            series("with shortlist", points(&nodes(Seen::Shortlist), &per_decision)),
        ],
    );
    let by_flows = plot(
        &Labels { title: "One event", x: "concurrent flows", y: "CPU µs" },
        Scale::Logarithmic,
        &[series("ten uplinks and a core", points(&flows, &per_event))],
    );
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Remora: speed of the simulator</title>\
         <body style=\"font-family:system-ui;max-width:70rem;margin:2rem auto\"><h1>Speed of the simulator</h1>\
         <p>CPU time of one core per decision and per event. Both axes are logarithmic: a line of slope one is \
         linear growth.</p>{by_nodes}{by_flows}</body></html>\n"
    )
}
