//! The one task that owns the applications. What it takes in is on disk, with all that follows from it, before anybody
//! is answered and before anything is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;

use super::core::{Core, Effect, Input, Outcome, Refused, good_name};
use super::rows::Row;
use super::run::{Blob, Run};
use crate::service::Clock;
use crate::storage::{AppBatch, AppEntry, Error, Storage};

/// Inputs that may wait, and how many of them are written at once.
const MAILBOX: usize = 10_000;
const BATCH: usize = 512;
/// Inputs between two snapshots.
const SNAPSHOT: i64 = 20_000;
/// Rows that a slow watcher may be behind.
const FEED: usize = 4096;
/// The pause after the database failed; it doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Longest sleep of the clock: it may be set.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// What an input led to, for who gave it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// The run that answers.
    pub run: Option<String>,
    /// It changed nothing: it was known.
    pub known: bool,
    /// Why a trigger did nothing.
    pub skipped: Option<String>,
}

/// An application and a key.
type Notice = (String, String);

fn notice(input: &Input) -> Option<Notice> {
    match input {
        Input::Notice { app, key, .. } => Some((app.clone(), key.clone())),
        _ => None,
    }
}

/// A question to the state.
type Question = Box<dyn FnOnce(&Core) + Send>;

enum Message {
    Do(Box<Input>, Option<oneshot::Sender<Result<Done, Refused>>>),
    Ask(Question),
    /// Wait for the end of a run; nothing where it is over.
    Wait(String, oneshot::Sender<Option<Arc<Run>>>),
    /// Take nothing more.
    Stop,
}

/// Access to AppCore; clones reach the same one.
#[derive(Clone, Debug)]
pub struct Handle {
    mailbox: mpsc::Sender<Message>,
    feed: broadcast::Sender<Arc<Row>>,
    storage: Arc<Storage>,
}

/// Why AppCore did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("too many requests wait for AppCore; ask again in a moment")]
    Busy,
    #[error("AppCore is stopping; ask again in a moment")]
    Stopping,
    #[error("it could not be read: {0}")]
    Storage(#[from] Error),
}

impl Handle {
    /// Has AppCore take an input; it is on disk when this returns.
    pub async fn tell(&self, input: Input) -> Result<Done, Denied> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.try_send(Message::Do(Box::new(input), Some(reply))).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Denied::Busy,
            mpsc::error::TrySendError::Closed(_) => Denied::Stopping,
        })?;
        Ok(answer.await.map_err(|_| Denied::Stopping)??)
    }

    /// What came of an effect; it waits for its place.
    pub async fn inform(&self, input: Input) {
        // Where AppCore is gone, so is all that this is about.
        self.mailbox.send(Message::Do(Box::new(input), None)).await.unwrap_or(());
    }

    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Core) -> T + Send + 'static,
    ) -> Result<T, Denied> {
        let (reply, answer) = oneshot::channel();
        let question: Question = Box::new(move |core| {
            // Whoever asked may be gone.
            reply.send(question(core)).unwrap_or(());
        });
        self.mailbox.send(Message::Ask(question)).await.map_err(|_| Denied::Stopping)?;
        answer.await.map_err(|_| Denied::Stopping)
    }

    /// Waits until a run is over.
    pub async fn over(&self, run: &str) -> Result<Option<Run>, Denied> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(Message::Wait(run.to_owned(), reply)).await.map_err(|_| Denied::Stopping)?;
        match answer.await.map_err(|_| Denied::Stopping)? {
            Some(run) => Ok(Some(Run::clone(&run))),
            None => Ok(self.storage.run(run).await?),
        }
    }

    /// A run, over or not.
    pub async fn run(&self, id: &str) -> Result<Option<Run>, Denied> {
        let asked = id.to_owned();
        match self.ask(move |core| core.run(&asked).cloned()).await? {
            Some(run) => Ok(Some(run)),
            None => Ok(self.storage.run(id).await?),
        }
    }

    /// Keeps a file under the hash of its contents.
    pub async fn keep(&self, name: impl Into<String>, content: Vec<u8>) -> Result<Blob, Error> {
        let bytes = content.len() as u64;
        Ok(Blob { name: name.into(), hash: self.storage.put_blob(content).await?, bytes })
    }

    /// Waits until AppCore is gone.
    pub async fn stopped(&self) {
        self.mailbox.closed().await;
    }

    /// Ends AppCore once what was taken before is written.
    pub async fn stop(&self) {
        self.mailbox.send(Message::Stop).await.unwrap_or(());
    }

    /// All that is remembered from now on.
    pub fn watch(&self) -> broadcast::Receiver<Arc<Row>> {
        self.feed.subscribe()
    }

    pub fn storage(&self) -> &Arc<Storage> {
        &self.storage
    }
}

