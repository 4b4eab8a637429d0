//! Applications: the journal of what happened to them, the last snapshot, and the tables made of both.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::{AnyConnection, Arguments, AssertSqlSafe, Row as _};

use super::database::Write;
use super::page::Select;
use super::{Error, Storage};
use crate::appcore::core::{Alias, Version};
use crate::appcore::rows::Row;
use crate::appcore::run::{Blob, Run, RunKind, Status};
use crate::appcore::states::State;

/// Most rows of one statement.
const MANY: usize = 256;

/// An input and its place in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppEntry {
    pub sequence: i64,
    pub at_ms: i64,
    /// JSON.
    pub body: String,
}

/// What AppCore goes on from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppsBefore {
    /// Number of the last input that it includes, and the state as JSON.
    pub snapshot: Option<(i64, String)>,
    /// Those after it.
    pub entries: Vec<AppEntry>,
}

/// What is written at once.
#[derive(Debug, Default)]
pub struct AppBatch {
    pub entries: Vec<AppEntry>,
    pub rows: Vec<Row>,
    /// The state after the last entry.
    pub snapshot: Option<AppEntry>,
}

/// Which runs to read, newest first; nothing set means all.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    pub app: Option<String>,
    pub kind: Option<RunKind>,
    pub status: Option<Status>,
    /// Before this time, milliseconds since 1970.
    pub before_ms: Option<i64>,
    /// 1 to 1000; 100 unless given.
    pub limit: Option<i64>,
    /// A text that they mention; see [`Run::mentions`].
    pub matching: Option<String>,
}

/// A change of an application's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransitionRow {
    pub app: String,
    pub number: i64,
    pub at_ms: i64,
    pub from: String,
    pub to: String,
    pub cause: String,
    pub actor: String,
    pub reason: String,
}

/// A change of an alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppAliasRow {
    pub app: String,
    pub number: i64,
    pub at_ms: i64,
    pub alias: String,
    pub version: Option<i64>,
    pub actor: String,
    pub reason: String,
}

/// A trigger that fired, or why it did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FireRow {
    pub app: String,
    pub number: i64,
    pub at_ms: i64,
    pub trigger: String,
    pub actor: String,
    pub skipped: Option<String>,
}

/// What a column holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Int(i64),
    Text(String),
    NoInt,
    NoText,
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Value {
        Value::Text(text.clone())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Int(number)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<Option<i64>> for Value {
    fn from(number: Option<i64>) -> Value {
        number.map_or(Value::NoInt, Value::Int)
    }
}

impl From<Option<&String>> for Value {
    fn from(text: Option<&String>) -> Value {
        text.map_or(Value::NoText, Value::from)
    }
}

/// Rows of one table: columns, of which the first so many are the key.
struct Upsert {
    table: &'static str,
    columns: &'static [&'static str],
    key: usize,
}

const JOURNAL: Upsert = Upsert { table: "app_journal", columns: &["sequence", "at_ms", "body"], key: 1 };
const SNAPSHOT: Upsert =
    Upsert { table: "app_snapshot", columns: &["id", "sequence", "at_ms", "body"], key: 1 };
const APPLICATIONS: Upsert =
    Upsert { table: "applications", columns: &["app", "state", "since_ms", "manifest"], key: 1 };
const DEFINITIONS: Upsert = Upsert {
    table: "definitions",
    columns: &["app", "number", "at_ms", "manifest", "code", "actor"],
    key: 2,
};
const VERSIONS: Upsert =
    Upsert { table: "versions", columns: &["app", "number", "at_ms", "model", "body"], key: 2 };
const ALIASES: Upsert = Upsert {
    table: "app_aliases",
    columns: &["app", "number", "at_ms", "alias", "version", "actor", "reason"],
    key: 2,
};
const TRIGGERS: Upsert =
    Upsert { table: "triggers", columns: &["app", "name", "spec", "paused", "next_ms", "fired_ms"], key: 2 };
const FIRES: Upsert =
    Upsert { table: "fires", columns: &["app", "number", "at_ms", "name", "actor", "skipped"], key: 2 };
