//! The applications, and what is asked of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use remora_proto::v1 as wire;
use tokio_stream::StreamExt;
use tonic::{Code, Status};

use super::Client;
use super::ledger::Ledger;

pub const APPS: usize = 20;
/// Things that happen at least.
const EVENTS: usize = 160;

/// Answer in capital letters; some need a moment to wake, some do not repeat what was interrupted.
fn answers(number: usize) -> String {
    let wake = if number.is_multiple_of(2) { "wake = ['sh', '-c', 'sleep 0.03']," } else { "" };
    let (concurrency, retry) = (1 + number % 3, number != 4);
    format!(
        "[execute]
        command = ['sh', '-c', 'sleep 0.03; tr a-z A-Z < $REMORA_INPUT/request > $REMORA_OUTPUT/response']
        awake = {{ {wake} idle_s = 0.2, concurrency = {concurrency}, retry_interrupted = {retry} }}"
    )
}

/// Learn from each notice, fail at every fourth run, and pause or go on when they are asked.
fn learns(number: usize) -> String {
    let overlap = ["skip", "buffer", "cancel"][number % 3];
    let while_learning = ["serve", "pause"][number % 2];
    let data = ["", "count = 2, longest_s = 0.3", "debounce_s = 0.05, longest_s = 0.2"][number % 3];
    format!(
        "failures = {{ backoff_s = 0.05, longest_backoff_s = 0.2, quarantine_after = 1000 }}
        gate = {{ samples = 2 }}
        [learn]
        command = ['sh', '-c', '''
        sleep 0.05
        if [ $((REMORA_SEED % 4)) = 0 ]; then echo bad luck; exit 1; fi
        cat $REMORA_INPUT/* > $REMORA_OUTPUT/model''']
        [evaluate]
        command = ['sh', '-c', '''
        champion=
        if [ -n \"$REMORA_CHAMPION\" ]; then champion=', \"champion\": [3, 3]'; fi
        echo \"{{\\\"candidate\\\": [1, 2]$champion}}\" > $REMORA_OUTPUT/scores.json''']
        [execute]
        command = ['sh', '-c', 'cat $REMORA_INPUT/request > $REMORA_OUTPUT/response']
        awake = {{ idle_s = 0.1, while_learning = '{while_learning}' }}
        [[trigger]]
        name = 'data'
        overlap = '{overlap}'
        on.data = {{ {data} }}"
    )
}

/// Act every second.
fn clocks(number: usize) -> String {
    let (run, overlap) = (["learn", "execute"][number % 2], ["skip", "buffer", "cancel"][number % 3]);
    format!(
        "[learn]
        command = ['sh', '-c', 'sleep 0.02; echo $REMORA_RUN > $REMORA_OUTPUT/model']
        [execute]
        command = ['sh', '-c', 'sleep 0.02']
        awake = {{ idle_s = 0.1 }}
        [[trigger]]
        name = 'tick'
        run = '{run}'
        overlap = '{overlap}'
        on.schedule = {{ cron = '* * * * * *', catch_up_s = 2 }}"
    )
}

/// End as they are told to, and are set aside after three failures in a row.
fn fails() -> String {
    "failures = { quarantine_after = 3 }
    [execute]
    command = ['sh', '-c', 'read how < $REMORA_INPUT/request; sleep 0.02; exit $how']
    awake = { idle_s = 0.2 }
    [[trigger]]
    name = 'data'
    run = 'execute'
    on.data = {}"
        .to_owned()
}

const KINDS: [&str; 4] = ["answers", "learns", "clock", "fails"];

fn name(number: usize) -> String {
    format!("{}-{}", KINDS[number % 4], number / 4)
}

pub fn names() -> impl Iterator<Item = String> {
    (0..APPS).map(name)
}

fn manifest(number: usize) -> String {
    let rest = match number % 4 {
        0 => answers(number / 4),
        1 => learns(number / 4),
        2 => clocks(number / 4),
        _ => fails(),
    };
    format!("name = '{}'\n{rest}", name(number))
}

/// Something to do, until it is acknowledged.
#[derive(Clone, Debug)]
enum Event {
    Request {
        app: String,
        id: String,
        input: String,
    },
    Notice {
        app: String,
        key: String,
    },
    /// Each try has a reason of its own.
    Alias {
        app: String,
    },
}

