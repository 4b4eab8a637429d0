//! The outside of Remora: the command line, and the gRPC service with its one owner of the facts.

pub mod appcore;
pub mod client;
pub mod commands;
pub mod evaluation;
mod files;
mod http;
pub mod kubernetes;
pub mod logs;
mod memory;
pub mod panel;
pub mod report;
pub mod service;
pub mod storage;
pub mod testbed;
pub mod training;