const NOTICES: Upsert =
    Upsert { table: "notices", columns: &["app", "key", "at_ms", "items", "bytes", "actor"], key: 2 };
const RUNS: Upsert = Upsert {
    table: "runs",
    columns: &[
        "id",
        "app",
        "number",
        "kind",
        "status",
        "request",
        "queued_ms",
        "ended_ms",
        "node",
        "decision",
        "body",
    ],
    key: 1,
};
const ARTIFACTS: Upsert =
    Upsert { table: "artifacts", columns: &["run", "direction", "name", "hash", "bytes"], key: 3 };
const TRANSITIONS: Upsert = Upsert {
    table: "transitions",
    columns: &["app", "number", "at_ms", "state_before", "state_after", "cause", "actor", "reason"],
    key: 2,
};

impl Upsert {
    /// Writes rows, new or in place of those with the same key; of several with one key the last counts.
    async fn write(&self, connection: &mut AnyConnection, rows: Vec<Vec<Value>>) -> Result<(), Error> {
        let mut rows = rows.into_iter();
        while rows.len() > 0 {
            // Few sizes, so that the database knows their statements from before.
            let size = (1 << rows.len().ilog2()).min(MANY);
            let some: Vec<_> = rows.by_ref().take(size).collect();
            let mut arguments = AnyArguments::default();
            let mut sql = format!("INSERT INTO {} ({}) VALUES ", self.table, self.columns.join(", "));
            let mut given = 0;
            for (index, row) in some.into_iter().enumerate() {
                let places: Vec<_> = (1..=row.len()).map(|place| format!("${}", given + place)).collect();
                given += row.len();
                let comma = if index == 0 { "" } else { ", " };
                sql.push_str(&format!("{comma}({})", places.join(", ")));
                for value in row {
                    add(&mut arguments, value)?;
                }
            }
            let (key, rest) = self.columns.split_at(self.key);
            let set: Vec<_> = rest.iter().map(|column| format!("{column} = excluded.{column}")).collect();
            sql.push_str(&format!(" ON CONFLICT ({}) DO UPDATE SET {}", key.join(", "), set.join(", ")));
            sqlx::query_with(AssertSqlSafe(sql), arguments).execute(&mut *connection).await?;
        }
        Ok(())
    }
}

fn add(arguments: &mut AnyArguments, value: Value) -> Result<(), Error> {
    let added = match value {
        Value::Int(number) => arguments.add(number),
        // PostgreSQL stores no zero byte in text.
        Value::Text(text) => {
            arguments.add(if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text })
        }
        Value::NoInt => arguments.add(None::<i64>),
        Value::NoText => arguments.add(None::<String>),
    };
    added.map_err(|error| Error::Invalid(format!("a value that cannot be stored: {error}")))
}

/// JSON of something of ours, which always becomes JSON.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("it becomes JSON")
}

/// Which table a row belongs to, and its values.
fn values(row: &Row) -> (&'static Upsert, Vec<Value>) {
    match row {
        Row::App { app, state, since_ms, manifest } => {
            (&APPLICATIONS, vec![app.into(), state.name().into(), (*since_ms).into(), manifest.into()])
        }
        Row::Definition { app, number, manifest, code, at_ms, actor } => (
            &DEFINITIONS,
            vec![
                app.into(),
                i64::from(*number).into(),
                (*at_ms).into(),
                manifest.into(),
                code.as_ref().into(),
                actor.into(),
            ],
        ),
        Row::Version { app, version } => (
            &VERSIONS,
            vec![
                app.into(),
                i64::from(version.number).into(),
                version.at_ms.into(),
                version.model.as_ref().map(|model| &model.hash).into(),
                Value::Text(json(version)),
            ],
        ),
        Row::Run(run) => (&RUNS, run_values(run)),
        Row::Transition { app, number, at_ms, from, to, cause, actor, reason } => (
            &TRANSITIONS,
            vec![
                app.into(),
                (*number).into(),
                (*at_ms).into(),
                from.name().into(),
                to.name().into(),
                cause.name().into(),
                actor.into(),
                reason.into(),
            ],
        ),
        Row::Alias { app, number, at_ms, alias, version, actor, reason } => (
            &ALIASES,
            vec![
                app.into(),
                (*number).into(),
                (*at_ms).into(),
                alias.name().into(),
                version.map(i64::from).into(),
                actor.into(),
                reason.into(),
            ],
        ),
        Row::Trigger { app, trigger, spec, paused, next_ms, fired_ms } => (
            &TRIGGERS,
            vec![
                app.into(),
                trigger.into(),
                spec.into(),
                i64::from(*paused).into(),
                (*next_ms).into(),
                (*fired_ms).into(),
            ],
        ),
        Row::Fired { app, number, at_ms, trigger, actor, skipped } => (
            &FIRES,
            vec![
                app.into(),
                (*number).into(),
                (*at_ms).into(),
                trigger.into(),
                actor.into(),
                skipped.as_ref().into(),
            ],
        ),
        Row::Notice { app, key, at_ms, items, bytes, actor } => (
            &NOTICES,
            vec![app.into(), key.into(), (*at_ms).into(), (*items).into(), (*bytes).into(), actor.into()],
        ),
    }
}

