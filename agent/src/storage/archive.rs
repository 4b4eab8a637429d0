//! How much room things take.

use std::path::{Path, PathBuf};

use sqlx::Row;
use tokio::task::spawn_blocking;

use super::database::Dialect;
use super::{Error, Storage, schema};

/// Files that are looked at for the size of the data folder.
const MOST_FILES: u64 = 500_000;

/// What runs read and wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Archive {
    /// By name.
    pub apps: Vec<ArchivedApp>,
    /// Files that runs refer to, each content once, and their bytes.
    pub files: i64,
    pub bytes: i64,
}

/// The same of one application; its bytes are as if nothing were shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivedApp {
    pub app: String,
    pub runs: i64,
    pub artifacts: i64,
    pub bytes: i64,
}

/// Where things are kept, without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub folder: PathBuf,
    /// The database for people.
    pub database: String,
    /// Where large files lie, for people.
    pub blobs: String,
    pub schema: i64,
}

/// Files and bytes below a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub files: u64,
    pub bytes: u64,
    /// There are more, which were not looked at.
    pub more: bool,
}

impl Storage {
    pub async fn archive(&self) -> Result<Archive, Error> {
        let mut connection = self.database.read().await?;
        let rows = sqlx::query(
            "SELECT runs.app AS app, COUNT(DISTINCT runs.id) AS runs, COUNT(artifacts.run) AS artifacts, \
             CAST(COALESCE(SUM(artifacts.bytes), 0) AS BIGINT) AS bytes \
             FROM runs LEFT JOIN artifacts ON artifacts.run = runs.id GROUP BY runs.app",
        )
        .fetch_all(&mut *connection)
        .await?;
        let mut apps = Vec::with_capacity(rows.len());
        for row in &rows {
            apps.push(ArchivedApp {
                app: row.try_get("app")?,
                runs: row.try_get("runs")?,
                artifacts: row.try_get("artifacts")?,
                bytes: row.try_get("bytes")?,
            });
        }
        apps.sort_by(|a, b| a.app.cmp(&b.app));
        let row = sqlx::query(
            "SELECT COUNT(*) AS files, CAST(COALESCE(SUM(bytes), 0) AS BIGINT) AS bytes \
             FROM (SELECT hash, MAX(bytes) AS bytes FROM artifacts GROUP BY hash) AS contents",
        )
        .fetch_one(&mut *connection)
        .await?;
        Ok(Archive { apps, files: row.try_get("files")?, bytes: row.try_get("bytes")? })
    }

    pub fn place(&self) -> Place {
        let database = match (self.database.dialect, &self.options.database_url) {
            (Dialect::Sqlite, _) => "SQLite in the data folder".to_owned(),
            (Dialect::Postgres, url) => format!("PostgreSQL, {}", told(url.as_deref().unwrap_or_default())),
        };
        let blobs = self.options.blobs_url.clone().unwrap_or_else(|| "in the data folder".to_owned());
        Place { folder: self.options.folder.clone(), database, blobs, schema: schema::VERSION }
    }

    /// What the data folder takes.
    pub async fn size(&self) -> Size {
        let folder = self.options.folder.clone();
        spawn_blocking(move || size(&folder)).await.expect("reading a folder does not panic")
    }
}

/// A URL without what may be secret: the password, and all that is behind a question mark. Where it cannot be told what
/// belongs to a password, only its kind is told.
fn told(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "somewhere".to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if path.contains('@') {
        return format!("{scheme}://…");
    }
    let path = path.split(['?', '#']).next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((who, host)) => {
            let user = who.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}@{host}{path}")
        }
        None => format!("{scheme}://{authority}{path}"),
    }
}

/// What cannot be read counts as nothing: it may be on its way out.
fn size(folder: &Path) -> Size {
    let (mut size, mut open) = (Size::default(), vec![folder.to_owned()]);
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten().filter_map(Result::ok) {
            let Ok(about) = entry.metadata() else { continue };
            if size.files >= MOST_FILES {
                return Size { more: true, ..size };
            }
            if about.is_dir() {
                open.push(entry.path());
            } else if about.is_file() {
                size.files += 1;
                size.bytes += about.len();
            }
        }
    }
    size
}

#[cfg(test)]
mod tests {
    use super::told;

    #[test]
    fn urls_are_told_without_secrets() {
        let cases = [
            ("postgres://remora:s3cret@db.local:5432/remora", "postgres://remora@db.local:5432/remora"),
            ("postgres://remora:a@b@db/remora?password=x&sslkey=y", "postgres://remora@db/remora"),
            ("postgres://remora:a/b@db/remora", "postgres://…"),
            ("postgres://remora:a?b@db/remora", "postgres://…"),
            ("postgres://db/remora?password=a@b", "postgres://…"),
            ("postgres://db/remora?password=x", "postgres://db/remora"),
            ("secret", "somewhere"),
        ];
        for (url, expected) in cases {
            assert_eq!(told(url), expected);
        }
    }
}
