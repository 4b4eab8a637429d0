//! `remora token`: who may call a running service.

use clap::{Args, Subcommand, ValueEnum};
use remora_proto::v1 as wire;
use remora_proto::v1::admin_service_client::AdminServiceClient;
use serde_json::{Value, json};

use super::{date, print, table};
use crate::client::{ServerArgs, refused};

/// Make, list and revoke access tokens of a running service.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  remora token create edge-orchestrator --role orchestrator --days 90")]
pub enum Command {
    /// Make a token; it is shown this once.
    #[command(after_help = "Example:\n  remora token create edge-orchestrator --role orchestrator --days 90")]
    Create(CreateArgs),
    /// List all tokens, without their secrets.
    #[command(after_help = "Example:\n  remora token list")]
    List(ServerArgs),
    /// Make a token void.
    #[command(after_help = "Example:\n  remora token revoke 5e0c3a1f9b7d2468")]
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Who uses it.
    name: String,
    /// What its holder may do.
    #[arg(long)]
    role: Role,
    /// Days for which it is valid; until it is revoked unless given.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    days: Option<u32>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// The token's id, from `remora token list`.
    id: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    /// Read everything but tokens and the audit log.
    Viewer,
    /// Also place tasks, report outcomes and what changes in clusters.
    Orchestrator,
    /// Also register applications and new versions of them, run them, and dispute decisions.
    Author,
    /// Also register and remove clusters, and say which policies and versions serve how.
    Operator,
    /// Also make and revoke tokens, and read the audit log.
    Admin,
}

pub async fn run(command: Command, json: bool) -> anyhow::Result<()> {
    match command {
        Command::Create(args) => create(args, json).await,
        Command::List(args) => list(args, json).await,
        Command::Revoke(args) => revoke(args, json).await,
    }
}

async fn create(args: CreateArgs, json: bool) -> anyhow::Result<()> {
    let role = match args.role {
        Role::Viewer => wire::Role::Viewer,
        Role::Orchestrator => wire::Role::Orchestrator,
        Role::Author => wire::Role::Author,
        Role::Operator => wire::Role::Operator,
        Role::Admin => wire::Role::Admin,
    };
    let valid_s = args.days.map(|days| i64::from(days) * 86_400);
    let request = wire::CreateTokenRequest { name: args.name, role: role.into(), valid_s };
    // Sent once: a token whose secret was lost on the way would be one that nobody knows of.
    let mut client = AdminServiceClient::new(args.server.connect().await?.wire());
    let made = client.create_token(request).await.map_err(refused)?.into_inner();
    if json {
        let token = row(&made.token.unwrap_or_default());
        return print(json!({ "secret": made.secret, "rows": [token] }));
    }
    print(made.secret)
}

async fn list(args: ServerArgs, json: bool) -> anyhow::Result<()> {
    let ask =
        |wire| async move { AdminServiceClient::new(wire).list_tokens(wire::ListTokensRequest {}).await };
    let tokens = args.connect().await?.ask(ask).await?.tokens;
    let rows: Vec<Value> = tokens.iter().map(row).collect();
    if json {
        return print(json!({ "rows": rows }));
    }
    let mut table = table(&["id", "name", "role", "created", "by", "expires", "revoked"]);
    for token in &tokens {
        let role = row(token)["role"].as_str().unwrap_or_default().to_owned();
        let (created, expires, revoked) = (token.created_at_ms, token.expires_at_ms, token.revoked_at_ms);
        let cells = [token.id.clone(), token.name.clone(), role, date(created), token.created_by.clone()];
        table.add_row(cells.into_iter().chain([date(expires), date(revoked)]));
    }
    print(table)
}

async fn revoke(args: RevokeArgs, json: bool) -> anyhow::Result<()> {
    let request = wire::RevokeTokenRequest { id: args.id };
    let ask = |wire| {
        let request = request.clone();
        async move { AdminServiceClient::new(wire).revoke_token(request).await }
    };
    let token = args.server.connect().await?.ask(ask).await?;
    if json { print(json!({ "rows": [row(&token)] })) } else { print(format_args!("revoked {}", token.name)) }
}

fn row(token: &wire::Token) -> Value {
    let role = token.role().as_str_name().trim_start_matches("ROLE_").to_lowercase();
    json!({
        "id": token.id,
        "name": token.name,
        "role": role,
        "created_at_ms": token.created_at_ms,
        "created_by": token.created_by,
        "expires_at_ms": token.expires_at_ms,
        "revoked_at_ms": token.revoked_at_ms,
    })
}