impl Event {
    fn new(number: usize) -> Event {
        let (app, turn) = (name(number % APPS), number / APPS);
        match (number % 4, turn % 4) {
            (0 | 1, 3) => Event::Alias { app },
            (1, 1) | (2, _) => {
                Event::Request { app, id: format!("r{number}"), input: format!("asked {number}") }
            }
            (1, _) | (3, 2) => Event::Notice { app, key: format!("n{number}") },
            (3, _) => {
                let how = ["0", "65", "3", "4"][(number / 4) % 4];
                Event::Request { app, id: format!("r{number}"), input: format!("{how}\n") }
            }
            _ => Event::Request { app, id: format!("r{number}"), input: format!("asked {number}") },
        }
    }
}

/// What is still to be done.
#[derive(Debug, Default)]
pub struct Day {
    begun: AtomicBool,
    next: AtomicUsize,
    again: Mutex<VecDeque<Event>>,
    tries: AtomicUsize,
}

impl Day {
    /// Registers and enables, whatever of that was done already.
    pub async fn begin(&self, client: &mut Client) {
        if self.begun.swap(true, Ordering::Relaxed) {
            return drop(client.list(wire::ListAppsRequest {}).await.unwrap());
        }
        for number in 0..APPS {
            let first = wire::RegisterAppRequest {
                manifest: manifest(number),
                ..wire::RegisterAppRequest::default()
            };
            client.register(tokio_stream::iter([first])).await.unwrap();
            command(client, &name(number), wire::AppCommand::Enable).await.unwrap();
        }
    }

    /// Does one thing after the other until the service is gone; the last time, until the day was long enough and
    /// nothing is left.
    pub async fn work(self: Arc<Self>, mut client: Client, ledger: Arc<Ledger>, last: bool) {
        loop {
            let again = self.again.lock().unwrap().pop_front();
            let event = match again {
                Some(event) => event,
                None if last && self.next.load(Ordering::Relaxed) >= EVENTS => return,
                None => Event::new(self.next.fetch_add(1, Ordering::Relaxed)),
            };
            let Err(status) = self.ask(&mut client, &event, &ledger).await else { continue };
            self.again.lock().unwrap().push_back(event.clone());
            match status.code() {
                // Its application was set aside, or is busy.
                Code::FailedPrecondition | Code::ResourceExhausted => {
                    let Event::Request { app, .. } = &event else { panic!("{event:?}: {status}") };
                    // Somebody else may have released it, or the service is gone.
                    let _ = command(&mut client, app, wire::AppCommand::Release).await;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal if !last => return,
                _ => panic!("{event:?}: {status:?}"),
            }
        }
    }

    async fn ask(&self, client: &mut Client, event: &Event, ledger: &Ledger) -> Result<(), Status> {
        match event.clone() {
            Event::Request { app, id, input } => {
                let request = wire::ExecuteRequest {
                    app: app.clone(),
                    request_id: id.clone(),
                    input: input.clone().into_bytes(),
                };
                let mut told = client.execute(request).await?.into_inner();
                let first = told.next().await.ok_or_else(|| Status::unavailable("nothing was told"))??;
                ledger.asked((app, id), first.run.unwrap().id, input);
                // Who was answered once need not ask again, even if the service is killed now.
                while let Some(Ok(_)) = told.next().await {}
            }
            Event::Notice { app, key } => {
                let file = wire::DataFile { name: key.clone(), content: key.clone().into_bytes() };
                let request = wire::NotifyRequest {
                    app: app.clone(),
                    key: key.clone(),
                    files: vec![file],
                    ..wire::NotifyRequest::default()
                };
                client.notify(request).await?;
                ledger.noticed((app, key));
            }
            Event::Alias { app } => {
                let reason = format!("try {}", self.tries.fetch_add(1, Ordering::Relaxed));
                let request = wire::SetVersionAliasRequest {
                    app: app.clone(),
                    alias: "shadow".to_owned(),
                    version: Some(1),
                    reason: reason.clone(),
                };
                client.set_version_alias(request).await?;
                ledger.named((app, reason));
            }
        }
        Ok(())
    }
}

async fn command(client: &mut Client, name: &str, command: wire::AppCommand) -> Result<wire::App, Status> {
    let request = wire::CommandAppRequest {
        name: name.to_owned(),
        command: command.into(),
        reason: "the day goes on".to_owned(),
    };
    Ok(client.command(request).await?.into_inner())
}
