//! Integration tests of remora-env: one binary, a module for each subject.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod batch;
mod calibrate;
mod describe;
mod family;
mod faster;
mod faults;
mod fuzz;
mod import;
mod larger;
mod measured;
mod model;
mod queues;
mod record;
mod resume;
mod scenario;
mod simulation;
