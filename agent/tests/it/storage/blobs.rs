//! Large files in a bucket. What holds of them anywhere is tested beside what refers to them.

use std::path::Path;

use object_store::ObjectStoreExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Key;
use remora_agent::storage::{Options, Storage};

use super::bucket;

/// The bucket of a URL past us, and what stands before the names of its objects.
pub fn store(url: &str) -> (AmazonS3, Key) {
    let (name, prefix) = url.strip_prefix("s3://").unwrap().split_once('/').unwrap_or_default();
    (AmazonS3Builder::from_env().with_bucket_name(name).build().unwrap(), Key::parse(prefix).unwrap())
}

/// SQLite with large files at a URL.
async fn open(folder: &Path, url: &str) -> Result<Storage, String> {
    let options = Options { blobs_url: Some(url.to_owned()), ..Options::new(folder) };
    Storage::open(options).await.map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn large_files_are_objects_named_by_their_content() {
    let Some(bucket) = bucket() else { return };
    let (folder, url) = (tempfile::tempdir().unwrap(), format!("{bucket}/objects/{}", std::process::id()));
    let storage = open(folder.path(), &url).await.unwrap();
    let big = vec![7; 20 << 20];
    let ids = [storage.put_blob(big.clone()).await.unwrap(), storage.put_blob(Vec::new()).await.unwrap()];
    // As `printf '' | sha256sum` says.
    assert_eq!(ids[1], "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    storage.close().await;
    assert!(!folder.path().join("blobs").exists());
    let (objects, prefix) = store(&url);
    let object = objects.get(&prefix.clone().join(&ids[0][..2]).join(&ids[0][2..])).await.unwrap();
    assert_eq!(object.bytes().await.unwrap(), big);
    let storage = open(folder.path(), &format!("{url}/")).await.unwrap();
    assert_eq!(storage.blob(&ids[0]).await.unwrap(), big, "after a restart");
    assert_eq!(storage.blob(&ids[1]).await.unwrap(), b"");
    let gone = storage.blob(&"0".repeat(64)).await.unwrap_err().to_string();
    assert!(gone.contains(&url), "{gone}");
    storage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_cannot_be_used_is_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    for url in ["http://bucket", "bucket", "s3://", "s3:///prefix", "s3://bucket/a//b"] {
        let refused = open(folder.path(), url).await.unwrap_err();
        assert!(refused.starts_with("blobs: ") && refused.contains("want s3://bucket/prefix"), "{refused}");
    }
    if bucket().is_some() {
        let refused = open(folder.path(), "s3://no-such-bucket/remora").await.unwrap_err();
        assert!(refused.starts_with("cannot use s3://no-such-bucket/remora: "), "{refused}");
    }
}
