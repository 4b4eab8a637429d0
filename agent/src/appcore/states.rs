//! The life cycle of an application, as one table of legal moves. `docs/life-cycle.md` shows it as a picture, which is
//! drawn from here.

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

/// What an application does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Known, and not yet in use.
    Registered,
    /// Asleep, waiting for a request, a schedule or data.
    Idle,
    /// Asleep, and learning from what came in, or evaluating what it learnt.
    Learning,
    /// Being made ready for requests that wait.
    Waking,
    /// Awake: it executes, or could at once.
    Executing,
    /// Ending what is under way before it sleeps.
    Draining,
    /// Set aside after it failed too often, until an operator releases it.
    Quarantined,
    /// Gone for good; what it did stays in the archive.
    Retired,
}

impl State {
    pub const ALL: [State; 8] = [
        State::Registered,
        State::Idle,
        State::Learning,
        State::Waking,
        State::Executing,
        State::Draining,
        State::Quarantined,
        State::Retired,
    ];

    /// As people and files name it.
    pub fn name(self) -> &'static str {
        match self {
            State::Registered => "registered",
            State::Idle => "asleep.idle",
            State::Learning => "asleep.learning",
            State::Waking => "waking",
            State::Executing => "awake.executing",
            State::Draining => "draining",
            State::Quarantined => "quarantined",
            State::Retired => "retired",
        }
    }

    pub fn named(name: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Where this leads from here; nothing where it is not legal.
    pub fn after(self, cause: Cause) -> Option<State> {
        TABLE.iter().find(|(from, why, _)| (*from, *why) == (self, cause)).map(|(_, _, to)| *to)
    }
}

impl Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why an application moves on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// An operator takes it into use.
    Enabled,
    /// A request wants it.
    Requested,
    /// It is ready.
    Woken,
    /// It did not become ready: the wake command failed, or its deadline passed.
    WakeFailed,
    /// Nothing was asked of it for a while.
    Quiet,
    /// An operator wants it asleep.
    SentToSleep,
    /// Nothing is under way any more.
    Drained,
    /// A trigger makes it learn, or learning that went on in the background is all that is left.
    Learns,
    /// Learning ended.
    Learnt,
    /// Learning failed.
    LearningFailed,
    /// The service ended under it.
    Interrupted,
    /// It failed too often.
    Failures,
    /// An operator lets it go on.
    Released,
    /// An operator ends it.
    Retired,
}

impl Cause {
    pub fn name(self) -> &'static str {
        match self {
            Cause::Enabled => "enabled",
            Cause::Requested => "requested",
            Cause::Woken => "woken",
            Cause::WakeFailed => "wake failed",
            Cause::Quiet => "quiet",
            Cause::SentToSleep => "sent to sleep",
            Cause::Drained => "drained",
            Cause::Learns => "learns",
            Cause::Learnt => "learnt",
            Cause::LearningFailed => "learning failed",
            Cause::Interrupted => "interrupted",
            Cause::Failures => "failures",
            Cause::Released => "released",
            Cause::Retired => "retired",
        }
    }
}

impl Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Every legal move: from, why, to. There is no other.
#[rustfmt::skip]
pub const TABLE: [(State, Cause, State); 29] = [
    (State::Registered,  Cause::Enabled,        State::Idle),
    (State::Registered,  Cause::Retired,        State::Retired),

    (State::Idle,        Cause::Learns,         State::Learning),
    (State::Idle,        Cause::Requested,      State::Waking),
    (State::Idle,        Cause::Failures,       State::Quarantined),
    (State::Idle,        Cause::Retired,        State::Retired),

    (State::Learning,    Cause::Learnt,         State::Idle),
    (State::Learning,    Cause::LearningFailed, State::Idle),
    (State::Learning,    Cause::Requested,      State::Waking),
    (State::Learning,    Cause::Failures,       State::Quarantined),
    (State::Learning,    Cause::Retired,        State::Retired),

    (State::Waking,      Cause::Woken,          State::Executing),
    (State::Waking,      Cause::WakeFailed,     State::Idle),
    (State::Waking,      Cause::SentToSleep,    State::Draining),
    (State::Waking,      Cause::Interrupted,    State::Idle),
    (State::Waking,      Cause::Failures,       State::Quarantined),
    (State::Waking,      Cause::Retired,        State::Retired),

    (State::Executing,   Cause::Quiet,          State::Draining),
    (State::Executing,   Cause::SentToSleep,    State::Draining),
    (State::Executing,   Cause::Interrupted,    State::Idle),
    (State::Executing,   Cause::Failures,       State::Quarantined),
    (State::Executing,   Cause::Retired,        State::Retired),

    (State::Draining,    Cause::Drained,        State::Idle),
    (State::Draining,    Cause::Requested,      State::Waking),
    (State::Draining,    Cause::Interrupted,    State::Idle),
    (State::Draining,    Cause::Failures,       State::Quarantined),
    (State::Draining,    Cause::Retired,        State::Retired),

    (State::Quarantined, Cause::Released,       State::Idle),
    (State::Quarantined, Cause::Retired,        State::Retired),
];

/// The table as a Mermaid diagram, for the docs. The many ways to `quarantined` and
/// `retired` are notes there.
pub fn diagram() -> String {
    let id = |state: State| state.name().replace('.', "_");
    let mut lines = vec!["stateDiagram-v2".to_owned(), "    [*] --> registered".to_owned()];
    for state in State::ALL {
        lines.push(format!("    state \"{}\" as {}", state.name(), id(state)));
    }
    for (from, cause, to) in TABLE {
        if !matches!(cause, Cause::Failures | Cause::Retired) {
            lines.push(format!("    {} --> {} : {cause}", id(from), id(to)));
        }
    }
    for (cause, to) in [(Cause::Failures, State::Quarantined), (Cause::Retired, State::Retired)] {
        let from = TABLE.iter().filter(|(_, why, _)| *why == cause).map(|(from, ..)| from.name());
        let from = from.collect::<Vec<_>>().join(", ");
        lines.push(format!("    note right of {} : {cause}, from {from}", id(to)));
    }
    lines.push("    retired --> [*]".to_owned());
    lines.join("\n") + "\n"
}
