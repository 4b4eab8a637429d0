//! What is forgotten, and what never is.

use std::collections::BTreeSet;
use std::time::Duration;

use remora_agent::appcore::core::Version;
use remora_agent::appcore::rows::Row;
use remora_agent::appcore::run::{Blob, Run, RunKind, Status};
use remora_agent::storage::{AppBatch, Error, RunFilter, RunsKept, Storage};

use super::{Place, everywhere, who};

/// A run that ended at its number's time, with these files.
fn over(app: &str, number: u32, files: &[&Blob]) -> Row {
    let run = Run::new(&format!("{app}.{number}"), app, RunKind::Execute);
    let outputs = files.iter().map(|blob| (*blob).clone()).collect();
    let at_ms = i64::from(number);
    Row::Run(Box::new(Run {
        status: Status::Succeeded,
        queued_ms: at_ms,
        ended_ms: Some(at_ms),
        outputs,
        ..run
    }))
}

async fn keep(storage: &Storage, rows: Vec<Row>) {
    storage.record_apps(&AppBatch { rows, ..AppBatch::default() }).await.unwrap();
}

async fn put(storage: &Storage, text: &str) -> Blob {
    let hash = storage.put_blob(text.as_bytes().to_vec()).await.unwrap();
    Blob { name: text.to_owned(), hash, bytes: text.len() as u64 }
}

async fn runs(storage: &Storage, app: &str) -> Vec<i64> {
    let filter = RunFilter { app: Some(app.to_owned()), limit: Some(1000), ..RunFilter::default() };
    storage.runs(&filter).await.unwrap().into_iter().rev().map(|run| run.queued_ms).collect()
}

