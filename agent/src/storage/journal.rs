//! The journal: everything that happened, in order, never changed. Bodies are encoded messages; what they mean is not
//! known here.

use std::collections::VecDeque;
use std::fmt;

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::{Any, AnyConnection, Arguments, AssertSqlSafe, Encode, Row, Type};

use super::error::check_texts;
use super::page::{Page, Paging, Select};
use super::{Error, Storage};

/// What an entry tells. `Registered` begins a cluster anew, `Removed` ends it and `Ended` ends a decision: restoring and
/// compacting go by these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Registered,
    Changed,
    Decided,
    Ended,
    Disputed,
    Removed,
}

impl Kind {
    pub const ALL: [Kind; 6] =
        [Kind::Registered, Kind::Changed, Kind::Decided, Kind::Ended, Kind::Disputed, Kind::Removed];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Registered => "registered",
            Kind::Changed => "changed",
            Kind::Decided => "decided",
            Kind::Ended => "ended",
            Kind::Disputed => "disputed",
            Kind::Removed => "removed",
        }
    }

    fn stored(name: &str, sequence: i64) -> Result<Kind, Error> {
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
        kind.ok_or_else(|| {
            Error::Damaged(format!("entry {sequence} is of kind {name:?}, which this program does not know"))
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub at_ms: i64,
    pub cluster: String,
    pub kind: Kind,
    pub decision_id: Option<String>,
    pub body: Vec<u8>,
}

impl Entry {
    pub(super) fn check(&self) -> Result<(), Error> {
        check_texts(&[("cluster", &self.cluster), ("decision_id", self.decision_id.as_deref().unwrap_or(""))])
    }
}

/// An entry and its place in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    pub sequence: i64,
    pub entry: Entry,
}

/// Which entries to read; nothing set means all.
#[derive(Clone, Debug, Default)]
pub struct JournalFilter {
    pub cluster: Option<String>,
    pub kind: Option<Kind>,
    /// Not before.
    pub from_ms: Option<i64>,
    /// Before.
    pub until_ms: Option<i64>,
    /// After the entry with this number.
    pub after: Option<i64>,
}

const SELECT: &str = "SELECT sequence, at_ms, cluster, kind, decision_id, body FROM journal WHERE true";
/// Rows that one page of an export holds.
const EXPORTED: u32 = 1000;
/// Rows that one statement inserts at most.
const INSERTED: usize = 256;

impl Storage {
    /// All entries of a decision, oldest first.
    pub async fn decision(&self, id: &str) -> Result<Vec<Recorded>, Error> {
        Select::new(SELECT).filter("decision_id =", Some(id.to_owned()))?.all(&self.database, recorded).await
    }

    pub async fn journal(&self, filter: JournalFilter, paging: &Paging) -> Result<Page<Recorded>, Error> {
        Select::new(SELECT)
            .filter("cluster =", filter.cluster)?
            .filter("kind =", filter.kind.map(|kind| kind.name().to_owned()))?
            .filter("at_ms >=", filter.from_ms)?
            // Implied by the line before, and what spares reading the journal from its beginning.
            .filter("sequence >= (SELECT min(sequence) FROM journal WHERE at_ms >=", filter.from_ms)?
            .filter("at_ms <", filter.until_ms)?
            .filter("sequence >", filter.after)?
            .page(&self.database, paging, recorded)
            .await
    }

    /// Names of the clusters of which something is recorded.
    pub async fn recorded_clusters(&self) -> Result<Vec<String>, Error> {
        let mut connection = self.database.read().await?;
        let rows = sqlx::query("SELECT DISTINCT cluster FROM journal").fetch_all(&mut *connection).await?;
        let mut names = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
        names.sort();
        Ok(names)
    }

    /// Walks through a cluster's journal without ever holding more than a page of it.
    pub fn export(&self, cluster: &str) -> Export<'_> {
        self.export_after(cluster, None)
    }

    /// The same from after an entry on.
    pub fn export_after(&self, cluster: &str, after: Option<i64>) -> Export<'_> {
        Export {
            storage: self,
            cluster: cluster.to_owned(),
            after,
            page: VecDeque::new(),
            next: Some(String::new()),
        }
    }
}

