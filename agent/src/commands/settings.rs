//! `remora settings`: what a running service runs with.

use remora_proto::v1 as wire;
use remora_proto::v1::admin_service_client::AdminServiceClient;

use super::tables::print_rows;
use super::{print, table};
use crate::client::ServerArgs;

/// Show what a running service was started with, without secrets, and what changes each.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  remora settings")]
pub struct Args {
    #[command(flatten)]
    server: ServerArgs,
}

/// Prints a line for each setting.
///
/// # Errors
/// When the service cannot be reached or refuses.
pub async fn run(args: Args, json: bool) -> anyhow::Result<()> {
    let ask = |wire| async move { AdminServiceClient::new(wire).settings(wire::SettingsRequest {}).await };
    let settings = args.server.connect().await?.ask(ask).await?.settings;
    if json {
        return print_rows(&settings);
    }
    let mut table = table(&["about", "what", "is", "changed by"]);
    for wire::Setting { subject, name, value, by } in settings {
        table.add_row([subject, name, value, if by.is_empty() { "nothing".to_owned() } else { by }]);
    }
    print(table)
}
