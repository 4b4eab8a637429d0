//! `remora testbed`: a scenario for real, as processes on this machine.

mod compare;
mod live;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use remora_env::Scenario;
use serde_json::Value;

use super::{bytes, print, serve, table, tables};
use crate::testbed::faults::Fault;
use crate::testbed::network::{self, Choice, Network};
use crate::testbed::run::{Plan, Played, play, prepared};
use crate::testbed::tether;

/// Run a scenario for real: nodes as processes, bytes over shaped links.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLE: &str = "Examples:
  remora testbed run testbed --policy greedy-marginal
  remora testbed run testbed --fault node:shop/nuc@20+10 --fault link:workshop@40+5
  remora testbed compare testbed --policies kube-default,skippy,greedy-marginal,greedy-completion,pretrained
  remora testbed learn testbed --degrade workshop*0.25 --out runs/live";

#[derive(Debug, Subcommand)]
enum Command {
    Run(RunArgs),
    Compare(compare::Args),
    Learn(live::Args),
}

/// Play a world with one policy.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
struct RunArgs {
    /// Scenario: `testbed`, which is made for this, another built-in one, or a file.
    scenario: String,
    /// Who decides: a heuristic's name, `pretrained`, or a checkpoint's path.
    #[arg(long, default_value = "greedy-marginal")]
    policy: String,
    /// What is broken on purpose, as node:NAME@AT+FOR, link:NAME@AT+FOR[*SHARE] or server@AT+FOR, in seconds.
    #[arg(long, value_name = "FAULT")]
    fault: Vec<Fault>,
    /// Do not measure the links first.
    #[arg(long)]
    no_links: bool,
    #[command(flatten)]
    common: Common,
}

/// What all runs have in common.
#[derive(Clone, Debug, clap::Args)]
struct Common {
    /// Which world.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Position of the dial, 0 (only response time) to 1 (only data moved).
    #[arg(long, default_value_t = 0.5, value_parser = super::alpha)]
    alpha: f64,
    /// How many tasks; as the scenario says unless given.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    tasks: Option<u32>,
    /// Times and sizes are divided by this, so that links carry what they carry.
    #[arg(long, default_value_t = 10.0)]
    speed: f64,
    /// What the processes are connected by.
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    network: Choice,
    /// Seconds after which a silent node's tasks are tried elsewhere.
    #[arg(long, default_value_t = 10.0)]
    patience: f64,
    /// Folder for everything, which must be empty or an earlier run's; removed at the end unless given.
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Common {
    /// A run in a folder of its own: nothing is broken, links are not measured first, and no application is controlled.
    fn plan(&self, scenario: Scenario, policy: String, folder: &Path) -> Plan {
        Plan {
            scenario,
            policy,
            alpha: self.alpha,
            seed: self.seed,
            folder: folder.to_owned(),
            faults: Vec::new(),
            patience_s: self.patience,
            measure_links: false,
            apps: false,
        }
    }
}

/// The file that tells a folder of ours from others.
const MARK: &str = ".remora-testbed";

/// A folder for everything; one of our own goes when it is dropped.
enum Folder {
    Given(PathBuf),
    Own(tempfile::TempDir),
}

impl Folder {
    fn new(out: Option<&Path>) -> Result<Folder> {
        let Some(out) = out else { return Ok(Folder::Own(tempfile::tempdir()?)) };
        let mark = out.join(MARK);
        if mark.exists() {
            std::fs::remove_dir_all(out).with_context(|| format!("cannot replace {}", out.display()))?;
        } else if out.exists() && out.read_dir()?.next().is_some() {
            bail!("--out: {} is not an earlier run of a testbed: name another folder", out.display());
        }
        std::fs::create_dir_all(out)
            .and_then(|()| std::fs::write(mark, ""))
            .with_context(|| format!("cannot make {}", out.display()))?;
        Ok(Folder::Given(out.to_owned()))
    }

