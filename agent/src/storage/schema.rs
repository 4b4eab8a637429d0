//! The schema, version by version.

use sqlx::{AssertSqlSafe, Row};

use super::Error;
use super::database::{Database, Dialect};

/// What leads from each version to the next; they are never changed, only added to.
const MIGRATIONS: [&str; 4] = [
    include_str!("schema/1.sql"),
    include_str!("schema/2.sql"),
    include_str!("schema/3.sql"),
    include_str!("schema/4.sql"),
];

/// The newest version.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// Brings the database to the newest version, whole or not at all. Who calls owns the database.
pub(super) async fn migrate(database: &Database) -> Result<(), Error> {
    let known = VERSION;
    let mut write = database.write().await?;
    sqlx::raw_sql("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT PRIMARY KEY)")
        .execute(write.connection())
        .await?;
    let found: i64 = sqlx::query("SELECT coalesce(max(version), 0) FROM schema_version")
        .fetch_one(write.connection())
        .await?
        .try_get(0)?;
    if found > known {
        return Err(Error::Newer { found, known });
    }
    for (version, migration) in (1..).zip(MIGRATIONS).skip(found as usize) {
        sqlx::raw_sql(AssertSqlSafe(spelt(migration, database.dialect))).execute(write.connection()).await?;
        sqlx::query("INSERT INTO schema_version (version) VALUES ($1)")
            .bind::<i64>(version)
            .execute(write.connection())
            .await?;
    }
    write.commit().await
}

/// In SQLite an `INTEGER PRIMARY KEY` is the row's own number, which saves a second tree.
fn spelt(migration: &str, dialect: Dialect) -> String {
    match dialect {
        Dialect::Sqlite => migration.replace("BIGINT PRIMARY KEY", "INTEGER PRIMARY KEY"),
        Dialect::Postgres => migration.to_owned(),
    }
}