/// Goes on from what was kept. Effects come out at the other end, once what they follow from is on disk.
///
/// # Errors
/// When what was kept cannot be read.
pub async fn start(
    storage: Arc<Storage>,
    clock: Clock,
) -> Result<(Handle, mpsc::UnboundedReceiver<Effect>, JoinHandle<()>), Error> {
    let before = storage.apps_before().await?;
    let (core, last, now_ms) = replay(before.snapshot, &before.entries)?;
    let (mailbox, messages) = mpsc::channel(MAILBOX);
    let (feed, _) = broadcast::channel(FEED);
    let (effects, done) = mpsc::unbounded_channel();
    let owner = Owner {
        core,
        clock,
        storage: storage.clone(),
        effects,
        feed: feed.clone(),
        waiting: BTreeMap::new(),
        now_ms,
        last,
        snapshot: last,
        making: None,
        batch: AppBatch::default(),
        following: Vec::new(),
        replies: Vec::new(),
    };
    let owning = tokio::spawn(owner.run(messages));
    Ok((Handle { mailbox, feed, storage }, done, owning))
}

/// The state that a snapshot and the inputs after it lead to, with the last number and time.
pub fn replay(snapshot: Option<(i64, String)>, entries: &[AppEntry]) -> Result<(Core, i64, i64), Error> {
    let damaged =
        |what: &str, error: &dyn std::fmt::Display| Error::Damaged(format!("{what} of AppCore: {error}"));
    let (mut last, mut core) = (0, Core::default());
    if let Some((sequence, body)) = snapshot {
        core = Core::restored(&body).map_err(|error| damaged("the snapshot", &error))?;
        last = sequence;
    }
    let mut now_ms = 0;
    for entry in entries {
        let what = format!("entry {}", entry.sequence);
        let input: Input = serde_json::from_str(&entry.body).map_err(|error| damaged(&what, &error))?;
        core.handle(entry.at_ms, &input).map_err(|error| damaged(&what, &error))?;
        (last, now_ms) = (entry.sequence, entry.at_ms);
    }
    Ok((core, last, now_ms))
}

