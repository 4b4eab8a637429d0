//! The audit log: who did what, or tried to. Each entry carries a hash over its contents and the hash before it, so
//! that whoever changes or removes one has to recompute all that follow; and whoever noted a hash elsewhere sees that.

use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::Row;
use sqlx::any::AnyRow;

use super::database::Write;
use super::error::check_texts;
use super::page::{Page, Paging, Select};
use super::{Error, Role, Storage};

/// Who does something, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    pub at_ms: i64,
    pub actor: String,
    /// Nothing for somebody without a token.
    pub role: Option<Role>,
}

/// Something that was done, or tried.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditEntry {
    pub sequence: i64,
    pub who: Who,
    /// What, as `alias.set`.
    pub action: String,
    /// To what: the alias, the token's id, …
    pub subject: String,
    pub details: Value,
    /// Whether it was.
    pub allowed: bool,
}

/// Which entries to read; nothing set means all.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    pub actor: Option<String>,
    pub action: Option<String>,
    pub subject: Option<String>,
    /// Not before.
    pub from_ms: Option<i64>,
    /// Before.
    pub until_ms: Option<i64>,
}

/// The newest entry. Noted outside the database, it shows whether the log was cut off at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditHead {
    pub sequence: i64,
    /// Nothing before the first entry.
    pub hash: Vec<u8>,
}

/// What checking the log found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Intact(AuditHead),
    /// The first entry that is missing or was changed.
    Broken {
        sequence: i64,
        why: &'static str,
    },
}

const SELECT: &str =
    "SELECT sequence, at_ms, actor, role, action, subject, details, allowed, hash FROM audit WHERE true";
/// Entries that are checked at a time.
const CHECKED: i64 = 1000;

/// A row as it is stored, which is what the hash covers.
struct Stored {
    sequence: i64,
    at_ms: i64,
    actor: String,
    role: Option<String>,
    action: String,
    subject: String,
    details: String,
    allowed: i64,
    hash: Vec<u8>,
}

impl Stored {
    fn read(row: &AnyRow) -> Result<Stored, Error> {
        Ok(Stored {
            sequence: row.try_get("sequence")?,
            at_ms: row.try_get("at_ms")?,
            actor: row.try_get("actor")?,
            role: row.try_get("role")?,
            action: row.try_get("action")?,
            subject: row.try_get("subject")?,
            details: row.try_get("details")?,
            allowed: row.try_get("allowed")?,
            hash: row.try_get("hash")?,
        })
    }

    /// Texts go in with their lengths, so that nothing can move from one to the next.
    fn hash_after(&self, before: &[u8]) -> Vec<u8> {
        let mut hash = Sha256::new_with_prefix(before);
        for number in [self.sequence, self.at_ms, self.allowed, self.role.is_some().into()] {
            hash.update(number.to_be_bytes());
        }
        let role = self.role.as_deref().unwrap_or("");
        for text in [&self.actor, role, &self.action, &self.subject, &self.details] {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        hash.finalize().to_vec()
    }

    fn into_entry(self) -> Result<AuditEntry, Error> {
        let Stored { sequence, at_ms, actor, action, subject, .. } = self;
        let damaged = |what: String| Error::Damaged(format!("audit entry {sequence}: {what}"));
        let role =
            self.role.as_deref().map(Role::stored).transpose().map_err(|error| damaged(error.to_string()))?;
        let details =
            serde_json::from_str(&self.details).map_err(|error| damaged(format!("details: {error}")))?;
        let who = Who { at_ms, actor, role };
        Ok(AuditEntry { sequence, who, action, subject, details, allowed: self.allowed != 0 })
    }
}

/// Adds an entry, within the transaction that does what it tells.
pub(super) async fn append(
    write: &mut Write<'_>,
    who: &Who,
    (action, subject): (&str, &str),
    details: &Value,
    allowed: bool,
) -> Result<i64, Error> {
    let head = newest(write).await?;
    let mut stored = Stored {
        sequence: head.sequence + 1,
        at_ms: who.at_ms,
        actor: who.actor.clone(),
        role: who.role.map(|role| role.name().to_owned()),
        action: action.to_owned(),
        subject: subject.to_owned(),
        details: details.to_string(),
        allowed: allowed.into(),
        hash: Vec::new(),
    };
    stored.hash = stored.hash_after(&head.hash);
    let sequence = stored.sequence;
    sqlx::query(
        "INSERT INTO audit (sequence, at_ms, actor, role, action, subject, details, allowed, hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(sequence)
    .bind(stored.at_ms)
    .bind(stored.actor)
    .bind(stored.role)
    .bind(stored.action)
    .bind(stored.subject)
    .bind(stored.details)
    .bind(stored.allowed)
    .bind(stored.hash)
    .execute(write.connection())
    .await?;
    Ok(sequence)
}

async fn newest(write: &mut Write<'_>) -> Result<AuditHead, Error> {
    let query = "SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1";
    match sqlx::query(query).fetch_optional(write.connection()).await? {
        Some(row) => Ok(AuditHead { sequence: row.try_get(0)?, hash: row.try_get(1)? }),
        None => Ok(AuditHead { sequence: 0, hash: Vec::new() }),
    }
}

impl Storage {
    /// Notes something that changed nothing here, such as an attempt that was not allowed.
    pub async fn audit(
        &self,
        who: &Who,
        action: &str,
        subject: &str,
        details: &Value,
        allowed: bool,
    ) -> Result<i64, Error> {
        check_texts(&[("actor", &who.actor), ("action", action), ("subject", subject)])?;
        let mut write = self.database.write().await?;
        let sequence = append(&mut write, who, (action, subject), details, allowed).await?;
        write.commit().await?;
        Ok(sequence)
    }

    pub async fn audit_log(&self, filter: AuditFilter, paging: &Paging) -> Result<Page<AuditEntry>, Error> {
        Select::new(SELECT)
            .filter("actor =", filter.actor)?
            .filter("action =", filter.action)?
            .filter("subject =", filter.subject)?
            .filter("at_ms >=", filter.from_ms)?
            .filter("at_ms <", filter.until_ms)?
            .page(&self.database, paging, |row| Stored::read(row)?.into_entry())
            .await
    }

    /// Recomputes all hashes, over the log as it is at one moment.
    pub async fn verify_audit_log(&self) -> Result<Verdict, Error> {
        let mut connection = self.database.read().await?;
        let row =
            sqlx::query("SELECT coalesce(max(sequence), 0) FROM audit").fetch_one(&mut *connection).await?;
        let newest: i64 = row.try_get(0)?;
        let mut head = AuditHead { sequence: 0, hash: Vec::new() };
        while head.sequence < newest {
            let rows = Select::new(SELECT)
                .filter("sequence >", Some(head.sequence))?
                .filter("sequence <=", Some(head.sequence + CHECKED))?
                .rows(&mut connection, Stored::read)
                .await?;
            let sequence = head.sequence + 1;
            if rows.is_empty() {
                return Ok(Verdict::Broken { sequence, why: "it is missing" });
            }
            for (sequence, stored) in (sequence..).zip(rows) {
                if stored.sequence != sequence {
                    return Ok(Verdict::Broken { sequence, why: "it is missing" });
                }
                if stored.hash_after(&head.hash) != stored.hash {
                    return Ok(Verdict::Broken { sequence, why: "its contents do not fit its hash" });
                }
                head = AuditHead { sequence, hash: stored.hash };
            }
        }
        Ok(Verdict::Intact(head))
    }
}
