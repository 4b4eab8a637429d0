//! Files named by the SHA-256 of what is in them: in the data folder, or in a bucket of an S3-compatible store.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt, RetryConfig};
use remora_env::file::write_whole;
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::spawn_blocking;
use tokio_rustls::rustls::crypto::ring;

use super::Error;
use super::page::hex;

/// All of them; clones are the same ones.
#[derive(Clone, Debug)]
pub(super) struct Blobs {
    place: Place,
    pub young: Young,
}

#[derive(Clone, Debug)]
enum Place {
    Folder(Folder),
    Bucket(Bucket),
}

impl Blobs {
    /// In this data folder unless there is a bucket's URL.
    ///
    /// # Errors
    /// When the bucket cannot be written.
    pub async fn open(data: &Path, url: Option<&str>) -> Result<Blobs, Error> {
        let place = match url {
            None => Place::Folder(Folder(data.join("blobs"))),
            Some(url) => Place::Bucket(Bucket::open(url).await?),
        };
        Ok(Blobs { place, young: Young::default() })
    }

    /// Keeps bytes under their SHA-256, which it returns. They are written even over themselves, which mends damage.
    pub async fn write(&self, bytes: Vec<u8>) -> Result<String, Error> {
        let (id, bytes) = blocking(move || (hex(&Sha256::digest(&bytes)), bytes)).await;
        self.young.add(&id).await;
        match &self.place {
            Place::Folder(folder) => {
                let (folder, id) = (folder.clone(), id.clone());
                blocking(move || folder.write(&id, &bytes)).await?;
            }
            Place::Bucket(bucket) => bucket.write(&id, bytes).await?,
        }
        Ok(id)
    }

    pub async fn read(&self, id: &str) -> Result<Vec<u8>, Error> {
        let (place, bytes) = match &self.place {
            Place::Folder(folder) => {
                let path = folder.path(id);
                (path.display().to_string(), blocking(move || folder_read(&path)).await?)
            }
            Place::Bucket(bucket) => (bucket.told(&bucket.key(id)), bucket.read(id).await?),
        };
        let (found, bytes) = blocking(move || (hex(&Sha256::digest(&bytes)), bytes)).await;
        if found != id {
            return Err(Error::Damaged(format!("{place} does not hold what its name says; upload it again")));
        }
        Ok(bytes)
    }

    /// Those that begin with this byte, in order.
    pub async fn shelf(&self, first: u8) -> Result<Vec<String>, Error> {
        let name = format!("{first:02x}");
        let files = match &self.place {
            Place::Folder(folder) => {
                let (folder, name) = (folder.clone(), name.clone());
                blocking(move || folder.shelf(&name)).await?
            }
            Place::Bucket(bucket) => bucket.shelf(&name).await?,
        };
        let ids = files.into_iter().map(|file| format!("{name}{file}"));
        // What a crash left half written has another name.
        let mut ids: Vec<_> = ids.filter(|id| is_id(id)).collect();
        ids.sort();
        Ok(ids)
    }

    /// Removes it unless it was written not long ago; whether it did.
    pub async fn remove(&self, id: &str) -> bool {
        let remove = async || match &self.place {
            Place::Folder(folder) => {
                let path = folder.path(id);
                blocking(move || std::fs::remove_file(path).is_ok()).await
            }
            Place::Bucket(bucket) => bucket.store.delete(&bucket.key(id)).await.is_ok(),
        };
        self.young.unless(id, remove).await
    }
}

/// Whether it is a SHA-256 in hexadecimal digits.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    spawn_blocking(work).await.expect("work on files does not panic")
}

fn folder_read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(Error::file(path))
}

/// Files, a folder for each first byte of their names, so that no folder gets more than a share of them.
#[derive(Clone, Debug)]
struct Folder(PathBuf);

impl Folder {
    fn path(&self, id: &str) -> PathBuf {
        let (shelf, file) = id.split_at(2);
        self.0.join(shelf).join(file)
    }

    fn write(&self, id: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.path(id);
        let shelf = path.parent().expect("it lies in a folder");
        std::fs::create_dir_all(shelf).map_err(Error::file(shelf))?;
        write_whole(&path, |out| out.write_all(bytes)).map_err(Error::file(&path))?;
        // The names too are to survive a loss of power.
        for named in [shelf, &self.0] {
            File::open(named).and_then(|folder| folder.sync_all()).map_err(Error::file(named))?;
        }
        Ok(())
    }

