//! `remora`: the command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use remora_agent::appcore::executor::process::{SUPERVISE, supervise};
use remora_agent::commands::{
    ablate, app, audit, bench, cluster, dispute, evaluate, kubernetes, learn, node, outcome, own, place,
    policy, quickstart, report, scenario, serve, settings, testbed, token, trace, train, tune,
};
use remora_agent::logs::{self, Format};
use remora_agent::testbed::{burn, tether};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Places AI tasks where their data already is, unless waiting would cost more.
#[derive(Debug, Parser)]
#[command(name = "remora", version, arg_required_else_help = true, after_help = EXAMPLE)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print results as JSON on stdout; everything else goes to stderr.
    #[arg(long, global = true)]
    json: bool,
}

const EXAMPLE: &str = "Examples:
  remora quickstart
  remora evaluate --scenario urban-sensing
  remora serve --policy greedy-completion --scenario urban-sensing
  remora place --cluster urban-sensing --task train --image train-0 --input training-set-0 --dry-run";

#[derive(Debug, Subcommand)]
enum Command {
    Quickstart(quickstart::Args),
    Scenario(scenario::Args),
    Trace(trace::Args),
    Train(train::Args),
    Learn(learn::Args),
    Ablate(ablate::Args),
    Evaluate(evaluate::Args),
    Tune(tune::Args),
    Serve(Box<serve::Args>),
    Place(place::Args),
    Outcome(outcome::Args),
    Dispute(dispute::Args),
    #[command(subcommand)]
    Cluster(cluster::Command),
    #[command(subcommand)]
    Policy(policy::Command),
    #[command(subcommand)]
    Kubernetes(kubernetes::Command),
    #[command(subcommand)]
    Token(token::Command),
    #[command(subcommand)]
    App(app::Command),
    Audit(audit::Args),
    Settings(settings::Args),
    Bench(bench::Args),
    Report(report::Args),
    Testbed(testbed::Args),
    Node(node::Args),
    #[command(name = burn::BURN, hide = true)]
    Burn(burn::Args),
    /// Run one job; the service starts this.
    #[command(name = SUPERVISE, hide = true)]
    Supervise,
    /// Learn or judge Remora's own policy; the service starts this.
    #[command(hide = true)]
    Own,
    /// The example application of quickstart; the service starts this.
    #[command(subcommand, hide = true)]
    SensorAnomaly(sensor_anomaly::Command),
}

impl Command {
    fn log_format(&self) -> Format {
        match self {
            Command::Serve(args) => args.log_format(),
            _ => Format::default(),
        }
    }

    async fn run(self, json: bool) -> anyhow::Result<()> {
        match self {
            Command::Quickstart(args) => quickstart::run(args, json).await,
            Command::Scenario(args) => scenario::run(&args, json),
            Command::Trace(args) => trace::run(&args, json).await,
            Command::Train(args) => train::run(&args, json),
            Command::Learn(args) => learn::run(&args, json),
            Command::Ablate(args) => ablate::run(&args, json),
            Command::Evaluate(args) => evaluate::run(&args, json),
            Command::Tune(args) => tune::run(&args, json),
            Command::Serve(args) => serve::run(*args, json).await,
            Command::Place(args) => place::run(args, json).await,
            Command::Outcome(args) => outcome::run(args, json).await,
            Command::Dispute(args) => dispute::run(args, json).await,
            Command::Cluster(command) => cluster::run(command, json).await,
            Command::Policy(command) => policy::run(command, json).await,
            Command::Kubernetes(command) => kubernetes::run(command, json).await,
            Command::Token(command) => token::run(command, json).await,
            Command::App(command) => app::run(command, json).await,
            Command::Audit(args) => audit::run(args, json).await,
            Command::Settings(args) => settings::run(args, json).await,
            Command::Report(args) => report::run(&args, json),
            Command::Bench(args) => bench::run(&args, json).await,
            Command::Testbed(args) => testbed::run(args, json).await,
            Command::Node(args) => node::run(args).await,
            Command::Supervise | Command::Own | Command::Burn(_) | Command::SensorAnomaly(_) => {
                unreachable!("the service starts it without a runtime")
            }
        }
    }
}

/// Exit codes: 0 done, 1 failed, 2 wrong usage.
fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::Supervise = cli.command {
        return supervise();
    }
    if let Command::Own = cli.command {
        return own::run();
    }
    if let Command::SensorAnomaly(command) = cli.command {
        return command.run();
    }
    if let Command::Burn(args) = &cli.command {
        return burn::run(args);
    }
    tether::tie();
    let (format, json) = (cli.command.log_format(), cli.json);
    let ran = tokio::runtime::Runtime::new().map_err(anyhow::Error::from).and_then(|runtime| {
        runtime.block_on(async {
            let _logs = logs::start(format);
            cli.command.run(json).await
        })
    });
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<clap::Error>() {
            Some(usage) => usage.exit(),
            None => {
                eprintln!("error: {}", told(&error));
                ExitCode::FAILURE
            }
        },
    }
}

/// The error and its causes, each once: many errors tell their cause themselves.
fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(|cause| cause.to_string()) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(cause.trim_end()) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
