//! The way into the journal: a queue, and one task that writes whatever has gathered in it.
//!
//! Whoever decides never waits for the disk. While the database fails, the queue fills and the writer tries again; an
//! entry leaves the queue once it is durable. When there is no room left, further entries are refused.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::Error;
use super::database::Database;
use super::error::check_texts;
use super::journal::{self, Entry, Kind, Recorded};
use super::restore::{self, Snapshot};

/// Most entries of a transaction.
const BATCH: usize = 1000;
/// The pause after a first failure; it doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long a transaction may take before the connection counts as lost, seconds.
const PATIENCE_S: u64 = 60;

/// Why an entry was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Try again later.
    #[error("the journal has no room for more: {waiting_kib} KiB wait to be written{}", because(.trouble))]
    Full { waiting_kib: usize, trouble: Option<Trouble> },
    /// Nothing will be taken any more. What was taken but not acknowledged may be lost.
    #[error("the journal is closed: {0}")]
    Closed(String),
    #[error("{0}")]
    Invalid(String),
}

fn because(trouble: &Option<Trouble>) -> String {
    trouble.as_ref().map_or_else(String::new, |trouble| format!(", because {}", trouble.reason))
}

/// What keeps the writer from writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Attempts that failed since the last that succeeded.
    pub attempts: u32,
    pub reason: String,
}

/// How the journal fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// The last entry that is durable.
    pub durable: i64,
    /// What waits to be written, KiB.
    pub waiting_kib: usize,
    /// Nothing while all is well.
    pub trouble: Option<Trouble>,
    /// Why nothing is taken any more.
    pub closed: Option<String>,
}

/// Something to write. Its room is given back once it is durable.
enum Item {
    Entry { entry: Entry, room: u32, done: Option<oneshot::Sender<i64>> },
    Snapshot { cluster: String, at_ms: i64, body: Vec<u8>, room: u32 },
    Flush(oneshot::Sender<i64>),
    Stop,
}

/// Access to the journal for those who write. Clones share one queue, and its order is the order of the journal.
#[derive(Clone, Debug)]
pub struct Recorder {
    queue: mpsc::UnboundedSender<Item>,
    /// What bounds the queue, KiB.
    room: Arc<Semaphore>,
    room_kib: u32,
    health: watch::Receiver<Health>,
}

impl Recorder {
    pub(super) async fn start(
        database: Arc<Database>,
        room_kib: u32,
    ) -> Result<(Recorder, JoinHandle<()>), Error> {
        let durable = journal::newest(&mut *database.read().await?).await?;
        let (queue, items) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(room_kib as usize));
        let (told, health) = watch::channel(Health { durable, ..Health::default() });
        let writer = Writer { database, room: room.clone(), health: told, last: durable };
        Ok((Recorder { queue, room, room_kib, health }, tokio::spawn(writer.run(items))))
    }

    /// Takes an entry, to be written soon.
    pub fn record(&self, entry: Entry) -> Result<(), Refused> {
        self.enter(entry, None)
    }

    /// Takes an entry at once; the future resolves to its sequence number when it is durable. Whoever stops waiting does
    /// not take the entry back.
    pub fn commit(&self, entry: Entry) -> impl Future<Output = Result<i64, Refused>> + Send + use<> {
        let (done, durable) = oneshot::channel();
        let taken = self.enter(entry, Some(done));
        let health = self.health.clone();
        async move {
            taken?;
            durable.await.map_err(|_| closed(&health))
        }
    }

    /// Takes a snapshot that includes all entries of the cluster that were taken before it.
    pub fn snapshot(&self, cluster: &str, at_ms: i64, body: Vec<u8>) -> Result<(), Refused> {
        check_texts(&[("cluster", cluster)]).map_err(|error| Refused::Invalid(error.to_string()))?;
        let room = self.reserve(body.len())?;
        self.send(Item::Snapshot { cluster: cluster.to_owned(), at_ms, body, room })
    }

    /// Whether there is room to go on: half of it is left for what is under way.
    pub fn ready(&self) -> Result<(), Refused> {
        if self.queue.is_closed() {
            return Err(closed(&self.health));
        }
        if self.room.available_permits() < self.room_kib as usize / 2 {
            let Health { waiting_kib, trouble, .. } = self.health();
            return Err(Refused::Full { waiting_kib, trouble });
        }
        Ok(())
    }

    /// Resolves when all that was taken before is durable, to the last sequence number.
    pub fn flush(&self) -> impl Future<Output = Result<i64, Refused>> + Send + use<> {
        let (done, durable) = oneshot::channel();
        let sent = self.send(Item::Flush(done));
        let health = self.health.clone();
        async move {
            sent?;
            durable.await.map_err(|_| closed(&health))
        }
    }

    /// Ends the writer once it has written what was taken.
    pub(super) fn stop(&self) {
        // If it has ended already, that is as well.
        self.send(Item::Stop).unwrap_or(());
    }

    pub fn health(&self) -> Health {
        let waiting_kib = self.room_kib as usize - self.room.available_permits();
        Health { waiting_kib, ..self.health.borrow().clone() }
    }

    fn enter(&self, entry: Entry, done: Option<oneshot::Sender<i64>>) -> Result<(), Refused> {
        entry.check().map_err(|error| Refused::Invalid(error.to_string()))?;
        let room = self.reserve(entry.body.len())?;
        self.send(Item::Entry { entry, room, done })
    }

    fn send(&self, item: Item) -> Result<(), Refused> {
        self.queue.send(item).map_err(|_| closed(&self.health))
    }

    fn reserve(&self, bytes: usize) -> Result<u32, Refused> {
        let kib = bytes / 1024 + 1;
        let room = u32::try_from(kib).ok().filter(|&kib| kib <= self.room_kib);
        let room = room.ok_or_else(|| {
            Refused::Invalid(format!(
                "body: {kib} KiB, and the journal takes {} KiB at most",
                self.room_kib.saturating_sub(1)
            ))
        })?;
        let Ok(permits) = self.room.try_acquire_many(room) else {
            let Health { waiting_kib, trouble, .. } = self.health();
            return Err(Refused::Full { waiting_kib, trouble });
        };
        permits.forget();
        Ok(room)
    }
}

