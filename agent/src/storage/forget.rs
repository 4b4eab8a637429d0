//! Forgetting: runs that need not be kept, and files that nothing refers to any more.
//!
//! Rows go before the files that they refer to, and files are found by looking through all there are, so a crash in
//! between leaves only what the next time finds.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Row};

use super::{Error, Storage};

/// Runs that one transaction forgets, so that the writer never waits long.
const SLICE: u64 = 500;

/// Which runs of an application are kept: those that are over either limit are not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunsKept {
    pub app: String,
    /// So many that are over, the newest.
    pub last: Option<u32>,
    /// Those that ended since then, milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// These, whatever their age.
    pub besides: Vec<String>,
}

impl Storage {
    /// Forgets at most so many runs, the oldest first, with what is known of their files; returns how many.
    pub async fn forget_runs(&self, kept: &RunsKept, most: u64) -> Result<u64, Error> {
        let below = match kept.last {
            Some(last) => self.newest_beyond(&kept.app, last).await?,
            None => None,
        };
        let mut forgotten = 0;
        while forgotten < most {
            let old = self.old_runs(kept, below, SLICE.min(most - forgotten)).await?;
            if old.is_empty() {
                break;
            }
            let mut write = self.database.write().await?;
            for (table, column) in [("artifacts", "run"), ("runs", "id")] {
                let sql = format!("DELETE FROM {table} WHERE {column} IN ({})", places(old.len(), 0));
                let query = old.iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, id| query.bind(id));
                query.execute(write.connection()).await?;
            }
            write.commit().await?;
            forgotten += old.len() as u64;
        }
        Ok(forgotten)
    }

    /// Number of the newest run that is over and not among the last so many.
    async fn newest_beyond(&self, app: &str, last: u32) -> Result<Option<i64>, Error> {
        let sql = format!(
            "SELECT number FROM runs WHERE app = $1 AND ended_ms IS NOT NULL \
             ORDER BY number DESC LIMIT 1 OFFSET {last}"
        );
        let mut connection = self.database.read().await?;
        let row = sqlx::query(AssertSqlSafe(sql)).bind(app).fetch_optional(&mut *connection).await?;
        row.map(|row| Ok(row.try_get("number")?)).transpose()
    }

    async fn old_runs(&self, kept: &RunsKept, below: Option<i64>, most: u64) -> Result<Vec<String>, Error> {
        // Numbers begin with 1, and nothing ended before 1970.
        let (below, since_ms) = (below.unwrap_or(0), kept.since_ms.unwrap_or(i64::MIN));
        let besides = match kept.besides.len() {
            0 => String::new(),
            count => format!(" AND id NOT IN ({})", places(count, 3)),
        };
        let sql = format!(
            "SELECT id FROM runs WHERE app = $1 AND ended_ms IS NOT NULL AND (number <= $2 OR ended_ms < $3)\
             {besides} ORDER BY number LIMIT {most}"
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(&kept.app).bind(below).bind(since_ms);
        let query = kept.besides.iter().fold(query, |query, id| query.bind(id));
        let rows = query.fetch_all(&mut *self.database.read().await?).await?;
        rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
    }

    /// Removes at most so many files that no row refers to, that are not `needed` for what is under way, and that were
    /// not written within `grace`; returns how many.
    pub async fn forget_blobs(
        &self,
        needed: &BTreeSet<String>,
        grace: Duration,
        most: u64,
    ) -> Result<u64, Error> {
        self.blobs.young.grow_up(grace).await;
        let mut forgotten = 0;
        for shelf in 0..=u8::MAX {
            if forgotten >= most {
                break;
            }
            let found = self.blobs.shelf(shelf).await?;
            if found.is_empty() {
                continue;
            }
            let referred = self.referred(shelf).await?;
            let idle = |id: &String| !needed.contains(id) && !referred.contains(id);
            for id in found.into_iter().filter(idle).take((most - forgotten) as usize) {
                forgotten += u64::from(self.blobs.remove(&id).await);
            }
        }
        Ok(forgotten)
    }

    /// Hashes beginning with this byte that some row refers to.
    async fn referred(&self, shelf: u8) -> Result<BTreeSet<String>, Error> {
        const QUERY: &str = "SELECT hash FROM artifacts WHERE hash >= $1 AND hash < $2
            UNION SELECT model FROM versions WHERE model >= $1 AND model < $2
            UNION SELECT code FROM definitions WHERE code >= $1 AND code < $2
            UNION SELECT id FROM policies WHERE id >= $1 AND id < $2";
        let from = format!("{shelf:02x}");
        // Digits come before letters in the order of every database.
        let until = shelf.checked_add(1).map_or_else(|| "g".to_owned(), |next| format!("{next:02x}"));
        let query = sqlx::query(QUERY).bind(from).bind(until);
        let rows = query.fetch_all(&mut *self.database.read().await?).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }
}

/// Places of so many values in a statement, after so many others.
fn places(count: usize, before: usize) -> String {
    let places: Vec<_> = (1..=count).map(|place| format!("${}", before + place)).collect();
    places.join(", ")
}
