//! Whatever happens in whatever order: a restart finds what an in-memory model holds, and open decisions stay readable.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::{Just, Strategy};
use proptest::test_runner::{Config, TestRunner};
use proptest::{collection, prop_oneof};
use remora_agent::storage::{Entry, JournalFilter, Keep, Kind, Paging, Storage};

use super::{Place, about, entry, everywhere, fill};

#[derive(Clone, Debug)]
enum Step {
    Register(u8),
    Change(u8),
    Decide(u8),
    /// Ends the oldest open decision.
    End(u8),
    Remove(u8),
    Snapshot(u8),
    /// Forgets what is older than so many steps.
    Compact(i64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let cluster = || 0u8..3;
    prop_oneof![
        2 => cluster().prop_map(Step::Register),
        6 => cluster().prop_map(Step::Change),
        6 => cluster().prop_map(Step::Decide),
        4 => cluster().prop_map(Step::End),
        1 => cluster().prop_map(Step::Remove),
        2 => cluster().prop_map(Step::Snapshot),
        2 => (0i64..30).prop_map(Step::Compact),
        1 => Just(Step::Restart),
    ]
}

/// A live cluster.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    snapshot: Option<Vec<u8>>,
    since: Vec<Entry>,
    /// Open decisions and all their entries.
    open: BTreeMap<String, Vec<Entry>>,
}

/// Plays the steps on storage and model alike; the case's number keeps the names of clusters apart.
async fn play(place: &Place, case: u32, steps: &[Step]) {
    let mut storage = place.open().await;
    let mut models: BTreeMap<String, Model> = BTreeMap::new();
    let name = |cluster: u8| format!("{case}-{cluster}");
    for (at_ms, step) in (1..).zip(steps) {
        let recorder = storage.recorder();
        let (cluster, kind) = match step {
            Step::Register(cluster) => (name(*cluster), Kind::Registered),
            Step::Change(cluster) => (name(*cluster), Kind::Changed),
            Step::Decide(cluster) => (name(*cluster), Kind::Decided),
            Step::End(cluster) => (name(*cluster), Kind::Ended),
            Step::Remove(cluster) => (name(*cluster), Kind::Removed),
            Step::Snapshot(cluster) => {
                let body = format!("as at {at_ms}").into_bytes();
                recorder.snapshot(&name(*cluster), at_ms, body.clone()).unwrap();
                if let Some(model) = models.get_mut(&name(*cluster)) {
                    (model.snapshot, model.since) = (Some(body), Vec::new());
                }
                continue;
            }
            Step::Compact(keep) => {
                recorder.flush().await.unwrap();
                storage.compact(Keep::Millis(*keep), at_ms).await.unwrap();
                check(&storage, case, &models).await;
                continue;
            }
            Step::Restart => {
                storage.close().await;
                storage = place.open().await;
                check(&storage, case, &models).await;
                continue;
            }
        };
        let mut happened = entry(&cluster, kind, at_ms, format!("{step:?} at {at_ms}"));
        if kind == Kind::Registered {
            models.insert(cluster.clone(), Model::default());
        }
        // What is not there neither decides nor changes.
        let Some(model) = models.get_mut(&cluster) else { continue };
        match kind {
            Kind::Decided => happened.decision_id = Some(format!("{cluster}-{at_ms}")),
            Kind::Ended => {
                let Some((decision, _)) = model.open.pop_first() else { continue };
                happened.decision_id = Some(decision);
            }
            Kind::Registered | Kind::Changed | Kind::Disputed | Kind::Removed => {}
        }
        if let (Kind::Decided, Some(decision)) = (kind, &happened.decision_id) {
            model.open.insert(decision.clone(), vec![happened.clone()]);
        }
        model.since.push(happened.clone());
        if kind == Kind::Removed {
            models.remove(&cluster);
        }
        recorder.record(happened).unwrap();
    }
    storage.recorder().flush().await.unwrap();
    check(&storage, case, &models).await;
    storage.close().await;
}

