//! AppCore: applications that sleep (idle, or learning from what came in) and wake (to execute), under one control.
//!
//! ```text
//! doors (gRPC, command line, panel, watched folders) ─► owner (one task) ─► core: handle(now, input) ─► effects
//!                                                          │                                             │
//!                                                     journal, tables                 launcher: placement, executor
//! ```

pub mod apps;
pub mod core;
pub mod door;
pub mod executor;
pub mod folder;
pub mod gate;
pub mod housekeeping;
pub mod launcher;
pub mod manifest;
pub mod owner;
pub mod placing;
pub mod rows;
pub mod run;
pub mod schedule;
pub mod states;
mod watcher;
