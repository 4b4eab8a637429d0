//! Storage, on SQLite and on PostgreSQL alike: `REMORA_TEST_POSTGRES` is the URL of a server where databases may be
//! created, and each test has one of its own. `REMORA_TEST_S3` is the URL of a bucket for large files; a test that has
//! PostgreSQL has them there.

mod administration;
mod apps;
mod blobs;
mod compaction;
mod crash;
mod figures;
mod forget;
mod ownership;
mod reading;
mod trouble;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use object_store::ObjectStoreExt;
use remora_agent::storage::{Entry, Kind, Options, Recorder, Role, Storage, Who};
use sqlx::{AnyConnection, AssertSqlSafe, Connection};
use tempfile::TempDir;

/// A data folder, and perhaps a database, of a test's own.
pub struct Place {
    folder: TempDir,
    postgres: Option<Postgres>,
    bucket: Option<String>,
}

struct Postgres {
    server: String,
    database: String,
}

impl Postgres {
    fn url(&self) -> String {
        let (server, _) = self.server.rsplit_once('/').unwrap();
        format!("{server}/{}", self.database)
    }

    async fn run(&self, statement: &str) {
        let mut server = connect(&self.server).await;
        let statement = format!("{statement} {}", self.database);
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut server).await.unwrap();
        server.close().await.unwrap();
    }
}

async fn connect(url: &str) -> AnyConnection {
    sqlx::any::install_default_drivers();
    AnyConnection::connect(url).await.unwrap()
}

impl Place {
    pub fn sqlite() -> Place {
        Place { folder: tempfile::tempdir().unwrap(), postgres: None, bucket: None }
    }

    /// Nothing where there is no server.
    pub async fn postgres() -> Option<Place> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let Ok(server) = std::env::var("REMORA_TEST_POSTGRES") else {
            eprintln!("skipped on PostgreSQL: set REMORA_TEST_POSTGRES to the URL of a server");
            return None;
        };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let database = format!("remora_test_{}_{number}", std::process::id());
        let postgres = Postgres { server, database };
        postgres.run("DROP DATABASE IF EXISTS").await;
        postgres.run("CREATE DATABASE").await;
        let bucket = bucket().map(|url| format!("{url}/{}/{number}", std::process::id()));
        Some(Place { folder: tempfile::tempdir().unwrap(), postgres: Some(postgres), bucket })
    }

    pub fn options(&self) -> Options {
        let database_url = self.postgres.as_ref().map(Postgres::url);
        Options { database_url, blobs_url: self.bucket.clone(), ..Options::new(self.folder.path()) }
    }

    pub async fn open(&self) -> Storage {
        Storage::open(self.options()).await.unwrap()
    }

    /// A way to the database past us.
    pub async fn connection(&self) -> AnyConnection {
        let file = self.folder.path().join("remora.sqlite");
        connect(&self.options().database_url.unwrap_or_else(|| format!("sqlite://{}", file.display()))).await
    }

    /// Does something to the database behind our back.
    pub async fn tamper(&self, statement: &'static str) {
        let mut connection = self.connection().await;
        sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    /// Puts something else where a large file is.
    pub async fn damage(&self, id: &str) {
        let (shelf, file) = id.split_at(2);
        match &self.bucket {
            None => {
                let path = self.folder.path().join("blobs").join(shelf).join(file);
                assert!(path.is_file());
                std::fs::write(path, b"something else").unwrap();
            }
            Some(url) => {
                let (store, prefix) = blobs::store(url);
                let key = prefix.join(shelf).join(file);
                store.head(&key).await.unwrap();
                store.put(&key, b"something else".to_vec().into()).await.unwrap();
            }
        }
    }

    pub async fn remove(self) {
        if let Some(postgres) = self.postgres {
            postgres.run("DROP DATABASE").await;
        }
    }
}

/// A bucket for tests. Nothing where there is none.
pub fn bucket() -> Option<String> {
    let url = std::env::var("REMORA_TEST_S3").ok();
    if url.is_none() {
        eprintln!("skipped with S3: set REMORA_TEST_S3 to the URL of a bucket, and AWS_* as it wants");
    }
    url
}

/// The test on every kind of database that there is here.
pub async fn everywhere(test: impl AsyncFn(&Place)) {
    let places = [Some(Place::sqlite()), Place::postgres().await];
    for place in places.into_iter().flatten() {
        test(&place).await;
        place.remove().await;
    }
}

pub fn entry(cluster: &str, kind: Kind, at_ms: i64, body: impl Into<Vec<u8>>) -> Entry {
    Entry { at_ms, cluster: cluster.to_owned(), kind, decision_id: None, body: body.into() }
}

pub fn about(decision: &str, kind: Kind, at_ms: i64) -> Entry {
    Entry { decision_id: Some(decision.to_owned()), ..entry("hall", kind, at_ms, decision) }
}

pub fn who(at_ms: i64) -> Who {
    Who { at_ms, actor: "ada".to_owned(), role: Some(Role::Admin) }
}

/// Waits for what the writer does on its own.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("waited 20 s for: {what}");
}

/// Enters a cluster called "hall" with so many changes, whose bodies are their numbers.
pub async fn fill(recorder: &Recorder, changes: u32) {
    recorder.record(entry("hall", Kind::Registered, 0, "hall")).unwrap();
    for number in 1..=changes {
        recorder.record(entry("hall", Kind::Changed, number.into(), number.to_be_bytes())).unwrap();
    }
    recorder.flush().await.unwrap();
}