/// A walk through a cluster's journal, oldest entries first.
#[derive(Debug)]
pub struct Export<'a> {
    storage: &'a Storage,
    cluster: String,
    after: Option<i64>,
    page: VecDeque<Recorded>,
    /// The token of the next page; nothing after the last.
    next: Option<String>,
}

impl Export<'_> {
    /// The next entry; nothing at the end, as it was when the last page was read.
    pub async fn next(&mut self) -> Result<Option<Recorded>, Error> {
        if self.page.is_empty()
            && let Some(token) = self.next.take()
        {
            let (cluster, after) = (Some(self.cluster.clone()), self.after);
            let filter = JournalFilter { cluster, after, ..JournalFilter::default() };
            let paging = Paging { token: token.clone(), limit: EXPORTED, newest_first: false };
            // What failed can be tried again.
            let page =
                self.storage.journal(filter, &paging).await.inspect_err(|_| self.next = Some(token))?;
            (self.page, self.next) = (page.items.into(), page.next);
        }
        Ok(self.page.pop_front())
    }
}

/// Reads a row with the columns of [`SELECT`].
pub(super) fn recorded(row: &AnyRow) -> Result<Recorded, Error> {
    let sequence = row.try_get("sequence")?;
    let kind = Kind::stored(row.try_get("kind")?, sequence)?;
    let (at_ms, cluster) = (row.try_get("at_ms")?, row.try_get("cluster")?);
    let (decision_id, body) = (row.try_get("decision_id")?, row.try_get("body")?);
    Ok(Recorded { sequence, entry: Entry { at_ms, cluster, kind, decision_id, body } })
}

/// The entries from `sequence` on, of one cluster or of all.
pub(super) async fn read_from(
    connection: &mut AnyConnection,
    cluster: Option<&str>,
    sequence: i64,
) -> Result<Vec<Recorded>, Error> {
    Select::new(SELECT)
        .filter("cluster =", cluster.map(str::to_owned))?
        .filter("sequence >=", Some(sequence))?
        .rows(connection, recorded)
        .await
}

/// The last number that was given; 0 before the first.
pub(super) async fn newest(connection: &mut AnyConnection) -> Result<i64, Error> {
    let row = sqlx::query("SELECT coalesce(max(sequence), 0) FROM journal").fetch_one(connection).await?;
    Ok(row.try_get(0)?)
}

/// Enters them. Statements have powers of two of rows, so that few need preparing.
pub(super) async fn insert(connection: &mut AnyConnection, mut entries: &[Recorded]) -> Result<(), Error> {
    while !entries.is_empty() {
        let rows = INSERTED.min(1 << entries.len().ilog2());
        let (now, later) = entries.split_at(rows);
        let mut arguments = AnyArguments::default();
        for Recorded { sequence, entry } in now {
            add(&mut arguments, *sequence)?;
            add(&mut arguments, entry.at_ms)?;
            add(&mut arguments, entry.cluster.clone())?;
            add(&mut arguments, entry.kind.name().to_owned())?;
            add(&mut arguments, entry.decision_id.clone())?;
            add(&mut arguments, entry.body.clone())?;
        }
        sqlx::query_with(AssertSqlSafe(insertion(rows)), arguments).execute(&mut *connection).await?;
        entries = later;
    }
    Ok(())
}

pub(super) fn add<T>(arguments: &mut AnyArguments, value: T) -> Result<(), Error>
where
    T: for<'q> Encode<'q, Any> + Type<Any>,
{
    arguments.add(value).map_err(|error| Error::Database(sqlx::Error::Encode(error)))
}

fn insertion(rows: usize) -> String {
    let row = |row: usize| {
        let placeholders: Vec<_> = (1..=6).map(|column| format!("${}", 6 * row + column)).collect();
        format!("({})", placeholders.join(", "))
    };
    let rows: Vec<_> = (0..rows).map(row).collect();
    format!(
        "INSERT INTO journal (sequence, at_ms, cluster, kind, decision_id, body) VALUES {}",
        rows.join(", ")
    )
}
