//! What survives a restart: the journal of all that happened, snapshots to begin from, policies, settings, the audit
//! log and access tokens, in SQLite inside the data folder or in PostgreSQL.
//!
//! ```text
//! owner ─► recorder ─► queue ─► writer (one task, one transaction per batch) ─► journal, snapshots
//! administration ──────────────────────────────────────────────────────────► everything else, with its audit entry
//! ```
//!
//! One process owns the data: it alone writes, over one connection. Time comes in from outside, as unix milliseconds.

mod aliases;
mod apps;
mod archive;
mod audit;
mod blobs;
mod database;
mod error;
mod forget;
mod journal;
mod page;
mod policies;
mod recorder;
mod restore;
mod schema;
mod settings;
mod tokens;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use aliases::AliasChange;
pub use apps::{AppAliasRow, AppBatch, AppEntry, AppsBefore, FireRow, RunFilter, TransitionRow};
pub use archive::{Archive, ArchivedApp, Place, Size};
pub use audit::{AuditEntry, AuditFilter, AuditHead, Verdict, Who};
pub use error::Error;
pub use forget::RunsKept;
pub use journal::{Entry, Export, JournalFilter, Kind, Recorded};
pub(crate) use page::hex;
pub use page::{MAX_LIMIT, Page, Paging};
pub use policies::Policy;
pub use recorder::{Health, Recorder, Refused, Trouble};
pub use restore::{Base, Keep, Restored, Snapshot};
pub use settings::SettingChange;
pub(crate) use tokens::random;
pub use tokens::{Denied, NewToken, Role, Token};

use blobs::Blobs;
use database::Database;
use tokens::Tokens;

/// Where things are kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data folder: the lock, the blobs unless `blobs_url` is set, and the database unless `database_url` is.
    /// Created where absent.
    pub folder: PathBuf,
    /// `postgres://…`; nothing for SQLite in the data folder.
    pub database_url: Option<String>,
    /// `s3://bucket/prefix`; nothing for the data folder.
    pub blobs_url: Option<String>,
    /// Room for entries that wait to be written, KiB; an entry takes one more than its size.
    pub room_kib: u32,
}

impl Options {
    /// SQLite in this folder, and room for 256 MiB.
    pub fn new(folder: impl Into<PathBuf>) -> Options {
        Options { folder: folder.into(), database_url: None, blobs_url: None, room_kib: 256 << 10 }
    }
}

/// What is kept; entries of the journal go in through its [`Recorder`].
#[derive(Debug)]
pub struct Storage {
    options: Options,
    database: Arc<Database>,
    blobs: Blobs,
    tokens: watch::Sender<Tokens>,
    recorder: Recorder,
    writer: JoinHandle<()>,
}

impl Storage {
    /// Takes possession of the data, brings the schema up to date and starts the writer.
    ///
    /// # Errors
    /// When another process owns the data, the database is newer than this program or cannot be reached.
    pub async fn open(options: Options) -> Result<Storage, Error> {
        let database = Arc::new(Database::open(&options).await?);
        let blobs = Blobs::open(&options.folder, options.blobs_url.as_deref()).await?;
        schema::migrate(&database).await?;
        let tokens = watch::Sender::new(tokens::load(&database).await?);
        let (recorder, writer) = Recorder::start(database.clone(), options.room_kib).await?;
        Ok(Storage { options, database, blobs, tokens, recorder, writer })
    }

    pub fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }

    /// Writes what waits, however long the database keeps it waiting, then lets go of the data. Entries recorded from
    /// now on are refused.
    pub async fn close(self) {
        self.recorder.stop();
        self.writer
            .await
            .unwrap_or_else(|error| tracing::error!(%error, "the writer of the journal broke down"));
        self.database.close().await;
    }
}
