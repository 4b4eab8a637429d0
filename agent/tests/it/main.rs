//! The agent from outside: a real server, real clients, the real binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod changes;
mod cli;
mod convert;
mod fuzz;
mod garbage;
mod journeys;
mod kubernetes;
mod placing;
mod policies;
mod python;
mod refusals;
mod repository;
mod restart;
mod server;
mod standard;
mod storage;
mod twin;
