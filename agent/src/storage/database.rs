//! The connections: one that writes, and owns the data, and some that read.

use std::fs::{File, TryLockError};
use std::io::{Read, Write as _};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{Any, AnyConnection, AnyPool, Connection, Row, Transaction};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{sleep, timeout};

use super::{Error, Options};

/// How long the server may take to let us in, seconds.
const CONNECT_S: u64 = 5;
/// Connections that read at a time.
const READERS: u32 = 4;
/// The key of PostgreSQL's advisory lock that its owner holds, "remora".
const OWNER: i64 = 0x7265_6d6f_7261;
/// How often and at what distance possession is tried for: the server needs a moment to notice that an owner is gone.
const TRIES: u32 = 30;
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// `FULL` makes a commit survive a loss of power, not the death of the process alone.
const SQLITE_WRITER: &str =
    "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 1000;";
const SQLITE_READER: &str = "PRAGMA query_only = ON; PRAGMA busy_timeout = 1000;";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

#[derive(Debug)]
pub(super) struct Database {
    pub dialect: Dialect,
    options: AnyConnectOptions,
    /// Nothing until it is needed, and after it failed.
    writer: Mutex<Option<AnyConnection>>,
    readers: AnyPool,
    /// Locked as long as this lives.
    _lock: File,
}

impl Database {
    pub async fn open(options: &Options) -> Result<Database, Error> {
        sqlx::any::install_default_drivers();
        let lock = lock(&options.folder)?;
        let (dialect, url) = match &options.database_url {
            None => {
                let folder = options.folder.canonicalize().map_err(Error::file(&options.folder))?;
                (Dialect::Sqlite, sqlite_url(&folder.join("remora.sqlite")))
            }
            Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
                (Dialect::Postgres, url.clone())
            }
            Some(_) => return Err(Error::Url("unknown kind of database".to_owned())),
        };
        let connect = AnyConnectOptions::from_str(&url).map_err(|error| Error::Url(error.to_string()))?;
        let readers = AnyPoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(Duration::from_secs(CONNECT_S))
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if dialect == Dialect::Sqlite {
                        sqlx::raw_sql(SQLITE_READER).execute(connection).await?;
                    }
                    Ok(())
                })
            })
            .connect_lazy_with(connect.clone());
        Ok(Database { dialect, options: connect, writer: Mutex::new(None), readers, _lock: lock })
    }

    /// A transaction that writes; others that want to write wait for its end.
    pub async fn write(&self) -> Result<Write<'_>, Error> {
        let mut slot = self.writer.lock().await;
        let begin = match self.dialect {
            Dialect::Sqlite => "BEGIN IMMEDIATE",
            Dialect::Postgres => "BEGIN",
        };
        if let Some(mut connection) = slot.take()
            && sqlx::raw_sql(begin).execute(&mut connection).await.is_ok()
        {
            return Ok(Write { slot, connection: Some(connection) });
        }
        // Either there was none or it is broken: the server was restarted, the disk was full.
        let mut connection = self.connect().await?;
        sqlx::raw_sql(begin).execute(&mut connection).await?;
        Ok(Write { slot, connection: Some(connection) })
    }

    async fn connect(&self) -> Result<AnyConnection, Error> {
        let connecting = AnyConnection::connect_with(&self.options);
        let limit = Duration::from_secs(CONNECT_S);
        let mut connection = timeout(limit, connecting).await.map_err(|_| Error::Slow(CONNECT_S))??;
        match self.dialect {
            Dialect::Sqlite => {
                sqlx::raw_sql(SQLITE_WRITER).execute(&mut connection).await?;
            }
            Dialect::Postgres => own(&mut connection).await?,
        }
        Ok(connection)
    }

    /// A transaction that reads, all of it at one moment.
    pub async fn read(&self) -> Result<Transaction<'static, Any>, Error> {
        let begin = match self.dialect {
            Dialect::Sqlite => "BEGIN",
            Dialect::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        Ok(self.readers.begin_with(begin).await?)
    }

    pub async fn close(&self) {
        self.readers.close().await;
        if let Some(connection) = self.writer.lock().await.take() {
            // Nothing is under way on it, so nothing can be lost.
            connection.close().await.unwrap_or_else(|error| tracing::warn!(%error, "closing the database"));
        }
    }
}

/// A transaction that is taken back unless it is committed.
///
/// Of sqlx's own transactions one cannot get rid when the database has ended them by itself, as SQLite does when the
/// disk is full; here the connection goes with them.
pub(super) struct Write<'a> {
    slot: MutexGuard<'a, Option<AnyConnection>>,
    connection: Option<AnyConnection>,
}

impl Write<'_> {
    pub fn connection(&mut self) -> &mut AnyConnection {
        self.connection.as_mut().expect("it is there until the end")
    }

    pub async fn commit(self) -> Result<(), Error> {
        self.end("COMMIT").await
    }

    /// Takes it back and keeps the connection.
    pub async fn cancel(self) -> Result<(), Error> {
        self.end("ROLLBACK").await
    }

    async fn end(mut self, statement: &'static str) -> Result<(), Error> {
        sqlx::raw_sql(statement).execute(self.connection()).await?;
        *self.slot = self.connection.take();
        Ok(())
    }
}

/// Takes possession of a PostgreSQL database for as long as the connection lasts.
async fn own(connection: &mut AnyConnection) -> Result<(), Error> {
    for _ in 0..TRIES {
        let row =
            sqlx::query("SELECT pg_try_advisory_lock($1)").bind(OWNER).fetch_one(&mut *connection).await?;
        if row.try_get(0)? {
            return Ok(());
        }
        sleep(BETWEEN_TRIES).await;
    }
    Err(Error::DatabaseInUse)
}

/// Locks the folder; the lock goes with the process, however that ends.
fn lock(folder: &Path) -> Result<File, Error> {
    std::fs::create_dir_all(folder).map_err(Error::file(folder))?;
    let path = folder.join("lock");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(Error::file(&path))?;
    match file.try_lock() {
        Ok(()) => {
            let owner = format!("process {}\n", std::process::id());
            file.set_len(0).and_then(|()| file.write_all(owner.as_bytes())).map_err(Error::file(&path))?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            file.read_to_string(&mut owner).map_err(Error::file(&path))?;
            Err(Error::FolderInUse { folder: folder.to_owned(), pid: owner.trim().to_owned() })
        }
        Err(TryLockError::Error(error)) => Err(Error::file(&path)(error)),
    }
}

/// Any path is a valid URL once all but plain characters are escaped.
fn sqlite_url(path: &Path) -> String {
    let mut url = "sqlite://".to_owned();
    for &byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => url.push(byte as char),
            _ => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url + "?mode=rwc"
}
