//! `remora audit`: who did what to a running service.

use remora_proto::v1 as wire;
use remora_proto::v1::admin_service_client::AdminServiceClient;
use serde_json::{Value, json};

use super::{date, print, table};
use crate::client::ServerArgs;

/// Show who did what to a running service, and who was refused, newest first.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  remora audit --limit 20")]
pub struct Args {
    /// Entries to show.
    #[arg(long, default_value_t = 50)]
    limit: usize,
    #[command(flatten)]
    server: ServerArgs,
}

/// Entries that are asked for at a time.
const PAGE: usize = 1000;

pub async fn run(args: Args, json: bool) -> anyhow::Result<()> {
    let service = args.server.connect().await?;
    let (mut entries, mut page) = (Vec::new(), String::new());
    while entries.len() < args.limit {
        let limit = Some((args.limit - entries.len()).min(PAGE) as i64);
        let ask = |wire| {
            let request = wire::AuditRequest { page: page.clone(), limit };
            async move { AdminServiceClient::new(wire).audit(request).await }
        };
        let answer = service.ask(ask).await?;
        entries.extend(answer.entries);
        if answer.next_page.is_empty() {
            break;
        }
        page = answer.next_page;
    }
    if json {
        let rows: Vec<Value> = entries.iter().map(row).collect();
        return print(json!({ "rows": rows }));
    }
    let mut table = table(&["at", "who", "did", "to", "allowed", "details"]);
    for entry in entries {
        let allowed = if entry.allowed { "yes" } else { "refused" };
        let cells = [date(entry.at_ms), entry.actor, entry.action, entry.subject];
        table.add_row(cells.into_iter().chain([allowed.to_owned(), entry.details]));
    }
    print(table)
}

fn row(entry: &wire::AuditEntry) -> Value {
    json!({
        "sequence": entry.sequence,
        "at_ms": entry.at_ms,
        "actor": entry.actor,
        "role": entry.role().as_str_name().trim_start_matches("ROLE_").to_lowercase(),
        "action": entry.action,
        "subject": entry.subject,
        "details": serde_json::from_str::<Value>(&entry.details).unwrap_or_default(),
        "allowed": entry.allowed,
    })
}
