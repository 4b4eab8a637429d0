//! Keeping house: what `[keep]` of a manifest lets go, and what stays because something still needs it.

use std::sync::Arc;
use std::time::Duration;

use remora_agent::appcore::core::{Alias, By, Input};
use remora_agent::appcore::housekeeping::{Forgotten, tidy};
use remora_agent::appcore::manifest::Manifest;
use remora_agent::appcore::owner::{self, Handle};
use remora_agent::appcore::run::{Blob, End, Left, RunKind, Usage};
use remora_agent::service::Clock;
use remora_agent::storage::{Options, RunFilter, Storage};

const DAY_MS: i64 = 86_400_000;

fn manifest(keep: &str) -> Input {
    let text = format!(
        "name = 'a'
        [learn]
        command = ['learn']
        [keep]
        {keep}
        [[trigger]]
        name = 'data'
        on.data = {{}}"
    );
    let manifest = Box::new(Manifest::read(&text).unwrap());
    Input::Register { manifest, code: None, by: by() }
}

fn by() -> By {
    By::new("ada", "")
}

async fn put(handle: &Handle, name: &str, text: &str) -> Blob {
    let hash = handle.storage().put_blob(text.as_bytes().to_vec()).await.unwrap();
    Blob { name: name.to_owned(), hash, bytes: text.len() as u64 }
}

/// Data comes.
async fn notice(handle: &Handle, number: u32) {
    let inputs = vec![put(handle, "data", &format!("data {number}")).await];
    let (app, key) = ("a".to_owned(), format!("n{number}"));
    handle.tell(Input::Notice { app, key, items: 1, bytes: 1, inputs, by: by() }).await.unwrap();
}

/// The run with this number learns from it.
async fn learn(handle: &Handle, number: u32) {
    let outputs = vec![
        put(handle, "model", &format!("model {number}")).await,
        put(handle, "log", &format!("log {number}")).await,
    ];
    let left = Left { outputs, usage: Usage::default() };
    let end = End::Success { scores: None };
    handle.tell(Input::Ended { run: format!("a.{number}"), attempt: 1, end, left }).await.unwrap();
}

async fn there(handle: &Handle, text: &str) -> bool {
    use sha2::{Digest, Sha256};
    let hash: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
    handle.storage().blob(&hash).await.is_ok()
}

async fn runs(handle: &Handle) -> Vec<String> {
    let filter = RunFilter { kind: Some(RunKind::Learn), ..RunFilter::default() };
    handle.storage().runs(&filter).await.unwrap().into_iter().rev().map(|run| run.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_need_not_be_kept_goes_and_what_is_needed_stays() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Arc::new(Storage::open(Options::new(folder.path())).await.unwrap());
    let clock = Clock::real();
    let (handle, _effects, owning) = owner::start(storage, clock.clone()).await.unwrap();
    handle.tell(manifest("runs = 1")).await.unwrap();
    handle.tell(Input::Enable { app: "a".to_owned(), by: by() }).await.unwrap();
    for number in 1..=5 {
        notice(&handle, number).await;
        learn(&handle, number).await;
    }
    // One that is under way, and data that waits for its end.
    notice(&handle, 6).await;
    notice(&handle, 7).await;
    let (app, version) = ("a".to_owned(), Some(2));
    handle.tell(Input::SetAlias { app, alias: Alias::Shadow, version, by: by() }).await.unwrap();
    put(&handle, "", "of nobody").await;

    let now_ms = clock.now_ms();
    let hour = Duration::from_secs(3600);
    assert_eq!(tidy(&handle, now_ms, hour).await.unwrap(), Forgotten { runs: 3, files: 0 });
    // The first made a version that has an alias, the fifth is the last that is over.
    assert_eq!(runs(&handle).await, ["a.1", "a.5", "a.6"]);
    assert!(there(&handle, "log 2").await, "it goes the next time");
    // What they were given, their logs, and what nobody ever referred to; versions keep their models.
    let forgotten = tidy(&handle, now_ms, Duration::ZERO).await.unwrap();
    assert_eq!(forgotten, Forgotten { runs: 0, files: 7 });
    for number in 1..=5 {
        let kept = [1, 5].contains(&number);
        assert!(there(&handle, &format!("model {number}")).await);
        assert_eq!(there(&handle, &format!("log {number}")).await, kept, "{number}");
        assert_eq!(there(&handle, &format!("data {number}")).await, kept, "{number}");
    }
    assert!(there(&handle, "data 6").await && there(&handle, "data 7").await);
    assert!(!there(&handle, "of nobody").await);
    // What waited is learnt from as ever.
    learn(&handle, 6).await;
    learn(&handle, 7).await;
    assert_eq!(runs(&handle).await, ["a.1", "a.5", "a.6", "a.7"]);

    // By age alone; without either, all is kept.
    handle.tell(manifest("days = 2")).await.unwrap();
    assert_eq!(tidy(&handle, now_ms + DAY_MS, hour).await.unwrap(), Forgotten::default());
    handle.tell(manifest("")).await.unwrap();
    assert_eq!(tidy(&handle, now_ms + 1000 * DAY_MS, hour).await.unwrap().runs, 0);
    handle.tell(manifest("days = 2")).await.unwrap();
    assert_eq!(tidy(&handle, now_ms + 3 * DAY_MS, hour).await.unwrap().runs, 3);
    assert_eq!(runs(&handle).await, ["a.1"], "what is registered is the candidate now");
    handle.stop().await;
    owning.await.unwrap();
}