/// Does it until the database lets it be done, however long that takes.
async fn insist<T, F: Future<Output = Result<T, Error>>>(trouble: &'static str, work: impl Fn() -> F) -> T {
    let mut pause = PAUSE;
    loop {
        match work().await {
            Ok(done) => return done,
            Err(error) => tracing::error!(%error, "{trouble}"),
        }
        sleep(pause).await;
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

struct Owner {
    core: Core,
    clock: Clock,
    storage: Arc<Storage>,
    effects: mpsc::UnboundedSender<Effect>,
    feed: broadcast::Sender<Arc<Row>>,
    /// Who waits for which run.
    waiting: BTreeMap<String, Vec<oneshot::Sender<Option<Arc<Run>>>>>,
    /// Time does not go back.
    now_ms: i64,
    /// Number of the last input, and of the one at the last snapshot.
    last: i64,
    snapshot: i64,
    /// A snapshot that is being made while everything goes on.
    making: Option<JoinHandle<AppEntry>>,
    /// What is not written yet, and what follows once it is.
    batch: AppBatch,
    following: Vec<Effect>,
    replies: Vec<(oneshot::Sender<Result<Done, Refused>>, Done)>,
}

impl Owner {
    async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        self.take(Input::Restarted, None);
        self.write().await;
        loop {
            let due = self.until_due();
            let first = tokio::select! {
                message = messages.recv() => match message {
                    Some(Message::Stop) | None => return,
                    message => message,
                },
                () = sleep(due) => None,
            };
            let mut taken: Vec<_> = first.into_iter().collect();
            while taken.len() < BATCH
                && let Ok(message) = messages.try_recv()
            {
                taken.push(message);
            }
            let unsure = self.unsure(&taken);
            let known = self.known(unsure).await;
            self.pass_time();
            let mut stop = false;
            for message in taken {
                stop |= matches!(message, Message::Stop);
                if !stop {
                    self.message(message, &known);
                }
            }
            self.write().await;
            if stop {
                return;
            }
        }
    }

    /// Notices that may have come so long ago that only the database knows.
    fn unsure(&self, messages: &[Message]) -> BTreeSet<Notice> {
        let notices = messages.iter().filter_map(|message| match message {
            Message::Do(input, _) => notice(input),
            _ => None,
        });
        let unsure = |(app, key): &Notice| {
            good_name("key", key).is_ok()
                && self.core.app(app).is_ok_and(|app| app.notice_known(key).is_none())
        };
        notices.filter(unsure).collect()
    }

    /// Those of them that came before.
    async fn known(&self, unsure: BTreeSet<Notice>) -> BTreeSet<Notice> {
        insist("AppCore cannot read; it tries again", || self.storage.notices_known(&unsure)).await
    }

    fn until_due(&self) -> Duration {
        let now_ms = self.clock.now_ms().max(self.now_ms);
        self.core.next_ms().map_or(LONGEST_SLEEP, |at_ms| {
            Duration::from_millis(u64::try_from(at_ms - now_ms).unwrap_or(0)).min(LONGEST_SLEEP)
        })
    }

    fn pass_time(&mut self) {
        self.now_ms = self.clock.now_ms().max(self.now_ms);
        if self.core.next_ms().is_some_and(|at_ms| at_ms <= self.now_ms) {
            self.take(Input::Time, None);
        }
    }

    fn message(&mut self, message: Message, known: &BTreeSet<Notice>) {
        match message {
            Message::Do(input, Some(reply))
                if !known.is_empty() && notice(&input).is_some_and(|notice| known.contains(&notice)) =>
            {
                self.replies.push((reply, Done { known: true, ..Done::default() }));
            }
            Message::Do(input, reply) => self.take(*input, reply),
            Message::Ask(question) => question(&self.core),
            Message::Stop => {}
            Message::Wait(run, reply) => match self.core.run(&run) {
                Some(_) => self.waiting.entry(run).or_default().push(reply),
                None => reply.send(None).unwrap_or(()),
            },
        }
    }

    fn take(&mut self, input: Input, reply: Option<oneshot::Sender<Result<Done, Refused>>>) {
        match self.core.handle(self.now_ms, &input) {
            Ok(Outcome { effects, rows, run, known, skipped }) => {
                if !(known && rows.is_empty()) {
                    self.last += 1;
                    let body = serde_json::to_string(&input).expect("an input becomes JSON");
                    self.batch.entries.push(AppEntry { sequence: self.last, at_ms: self.now_ms, body });
                }
                self.batch.rows.extend(rows);
                self.following.extend(effects);
                if let Some(reply) = reply {
                    self.replies.push((reply, Done { run, known, skipped }));
                }
            }
            Err(refused) => match reply {
                Some(reply) => reply.send(Err(refused)).unwrap_or(()),
                None => tracing::error!(%refused, ?input, "AppCore refused what it had asked for"),
            },
        }
    }

    /// A snapshot that is ready. Where one is due, it is begun: of the state as it is now, with what is to be written
    /// next.
    async fn snapshot(&mut self) -> Option<AppEntry> {
        if let Some(making) = self.making.take_if(|making| making.is_finished()) {
            return Some(making.await.expect("the state becomes JSON"));
        }
        if self.last - self.snapshot >= SNAPSHOT && self.making.is_none() {
            let (core, sequence, at_ms) = (self.core.clone(), self.last, self.now_ms);
            self.snapshot = sequence;
            self.making = Some(spawn_blocking(move || {
                let body = serde_json::to_string(&core).expect("the state becomes JSON");
                AppEntry { sequence, at_ms, body }
            }));
        }
        None
    }

    /// Writes what was taken, however long the database keeps it waiting; then tells of it and does what follows.
    async fn write(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        batch.snapshot = self.snapshot().await;
        if !(batch.entries.is_empty() && batch.snapshot.is_none()) {
            insist("AppCore cannot write; it tries again", || self.storage.record_apps(&batch)).await;
        }
        for row in batch.rows {
            // Nobody may be watching.
            self.feed.send(Arc::new(row)).unwrap_or_default();
        }
        for effect in std::mem::take(&mut self.following) {
            if let Effect::Over(run) = &effect
                && let Some(waiting) = self.waiting.remove(&run.id)
            {
                let run = Arc::new(Run::clone(run));
                waiting.into_iter().for_each(|reply| reply.send(Some(run.clone())).unwrap_or(()));
            }
            self.effects.send(effect).unwrap_or(());
        }
        for (reply, done) in self.replies.drain(..) {
            reply.send(Ok(done)).unwrap_or(());
        }
    }
}
