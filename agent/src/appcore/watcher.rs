//! Watched folders: their new files are notices of data.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use tokio::time::sleep;

use super::core::{By, Core, Input};
use super::manifest::On;
use super::owner::{Denied, Handle};
use super::states::State;
use crate::storage::hex;

/// How often folders are looked at. A file is taken once it has not changed between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Largest file that is taken, bytes.
const LARGEST: u64 = 256 << 20;

/// A file as it was at a look: bytes, and when it changed, nanoseconds since 1970.
type Seen = (u64, u128);

/// Looks at the folders of all triggers until AppCore is gone.
pub async fn watch(handle: Handle) {
    let mut seen: BTreeMap<(String, PathBuf), Seen> = BTreeMap::new();
    let mut taken: BTreeMap<(String, PathBuf), Seen> = BTreeMap::new();
    loop {
        let Ok(folders) = handle.ask(folders).await else { return };
        let mut now = BTreeMap::new();
        for (app, folder) in folders {
            for (path, state) in files(Path::new(&folder)) {
                now.insert((app.clone(), path), state);
            }
        }
        for (key, state) in &now {
            if seen.get(key) != Some(state) || taken.get(key) == Some(state) {
                continue;
            }
            match take(&handle, &key.0, &key.1, *state).await {
                Ok(()) => {
                    taken.insert(key.clone(), *state);
                }
                Err(Denied::Stopping) => return,
                // It is tried again at the next look.
                Err(error) => tracing::warn!(app = key.0, file = %key.1.display(), %error, "not taken"),
            }
        }
        taken.retain(|key, _| now.contains_key(key));
        seen = now;
        sleep(LOOK).await;
    }
}

fn folders(core: &Core) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (name, app) in core.apps() {
        if matches!(app.state, State::Registered | State::Retired) {
            continue;
        }
        for state in app.triggers.values() {
            if let On::Data { folder: Some(folder), .. } = &state.trigger.on {
                found.push((name.clone(), folder.clone()));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Plain files in a folder; hidden ones and those that end with `.part` are still being written.
fn files(folder: &Path) -> Vec<(PathBuf, Seen)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let file = |entry: std::fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let data = entry.metadata().ok().filter(|data| data.is_file() && data.len() <= LARGEST)?;
        let changed = data.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_nanos();
        let ready = !name.starts_with('.') && !name.ends_with(".part");
        ready.then(|| (entry.path(), (data.len(), changed)))
    };
    entries.filter_map(|entry| file(entry.ok()?)).collect()
}

async fn take(handle: &Handle, app: &str, path: &Path, (bytes, changed): Seen) -> Result<(), Denied> {
    let key = format!("{}\n{bytes}\n{changed}", path.display());
    let key = format!("file {}", hex(&Sha256::digest(key)));
    if handle.storage().notice_known(app, &key).await? {
        return Ok(());
    }
    let file = path.to_owned();
    let content = tokio::task::spawn_blocking(move || std::fs::read(file)).await;
    let content = match content {
        Ok(Ok(content)) => content,
        // It is gone again.
        _ => return Ok(()),
    };
    let name = path.file_name().map_or_else(|| "data".to_owned(), |name| name.to_string_lossy().into_owned());
    let file = handle.keep(name, content).await?;
    let by = By::new("folder", format!("{} appeared", path.display()));
    let (bytes, inputs) = (file.bytes, vec![file]);
    handle.tell(Input::Notice { app: app.to_owned(), key, items: 1, bytes, inputs, by }).await.map(drop)
}