fn closed(health: &watch::Receiver<Health>) -> Refused {
    let reason = health.borrow().closed.clone();
    Refused::Closed(reason.unwrap_or_else(|| "the service stops".to_owned()))
}

struct Writer {
    database: Arc<Database>,
    room: Arc<Semaphore>,
    health: watch::Sender<Health>,
    /// The last sequence number that was given.
    last: i64,
}

/// What one transaction writes, and whom to tell.
#[derive(Default)]
struct Batch {
    entries: Vec<Recorded>,
    /// By cluster, each to be applied in order with the beginnings and ends among the entries.
    snapshots: Vec<(String, Snapshot)>,
    room: usize,
    done: Vec<(oneshot::Sender<i64>, i64)>,
    stop: bool,
}

impl Writer {
    async fn run(mut self, mut items: mpsc::UnboundedReceiver<Item>) {
        let mut gathered = Vec::with_capacity(BATCH);
        while items.recv_many(&mut gathered, BATCH).await > 0 {
            let batch = self.number(gathered.drain(..));
            if let Err(reason) = self.persist(&batch).await {
                tracing::error!(reason, "the journal is closed");
                self.health.send_modify(|health| health.closed = Some(reason));
                // Before those who wait hear of it, so that nobody gets in any more.
                items.close();
                return;
            }
            self.room.add_permits(batch.room);
            for (done, sequence) in batch.done {
                // Whoever asked may have gone.
                done.send(sequence).unwrap_or(());
            }
            if batch.stop {
                // What got in meanwhile is written too.
                items.close();
            }
        }
    }

    fn number(&mut self, items: impl Iterator<Item = Item>) -> Batch {
        let mut batch = Batch::default();
        for item in items {
            match item {
                Item::Entry { entry, room, done } => {
                    self.last += 1;
                    batch.entries.push(Recorded { sequence: self.last, entry });
                    batch.room += room as usize;
                    batch.done.extend(done.map(|done| (done, self.last)));
                }
                Item::Snapshot { cluster, at_ms, body, room } => {
                    batch.snapshots.push((cluster, Snapshot { sequence: self.last, at_ms, body }));
                    batch.room += room as usize;
                }
                Item::Flush(done) => batch.done.push((done, self.last)),
                Item::Stop => batch.stop = true,
            }
        }
        batch
    }

    /// Tries until it is durable.
    ///
    /// # Errors
    /// With the reason when it never will be.
    async fn persist(&self, batch: &Batch) -> Result<(), String> {
        let mut pause = PAUSE;
        for attempt in 0.. {
            let limit = Duration::from_secs(PATIENCE_S);
            let tried = timeout(limit, self.attempt(batch, attempt > 0)).await;
            match tried.unwrap_or(Err(Error::Slow(PATIENCE_S))) {
                Ok(()) => break,
                Err(fatal @ Error::Damaged(_)) => return Err(fatal.to_string()),
                Err(error) => {
                    let reason = error.to_string();
                    tracing::warn!(reason, attempt, "the journal cannot be written and is tried again");
                    let trouble = Some(Trouble { attempts: attempt + 1, reason });
                    self.health.send_modify(|health| health.trouble = trouble);
                }
            }
            sleep(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
        self.health.send_modify(|health| *health = Health { durable: self.last, ..Health::default() });
        Ok(())
    }

    async fn attempt(&self, batch: &Batch, again: bool) -> Result<(), Error> {
        if batch.entries.is_empty() && batch.snapshots.is_empty() {
            return Ok(());
        }
        let mut write = self.database.write().await?;
        let connection = write.connection();
        // An attempt may have succeeded without our hearing of it.
        if again && let Some(first) = batch.entries.first() {
            let found = journal::read_from(connection, None, first.sequence).await?;
            if found == batch.entries {
                return write.cancel().await;
            }
            if !found.is_empty() {
                return Err(Error::Damaged("another process has written to it".to_owned()));
            }
        }
        journal::insert(connection, &batch.entries).await?;
        let mut snapshots = batch.snapshots.iter().peekable();
        for Recorded { sequence, entry } in &batch.entries {
            while let Some((cluster, snapshot)) =
                snapshots.next_if(|(_, snapshot)| snapshot.sequence < *sequence)
            {
                restore::replace(connection, cluster, snapshot).await?;
            }
            match entry.kind {
                Kind::Registered => {
                    restore::begin(connection, &entry.cluster, *sequence, entry.at_ms).await?
                }
                Kind::Removed => restore::end(connection, &entry.cluster).await?,
                Kind::Changed | Kind::Decided | Kind::Ended | Kind::Disputed => {}
            }
        }
        for (cluster, snapshot) in snapshots {
            restore::replace(connection, cluster, snapshot).await?;
        }
        write.commit().await
    }
}
