//! Processes that belong to a testbed.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long a process may take to be ready.
const STARTING: Duration = Duration::from_secs(60);
/// Lines of its log that are told of one that did not start.
const TOLD: usize = 5;

/// Starts a process that says in one line of JSON that it is ready, and what it said. It ends with its input, and so
/// with this process; what it says on stderr goes to its log.
pub async fn started<T: DeserializeOwned>(
    what: &str,
    command: &mut Command,
    log: &Path,
) -> Result<(Child, T)> {
    let file = File::options().create(true).append(true).open(log);
    let file = file.with_context(|| format!("cannot write {}", log.display()))?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file).process_group(0).kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("{what} cannot be started"))?;
    let said = child.stdout.take().with_context(|| format!("{what} has no output"))?;
    let line = timeout(STARTING, BufReader::new(said).lines().next_line()).await;
    let line = line.ok().transpose()?.flatten();
    match line.and_then(|line| serde_json::from_str(&line).ok()) {
        Some(ready) => Ok((child, ready)),
        None => bail!("{what} did not start:\n{}", end_of(log)),
    }
}

/// The last lines of a log.
fn end_of(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TOLD)..].join("\n")
}
