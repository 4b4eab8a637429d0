//! `remora app`: applications of a running service.

pub mod compare;
mod define;
mod own;
mod runs;
mod show;
mod triggers;
mod versions;

use clap::Subcommand;
use remora_proto::v1 as wire;
use remora_proto::v1::app_service_client::AppServiceClient;

use crate::client::{ServerArgs, Wire};

/// Control applications: they sleep, learn and wake.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:
  remora app register examples/apps/sensor-anomaly
  remora app enable sensor-anomaly
  remora app notify sensor-anomaly monday.csv
  remora app run sensor-anomaly --input window.csv")]
pub enum Command {
    /// Take in an application, or new code of one.
    #[command(after_help = "Example:
  remora app register examples/apps/sensor-anomaly
  remora app register --own --cluster city --minutes 30")]
    Register(define::RegisterArgs),
    /// Check an app.toml and its files, without a service.
    #[command(after_help = "Example:\n  remora app check examples/apps/sensor-anomaly")]
    Check(define::CheckArgs),
    /// Print the JSON Schema of app.toml.
    #[command(after_help = "Example:\n  remora app schema > app.schema.json")]
    Schema,
    /// List all applications.
    #[command(after_help = "Example:\n  remora app list")]
    List(ServerArgs),
    /// Show one application: state, versions, triggers, last runs.
    #[command(after_help = "Example:\n  remora app show sensor-anomaly")]
    Show(show::AppArgs),
    /// Take an application into use.
    #[command(after_help = "Example:\n  remora app enable sensor-anomaly")]
    Enable(show::CommandArgs),
    /// Make an application ready for requests.
    #[command(after_help = "Example:\n  remora app wake sensor-anomaly")]
    Wake(show::CommandArgs),
    /// Let what is under way end, then let it sleep.
    #[command(after_help = "Example:\n  remora app sleep sensor-anomaly")]
    Sleep(show::CommandArgs),
    /// Let an application go on that was set aside after failures.
    #[command(after_help = "Example:\n  remora app release sensor-anomaly --reason \"disk replaced\"")]
    Release(show::CommandArgs),
    /// End an application for good; what it did stays in the archive.
    #[command(after_help = "Example:\n  remora app retire sensor-anomaly --reason \"pump sold\"")]
    Retire(show::CommandArgs),
    /// What moved applications from state to state, newest first.
    #[command(after_help = "Example:\n  remora app transitions sensor-anomaly")]
    Transitions(show::TransitionArgs),
    /// Tell what happens, until Ctrl-C.
    #[command(after_help = "Example:\n  remora app watch sensor-anomaly")]
    Watch(show::WatchArgs),
    /// Have a request answered, waking the application if it sleeps.
    #[command(after_help = "Example:\n  remora app run sensor-anomaly --input window.csv --out answer.json")]
    Run(runs::RunArgs),
    /// Wait until an application is asleep, or has a champion.
    #[command(after_help = "Example:\n  remora app wait sensor-anomaly --champion 3")]
    Wait(show::WaitArgs),
    /// List runs, newest first.
    #[command(after_help = "Example:\n  remora app runs sensor-anomaly --kind learn")]
    Runs(runs::ListArgs),
    /// Show what a run says; where it is under way, until it is over.
    #[command(after_help = "Example:\n  remora app log sensor-anomaly.3")]
    Log(runs::OneArgs),
    /// Stop a run.
    #[command(after_help = "Example:\n  remora app cancel sensor-anomaly.3 --reason \"wrong file\"")]
    Cancel(runs::OneArgs),
    /// Do a run once more as it was recorded, and say what came out otherwise.
    #[command(after_help = "Example:\n  remora app repeat sensor-anomaly.3")]
    Repeat(runs::OneArgs),
    /// Say in what two runs differ: what they were made of, where and how long they ran, what came of them.
    #[command(after_help = "Example:\n  remora app diff sensor-anomaly.3 sensor-anomaly.7")]
    Diff(runs::DiffArgs),
    /// What is kept of what runs read and wrote, and the room that it takes.
    #[command(after_help = "Example:\n  remora app archive")]
    Archive(ServerArgs),
    /// Write what a run read or wrote into a file.
    #[command(after_help = "Example:\n  remora app artifact sensor-anomaly.3 model --out model")]
    Artifact(runs::ArtifactArgs),
    /// Write a run with all that is needed to check and repeat it into a tar archive.
    #[command(after_help = "Example:\n  remora app export sensor-anomaly.3 --out run.tar")]
    Export(runs::ExportArgs),
    /// Tell that data came.
    #[command(after_help = "Example:\n  remora app notify sensor-anomaly monday.csv tuesday.csv")]
    Notify(triggers::NotifyArgs),
    /// Tell the value of a metric that triggers watch.
    #[command(after_help = "Example:\n  remora app metric sensor-anomaly false_alarms 0.2")]
    Metric(triggers::MetricArgs),
    /// Triggers: when they fire next, what they did, why they did not.
    #[command(after_help = "Example:\n  remora app triggers sensor-anomaly")]
    Triggers(triggers::ListArgs),
    /// Fire a trigger, pause it, let it go on, or fire it for times that are past.
    #[command(after_help = "Example:\n  remora app trigger sensor-anomaly nightly pause --reason holidays")]
    Trigger(triggers::TriggerArgs),
    /// Versions, newest first, and what the gate said of them.
    #[command(after_help = "Example:\n  remora app versions sensor-anomaly")]
    Versions(versions::ListArgs),
    /// Give an alias to a version; the champion answers requests.
    #[command(
        after_help = "Example:\n  remora app alias sensor-anomaly champion 3 --reason \"checked by hand\""
    )]
    Alias(versions::AliasArgs),
    /// Give the place back to the champion before.
    #[command(after_help = "Example:\n  remora app rollback sensor-anomaly --reason \"too many alarms\"")]
    Rollback(versions::RollBackArgs),
    /// Who had which alias, and since when.
    #[command(after_help = "Example:\n  remora app history sensor-anomaly --at 2026-03-01T12:00:00Z")]
    History(versions::HistoryArgs),
}

