//! Keeps the application's champion and the policy that places tasks the same: a promotion is served, and what an
//! operator had served by hand becomes a version. Tells the application of outcomes and regret.
//!
//! It compares the two and mends what differs, however that came about, so a crash between a promotion and its effect is
//! nothing special.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use remora_policies::checkpoint::Checkpoint;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::{NAME, Parameters, cluster};
use crate::appcore::core::{Alias, App, By, Core, Input, Version};
use crate::appcore::manifest::{Manifest, On};
use crate::appcore::owner::{Denied, Handle};
use crate::appcore::run::MODEL;
use crate::appcore::states::State;
use crate::service::{Door, checkpoint};
use crate::storage::{JournalFilter, Kind, Paging};

/// How often the two are compared, besides after every promotion.
const LOOK: Duration = Duration::from_secs(1);
/// How often outcomes are counted.
const COUNT: Duration = Duration::from_secs(30);
/// With fewer decisions regret is chance.
const LEAST: usize = 30;
/// The metric that triggers may watch.
const REGRET: &str = "regret";

/// What keeps them the same; clones are the same one.
#[derive(Clone, Debug)]
pub struct Keeper {
    handle: Handle,
    door: Door,
    changed: Arc<Notify>,
}

/// How far outcomes are counted: up to which entry of the journal, and when that came, milliseconds since 1970. Earlier
/// ones are not read again.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    sequence: i64,
    at_ms: i64,
    /// When somebody last counted.
    when: Option<Instant>,
}

/// The application as it stands.
struct Stands {
    champion: Option<Version>,
    manifest: Manifest,
    /// When outcomes were last told of.
    told_ms: i64,
}

fn stands(core: &Core) -> Option<Stands> {
    let app = core.apps().get(NAME)?;
    let used = !matches!(app.state, State::Registered | State::Retired);
    used.then(|| Stands {
        champion: app.version(Alias::Champion).cloned(),
        manifest: app.manifest().clone(),
        told_ms: told_ms(app),
    })
}

fn told_ms(app: &App) -> i64 {
    let data = app.triggers.values().filter(|state| matches!(state.trigger.on, On::Data { .. }));
    data.map(|state| state.last_ms).max().unwrap_or_default()
}

impl Keeper {
    pub fn new(handle: Handle, door: Door) -> Keeper {
        Keeper { handle, door, changed: Arc::default() }
    }

    /// Has it look at once.
    pub fn look(&self) {
        self.changed.notify_one();
    }

    /// Keeps them the same until AppCore is gone.
    pub async fn keep(self) {
        // What needs nothing more, and what went wrong and was told of.
        let (mut settled, mut trouble) = (String::new(), String::new());
        let mut counted = Counted::default();
        loop {
            let stands = match self.handle.ask(stands).await {
                Err(_) => return,
                Ok(stands) => stands,
            };
            if let Some(stands) = stands {
                let done = match self.agree(stands.champion.as_ref(), &mut settled).await {
                    Ok(()) => self.count(&stands, &mut counted).await,
                    failed => failed,
                };
                let told = done.err().map_or_else(String::new, |error| format!("{error:#}"));
                if !told.is_empty() && told != trouble {
                    tracing::warn!(app = NAME, error = told, "it is tried again");
                }
                trouble = told;
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep(LOOK) => {}
            }
        }
    }

