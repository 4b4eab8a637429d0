//! Compiles the `.proto` files: messages, clients and servers, and the descriptors that reflection
//! answers with.

use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

use prost::Message;

const FILES: [&str; 9] = [
    "remora/v1/cluster.proto",
    "remora/v1/change.proto",
    "remora/v1/placement.proto",
    "remora/v1/cluster_service.proto",
    "remora/v1/policy.proto",
    "remora/v1/admin.proto",
    "remora/v1/journal.proto",
    "remora/v1/app.proto",
    "remora/v1/training.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("remora.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .btree_map(".") // in a fixed order
        .message_attribute(".", "#[derive(serde::Serialize)]") // for `--json`
        .enum_attribute(".", "#[derive(serde::Serialize)]")
        .compile_fds(descriptors)?;
    Ok(())
}