fn run_values(run: &Run) -> Vec<Value> {
    let number: i64 = run.id.rsplit_once('.').and_then(|(_, number)| number.parse().ok()).unwrap_or(0);
    vec![
        (&run.id).into(),
        (&run.app).into(),
        number.into(),
        run.kind.name().into(),
        run.status.name().into(),
        run.request.as_ref().into(),
        run.queued_ms.into(),
        run.ended_ms.into(),
        run.node.as_ref().into(),
        run.decision.as_ref().into(),
        Value::Text(json(run)),
    ]
}

fn artifact_values(run: &Run) -> impl Iterator<Item = Vec<Value>> {
    let of = |direction: &'static str, blobs: &[Blob]| -> Vec<Vec<Value>> {
        let value = |blob: &Blob| {
            vec![
                (&run.id).into(),
                direction.into(),
                (&blob.name).into(),
                (&blob.hash).into(),
                blob.bytes.into(),
            ]
        };
        blobs.iter().map(value).collect()
    };
    of("input", &run.inputs).into_iter().chain(of("output", &run.outputs))
}

impl Storage {
    /// Writes inputs and what they led to, all or nothing.
    pub async fn record_apps(&self, batch: &AppBatch) -> Result<(), Error> {
        let mut write = self.database.write().await?;
        let entry = |entry: &AppEntry| vec![entry.sequence.into(), entry.at_ms.into(), (&entry.body).into()];
        JOURNAL.write(write.connection(), batch.entries.iter().map(entry).collect()).await?;
        write_rows(&mut write, &batch.rows).await?;
        if let Some(AppEntry { sequence, at_ms, body }) = &batch.snapshot {
            let row = vec![Value::Int(1), (*sequence).into(), (*at_ms).into(), body.into()];
            SNAPSHOT.write(write.connection(), vec![row]).await?;
            // The state is in the snapshot and history in the other tables.
            sqlx::query("DELETE FROM app_journal WHERE sequence <= $1")
                .bind(*sequence)
                .execute(write.connection())
                .await?;
        }
        write.commit().await
    }

    pub async fn apps_before(&self) -> Result<AppsBefore, Error> {
        let mut connection = self.database.read().await?;
        let row = sqlx::query("SELECT sequence, body FROM app_snapshot WHERE id = 1")
            .fetch_optional(&mut *connection)
            .await?;
        let snapshot = match row {
            Some(row) => Some((row.try_get("sequence")?, row.try_get("body")?)),
            None => None,
        };
        let after = snapshot.as_ref().map_or(0, |(sequence, _)| *sequence);
        let rows = sqlx::query(
            "SELECT sequence, at_ms, body FROM app_journal WHERE sequence > $1 ORDER BY sequence",
        )
        .bind(after)
        .fetch_all(&mut *connection)
        .await?;
        let entry = |row: &AnyRow| -> Result<AppEntry, Error> {
            Ok(AppEntry {
                sequence: row.try_get("sequence")?,
                at_ms: row.try_get("at_ms")?,
                body: row.try_get("body")?,
            })
        };
        Ok(AppsBefore { snapshot, entries: rows.iter().map(entry).collect::<Result<_, _>>()? })
    }

