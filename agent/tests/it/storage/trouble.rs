//! Databases that fail: full disks, foreign locks, lost connections, foreign writers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use remora_agent::storage::{Kind, Options, Refused, Storage};
use sqlx::Connection;

use super::{Place, entry, everywhere, fill, until};

/// All numbers from 1 on are there, once each and in order.
async fn holds_all(storage: &Storage, changes: u32) {
    let entries = storage.restore().await.unwrap().remove(0).entries;
    let bodies: Vec<_> = entries[1..].iter().map(|recorded| recorded.entry.body.clone()).collect();
    let expected: Vec<_> = (1..=changes).map(|number| number.to_be_bytes().to_vec()).collect();
    assert!(bodies == expected, "{} entries, want {changes}", bodies.len());
    let sequences: Vec<_> = entries.iter().map(|recorded| recorded.sequence).collect();
    assert!(sequences.is_sorted_by(|a, b| a + 1 == *b), "{sequences:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_full_refuses_and_says_so() {
    everywhere(async |place| {
        let storage = Storage::open(Options { room_kib: 8, ..place.options() }).await.unwrap();
        let recorder = storage.recorder();
        let large = recorder.record(entry("hall", Kind::Changed, 0, vec![0; 8 << 10])).unwrap_err();
        assert_eq!(large.to_string(), "body: 9 KiB, and the journal takes 7 KiB at most");
        let zero = recorder.record(entry("ha\0ll", Kind::Changed, 0, "")).unwrap_err();
        assert!(zero.to_string().starts_with("cluster: has a zero byte"), "{zero}");
        // No disk makes room for them as fast as they come.
        let taken: Vec<_> =
            (0..1000).map(|_| recorder.record(entry("hall", Kind::Changed, 0, vec![0; 4000]))).collect();
        assert!(taken.iter().any(|taken| matches!(taken, Err(Refused::Full { .. }))));
        recorder.flush().await.unwrap();
        assert_eq!(recorder.health().waiting_kib, 0);
        recorder.record(entry("hall", Kind::Changed, 0, "")).unwrap();
        storage.close().await;
        let closed = recorder.commit(entry("hall", Kind::Changed, 0, "")).await.unwrap_err();
        assert_eq!(closed.to_string(), "the journal is closed: the service stops");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_database_is_waited_for() {
    let place = Place::sqlite();
    let storage = place.open().await;
    let recorder = storage.recorder();
    fill(&recorder, 10).await;
    let mut other = place.connection().await;
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let durable = recorder.commit(entry("hall", Kind::Changed, 11, 11u32.to_be_bytes()));
    until("trouble", || recorder.health().trouble.is_some()).await;
    assert_eq!(recorder.health().trouble.unwrap().reason, "the database fails: database is locked");
    assert_eq!(recorder.health().durable, 11);
    holds_all(&storage, 10).await;
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    assert_eq!(durable.await.unwrap(), 12);
    assert_eq!(recorder.health().trouble, None);
    holds_all(&storage, 11).await;
}

/// A disk of 4 MB, for those who may mount one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: &Path) -> Option<SmallDisk> {
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", "size=4m", "remora-test"]).arg(folder).status();
        mounted.is_ok_and(|status| status.success()).then(|| SmallDisk(folder.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_survived() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(folder.path()) else {
        eprintln!("skipped: only root may mount a small disk");
        return;
    };
    let options = Options { room_kib: 64, ..Options::new(folder.path()) };
    let storage = Storage::open(options).await.unwrap();
    let recorder = storage.recorder();
    fill(&recorder, 10).await;
    let ballast = folder.path().join("ballast");
    // It ends with an error once the disk is full.
    std::fs::write(&ballast, vec![0; 8 << 20]).unwrap_err();
    let mut taken = 10;
    let refused = loop {
        let next: u32 = taken + 1;
        match recorder.record(entry("hall", Kind::Changed, 0, next.to_be_bytes())) {
            Ok(()) => taken = next,
            Err(refused @ Refused::Full { trouble: Some(_), .. }) => break refused,
            // The writer has not met the end of the disk yet.
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    assert!(
        refused.to_string().contains("because the database fails: database or disk is full"),
        "{refused}"
    );
    std::fs::remove_file(&ballast).unwrap();
    recorder.flush().await.unwrap();
    assert_eq!(recorder.health().trouble, None);
    holds_all(&storage, taken).await;
    storage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_connections_lose_and_double_nothing() {
    let Some(place) = Place::postgres().await else { return };
    let storage = place.open().await;
    let recorder = storage.recorder();
    fill(&recorder, 0).await;
    let mut other = place.connection().await;
    let mut taken = 0;
    for round in 0..20 {
        for _ in 0..500 {
            taken += 1;
            recorder.record(entry("hall", Kind::Changed, 0, u32::to_be_bytes(taken))).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(round * 3 % 40)).await;
        let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()";
        sqlx::query(kill).fetch_all(&mut other).await.unwrap();
    }
    recorder.flush().await.unwrap();
    assert_eq!(recorder.health().trouble, None);
    holds_all(&storage, taken).await;
    storage.close().await;
    other.close().await.unwrap();
    place.remove().await;
}

/// As after a commit whose answer was lost.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_already_is_not_written_again() {
    everywhere(async |place| {
        let storage = place.open().await;
        let recorder = storage.recorder();
        fill(&recorder, 1).await;
        place
            .tamper("INSERT INTO journal SELECT 3, 2, cluster, 'changed', NULL, body FROM journal WHERE sequence = 1")
            .await;
        assert_eq!(recorder.commit(entry("hall", Kind::Changed, 2, "hall")).await.unwrap(), 3);
        assert_eq!(recorder.commit(entry("hall", Kind::Changed, 3, "cd")).await.unwrap(), 4);
        assert_eq!(storage.restore().await.unwrap()[0].entries.len(), 4);
        storage.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_writer_closes_the_journal() {
    everywhere(async |place| {
        let storage = place.open().await;
        let recorder = storage.recorder();
        fill(&recorder, 1).await;
        place
            .tamper("INSERT INTO journal SELECT 3, 2, cluster, 'removed', NULL, body FROM journal WHERE sequence = 1")
            .await;
        let refused = recorder.commit(entry("hall", Kind::Changed, 2, "ab")).await.unwrap_err();
        let reason = "stored data is damaged: another process has written to it";
        assert_eq!(refused, Refused::Closed(reason.to_owned()));
        assert_eq!(recorder.health().closed.as_deref(), Some(reason));
        assert_eq!(recorder.record(entry("hall", Kind::Changed, 2, "ab")).unwrap_err(), refused);
        storage.close().await;
    })
    .await;
}
