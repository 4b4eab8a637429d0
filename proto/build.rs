//! Compiles the `.proto` files: messages, clients and servers, and the descriptors that reflection
//! answers with.

use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

use prost::Message;

const FILES: [&str; 2] = ["remora/v1/cluster.proto", "remora/v1/placement.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("remora.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .btree_map(".") // in a fixed order
        .message_attribute(".", "#[derive(serde::Serialize)]") // for `--json`
        .compile_fds(descriptors)?;
    Ok(())
}