    /// Whether a notice came before, however long ago.
    pub async fn notice_known(&self, app: &str, key: &str) -> Result<bool, Error> {
        let notice = [(app.to_owned(), key.to_owned())].into();
        Ok(!self.notices_known(&notice).await?.is_empty())
    }

    /// Those of these notices, by application and key, that came before.
    pub async fn notices_known(
        &self,
        notices: &BTreeSet<(String, String)>,
    ) -> Result<BTreeSet<(String, String)>, Error> {
        let mut known = BTreeSet::new();
        if notices.is_empty() {
            return Ok(known);
        }
        let place = |index: usize| format!("(${}, ${})", 2 * index + 1, 2 * index + 2);
        let places: Vec<_> = (0..notices.len()).map(place).collect();
        let sql = format!("SELECT app, key FROM notices WHERE (app, key) IN (VALUES {})", places.join(", "));
        let query = sqlx::query(AssertSqlSafe(sql));
        let query = notices.iter().fold(query, |query, (app, key)| query.bind(app).bind(key));
        for row in query.fetch_all(&mut *self.database.read().await?).await? {
            known.insert((row.try_get("app")?, row.try_get("key")?));
        }
        Ok(known)
    }

    pub async fn run(&self, id: &str) -> Result<Option<Run>, Error> {
        let query = "SELECT body FROM runs WHERE id = $1";
        let row = sqlx::query(query).bind(id).fetch_optional(&mut *self.database.read().await?).await?;
        row.as_ref().map(body).transpose()
    }

    pub async fn runs(&self, filter: &RunFilter) -> Result<Vec<Run>, Error> {
        const ORDER: &str = "queued_ms DESC, number DESC";
        // As a body has it, which is JSON, and in quotes.
        let quoted = filter.matching.as_ref().map(json);
        let quoted = quoted.as_ref().map(|text| text.trim_matches('"'));
        let select = Select::new("SELECT body FROM runs WHERE true")
            .filter("app =", filter.app.clone())?
            .filter("kind =", filter.kind.map(RunKind::name).map(str::to_owned))?
            .filter("status =", filter.status.map(Status::name).map(str::to_owned))?
            .filter("queued_ms <", filter.before_ms)?
            .containing("body", quoted)?;
        let Some(text) = &filter.matching else {
            return select.first(&self.database, ORDER, filter.limit, body).await;
        };
        // A body has more in it than a run mentions, such as the names of its fields.
        let text = text.to_lowercase();
        let mentioning = |row: &AnyRow| Ok(Some(body::<Run>(row)?).filter(|run| run.mentions(&text)));
        select.first_of(&self.database, ORDER, filter.limit, mentioning).await
    }

    /// An application's versions, newest first, or only the one of a number.
    pub async fn versions(
        &self,
        app: &str,
        number: Option<i64>,
        limit: Option<i64>,
    ) -> Result<Vec<Version>, Error> {
        Select::new("SELECT body FROM versions WHERE true")
            .filter("app =", Some(app.to_owned()))?
            .filter("number =", number)?
            .first(&self.database, "number DESC", limit, body)
            .await
    }

    /// An application's moves from state to state, newest first.
    pub async fn transitions(
        &self,
        app: Option<&str>,
        limit: Option<i64>,
    ) -> Result<Vec<TransitionRow>, Error> {
        Select::new(
            "SELECT app, number, at_ms, state_before, state_after, cause, actor, reason FROM transitions WHERE true",
        )
            .filter("app =", app.map(str::to_owned))?
            .first(&self.database, "at_ms DESC, number DESC", limit, |row| {
                Ok(TransitionRow {
                    app: row.try_get("app")?,
                    number: row.try_get("number")?,
                    at_ms: row.try_get("at_ms")?,
                    from: row.try_get("state_before")?,
                    to: row.try_get("state_after")?,
                    cause: row.try_get("cause")?,
                    actor: row.try_get("actor")?,
                    reason: row.try_get("reason")?,
                })
            })
            .await
    }