async fn check(storage: &Storage, case: u32, models: &BTreeMap<String, Model>) {
    let mut found = BTreeMap::new();
    let ours = format!("{case}-");
    for restored in
        storage.restore().await.unwrap().into_iter().filter(|found| found.cluster.starts_with(&ours))
    {
        let mut open = BTreeMap::new();
        for decision in models.get(&restored.cluster).into_iter().flat_map(|model| model.open.keys()) {
            let entries = storage.decision(decision).await.unwrap();
            open.insert(decision.clone(), entries.into_iter().map(|recorded| recorded.entry).collect());
        }
        let since = restored.entries.into_iter().map(|recorded| recorded.entry).collect();
        let snapshot = restored.snapshot.map(|snapshot| snapshot.body);
        found.insert(restored.cluster, Model { snapshot, since, open });
    }
    assert_eq!(&found, models);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_finds_what_a_model_holds() {
    everywhere(async |place| {
        let mut runner = TestRunner::new(Config { cases: 24, ..Config::default() });
        let case = std::cell::Cell::new(0);
        tokio::task::block_in_place(|| {
            let played = runner.run(&collection::vec(step(), 1..80), |steps| {
                case.set(case.get() + 1);
                tokio::runtime::Handle::current().block_on(play(place, case.get(), &steps));
                Ok(())
            });
            played.unwrap();
        });
    })
    .await;
}

/// Entries by sequence number.
async fn kept(storage: &Storage) -> BTreeSet<i64> {
    let page = storage
        .journal(JournalFilter::default(), &Paging { limit: 1000, ..Paging::default() })
        .await
        .unwrap();
    page.items.into_iter().map(|recorded| recorded.sequence).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_keeps_what_somebody_needs() {
    everywhere(async |place| {
        let storage = place.open().await;
        let recorder = storage.recorder();
        fill(&recorder, 9).await; // 1 registers, 2 to 10 change it at 1 to 9 ms
        recorder.record(about("open", Kind::Decided, 10)).unwrap(); // 11
        recorder.record(about("over", Kind::Decided, 11)).unwrap(); // 12
        recorder.record(about("over", Kind::Ended, 12)).unwrap(); // 13
        assert_eq!(storage.compact(Keep::Forever, i64::MAX).await.unwrap(), 0);
        recorder.flush().await.unwrap();
        assert_eq!(
            storage.compact(Keep::Millis(0), 100).await.unwrap(),
            0,
            "all of it is needed by a restart"
        );
        recorder.snapshot("hall", 13, b"hall at 13".into()).unwrap();
        recorder.record(entry("hall", Kind::Changed, 14, "")).unwrap(); // 14
        recorder.record(entry("yard", Kind::Changed, 15, "")).unwrap(); // 15
        recorder.flush().await.unwrap();
        assert_eq!(storage.compact(Keep::Millis(95), 100).await.unwrap(), 4, "those at 1 to 4 ms");
        assert_eq!(storage.compact(Keep::Millis(0), 100).await.unwrap(), 7);
        assert_eq!(kept(&storage).await, [1, 11, 14, 15].into());
        recorder.record(entry("hall", Kind::Removed, 16, "")).unwrap();
        recorder.record(entry("yard", Kind::Changed, 17, "")).unwrap();
        recorder.flush().await.unwrap();
        storage.compact(Keep::Millis(0), 100).await.unwrap();
        assert_eq!(kept(&storage).await, [17].into(), "the newest says which number is next");
        storage.close().await;
        let storage = place.open().await;
        assert_eq!(storage.recorder().commit(entry("yard", Kind::Changed, 18, "")).await.unwrap(), 18);
        storage.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_carried_out_again_begins_before_it() {
    everywhere(async |place| {
        let storage = place.open().await;
        let recorder = storage.recorder();
        assert_eq!(storage.base("hall", 1).await.unwrap(), None);
        fill(&recorder, 9).await; // 1 registers, 2 to 10 change it at 1 to 9 ms
        let base =
            async |entry| storage.base("hall", entry).await.unwrap().map(|base| (base.sequence, base.body));
        assert_eq!(base(5).await, Some((0, None)));
        recorder.snapshot("hall", 9, b"hall at 9".into()).unwrap();
        recorder.record(entry("hall", Kind::Changed, 10, "")).unwrap(); // 11
        recorder.flush().await.unwrap();
        assert_eq!(base(11).await, Some((10, Some(b"hall at 9".to_vec()))));
        assert_eq!(base(10).await, Some((0, None)), "the snapshot has it already");
        recorder.snapshot("hall", 10, b"hall at 10".into()).unwrap();
        recorder.record(entry("hall", Kind::Changed, 11, "")).unwrap(); // 12
        recorder.flush().await.unwrap();
        assert_eq!(base(12).await, Some((11, Some(b"hall at 10".to_vec()))));
        assert_eq!(base(11).await, Some((10, Some(b"hall at 9".to_vec()))));
        assert_eq!(base(3).await, Some((10, Some(b"hall at 9".to_vec()))), "the earliest that is kept");
        let mut since = storage.export_after("hall", Some(10));
        let mut numbers = Vec::new();
        while let Some(recorded) = since.next().await.unwrap() {
            numbers.push(recorded.sequence);
        }
        assert_eq!(numbers, [11, 12]);
        storage.close().await;
    })
    .await;
}
