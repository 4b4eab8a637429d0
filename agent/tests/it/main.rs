//! The agent from outside: a real server, real clients, the real binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod access;
mod appcore;
mod appcore_process;
mod appcore_simulated;
mod apps;
mod apps_chaos;
mod changes;
mod cli;
mod contract;
mod convert;
mod evaluated;
mod fuzz;
mod garbage;
mod http;
mod journeys;
mod kubernetes;
mod limits;
mod looking_back;
mod own_policy;
mod panel;
mod panel_screens;
mod placing;
mod policies;
mod python;
mod recorded;
mod refusals;
mod replacing;
mod report;
mod repository;
mod restart;
mod server;
mod standard;
mod storage;
mod testbed;
mod tls;
mod tutorial;
mod twin;
