//! `remora quickstart`: the whole product in a few minutes.

pub mod application;
mod demo;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use remora_env::{Scenario, Scenarios};
use remora_policies::{Checkpoint, Learned, usual};
use remora_trainer::Config;
use remora_trainer::evaluate::Plan;
use remora_trainer::evolution::EvolutionConfig;
use remora_trainer::journal::Journal;
use remora_trainer::run::{Budget, Finished, Options};
use remora_trainer::summary::Evaluation;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{cluster, evaluate, print, serve, tables, train};
use crate::appcore::apps;
use crate::appcore::executor::process::Processes;
use crate::evaluation::Evaluated;
use crate::files::write;
use crate::service;
use crate::storage::{self, Storage};

/// Train for two minutes, compare with the baselines, write a report, then serve.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  remora quickstart --minutes 5 --out runs/mine")]
pub struct Args {
    /// How long to train.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Folder for the run and the report; an earlier quickstart there is replaced.
    #[arg(long, default_value = "runs/quickstart")]
    out: PathBuf,
    /// Seed of the training.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Address to serve on; a free port is taken where this one is in use.
    #[arg(long, default_value = "127.0.0.1:50051")]
    listen: SocketAddr,
    /// Address of the Control Panel; a free port is taken where this one is in use.
    #[arg(long, default_value = "127.0.0.1:8080")]
    http: SocketAddr,
    /// End after the report.
    #[arg(long)]
    no_serve: bool,
}

/// The scenario that the service starts with.
const SERVED: &str = "urban-sensing";
/// What the trained policy is called.
const TRAINED: &str = "trained";
/// Held-out worlds per scenario.
const WORLDS: u64 = 5;

pub async fn run(args: Args, json: bool) -> Result<()> {
    if !(args.minutes.is_finite() && args.minutes > 0.0) {
        bail!("--minutes is {}, want a number above 0", args.minutes);
    }
    for (flag, address) in [("listen", args.listen), ("http", args.http)] {
        if !address.ip().is_loopback() {
            bail!("--{flag} {address} can be reached by other machines: quickstart serves on this one only");
        }
    }
    clear(&args.out)?;
    let say = |text: String| -> Result<()> {
        if json {
            eprintln!("{text}");
            Ok(())
        } else {
            print(text)
        }
    };
    say(introduction(&args))?;
    let budget = Budget::Minutes(args.minutes);
    let options = Options { folder: args.out.clone(), budget, resume: false, from: None };
    let finished = train::with_progress(quick(args.seed), &options)?;
    say(format!(
        "1. Trained: {} iterations, {} decisions. On validation worlds it costs {:.3} of greedy-marginal.\n",
        finished.iterations,
        finished.lines.last().map_or(0, |line| line.decisions),
        finished.validation
    ))?;
    let evaluation = compare(&finished)?;
    let report = args.out.join("report.html");
    write(&args.out.join("evaluation.json"), serde_json::to_vec_pretty(&evaluation)?)?;
    let summary = format!(
        "A policy trained for {} minutes on this machine, against the heuristics, on {WORLDS} held-out worlds of \
         each scenario.",
        args.minutes
    );
    evaluate::write_report(&report, "Remora: quickstart", &summary, &evaluation, &finished.lines)?;
    say(format!("2. Compared on {WORLDS} worlds per scenario that training never saw, at α = 0.5:\n"))?;
    say(format!("{}{}\n", tables::evaluation(&evaluation, 0.5), tables::LEGEND))?;
    say(savings(&evaluation))?;
    say(places(&args.out, &finished.best, &report))?;
    if json {
        tables::print_json(&evaluation)?;
    }
    if args.no_serve { Ok(()) } else { serve_policy(&args, &finished.best, &evaluation, &say).await }
}

/// What minutes are enough for: the clusters that it is compared on, and small generations.
fn quick(seed: u64) -> Config {
    let mut config = Config { seed, ..Config::default() };
    config.scenarios = remora_env::scenario::built_in().map(str::to_owned).collect();
    config.evolution = EvolutionConfig { population: 12, worlds: 24, ..config.evolution };
    config
}

/// Removes an earlier quickstart, and nothing else.
fn clear(folder: &Path) -> Result<()> {
    let is_run = folder.join("config.toml").exists() && folder.join("checkpoints").is_dir();
    if is_run {
        std::fs::remove_dir_all(folder).with_context(|| format!("cannot replace {}", folder.display()))?;
    } else if folder.exists() && folder.read_dir()?.next().is_some() {
        bail!("{} is not an earlier quickstart: name another folder with --out", folder.display());
    }
    Ok(())
}

fn introduction(args: &Args) -> String {
    let (minutes, end) = (args.minutes, if args.no_serve { "" } else { " Then it serves the policy." });
    format!(
        "Remora learns where to run AI tasks on an edge cluster, so that less data crosses thin links and\n\
         results come sooner. It now trains a policy for {minutes} minutes on three simulated clusters (91 to 449\n\
         nodes), compares it with {} heuristics and writes a report.{end}\n",
        usual().count()
    )
}

fn compare(finished: &Finished) -> Result<Evaluation> {
    let mut policies: Vec<String> = usual().map(str::to_owned).collect();
    policies.push(finished.best.to_string_lossy().into_owned());
    let scenarios: Result<Vec<_>, _> = remora_env::scenario::built_in().map(Scenarios::load).collect();
    let plan = Plan {
        scenarios: scenarios?,
        policies,
        alphas: vec![0.0, 0.25, 0.5, 0.75, 1.0],
        seeds: WORLDS,
        per_member: 1,
        tries: 0,
    };
    let mut evaluation = evaluate::run_plan(&plan, &Journal::default())?;
    evaluation.rename(&finished.best.to_string_lossy(), TRAINED);
    Ok(evaluation)
}

