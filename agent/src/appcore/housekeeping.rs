//! Once an hour: runs that an application need not keep are forgotten, and files that nothing refers to any more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::core::{App, Core};
use super::owner::{Denied, Handle};
use crate::service::{Clock, DAY_MS};
use crate::storage::RunsKept;

/// How long after the start the first time comes, and then the next.
const FIRST: Duration = Duration::from_secs(60);
const EVERY: Duration = Duration::from_secs(3600);
/// Files that were written within this time may be about to be referred to.
pub const GRACE: Duration = Duration::from_secs(3600);
/// Most of one time; the next goes on.
const MOST_RUNS: u64 = 100_000;
const MOST_FILES: u64 = 100_000;

/// What was forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    pub runs: u64,
    pub files: u64,
}

/// Keeps house until AppCore is gone.
pub async fn keep_house(handle: Handle, clock: Clock) {
    let mut pause = FIRST;
    loop {
        tokio::select! {
            () = sleep(pause) => {}
            () = handle.stopped() => return,
        }
        match tidy(&handle, clock.now_ms(), GRACE).await {
            Ok(Forgotten { runs: 0, files: 0 }) => {}
            Ok(Forgotten { runs, files }) => tracing::info!(runs, files, "forgotten, as [keep] says"),
            Err(error) => tracing::warn!(%error, "old runs stay where they are for now"),
        }
        pause = EVERY;
    }
}

/// Forgets files that nothing refers to, then runs. What a forgotten run read and wrote goes the next time, so whoever
/// has just begun to repeat it still finds it.
pub async fn tidy(handle: &Handle, now_ms: i64, grace: Duration) -> Result<Forgotten, Denied> {
    let (needed, kept) = handle.ask(move |core| (needed(core), kept(core, now_ms))).await?;
    let storage = handle.storage();
    let files = storage.forget_blobs(&needed, grace, MOST_FILES).await?;
    let mut runs = 0;
    for kept in kept {
        runs += storage.forget_runs(&kept, MOST_RUNS - runs).await?;
    }
    Ok(Forgotten { runs, files })
}

/// Hashes that the state refers to.
fn needed(core: &Core) -> BTreeSet<String> {
    core.apps().values().flat_map(|app| app.blobs()).map(|blob| blob.hash.clone()).collect()
}

/// Which runs of whom stay, of those that say so.
fn kept(core: &Core, now_ms: i64) -> Vec<RunsKept> {
    let of = |(name, app): (&String, &Arc<App>)| {
        let keep = app.manifest().keep;
        let learnt = |number: &u32| app.versions.get(number).and_then(|version| version.run.clone());
        let kept = RunsKept {
            app: name.clone(),
            last: keep.runs,
            since_ms: keep.days.map(|days| now_ms.saturating_sub(i64::from(days) * DAY_MS)),
            besides: app.aliases.values().filter_map(learnt).collect(),
        };
        (kept.last.is_some() || kept.since_ms.is_some()).then_some(kept)
    };
    core.apps().iter().filter_map(of).collect()
}
