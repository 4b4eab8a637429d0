//! `remora node`: one node of a testbed.

use anyhow::Result;

use crate::testbed::node;

/// Be one node of a testbed, or a registry; `remora testbed` starts these.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Example:\n  remora node testbed --name shop/nuc --folder /tmp/nuc --server http://127.0.0.1:50051\n\nIt ends with its standard input."
)]
pub struct Args {
    #[command(flatten)]
    node: node::Options,
}

pub async fn run(args: Args) -> Result<()> {
    node::run(args.node).await
}