    fn shelf(&self, name: &str) -> Result<Vec<String>, Error> {
        let shelf = self.0.join(name);
        let entries = match std::fs::read_dir(&shelf) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::file(&shelf))?,
        };
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            Ok(entry.map_err(Error::file(&shelf))?.file_name().to_string_lossy().into_owned())
        };
        entries.map(name).collect()
    }
}

/// Objects under the same names as files would have, after a prefix.
#[derive(Clone, Debug)]
struct Bucket {
    store: Arc<AmazonS3>,
    /// As it was given, for people.
    url: String,
    prefix: Key,
}

impl Bucket {
    /// The bucket of `s3://bucket/prefix`. Where it is and who we are say the standard variables `AWS_*`.
    async fn open(url: &str) -> Result<Bucket, Error> {
        let wrong = |why: String| Error::Invalid(format!("blobs: {why}; want s3://bucket/prefix"));
        let path = url.strip_prefix("s3://").ok_or_else(|| wrong(format!("is {url:?}")))?;
        let (name, prefix) = path.split_once('/').unwrap_or((path, ""));
        if name.is_empty() {
            return Err(wrong("names no bucket".to_owned()));
        }
        let prefix = Key::parse(prefix.trim_end_matches('/')).map_err(|error| wrong(error.to_string()))?;
        // The library behind it takes whichever is installed; another one is as good.
        let _ = ring::default_provider().install_default();
        let retry =
            RetryConfig { max_retries: 5, retry_timeout: Duration::from_secs(60), ..Default::default() };
        let told = url.to_owned();
        let store = AmazonS3Builder::from_env().with_bucket_name(name).with_retry(retry).build();
        let store = store.map_err(|source| Error::Bucket { url: told.clone(), source: Box::new(source) })?;
        let bucket = Bucket { store: Arc::new(store), url: told, prefix };
        // Better now than at the end of the first run.
        bucket.put(&bucket.prefix.clone().join("remora"), b"blobs of a Remora service\n".to_vec()).await?;
        Ok(bucket)
    }

    fn key(&self, id: &str) -> Key {
        let (shelf, file) = id.split_at(2);
        self.prefix.clone().join(shelf).join(file)
    }

    fn told(&self, key: &Key) -> String {
        format!("{} ({key})", self.url)
    }

    fn failed(&self, source: object_store::Error) -> Error {
        Error::Bucket { url: self.url.clone(), source: Box::new(source) }
    }

    async fn put(&self, key: &Key, bytes: Vec<u8>) -> Result<(), Error> {
        self.store.put(key, bytes.into()).await.map(drop).map_err(|error| self.failed(error))
    }

    async fn write(&self, id: &str, bytes: Vec<u8>) -> Result<(), Error> {
        self.put(&self.key(id), bytes).await
    }

    async fn read(&self, id: &str) -> Result<Vec<u8>, Error> {
        let got = self.store.get(&self.key(id)).await.map_err(|error| self.failed(error))?;
        Ok(got.bytes().await.map_err(|error| self.failed(error))?.into())
    }

    async fn shelf(&self, name: &str) -> Result<Vec<String>, Error> {
        let shelf = self.prefix.clone().join(name);
        let objects = self.store.list(Some(&shelf));
        let files = objects.map_ok(|object| object.location.filename().unwrap_or_default().to_owned());
        files.try_collect().await.map_err(|error| self.failed(error))
    }
}

/// What was written not long ago, and when: whoever wrote it may be about to refer to it. An earlier process, whose
/// intentions ended with it, needs no such patience.
#[derive(Clone, Debug, Default)]
pub(super) struct Young(Arc<Mutex<BTreeMap<String, Instant>>>);

impl Young {
    async fn map(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.0.lock().await
    }

    /// Before it is written, even over itself.
    async fn add(&self, id: &str) {
        self.map().await.insert(id.to_owned(), Instant::now());
    }

    pub async fn grow_up(&self, grace: Duration) {
        self.map().await.retain(|_, written| written.elapsed() < grace);
    }

    /// Does something unless it is young, and lets nobody write meanwhile.
    async fn unless(&self, id: &str, remove: impl AsyncFnOnce() -> bool) -> bool {
        let young = self.map().await;
        !young.contains_key(id) && remove().await
    }
}