    /// Changes of an application's aliases up to a time, newest first.
    pub async fn app_aliases(
        &self,
        app: &str,
        alias: Option<Alias>,
        at_ms: Option<i64>,
        limit: Option<i64>,
    ) -> Result<Vec<AppAliasRow>, Error> {
        Select::new("SELECT app, number, at_ms, alias, version, actor, reason FROM app_aliases WHERE true")
            .filter("app =", Some(app.to_owned()))?
            .filter("alias =", alias.map(Alias::name).map(str::to_owned))?
            .filter("at_ms <=", at_ms)?
            .first(&self.database, "number DESC", limit, |row| {
                Ok(AppAliasRow {
                    app: row.try_get("app")?,
                    number: row.try_get("number")?,
                    at_ms: row.try_get("at_ms")?,
                    alias: row.try_get("alias")?,
                    version: row.try_get("version")?,
                    actor: row.try_get("actor")?,
                    reason: row.try_get("reason")?,
                })
            })
            .await
    }

    /// What triggers did, newest first.
    pub async fn fires(&self, app: Option<&str>, limit: Option<i64>) -> Result<Vec<FireRow>, Error> {
        Select::new("SELECT app, number, at_ms, name, actor, skipped FROM fires WHERE true")
            .filter("app =", app.map(str::to_owned))?
            .first(&self.database, "at_ms DESC, number DESC", limit, |row| {
                Ok(FireRow {
                    app: row.try_get("app")?,
                    number: row.try_get("number")?,
                    at_ms: row.try_get("at_ms")?,
                    trigger: row.try_get("name")?,
                    actor: row.try_get("actor")?,
                    skipped: row.try_get("skipped")?,
                })
            })
            .await
    }

    /// States of applications as the tables have them, for tests against the core's own.
    pub async fn app_states(&self) -> Result<Vec<(String, State)>, Error> {
        let rows = sqlx::query("SELECT app, state FROM applications")
            .fetch_all(&mut *self.database.read().await?)
            .await?;
        let mut states = Vec::with_capacity(rows.len());
        for row in rows {
            let (app, state): (String, String) = (row.try_get("app")?, row.try_get("state")?);
            let known = State::named(&state);
            states.push((app, known.ok_or_else(|| Error::Damaged(format!("state {state:?} is not known")))?));
        }
        states.sort();
        Ok(states)
    }
}

async fn write_rows(write: &mut Write<'_>, rows: &[Row]) -> Result<(), Error> {
    let mut tables: BTreeMap<&'static str, Table> = BTreeMap::new();
    let mut put = |into: &'static Upsert, mut row: Vec<Value>| {
        let table = tables.entry(into.table).or_insert_with(|| Table { into, rows: BTreeMap::new() });
        let rest = row.split_off(into.key);
        table.rows.insert(row, rest);
    };
    for row in rows {
        let (table, row_values) = values(row);
        put(table, row_values);
        if let Row::Run(run) = row
            && (run.status.over() || run.attempt == 0)
        {
            artifact_values(run).for_each(|artifact| put(&ARTIFACTS, artifact));
        }
    }
    for Table { into, rows } in tables.into_values() {
        let whole = rows.into_iter().map(|(key, rest)| [key, rest].concat());
        into.write(write.connection(), whole.collect()).await?;
    }
    Ok(())
}

/// What is to be written into one table, by key: PostgreSQL refuses a statement that writes a key twice, so of several
/// the last counts.
struct Table {
    into: &'static Upsert,
    rows: BTreeMap<Vec<Value>, Vec<Value>>,
}

/// A column that holds JSON of ours.
fn body<T: serde::de::DeserializeOwned>(row: &AnyRow) -> Result<T, Error> {
    let text: String = row.try_get("body")?;
    serde_json::from_str(&text).map_err(|error| Error::Damaged(format!("a row of an application: {error}")))
}
