//! What a restart begins from: of each live cluster its snapshot and the entries since. And what may be forgotten.

use sqlx::{AnyConnection, Row};

use super::journal::{self, Kind, Recorded};
use super::{Error, Storage};

/// A cluster as it was after an entry of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The last entry that it includes.
    pub sequence: i64,
    pub at_ms: i64,
    pub body: Vec<u8>,
}

/// What is known of a live cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    pub cluster: String,
    pub snapshot: Option<Snapshot>,
    /// Those after the snapshot, oldest first; without one they begin with the cluster's registration.
    pub entries: Vec<Recorded>,
}

/// What the entries after `sequence` continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    pub sequence: i64,
    pub at_ms: i64,
    /// A snapshot; without one they begin with the cluster's registration.
    pub body: Option<Vec<u8>>,
}

/// How long entries are kept that no restart needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    Forever,
    Millis(i64),
}

/// Sequence numbers that one transaction of a compaction goes through, so that the writer never waits long.
const SLICE: i64 = 5000;

/// Entries that a restart needs, the registration without which a recording could not be read, and those of
/// decisions that have not ended.
const FORGET: &str = "DELETE FROM journal WHERE sequence >= $1 AND sequence < $2 AND NOT EXISTS (
    SELECT 1 FROM snapshots WHERE snapshots.cluster = journal.cluster AND (
        journal.sequence > snapshots.sequence
        OR journal.sequence = snapshots.registered
        OR (journal.sequence > snapshots.registered AND journal.decision_id IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM journal AS later WHERE later.decision_id = journal.decision_id
                AND later.cluster = journal.cluster AND later.kind = 'ended'
                AND later.sequence > snapshots.registered))))";

impl Storage {
    /// The live clusters by name.
    pub async fn restore(&self) -> Result<Vec<Restored>, Error> {
        let mut connection = self.database.read().await?;
        let rows = sqlx::query("SELECT cluster, sequence, at_ms, body FROM snapshots")
            .fetch_all(&mut *connection)
            .await?;
        let mut restored = Vec::with_capacity(rows.len());
        for row in rows {
            let (cluster, sequence): (String, i64) = (row.try_get("cluster")?, row.try_get("sequence")?);
            let (at_ms, body): (_, Option<_>) = (row.try_get("at_ms")?, row.try_get("body")?);
            let snapshot = body.map(|body| Snapshot { sequence, at_ms, body });
            let entries = journal::read_from(&mut connection, Some(&cluster), sequence + 1).await?;
            if snapshot.is_none() && entries.first().map(|first| first.entry.kind) != Some(Kind::Registered) {
                return Err(Error::Damaged(format!("the registration of cluster {cluster:?} is missing")));
            }
            restored.push(Restored { cluster, snapshot, entries });
        }
        // The databases have ideas of their own about the order of texts.
        restored.sort_by(|a, b| a.cluster.cmp(&b.cluster));
        Ok(restored)
    }

    /// The last snapshot of a live cluster, if it has one.
    pub async fn snapshot(&self, cluster: &str) -> Result<Option<Snapshot>, Error> {
        let query = "SELECT sequence, at_ms, body FROM snapshots WHERE cluster = $1 AND body IS NOT NULL";
        let mut connection = self.database.read().await?;
        let row = sqlx::query(query).bind(cluster).fetch_optional(&mut *connection).await?;
        let read = |row: sqlx::any::AnyRow| {
            Ok(Snapshot {
                sequence: row.try_get("sequence")?,
                at_ms: row.try_get("at_ms")?,
                body: row.try_get("body")?,
            })
        };
        row.map(read).transpose()
    }