pub async fn run(command: Command, json: bool) -> anyhow::Result<()> {
    match command {
        Command::Register(args) => define::register(args, json).await,
        Command::Check(args) => define::check(&args, json),
        Command::Schema => define::schema(),
        Command::List(args) => show::list(args, json).await,
        Command::Show(args) => show::show(args, json).await,
        Command::Enable(args) => show::command(args, wire::AppCommand::Enable, json).await,
        Command::Wake(args) => show::command(args, wire::AppCommand::Wake, json).await,
        Command::Sleep(args) => show::command(args, wire::AppCommand::Sleep, json).await,
        Command::Release(args) => show::command(args, wire::AppCommand::Release, json).await,
        Command::Retire(args) => show::command(args, wire::AppCommand::Retire, json).await,
        Command::Transitions(args) => show::transitions(args, json).await,
        Command::Watch(args) => show::watch(args, json).await,
        Command::Run(args) => runs::execute(args, json).await,
        Command::Wait(args) => show::wait(args).await,
        Command::Runs(args) => runs::list(args, json).await,
        Command::Log(args) => runs::log(args).await,
        Command::Cancel(args) => runs::cancel(args, json).await,
        Command::Repeat(args) => runs::repeat(args, json).await,
        Command::Diff(args) => runs::diff(args, json).await,
        Command::Archive(args) => runs::archive(args, json).await,
        Command::Artifact(args) => runs::artifact(args).await,
        Command::Export(args) => runs::export(args).await,
        Command::Notify(args) => triggers::notify(args, json).await,
        Command::Metric(args) => triggers::metric(args).await,
        Command::Triggers(args) => triggers::list(args, json).await,
        Command::Trigger(args) => triggers::command(args, json).await,
        Command::Versions(args) => versions::list(args, json).await,
        Command::Alias(args) => versions::alias(args, json).await,
        Command::Rollback(args) => versions::roll_back(args, json).await,
        Command::History(args) => versions::history(args, json).await,
    }
}

/// Largest answer, bytes: executions answer with what they wrote.
const MAX_ANSWER: usize = 80 << 20;

fn client(wire: Wire) -> AppServiceClient<Wire> {
    AppServiceClient::new(wire).max_decoding_message_size(MAX_ANSWER)
}
