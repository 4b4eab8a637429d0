//! The wire of Remora: gRPC messages and services, generated from `proto/remora/v1/*.proto`, which
//! are the reference for every field.
//!
//! The wire carries facts, never features: no client can build a different observation than training
//! did.

/// Package `remora.v1`.
#[allow(unused_qualifications, missing_debug_implementations, clippy::all)] // generated
pub mod v1 {
    tonic::include_proto!("remora.v1");
}

/// The compiled `.proto` files, as gRPC reflection serves them.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/remora.bin"));