    /// The nearest that is kept before an entry of a live cluster, or the earliest that is kept.
    pub async fn base(&self, cluster: &str, entry: i64) -> Result<Option<Base>, Error> {
        const QUERY: &str =
            "SELECT registered, sequence, at_ms, body, before_sequence, before_at_ms, before_body
            FROM snapshots WHERE cluster = $1";
        let mut connection = self.database.read().await?;
        let Some(row) = sqlx::query(QUERY).bind(cluster).fetch_optional(&mut *connection).await? else {
            return Ok(None);
        };
        let last = Base {
            sequence: row.try_get("sequence")?,
            at_ms: row.try_get("at_ms")?,
            body: row.try_get("body")?,
        };
        if last.sequence < entry {
            return Ok(Some(last));
        }
        let before = Base {
            sequence: row.try_get::<Option<i64>, _>("before_sequence")?.unwrap_or_default(),
            at_ms: row.try_get::<Option<i64>, _>("before_at_ms")?.unwrap_or_default(),
            body: row.try_get("before_body")?,
        };
        let registered: i64 = row.try_get("registered")?;
        let began = Base { sequence: registered - 1, at_ms: last.at_ms, body: None };
        Ok(Some(if before.body.is_some() { before } else { began }))
    }

    /// Forgets what is older than `keep` and needed by nobody; returns how many entries that was.
    ///
    /// Goes from the oldest entry to the first that is to be kept, and never takes the newest, whose number says
    /// which is next.
    pub async fn compact(&self, keep: Keep, now_ms: i64) -> Result<u64, Error> {
        let Keep::Millis(keep_ms) = keep else { return Ok(0) };
        let limit_ms = now_ms.saturating_sub(keep_ms);
        let newest = journal::newest(&mut *self.database.read().await?).await?;
        let (mut from, mut forgotten) = (0, 0);
        loop {
            let mut write = self.database.write().await?;
            // What earlier compactions left may be far apart.
            let Some(first) = first_since(write.connection(), (from, newest), i64::MIN).await? else {
                write.cancel().await?;
                break;
            };
            let until = newest.min(first + SLICE);
            let kept = first_since(write.connection(), (first, until), limit_ms).await?;
            let forget = sqlx::query(FORGET).bind(first).bind(kept.unwrap_or(until));
            forgotten += forget.execute(write.connection()).await?.rows_affected();
            write.commit().await?;
            if kept.is_some() {
                break;
            }
            from = until;
        }
        Ok(forgotten)
    }
}

/// The first entry at or after a time, among those from the one number to before the other.
async fn first_since(
    connection: &mut AnyConnection,
    (from, until): (i64, i64),
    since_ms: i64,
) -> Result<Option<i64>, Error> {
    let query = "SELECT min(sequence) FROM journal WHERE sequence >= $1 AND sequence < $2 AND at_ms >= $3";
    let row = sqlx::query(query).bind(from).bind(until).bind(since_ms).fetch_one(connection).await?;
    Ok(row.try_get(0)?)
}

/// The cluster begins anew with this entry.
pub(super) async fn begin(
    connection: &mut AnyConnection,
    cluster: &str,
    registered: i64,
    at_ms: i64,
) -> Result<(), Error> {
    end(connection, cluster).await?;
    sqlx::query("INSERT INTO snapshots (cluster, registered, sequence, at_ms) VALUES ($1, $2, $3, $4)")
        .bind(cluster)
        .bind(registered)
        .bind(registered - 1)
        .bind(at_ms)
        .execute(connection)
        .await?;
    Ok(())
}

/// A snapshot takes the place of the one before; of a cluster that is gone there is none.
pub(super) async fn replace(
    connection: &mut AnyConnection,
    cluster: &str,
    snapshot: &Snapshot,
) -> Result<(), Error> {
    const QUERY: &str =
        "UPDATE snapshots SET before_sequence = sequence, before_at_ms = at_ms, before_body = body,
        sequence = $1, at_ms = $2, body = $3 WHERE cluster = $4";
    sqlx::query(QUERY)
        .bind(snapshot.sequence)
        .bind(snapshot.at_ms)
        .bind(&snapshot.body)
        .bind(cluster)
        .execute(connection)
        .await?;
    Ok(())
}

/// The cluster is gone.
pub(super) async fn end(connection: &mut AnyConnection, cluster: &str) -> Result<(), Error> {
    sqlx::query("DELETE FROM snapshots WHERE cluster = $1").bind(cluster).execute(connection).await?;
    Ok(())
}