/// What the trained policy saves against `kube-default`, in words.
fn savings(evaluation: &Evaluation) -> String {
    let (scenarios, _, _) = evaluation.axes();
    let mut text = String::from("Against Kubernetes' default scheduler the trained policy (α = 0.5)\n");
    for scenario in &scenarios {
        let mean =
            |policy: &str, moved: bool| {
                evaluation
                    .mean(scenario, policy, 0.5, |r| if moved { r.data_moved_gb } else { r.response_mean_s })
            };
        let change = |moved: bool| 100.0 * (mean(TRAINED, moved) / mean("kube-default", moved) - 1.0);
        text.push_str(&format!(
            "  {scenario:15} data moved {:+5.0} %, mean response {:+5.0} %\n",
            change(true),
            change(false)
        ));
    }
    text
}

fn places(folder: &Path, best: &Path, report: &Path) -> String {
    format!(
        "3. Where things are\n\
         \x20  report with plots   {}\n\
         \x20  trained policy      {}\n\
         \x20  figures             {}\n\
         \x20  learning curves     {} (tensorboard --logdir {})\n",
        report.display(),
        best.display(),
        folder.join("evaluation.json").display(),
        folder.join("tensorboard").display(),
        folder.display()
    )
}

async fn serve_policy(
    args: &Args,
    best: &Path,
    evaluation: &Evaluation,
    say: &dyn Fn(String) -> Result<()>,
) -> Result<()> {
    let checkpoint = Checkpoint::load(best)?;
    let policy = Box::new(Learned::new(&checkpoint.id(), &checkpoint)?);
    let (listener, http) = (free(args.listen).await?, free(args.http).await?);
    let (address, panel) = (listener.local_addr()?, http.local_addr()?);
    let scenario = Scenario::load(SERVED)?;
    let runs = beside(&args.out);
    let clusters = vec![cluster::of_scenario(&scenario, None, 0)];
    say(format!(
        "4. Serving the trained policy on {address} (gRPC), with the cluster {SERVED} simulated beside it. Ctrl-C ends.\n\
         \x20  See it at work: the Control Panel is at http://{panel}/\n\
         \x20  There two applications sleep and learn: sensor-anomaly, an example that gets new readings of a pump every\n\
         \x20  minute, and remora-policy, which learns to place tasks better from what happens, after some 2000 of them.\n\
         \x20  Try, in another terminal:\n\
         \x20    remora place --cluster {SERVED} --task train --dry-run --server http://{address}\n\
         \x20    remora app show sensor-anomaly --server http://{address}    (docs/applications.md is a tour of ten minutes)\n\
         \x20    remora evaluate --policy kube-default,greedy-marginal,{} --alpha 0,0.5,1\n\
         \x20    remora train --scenario {SERVED} --out {} --minutes 10    (its curves appear under Training)\n\
         \x20  (remora is target/release/remora, or cargo run --release --)",
        best.display(),
        runs.join("first").display(),
    ))?;
    let data = args.out.join("service");
    let storage = Arc::new(Storage::open(storage::Options::new(&data)).await?);
    keep(args, &storage, &checkpoint, evaluation).await?;
    let apps = apps::Options::new(data.join("apps"), Processes::new());
    let config = service::Config {
        clusters,
        storage: Some(storage),
        apps: Some(apps),
        http: Some(http),
        runs: vec![runs],
        called: Some(TRAINED.to_owned()),
        ..service::Config::new(policy)
    };
    let stop = serve::stop_signal()?;
    let demonstrating = [
        tokio::spawn(told("the simulated cluster", demo::play(address, scenario))),
        tokio::spawn(told("the example application", application::play(address, args.seed))),
    ];
    service::run(listener, stop, config).await?;
    demonstrating.iter().for_each(JoinHandle::abort);
    print("stopped")
}

/// The trained policy is kept under its name, with what it came to.
async fn keep(
    args: &Args,
    storage: &Storage,
    checkpoint: &Checkpoint,
    evaluation: &Evaluation,
) -> Result<()> {
    let (id, note) = (checkpoint.id(), format!("trained by quickstart, {} minutes", args.minutes));
    let who = serve::keep(storage, TRAINED, checkpoint, &note).await?;
    let (at_ms, actor) = (who.at_ms, who.actor.clone());
    let evaluated = Evaluated { at_ms, actor, ..Evaluated::of(evaluation, &id)? };
    storage.set_evaluation(&id, &evaluated, &who).await?;
    Ok(())
}

/// Where further runs are looked for: beside this one where that is a folder for runs, and in it otherwise.
fn beside(out: &Path) -> PathBuf {
    match out.parent() {
        Some(parent) if parent.file_name().is_some_and(|name| name == "runs") => parent.to_owned(),
        _ => out.to_owned(),
    }
}

/// Says why a part of the demonstration ended; the service goes on without it.
async fn told(what: &str, part: impl Future<Output = Result<()>>) {
    if let Err(error) = part.await {
        tracing::warn!("{what} of the demonstration ended: {error:#}");
    }
}

/// A listener at this address, or at a free port where it is in use.
async fn free(address: SocketAddr) -> Result<TcpListener> {
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(_) => Ok(TcpListener::bind(SocketAddr::new(address.ip(), 0)).await?),
    }
}