fn all(app: &str) -> RunsKept {
    RunsKept { app: app.to_owned(), last: None, since_ms: None, besides: Vec::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_over_a_limit_are_forgotten_oldest_first() {
    everywhere(async |place| {
        let storage = place.open().await;
        keep(&storage, (1..=20).map(|number| over("a", number, &[])).collect()).await;
        keep(&storage, (1..=5).map(|number| over("ab", number, &[])).collect()).await;
        let under_way = Run { status: Status::Running, ..Run::new("a.21", "a", RunKind::Execute) };
        keep(&storage, vec![Row::Run(Box::new(under_way))]).await;
        let forget = async |kept: RunsKept, most| storage.forget_runs(&kept, most).await.unwrap();
        assert_eq!(forget(all("a"), 100).await, 0);
        assert_eq!(forget(RunsKept { last: Some(20), ..all("a") }, 100).await, 0);
        assert_eq!(forget(RunsKept { last: Some(15), ..all("a") }, 2).await, 2);
        assert_eq!(runs(&storage, "a").await, [&[0][..], &(3..=20).collect::<Vec<_>>()].concat());
        assert_eq!(forget(RunsKept { since_ms: Some(6), ..all("a") }, 100).await, 3);
        let both =
            RunsKept { last: Some(4), since_ms: Some(10), besides: vec!["a.7".to_owned()], ..all("a") };
        assert_eq!(forget(both.clone(), 100).await, 10);
        assert_eq!(runs(&storage, "a").await, [0, 7, 17, 18, 19, 20]);
        assert_eq!(forget(both, 100).await, 0);
        assert_eq!(forget(RunsKept { last: Some(1), since_ms: Some(100), ..all("a") }, 100).await, 5);
        assert_eq!(runs(&storage, "a").await, [0], "it is under way");
        assert_eq!(runs(&storage, "ab").await, [1, 2, 3, 4, 5], "another's");
        storage.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_runs_than_a_transaction_takes_are_forgotten() {
    everywhere(async |place| {
        let storage = place.open().await;
        for from in [1, 501, 1001] {
            keep(&storage, (from..from + 500).map(|number| over("a", number, &[])).collect()).await;
        }
        let kept = RunsKept { last: Some(10), ..all("a") };
        assert_eq!(storage.forget_runs(&kept, 10_000).await.unwrap(), 1490);
        assert_eq!(runs(&storage, "a").await, (1491..=1500).collect::<Vec<_>>());
        storage.close().await;
    })
    .await;
}

async fn there(storage: &Storage, blob: &Blob) -> bool {
    match storage.blob(&blob.hash).await {
        Ok(bytes) => bytes == blob.name.as_bytes(),
        Err(Error::File { .. } | Error::Bucket { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

async fn forget_blobs(storage: &Storage, needed: &[&Blob], grace: Duration) -> u64 {
    let needed: BTreeSet<_> = needed.iter().map(|blob| blob.hash.clone()).collect();
    storage.forget_blobs(&needed, grace, 1000).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_files_that_nobody_refers_to_are_forgotten() {
    everywhere(async |place| {
        let storage = place.open().await;
        let names = ["output", "input", "model", "code", "waits", "orphan", "another orphan"];
        let mut blobs = Vec::new();
        for name in names {
            blobs.push(put(&storage, name).await);
        }
        let [output, input, model, code, waits, orphan, another] = blobs.as_slice() else { unreachable!() };
        let policy = storage.upload_policy("p", b"policy".to_vec(), "", &who(1)).await.unwrap();
        let queued = Run { inputs: vec![input.clone()], ..Run::new("a.2", "a", RunKind::Execute) };
        let version = Version {
            number: 1,
            definition: 1,
            model: Some(model.clone()),
            run: None,
            at_ms: 1,
            actor: "ada".to_owned(),
            verdict: None,
        };
        let definition = Row::Definition {
            app: "a".to_owned(),
            number: 1,
            manifest: String::new(),
            code: Some(code.hash.clone()),
            at_ms: 1,
            actor: "ada".to_owned(),
        };
        let version = Row::Version { app: "a".to_owned(), version: Box::new(version) };
        keep(&storage, vec![over("a", 1, &[output]), Row::Run(Box::new(queued)), version, definition]).await;
        // Whoever wrote them may be about to say what for.
        assert_eq!(forget_blobs(&storage, &[waits], Duration::from_secs(60)).await, 0);
        assert_eq!(storage.forget_blobs(&BTreeSet::new(), Duration::from_secs(60), 0).await.unwrap(), 0);
        assert_eq!(forget_blobs(&storage, &[waits, another], Duration::ZERO).await, 1);
        assert!(!there(&storage, orphan).await);
        for blob in [output, input, model, code, waits, another] {
            assert!(there(&storage, blob).await, "{}", blob.name);
        }
        assert_eq!(storage.policy_bytes(&policy.id).await.unwrap(), b"policy");
        // An old one that is written once more is young again.
        storage.close().await;
        let storage = place.open().await;
        put(&storage, "another orphan").await;
        assert_eq!(forget_blobs(&storage, &[waits], Duration::from_secs(60)).await, 0);
        assert_eq!(forget_blobs(&storage, &[], Duration::ZERO).await, 2);
        assert!(!there(&storage, another).await && !there(&storage, waits).await);
        storage.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_rows_and_files_leaves_nothing_behind_and_takes_nothing_away() {
    everywhere(async |place: &Place| {
        let storage = place.open().await;
        let (own, shared) = (put(&storage, "its own").await, put(&storage, "shared").await);
        keep(&storage, vec![over("a", 1, &[&own, &shared]), over("a", 2, &[&shared])]).await;
        let kept = RunsKept { last: Some(1), ..all("a") };
        assert_eq!(storage.forget_runs(&kept, 100).await.unwrap(), 1);
        // The rows are gone, the files are not: as if it had crashed here.
        drop(storage);
        let storage = loop {
            // The lock goes with the last task that holds the database.
            match Storage::open(place.options()).await {
                Ok(storage) => break storage,
                Err(Error::FolderInUse { .. } | Error::DatabaseInUse) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
        assert!(there(&storage, &own).await && there(&storage, &shared).await);
        // What an earlier process wrote needs no grace.
        assert_eq!(forget_blobs(&storage, &[], Duration::from_secs(3600)).await, 1);
        assert!(!there(&storage, &own).await && there(&storage, &shared).await);
        assert_eq!(forget_blobs(&storage, &[], Duration::from_secs(3600)).await, 0);
        storage.close().await;
    })
    .await;
}
