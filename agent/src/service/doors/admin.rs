//! Tokens and the audit log.

use std::sync::Arc;

use remora_proto::v1 as wire;
use remora_proto::v1::admin_service_server::AdminService;
use tonic::{Request, Response, Status};

use super::Door;
use crate::service::access::{Caller, Subject};
use crate::service::convert::Field;
use crate::service::refusal::Refusal;
use crate::service::settings::Setting;
use crate::storage::{AuditEntry, AuditFilter, Error, MAX_LIMIT, Paging, Role, Storage, Token};

/// Longest time for which a token may be made, seconds.
const LONGEST_S: i64 = 1_000_000_000;

impl Door {
    fn storage(&self) -> Result<&Arc<Storage>, Status> {
        self.storage.as_ref().ok_or_else(|| {
            Status::failed_precondition(
                "the service keeps no tokens and no audit log; start it with --data FOLDER",
            )
        })
    }
}

#[tonic::async_trait]
impl AdminService for Door {
    async fn create_token(
        &self,
        request: Request<wire::CreateTokenRequest>,
    ) -> Result<Response<wire::CreateTokenResponse>, Status> {
        let who = Caller::of(request.extensions()).who(&self.clock);
        let wire::CreateTokenRequest { name, role, valid_s } = request.into_inner();
        let storage = self.storage()?;
        let name = Field::root("name").name(&name).map_err(Refusal::from)?;
        let role = role_of(role)?;
        let valid_s = valid_s.map(|valid_s| Field::root("valid_s").whole(valid_s, 1..=LONGEST_S)).transpose();
        let expires_at_ms = valid_s.map_err(Refusal::from)?.map(|valid_s| who.at_ms + valid_s as i64 * 1000);
        let made = storage.create_token(&name, role, expires_at_ms, &who).await.map_err(failed)?;
        let token = Some(token(made.token));
        Ok(Response::new(wire::CreateTokenResponse { token, secret: made.secret }))
    }

    async fn list_tokens(
        &self,
        _: Request<wire::ListTokensRequest>,
    ) -> Result<Response<wire::ListTokensResponse>, Status> {
        let tokens = self.storage()?.tokens().into_iter().map(token).collect();
        Ok(Response::new(wire::ListTokensResponse { tokens }))
    }

    async fn revoke_token(
        &self,
        request: Request<wire::RevokeTokenRequest>,
    ) -> Result<Response<wire::Token>, Status> {
        let who = Caller::of(request.extensions()).who(&self.clock);
        let storage = self.storage()?;
        let id = Field::root("id").name(&request.into_inner().id).map_err(Refusal::from)?;
        Ok(Response::new(token(storage.revoke_token(&id, &who).await.map_err(failed)?)))
    }

    async fn audit(
        &self,
        request: Request<wire::AuditRequest>,
    ) -> Result<Response<wire::AuditResponse>, Status> {
        let wire::AuditRequest { page, limit } = request.into_inner();
        let limit = limit.map(|limit| Field::root("limit").whole(limit, 1..=MAX_LIMIT.into())).transpose();
        let limit = limit.map_err(Refusal::from)?.unwrap_or_default() as u32;
        let paging = Paging { token: page, limit, newest_first: true };
        let read = self.storage()?.audit_log(AuditFilter::default(), &paging).await.map_err(failed)?;
        let entries = read.items.into_iter().map(entry).collect();
        let mut answer =
            Response::new(wire::AuditResponse { entries, next_page: read.next.unwrap_or_default() });
        answer.extensions_mut().insert(Subject("audit log".to_owned()));
        Ok(answer)
    }

    async fn settings(
        &self,
        _: Request<wire::SettingsRequest>,
    ) -> Result<Response<wire::SettingsResponse>, Status> {
        let told = |setting: Setting| {
            let Setting { subject, name, value, by } = setting;
            wire::Setting { subject: subject.to_owned(), name: name.to_owned(), value, by: by.to_owned() }
        };
        let settings = Door::settings(self).await.into_iter().map(told).collect();
        Ok(Response::new(wire::SettingsResponse { settings }))
    }
}

fn role_of(role: i32) -> Result<Role, Refusal> {
    let wanted = match wire::Role::try_from(role) {
        Ok(wire::Role::Viewer) => Some(Role::Viewer),
        Ok(wire::Role::Orchestrator) => Some(Role::Orchestrator),
        Ok(wire::Role::Author) => Some(Role::Author),
        Ok(wire::Role::Operator) => Some(Role::Operator),
        Ok(wire::Role::Admin) => Some(Role::Admin),
        Ok(wire::Role::Unspecified) | Err(_) => None,
    };
    let at = Field::root("role");
    wanted.ok_or_else(|| at.refuse("is missing, want viewer, orchestrator, author, operator or admin").into())
}

fn role(role: Role) -> i32 {
    let role = match role {
        Role::Viewer => wire::Role::Viewer,
        Role::Orchestrator => wire::Role::Orchestrator,
        Role::Author => wire::Role::Author,
        Role::Operator => wire::Role::Operator,
        Role::Admin => wire::Role::Admin,
    };
    role.into()
}

fn token(token: Token) -> wire::Token {
    wire::Token {
        id: token.id,
        name: token.name,
        role: role(token.role),
        created_at_ms: token.created_at_ms,
        expires_at_ms: token.expires_at_ms.unwrap_or(0),
        revoked_at_ms: token.revoked_at_ms.unwrap_or(0),
        created_by: token.created_by,
    }
}

fn entry(entry: AuditEntry) -> wire::AuditEntry {
    wire::AuditEntry {
        sequence: entry.sequence,
        at_ms: entry.who.at_ms,
        actor: entry.who.actor,
        role: entry.who.role.map_or(0, role),
        action: entry.action,
        subject: entry.subject,
        details: entry.details.to_string(),
        allowed: entry.allowed,
    }
}

/// What storage says no with.
fn failed(error: Error) -> Status {
    let told = error.to_string();
    match error {
        Error::Invalid(_) => Status::invalid_argument(told),
        Error::Unknown(_) => Status::not_found(told),
        // It may go away by itself.
        Error::Database(_) | Error::Slow(_) => Status::unavailable(told),
        _ => Status::internal(told),
    }
}
