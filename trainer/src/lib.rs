//! The learning: look-ahead labels and PPO on the simulated cluster, fair evaluation, run folders and reports.

pub mod board;
pub mod collect;
pub mod config;
pub mod continual;
pub mod course;
pub mod device;
pub mod evaluate;
pub mod evolution;
pub mod journal;
pub mod labels;
pub mod learner;
pub mod nsga2;
pub mod plot;
pub mod ppo;
pub mod report;
pub mod run;
pub mod statistics;
pub mod status;
pub mod summary;
pub mod timeline;
pub mod tune;

pub use config::Config;
