//! Checkpoints: their bytes as files named by their content, and what is known of them.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use remora_env::file::write_whole;
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};
use tokio::task::spawn_blocking;

use super::audit::{Who, append};
use super::error::check_texts;
use super::forget::Young;
use super::page::hex;
use super::{Error, Storage};

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
        let blobs = self.blobs.clone();
        let id = spawn_blocking(move || blobs.write(&bytes)).await.expect("writing a file does not panic")?;
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
        let blobs = self.blobs.clone();
        spawn_blocking(move || blobs.write(&bytes)).await.expect("writing a file does not panic")
    }

    /// The bytes with this SHA-256.
    pub async fn blob(&self, hash: &str) -> Result<Vec<u8>, Error> {
        if hash.len() != 64 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Error::Invalid(format!("hash: is {hash:?}, want 64 hexadecimal digits")));
        }
        let (blobs, hash) = (self.blobs.clone(), hash.to_owned());
        spawn_blocking(move || blobs.read(&hash)).await.expect("reading a file does not panic")
    }

    /// The bytes of a checkpoint, as they were uploaded.
    pub async fn policy_bytes(&self, id: &str) -> Result<Vec<u8>, Error> {
        let known = self.policy(id).await?;
        let id = known.ok_or_else(|| Error::Unknown(format!("no policy has the id {id:?}")))?.id;
        let blobs = self.blobs.clone();
        spawn_blocking(move || blobs.read(&id)).await.expect("reading a file does not panic")
    }
}

async fn find(connection: &mut AnyConnection, id: &str) -> Result<Option<Policy>, Error> {
    let query = "SELECT id, name, size, uploaded_at_ms, uploaded_by, note FROM policies WHERE id = $1";
    let row = sqlx::query(query).bind(id).fetch_optional(connection).await?;
    row.as_ref().map(policy).transpose()
}

/// Files named by the SHA-256 of what is in them.
#[derive(Clone, Debug)]
pub(super) struct Blobs {
    folder: PathBuf,
    pub young: Young,
}

impl Blobs {
    pub fn new(data: &Path) -> Blobs {
        Blobs { folder: data.join("blobs"), young: Young::default() }
    }

    /// No folder gets more than a share of all files.
    fn path(&self, id: &str) -> PathBuf {
        let (folder, file) = id.split_at(2);
        self.folder.join(folder).join(file)
    }

    /// Writes it, even over itself, which mends a damaged file.
    fn write(&self, bytes: &[u8]) -> Result<String, Error> {
        let id = hex(&Sha256::digest(bytes));
        self.young.add(&id);
        let path = self.path(&id);
        let folder = path.parent().expect("it lies in a folder");
        std::fs::create_dir_all(folder).map_err(Error::file(folder))?;
        write_whole(&path, |out| out.write_all(bytes)).map_err(Error::file(&path))?;
        // The names too are to survive a loss of power.
        for named in [folder, &self.folder] {
            File::open(named).and_then(|folder| folder.sync_all()).map_err(Error::file(named))?;
        }
        Ok(id)
    }

    /// Those that begin with this byte, in order.
    pub fn shelf(&self, first: u8) -> Result<Vec<String>, Error> {
        let name = format!("{first:02x}");
        let folder = self.folder.join(&name);
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::file(&folder))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let file = entry.map_err(Error::file(&folder))?.file_name();
            let id = format!("{name}{}", file.to_string_lossy());
            // What a crash left half written has another name.
            if id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                found.push(id);
            }
        }
        found.sort();
        Ok(found)
    }

    /// Removes it unless it was written not long ago; whether it did.
    pub fn remove(&self, id: &str) -> bool {
        self.young.unless(id, || std::fs::remove_file(self.path(id)).is_ok())
    }

    fn read(&self, id: &str) -> Result<Vec<u8>, Error> {
        let path = self.path(id);
        let bytes = std::fs::read(&path).map_err(Error::file(&path))?;
        if hex(&Sha256::digest(&bytes)) != id {
            return Err(Error::Damaged(format!(
                "{} does not hold what its name says; upload it again",
                path.display()
            )));
        }
        Ok(bytes)
    }
}
