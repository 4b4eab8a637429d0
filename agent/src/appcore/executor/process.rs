//! Jobs as processes of this machine.

use std::time::Duration;

/// How long a process may take to save its state before it is killed.
pub const GRACE: Duration = Duration::from_secs(10);
