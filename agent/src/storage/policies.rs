//! Checkpoints: their bytes as files named by their content, and what is known of them.

use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::audit::{Who, append};
use super::blobs::is_id;
use super::error::check_texts;
use super::{Error, Storage};
use crate::evaluation::Evaluated;

/// A checkpoint that was uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// SHA-256 of its bytes, in hexadecimal digits.
    pub id: String,
    pub name: String,
    /// Bytes.
    pub size: i64,
    pub uploaded_at_ms: i64,
    pub uploaded_by: String,
    pub note: String,
}

fn policy(row: &AnyRow) -> Result<Policy, Error> {
    Ok(Policy {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        size: row.try_get("size")?,
        uploaded_at_ms: row.try_get("uploaded_at_ms")?,
        uploaded_by: row.try_get("uploaded_by")?,
        note: row.try_get("note")?,
    })
}

impl Storage {
    /// Keeps a checkpoint. What is there already stays as it is and is returned.
    pub async fn upload_policy(
        &self,
        name: &str,
        bytes: Vec<u8>,
        note: &str,
        who: &Who,
    ) -> Result<Policy, Error> {
        check_texts(&[("name", name), ("note", note), ("actor", &who.actor)])?;
        let size = bytes.len() as i64;
        // The bytes come first: a file without a row harms nobody.
        let id = self.blobs.write(bytes).await?;
        let mut write = self.database.write().await?;
        if let Some(known) = find(write.connection(), &id).await? {
            write.cancel().await?;
            return Ok(known);
        }
        sqlx::query(
            "INSERT INTO policies (id, name, size, uploaded_at_ms, uploaded_by, note) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(&id)
        .bind(name)
        .bind(size)
        .bind(who.at_ms)
        .bind(&who.actor)
        .bind(note)
        .execute(write.connection())
        .await?;
        let details = json!({ "name": name, "bytes": size, "note": note });
        append(&mut write, who, ("policy.upload", &id), &details, true).await?;
        write.commit().await?;
        let (name, note, uploaded_by) = (name.to_owned(), note.to_owned(), who.actor.clone());
        Ok(Policy { id, name, size, uploaded_at_ms: who.at_ms, uploaded_by, note })
    }

    /// Keeps what a checkpoint came to, in place of what was kept before. It is known by the id that it has of itself: the
    /// first 16 hexadecimal digits of the SHA-256 of its bytes.
    pub async fn set_evaluation(&self, id: &str, evaluated: &Evaluated, who: &Who) -> Result<(), Error> {
        check_texts(&[("policy", id), ("actor", &who.actor)])?;
        let body = serde_json::to_string(evaluated).expect("figures become JSON");
        let mut write = self.database.write().await?;
        sqlx::query(
            "INSERT INTO evaluations (policy, body) VALUES ($1, $2)
             ON CONFLICT (policy) DO UPDATE SET body = excluded.body",
        )
        .bind(id)
        .bind(body)
        .execute(write.connection())
        .await?;
        let details = json!({ "called": evaluated.called, "results": evaluated.results.len() });
        append(&mut write, who, ("policy.evaluate", id), &details, true).await?;
        write.commit().await
    }

    /// What checkpoints came to, by these ids, as JSON of [`Evaluated`].
    pub async fn evaluations(&self) -> Result<Vec<(String, String)>, Error> {
        let rows = sqlx::query("SELECT policy, body FROM evaluations")
            .fetch_all(&mut *self.database.read().await?)
            .await?;
        let read = |row: &AnyRow| -> Result<(String, String), Error> {
            Ok((row.try_get("policy")?, row.try_get("body")?))
        };
        let mut all: Vec<_> = rows.iter().map(read).collect::<Result<_, _>>()?;
        all.sort();
        Ok(all)
    }

    pub async fn policy(&self, id: &str) -> Result<Option<Policy>, Error> {
        check_texts(&[("policy", id)])?;
        find(&mut *self.database.read().await?, id).await
    }

    /// All of them, newest first.
    pub async fn policies(&self) -> Result<Vec<Policy>, Error> {
        let query = "SELECT id, name, size, uploaded_at_ms, uploaded_by, note FROM policies";
        let rows = sqlx::query(query).fetch_all(&mut *self.database.read().await?).await?;
        let mut policies: Vec<_> = rows.iter().map(policy).collect::<Result<_, _>>()?;
        policies.sort_by(|a, b| b.uploaded_at_ms.cmp(&a.uploaded_at_ms).then_with(|| a.id.cmp(&b.id)));
        Ok(policies)
    }

    /// Keeps bytes under their SHA-256, which it returns.
    pub async fn put_blob(&self, bytes: Vec<u8>) -> Result<String, Error> {
        self.blobs.write(bytes).await
    }

    /// The bytes with this SHA-256.
    pub async fn blob(&self, hash: &str) -> Result<Vec<u8>, Error> {
        if !is_id(hash) {
            return Err(Error::Invalid(format!("hash: is {hash:?}, want 64 hexadecimal digits")));
        }
        self.blobs.read(hash).await
    }

    /// The bytes of a checkpoint, as they were uploaded.
    pub async fn policy_bytes(&self, id: &str) -> Result<Vec<u8>, Error> {
        let known = self.policy(id).await?;
        let id = known.ok_or_else(|| Error::Unknown(format!("no policy has the id {id:?}")))?.id;
        self.blobs.read(&id).await
    }
}

async fn find(connection: &mut AnyConnection, id: &str) -> Result<Option<Policy>, Error> {
    let query = "SELECT id, name, size, uploaded_at_ms, uploaded_by, note FROM policies WHERE id = $1";
    let row = sqlx::query(query).bind(id).fetch_optional(connection).await?;
    row.as_ref().map(policy).transpose()
}
