//! The world of Remora: an edge cluster, the tasks that arrive at it, and what becomes of them.
//!
//! Data flows one way, and the modules follow it:
//! [`scenario`] (a TOML file) → [`world`] (one seeded instance of it) → [`cluster`] (the facts at
//! one moment) → [`observation`] (what a policy sees) → [`episode`] (decisions in, outcomes out).
//!
//! Nothing in this crate reads a clock, draws from an unseeded generator or iterates a hash map:
//! the same scenario and seed give the same bytes on every machine.

mod accept;
pub mod bandwidth;
pub mod batch;
pub mod bottleneck;
pub mod calibrate;
pub mod catalogue;
pub mod cluster;
pub mod contract;
pub mod device;
pub mod episode;
mod executor;
pub mod family;
pub mod faults;
pub mod file;
mod fit;
mod imagine;
pub mod import;
mod locate;
pub mod measured;
pub mod network;
pub mod observation;
pub mod outcome;
pub mod power;
pub mod random;
pub mod record;
mod resume;
pub mod scenario;
mod simulation;
pub mod time;
pub mod topology;
pub mod trace;
mod transfers;
pub mod world;

pub use batch::Batch;
pub use cluster::Cluster;
pub use episode::{Episode, Next};
pub use observation::Observation;
pub use outcome::Outcome;
pub use resume::Arrivals;
pub use scenario::{Scenario, Scenarios};
pub use time::Time;
pub use world::World;
