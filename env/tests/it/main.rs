//! Integration tests of remora-env: one binary, a module for each subject.

mod import;
mod scenario;
mod simulation;