    /// Serves the champion, or takes what is served for the champion: whichever was decided last.
    async fn agree(&self, champion: Option<&Version>, settled: &mut String) -> Result<()> {
        let served = self.door.champion().await?;
        let ours = champion.and_then(|version| Some((version, version.model.as_ref()?)));
        let pair = format!("{served} {}", ours.map_or("nobody", |(_, model)| &model.hash));
        if pair == *settled {
            return Ok(());
        }
        let storage = self.handle.storage();
        let changed = self.door.champion_changed().await?;
        let policy = checkpoint(storage, &served).await?;
        if let Some((version, model)) = ours {
            let bytes = storage.blob(&model.hash).await?;
            let learnt = Checkpoint::from_bytes(&bytes);
            let id = learnt.with_context(|| format!("version {} is no policy", version.number))?.id();
            let crowned = storage.app_aliases(NAME, Some(Alias::Champion), None, Some(1)).await?;
            let crowned = crowned.into_iter().next();
            let by_hand = match (&changed, &crowned) {
                (Some((at_ms, ..)), Some(crowned)) => *at_ms > crowned.at_ms,
                // Nobody ever changed it: it is as the service was started.
                _ => version.run.is_none(),
            };
            if policy.as_ref().is_some_and(|policy| policy.id() == id) {
                *settled = pair;
                return Ok(());
            }
            if !by_hand {
                let (actor, why) = crowned.map_or_else(Default::default, |row| (row.actor, row.reason));
                let name = format!("{NAME}-{}", version.number);
                let reason = format!("version {} of {NAME}: {why}", version.number);
                return self.door.crown((name, bytes), served, (actor, reason)).await;
            }
        }
        let began = || (0, "remora".to_owned(), "the service began with it".to_owned());
        let (_, actor, why) = changed.unwrap_or_else(began);
        let Some(policy) = policy else {
            tracing::info!(app = NAME, policy = served, actor, why, "decides until a version is promoted");
            *settled = pair;
            return Ok(());
        };
        tracing::info!(app = NAME, policy = served, actor, why, "is served, and becomes a version");
        let model = self.handle.keep(MODEL, policy.to_bytes()).await?;
        let by = By::new(actor, format!("served as {served}: {why}"));
        self.handle.tell(Input::Adopt { app: NAME.to_owned(), model, by }).await?;
        Ok(())
    }

    /// Tells the application of outcomes that came, and of the regret with them.
    async fn count(&self, stands: &Stands, counted: &mut Counted) -> Result<()> {
        if counted.when.is_some_and(|when| when.elapsed() < COUNT) {
            return Ok(());
        }
        let parameters = Parameters::read(serde_json::to_value(&stands.manifest.parameters)?)?;
        let cluster = cluster(&self.door, &parameters).await?;
        if counted.when.is_none() {
            counted.at_ms = stands.told_ms;
        }
        let (news, now) = self.news(&cluster, *counted).await?;
        if news == 0 {
            *counted = now;
            return Ok(());
        }
        let watched =
            |what: fn(&On) -> bool| stands.manifest.triggers.iter().any(|trigger| what(&trigger.on));
        let app = || NAME.to_owned();
        let by = By::new("remora", format!("recorded of {cluster}"));
        if watched(|on| matches!(on, On::Data { .. })) {
            let key = format!("outcomes to {}", now.sequence);
            let notice =
                Input::Notice { app: app(), key, items: news, bytes: 0, inputs: Vec::new(), by: by.clone() };
            self.handle.tell(notice).await?;
        }
        // What nobody could be told of is counted again.
        *counted = now;
        let (value, decisions) = self.door.regret(&cluster).await?;
        if decisions >= LEAST && watched(|on| matches!(on, On::Drift { metric, .. } if metric == REGRET)) {
            self.handle.tell(Input::Metric { app: app(), metric: REGRET.to_owned(), value, by }).await?;
        }
        Ok(())
    }

    /// How many outcomes came since they were counted last, and how far they are counted then.
    async fn news(&self, cluster: &str, mut counted: Counted) -> Result<(u64, Counted), Denied> {
        let from_ms = Some(counted.at_ms).filter(|at_ms| *at_ms > 0);
        let (cluster, kind) = (Some(cluster.to_owned()), Some(Kind::Ended));
        let filter = JournalFilter { cluster, kind, from_ms, ..JournalFilter::default() };
        let mut paging = Paging { limit: 1000, ..Paging::default() };
        let mut news = 0;
        loop {
            let page = self.handle.storage().journal(filter.clone(), &paging).await?;
            for recorded in page.items {
                if recorded.sequence > counted.sequence {
                    news += 1;
                    (counted.sequence, counted.at_ms) = (recorded.sequence, recorded.entry.at_ms);
                }
            }
            match page.next {
                Some(next) => paging.token = next,
                None => break,
            }
        }
        counted.when = Some(Instant::now());
        Ok((news, counted))
    }
}