    fn path(&self) -> &Path {
        match self {
            Folder::Given(path) => path,
            Folder::Own(folder) => folder.path(),
        }
    }
}

pub async fn run(args: Args, json: bool) -> Result<()> {
    let common = match &args.command {
        Command::Run(args) => args.common.clone(),
        Command::Compare(args) => args.common.clone(),
        Command::Learn(args) => args.common.clone(),
    };
    if !(common.speed >= 1.0 && common.speed <= 1000.0) {
        bail!("--speed is {}, want 1 to 1000", common.speed);
    }
    if !(common.patience > 0.0 && common.patience <= 3600.0) {
        bail!("--patience is {}, want a number above 0 and up to 3600", common.patience);
    }
    if !network::inside() && namespaces(common.network).await? {
        let stop = serve::stop_signal()?;
        match network::enter(stop).await? {
            0 => return Ok(()),
            code => std::process::exit(code),
        }
    }
    let stop = stopped()?;
    let running = async {
        match args.command {
            Command::Run(args) => run_one(args, json).await,
            Command::Compare(args) => compare::run(args, json).await,
            Command::Learn(args) => live::run(args, json).await,
        }
    };
    tokio::select! {
        ran = running => ran,
        () = stop => bail!("stopped; everything that was started has ended"),
    }
}

/// Whether to use namespaces.
async fn namespaces(choice: Choice) -> Result<bool> {
    if choice == Choice::Loopback {
        return Ok(false);
    }
    match (choice, network::obstacle().await) {
        (_, None) => Ok(true),
        (Choice::Namespaces, Some(why)) => bail!("namespaces cannot be used here: {why}"),
        (_, Some(why)) => {
            eprintln!("on the loopback network, whose links are shaped in user space: {why}");
            Ok(false)
        }
    }
}

/// Resolves at Ctrl-C or SIGTERM, or, inside of namespaces, when whoever made them is gone.
fn stopped() -> Result<impl Future<Output = ()>> {
    let signal = serve::stop_signal()?;
    Ok(async move {
        let orphaned = async {
            if !network::inside() {
                std::future::pending::<()>().await;
            }
            tether::orphaned().await;
        };
        tokio::select! {
            () = signal => {}
            () = orphaned => {}
        }
    })
}

async fn run_one(args: RunArgs, json: bool) -> Result<()> {
    let Common { seed, speed, out, .. } = args.common.clone();
    let scenario = prepare(&args.scenario, &args.common)?;
    let folder = Folder::new(out.as_deref())?;
    let plan = Plan {
        faults: args.fault,
        measure_links: !args.no_links,
        ..args.common.plan(scenario, args.policy, folder.path())
    };
    let world = plan.scenario.world(seed);
    let count = world.tasks.len();
    let network = Arc::new(Network::new(world.topology).await?);
    let played = played(&plan, &network, count).await?;
    let row = played.row(&plan, speed);
    let problems = played.problems(count);
    if json {
        let links: Result<Vec<Value>, _> = played.links.iter().map(serde_json::to_value).collect();
        tables::print_json(&serde_json::json!({ "rows": [row], "links": links?, "problems": problems }))?;
    } else {
        show(&row, &played, speed)?;
        if let Folder::Given(out) = &folder {
            print(format_args!(
                "tasks, ledgers and logs: {}; for the simulator: {}/recorded.toml",
                out.display(),
                out.display()
            ))?;
        }
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n  "));
    }
    Ok(())
}

fn prepare(name: &str, common: &Common) -> Result<Scenario> {
    let (scenario, notes) = prepared(&Scenario::load(name)?, common.tasks, common.speed);
    for note in notes {
        eprintln!("note: {note}");
    }
    Ok(scenario)
}

/// Plays a plan behind a progress bar.
async fn played(plan: &Plan, network: &Arc<Network>, count: usize) -> Result<Played> {
    let bar = tables::progress(count as u64, "{msg} {bar:30} {pos}/{len} tasks  {elapsed}");
    bar.set_message(plan.policy.clone());
    let said = |text: String| bar.suspend(|| eprintln!("{text}"));
    let played = play(plan, network, &said, &|_| bar.inc(1)).await;
    bar.finish_and_clear();
    played
}

fn show(row: &Value, played: &Played, speed: f64) -> Result<()> {
    let figure = |key: &str| row[key].as_f64().unwrap_or_default();
    print(format_args!(
        "{} under {} on the {} network, times and sizes divided by {speed}: {:.0} s\n",
        row["scenario"].as_str().unwrap_or_default(),
        row["policy"].as_str().unwrap_or_default(),
        played.network,
        played.seconds
    ))?;
    if !played.links.is_empty() {
        let mut links = table(&["link of", "from", "to", "shaped Mbit/s", "measured", "ratio"]);
        for link in &played.links {
            let number = |mbps: f64| format!("{mbps:.1}");
            let (shaped, measured) = (number(link.shaped_mbps), number(link.measured_mbps));
            let ratio = format!("{:.3}", link.ratio());
            links.add_row([&link.link, &link.from, &link.to, &shaped, &measured, &ratio]);
        }
        print(format_args!("{links}\n"))?;
    }
    let count = |key: &str| row[key].as_u64().unwrap_or_default();
    print(format_args!(
        "tasks      {} of {} completed, {} given up, {} unplaceable, {} turned away, {} orphaned; {} new tries",
        count("completed"),
        count("tasks"),
        count("given_up"),
        count("unplaceable"),
        count("turned_away"),
        count("orphaned"),
        count("retries")
    ))?;
    print(format_args!(
        "response   mean {:.2} s, p95 {:.2} s; {} too late",
        figure("response_mean_s"),
        figure("response_p95_s"),
        count("deadline_missed")
    ))?;
    let books = &played.books;
    print(format_args!(
        "bytes      {} sent = {} received + {} lost over {} transfers, {} of them broken off; each byte was compared, \
         {} transfers were wrong",
        books.sent_bytes, books.received_bytes, books.lost_bytes, books.transfers, books.broken, books.wrong
    ))?;
    print(format_args!(
        "data moved {} at prices, {} left a site; caches evicted {} items of {}",
        bytes(figure("moved_bytes")),
        bytes(figure("wan_bytes")),
        books.evicted,
        bytes(books.evicted_bytes as f64)
    ))?;
    let limited = if played.cpu_limited { "the kernel limits each node" } else { "tasks limit themselves" };
    print(format_args!("cpu        {:.4} of a core for a core of a node; {limited}", played.cpu_share))
}
