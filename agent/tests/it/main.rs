//! The agent from outside: a real server, real clients, the real binary.

mod cli;
mod convert;
mod garbage;
mod journeys;
mod placing;
mod python;
mod refusals;
mod server;
mod standard;
mod twin;
