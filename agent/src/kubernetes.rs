//! Remora beside Kubernetes, both ways: as a scheduler of its own for the pods that name it, and as an
//! extender whose advice Kubernetes' own scheduler takes.
//!
//! ```text
//! objects ─► facts (pure) ─► book (one cluster) ─► core (place) ─► filter ─► binding
//! ```

pub mod bind;
pub mod book;
pub mod configuration;
pub mod control_plane;
pub mod core;
pub mod extender;
pub mod facts;
pub mod filter;
mod local;
pub mod scheduler;
