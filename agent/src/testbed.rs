//! A small cluster on one machine, of real processes: what is simulated elsewhere happens here with real bytes over
//! real links, under the same service.
//!
//! ```text
//! run.rs ── asks where, then sends the task there ──► node.rs, one process each ── fetches from ──► others, registry
//!    │                  ▲                                │  runs burn.rs, stores outputs                  │
//!    ▼                  └──────── reports outcomes ◄─────┘                                                ▼
//! remora serve                                          network.rs: namespaces and tbf, or relay.rs on loopback
//! ```
//!
//! Everything plays a scenario that was made `speed` times as fast ([`remora_env::Scenario::faster`]): the service,
//! the nodes and the simulator that is compared with them read the same file and need no conversions.

pub mod burn;
pub mod compare;
mod content;
mod driver;
pub mod faults;
mod ledger;
mod links;
pub mod live;
pub mod network;
pub mod node;
mod process;
mod recorded;
mod relay;
pub mod run;
mod service;
mod shelf;
pub mod tether;
pub(crate) mod web;
