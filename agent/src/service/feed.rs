//! What happens to clusters, in order, for those who watch and for the record.

use std::collections::VecDeque;
use std::sync::Arc;

use remora_proto::v1 as wire;
use tokio::sync::broadcast;

use super::books::Made;
use super::convert::Field;
use super::messages::Summary;
use super::refusal::Refusal;

/// How much is kept for those whose watch was cut.
const KEPT: usize = 4096;
/// How far a watcher may fall behind before it is cut off.
const BEHIND: usize = 1024;

/// Something that happened to a cluster.
#[derive(Clone, Debug)]
pub enum Event {
    Registered(Arc<wire::RegisterClusterRequest>, Summary),
    Updated(Arc<wire::UpdateClusterRequest>),
    Decided(Arc<Made>),
    Ended(Arc<wire::ReportOutcomeRequest>),
    /// Nobody reported the outcome of this decision in time.
    Expired(String),
    /// Somebody says that a decision was wrong, or takes it back.
    Disputed(Arc<wire::Disputed>),
    Removed,
}

/// It, with when it happened.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Versions of all clusters are counted together.
    pub version: u64,
    pub at_ms: i64,
    pub cluster: Arc<str>,
    pub event: Event,
}

/// What happened since a version, and what happens from now on.
#[derive(Debug)]
pub struct Watch {
    pub past: Vec<Arc<Entry>>,
    pub future: broadcast::Receiver<Arc<Entry>>,
}

/// What happens to one cluster.
#[derive(Debug)]
pub struct Feed {
    recent: VecDeque<Arc<Entry>>,
    /// What happened up to here is no longer kept.
    forgotten: u64,
    version: u64,
    watchers: broadcast::Sender<Arc<Entry>>,
}

impl Feed {
    /// Begins after a version.
    pub fn new(version: u64) -> Feed {
        let (watchers, _) = broadcast::channel(BEHIND);
        Feed { recent: VecDeque::new(), forgotten: version, version, watchers }
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn push(&mut self, entry: Arc<Entry>) {
        self.version = entry.version;
        if self.recent.len() == KEPT {
            self.forgotten = self.recent.pop_front().map_or(self.forgotten, |oldest| oldest.version);
        }
        self.recent.push_back(Arc::clone(&entry));
        // Nobody may be watching.
        drop(self.watchers.send(entry));
    }

    /// From after a version on, or from now.
    pub fn watch(&self, after: Option<u64>) -> Result<Watch, Refusal> {
        let after = after.unwrap_or(self.version);
        if after < self.forgotten {
            let (kept, at) = (self.forgotten, Field::root("after"));
            return Err(Refusal::TooOld(
                at.refuse(format_args!("is {after}, but what happened up to {kept} is no longer kept")),
            ));
        }
        let past = self.recent.iter().filter(|entry| entry.version > after).cloned().collect();
        Ok(Watch { past, future: self.watchers.subscribe() })
    }
}
