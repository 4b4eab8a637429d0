//! The learning: PPO on the simulated cluster, fair evaluation, run folders and reports.

pub mod collect;
pub mod config;
pub mod evaluate;
pub mod journal;
pub mod nsga2;
pub mod plot;
pub mod ppo;
pub mod report;
pub mod run;
pub mod statistics;
pub mod summary;
pub mod timeline;
pub mod tune;

pub use config::Config;
