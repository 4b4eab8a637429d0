//! The Python example against a real server.

use std::path::Path;
use std::process::Command;

use remora_agent::service::Config;
use remora_policies::by_name;

use crate::server::Server;

/// `REMORA_TEST_PYTHON` names an interpreter that has `examples/python/requirements.txt` installed.
#[tokio::test(flavor = "multi_thread")]
async fn the_example_gets_an_answer() {
    let Ok(python) = std::env::var("REMORA_TEST_PYTHON") else {
        eprintln!("skipped: set REMORA_TEST_PYTHON to an interpreter with grpcio and grpcio-tools");
        return;
    };
    let server = Server::start(Config::new(by_name("greedy-completion", 0).unwrap())).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/python/place.py");
    let address = server.address.to_string();
    let output =
        tokio::task::spawn_blocking(move || Command::new(python).arg(script).arg(address).output().unwrap());
    let output = output.await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.starts_with("run it on camera-box (greedy-completion)"), "{text}");
    server.stop().await;
}
