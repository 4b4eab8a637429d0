//! Jobs as processes of this machine.

use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;

use super::{Executor, Exit, Job, Stop};
use crate::appcore::run::Usage;

/// How long a process may take to save its state before it is killed.
pub const GRACE: Duration = Duration::from_secs(10);

/// Processes of this machine.
#[derive(Debug, Default)]
pub struct Processes {}

#[tonic::async_trait]
impl Executor for Processes {
    async fn run(&self, _: &Job, _: watch::Receiver<Option<Stop>>) -> (Exit, Usage) {
        (Exit::Broken("no".to_owned()), Usage::default())
    }

    async fn reap(&self, _: &Path) {}
}
