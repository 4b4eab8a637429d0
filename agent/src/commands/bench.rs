//! `remora bench`: how fast it is here, and how that stands against what others measured.

mod apps;
mod env;
mod kubernetes;
mod policy;
mod serve;
mod shortlist;
mod train;

use anyhow::Result;
use clap::{Args as ClapArgs, Subcommand};

/// Measure speed and memory on this machine.
#[derive(ClapArgs, Debug)]
#[command(
    after_help = "Example:\n  remora bench env --json\n  remora bench policy --policy skippy,pretrained"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// The simulator: decisions and events per CPU second of one core, peak memory.
    Env(env::Args),
    /// The policies: CPU time of one decision.
    Policy(policy::Args),
    /// The shortlist of large clusters: what it costs not to look closer at everybody.
    Shortlist(shortlist::Args),
    /// The learner: decisions, labels and samples per second, beside PyTorch and Stable-Baselines3.
    Train(train::Args),
    /// The service under load over loopback, beside one that does no work.
    Serve(serve::Args),
    /// A real Kubernetes control plane on loopback: pods per second and CPU per pod, with us and without.
    Kubernetes(kubernetes::Args),
    /// AppCore: the cost of a notice and of a trigger, and notices to the service at a steady rate.
    Apps(apps::Args),
}

pub async fn run(args: &Args, json: bool) -> Result<()> {
    match &args.command {
        Command::Env(args) => env::run(args, json),
        Command::Policy(args) => policy::run(args, json),
        Command::Shortlist(args) => shortlist::run(args, json),
        Command::Train(args) => train::run(args, json),
        Command::Serve(args) => serve::run(args, json).await,
        Command::Kubernetes(args) => kubernetes::run(args, json).await,
        Command::Apps(args) => apps::run(args, json).await,
    }
}
