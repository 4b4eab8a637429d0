//! Applications in the database: what is recorded leads to the same state again, and answers questions.

use remora_agent::appcore::core::{Alias, By, Core, Input, Version};
use remora_agent::appcore::manifest::Manifest;
use remora_agent::appcore::owner;
use remora_agent::appcore::rows::Row;
use remora_agent::appcore::run::{Blob, Run, RunKind, Status};
use remora_agent::appcore::states::{Cause, State};
use remora_agent::storage::{AppBatch, AppEntry, JournalFilter, Paging, RunFilter, Storage};

use super::{everywhere, fill};

const MANIFEST: &str = "
name = 'a'
[learn]
command = ['learn']
[[trigger]]
name = 'data'
on.data = { count = 1000000 }
";

fn by() -> By {
    By::new("ada", "to see")
}

/// A core and what it says, recorded.
struct Kept {
    core: Core,
    last: i64,
}

impl Kept {
    async fn begin(storage: &Storage) -> Kept {
        let mut kept = Kept { core: Core::default(), last: 0 };
        let manifest = Box::new(Manifest::read(MANIFEST).unwrap());
        let register = Input::Register { manifest, code: None, by: by() };
        kept.record(storage, &[register, Input::Enable { app: "a".to_owned(), by: by() }], false).await;
        kept
    }

    async fn record(&mut self, storage: &Storage, inputs: &[Input], snapshot: bool) {
        let mut batch = AppBatch::default();
        for input in inputs {
            self.last += 1;
            batch.rows.extend(self.core.handle(self.last, input).unwrap().rows);
            let body = serde_json::to_string(input).unwrap();
            batch.entries.push(AppEntry { sequence: self.last, at_ms: self.last, body });
        }
        batch.snapshot = snapshot.then(|| AppEntry {
            sequence: self.last,
            at_ms: self.last,
            body: serde_json::to_string(&self.core).unwrap(),
        });
        storage.record_apps(&batch).await.unwrap();
    }

    /// What a restart finds is what was recorded.
    async fn check(&self, storage: &Storage, entries: usize) {
        let before = storage.apps_before().await.unwrap();
        assert_eq!(before.entries.len(), entries);
        let (core, last, _) = owner::replay(before.snapshot, &before.entries).unwrap();
        assert_eq!(
            (core, last),
            (Core::restored(&serde_json::to_string(&self.core).unwrap()).unwrap(), self.last)
        );
    }
}

