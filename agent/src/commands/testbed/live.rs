//! `remora testbed learn`: a policy learns on from what happens on a testbed.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use remora_env::World;
use remora_trainer::continual::WINDOW;

use super::{Common, Folder, prepare};
use crate::appcore::manifest::Manifest;
use crate::appcore::own;
use crate::commands::train::configuration_from;
use crate::commands::{print, table, tables};
use crate::testbed::faults::What;
use crate::testbed::live::{Course, Learning, Phase, learn};
use crate::testbed::network::Network;
use crate::testbed::run::Plan;

/// Have the trained policy learn from what happens here; it decides where it proved better.
///
/// A heuristic decides, with the shipped policy in its shadow. Half-way through what is learnt from, a link is degraded, and
/// stays so. Then everything rests while the application remora-policy learns; the last quarter of the tasks is decided
/// by whoever is champion afterwards.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  remora testbed learn testbed --degrade workshop*0.25 --minutes 10 --out runs/live"
)]
pub struct Args {
    /// Scenario: `testbed`, which is made for this, another built-in one, or a file.
    scenario: String,
    /// Who decides at first: a heuristic's name, `pretrained`, or a checkpoint's path.
    #[arg(long, default_value = "greedy-marginal-tuned")]
    policy: String,
    /// The link that is degraded, of a node or a site, and the share that it has left, as NAME*SHARE.
    #[arg(long, value_name = "LINK")]
    degrade: Option<String>,
    /// Learn for so long [default: 10].
    #[arg(long, conflicts_with = "steps")]
    minutes: Option<f64>,
    /// Learn for so many iterations instead.
    #[arg(long)]
    steps: Option<u64>,
    /// TOML file with hyper-parameters; see config.toml of any run.
    #[arg(long)]
    config: Option<PathBuf>,
    #[command(flatten)]
    pub common: Common,
}

/// Tasks unless given: 1,200 to learn from, which makes three windows, and 400 afterwards.
const TASKS: u32 = 1600;
const MINUTES: f64 = 10.0;

impl Args {
    /// The application, which learns only when it is told to.
    fn manifest(&self, cluster: &str) -> Result<Manifest> {
        let minutes = self.minutes.or((self.steps.is_none()).then_some(MINUTES));
        let mut manifest = own::manifest(Some(cluster.to_owned()), minutes, self.steps)?;
        manifest.triggers.retain(|trigger| trigger.name == own::BY_HAND);
        if let Some(path) = &self.config {
            let config = serde_json::to_value(configuration_from(Some(path))?)?;
            manifest.parameters.insert("config".to_owned(), config);
        }
        Ok(manifest)
    }

    fn degraded(&self, world: &World) -> Result<Option<(usize, f64)>> {
        let Some(text) = &self.degrade else { return Ok(None) };
        let wrong = || format!("--degrade {text:?}: want NAME*SHARE, the share above 0 and below 1");
        let (name, share) = text.split_once('*').with_context(wrong)?;
        let share =
            share.parse::<f64>().ok().filter(|share| *share > 0.0 && *share < 1.0).with_context(wrong)?;
        let link =
            What::Link(name.to_owned()).target(world).map_err(|wrong| anyhow!("--degrade: {wrong}"))?;
        Ok(link.map(|link| (link, share)))
    }
}

/// Plays, learns, and prints what each part of the run came to.
///
/// # Errors
/// When an argument is wrong, the folder cannot be written, or something breaks or went wrong on the testbed.
pub async fn run(mut args: Args, json: bool) -> Result<()> {
    args.common.tasks.get_or_insert(TASKS);
    let Common { seed, speed, out, .. } = args.common.clone();
    let scenario = prepare(&args.scenario, &args.common)?;
    let world = scenario.world(seed);
    let count = world.tasks.len();
    let learn_from = count * 3 / 4;
    if learn_from < 2 * WINDOW {
        eprintln!(
            "note: {learn_from} of {count} tasks come before learning, and it wants {} at least",
            2 * WINDOW
        );
    }
    let course =
        Course { learn_from, degraded: args.degraded(&world)?, manifest: args.manifest(&world.name)? };
    let folder = Folder::new(out.as_deref())?;
    let plan = Plan { apps: true, ..args.common.plan(scenario, args.policy, folder.path()) };
    let network = Arc::new(Network::new(world.topology).await?);
    let bar = tables::progress(count as u64, "{bar:30} {pos}/{len} tasks  {elapsed}");
    let said = |text: String| bar.suspend(|| eprintln!("{text}"));
    let learning = learn((&plan, &course), &network, &said, &|_| bar.inc(1)).await;
    bar.finish_and_clear();
    let (played, learning) = learning?;
    learning.write(folder.path())?;
    let problems = played.problems(count);
    if json {
        let run = played.row(&plan, speed);
        tables::print_json(&serde_json::json!({
            "rows": learning.phases,
            "learnt": [learning.learnt],
            "run": run,
            "problems": problems,
            "plots": learning.plots(),
        }))?;
    } else {
        show(&learning)?;
        if let Folder::Given(out) = &folder {
            print(format_args!("plots, decisions, ledgers and logs: {}", out.display()))?;
        }
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n  "));
    }
    Ok(())
}

fn show(learning: &Learning) -> Result<()> {
    let mut shown = table(&[
        "",
        "decisions",
        "by",
        "response s",
        "moved MB",
        "cost",
        "regret",
        "shadow differs",
        "shadow costs",
    ]);
    for phase in &learning.phases {
        let Phase { response_mean_s, moved_mb, cost, regret, shadow_differs, shadow_cost_ratio, .. } = phase;
        let figures = [
            format!("{response_mean_s:.2}"),
            format!("{moved_mb:.2}"),
            format!("{cost:.3}"),
            format!("{regret:+.3}"),
            format!("{:.0} %", 100.0 * shadow_differs),
            format!("{shadow_cost_ratio:.3}"),
        ];
        let (name, by) = (phase.phase.to_owned(), phase.decided_by.clone());
        shown.add_row([name, phase.decisions.to_string(), by].into_iter().chain(figures));
    }
    print(shown)?;
    print(learning.learnt.told())?;
    print(LEGEND)
}

const LEGEND: &str = "\
moved MB      of a task, at prices; costs are at the dial of the run
regret        how much dearer decisions came than the heuristic expected of its own choice, at most 4
shadow costs  what its choices were expected to cost over those that were made";
