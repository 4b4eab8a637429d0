//! A scheduler for the pods that name it: it watches, asks the core, assumes and binds.
//!
//! ```text
//! watches ─► state (pure, one owner) ─► core ─► state ─► bindings, events, outcomes
//! ```

pub mod events;
pub mod lease;
mod queue;
pub mod state;
mod watches;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::Client;
use tokio::sync::{mpsc, watch};

use super::bind;
use super::core::Core;
use super::facts::Settings;
use events::Events;
use state::{Effect, Happening, News, State};

/// Happenings that may wait; beyond that, the watches wait.
const WAITING: usize = 4096;
/// How long the core may take for a decision.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the core has not heard is told it after this long at the latest.
const TELL: Duration = Duration::from_millis(500);
/// How often pods that still run are confirmed: the core lets go of decisions that last much longer than it
/// thought, though not within an hour.
const CONFIRM: Duration = Duration::from_secs(600);

/// How the scheduler works.
#[derive(Clone, Debug)]
pub struct Config {
    /// What pods write as `spec.schedulerName`.
    pub scheduler_name: String,
    /// What the core calls the cluster.
    pub cluster: String,
    /// Namespace and name of the ConfigMap with the settings.
    pub config_map: Option<(String, String)>,
    /// The settings where there is no ConfigMap.
    pub settings: Settings,
    /// None: there is no other scheduler of this name.
    pub lease: Option<lease::Config>,
    /// Bindings at a time.
    pub bindings: usize,
    /// Who this is, in events.
    pub identity: String,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            scheduler_name: "remora".to_owned(),
            cluster: "kubernetes".to_owned(),
            config_map: None,
            settings: Settings::default(),
            lease: None,
            bindings: 32,
            identity: "remora".to_owned(),
        }
    }
}

/// Where the scheduler hears of what happens.
pub type Hearing = (mpsc::Sender<Happening>, mpsc::Receiver<Happening>);

/// A hearing that others may tell things too.
pub fn hearing() -> Hearing {
    mpsc::channel(WAITING)
}

/// Schedules until `shutdown` resolves; bindings under way are finished and the lease is given back.
pub async fn run(
    client: Client,
    core: Arc<dyn Core>,
    config: Config,
    (sender, happenings): Hearing,
    shutdown: impl Future<Output = ()>,
) {
    watches::start(&client, &config, &sender);
    let (leading_sender, leading) = watch::channel(config.lease.is_none());
    let (stop, stopped) = watch::channel(false);
    let holding = match config.lease.clone() {
        Some(lease) => tokio::spawn(lease::hold(client.clone(), lease, leading_sender, stopped)),
        None => tokio::spawn(async move {
            let mut stopped = stopped;
            stopped.wait_for(|stop| *stop).await.map(drop).unwrap_or_default();
            leading_sender.send_replace(false);
        }),
    };
    let events = Events::start(client.clone(), &config.scheduler_name, &config.identity);
    let state = State::new(&config.cluster, config.bindings.max(1));
    let mut scheduler = Scheduler { client, core, state, happenings, sender, leading, events, binding: 0 };
    tokio::select! {
        () = shutdown => {}
        () = scheduler.work() => {}
    }
    scheduler.finish().await;
    stop.send_replace(true);
    holding.await.unwrap_or_default();
}

struct Scheduler {
    client: Client,
    core: Arc<dyn Core>,
    state: State,
    happenings: mpsc::Receiver<Happening>,
    sender: mpsc::Sender<Happening>,
    leading: watch::Receiver<bool>,
    events: Events,
    binding: usize,
}

impl Scheduler {
    async fn work(&mut self) {
        let (mut told, mut confirmed) = (Instant::now(), Instant::now());
        loop {
            while let Ok(happening) = self.happenings.try_recv() {
                self.handle(happening);
            }
            self.state.let_go(Instant::now());
            self.perform().await;
            let leads = *self.leading.borrow_and_update();
            if self.state.is_ready() {
                if confirmed.elapsed() >= CONFIRM {
                    self.state.confirm();
                    self.tell_news().await;
                    confirmed = Instant::now();
                }
                if leads && self.decide().await {
                    continue;
                }
                if told.elapsed() >= TELL {
                    self.tell_news().await;
                    told = Instant::now();
                }
            }
            let soon = Instant::now() + TELL;
            let wake = self.state.next_end().map_or(soon, |end| end.min(soon));
            tokio::select! {
                happening = self.happenings.recv() => match happening {
                    Some(happening) => self.handle(happening),
                    None => return,
                },
                () = tokio::time::sleep_until(wake.into()) => {}
                // The one who tells may be gone in the end; then nothing changes any more.
                changed = self.leading.changed() => if changed.is_err() { return },
            }
        }
    }

    fn handle(&mut self, happening: Happening) {
        if matches!(happening, Happening::Bound { .. }) {
            self.binding -= 1;
        }
        self.state.handle(Instant::now(), Timestamp::now(), happening);
    }

    /// Decides on the next pod; false if there is none.
    async fn decide(&mut self) -> bool {
        let ask = self.state.next(Instant::now());
        // Pods may have failed before one was found.
        self.perform().await;
        let Some(ask) = ask else { return false };
        self.tell_news().await;
        let asked = tokio::time::timeout(PATIENCE, self.core.place(ask.request, ask.among));
        let answer = asked.await.unwrap_or_else(|_| {
            Err(tonic::Status::deadline_exceeded(format!("no decision within {} s", PATIENCE.as_secs())))
        });
        self.state.decided(Instant::now(), &ask.uid, answer);
        self.perform().await;
        true
    }

    async fn tell_news(&mut self) {
        while let Some(news) = self.state.news() {
            let told = match news {
                News::Anew(request) => self.core.register(*request).await,
                News::Changes(changes) => self.core.update(self.state.cluster(), changes).await,
            };
            if let Err(status) = told {
                tracing::warn!(message = status.message(), "the core did not take the cluster as it is now");
                return self.state.not_heard();
            }
        }
    }

    async fn perform(&mut self) {
        for effect in self.state.effects() {
            match effect {
                Effect::Bind(binding) => self.bind(binding),
                Effect::Tell(note) => self.events.tell(note),
                Effect::Report(report) => {
                    let decision = report.decision_id.clone();
                    if let Err(status) = self.core.report(report).await {
                        tracing::debug!(decision, message = status.message(), "an outcome is not wanted");
                    }
                }
            }
        }
    }

    fn bind(&mut self, binding: bind::Binding) {
        self.binding += 1;
        let (client, sender) = (self.client.clone(), self.sender.clone());
        tokio::spawn(async move {
            let result = bind::bind(&client, &binding).await;
            if let Err(failure) = &result {
                tracing::warn!(pod = binding.name, node = binding.node, %failure, "not bound");
            }
            sender.send(Happening::Bound { uid: binding.uid, result }).await.unwrap_or_default();
        });
    }

    /// Waits for bindings under way.
    async fn finish(&mut self) {
        let all = async {
            while self.binding > 0 {
                match self.happenings.recv().await {
                    Some(happening) => self.handle(happening),
                    None => return,
                }
            }
        };
        if tokio::time::timeout(Duration::from_secs(5), all).await.is_err() {
            tracing::warn!("some bindings took longer than 5 s after the stop and are cut off");
        }
        self.perform().await;
    }
}
