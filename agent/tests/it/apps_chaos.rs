//! A day of twenty applications, pressed into seconds, during which the real service is killed again and again
//! (`REMORA_TEST_KILLS` times): whatever it has told anybody stays true, and everything that was asked of it is done
//! once.

mod day;
mod ledger;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use remora_agent::appcore::core::Core;
use remora_agent::appcore::owner;
use remora_agent::storage::{Options, Storage};
use remora_proto::v1 as wire;
use remora_proto::v1::app_service_client::AppServiceClient;
use tokio_stream::StreamExt;
use tonic::transport::Channel;
use wire::app_event::Event;

use crate::restart::{Program, kills};
use day::{APPS, Day};
use ledger::Ledger;

pub type Client = AppServiceClient<Channel>;

/// Who asks at a time.
const WORKERS: usize = 6;
/// How long the last service may take for all that is left.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process, by its number and when it began: numbers are used again.
type Process = (u32, String);

/// Processes of jobs below this folder: it stands in the environment of each.
fn jobs(folder: &Path) -> BTreeSet<Process> {
    let mark = folder.canonicalize().unwrap().to_string_lossy().into_owned();
    let job = |id: u32| {
        let environment = std::fs::read(format!("/proc/{id}/environ")).ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let began = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.to_owned();
        String::from_utf8_lossy(&environment).contains(&mark).then_some((id, began))
    };
    let processes = std::fs::read_dir("/proc").unwrap();
    processes.filter_map(|entry| job(entry.ok()?.file_name().to_str()?.parse().ok()?)).collect()
}

/// What the journal leads to, once the service is gone; the tables say the same.
async fn replay(folder: &Path, ledger: &Ledger) -> Core {
    let storage = Storage::open(Options::new(folder)).await.unwrap();
    let before = storage.apps_before().await.unwrap();
    let (core, ..) = owner::replay(before.snapshot, &before.entries).unwrap();
    core.check();
    ledger.check_tables(&core, &storage).await;
    storage.close().await;
    core
}

/// Notes all that is told to those who watch, until the service is gone.
async fn watch(mut client: Client, ledger: Arc<Ledger>) {
    let request = wire::WatchAppsRequest::default();
    let Ok(events) = client.watch_apps(request).await else { return };
    let mut events = events.into_inner();
    while let Some(Ok(event)) = events.next().await {
        match event.event {
            Some(Event::Transition(told)) => ledger.moved(told),
            Some(Event::Run(run)) if run.ended_ms.is_some() => ledger.over(run),
            _ => {}
        }
    }
}

/// Moments from a tenth of a second to about a second and a half.
fn moment() -> Duration {
    let mut random = [0; 2];
    getrandom::fill(&mut random).unwrap();
    Duration::from_millis(100 + u64::from(u16::from_le_bytes(random)) % 1400)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_survives_being_killed() {
    let folder = tempfile::tempdir().unwrap();
    let (day, ledger) = (Arc::new(Day::default()), Arc::new(Ledger::default()));
    let mut left = BTreeSet::new();
    for kill in 0..kills() {
        let program = Program::start(folder.path(), &[]);
        let mut client = Client::new(program.channel().await);
        day.begin(&mut client).await;
        // Whatever an earlier service left running is gone before this one answers.
        let orphans: Vec<_> = jobs(folder.path()).intersection(&left).cloned().collect();
        assert!(orphans.is_empty(), "kill {kill}: {orphans:?} still run");
        ledger.check_told(&mut client).await;
        let watching = tokio::spawn(watch(client.clone(), ledger.clone()));
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| tokio::spawn(day.clone().work(client.clone(), ledger.clone(), false)))
            .collect();
        tokio::time::sleep(moment()).await;
        program.kill();
        left = jobs(folder.path());
        for task in workers.into_iter().chain([watching]) {
            task.await.unwrap();
        }
        replay(folder.path(), &ledger).await;
    }
    // The last one comes to the end of the day.
    let program = Program::start(folder.path(), &[]);
    let mut client = Client::new(program.channel().await);
    day.begin(&mut client).await;
    let workers: Vec<_> =
        (0..WORKERS).map(|_| tokio::spawn(day.clone().work(client.clone(), ledger.clone(), true))).collect();
    let done = async {
        for worker in workers {
            worker.await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, done).await.expect("somebody waits for ever");
    let told = evening(&mut client).await;
    program.kill();
    let core = replay(folder.path(), &ledger).await;
    for told in &told {
        ledger::same(told, core.app(&told.name).unwrap());
    }
    let storage = Storage::open(Options::new(folder.path())).await.unwrap();
    ledger.check_all(&core, &storage).await;
    storage.close().await;
    let began = Instant::now();
    while !jobs(folder.path()).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(10), "{:?} outlive the service", jobs(folder.path()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Lets no more schedules fire and waits until nothing is left to do; the applications as they are then.
async fn evening(client: &mut Client) -> Vec<wire::App> {
    for app in day::names().filter(|app| app.starts_with("clock")) {
        let request = wire::CommandTriggerRequest {
            app,
            trigger: "tick".to_owned(),
            command: wire::TriggerCommand::Pause.into(),
            ..wire::CommandTriggerRequest::default()
        };
        client.command_trigger(request).await.unwrap();
    }
    let busy = |app: &wire::App| {
        let data = app.triggers.iter().any(|trigger| trigger.items > 0);
        !matches!(app.state.as_str(), "asleep.idle" | "quarantined")
            || app.executing + app.waiting + app.calls_waiting > 0
            || app.retry_ms.is_some()
            || data && app.state == "asleep.idle"
    };
    let began = Instant::now();
    loop {
        let mut told = Vec::new();
        for name in day::names() {
            told.push(client.get(wire::GetAppRequest { name }).await.unwrap().into_inner());
        }
        assert_eq!(told.len(), APPS);
        let Some(waits) = told.iter().find(|app| busy(app)) else { return told };
        assert!(began.elapsed() < PATIENCE, "{waits:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
