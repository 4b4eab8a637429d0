//! What of AppCore's history is kept in tables, for questions that its present state does not answer.

use super::core::{Alias, Version};
use super::run::Run;
use super::states::{Cause, State};

/// A row, new or in place of the one with the same key.
#[derive(Clone, Debug, PartialEq)]
pub enum Row {
    /// An application as it stands. The manifest is TOML.
    App {
        app: String,
        state: State,
        since_ms: i64,
        manifest: String,
    },
    Definition {
        app: String,
        number: u32,
        manifest: String,
        code: Option<String>,
        at_ms: i64,
        actor: String,
    },
    Version {
        app: String,
        version: Box<Version>,
    },
    Run(Box<Run>),
    Transition {
        app: String,
        number: u64,
        at_ms: i64,
        from: State,
        to: State,
        cause: Cause,
        actor: String,
        reason: String,
    },
    Alias {
        app: String,
        number: u64,
        at_ms: i64,
        alias: Alias,
        version: Option<u32>,
        actor: String,
        reason: String,
    },
    /// A trigger as it stands.
    Trigger {
        app: String,
        trigger: String,
        spec: String,
        paused: bool,
        next_ms: Option<i64>,
        fired_ms: Option<i64>,
    },
    /// It fired, or why it did not.
    Fired {
        app: String,
        number: u64,
        at_ms: i64,
        trigger: String,
        actor: String,
        skipped: Option<String>,
    },
    Notice {
        app: String,
        key: String,
        at_ms: i64,
        items: u64,
        bytes: u64,
        actor: String,
    },
}