fn notices(from: usize, until: usize) -> Vec<Input> {
    let notice = |number: usize| Input::Notice {
        app: "a".to_owned(),
        key: format!("n{number}"),
        items: 1,
        bytes: 2,
        inputs: Vec::new(),
        by: by(),
    };
    (from..until).map(notice).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_leads_to_the_same_state() {
    everywhere(async |place| {
        let storage = place.open().await;
        assert_eq!(storage.apps_before().await.unwrap().entries, []);
        let mut kept = Kept::begin(&storage).await;
        kept.check(&storage, 2).await;
        // More than one statement takes.
        kept.record(&storage, &notices(0, 450), false).await;
        kept.check(&storage, 452).await;
        // A snapshot takes the place of what it includes, and another that one's.
        kept.record(&storage, &notices(450, 460), true).await;
        kept.check(&storage, 0).await;
        kept.record(&storage, &notices(460, 470), false).await;
        kept.check(&storage, 10).await;
        storage.close().await;
        let storage = place.open().await;
        kept.check(&storage, 10).await;
        kept.record(&storage, &[], true).await;
        kept.check(&storage, 0).await;
        for known in ["n0", "n449", "n469"] {
            assert!(storage.notice_known("a", known).await.unwrap(), "{known}");
        }
        assert!(!storage.notice_known("a", "n470").await.unwrap());
        assert!(!storage.notice_known("b", "n0").await.unwrap());
        assert_eq!(storage.app_states().await.unwrap(), [("a".to_owned(), State::Idle)]);
        storage.close().await;
    })
    .await;
}

fn run(app: &str, number: u32, kind: RunKind, status: Status) -> Run {
    let id = format!("{app}.{number}");
    Run { status, queued_ms: i64::from(number), ..Run::new(&id, app, kind) }
}

async fn keep(storage: &Storage, rows: Vec<Row>) {
    storage.record_apps(&AppBatch { rows, ..AppBatch::default() }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_takes_the_place_of_the_one_before() {
    everywhere(async |place| {
        let storage = place.open().await;
        let row = |status, reason: &str| {
            let reason = Some(reason.to_owned());
            Row::Run(Box::new(Run { reason, ..run("a", 1, RunKind::Learn, status) }))
        };
        let rows = vec![row(Status::Queued, "x"), row(Status::Running, "y"), row(Status::Paused, "z")];
        keep(&storage, rows).await;
        assert_eq!(storage.run("a.1").await.unwrap().unwrap().status, Status::Paused);
        // No database of ours refuses what a command wrote.
        keep(&storage, vec![row(Status::Failed, "a zero: \0, a quote: ', and more: \u{1f41f}")]).await;
        let kept = storage.run("a.1").await.unwrap().unwrap();
        assert_eq!(kept.reason.unwrap(), "a zero: \0, a quote: ', and more: \u{1f41f}");
        assert_eq!(storage.runs(&RunFilter::default()).await.unwrap().len(), 1);
        let version = |number: u32, model: Option<Blob>| Row::Version {
            app: "a".to_owned(),
            version: Box::new(Version {
                number,
                definition: 1,
                model,
                run: None,
                at_ms: 5,
                actor: "ada".to_owned(),
                verdict: None,
            }),
        };
        let model = Blob { name: "model".to_owned(), hash: "0a".to_owned(), bytes: 7 };
        keep(&storage, vec![version(1, None), version(2, None), version(1, Some(model.clone()))]).await;
        let versions = storage.versions("a", None, None).await.unwrap();
        assert_eq!(versions.iter().map(|version| version.number).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(versions[1].model, Some(model));
        assert_eq!(storage.versions("a", Some(1), None).await.unwrap(), versions[1..]);
        for (app, number) in [("a", 3), ("b", 1)] {
            assert!(storage.versions(app, Some(number), None).await.unwrap().is_empty(), "{app} {number}");
        }
        storage.close().await;
    })
    .await;
}

fn step(app: &str, number: u64) -> Row {
    Row::Transition {
        app: app.to_owned(),
        number,
        at_ms: 10 * number as i64,
        from: State::Idle,
        to: State::Waking,
        cause: Cause::Requested,
        actor: "ada".to_owned(),
        reason: format!("reason {number}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_find_the_newest_that_fit() {
    everywhere(async |place| {
        let storage = place.open().await;
        let statuses = [Status::Succeeded, Status::Failed, Status::Running];
        let row = |number: u32| {
            let app = if number.is_multiple_of(4) { "b" } else { "a" };
            let kind = RunKind::ALL[number as usize % 3];
            Row::Run(Box::new(run(app, number, kind, statuses[number as usize % 3])))
        };
        keep(&storage, (1..=240).map(row).collect()).await;
        let found = async |filter: RunFilter| {
            let runs = storage.runs(&filter).await.unwrap();
            runs.into_iter().map(|run| run.queued_ms).collect::<Vec<_>>()
        };
        assert_eq!(found(RunFilter::default()).await, (141..=240).rev().collect::<Vec<_>>());
        let of = RunFilter { app: Some("b".to_owned()), limit: Some(3), ..RunFilter::default() };
        assert_eq!(found(of.clone()).await, [240, 236, 232]);
        let learnt = RunFilter { kind: Some(RunKind::Learn), status: Some(Status::Failed), ..of.clone() };
        assert_eq!(found(learnt).await, [232, 220, 208]);
        assert_eq!(found(RunFilter { before_ms: Some(8), ..of.clone() }).await, [4]);
        assert_eq!(found(RunFilter { app: Some("c".to_owned()), ..of }).await, [0; 0]);
        for limit in [0, -1, 1001] {
            let refused = storage.runs(&RunFilter { limit: Some(limit), ..RunFilter::default() }).await;
            let told = format!("limit: is {limit}, want 1 to 1000");
            assert_eq!(refused.unwrap_err().to_string(), told);
        }
        keep(&storage, vec![step("a", 1), step("a", 2), step("b", 1)]).await;
        let told = |rows: Vec<remora_agent::storage::TransitionRow>| {
            rows.into_iter().map(|row| (row.app, row.reason)).collect::<Vec<_>>()
        };
        let pair = |app: &str, reason: &str| (app.to_owned(), reason.to_owned());
        let all = told(storage.transitions(Some("a"), None).await.unwrap());
        assert_eq!(all, [pair("a", "reason 2"), pair("a", "reason 1")]);
        assert_eq!(told(storage.transitions(None, Some(1)).await.unwrap()), [pair("a", "reason 2")]);
        let named = |number: u64, alias| Row::Alias {
            app: "a".to_owned(),
            number,
            at_ms: 10 * number as i64,
            alias,
            version: Some(number as u32),
            actor: "ada".to_owned(),
            reason: String::new(),
        };
        let champion = Alias::Champion;
        keep(&storage, vec![named(1, champion), named(2, Alias::Shadow), named(3, champion)]).await;
        let then = storage.app_aliases("a", Some(champion), Some(29), None).await.unwrap();
        assert_eq!(then.iter().map(|change| change.version).collect::<Vec<_>>(), [Some(1)]);
        assert_eq!(storage.app_aliases("a", None, None, Some(2)).await.unwrap().len(), 2);
        let fired = |number: u64, skipped: Option<&str>| Row::Fired {
            app: "a".to_owned(),
            number,
            at_ms: 10 * number as i64,
            trigger: "data".to_owned(),
            actor: "appcore".to_owned(),
            skipped: skipped.map(str::to_owned),
        };
        keep(&storage, vec![fired(1, None), fired(2, Some("busy"))]).await;
        let fires = storage.fires(Some("a"), Some(1)).await.unwrap();
        assert_eq!(fires[0].skipped.as_deref(), Some("busy"));
        assert!(storage.fires(Some("b"), None).await.unwrap().is_empty());
        storage.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn capitals_are_small_letters_in_every_script() {
    everywhere(async |place| {
        let storage = place.open().await;
        let reasons = ["Ärger mit Halle 7", "ΑΘΗΝΑ 50%", "İzmir", "300 \u{212a} \"cold\"", "a_b!c"];
        let row = |(index, reason): (usize, &&str)| {
            let reason = Some((*reason).to_owned());
            Row::Run(Box::new(Run { reason, ..run("a", index as u32, RunKind::Learn, Status::Failed) }))
        };
        keep(&storage, reasons.iter().enumerate().map(row).collect()).await;
        let found = async |matching: &str| {
            let filter = RunFilter { matching: Some(matching.to_owned()), ..RunFilter::default() };
            let runs = storage.runs(&filter).await.unwrap();
            runs.into_iter().map(|run| run.queued_ms).collect::<Vec<_>>()
        };
        for (matching, expected) in [
            ("ärger", 0),
            ("ÄRGER MIT", 0),
            ("αθηνα 50%", 1),
            ("İZM", 2),
            ("mir", 2),
            ("300 k", 3),
            ("K \"COLD\"", 3),
            ("A_B!C", 4),
        ] {
            assert_eq!(found(matching).await, [expected], "{matching}");
        }
        // The database finds more than there is: signs of LIKE, and any letter beyond ASCII.
        for nobody in ["örger", "50_", "a%c", "axb!c", "αθηνb"] {
            assert_eq!(found(nobody).await, [0; 0], "{nobody}");
        }
        storage.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_whole_is_not_written() {
    everywhere(async |place| {
        let storage = place.open().await;
        let kept = Kept::begin(&storage).await;
        place.tamper("ALTER TABLE transitions RENAME TO gone").await;
        let entry = AppEntry { sequence: 3, at_ms: 3, body: "\"time\"".to_owned() };
        let notice = Row::Notice {
            app: "a".to_owned(),
            key: "half".to_owned(),
            at_ms: 3,
            items: 1,
            bytes: 1,
            actor: "ada".to_owned(),
        };
        let batch = AppBatch { entries: vec![entry], rows: vec![notice, step("a", 9)], snapshot: None };
        storage.record_apps(&batch).await.unwrap_err();
        assert!(!storage.notice_known("a", "half").await.unwrap());
        kept.check(&storage, 2).await;
        place.tamper("ALTER TABLE gone RENAME TO transitions").await;
        storage.record_apps(&batch).await.unwrap();
        assert!(storage.notice_known("a", "half").await.unwrap());
        assert_eq!(storage.apps_before().await.unwrap().entries.len(), 3);
        storage.close().await;
    })
    .await;
}

/// What a database of the first version has not.
const AFTER_FIRST: &str = "
    DROP TABLE app_journal; DROP TABLE app_snapshot; DROP TABLE applications; DROP TABLE definitions;
    DROP TABLE versions; DROP TABLE app_aliases; DROP TABLE triggers; DROP TABLE fires; DROP TABLE notices;
    DROP TABLE runs; DROP TABLE artifacts; DROP TABLE transitions;
    ALTER TABLE snapshots DROP COLUMN before_sequence; ALTER TABLE snapshots DROP COLUMN before_at_ms;
    ALTER TABLE snapshots DROP COLUMN before_body;
    DROP TABLE evaluations;
    DELETE FROM schema_version WHERE version > 1;
";

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_the_first_version_keeps_what_it_has() {
    everywhere(async |place| {
        let storage = place.open().await;
        fill(&storage.recorder(), 5).await;
        let entries = async |storage: &Storage| {
            storage.journal(JournalFilter::default(), &Paging::default()).await.unwrap().items
        };
        let before = entries(&storage).await;
        assert_eq!(before.len(), 6);
        storage.close().await;
        place.tamper(AFTER_FIRST).await;
        let storage = place.open().await;
        assert_eq!(entries(&storage).await, before);
        assert_eq!(storage.restore().await.unwrap().len(), 1);
        let kept = Kept::begin(&storage).await;
        kept.check(&storage, 2).await;
        storage.close().await;
        // The second time there is nothing to bring up to date.
        let storage = place.open().await;
        kept.check(&storage, 2).await;
        assert_eq!(entries(&storage).await, before);
        storage.close().await;
    })
    .await;
}
