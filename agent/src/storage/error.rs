//! What can go wrong with stored data.

use std::path::{Path, PathBuf};

/// Why storage did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the data folder {folder} is used by another process{}: stop it, or choose another folder", by(.pid))]
    FolderInUse { folder: PathBuf, pid: String },
    #[error("the database is used by another service: stop that one, or choose another database")]
    DatabaseInUse,
    #[error(
        "the database has schema version {found}, this program knows versions up to {known}: use a newer program"
    )]
    Newer { found: i64, known: i64 },
    #[error(
        "database url: {0}; want postgres://user:password@host/database, or none for SQLite in the data folder"
    )]
    Url(String),
    #[error("cannot use {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("cannot use {url}: {source}")]
    Bucket { url: String, source: Box<object_store::Error> },
    /// It may go away by itself: the disk is full, the connection is lost.
    #[error("the database fails: {}", told(.0))]
    Database(sqlx::Error),
    #[error("the database does not answer within {0} s")]
    Slow(u64),
    #[error("stored data is damaged: {0}")]
    Damaged(String),
    /// What was asked is wrong, and would be wrong again.
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Unknown(String),
}

impl Error {
    pub(super) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::File { path: path.to_owned(), source }
    }
}

impl From<sqlx::Error> for Error {
    /// A row that cannot be read will not get better by asking again.
    fn from(error: sqlx::Error) -> Error {
        match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Error::Damaged(error.to_string()),
            error => Error::Database(error),
        }
    }
}

fn by(pid: &str) -> String {
    if pid.is_empty() { String::new() } else { format!(" ({pid})") }
}

/// What the database itself says, without the library's own preface.
fn told(error: &sqlx::Error) -> String {
    error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

/// PostgreSQL stores no zero byte in text, so none is taken anywhere.
pub(super) fn check_texts(texts: &[(&str, &str)]) -> Result<(), Error> {
    match texts.iter().find(|(_, text)| text.contains('\0')) {
        Some((field, _)) => {
            Err(Error::Invalid(format!("{field}: has a zero byte, which no name or text may have")))
        }
        None => Ok(()),
    }
}
